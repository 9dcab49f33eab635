"""pyspark.ml Params shared by the estimator and the model; a bad value is refused when it is set."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any, TypeVar

from pyspark.ml.param import Param, Params, TypeConverters
from pyspark.ml.param.shared import HasFeaturesCol, HasInputCols, HasLabelCol, HasPredictionCol

from sparkdl.decode.base import Decoder
from sparkdl.decode.base import from_json as decoder_of
from sparkdl.errors import InvalidParamError, did_you_mean
from sparkdl.preprocess.base import Preprocessor
from sparkdl.preprocess.base import from_json as preprocess_of
from sparkdl.score import scoring
from sparkdl.tasks import TASKS
from sparkdl.train.callbacks import Callback
from sparkdl.train.collective import BACKENDS
from sparkdl.train.gradients import COMPRESSED
from sparkdl.train.loggers import Logger
from sparkdl.train.named import loss_named, optimizer_class, scheduler_class
from sparkdl.train.schedule import SCALINGS
from sparkdl.train.step import PRECISIONS

Converter = Callable[[Any], Any]
READERS = ("arrow", "petastorm")
P = TypeVar("P", bound=type[Params])


def refuse(name: str, rule: str, value: Any) -> InvalidParamError:
    """The error for a value that a parameter does not take."""
    return InvalidParamError(f"{name!r} must be {rule} (got {value!r})", param=name, value=value)


def whole(name: str, at_least: int) -> Converter:
    """A whole number from ``at_least`` on."""

    def convert(value: Any) -> int:
        if isinstance(value, bool) or not TypeConverters._is_integer(value) or value < at_least:
            raise refuse(name, f"a whole number, at least {at_least}", value)
        return int(value)

    return convert


def positive(name: str) -> Converter:
    """A finite number above 0."""

    def convert(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, Real) or not 0 < float(value) < math.inf:
            raise refuse(name, "a number above 0", value)
        return float(value)

    return convert


def one_of(name: str, options: tuple[str | None, ...]) -> Converter:
    """One of a few names."""

    def convert(value: Any) -> str | None:
        if value not in options:
            hint = did_you_mean(str(value), [option for option in options if option])
            raise refuse(name, f"one of {list(options)}{hint}", value)
        return value  # type: ignore[no-any-return]

    return convert


def text(name: str) -> Converter:
    """A text that is not empty."""

    def convert(value: Any) -> str:
        if not isinstance(value, str) or not value:
            raise refuse(name, "a text that is not empty", value)
        return value

    return convert


def number(name: str, at_least: float, below: float = math.inf) -> Converter:
    """A number in ``[at_least, below)``."""

    def convert(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, Real) or not at_least <= float(value) < below:
            upper = "" if below == math.inf else f", and below {below:g}"
            raise refuse(name, f"a number, at least {at_least:g}{upper}", value)
        return float(value)

    return convert


def texts(name: str) -> Converter:
    """Texts, or one."""

    def convert(value: Any) -> list[str]:
        given = [value] if isinstance(value, str) else value
        if not isinstance(given, (list, tuple)) or not all(isinstance(item, str) and item for item in given):
            raise refuse(name, "a list of texts", value)
        return list(given)

    return convert


def byte_size(name: str) -> Converter:
    """A number of bytes, or a text such as Spark's ``512m`` and ``2g``."""

    def convert(value: Any) -> int:
        found = re.fullmatch(r"(\d+)\s*([kmgt]?)b?", str(value).strip().lower())
        if isinstance(value, bool) or not found or not int(found[1]):
            raise refuse(name, "a number of bytes, or a text such as '512m' or '2g'", value)
        return int(found[1]) << {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}[found[2]]

    return convert


def device(name: str) -> Converter:
    """A device's name."""

    def convert(value: Any) -> str:
        if not isinstance(value, str) or not re.fullmatch(scoring.DEVICE, value):
            raise refuse(name, "'auto', 'cpu', 'cuda' or 'cuda:N'", value)
        return value

    return convert


def how_often(name: str) -> Converter:
    """A text such as ``1 epoch`` or ``500 steps``."""

    def convert(value: Any) -> str:
        if not isinstance(value, str) or not re.fullmatch(r"[1-9]\d* (epoch|step)s?", value):
            raise refuse(name, "a text such as '1 epoch' or '500 steps'", value)
        return value

    return convert


