"""Keras 3 models on the torch backend: torch modules, trained and exported as any other."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import cloudpickle
import torch
from torch import Tensor, nn

from sparkdl import export
from sparkdl.bundle import Bundle
from sparkdl.errors import SignatureError, SparkdlError
from sparkdl.interop.common import needed, spark_kind
from sparkdl.probe import example_inputs
from sparkdl.signature import DTYPES, Signature, TensorSpec

BACKEND = "KERAS_BACKEND"


def bundle(model: Any, signature: Signature | None, options: Mapping[str, Any]) -> Bundle:
    """See ``Bundle.from_keras``."""
    keras = on_torch()
    if not isinstance(model, keras.Model):
        raise SparkdlError(f"from_keras takes a keras.Model (got {type(model).__name__})")
    signature = signature or _signature(model)
    if not model.built:
        model(*example_inputs(signature))
    return Bundle.from_module(module(model), signature, **options)


def on_torch() -> Any:
    """The package keras, on torch unless the environment says otherwise. Raises SparkdlError if it is not installed, or runs
    on another backend than torch."""
    if "keras" not in sys.modules:
        os.environ.setdefault(BACKEND, "torch")
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


def module(model: Any, activation: str | None = None, names: Sequence[str] | None = None) -> KerasModule:
    """The torch module of a built model. activation: see KerasModule. names: of its variables, by default their paths."""
    several = len(model.inputs) > 1 if getattr(model, "inputs", None) else False
    return (_OfSeveral if several else KerasModule)(model, activation, names or _names(model))


class KerasModule(nn.Module):
    """A built model: its trainable variables are the parameters, the others (moving statistics) buffers, by their paths.

    Keras is given their values at each call, so a copy, an exported program and another device's weights all hold.
    Dropout's seeds are drawn from torch's generator, which differs between ranks and is in checkpoints.

    activation: ``softmax`` or ``sigmoid`` if the model ends in that: logits are returned, whose ``activation`` is what
        the model itself returns, but for what Keras' losses clip too: ``keras.config.epsilon()``.
    """

    model: Any

    def __init__(self, model: Any, activation: str | None, names: Sequence[str]) -> None:
        super().__init__()
        object.__setattr__(self, "model", model)  # not as a part: Keras lists its variables there, several times each
        self.activation, self.names = activation, tuple(names)
        for name, variable in self._trained():
            self.register_parameter(name, nn.Parameter(variable.value.detach().clone()))
        for name, variable in self._kept():
            if name:
                self.register_buffer(name, variable.value.detach().clone())

    def forward(self, features: Tensor) -> Any:
        """What Keras' call returns, in the mode that the module is in."""
        return self._called(features)

    def added_loss(self) -> Tensor:
        """The regularizers' sum, which Keras adds to the loss."""
        own = [one.regularizer(getattr(self, name)) for name, one in self._trained() if one.regularizer is not None]
        return torch.stack(own).sum() if own else torch.zeros(())

    @property
    def averaged_buffers(self) -> list[Tensor]:
        """See ``batch_norm.agree_on_buffers``."""
        return [buffer for buffer in self.buffers() if buffer.is_floating_point()]

    def _called(self, inputs: Any) -> Any:
        given = [(variable, getattr(self, name)) for name, variable in self._trained()]
        given += [(variable, getattr(self, name) if name else _seed()) for name, variable in self._kept()]
        with on_torch().StatelessScope(state_mapping=given) as scope:
            outputs = self.model(inputs, training=self.training)
        if self.training:
            with torch.no_grad():
                for name, variable in self._kept():
                    if name:
                        getattr(self, name).copy_(scope.get_current_value(variable))
        return _logits(outputs, self.activation) if self.activation else outputs

    def _trained(self) -> list[tuple[str, Any]]:
        return list(zip(self.names, self.model.trainable_variables, strict=False))

    def _kept(self) -> list[tuple[str, Any]]:
        """A seed has no name, since it is not kept."""
        names = self.names[len(self.model.trainable_variables) :]
        kept = zip(names, self.model.non_trainable_variables, strict=True)
        return [("" if _is_seed(one) else name, one) for name, one in kept]

    def __reduce__(self) -> Any:
        with torch.no_grad():
            for name, variable in (*self._trained(), *self._kept()):
                if name:
                    variable.assign(getattr(self, name))
        return _restored, (packed((*saved(self.model), self.activation, self.names)),)


class _OfSeveral(KerasModule):
    """A model of several inputs; a list or dictionary of them is how Keras takes these."""

    def forward(self, *inputs: Tensor) -> Any:  # type: ignore[override]
        """See KerasModule."""
        named = _named(self.model)
        return self._called(list(inputs) if named is None else dict(zip(named, inputs, strict=True)))


def input_names(model: Any) -> list[str]:
    """The names of the model's inputs in order; none if it does not tell."""
    named = _named(model) or {told.name: told for told in getattr(model, "inputs", None) or ()}
    return list(named)


def packed(value: Any) -> bytes:
    """What ``unpacked`` gives again in another process."""
    return bytes(cloudpickle.dumps(value))


def unpacked(content: bytes) -> Any:
    """What was packed; only what this process or its driver packed. Keras is imported before anything that needs it."""
    on_torch()
    return cloudpickle.loads(content)


def _restored(content: bytes) -> KerasModule:
    model, classes, activation, names = unpacked(content)
    return module(loaded(model, classes), activation, names)


def saved(model: Any) -> tuple[bytes, dict[str, Any]]:
    """A model as Keras saves it, and the classes in it that are the user's own, by the names Keras asks for them with."""
    saving = on_torch().saving
    parts = {type(part) for part in (model, *model._flatten_layers()) if not type(part).__module__.startswith("keras.")}
    with tempfile.TemporaryDirectory() as folder, export.quiet():
        path = os.path.join(folder, "model.keras")
        model.save(path)
        with open(path, "rb") as file:
            content = file.read()
    return content, {**saving.get_custom_objects(), **{saving.get_registered_name(part): part for part in parts}}


def loaded(content: bytes, classes: Mapping[str, Any]) -> Any:
    """The model that was ``saved``, not compiled. Only for what this process or its driver saved: it may hold code."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.keras")
        with open(path, "wb") as file:
            file.write(content)
        return on_torch().saving.load_model(path, custom_objects=dict(classes), compile=False, safe_mode=False)


def _logits(outputs: Tensor, activation: str) -> Tensor:
    epsilon = on_torch().config.epsilon()
    probability = outputs.float()
    if activation == "softmax":
        return probability.clamp(min=epsilon).log()
    return probability.clamp(epsilon, 1 - epsilon).logit()


def _seed() -> Tensor:
    return torch.randint(0, 2**31 - 1, (2,), dtype=torch.int32)


def _is_seed(variable: Any) -> bool:
    return bool(variable.name == "seed_generator_state")


def _names(model: Any) -> list[str]:
    """The variables' paths without the model's own name, which Keras numbers; a copy's may be others."""
    names: list[str] = []
    for variable in (*model.trainable_variables, *model.non_trainable_variables):
        path = str(variable.path).removeprefix(f"{model.name}/").replace(".", "_")
        names.append(path if path not in names else f"{path}_{len(names)}")
    return names


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
