"""Keras 3 models on the torch backend: torch modules, exported as any other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from sparkdl.bundle import Bundle
from sparkdl.errors import SignatureError, SparkdlError
from sparkdl.interop.common import needed, spark_kind
from sparkdl.signature import DTYPES, Signature, TensorSpec


def bundle(model: Any, signature: Signature | None, options: Mapping[str, Any]) -> Bundle:
    """See ``Bundle.from_keras``."""
    keras = _keras_on_torch()
    if not isinstance(model, keras.Model):
        raise SparkdlError(f"from_keras takes a keras.Model (got {type(model).__name__})")
    signature = signature or _signature(model)
    return Bundle.from_module(_Called(model), signature, **options)


def _keras_on_torch() -> Any:
    try:
        keras = needed("keras", "keras")
        backend = keras.backend.backend()
    except ModuleNotFoundError as error:  # the one it is set to, which is not installed
        keras, backend = None, error.name
    if backend != "torch":
        raise SparkdlError(
            f"Keras must run on torch (it asks for {backend}): set the environment variable KERAS_BACKEND=torch before "
            "keras is imported"
        )
    return keras


class _Called(nn.Module):
    """The model with its inputs as arguments; a list or dictionary of them is how Keras takes several."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        named = _named(model)
        self.names = None if named is None else list(named)

    def forward(self, *inputs: Tensor) -> Any:
        if self.names is not None:
            return self.model(dict(zip(self.names, inputs, strict=True)), training=False)
        return self.model(inputs[0] if len(inputs) == 1 else list(inputs), training=False)


def _named(model: Any) -> dict[str, Any] | None:
    """The inputs of a model that takes them in a dictionary, by key; None of another."""
    structure = getattr(model, "_inputs_struct", None)
    return dict(structure) if isinstance(structure, dict) else None


def _signature(model: Any) -> Signature:
    if not getattr(model, "inputs", None):
        raise SignatureError(
            "the Keras model does not tell its inputs (it was not built from keras.Input); give a signature",
            column=None,
            expected="a functional or built sequential model",
            got=type(model).__name__,
        )
    inputs = _named(model) or {told.name: told for told in model.inputs}
    return Signature(tuple(_spec(name, told) for name, told in inputs.items()))


def _spec(name: str, told: Any) -> TensorSpec:
    shape = tuple(-1 if size is None else size for size in told.shape[1:])
    if told.dtype not in DTYPES:
        raise SignatureError(f"input {name!r} is {told.dtype}; give a signature", column=name, got=told.dtype)
    return TensorSpec(name, told.dtype, shape, (name,), (spark_kind(told.dtype, shape),))
