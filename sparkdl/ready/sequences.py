"""SequenceForecaster and AnomalyDetector: what comes next in a series, and which series are unlike the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from pyspark.sql import functions as sf
from torch import nn

from sparkdl.decode.sequences import AnomalyDecoder, ForecastDecoder
from sparkdl.errors import SignatureError
from sparkdl.params import _param, number, one_of, text, whole, with_accessors
from sparkdl.preprocess.learn import learn
from sparkdl.preprocess.series import Series
from sparkdl.ready.base import ReadyEstimator
from sparkdl.ready.recurrent import AUTOENCODERS, CELLS, DenseCoder, Forecaster, RecurrentCoder, Surprise, itself, mean
from sparkdl.signature import quoted

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from sparkdl.model import TorchModel

MISSING = ("refuse", "mean")
_ZERO = "sparkdl_zero"


class _OverSeries(ReadyEstimator):
    """What both have."""

    seriesCol = _param("seriesCol", "column of the series, array or array of arrays", text("seriesCol"))
    hiddenSize = _param("hiddenSize", "numbers in a hidden layer", whole("hiddenSize", 1))
    layers = _param("layers", "recurrent layers on one another", whole("layers", 1))
    missing = _param("missing", f"what a null or NaN in a series is, one of {MISSING}", one_of("missing", MISSING))


@with_accessors
class SequenceForecaster(_OverSeries):
    """The next steps of a series, by an LSTM or GRU.

    seriesCol (``series``): array<double>, or array<array<double>> of several features a step, all of one length.
    labelCol: array<double>, what came next; its length is the horizon. ``sparkdl.preprocess.windows`` makes both.
    cell: ``lstm`` or ``gru``. hiddenSize, layers: of it. missing: ``refuse``, or ``mean`` of the feature.
    Series and label are standardised by what is learnt of the rows; the loss is the mean squared error of that.

    Scoring adds ``prediction``, array<float>, in the label's units. ``evaluate`` gives rmse, mae, r2 over all steps.
    """

    cell = _param("cell", f"one of {CELLS}", one_of("cell", CELLS))
    own_defaults: ClassVar[Mapping[str, Any]] = {
        "seriesCol": "series", "cell": "lstm", "hiddenSize": 64, "layers": 1, "missing": "refuse",
        "epochs": 20, "batchSize": 64, "learningRate": 3e-3, "clipNorm": 1.0,
    }  # fmt: skip

    def _design(self, df: DataFrame) -> tuple[DataFrame, dict[str, Any]]:
        series, label = self.getOrDefault("seriesCol"), self.getOrDefault("labelCol")
        found: dict[str, Any] = learn(df, {series: Series(missing=self.getOrDefault("missing")), label: Series()})
        (length, features), (horizon, ahead) = found[series].shape, found[label].shape
        if ahead != 1:
            raise SignatureError(
                f"label column {label!r} holds {ahead} numbers a step; a forecast is of one: array<double>",
                column=label, expected=1, got=ahead,
            )  # fmt: skip
        return df, {
            "model": partial(
                Forecaster, length, features, horizon,
                self.getOrDefault("cell"), self.getOrDefault("hiddenSize"), self.getOrDefault("layers"),
            ),
            "inputCols": [series],
            "preprocess": found,
            "decoder": ForecastDecoder(mean=found[label].mean[0], deviation=found[label].deviation[0]),
            "loss": "mse_loss",
        }  # fmt: skip


@with_accessors
class AnomalyDetector(_OverSeries):
    """How unlike the rows that it was trained on a series is, by an autoencoder. It needs no labels: train it on rows most of
    which are as they should be.

    seriesCol (``series``): array<double>, or array<array<double>> of several features a step, all of one length.
    cell: ``dense``, or ``lstm``, ``gru``. hiddenSize, layers (of a recurrent one): of the autoencoder. bottleneck: numbers that a
    series is told in. quantile: the share of the training rows that are below the threshold. missing: ``refuse``, or ``mean``.
    labelCol: of a table to evaluate on, 1 for an anomaly, 0 for none; ``fit`` does not look at it.
    The rows of ``validationIndicatorCol`` have no say in the threshold; those of ``validationFraction`` have.

    Scoring adds ``prediction``, 1.0 for an anomaly, and ``score``, the mean negative log likelihood of a step's number, in nats.
    ``evaluate`` gives auroc, auprc of the score. The threshold is in ``model.signature.decoder.threshold``.
    """

    cell = _param("cell", f"one of {AUTOENCODERS}", one_of("cell", AUTOENCODERS))
    bottleneck = _param("bottleneck", "numbers that a series is told in", whole("bottleneck", 1))
    quantile = _param("quantile", "share of training rows below the threshold", number("quantile", 0.0, 1.0))
    own_defaults: ClassVar[Mapping[str, Any]] = {
        "seriesCol": "series", "cell": "dense", "hiddenSize": 64, "layers": 1, "missing": "refuse",
        "bottleneck": 8, "quantile": 0.995, "epochs": 30, "batchSize": 64, "learningRate": 2e-3,
    }  # fmt: skip
    heeds: ClassVar[frozenset[str]] = frozenset({"labelCol"})

    def _design(self, df: DataFrame) -> tuple[DataFrame, dict[str, Any]]:
        series = self.getOrDefault("seriesCol")
        found = learn(df, {series: Series(missing=self.getOrDefault("missing"))})
        return df.withColumn(_ZERO, sf.lit(0.0)), {
            "model": partial(self._network, *found[series].shape),
            "inputCols": [series],
            "labelCol": _ZERO,  # nobody looks at it: the model returns its own loss
            "preprocess": found,
            "decoder": AnomalyDecoder(threshold=0.0),  # until there are scores
            "loss": itself if self._reduction == "none" else mean,
        }

    def _network(self, length: int, features: int) -> nn.Module:
        cell, hidden, layers, inner = map(self.getOrDefault, ("cell", "hiddenSize", "layers", "bottleneck"))
        if cell == "dense":
            return Surprise(DenseCoder(length, features, hidden, inner), features)
        return Surprise(RecurrentCoder(length, features, cell, hidden, layers, inner), features)

    def _served(self, trained: TorchModel, designed: Mapping[str, Any], df: DataFrame) -> TorchModel:
        if self.isDefined("validationIndicatorCol"):
            df = df.where(f"NOT {quoted(self.getOrDefault('validationIndicatorCol'))}")
        scores = trained.transform(df.select(quoted(self.getOrDefault("seriesCol"))))
        (threshold,) = scores.approxQuantile("score", [self.getOrDefault("quantile")], 1e-4)
        signature = replace(trained.signature, decoder=AnomalyDecoder(threshold=threshold))
        trained.bundle = replace(trained.bundle, signature=signature)
        return trained
