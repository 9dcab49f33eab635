"""KerasEstimator: a Keras 3 model, compiled or not, trained as any torch model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from sparkdl import tasks
from sparkdl.errors import InvalidParamError, did_you_mean
from sparkdl.interop import keras_compile as compiled
from sparkdl.interop.keras import input_names, loaded, module, on_torch, saved
from sparkdl.params import _param, anything, metrics_like, refuse, with_accessors
from sparkdl.probe import example_inputs
from sparkdl.ready.base import ReadyEstimator
from sparkdl.signature import Signature
from sparkdl.train.state import random_state, set_random_state

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_ACTIVATIONS = ("softmax", "sigmoid")


def layers_like(value: Any) -> list[dict[str, dict[str, Any]]]:
    """Layers as plain values."""
    good = isinstance(value, (list, tuple)) and all(
        isinstance(one, Mapping) and len(one) == 1 and isinstance(next(iter(one.values())), (Mapping, type(None)))
        for one in value
    )
    if not good or not value:
        raise refuse("layers", "a list such as [{'Dense': {'units': 64}}, {'Dense': {'units': 1}}]", value)
    return [{name: dict(settings or {}) for name, settings in one.items()} for one in value]


@with_accessors
class KerasEstimator(ReadyEstimator):
    """Trains a Keras 3 model that runs on torch, with Keras' own loss and optimizer. docs/keras.md is its guide.

    model: a keras.Model of one output, or a function that makes one (called with Keras' seeds set to ``seed``). It is
        not modified. One that is not built yet is built for the columns' shapes; of one with several inputs the columns
        are by default those of the inputs' names.
    layers: instead of a model, the layers of a ``keras.Sequential`` as plain values, for a conf:
        ``[{"Dense": {"units": 64, "activation": "relu"}}, {"Dense": {"units": 1}}]``, names and arguments as keras.layers has.
    loss, optimizer, metrics, lossWeights: what ``compile`` takes; what is not given here is as the model was compiled.
        A function of (y_true, y_pred) must return a loss a row, or their mean. ``learningRate`` replaces the optimizer's.
    task: by default what the loss is for: ``binary``, ``multiclass`` or ``regression``. Its columns are those of
        TorchEstimator, so for a model that ends in a softmax or sigmoid ``probability`` is what Keras itself predicts.

    All other Params are TorchEstimator's. Raises InvalidParamError for what Keras has and training here has not: a model
    with several outputs, constraints, losses that layers add to themselves; SparkdlError where Keras does not run on torch.
    """

    layers = _param("layers", "the layers of a Sequential model, as plain values", layers_like)
    loss = _param("loss", "a loss's name in Keras, one of its objects, or a function of (y_true, y_pred)", anything)
    optimizer = _param("optimizer", "an optimizer's name in Keras, or one of its objects", anything)
    metrics = _param("metrics", "names or objects of Keras' metrics, or of torchmetrics'", metrics_like)
    lossWeights = _param("lossWeights", "the loss's factor", anything)

    own_defaults: ClassVar[Mapping[str, Any]] = {
        "model": None, "layers": None, "loss": None, "optimizer": None, "metrics": [], "lossWeights": None,
    }  # fmt: skip
    heeds: ClassVar[frozenset[str]] = frozenset(
        {"model", "loss", "optimizer", "metrics", "task", "inputCols", "featuresCol"}
    )

    def _design(self, df: DataFrame) -> tuple[DataFrame, dict[str, Any]]:
        given, model = self._models()
        told = given.get_compile_config() if given.compiled else {}
        inputs = self._built(model, df)
        _check_parts(model)
        loss = compiled.loss_of(*self._loss(given, told))
        task = self.getOrDefault("task") or loss.task
        if loss.task == "binary" and model.output_shape[-1] != 1:  # several yes or no a row
            task = self.getOrDefault("task")
        activation = _activation(model, loss, task)
        return df, {
            "model": module(model, activation),
            "loss": replace(loss, activation=activation, rows=self._reduction == "none"),
            "optimizer": self._optimizer(given),
            "metrics": compiled.metrics_of(self.getOrDefault("metrics") or _metrics(told)),
            "task": task,
            "inputCols": inputs,
        }

    def _models(self) -> tuple[Any, Any]:
        """The model as it was given, and one of this fit's own."""
        keras = on_torch()
        model = self.getOrDefault("model")
        if self.isSet("layers"):
            self._refuse_set("'layers' tells the model", "model")
            model = partial(_sequential, self.getOrDefault("layers"))
        if isinstance(model, keras.Model):
            return model, loaded(*saved(model))
        if not callable(model) or isinstance(model, torch.nn.Module):
            raise _no_model(model)
        made = _made(model, self.getOrDefault("seed"))
        return made, made

    def _built(self, model: Any, df: DataFrame) -> list[str] | None:
        """The columns of the model's inputs, which it is built for if it was not."""
        inputs = self.getOrDefault("inputCols") if self.isSet("inputCols") else None
        names = input_names(model)
        if inputs is None and len(names) > 1 and not self.isSet("featuresCol"):
            inputs = names
        if not model.built:
            columns = inputs or [self.getOrDefault("featuresCol")]
            if self.getOrDefault("preprocess"):
                raise InvalidParamError(
                    "a model that is not built does not know its inputs' shapes, and those of 'preprocess' are known "
                    "later; begin the model with keras.Input(shape)",
                    param="model",
                    value=model.name,
                )
            shapes, stack = self.getOrDefault("shapes"), "features" if len(columns) > 1 else None
            shapes = {name: shape for name, shape in shapes.items() if name in columns}
            with torch.no_grad():
                model(*example_inputs(Signature.from_dataframe(df, columns, shapes=shapes, stack=stack)))
        return inputs

    def _loss(self, model: Any, told: Mapping[str, Any]) -> tuple[Any, Any]:
        own = self.getOrDefault("loss")
        weights = self.getOrDefault("lossWeights")
        given = own if own is not None else getattr(model, "loss", None)
        if given is None:
            raise InvalidParamError("'loss' must be set, or the model be compiled with one", param="loss", value=None)
        return given, told.get("loss_weights") if weights is None and own is None else weights

    def _optimizer(self, model: Any) -> Any:
        given = self.getOrDefault("optimizer")
        if given is None:
            given = (model.optimizer if model.compiled else None) or "adam"
        rate = self.getOrDefault("learningRate") if self.isSet("learningRate") else None
        made = compiled.optimizer_of(given, rate)
        if made.has_schedule:
            self._refuse_set("a Keras schedule sets the learning rate", "scheduler", "learningRateScaling")
        self._refuse_set("Keras' optimizers have one group of parameters", "parameterGroups", "optimizerParams")
        self._refuse_set("it is for torch's batch norm, not for Keras'", "syncBatchNorm")
        return made

    def _refuse_set(self, why: str, *names: str) -> None:
        for name in names:
            if self.isSet(name) and self.getOrDefault(name) not in (None, False, "none", {}, []):
                raise InvalidParamError(
                    f"{name!r} does not go with this: {why}; leave it out", param=name, value=self.getOrDefault(name)
                )


def _sequential(layers: Sequence[Mapping[str, Mapping[str, Any]]]) -> Any:
    keras, made = on_torch(), []
    known = {name: value for name, value in vars(keras.layers).items() if isinstance(value, type)} | {
        "Input": keras.Input
    }
    for place, one in enumerate(layers):
        ((name, settings),) = one.items()
        if name not in known:
            raise refuse("layers", f"of names in keras.layers{did_you_mean(name, known)}", name)
        try:
            made.append(known[name](**settings))
        except (TypeError, ValueError) as error:
            raise InvalidParamError(
                f"'layers': layer {place}, {name}, does not take {dict(settings)}: {error}", param="layers", value=one
            ) from error
    return keras.Sequential(made)


def _made(make: Callable[[], Any], seed: int) -> Any:
    keras, nothing = on_torch(), torch.nn.Identity()
    before = random_state(nothing)
    try:
        keras.utils.set_random_seed(seed)
        model = make()
    finally:
        set_random_state(nothing, before)
    if not isinstance(model, keras.Model):
        raise _no_model(model)
    return model


def _no_model(given: Any) -> InvalidParamError:
    return InvalidParamError(
        f"'model' must be a keras.Model, or a function that makes one (got {type(given).__name__}); TorchEstimator "
        "trains torch modules",
        param="model",
        value=given,
    )


def _check_parts(model: Any) -> None:
    """Raise InvalidParamError for what the training loop would leave undone."""
    keras = on_torch()
    if len(getattr(model, "outputs", None) or [0]) != 1:
        raise InvalidParamError(
            f"the model has {len(model.outputs)} outputs; one can be trained: join them, or train a model an output",
            param="model",
            value=model.name,
        )
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.TorchModuleWrapper):
            raise InvalidParamError(
                f"layer {layer.name!r} is a torch module, whose weights Keras does not hold; train torch models with "
                "TorchEstimator",
                param="model",
                value=layer.name,
            )
        if getattr(layer, "activity_regularizer", None) is not None:
            raise InvalidParamError(
                f"layer {layer.name!r} has an activity_regularizer, which is not honoured here; kernel_regularizer and "
                "bias_regularizer are",
                param="model",
                value=layer.name,
            )
    for variable in model.trainable_variables:
        if variable.constraint is not None:
            raise InvalidParamError(
                f"variable {variable.path!r} has a constraint, which is not honoured here; leave it out",
                param="model",
                value=variable.path,
            )