def groups(name: str) -> Converter:
    """Parameter groups: dictionaries with ``params``, name patterns, and settings of the optimizer."""

    def convert(value: Any) -> list[dict[str, Any]]:
        good = isinstance(value, (list, tuple)) and all(
            isinstance(group, Mapping) and group.get("params") and isinstance(group["params"], (str, list, tuple))
            for group in value
        )
        if not good:
            raise refuse(name, "a list of dictionaries such as {'params': 'head.*', 'lr': 0.01}", value)
        return [dict(group) for group in value]

    return convert


def scheduler_like(value: Any) -> Any:
    """A function of the optimizer, or the name of a scheduler that torch has."""
    if isinstance(value, str):
        scheduler_class(value)
    elif not callable(value):
        raise refuse("scheduler", "a name in torch.optim.lr_scheduler, or a function of the optimizer", value)
    return value


def callbacks_like(value: Any) -> list[Any]:
    """Callbacks and Loggers."""
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, (Callback, Logger)) for item in value):
        raise refuse("callbacks", "a list of sparkdl.Callback and sparkdl.Logger objects", value)
    return list(value)


def metrics_like(value: Any) -> Any:
    """Names, torchmetrics objects, or a dictionary of these; which names there are depends on the task."""
    return value if isinstance(value, Mapping) else list(value) if isinstance(value, (list, tuple)) else [value]


def anything(value: Any) -> Any:
    """What cannot be checked before fit."""
    return value


def flag(name: str) -> Converter:
    """True or False."""

    def convert(value: Any) -> bool:
        if not isinstance(value, bool):
            raise refuse(name, "True or False", value)
        return value

    return convert


