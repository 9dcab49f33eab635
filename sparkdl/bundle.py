"""A trained model as a directory that says what it expects, what it returns, and that nobody changed it.

``docs/bundle-format.md`` describes the format. No Spark here, and nothing is unpickled unless the caller trusts it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from sparkdl import bundle_files, store
from sparkdl import program as programs
from sparkdl.bundle_files import MANIFEST, WEIGHTS, check, sha256, without_aliases
from sparkdl.columns import answers
from sparkdl.errors import BundleError, BundleIntegrityError, SparkdlError, UntrustedBundleError
from sparkdl.export import build
from sparkdl.graph import Graph
from sparkdl.heads import with_inner_outputs
from sparkdl.probe import describe_outputs, example_inputs, float_dtype, ragged_inputs
from sparkdl.program import Program
from sparkdl.signature import Signature

if TYPE_CHECKING:
    from sparkdl.drift import Reference
    from sparkdl.score.predictor import Predictor

__all__ = ["Bundle", "float_dtype"]


@dataclass(frozen=True)
class Bundle:
    """A model with its signature, immutable and in memory.

    task: ``regression``, ``binary``, ``multiclass`` or None; it says how outputs become predictions.
    metrics, training: what training reported, and with which settings; JSON values.
    trusted: which code may run to load it: any (True), none (False), or that of some packages (their names).
    stored_graph: what ``with_graph`` made; ``graph`` checks it first.
    """

    program: Program
    weights: Mapping[str, Tensor]
    signature: Signature
    task: str | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    trusted: bool | Collection[str] = False
    stored_graph: Graph | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "trusted", programs.checked_trust(self.trusted))

    @classmethod
    def from_module(
        cls,
        module: nn.Module,
        signature: Signature,
        *,
        task: str | None = None,
        outputs: Mapping[str, str] | None = None,
        factory: Callable[[], nn.Module] | None = None,
        example: Sequence[Tensor] | None = None,
        trusted: bool | Collection[str] = False,
    ) -> Bundle:
        """Bundle a module: run it, derive the outputs' signature, export it.

        signature: its inputs, in the order of ``forward``'s arguments. Floating inputs take the module's own
            floating dtype; outputs are found out.
        outputs: further ones: ``{"embedding": "layers.3"}`` gives what the module inside of that name returns.
        example: arguments for two or more rows if random ones will not do (as they will not for an nn.Embedding with
            few entries: zeros are used for integers); those whose length varies ``(B, L, ...)``, with another L for
            each unless the model needs two to be alike.
        trusted: keep a module that cannot be exported as code: an import path, or pickle.

        Raises SignatureError if the module does not take these inputs, or if what it returns for a row depends on
        the rows beside it; UntrustedBundleError if it cannot be exported and ``trusted`` does not allow the code.
        """
        if outputs:
            module, factory = with_inner_outputs(module, outputs), None
        signature = signature.with_float_dtype(float_dtype(module))
        arguments = list(example) if example is not None else example_inputs(signature)
        described = describe_outputs(module, signature, arguments, task)
        signature = replace(signature, outputs=described)
        answers(signature)  # raises if the decoder does not take these outputs
        program = build(module, arguments, ragged=ragged_inputs(signature), factory=factory)
        try:
            program.check_trust(trusted)
        except UntrustedBundleError as error:
            raise UntrustedBundleError(
                f"the model cannot be exported by torch.export ({program.reason}). Change it so that it can, or say "
                f"trusted=True to keep it as code ({program.kind}), which whoever loads it will have to trust too",
                uri=None,
            ) from error
        weights, aliases = without_aliases(module.state_dict())
        weights.update({alias: weights[name] for alias, name in aliases.items()})
        return cls(program, weights, signature, task, trusted=trusted)

    @classmethod
    def from_state_dict(
        cls,
        factory: Callable[[], nn.Module],
        state: Mapping[str, Tensor] | str | os.PathLike[str],
        signature: Signature,
        **options: Any,
    ) -> Bundle:
        """Bundle the module that ``factory`` makes, with the weights of ``state``: a state dict, or the URI of one as
        ``.safetensors`` or by ``torch.save`` (read with ``weights_only=True``). options: as for ``from_module``.

        Raises StoreError if the file cannot be read, BundleError if it holds anything but tensors or those of
        another module.
        """
        from sparkdl.interop import state_dict

        return cls.from_module(state_dict.module(factory, state), signature, factory=factory, **options)

    @classmethod
    def from_torchscript(
        cls,
        script: str | os.PathLike[str] | torch.jit.ScriptModule,
        signature: Signature,
        *,
        task: str | None = None,
        trusted: bool = False,
    ) -> Bundle:
        """Bundle a TorchScript module, or the file of one. It holds code: here and to load it say ``trusted=True``."""
        from sparkdl.interop import torchscript

        return torchscript.bundle(script, signature, task, trusted)

    @classmethod
    def from_keras(cls, model: Any, signature: Signature | None = None, **options: Any) -> Bundle:
        """Bundle a Keras 3 model on the torch backend.

        signature: by default the model's own inputs, each from the column of its name, in the layout the model has
        (images are height, width, channels unless it says otherwise). options: as for ``from_module``.
        Raises SparkdlError if Keras is missing or runs on another backend.
        """
        from sparkdl.interop import keras

        return keras.bundle(model, signature, options)

    @classmethod
    def from_huggingface(
        cls,
        folder: str | os.PathLike[str],
        *,
        output: str | None = None,
        task: str | None = None,
        column: str = "input_ids",
        trusted: bool = False,
    ) -> Bundle:
        """Bundle the Hugging Face model in a local folder: its ``config.json`` and ``model.safetensors``.

        output: ``logits`` of a model with a head for classes, or ``embedding``: the mean of the last hidden state over
            the tokens. By default what the architecture in the config has.
        task: what the logits mean, see ``Bundle``; None gives them as they are.
        column: of the token ids, ``array<bigint>``, whose length varies; padding and its mask are made while scoring.
        trusted: read weights that are pickled too (``pytorch_model.bin``). Code from the folder never runs.
        """
        from sparkdl.interop import huggingface

        return huggingface.bundle(folder, output, task, column, trusted)

    @classmethod
    def from_onnx(
        cls, model: str | os.PathLike[str] | bytes, signature: Signature | None = None, *, task: str | None = None
    ) -> Bundle:
        """Bundle an ONNX model, given as its file or its bytes; onnxruntime runs it.

        signature: by default the graph's own inputs, each from the column of its name; the first dimension is rows.
        Raises BundleError for a model with weights in further files or operators that ONNX does not have.
        """
        from sparkdl.interop import onnx

        return onnx.bundle(model, signature, task)

    @classmethod
    def from_mlflow(
        cls, uri: str, signature: Signature | None = None, *, trusted: bool = False, **options: Any
    ) -> Bundle:
        """Bundle an MLflow model: one that ``to_mlflow`` wrote, or, with ``trusted=True``, for it is a pickle, one of
        MLflow's pytorch flavour (``signature`` and options as for ``from_module``)."""
        from sparkdl.interop import mlflow

        return mlflow.bundle(uri, signature, trusted, options)

    def to_onnx(self, path: str, *, tolerance: float = 1e-4) -> None:
        """Write the model as ONNX to a local file: inputs and outputs by the names of the signature, any number of rows.

        Raises BundleError if torch cannot export it, or if onnxruntime's outputs are farther than ``tolerance``
        (relative, and absolute) from torch's for any of several numbers of rows; then nothing is written.
        """
        from sparkdl.graph import exported

        exported.save(self, path, tolerance)

    def to_mlflow(self, path: str) -> None:
        """Write the model to a local folder as an MLflow pyfunc: for ``mlflow.pyfunc.load_model`` and ``spark_udf``."""
        from sparkdl.interop import mlflow

        mlflow.save(self, path)

    def with_training(
        self, weights: Mapping[str, Tensor], metrics: Mapping[str, Any], training: Mapping[str, Any]
    ) -> Bundle:
        """The same model with other weights, and what training says about them; tied weights stay tied."""
        tensors, aliases = without_aliases(self.weights)
        new = {name: weights[name] for name in tensors}
        new |= {alias: new[name] for alias, name in aliases.items()}
        return replace(self, weights=new, metrics=metrics, training=training, stored_graph=None)

    def with_reference(self, rows: Any) -> Bundle:
        """The same model with a reference for drift made of ``rows``: a pyarrow table of the columns that it reads, such
        as it was trained on, shuffled; a few thousand. ``fit`` makes one by itself. Raises as ``drift.Reference.of``."""
        from sparkdl import drift

        told = drift.Reference.of(rows, self).to_json()
        return replace(self, training={**self.training, drift.KEY: told})

    def with_graph(self, *, tolerance: float = 1e-4) -> Bundle:
        """The same bundle with its graph in it, one ONNX model that runs without Python; see ``sparkdl.graph``. Raises as
        ``sparkdl.graph.build``."""
        from sparkdl.graph.build import build

        return replace(self, stored_graph=build(self, tolerance))

    @cached_property
    def graph(self) -> Graph:
        """The graph that is in the bundle, or one made now. Raises as ``with_graph``, BundleIntegrityError for a stored one
        that is another than is told of it."""
        from sparkdl.graph.build import build, checked

        return build(self) if self.stored_graph is None else checked(self.stored_graph, self.signature)

    @cached_property
    def reference(self) -> Reference | None:
        """What drift is told against, or None; None too, with a warning in the log, if it cannot be understood."""
        from sparkdl import drift

        return drift.Reference.in_bundle(self)

    def module(self) -> nn.Module:
        """The model as a torch module in evaluation mode, taking tensors and returning its raw outputs."""
        return self.program.load(self.weights, trusted=self.trusted)

    @cached_property
    def _predictor(self) -> Predictor:
        from sparkdl.score.predictor import Predictor

        return Predictor(self)

    def predict(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Named arrays in, named arrays out, without Spark.

        inputs: for each input of the signature an array of shape ``(B, *shape)``; a ``Ragged`` where the length
            varies; nothing for masks.
        Returns ``prediction`` and, for classification, ``probability`` (float32, ``(B, classes)``); for task None the
        outputs by name. Raises SignatureError for a missing name, a wrong shape, or a dtype that would lose values;
        BundleError if the model itself fails on them.
        """
        try:
            return self._predictor.predict(inputs)
        except SparkdlError:
            raise
        except Exception as error:  # whatever a model's operators raise
            raise BundleError(f"the model failed on these inputs: {type(error).__name__}: {error}", uri=None) from error

    @cached_property
    def files(self) -> dict[str, bytes]:
        """What ``save`` writes, by file name; the manifest, last, holds the digests of the others."""
        return bundle_files.packed(
            self.program,
            self.weights,
            self.signature,
            self.stored_graph,
            {"task": self.task, "metrics": self.metrics, "training": self.training},
        )

    def _repr_html_(self) -> str:
        from sparkdl.showing import facts

        return facts.html(facts.of_bundle(self))

    @property
    def digest(self) -> str:
        """sha256 of the manifest, which holds that of every other file: one name for exactly this model."""
        return sha256(self.files[MANIFEST])

    def save(self, uri: str, *, overwrite: bool = False) -> None:
        """Write the bundle to a directory at ``uri``, the manifest last: without it there is no bundle.

        Raises BundleError if there is one already and ``overwrite`` is not True, StoreError if it cannot be written.
        """
        if store.exists(store.join(uri, MANIFEST)):
            if not overwrite:
                raise BundleError(f"there is a bundle at {uri!r} already; say overwrite=True to replace it", uri=uri)
            store.delete(store.join(uri, MANIFEST))
        for name in sorted(self.files, key=lambda name: name == MANIFEST):  # what was loaded may have another order
            store.write_bytes(store.join(uri, name), self.files[name])

    @classmethod
    def load(cls, uri: str, *, trusted: bool | Collection[str] = False) -> Bundle:
        """Read the bundle at ``uri``, in a store or ``registry://name@alias`` of the configured registry, all digests checked
        before anything of it is loaded.

        trusted: allow a program that is code (see ``Program``): True for any, or names of packages for what they hold
        and a bundle names by import path. Raises BundleNotFoundError, BundleIntegrityError, BundleVersionError,
        UntrustedBundleError, InvalidParamError.
        """
        from sparkdl.registry import uri as registry_uri

        trusted = programs.checked_trust(trusted)
        if registry_uri.is_registry_uri(uri):
            return registry_uri.load(uri, trusted=trusted)
        bundle = cls.from_files(bundle_files.read(uri), uri=uri, trusted=trusted)
        bundle.program.check_trust(trusted)  # now, before the caller builds on it
        return bundle

    @classmethod
    def from_files(
        cls, files: Mapping[str, bytes], *, uri: str | None = None, trusted: bool | Collection[str] = False
    ) -> Bundle:
        """The bundle out of the contents of its files, checked. Raises as ``load`` does."""
        trusted = programs.checked_trust(trusted)
        manifest = check(files, uri)
        graph_told = manifest.get("graph")
        graph = None if graph_told is None else Graph.from_json(graph_told, files.get(bundle_files.GRAPH, b""))
        try:
            weights = safetensors.torch.load(files[WEIGHTS])
            weights.update({alias: weights[name] for alias, name in manifest["aliases"].items()})
            told = manifest["program"]
            program = Program(
                kind=told["kind"],
                content=files[programs.FILES[told["kind"]]] if told["kind"] in programs.FILES else b"",
                factory=told["factory"],
                kwargs=told["kwargs"],
                reason=told["reason"],
            )
            signature = Signature.from_json(manifest["signature"])
            bundle_files.check_told(program, manifest)
            bundle = cls(
                program, weights, signature, manifest["task"], manifest["metrics"], manifest["training"], trusted, graph
            )
        except (KeyError, TypeError, AttributeError, ValueError, safetensors.SafetensorError) as error:
            raise BundleIntegrityError(
                f"the bundle {uri or ''} cannot be understood: {error!r}", uri=uri, file=MANIFEST
            ) from error
        bundle.__dict__["files"] = dict(files)  # what was read is what will be written: same bytes, same digest
        return bundle

    @classmethod
    def verify(cls, uri: str) -> str:
        """Check that every file is there and unchanged, load nothing; returns the digest. Raises as ``load`` does."""
        files = bundle_files.read(uri)
        check(files, uri)
        return sha256(files[MANIFEST])
