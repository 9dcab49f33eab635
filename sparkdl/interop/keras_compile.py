"""What Keras' ``compile`` is told, in the training loop: the loss and the optimizer are Keras' own, metrics torchmetrics'.

Shapes: B rows, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sparkdl.errors import InvalidParamError, did_you_mean
from sparkdl.interop.keras import on_torch, packed, unpacked

_TASK_OF_LOSS = {
    "BinaryCrossentropy": "binary", "BinaryFocalCrossentropy": "binary", "CategoricalCrossentropy": "multiclass",
    "CategoricalFocalCrossentropy": "multiclass", "SparseCategoricalCrossentropy": "multiclass",
    "MeanSquaredError": "regression", "MeanAbsoluteError": "regression", "MeanAbsolutePercentageError": "regression",
    "MeanSquaredLogarithmicError": "regression", "Huber": "regression", "LogCosh": "regression", "Poisson": "regression",
}  # fmt: skip
_ONE_HOT = ("CategoricalCrossentropy", "CategoricalFocalCrossentropy", "CategoricalHinge")
_METRICS = {
    "auc": "auroc", "precision": "precision", "recall": "recall", "f1score": "f1", "meansquarederror": "mse",
    "rootmeansquarederror": "rmse", "meanabsoluteerror": "mae", "meanabsolutepercentageerror": "mape", "r2score": "r2",
    "mse": "mse", "mae": "mae", "mape": "mape", "rmse": "rmse", "r2": "r2", "f1": "f1", "auroc": "auroc",
    "meansquaredlogarithmicerror": "mean_squared_log_error", "msle": "mean_squared_log_error",
    "logcosh": "log_cosh_error", "cosinesimilarity": "cosine_similarity",
}  # fmt: skip
_ACCURACY = ("accuracy", "acc", "binaryaccuracy", "categoricalaccuracy", "sparsecategoricalaccuracy")
_REDUCTIONS = ("sum_over_batch_size", "mean", "mean_with_sample_weight", None)
_UNFIT = {
    "use_ema": "validationFraction with monitor, which chooses the best epoch's weights",
    "gradient_accumulation_steps": "accumulationSteps",
    "loss_scale_factor": "precision",
}  # of an optimizer, and what is there instead


@dataclass(frozen=True)
class Loss:
    """A loss of Keras as the loop calls it: of the model's outputs and the label.

    given: a keras.losses object, or a function of (y_true, y_pred). kind: the class that Keras has for it, or ``""``.
    activation: of KerasModule, whose logits become what the model itself returned. weight: its factor.
    rows: give a loss a row ``(B,)``, for weights; else their mean.
    """

    given: Any
    kind: str
    activation: str | None = None
    weight: float = 1.0
    rows: bool = False

    def __call__(self, outputs: Any, label: Tensor) -> Tensor:
        """The loss. outputs: ``(B, C)``, ``(B, 1)`` or ``(B,)``."""
        if self.activation == "softmax":
            outputs = outputs.softmax(-1)
        elif self.activation == "sigmoid":
            outputs = outputs.sigmoid()
        if self.kind in _ONE_HOT and label.ndim == 1:
            label = nn.functional.one_hot(label, outputs.shape[-1]).to(outputs.dtype)
        if outputs.ndim == label.ndim == 1:
            outputs, label = outputs.unsqueeze(1), label.unsqueeze(1)
        elif outputs.ndim == 2 and outputs.shape[1] == 1 and label.ndim == 1:
            label = label.unsqueeze(1)
        keras = on_torch()
        call = self.given.call if isinstance(self.given, keras.losses.Loss) else self.given
        with keras.device(str(outputs.device)):
            found = call(label, outputs) * self.weight
        return found if self.rows else found.mean()

    @property
    def task(self) -> str | None:
        """What its outputs are for, if it is one of Keras' that tells."""
        return _TASK_OF_LOSS.get(self.kind)

    @property
    def takes_probabilities(self) -> bool:
        """True if the model is to end in a softmax or sigmoid."""
        told = self.given.keywords if isinstance(self.given, partial) else self.given
        logits = told.get("from_logits") if isinstance(told, Mapping) else getattr(told, "from_logits", False)
        return self.task in ("binary", "multiclass") and not logits

    def __reduce__(self) -> Any:
        given: Any = self.given
        if isinstance(given, on_torch().losses.Loss):
            given = _Object(type(given), vars(given))
        return _loss_of, (packed((given, self.kind, self.activation, self.weight, self.rows)),)


