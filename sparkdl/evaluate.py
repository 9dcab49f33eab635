"""Held-out figures of a model, by pyspark.ml's evaluators."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.ml.evaluation import MulticlassClassificationEvaluator, RegressionEvaluator

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from sparkdl.model import TorchModel


def held_out(model: TorchModel, df: DataFrame, label: str) -> dict[str, float]:
    """``test_accuracy`` and ``test_f1`` of a classifier, ``test_rmse`` and ``test_r2`` of a regression, on ``df``.

    Empty for task None, whose outputs only their owner can judge.
    """
    if model.bundle.task is None:
        return {}
    predicted = model.transform(df).select(label, model.getPredictionCol()).cache()
    made = {"labelCol": label, "predictionCol": model.getPredictionCol()}
    if model.bundle.task == "regression":
        evaluators = {name: RegressionEvaluator(metricName=name, **made) for name in ("rmse", "r2")}
    else:
        evaluators = {name: MulticlassClassificationEvaluator(metricName=name, **made) for name in ("accuracy", "f1")}
    figures = {f"test_{name}": float(evaluator.evaluate(predicted)) for name, evaluator in evaluators.items()}
    predicted.unpersist()
    return figures
