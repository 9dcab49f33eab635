"""A trained model as a directory that says what it expects, what it returns, and that nobody changed it.

``docs/bundle-format.md`` describes the format. No Spark here, and nothing is unpickled unless the caller trusts it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from sparkdl import __version__, store, tasks
from sparkdl import program as programs
from sparkdl.errors import (
    BundleError,
    BundleIntegrityError,
    BundleNotFoundError,
    BundleVersionError,
    SignatureError,
    UntrustedBundleError,
)
from sparkdl.program import Program
from sparkdl.signature import Signature, TensorSpec

if TYPE_CHECKING:
    from sparkdl.score.predictor import Predictor

FORMAT = 1
MANIFEST = "manifest.json"
WEIGHTS = "weights.safetensors"
PROGRAM_FILES = {"export": programs.EXPORTED, "pickle": "program.pkl"}
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Bundle:
    """A model with its signature, immutable and in memory.

    task: ``regression``, ``binary``, ``multiclass`` or None; it says how outputs become predictions.
    metrics, training: what training reported, and with which settings; JSON values.
    """

    program: Program
    weights: Mapping[str, Tensor]
    signature: Signature
    task: str | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    trusted: bool = False

    @classmethod
    def from_module(
        cls,
        module: nn.Module,
        signature: Signature,
        *,
        task: str | None = None,
        factory: Callable[[], nn.Module] | None = None,
        example: Sequence[Tensor] | None = None,
        trusted: bool = False,
    ) -> Bundle:
        """Bundle a module: run it once, derive the outputs' signature, export it.

        signature: its inputs, in the order of ``forward``'s arguments. Floating inputs take the module's own
            floating dtype; outputs are found out.
        example: arguments for two or more rows if random ones will not do (as they will not for an nn.Embedding with
            few entries: zeros are used for integers).
        trusted: keep a module that cannot be exported as code: an import path, or pickle.

        Raises SignatureError if the module does not take these inputs, UntrustedBundleError if it cannot be exported
        and ``trusted`` is not True.
        """
        signature = signature.with_float_dtype(float_dtype(module))
        arguments = list(example) if example is not None else example_inputs(signature)
        outputs = describe_outputs(module, signature, arguments, task)
        program = programs.build(module, arguments, factory=factory)
        if program.kind != "export" and not trusted:
            raise UntrustedBundleError(
                f"the model cannot be exported by torch.export ({program.reason}). Change it so that it can, or say "
                f"trusted=True to keep it as code ({program.kind}), which whoever loads it will have to trust too",
                uri=None,
            )
        weights, aliases = _without_aliases(module.state_dict())
        weights.update({alias: weights[name] for alias, name in aliases.items()})
        return cls(program, weights, replace(signature, outputs=outputs), task, trusted=trusted)

    def with_training(
        self, weights: Mapping[str, Tensor], metrics: Mapping[str, Any], training: Mapping[str, Any]
    ) -> Bundle:
        """The same model with other weights, and what training says about them; tied weights stay tied."""
        tensors, aliases = _without_aliases(self.weights)
        new = {name: weights[name] for name in tensors}
        new |= {alias: new[name] for alias, name in aliases.items()}
        return replace(self, weights=new, metrics=metrics, training=training)

    def module(self) -> nn.Module:
        """The model as a torch module in evaluation mode, taking tensors and returning its raw outputs."""
        return self.program.load(self.weights, trusted=self.trusted)

    @cached_property
    def _predictor(self) -> Predictor:
        from sparkdl.score.predictor import Predictor

        return Predictor(self)

    def predict(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Named arrays in, named arrays out, without Spark.

        inputs: for each input of the signature an array of shape ``(B, *shape)``.
        Returns ``prediction`` and, for classification, ``probability`` (float32, ``(B, classes)``); for task None the
        outputs by name. Raises SignatureError for a missing name, a wrong shape, or a dtype that would lose values.
        """
        return self._predictor.predict(inputs)

    @cached_property
    def files(self) -> dict[str, bytes]:
        """What ``save`` writes, by file name; the manifest, last, holds the digests of the others."""
        tensors, aliases = _without_aliases(self.weights)
        files = {WEIGHTS: safetensors.torch.save(tensors)}
        if self.program.kind in PROGRAM_FILES:
            files[PROGRAM_FILES[self.program.kind]] = self.program.content
        manifest = {
            "format": FORMAT,
            "task": self.task,
            "signature": self.signature.to_json(),
            "program": {
                "kind": self.program.kind,
                "factory": self.program.factory,
                "kwargs": self.program.kwargs,
                "reason": self.program.reason,
            },
            "aliases": aliases,
            "metrics": self.metrics,
            "training": self.training,
            "versions": {"sparkdl": __version__, "torch": torch.__version__},
            "files": {name: {"sha256": _sha256(data), "bytes": len(data)} for name, data in files.items()},
        }
        files[MANIFEST] = json.dumps(manifest, indent=2, sort_keys=True).encode()
        return files

    @property
    def digest(self) -> str:
        """sha256 of the manifest, which holds that of every other file: one name for exactly this model."""
        return _sha256(self.files[MANIFEST])

    def save(self, uri: str, *, overwrite: bool = False) -> None:
        """Write the bundle to a directory at ``uri``, the manifest last: without it there is no bundle.

        Raises BundleError if there is one already and ``overwrite`` is not True, StoreError if it cannot be written.
        """
        if store.exists(store.join(uri, MANIFEST)):
            if not overwrite:
                raise BundleError(f"there is a bundle at {uri!r} already; say overwrite=True to replace it", uri=uri)
            store.delete(store.join(uri, MANIFEST))
        for name, content in self.files.items():
            store.write_bytes(store.join(uri, name), content)

    @classmethod
    def load(cls, uri: str, *, trusted: bool = False) -> Bundle:
        """Read the bundle at ``uri``, all digests checked before anything of it is loaded.

        trusted: allow a program that is code (see ``Program``). Raises BundleNotFoundError, BundleIntegrityError,
        BundleVersionError, UntrustedBundleError.
        """
        bundle = cls.from_files(_read(uri), uri=uri, trusted=trusted)
        if bundle.program.kind != "export" and not trusted:
            bundle.module()  # raises UntrustedBundleError, before the caller builds on it
        return bundle

    @classmethod
    def from_files(cls, files: Mapping[str, bytes], *, uri: str | None = None, trusted: bool = False) -> Bundle:
        """The bundle out of the contents of its files, checked. Raises as ``load`` does."""
        manifest = check(files, uri)
        try:
            weights = safetensors.torch.load(files[WEIGHTS])
            weights.update({alias: weights[name] for alias, name in manifest["aliases"].items()})
            told = manifest["program"]
            program = Program(
                kind=told["kind"],
                content=files[PROGRAM_FILES[told["kind"]]] if told["kind"] in PROGRAM_FILES else b"",
                factory=told["factory"],
                kwargs=told["kwargs"],
                reason=told["reason"],
            )
            signature = Signature.from_json(manifest["signature"])
            _check_told(program, manifest)
            bundle = cls(
                program, weights, signature, manifest["task"], manifest["metrics"], manifest["training"], trusted
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
        files = _read(uri)
        check(files, uri)
        return _sha256(files[MANIFEST])


def check(files: Mapping[str, bytes], uri: str | None) -> dict[str, Any]:
    """The manifest, after format and digests were found right. Raises as ``Bundle.load`` does."""
    manifest = _parse_manifest(files[MANIFEST], uri)
    for name, told in manifest["files"].items():
        if _sha256(files[name]) != told.get("sha256"):
            raise BundleIntegrityError(
                f"{name} of the bundle {uri or ''} is not what was saved: sha256 {_sha256(files[name])}, the manifest "
                f"says {told.get('sha256')}. Take it from a copy, or train again",
                uri=uri,
                file=name,
            )
    return manifest


def _check_told(program: Program, manifest: Mapping[str, Any]) -> None:
    """Raise ValueError if a field of the manifest has no meaning."""
    fields = {
        "program.kind": program.kind in (*PROGRAM_FILES, "import"),
        "program.factory": isinstance(program.factory, str),
        "program.kwargs": program.kwargs is None or isinstance(program.kwargs, dict),
        "program.reason": isinstance(program.reason, str),
        "task": manifest["task"] in (*tasks.TASKS, None),
        "metrics": isinstance(manifest["metrics"], dict),
        "training": isinstance(manifest["training"], dict),
    }
    for name, fine in fields.items():
        if not fine:
            raise ValueError(f"its {name} has no meaning")


def _parse_manifest(content: bytes, uri: str | None) -> dict[str, Any]:
    def bad(why: str) -> BundleIntegrityError:
        return BundleIntegrityError(f"{MANIFEST} of the bundle {uri or ''} {why}", uri=uri, file=MANIFEST)

    try:
        manifest = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise bad(f"is not JSON: {error}") from error
    number = manifest.get("format") if isinstance(manifest, dict) else None
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise bad("has no format number")
    if manifest["format"] > FORMAT:
        raise BundleVersionError(
            f"the bundle {uri or ''} has format {manifest['format']}; this sparkdl reads up to {FORMAT}: "
            "upgrade sparkdl here, or save the bundle with an older one",
            uri=uri,
            found=manifest["format"],
            supported=FORMAT,
        )
    listed = manifest.get("files")
    if not isinstance(listed, dict) or WEIGHTS not in listed:
        raise bad("lists no weights")
    for name, told in listed.items():
        if not _FILE_NAME.fullmatch(name) or ".." in name or not isinstance(told, dict):
            raise bad(f"lists {name!r}, which is not the name of a file beside it")
    return manifest


def _read(uri: str) -> dict[str, bytes]:
    """The manifest and the files it lists, as bytes; nothing else in the directory is looked at."""
    if not store.exists(store.join(uri, MANIFEST)):
        raise BundleNotFoundError(
            f"there is no bundle at {uri!r}: it has no {MANIFEST}, which is written last; "
            "either nothing was saved there or saving was interrupted",
            uri=uri,
        )
    files = {MANIFEST: _read_file(uri, MANIFEST)}
    for name in _parse_manifest(files[MANIFEST], uri)["files"]:
        files[name] = _read_file(uri, name)
    return files


def _read_file(uri: str, name: str) -> bytes:
    filesystem, path = store.resolve(store.join(uri, name))
    if filesystem.type_name == "local" and os.path.islink(path):
        raise BundleIntegrityError(f"{name} of the bundle {uri} is a symbolic link; refused", uri=uri, file=name)
    try:
        return store.read_bytes(store.join(uri, name))
    except OSError as error:
        raise BundleIntegrityError(f"{name} of the bundle {uri} cannot be read: {error}", uri=uri, file=name) from error


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _without_aliases(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Each tensor once, and which further names mean the same one (tied weights)."""
    seen: dict[tuple[Any, ...], str] = {}
    tensors, aliases = {}, {}
    for name, value in weights.items():
        key = (value.data_ptr(), value.dtype, value.shape, value.stride()) if value.numel() else (name,)
        if seen.setdefault(key, name) != name:
            aliases[name] = seen[key]
        else:
            tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
    return tensors, aliases


def float_dtype(module: nn.Module) -> str | None:
    """The dtype of the module's floating parameters, ``"float32"`` say; None if it has none."""
    for parameter in module.parameters():
        if parameter.is_floating_point():
            name = str(parameter.dtype).removeprefix("torch.")
            return "float32" if name == "bfloat16" else name
    return None


def example_inputs(signature: Signature, rows: int = 3) -> list[Tensor]:
    """Arguments that fit the signature: random floats, zeros for all else."""
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(rows, *spec.shape, generator=generator).to(getattr(torch, spec.dtype))
        if spec.dtype.startswith("float")
        else torch.zeros(rows, *spec.shape, dtype=getattr(torch, spec.dtype))
        for spec in signature.inputs
    ]


def describe_outputs(
    module: nn.Module, signature: Signature, arguments: Sequence[Tensor], task: str | None
) -> tuple[TensorSpec, ...]:
    """The output specs, from one forward pass. Raises SignatureError showing both sides if the module refuses."""
    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            outputs = module(*arguments)
    except Exception as error:  # whatever forward raises for these inputs is the finding
        raise SignatureError(
            f"the model does not take these inputs.\n  columns give: {signature}\n  model says:   "
            f"{type(error).__name__}: {error}\n  model:        {_first_layers(module)}",
            column=None,
            expected=str(error),
            got=str(signature),
        ) from error
    finally:
        module.train(training)
    shown = tasks.predictions(task, outputs)
    rows = len(arguments[0])
    for name, value in shown.items():
        if value.ndim == 0 or value.shape[0] != rows:
            raise SignatureError(
                f"the model's output {name!r} has shape {tuple(value.shape)} for {rows} rows; its first dimension "
                "must be the rows",
                column=None,
                expected=(rows, "..."),
                got=tuple(value.shape),
            )
    return tuple(TensorSpec(name, _numpy_name(value.dtype), tuple(value.shape[1:])) for name, value in shown.items())


def _numpy_name(dtype: torch.dtype) -> str:
    return "float32" if dtype == torch.bfloat16 else str(dtype).removeprefix("torch.")


def _first_layers(module: nn.Module, limit: int = 300) -> str:
    text = " ".join(repr(module).split())
    return text if len(text) <= limit else text[:limit] + " …"
