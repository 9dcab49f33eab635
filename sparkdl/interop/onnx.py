"""ONNX: models that onnxruntime runs, as a kind of program; and bundles written as ONNX.

A model is data: loading one runs no code. It is still checked first: what lies in further files is not read, and
operators that come from shared libraries are not looked for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sparkdl import export, store, tasks
from sparkdl import program as programs
from sparkdl.bundle import Bundle
from sparkdl.errors import BundleError, BundleIntegrityError, InvalidParamError, SignatureError
from sparkdl.interop import common
from sparkdl.interop.common import needed, spark_kind
from sparkdl.probe import describe_outputs, example_inputs, ragged_inputs, shortened
from sparkdl.program import Program
from sparkdl.signature import DTYPES, Signature, TensorSpec

REASON = "it is ONNX"
LIMIT = 2**31 - 1  # bytes that a protobuf may have
_DOMAINS = ("", "ai.onnx", "ai.onnx.ml")
_PROVIDERS = ("CPUExecutionProvider",)  # the device that scoring asks for is not known where a model is loaded


def bundle(model: str | os.PathLike[str] | bytes, signature: Signature | None, task: str | None) -> Bundle:
    """See ``Bundle.from_onnx``."""
    content = model if isinstance(model, bytes) else common.content(model)
    signature = signature or _signature(_checked(content))
    program = Program("onnx", content, reason=REASON)
    outputs = describe_outputs(module(content), signature, example_inputs(signature), task)
    return Bundle(program, {}, replace(signature, outputs=outputs), task)


def module(content: bytes) -> nn.Module:
    """The model as a module: tensors in the order of the graph's inputs in, a dictionary by its outputs' names out.

    Raises BundleIntegrityError if the content is no model, or one that needs more than it holds.
    """
    _checked(content)
    try:
        return _Session(content)
    except Exception as error:  # onnxruntime has an exception for each of its states, with no common base
        raise _refused(f"onnxruntime cannot load it: {error}") from error


class _Session(nn.Module):
    def __init__(self, content: bytes) -> None:
        super().__init__()
        runtime = needed("onnxruntime", "onnx")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 4
        options.add_session_config_entry("session.load_model_format", "ONNX")  # else the bytes could say otherwise
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # other tasks need the cores too
        self.session = runtime.InferenceSession(content, options, _PROVIDERS)
        self.names = [told.name for told in self.session.get_inputs()]

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        if torch.is_autocast_enabled(inputs[0].device.type):
            raise InvalidParamError(
                "'precision' must be 'float32' for an ONNX model: onnxruntime computes in the types it was written with",
                param="precision",
                value=str(torch.get_autocast_dtype(inputs[0].device.type)).removeprefix("torch."),
            )
        arrays = {name: value.cpu().numpy() for name, value in zip(self.names, inputs, strict=True)}
        returned = self.session.run(None, arrays)
        device = inputs[0].device
        return {
            told.name: torch.from_numpy(value).to(device) if isinstance(value, np.ndarray) else value
            for told, value in zip(self.session.get_outputs(), returned, strict=True)
        }


def _refused(why: str) -> BundleIntegrityError:
    return BundleIntegrityError(f"the ONNX model is refused: {why}", uri=None, file=programs.FILES["onnx"])


def _checked(content: bytes) -> Any:
    """The model's protobuf. Raises BundleIntegrityError for one that is none, or that needs more than itself."""
    onnx = needed("onnx", "onnx")
    if len(content) > LIMIT:
        raise _refused(f"it has {len(content)} bytes, more than the {LIMIT} of a protobuf")
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's DecodeError is of a class that differs by implementation
        raise _refused(f"it is no ONNX model: {error}") from error
    try:
        _check_self_contained(onnx, model)
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, UnicodeDecodeError) as error:  # a name need not be text
        raise _refused(str(error)) from error
    return model


def _check_self_contained(onnx: Any, model: Any) -> None:
    """Raise BundleIntegrityError for what takes more than the model and onnxruntime."""
    if model.functions:
        raise _refused("it has functions of its own; write them out by onnx.inliner.inline_local_functions")
    for message in _messages(model):
        kind = message.DESCRIPTOR.name
        if kind == "TensorProto" and (message.external_data or message.data_location != onnx.TensorProto.DEFAULT):
            raise _refused(
                f"the tensor {message.name!r} lies in a further file; save it as one: onnx.save(…, "
                "save_as_external_data=False)"
            )
        if kind == "NodeProto" and message.domain not in _DOMAINS:
            raise _refused(f"its operator {message.op_type!r} is of {message.domain!r}, not of ONNX")


def _messages(message: Any) -> Iterator[Any]:
    """All messages within a protobuf message: nodes, tensors, graphs of branches and loops."""
    waiting = [message]
    while waiting:
        message = waiting.pop()
        yield message
        for told, value in message.ListFields():
            if told.type == told.TYPE_MESSAGE:
                waiting.extend([value] if hasattr(value, "ListFields") else value)


def _signature(model: Any) -> Signature:
    """The graph's inputs. Raises SignatureError if one is no tensor, or if its first dimension is fixed."""
    given = {tensor.name for tensor in model.graph.initializer}
    return Signature(tuple(_spec(told) for told in model.graph.input if told.name not in given))


def _spec(told: Any) -> TensorSpec:
    onnx = needed("onnx", "onnx")
    tensor = told.type.tensor_type
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    except KeyError:
        dtype = "no tensor"
    if dtype not in DTYPES:
        raise SignatureError(
            f"input {told.name!r} of the ONNX model is {dtype}; it must be one of {list(DTYPES)}",
            column=told.name,
            expected=DTYPES,
            got=dtype,
        )
    sizes = [size.dim_value if size.HasField("dim_value") else -1 for size in tensor.shape.dim]
    if sizes[:1] != [-1]:
        raise SignatureError(
            f"input {told.name!r} of the ONNX model has shape {sizes}; its first dimension must be free, for the rows: "
            "export it with a dynamic one",
            column=told.name,
            expected=(-1, "..."),
            got=sizes,
        )
    shape = tuple(sizes[1:])
    return TensorSpec(told.name, dtype, shape, (told.name,), (spark_kind(dtype, shape),))


def save(bundle: Bundle, path: str, tolerance: float) -> None:
    """See ``Bundle.to_onnx``."""
    needed("onnxscript", "onnx")
    if bundle.program.kind == "onnx":
        store.write_bytes(path, bundle.program.content)
        return
    shown = _Shown(bundle)
    ragged = ragged_inputs(bundle.signature)
    arguments = example_inputs(bundle.signature)
    try:
        with programs.EXPORTER, export.quiet("torch.export", "torch.onnx", "onnxscript"), torch.no_grad():
            made: Any = torch.onnx.export(
                shown,
                tuple(arguments),
                input_names=[spec.name for spec in bundle.signature.inputs],
                output_names=[spec.name for spec in bundle.signature.outputs],
                dynamic_shapes=export.dynamic_shapes(shown, arguments, ragged),
                dynamo=True,
                verbose=False,
            )
            content = _without_traces(made.model_proto).SerializeToString()
    except Exception as error:  # the exporter raises whatever it trips over
        raise BundleError(f"torch cannot export this model as ONNX: {error}", uri=None) from error
    _compare(shown, module(content), [example_inputs(bundle.signature, rows) for rows in (1, 3, 8)], ragged, tolerance)
    store.write_bytes(path, content)


def _without_traces(model: Any) -> Any:
    """The model without what torch notes of the source of each node, with the paths of this machine."""
    for message in _messages(model):
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
