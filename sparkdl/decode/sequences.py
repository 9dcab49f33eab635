"""Of series: what comes next in their own units; whether one is unlike those that were trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import pyarrow as pa

from sparkdl.columns import to_arrow
from sparkdl.decode.base import Decoder
from sparkdl.errors import DataError, SignatureError
from sparkdl.signature import quoted

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from sparkdl.signature import TensorSpec


class ForecastDecoder(Decoder):
    """``prediction``, array<float>: the model's ``(B, horizon, 1)`` times ``deviation`` plus ``mean``.

    ``rmse``, ``mae`` and ``r2`` are over all steps of all rows; a step whose truth is null or NaN does not count.
    """

    kind: Literal["forecast"] = "forecast"
    mean: float
    deviation: float
    figures: ClassVar[tuple[str, ...]] = ("rmse", "mae", "r2")

    def columns(self, outputs: Sequence[TensorSpec]) -> dict[str, pa.DataType]:
        """See Decoder."""
        _check(
            outputs, len(outputs) == 1 and len(outputs[0].shape) == 2 and outputs[0].shape[1] == 1, "(B, horizon, 1)"
        )
        return {"prediction": pa.list_(pa.float32())}

    def decode(self, outputs: Mapping[str, np.ndarray], rows: Mapping[str, pa.Array]) -> dict[str, pa.Array]:
        """See Decoder."""
        (standard,) = outputs.values()
        return {"prediction": to_arrow((standard[..., 0] * self.deviation + self.mean).astype(np.float32))}

    def evaluate(self, scored: DataFrame, label: str, prediction: str) -> dict[str, float]:
        """See Decoder. Raises SignatureError for a label that is no array, DataError for one of another length."""
        from pyspark.ml.evaluation import RegressionEvaluator

        truth, found = quoted(label), quoted(prediction)
        kind = scored.schema[label].dataType
        if kind.typeName() != "array":
            raise SignatureError(
                f"a forecast is judged by an array of its steps, and the label is {kind.simpleString()}",
                column=None, expected="an array of numbers", got=kind.simpleString(),
            )  # fmt: skip
        other = scored.where(f"size({truth}) != size({found})").selectExpr(f"size({truth})", f"size({found})").first()
        if other is not None:
            raise DataError(
                f"a label has {other[0]} steps, and the forecast has {other[1]}; evaluate on labels as the model was trained on",
                column=None, row=None, file=None, expected=f"{other[1]} steps", got=other[0],
            )  # fmt: skip
        steps = scored.selectExpr(f"{truth} AS truth", f"{found} AS found").selectExpr(
            "inline(arrays_zip(truth, found))"
        )
        known = steps.selectExpr("CAST(truth AS DOUBLE) truth", "CAST(found AS DOUBLE) found")
        known = known.where("NOT isnan(truth) AND truth IS NOT NULL").cache()
        try:
            return {
                name: float(
                    RegressionEvaluator(metricName=name, labelCol="truth", predictionCol="found").evaluate(known)
                )
                for name in self.figures
            }
        finally:
            known.unpersist()


class AnomalyDecoder(Decoder):
    """``prediction``, 1.0 where the model's ``(B,)`` is above ``threshold``, else 0.0; ``score``, what it is.

    ``auroc`` and ``auprc`` are of the score, against labels that are 1 for an anomaly and 0 for none.
    """

    kind: Literal["anomaly"] = "anomaly"
    threshold: float
    figures: ClassVar[tuple[str, ...]] = ("auroc", "auprc")

    def columns(self, outputs: Sequence[TensorSpec]) -> dict[str, pa.DataType]:
        """See Decoder."""
        _check(outputs, len(outputs) == 1 and outputs[0].shape == (), "(B,)")
        return {"prediction": pa.float64(), "score": pa.float64()}

    def decode(self, outputs: Mapping[str, np.ndarray], rows: Mapping[str, pa.Array]) -> dict[str, pa.Array]:
        """See Decoder."""
        score = next(iter(outputs.values())).astype(np.float64)
        return {"prediction": pa.array((score > self.threshold).astype(np.float64)), "score": pa.array(score)}

    def evaluate(self, scored: DataFrame, label: str, prediction: str) -> dict[str, float]:
        """See Decoder."""
        from pyspark.ml.evaluation import BinaryClassificationEvaluator

        known = scored.selectExpr(f"CAST({quoted(label)} AS DOUBLE) truth", "score")
        names = dict(zip(self.figures, ("areaUnderROC", "areaUnderPR"), strict=True))
        return {
            name: float(
                BinaryClassificationEvaluator(metricName=told, labelCol="truth", rawPredictionCol="score").evaluate(
                    known
                )
            )
            for name, told in names.items()
        }


def _check(outputs: Sequence[TensorSpec], fits: bool, expected: str) -> None:
    if not fits:
        got = ", ".join(map(str, outputs))
        raise SignatureError(
            f"the decoder takes one output of shape {expected} (got {got})", column=None, expected=expected, got=got
        )
