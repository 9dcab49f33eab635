"""TorchModel's engine ``onnx-jvm``: its rows scored by the Scorer, without a Python worker."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from sparkdl.columns import answers
from sparkdl.errors import InvalidParamError
from sparkdl.jvm import scorer
from sparkdl.signature import quoted

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

    from sparkdl.model import TorchModel

MEANINGLESS = ("batchSize", "device", "precision", "compileModel", "modelsPerGpu", "udfType")
MOST_COLUMNS = 10  # of a function of SQL: Sql.MOST


def check(model: TorchModel) -> None:
    """Raise InvalidParamError for a Param that is set and says how Python is to score."""
    for name in MEANINGLESS:
        if model.isSet(name):
            raise InvalidParamError(
                f"{name!r} is set, and the engine 'onnx-jvm' has no such choice: it scores row by row, on CPUs, in the types "
                f"of the ONNX graph; clear it, or set engine='python'",
                param=name,
                value=model.getOrDefault(name),
            )


def scored(model: TorchModel, dataset: DataFrame, inputs: Mapping[str, Column], made: Mapping[str, str]) -> DataFrame:
    """The rows with the columns ``made``: by names of answers, and ``PROBLEM``, what they are called.

    inputs: the columns of the signature by name, as ``plain`` gives them.
    """
    from pyspark.sql import functions as sf

    check(model)
    settings = scorer.Settings(invalid="error" if model.getOrDefault("handleInvalid") == "error" else "keep")
    score = scorer.of_bundle(dataset.sparkSession, model.bundle, settings)
    row = sf.struct(*(column.alias(name) for name, column in inputs.items()))
    fields = answers(model.signature)
    between = "__scored__"
    while between in map(str.lower, dataset.columns):
        between += "_"
    told = [
        sf.col(f"{between}.{quoted(name if name in fields else scorer.PROBLEM)}").alias(column)
        for name, column in made.items()
    ]
    return dataset.select("*", score(row).alias(between)).select("*", *told).drop(between)


def expression(model: TorchModel, spark: SparkSession) -> Callable[..., Column]:
    """A function of the signature's columns: the only answer, or a struct of several."""
    from pyspark.sql import functions as sf

    check(model)
    score = scorer.of_bundle(spark, model.bundle, _settings(model))

    def function(*columns: Column) -> Column:
        pairs = zip(model.signature.columns, columns, strict=True)
        return score(sf.struct(*(column.alias(name) for name, column in pairs)))

    return function


def register(model: TorchModel, spark: SparkSession, name: str) -> None:
    """As ``TorchModel.register``. Raises InvalidParamError for more columns than a function of SQL in Java can have."""
    check(model)
    count, settings = len(model.signature.columns), _settings(model)
    if count > MOST_COLUMNS:
        raise InvalidParamError(
            f"the model reads {count} columns, and a function of SQL with the engine 'onnx-jvm' takes {MOST_COLUMNS}; use "
            "transform, or udf() in an expression, or set engine='python'",
            param="name",
            value=name,
        )
    made = scorer.java_scorer(spark, model.signature, model.bundle.graph, settings)
    java: Any = spark.sparkContext._jvm.sparkdl.jvm  # type: ignore[union-attr]
    function = java.Sql.function(made, scorer.ddl(model.signature, settings.gives), count)
    spark._jsparkSession.udf().register(name, function)


def _settings(model: TorchModel) -> scorer.Settings:
    gives = "value" if len(answers(model.signature)) == 1 else "answers"
    return scorer.Settings(gives=gives, invalid=model.getOrDefault("handleInvalid"))