def _metrics(told: Mapping[str, Any]) -> list[Any]:
    if told.get("weighted_metrics"):
        raise InvalidParamError(
            "'weighted_metrics' of compile are not honoured here: metrics are over rows; give 'metrics'",
            param="metrics",
            value=told["weighted_metrics"],
        )
    given = on_torch().saving.deserialize_keras_object(told.get("metrics")) or []
    return metrics_like(given.values() if isinstance(given, Mapping) else given)


def _activation(model: Any, loss: compiled.Loss, task: str | None) -> str | None:
    """``softmax`` or ``sigmoid`` if the model returns probabilities of the task's classes, None if it returns logits.

    Raises InvalidParamError if the loss takes the one and the model returns the other."""
    if task not in tasks.DEFAULT_LOSS or task == "regression":
        return None
    wanted, ends = {"binary": "sigmoid", "multiclass": "softmax"}[task], _last(model)
    if not loss.task:
        return wanted if ends == wanted else None
    if loss.takes_probabilities and ends not in (wanted, None):
        raise InvalidParamError(
            f"the loss takes probabilities, and the model ends in {ends!r}: end it in {wanted!r}, or give the loss as an "
            "object with from_logits=True",
            param="loss",
            value=loss.kind,
        )
    if not loss.takes_probabilities and ends in _ACTIVATIONS:
        raise InvalidParamError(
            f"the loss takes logits (from_logits=True), and the model ends in {ends!r}: leave one of them out",
            param="loss",
            value=loss.kind,
        )
    return wanted if loss.takes_probabilities else None


def _last(model: Any) -> str | None:
    """The activation that a model ends in, if its last layer tells: ``linear`` for none."""
    keras = on_torch()
    if not getattr(model, "outputs", None):
        return None
    last = model.outputs[0]._keras_history.operation
    if isinstance(last, keras.Model):
        return _last(last)
    if isinstance(last, keras.layers.Softmax):
        return "softmax"
    return getattr(getattr(last, "activation", None), "__name__", None)