@dataclass(frozen=True)
class _Object:
    """A Keras object that travels as what it is: Keras itself pickles the settings, and Huber's lack its delta (3.15)."""

    cls: type
    values: Mapping[str, Any]

    def made(self) -> Any:
        made: Any = object.__new__(self.cls)
        vars(made).update(self.values)
        return made


def _loss_of(content: bytes) -> Loss:
    given, *told = unpacked(content)
    return Loss(given.made() if isinstance(given, _Object) else given, *told)


def loss_of(given: Any, weights: Any = None) -> Loss:
    """The loss that ``compile`` would make of ``given``: a name, an object, a function of (y_true, y_pred).

    weights: ``loss_weights``: a number, or a list or dictionary of one. Raises InvalidParamError.
    """
    losses = on_torch().losses
    if isinstance(given, (list, tuple)) and len(given) == 1:
        (given,) = given
    if isinstance(given, (list, tuple, Mapping)) and not _is_config(given):
        raise _refused("loss", "one loss: models with several outputs cannot be trained here", given)
    try:
        found = losses.get(given)
    except ValueError as error:
        known = [name for name in dir(losses) if not name.startswith("_")]
        hint = did_you_mean(str(given), known)
        raise _refused("loss", f"a name or an object of keras.losses, or a function{hint}", given) from error
    if not callable(found):
        raise _refused("loss", "a name or an object of keras.losses, or a function of (y_true, y_pred)", given)
    reduction = getattr(found, "reduction", None)
    if reduction not in _REDUCTIONS:
        raise _refused("loss", f"one whose reduction is the mean over the rows, not {reduction!r}", given)
    return Loss(found, _kind(found), weight=_weight(weights))


def _kind(found: Any) -> str:
    """The class's name of Keras' own loss, also of its function."""
    losses = on_torch().losses
    function = found.func if isinstance(found, partial) else found
    for name in dir(losses):
        value = getattr(losses, name)
        if isinstance(value, type) and type(found) is value:
            return name
    name = getattr(function, "__name__", "")
    short = name.replace("_", "")
    if getattr(losses, name, None) is function:
        return next((cls for cls in dir(losses) if cls[0].isupper() and cls.lower() == short), "")
    return ""


def _weight(weights: Any) -> float:
    values = list(weights.values()) if isinstance(weights, Mapping) else weights
    values = values if isinstance(values, (list, tuple)) else [1.0 if values is None else values]
    if len(values) != 1 or isinstance(values[0], bool) or not isinstance(values[0], (int, float)):
        raise _refused("lossWeights", "one number: the model has one output", weights)
    return float(values[0])


@dataclass(frozen=True)
class Optimizer:
    """Makes a KerasOptimizer of parameters; an optimizer of Keras, as its class and settings."""

    cls: Any
    settings: Mapping[str, Any]

    def __call__(self, parameters: Any) -> KerasOptimizer:
        """The optimizer of these parameters."""
        return KerasOptimizer(parameters, self.cls.from_config(dict(self.settings)))

    @property
    def has_schedule(self) -> bool:
        """True if Keras sets the learning rate at each step."""
        return isinstance(self.settings["learning_rate"], Mapping)

    def __reduce__(self) -> Any:
        return _optimizer_of, (packed((self.cls, dict(self.settings))),)


def _optimizer_of(content: bytes) -> Optimizer:
    return Optimizer(*unpacked(content))


