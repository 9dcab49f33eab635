"""How good a model is on rows that it has not seen, by pyspark.ml's evaluators."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pyspark.ml.evaluation import (
    BinaryClassificationEvaluator,
    MulticlassClassificationEvaluator,
    RegressionEvaluator,
)

from sparkdl.decode.base import figure_names
from sparkdl.decode.labels import LabelDecoder
from sparkdl.errors import ColumnNotFoundError, DataError, EmptyDatasetError, InvalidParamError, did_you_mean
from sparkdl.signature import quoted
from sparkdl.tasks import is_lower_better

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from sparkdl.decode.base import Decoder
    from sparkdl.model import TorchModel

_OF_CLASSES = {
    "accuracy": "accuracy",
    "f1": "f1",
    "precision": "weightedPrecision",
    "recall": "weightedRecall",
    "log_loss": "logLoss",
}
_OF_BINARY = {"auroc": "areaUnderROC", "auprc": "areaUnderPR"}
_OF_REGRESSION = {"rmse": "rmse", "mae": "mae", "r2": "r2"}
FIGURES = {
    "multiclass": tuple(_OF_CLASSES),
    "binary": (*_OF_CLASSES, *_OF_BINARY),
    "regression": tuple(_OF_REGRESSION),
}
NAMES = tuple(dict.fromkeys([*(name for names in FIGURES.values() for name in names), *figure_names()]))
_LABEL, _PREDICTION, _PROBABILITY = "sparkdl_label", "sparkdl_prediction", "sparkdl_probability"


@dataclass(frozen=True)
class Evaluation:
    """task: of the model. rows: of the table. invalid: those of them that the model could not score and left out
    (``handleInvalid`` ``keep`` or ``skip``). figures: over the others.

    ``accuracy``; ``f1``, ``precision`` and ``recall``, the means over the classes, weighted by their rows; ``log_loss``, in nats;
    ``auroc`` and ``auprc`` of a binary task; ``rmse``, ``mae`` and ``r2`` of a regression.
    """

    task: str
    rows: int
    invalid: int
    figures: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    def short_of(self, thresholds: Mapping[str, float]) -> dict[str, float]:
        """The figures that are worse than their threshold, or NaN: below it, above it where lower is better. Raises
        InvalidParamError for a threshold that the task has no figure for."""
        check_names(thresholds, tuple(self.figures))
        return {
            name: self.figures[name] for name, least in thresholds.items() if not meets(name, self.figures[name], least)
        }


def check_names(names: Any, known: Any = NAMES) -> None:
    """Raise InvalidParamError for a name that is none of a figure's."""
    for name in names:
        if name not in known:
            raise InvalidParamError(
                f"there is no figure {name!r} here{did_you_mean(str(name), known)}; there are {list(known)}",
                param="figure",
                value=name,
            )


def meets(name: str, value: float, threshold: float) -> bool:
    """True if a figure is as good as the threshold, or better."""
    return value <= threshold if is_lower_better(name) else value >= threshold


def evaluate(model: TorchModel, df: DataFrame, labelCol: str) -> Evaluation:
    """Score ``df`` and compare with its column ``labelCol``: numbers, class numbers for a task with classes.

    Raises InvalidParamError for a model without a task, whose outputs only their owner can judge, or with several numbers a
    row; ColumnNotFoundError and SignatureError as ``transform``; EmptyDatasetError; DataError for rows without a label.
    """
    decoder = model.signature.decoder
    if decoder is not None and decoder.figures:
        return _decoded(model, df, labelCol, decoder)
    task = judged_task(model)
    rows = _scored(model, df, labelCol).cache()
    try:
        count, valid, unlabelled = rows.selectExpr(
            "count(1)", f"count({_PREDICTION})", f"count_if({_LABEL} IS NULL OR isnan({_LABEL}))"
        ).first()
        known = "label that the model knows" if isinstance(decoder, LabelDecoder) else "number"
        _check_rows(count, valid, unlabelled, labelCol, known)
        judged = rows.where(f"{_PREDICTION} IS NOT NULL")
        figures = {name: float(evaluator.evaluate(judged)) for name, evaluator in _evaluators(task)}
    finally:
        rows.unpersist()
    return Evaluation(task, int(count), int(count - valid), figures)