def mapping(name: str) -> Converter:
    """A dictionary with names as keys."""

    def convert(value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise refuse(name, "a dictionary with names as keys", value)
        return dict(value)

    return convert


def shapes(name: str) -> Converter:
    """A dictionary from columns to shapes of one row."""

    def convert(value: Any) -> dict[str, tuple[int, ...]]:
        given = mapping(name)(value)
        for shape in given.values():
            if not isinstance(shape, (tuple, list)) or not all(type(n) is int and n > 0 for n in shape):
                raise refuse(name, "a dictionary from columns to shapes such as (3, 32, 32)", value)
        return {column: tuple(shape) for column, shape in given.items()}

    return convert


def preprocess_like(value: Any) -> dict[Any, Preprocessor]:
    """Preprocessors, or what JSON tells of one, by column or by several columns."""
    if not isinstance(value, Mapping):
        raise refuse("preprocess", "a dictionary from columns to preprocessors", value)
    made = {}
    taken: set[str] = set()
    for key, told in value.items():
        names = (key,) if isinstance(key, str) else key
        if not isinstance(names, tuple) or not names or not all(isinstance(name, str) and name for name in names):
            raise refuse("preprocess", "by a column's name, or by a tuple of names", key)
        twice = [name for place, name in enumerate(names) if name in taken or name in names[:place]]
        if twice:
            raise refuse("preprocess", f"one preprocessor a column, and {twice[0]!r} is there twice", list(value))
        taken.update(names)
        made[key if isinstance(key, str) else tuple(names)] = (
            told if isinstance(told, Preprocessor) else preprocess_of(told)
        )
    return made


def decoder_like(value: Any) -> Decoder:
    """A decoder, or what JSON tells of one."""
    return value if isinstance(value, Decoder) else decoder_of(value)


def model_like(value: Any) -> Any:
    """An nn.Module or a function that makes one."""
    if not callable(value):
        raise refuse("model", "an nn.Module, or a function without arguments that returns one", value)
    return value


def loss_like(value: Any) -> Any:
    """A function, or the name of a loss that torch has."""
    if isinstance(value, str):
        loss_named(value)
    elif not callable(value):
        raise refuse("loss", "a loss's name in torch, or a function of (outputs, label)", value)
    return value


def optimizer_like(value: Any) -> Any:
    """A function of the parameters, or the name of an optimizer that torch has."""
    if isinstance(value, str):
        optimizer_class(value)
    elif not callable(value):
        raise refuse("optimizer", "a name in torch.optim, or a function of the parameters", value)
    return value


def with_accessors(cls: P) -> P:
    """Give the class ``setX`` and ``getX`` for each of its Params, as pyspark.ml has them, unless it has its own."""

    def setter(name: str) -> Any:
        def set_it(self: Params, value: Any) -> Params:
            if value is None:  # which pyspark would keep without asking the converter
                self.clear(self.getParam(name))
                return self
            return self._set(**{name: value})

        set_it.__doc__ = f"Set ``{name}``, or with None go back to its default; returns self."
        return set_it

    def getter(name: str) -> Any:
        def get_it(self: Params) -> Any:
            return self.getOrDefault(name)

        get_it.__doc__ = f"The value of ``{name}``, or its default."
        return get_it

    for name in [name for name in dir(cls) if isinstance(getattr(cls, name, None), Param)]:
        for prefix, make in (("set", setter), ("get", getter)):
            method = f"{prefix}{name[0].upper()}{name[1:]}"
            if not hasattr(cls, method):
                made = make(name)
                made.__name__ = method
                setattr(cls, method, made)
    return cls


def _param(name: str, doc: str, converter: Converter) -> Param[Any]:
    return Param(Params._dummy(), name, doc, converter)  # type: ignore[attr-defined]


DEFAULTS: dict[str, Any] = {
    "optimizer": "adam", "optimizerParams": {}, "learningRate": 1e-3, "task": None, "probabilityCol": "probability",
    "probabilityAsVector": False, "shapes": {}, "preprocess": {}, "frozen": [], "parameterGroups": [], "validationFraction": 0.0,
    "metrics": [], "patience": 0, "minDelta": 0.0, "callbacks": [], "batchSize": 256, "epochs": 1, "dropLast": False,
    "accumulationSteps": 1, "precision": "float32", "gradientCompression": None, "compileModel": False,
    "syncBatchNorm": False, "schedulerParams": {}, "schedulerInterval": "epoch", "learningRateScaling": "none",
    "numProc": 0, "minProc": 0, "maxRetries": 2, "stallTimeout": 600.0, "checkpointEvery": "1 epoch",
    "checkpointKeep": 2, "resume": False, "reader": "arrow", "memoryBudget": 1 << 30, "seed": 0, "collective": "auto",
    "trusted": False, "verbose": True,
}  # fmt: skip


MODEL_DEFAULTS: dict[str, Any] = {
    "predictionCol": "prediction", "probabilityCol": "probability", "probabilityAsVector": False, "batchSize": 0,
    "device": "auto", "precision": "float32", "compileModel": False, "handleInvalid": "error", "errorCol": "",
    "modelsPerGpu": 1, "udfType": "auto", "engine": "python",
}  # fmt: skip


class ColumnParams(HasFeaturesCol, HasInputCols, HasPredictionCol):
    """Which columns go in, and what those that come out are called."""

    probabilityCol = _param(
        "probabilityCol", "column for the classes' probabilities, array<float>; '' for none", TypeConverters.toString
    )
    probabilityAsVector = _param(
        "probabilityAsVector", "give probabilityCol as a pyspark.ml vector", flag("probabilityAsVector")
    )


class TorchModelParams(ColumnParams):
    """Params of TorchModel."""

    batchSize = _param("batchSize", "rows to a forward pass; 0: what suits the model", whole("batchSize", 0))
    device = _param("device", "auto, cpu, cuda or cuda:N", device("device"))
    precision = _param("precision", f"one of {scoring.PRECISIONS}", one_of("precision", scoring.PRECISIONS))
    compileModel = _param("compileModel", "run the model through torch.compile", flag("compileModel"))
    handleInvalid = _param(
        "handleInvalid",
        f"what is done with a bad row, one of {scoring.INVALID}",
        one_of("handleInvalid", scoring.INVALID),
    )
    errorCol = _param(
        "errorCol", "column that says what is wrong with a row that is kept; '' for none", TypeConverters.toString
    )
    modelsPerGpu = _param("modelsPerGpu", "worker processes that keep a model on one GPU", whole("modelsPerGpu", 1))
    udfType = _param("udfType", f"kind of UDF, one of {scoring.UDF_TYPES}", one_of("udfType", scoring.UDF_TYPES))
    engine = _param(
        "engine",
        f"what runs the model, one of {scoring.ENGINES}: Python workers, or ONNX Runtime in the executors' JVM",
        one_of("engine", scoring.ENGINES),
    )


class TorchEstimatorParams(ColumnParams, HasLabelCol):
    """Params of TorchEstimator."""

    model = _param("model", "an nn.Module, or a function without arguments that makes one", model_like)
    loss = _param("loss", "a loss's name in torch, or a function of (outputs, label)", loss_like)
    optimizer = _param("optimizer", "a name in torch.optim, or a function of the parameters", optimizer_like)
    optimizerParams = _param("optimizerParams", "further arguments of a named optimizer", mapping("optimizerParams"))
    learningRate = _param("learningRate", "learning rate of a named optimizer", positive("learningRate"))
    task = _param("task", f"one of {TASKS} or None", one_of("task", (*TASKS, None)))
    shapes = _param("shapes", "shapes of one row, by column, where the type does not tell", shapes("shapes"))
    preprocess = _param("preprocess", "what makes tensors of columns, by column", preprocess_like)
    decoder = _param("decoder", "what makes columns of the model's outputs", decoder_like)
    initialWeights = _param("initialWeights", "a bundle, its URI, a TorchModel or a state_dict to start from", anything)
    frozen = _param("frozen", "name patterns of parameters that are not trained", texts("frozen"))
    parameterGroups = _param("parameterGroups", "settings of parameters by name pattern", groups("parameterGroups"))

    weightCol = _param("weightCol", "column of each row's weight in the loss", text("weightCol"))
    validationIndicatorCol = _param(
        "validationIndicatorCol", "boolean column that tells validation rows", text("validationIndicatorCol")
    )
    validationFraction = _param(
        "validationFraction", "share of rows kept for validation", number("validationFraction", 0.0, 1.0)
    )
    metrics = _param("metrics", "torchmetrics' metrics, or their names", metrics_like)
    monitor = _param("monitor", "figure whose best epoch's weights are returned", text("monitor"))
    patience = _param("patience", "epochs without a better one before training stops; 0: never", whole("patience", 0))
    minDelta = _param("minDelta", "by how much a better epoch must be better", number("minDelta", 0.0))
    callbacks = _param("callbacks", "sparkdl.Callback (on ranks) and sparkdl.Logger (on the driver)", callbacks_like)

    batchSize = _param("batchSize", "rows to a step on each rank", whole("batchSize", 1))
    epochs = _param("epochs", "how many times every row is seen", whole("epochs", 1))
    dropLast = _param("dropLast", "leave out a last batch that is not whole", flag("dropLast"))
    accumulationSteps = _param("accumulationSteps", "steps to an update of the weights", whole("accumulationSteps", 1))
    clipNorm = _param("clipNorm", "largest norm of the gradient", positive("clipNorm"))
    precision = _param("precision", f"of autocast, one of {PRECISIONS}", one_of("precision", PRECISIONS))
    gradientCompression = _param(
        "gradientCompression", "dtype in which gradients travel", one_of("gradientCompression", (*COMPRESSED, None))
    )
    compileModel = _param("compileModel", "run the model through torch.compile", flag("compileModel"))
    syncBatchNorm = _param("syncBatchNorm", "batch norm over all ranks' rows", flag("syncBatchNorm"))
    scheduler = _param("scheduler", "a name in torch.optim.lr_scheduler, or a function", scheduler_like)
    schedulerParams = _param("schedulerParams", "arguments of a named scheduler", mapping("schedulerParams"))
    schedulerInterval = _param(
        "schedulerInterval", "when the scheduler is stepped", one_of("schedulerInterval", ("epoch", "step"))
    )
    learningRateScaling = _param(
        "learningRateScaling", "the rate's factor by ranks", one_of("learningRateScaling", SCALINGS)
    )

    numProc = _param("numProc", "ranks; 0 for one a task slot", whole("numProc", 0))
    minProc = _param("minProc", "fewest ranks to go on with when slots are lost; 0: numProc", whole("minProc", 0))
    maxRetries = _param("maxRetries", "times that lost ranks are started again", whole("maxRetries", 0))
    stallTimeout = _param("stallTimeout", "seconds without progress before a rank is lost", positive("stallTimeout"))
    checkpointDir = _param("checkpointDir", "where checkpoints are kept, for resume", text("checkpointDir"))
    checkpointEvery = _param("checkpointEvery", "'1 epoch', '500 steps'", how_often("checkpointEvery"))
    checkpointKeep = _param("checkpointKeep", "how many checkpoints are kept", whole("checkpointKeep", 1))
    resume = _param("resume", "go on with the run in checkpointDir", flag("resume"))

    reader = _param("reader", f"one of {READERS}", one_of("reader", READERS))
    memoryBudget = _param("memoryBudget", "bytes of rows that a rank holds", byte_size("memoryBudget"))
    seed = _param("seed", "of the shuffling, the weights a function makes, and dropout", whole("seed", 0))
    storePath = _param("storePath", "a place that driver and executors can write", text("storePath"))
    collective = _param("collective", f"one of {BACKENDS}", one_of("collective", BACKENDS))
    trusted = _param("trusted", "allow what means running stored code: see the docs of fit and load", flag("trusted"))
    verbose = _param("verbose", "show progress", flag("verbose"))
