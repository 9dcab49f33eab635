"""A bundle's module, and what its task makes of the outputs, by torch's exporter: the core of a graph, and ``to_onnx``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sparkdl import export, store, tasks
from sparkdl import program as programs
from sparkdl.columns import answers
from sparkdl.errors import BundleError
from sparkdl.interop import onnx
from sparkdl.interop.common import needed
from sparkdl.probe import example_inputs, ragged_inputs, shortened
from sparkdl.signature import Signature, TensorSpec

if TYPE_CHECKING:
    from sparkdl.bundle import Bundle

ROWS = (1, 3, 8)  # numbers of them for which an ONNX model is compared with what it was made of


def save(bundle: Bundle, path: str, tolerance: float) -> None:
    """See ``Bundle.to_onnx``."""
    store.write_bytes(path, content(bundle, tolerance))


def content(bundle: Bundle, tolerance: float) -> bytes:
    """An ONNX model: inputs by the signature's names, outputs as ``tasks.predictions``, by the signature's names too; of a
    bundle that is ONNX what it is made of, as it is.

    Raises BundleError if torch cannot export it, or if onnxruntime's outputs are farther than ``tolerance`` from torch's.
    """
    if bundle.program.kind == "onnx":
        return bundle.program.content
    shown = _Shown(bundle)
    arguments = example_inputs(bundle.signature)
    ragged = ragged_inputs(bundle.signature)
    made = traced(
        shown,
        arguments,
        [spec.name for spec in named(bundle.signature)],
        [spec.name for spec in bundle.signature.outputs],
        export.dynamic_shapes(shown, arguments, ragged),
    )
    examples = [example_inputs(bundle.signature, rows) for rows in ROWS]
    _compare(shown, onnx.module(made), examples, ragged, tolerance)
    return made


def named(signature: Signature) -> list[TensorSpec]:
    """The inputs, by names that none of what comes out has: ONNX knows a value by its name."""
    taken = {*answers(signature), *(spec.name for spec in signature.outputs)}
    names = {spec.name: f"{spec.name} in" if spec.name in taken else spec.name for spec in signature.inputs}
    return [replace(spec, name=names[spec.name], mask_of=names.get(spec.mask_of, "")) for spec in signature.inputs]


def traced(
    module: nn.Module, arguments: Sequence[Tensor], inputs: Sequence[str], outputs: Sequence[str], shapes: Any
) -> bytes:
    """The module as ONNX. inputs, outputs: their names. shapes: see ``export.dynamic_shapes``. Raises BundleError."""
    needed("onnxscript", "onnx")
    try:
        with programs.EXPORTER, export.quiet("torch.export", "torch.onnx", "onnxscript"), torch.no_grad():
            made: Any = torch.onnx.export(
                module,
                tuple(arguments),
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_shapes=shapes,
                dynamo=True,
                verbose=False,
            )
            return bytes(_without_traces(made.model_proto).SerializeToString())
    except Exception as error:  # the exporter raises whatever it trips over
        raise BundleError(f"torch cannot export this model as ONNX: {error}", uri=None) from error


def _without_traces(model: Any) -> Any:
    """The model without what torch notes of the source of each node, with the paths of this machine."""
    for message in onnx.messages(model):
        for field in {"metadata_props", "doc_string"}.intersection(message.DESCRIPTOR.fields_by_name):
            message.ClearField(field)
    return model


class _Shown(nn.Module):
    """What the bundle shows: predictions and probabilities, in the order of its signature."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__()
        self.module = bundle.module()
        self.task = bundle.task
        self.names = [spec.name for spec in bundle.signature.outputs]

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        shown = tasks.predictions(self.task, self.module(*inputs))
        return tuple(shown[name] for name in self.names)


def _compare(
    shown: _Shown, session: nn.Module, examples: Sequence[list[Tensor]], ragged: Sequence[int], tolerance: float
) -> None:
    for example in examples:
        for arguments in (example, shortened(example, ragged)) if ragged else (example,):
            with torch.no_grad():
                expected, got = shown(*arguments), session(*arguments)
            for name, value in zip(shown.names, expected, strict=True):
                if not torch.allclose(got[name].double(), value.double(), tolerance, tolerance, equal_nan=True):
                    raise BundleError(
                        f"output {name!r} of the ONNX model is up to "
                        f"{(got[name].double() - value.double()).abs().max().item():.3g} from torch's for "
                        f"{len(arguments[0])} rows, more than the tolerance of {tolerance}; nothing was written",
                        uri=None,
                    )
