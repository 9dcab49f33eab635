"""What the Params of a TorchEstimator say, as the objects that a fit is made of; what does not go together is refused."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

import torch
from pyspark.ml.param import Params
from torch import Tensor, nn

from sparkdl import checks, program, store, tasks
from sparkdl.bundle import Bundle
from sparkdl.data.manifest import Dataset, check_split
from sparkdl.data.petastorm import PetastormDataset
from sparkdl.errors import InvalidParamError
from sparkdl.model import TorchModel
from sparkdl.preprocess.learn import learn
from sparkdl.source import Columns, Frame, Stored
from sparkdl.train import parameters
from sparkdl.train.callbacks import Callback
from sparkdl.train.checkpoint import Checkpoints, Every
from sparkdl.train.loop import Training
from sparkdl.train.metrics import Monitor, metrics_given, monitor_for
from sparkdl.train.named import loss_named, named_optimizer, named_scheduler
from sparkdl.train.rank import Reading
from sparkdl.train.schedule import Schedule
from sparkdl.train.step import Recipe

Values = Mapping[str, Any]  # of Params, by name; None for one that is not set and has no default
_UNTOLD = ("preprocess", "decoder", "storePath", "checkpointDir", "initialWeights", "callbacks", "metrics")
_MAY_DIFFER = (
    "model", "epochs", "numProc", "minProc", "maxRetries", "stallTimeout", "checkpointEvery", "checkpointKeep", "resume",
    "patience", "collective", "trusted", "verbose", "predictionCol", "probabilityCol", "probabilityAsVector",
)  # between a run and the fit that takes it up  # fmt: skip


def values_of(params: Params) -> Values:
    """The Params' values, by name."""
    return {param.name: params.getOrDefault(param) if params.isDefined(param) else None for param in params.params}


def module_of(values: Values) -> nn.Module:
    """The module to train, the user's own left as it is."""
    if values["model"] is None:
        raise InvalidParamError("'model' must be set before fit", param="model", value=None)
    model = values["model"]
    if not isinstance(model, nn.Module):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(values["seed"])
            model = model()
    if not isinstance(model, nn.Module):
        raise InvalidParamError(f"'model' must make an nn.Module (got {model!r})", param="model", value=model)
    parameters.check_state(model)
    parameters.check(model, values["frozen"], values["parameterGroups"])
    if values["initialWeights"] is not None:
        weights = _weights(values["initialWeights"])
        parameters.check_weights(model, weights)
        model = _copy(model)
        model.load_state_dict(dict(weights))
        return model
    return _copy(model)


def columns_of(values: Values) -> Columns:
    """Which columns are what. Raises InvalidParamError if validation is told two ways."""
    check_split(values["validationIndicatorCol"], values["validationFraction"])
    return Columns(
        values["inputCols"], values["featuresCol"], values["labelCol"], values["weightCol"],
        values["validationIndicatorCol"], values["validationFraction"], values["shapes"],
        values["seed"], values["trusted"], values["preprocess"], values["decoder"],
    )  # fmt: skip


def learnt(values: Values, dataset: Any) -> Values:
    """The values with preprocessors that know what they must know of ``dataset``."""
    if not values["preprocess"] or not hasattr(dataset, "sparkSession"):
        return values
    made = learn(dataset, values["preprocess"])
    inputs = values["inputCols"]
    if inputs is None and not _sets_features(values):
        label = values["labelCol"]
        named = (name for key in made for name in ((key,) if isinstance(key, str) else key))
        inputs = [name for name in named if name != label] or None
    return {**values, "preprocess": made, "inputCols": inputs}


def _sets_features(values: Values) -> bool:
    return values["featuresCol"] in values["preprocess"]


def training_of(
    values: Values, module: nn.Module, bundle: Bundle, source: Frame | Stored, example: list[Tensor] | None
) -> Training:
    """The training, its parts by name looked up, checked against the first rows."""
    task = values["task"]
    loss = values["loss"] if values["loss"] is not None else tasks.DEFAULT_LOSS.get(task or "")
    if loss is None:
        raise InvalidParamError("'loss' must be set when task is None", param="loss", value=None)
    if isinstance(loss, str):
        loss = loss_named(loss, reduction="none" if source.has_weights else "mean")
    optimizer = values["optimizer"]
    if isinstance(optimizer, str):
        arguments = {"lr": values["learningRate"], **values["optimizerParams"]}
        optimizer = named_optimizer(optimizer, arguments)
    metrics = {}
    if values["metrics"]:
        metrics = metrics_given(values["metrics"], task, checks.classes(bundle))
    if example is not None:
        checks.check_loss(module, loss, task, example, source.label, weighted=source.has_weights)
        checks.check_metrics(module, metrics, task, example, source.label)
    parameters.check_trainable(module, values["frozen"])
    monitor = monitor_for(
        values["monitor"], source.has_validation, metrics, task,
        patience=values["patience"], min_delta=values["minDelta"],
    )  # fmt: skip
    callbacks = values["callbacks"]
    return Training(
        module, loss, optimizer, task, values["epochs"], values["seed"],
        recipe=_recipe(values), schedule=_schedule(values, monitor), frozen=tuple(values["frozen"]),
        groups=tuple(values["parameterGroups"]), metrics=metrics, monitor=monitor,
        callbacks=tuple(one for one in callbacks if isinstance(one, Callback)),
    )  # fmt: skip


