"""SequenceForecaster and AnomalyDetector: fit, save, load, transform, evaluate, bad rows."""

import numpy as np
import pytest
import torch
from pyspark.sql import functions as sf

from sparkdl import AnomalyDetector, Logger, SequenceForecaster, TorchModel
from sparkdl.errors import DataError, EmptyDatasetError, InvalidParamError, SignatureError
from sparkdl.evaluate import evaluate
from sparkdl.ready.recurrent import Forecaster

pytestmark = pytest.mark.lane("spark35")

LENGTH, SEASON, HORIZON, EPOCHS = 16, 8, 4, 12
FAST = {"numProc": 1, "verbose": False, "collective": "torch"}


@pytest.fixture(scope="module")
def waves(spark):
    """Season, trend and noise; every tenth row of those with an odd ``id`` has a fault."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(300):
        time = i + np.arange(LENGTH + HORIZON)
        wave = 50 + 10 * np.sin(2 * np.pi * time / SEASON) + 0.05 * time + rng.normal(0, 0.5, len(time))
        broken = i % 10 == 9
        series = wave[:LENGTH].copy()
        if broken:
            series[rng.integers(0, LENGTH)] += 40
        rows.append((i, wave[:LENGTH].tolist(), series.tolist(), wave[LENGTH:].tolist(), int(broken)))
    kind = "id int, clean array<double>, series array<double>, next array<double>, broken int"
    return spark.createDataFrame(rows, kind).repartition(2, "id").cache()


@pytest.fixture(scope="module")
def forecaster(waves):
    estimator = SequenceForecaster(
        seriesCol="clean", labelCol="next", hiddenSize=16, cell="gru", epochs=EPOCHS, batchSize=16, **FAST
    )
    return estimator.fit(waves.where("id < 200"))


@pytest.fixture(scope="module")
def detector(waves):
    return AnomalyDetector(hiddenSize=16, bottleneck=3, epochs=20, quantile=0.99, **FAST).fit(waves.where("broken = 0"))


def plain_r2(waves):
    """Of the same network, trained by a loop of plain torch."""
    rows = waves.select("id", "clean", "next").orderBy("id").toPandas()
    x, y = (torch.tensor(np.stack(rows[name]), dtype=torch.float32) for name in ("clean", "next"))
    x, y = ((one - one[:200].mean()) / one[:200].std() for one in (x, y))
    torch.manual_seed(0)
    model = Forecaster(LENGTH, 1, HORIZON, "gru", 16, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(EPOCHS):
        for batch in torch.randperm(200).split(16):
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(model(x[batch, :, None])[..., 0], y[batch]).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    with torch.no_grad():
        found = model(x[200:, :, None])[..., 0]
    return float(1 - torch.square(found - y[200:]).sum() / torch.square(y[200:] - y[200:].mean()).sum())


def test_a_forecast_beats_what_was_a_season_ago(forecaster, waves):
    later = waves.where("id >= 200")
    told = evaluate(forecaster, later, "next")
    assert (told.task, told.rows, told.invalid) == ("forecast", 100, 0)
    naive = later.selectExpr(f"inline(arrays_zip(slice(clean, {LENGTH - SEASON + 1}, {HORIZON}), next))")
    naive = naive.toDF("was", "next").selectExpr("sqrt(avg(pow(was - next, 2)))").first()[0]
    assert told.figures["rmse"] < naive
    assert told.figures["mae"] < told.figures["rmse"]
    assert told.figures["r2"] > plain_r2(waves) - 0.02


def test_a_forecast_is_as_long_as_the_label_and_in_its_units(forecaster, waves):
    scored = forecaster.transform(waves)
    assert dict(scored.dtypes)["prediction"] == "array<float>"
    row = scored.where("id = 0").first()
    assert len(row["prediction"]) == HORIZON
    np.testing.assert_allclose(row["prediction"], row["next"], atol=6)


def test_the_bundle_scores_the_same_again(detector, waves, tmp_path):
    detector.save(str(tmp_path / "model"))
    again = TorchModel.load(str(tmp_path / "model"))
    assert again.signature == detector.signature
    first, second = (
        {row["id"]: (row["prediction"], row["score"]) for row in model.transform(waves).collect()}
        for model in (detector, again)
    )
    assert first == second


def test_anomalies_stand_out(detector, waves):
    told = evaluate(detector, waves, "broken").figures
    assert told["auroc"] > 0.95
    assert told["auprc"] > 0.9
    scored = detector.transform(waves)
    assert dict(scored.dtypes)["prediction"] == dict(scored.dtypes)["score"] == "double"


def test_the_threshold_is_the_quantile_of_the_training_rows(detector, waves):
    above = detector.transform(waves.where("broken = 0")).where("prediction = 1").count()
    assert above == int(270 * 0.01)


class Kept(Logger):
    def on_fit_start(self, settings):
        self.settings = settings

    def on_fit_end(self, model, error):
        self.threshold = model.signature.decoder.threshold


def test_the_threshold_is_of_rows_that_are_trained_on_and_told_to_loggers(waves):
    logger = Kept()
    estimator = AnomalyDetector(
        hiddenSize=8, bottleneck=2, epochs=2, quantile=0.9, validationIndicatorCol="held", callbacks=[logger], **FAST
    )
    rows = waves.withColumn("held", sf.col("broken") == 1)
    model = estimator.fit(rows)
    (expected,) = model.transform(rows.where("NOT held")).approxQuantile("score", [0.9], 1e-4)
    assert model.signature.decoder.threshold == expected
    assert logger.threshold == expected
    assert {"application": "AnomalyDetector", "quantile": 0.9, "bottleneck": 2}.items() <= logger.settings.items()


def test_bad_rows(detector, spark):
    good = [50.0] * LENGTH
    rows = [(0, good), (1, None), (2, good[1:]), (3, [None, *good[1:]]), (4, [float("inf"), *good[1:]])]
    df = spark.createDataFrame(rows, "id int, series array<double>").coalesce(1)
    kept = detector.copy().setParams(handleInvalid="keep", errorCol="why").transform(df).orderBy("id").collect()
    kinds = [row["why"] and row["why"].split(":")[0] for row in kept]
    assert kinds == [None, "null", "shape", "null", "non-finite"]
    assert [row["score"] is None for row in kept] == [False, True, True, True, True]
    assert detector.copy().setParams(handleInvalid="skip").transform(df).count() == 1
    with pytest.raises(Exception, match="'series', row 1"):
        detector.transform(df).collect()


def test_what_may_be_missing_is_the_mean(waves):
    holes = waves.withColumn("series", sf.expr("transform(series, (x, i) -> IF(i = 3, null, x))"))
    estimator = AnomalyDetector(hiddenSize=4, bottleneck=2, epochs=1, missing="mean", **FAST)
    assert estimator.fit(holes).transform(holes).where("score IS NOT NULL").count() == 300


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"cell": "gr"}, InvalidParamError, "did you mean 'gru'"),
        ({"hiddenSize": 0}, InvalidParamError, "'hiddenSize'"),
        ({"quantile": 1.0}, InvalidParamError, "'quantile'"),
        ({"bottelneck": 3}, InvalidParamError, "did you mean 'bottleneck'"),
        ({"seriesCol": "id"}, SignatureError, "'id' is integer; Series takes"),
        ({"seriesCol": "serie"}, SignatureError, "did you mean 'series'"),
    ],
)
def test_what_cannot_be_is_refused(waves, params, error, message):
    with pytest.raises(error, match=message):
        AnomalyDetector(**FAST, **params).fit(waves)


def test_rows_that_cannot_be_trained_on(waves, spark):
    with pytest.raises(SignatureError, match="label column 'pairs' holds 2 numbers a step"):
        SequenceForecaster(seriesCol="clean", labelCol="pairs", **FAST).fit(
            waves.selectExpr("clean", "transform(next, x -> array(x, x)) pairs")
        )
    with pytest.raises(DataError, match="'series', row"):
        AnomalyDetector(**FAST).fit(waves.selectExpr("IF(id = 7, slice(series, 1, 3), series) series"))
    with pytest.raises(EmptyDatasetError):
        AnomalyDetector(**FAST).fit(waves.where("id < 0"))
    with pytest.raises(DataError, match="feature 0 of column 'series' has no value"):
        AnomalyDetector(**FAST).fit(waves.selectExpr("transform(series, x -> double('nan')) series"))