def optimizer_of(given: Any, learning_rate: float | None = None) -> Optimizer:
    """The optimizer that ``compile`` would make of ``given``, a name or an object, afresh: nothing of its past.

    learning_rate: instead of its own. Raises InvalidParamError for settings that training has otherwise.
    """
    optimizers = on_torch().optimizers
    try:
        found = optimizers.get(given)
    except ValueError as error:
        known = [name.lower() for name in dir(optimizers) if name[0].isupper()]
        hint = did_you_mean(str(given), known)
        raise _refused("optimizer", f"a name or an object of keras.optimizers{hint}", given) from error
    settings = found.get_config()
    for name, instead in _UNFIT.items():
        if settings.get(name):
            raise _refused("optimizer", f"one without {name!r}: here that is {instead}", settings[name])
    if "inner_optimizer" in settings:
        raise _refused("optimizer", "one without a scaled loss: here that is precision='float16'", given)
    if getattr(found, "_exclude_from_weight_decay", None):
        raise _refused("optimizer", "one whose weight decay is for all variables", given)
    if learning_rate is not None:
        settings["learning_rate"] = learning_rate
    return Optimizer(type(found), settings)


class KerasOptimizer(torch.optim.Optimizer):
    """Keras' own update of torch's parameters, clipping and schedules included; its learning rate is that of the
    group, unless Keras has a schedule for it."""

    def __init__(self, parameters: Any, optimizer: Any) -> None:
        keras = on_torch()
        super().__init__(parameters, {"lr": float(optimizer.learning_rate)})
        self.keras = optimizer
        self.parameters = [one for group in self.param_groups for one in group["params"]]
        self.variables = [keras.Variable(one, name=f"parameter_{i}") for i, one in enumerate(self.parameters)]
        with keras.device(str(self.parameters[0].device)):
            optimizer.build(self.variables)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update, by the parameters' gradients."""
        (group,) = self.param_groups
        scheduled = isinstance(self.keras.get_config()["learning_rate"], Mapping)
        if not scheduled:
            self.keras.learning_rate = group["lr"]
        self.keras.apply([one.grad for one in self.parameters], self.variables)
        if scheduled:
            group["lr"] = float(self.keras.learning_rate)

    def state_dict(self) -> dict[str, Any]:
        """As torch has it, and Keras' own variables."""
        return {**super().state_dict(), "keras": [one.value.detach().clone() for one in self.keras.variables]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """What ``state_dict`` gave."""
        super().load_state_dict({key: state_dict[key] for key in ("state", "param_groups")})
        for variable, value in zip(self.keras.variables, state_dict["keras"], strict=True):
            variable.assign(value)


def metrics_of(given: Iterable[Any]) -> list[Any]:
    """Metrics by Keras' names, or of its classes as they are by default, by torchmetrics' names; torchmetrics objects as
    they are. Accuracy is left out: a task with classes always has it. Raises InvalidParamError."""
    keras, found = on_torch(), []
    for one in given:
        if isinstance(one, keras.metrics.Metric):
            _check_default(one)
        elif hasattr(one, "update") and hasattr(one, "compute"):
            found.append(one)
            continue
        name = type(one).__name__ if isinstance(one, keras.metrics.Metric) else str(getattr(one, "__name__", one))
        short = name.replace("_", "").lower()
        if short in _ACCURACY:
            continue
        if short not in _METRICS:
            hint = did_you_mean(short, _METRICS)
            raise _refused("metrics", f"of {sorted({*_METRICS, 'accuracy'})}, or a torchmetrics object{hint}", one)
        found.append(_METRICS[short])
    return list(dict.fromkeys(found))


def _check_default(metric: Any) -> None:
    own = {"name", "dtype"}
    settings = {key: value for key, value in metric.get_config().items() if key not in own}
    default = {key: value for key, value in type(metric)().get_config().items() if key not in own}
    if settings != default:
        other = {key: value for key, value in settings.items() if value != default.get(key)}
        raise _refused("metrics", f"{type(metric).__name__} as it is by default, or a torchmetrics object", other)


def _is_config(given: Any) -> bool:
    return isinstance(given, Mapping) and "class_name" in given


def _refused(param: str, rule: str, value: Any) -> InvalidParamError:
    return InvalidParamError(f"{param!r} must be {rule} (got {value!r:.200})", param=param, value=value)