def _decoded(model: TorchModel, df: DataFrame, label: str, decoder: Decoder) -> Evaluation:
    """By the figures of the model's decoder."""
    from pyspark.sql import functions as sf

    check_columns(model, df, label)
    rows = _kept(model, df.withColumn(_LABEL, sf.col(quoted(label)))).cache()
    try:
        count, valid, unlabelled = rows.selectExpr(
            "count(1)", f"count({_PREDICTION})", f"count_if({_LABEL} IS NULL)"
        ).first()
        _check_rows(count, valid, unlabelled, label, "label")
        figures = decoder.evaluate(rows.where(f"{_PREDICTION} IS NOT NULL"), _LABEL, _PREDICTION)
    finally:
        rows.unpersist()
    return Evaluation(decoder.kind, int(count), int(count - valid), figures)


def _kept(model: TorchModel, df: DataFrame) -> DataFrame:
    """The rows with ``_PREDICTION`` and ``_PROBABILITY``, null where the model takes no row; the further columns that an
    evaluation may need are kept."""
    params: dict[Any, Any] = {model.predictionCol: _PREDICTION, model.probabilityCol: _PROBABILITY}
    params[model.probabilityAsVector] = model.bundle.task not in ("regression", None)
    if model.getOrDefault("handleInvalid") == "skip":
        params[model.handleInvalid] = "keep"
    return model.copy(params).transform(df)


def judged_task(model: TorchModel) -> str:
    """The task by which a model can be judged. Raises InvalidParamError if there is none."""
    task = model.bundle.task
    shapes = {spec.name: spec.shape for spec in model.signature.outputs}
    if task is None or shapes.get("prediction"):
        why = "has no task" if task is None else f"predicts {shapes['prediction']} numbers a row"
        raise InvalidParamError(
            f"the model {why}: what its outputs are worth only their owner can say", param="model", value=task
        )
    return task


def check_columns(model: TorchModel, df: DataFrame, label: str) -> None:
    """Raise ColumnNotFoundError, SignatureError if the table lacks the label, or does not fit the model."""
    if label not in df.columns:
        raise ColumnNotFoundError(label, df.columns, role="labelCol")
    model.input_kinds(df)


def _scored(model: TorchModel, df: DataFrame, label: str) -> DataFrame:
    """Label, prediction and, with classes, probability (a vector); prediction is null where the model takes no row."""
    from pyspark.sql import functions as sf

    check_columns(model, df, label)
    decoder = model.signature.decoder
    names = decoder.values if isinstance(decoder, LabelDecoder) else None
    truth = sf.col(quoted(label)) if names else sf.col(quoted(label)).cast("double")
    inputs = [quoted(name) for name in model.signature.columns]
    scored = _kept(model, df.select(*inputs, truth.alias(_LABEL)))
    if names:  # as class numbers; a label that the model does not know is none
        numbers = sf.create_map(*(sf.lit(one) for place, name in enumerate(names) for one in (name, float(place))))
        for column in (_LABEL, _PREDICTION):
            scored = scored.withColumn(column, numbers[sf.col(column).cast(_type_of(names))])
    return scored.select(_LABEL, *(name for name in (_PREDICTION, _PROBABILITY) if name in scored.columns))


def _type_of(names: Sequence[object]) -> str:
    return "boolean" if isinstance(names[0], bool) else "bigint" if isinstance(names[0], int) else "string"


def _check_rows(count: int, valid: int, unlabelled: int, label: str, expected: str) -> None:
    if not count:
        raise EmptyDatasetError()
    if unlabelled:
        raise DataError(
            f"{unlabelled:,} of {count:,} rows have no {expected} in the label column {label!r}; leave them out before",
            column=label, row=None, file=None, expected=f"a {expected}", got=None,
        )  # fmt: skip
    if not valid:
        raise DataError(
            f"the model could not score any of the {count:,} rows; see handleInvalid and errorCol",
            column=None, row=None, file=None, expected="rows that the model takes", got=0,
        )  # fmt: skip


def _evaluators(task: str) -> Iterator[tuple[str, Any]]:
    columns = {"labelCol": _LABEL, "predictionCol": _PREDICTION}
    if task == "regression":
        yield from ((name, RegressionEvaluator(metricName=told, **columns)) for name, told in _OF_REGRESSION.items())
        return
    for name, told in _OF_CLASSES.items():
        yield name, MulticlassClassificationEvaluator(metricName=told, probabilityCol=_PROBABILITY, **columns)
    if task == "binary":
        for name, told in _OF_BINARY.items():
            yield name, BinaryClassificationEvaluator(metricName=told, labelCol=_LABEL, rawPredictionCol=_PROBABILITY)