def _recipe(values: Values) -> Recipe:
    recipe = Recipe(
        accumulation=values["accumulationSteps"],
        clip_norm=values["clipNorm"],
        precision=values["precision"],
        compression=values["gradientCompression"],
        compile=values["compileModel"],
        sync_batch_norm=values["syncBatchNorm"],
    )
    if recipe.compile and recipe.sync_batch_norm:
        raise InvalidParamError(
            "'compileModel' and 'syncBatchNorm' do not go together: torch.compile cannot look into a collective; "
            "leave one of them out",
            param="compileModel",
            value=True,
        )
    return recipe


def _schedule(values: Values, monitor: Monitor | None) -> Schedule:
    make = values["scheduler"]
    if isinstance(make, str):
        make = named_scheduler(make, values["schedulerParams"])
        make = make.for_mode(monitor.mode) if monitor else make
        if make.is_plateau and values["schedulerInterval"] == "step":
            raise InvalidParamError(
                "'schedulerInterval' must be 'epoch' for ReduceLROnPlateau, whose figure is known once an epoch "
                "(got 'step')",
                param="schedulerInterval",
                value="step",
            )
    elif make is not None:
        make = checks.WithSteps(make)
    return Schedule(make, values["schedulerInterval"], values["learningRateScaling"])


def reading_of(values: Values, data: Dataset | PetastormDataset) -> Reading:
    """What is read and how."""
    return Reading(
        data,
        batch_size=values["batchSize"],
        seed=values["seed"],
        kind=values["reader"],
        memory_budget=values["memoryBudget"],
        drop_last=values["dropLast"],
    )


def checkpoints_of(values: Values, run: str, identity: dict[str, Any]) -> Checkpoints | None:
    """Where and how often the run is saved; None if nobody would go on from there."""
    if values["checkpointDir"] is None and not values["maxRetries"]:
        return None
    count, unit = values["checkpointEvery"].split(" ")
    every = Every(epochs=int(count)) if unit.startswith("epoch") else Every(updates=int(count))
    keep, resume = values["checkpointKeep"], values["resume"]
    return Checkpoints(store.join(run, "checkpoints"), every, keep, identity, resume)


def identity_of(values: Values, module: nn.Module, training: Training) -> dict[str, Any]:
    """What must be the same, beside the data, for a checkpoint to be taken up."""
    shapes = {
        name: f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
        for name, value in module.state_dict().items()
    }
    settings = {name: value for name, value in settings_of(values).items() if name not in _MAY_DIFFER}
    told = {"model": shapes, "metrics": sorted(training.metrics), **settings}
    return dict(json.loads(json.dumps(told, default=str)))  # as a checkpoint gives it back


def settings_of(values: Values) -> dict[str, Any]:
    """The Params that made a model, as far as JSON can say them; those that were not set are left out."""
    return {name: _plain(value) for name, value in values.items() if name not in _UNTOLD and value is not None}


def counts(data: Dataset | PetastormDataset, training: Training) -> dict[str, Any]:
    """What a bundle tells of the rows it was trained on, and of the figure that chose its weights."""
    validation = data.validation if isinstance(data, Dataset) else None
    return {
        "rows": data.rows,
        "validation_rows": validation.rows if validation else 0,
        "monitor": training.monitor.name if training.monitor else None,
    }


def _copy(model: nn.Module) -> nn.Module:
    """A module of this fit's own: several fits, in threads, may be given the same."""
    try:
        return copy.deepcopy(model)
    except Exception:  # what cannot be copied cannot be pickled: that error names the attribute
        program.pickle(model, "model")
        raise


def _plain(value: Any) -> Any:
    if isinstance(value, (str, int, float, bool, list, dict, type(None))):
        return value
    return getattr(value, "__qualname__", type(value).__name__)


def _weights(given: Any) -> Mapping[str, Tensor]:
    """A state_dict, out of whatever holds one."""
    if isinstance(given, str):
        given = Bundle.load(given if store.exists(store.join(given, "manifest.json")) else store.join(given, "bundle"))
    if isinstance(given, TorchModel):
        given = given.bundle
    weights = given.weights if isinstance(given, Bundle) else given
    if not isinstance(weights, Mapping) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise InvalidParamError(
            f"'initialWeights' must be a Bundle, the URI of one, a TorchModel or a state_dict "
            f"(got {type(given).__name__})",
            param="initialWeights",
            value=given,
        )
    return weights
