"""ONNX: models that onnxruntime runs, as a kind of program. ``graph/exported.py`` writes bundles as ONNX.

A model is data: loading one runs no code. It is still checked first: what lies in further files is not read, and
operators that come from shared libraries are not looked for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sparkdl import program as programs
from sparkdl.bundle import Bundle
from sparkdl.errors import BundleIntegrityError, InvalidParamError, SignatureError
from sparkdl.interop import common
from sparkdl.interop.common import needed, spark_kind
from sparkdl.probe import describe_outputs, example_inputs
from sparkdl.program import Program
from sparkdl.signature import DTYPES, Signature, TensorSpec

REASON = "it is ONNX"
LIMIT = 2**31 - 1  # bytes that a protobuf may have
_DOMAINS = ("", "ai.onnx", "ai.onnx.ml")
_PROVIDERS = ("CPUExecutionProvider",)  # the device that scoring asks for is not known where a model is loaded


def bundle(model: str | os.PathLike[str] | bytes, signature: Signature | None, task: str | None) -> Bundle:
    """See ``Bundle.from_onnx``."""
    content = model if isinstance(model, bytes) else common.content(model)
    signature = signature or _signature(checked(content))
    program = Program("onnx", content, reason=REASON)
    outputs = describe_outputs(module(content), signature, example_inputs(signature), task)
    return Bundle(program, {}, replace(signature, outputs=outputs), task)


def module(content: bytes) -> Session:
    """The model as a module: tensors in the order of the graph's inputs in, a dictionary by its outputs' names out.

    Raises BundleIntegrityError if the content is no model, or one that needs more than it holds.
    """
    checked(content)
    try:
        return Session(content)
    except Exception as error:  # onnxruntime has an exception for each of its states, with no common base
        raise _refused(f"onnxruntime cannot load it: {error}") from error


class Session(nn.Module):
    """An ONNX model that onnxruntime runs on the CPU."""

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

    def run(self, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Arrays by the names of the graph's inputs in, those of its outputs out."""
        names = [told.name for told in self.session.get_outputs()]
        return dict(zip(names, self.session.run(None, arrays), strict=True))

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Tensors in the order of the graph's inputs in, those of its outputs by name out."""
        if torch.is_autocast_enabled(inputs[0].device.type):
            raise InvalidParamError(
                "'precision' must be 'float32' for an ONNX model: onnxruntime computes in the types it was written with",
                param="precision",
                value=str(torch.get_autocast_dtype(inputs[0].device.type)).removeprefix("torch."),
            )
        returned = self.run({name: value.cpu().numpy() for name, value in zip(self.names, inputs, strict=True)})
        device = inputs[0].device
        return {
            name: torch.from_numpy(value).to(device) if isinstance(value, np.ndarray) else value
            for name, value in returned.items()
        }


def _refused(why: str) -> BundleIntegrityError:
    return BundleIntegrityError(f"the ONNX model is refused: {why}", uri=None, file=programs.FILES["onnx"])


def checked(content: bytes) -> Any:
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
    for message in messages(model):
        kind = message.DESCRIPTOR.name
        if kind == "TensorProto" and (message.external_data or message.data_location != onnx.TensorProto.DEFAULT):
            raise _refused(
                f"the tensor {message.name!r} lies in a further file; save it as one: onnx.save(…, "
                "save_as_external_data=False)"
            )
        if kind == "NodeProto" and message.domain not in _DOMAINS:
            raise _refused(f"its operator {message.op_type!r} is of {message.domain!r}, not of ONNX")


def messages(message: Any) -> Iterator[Any]:
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
