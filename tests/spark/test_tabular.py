"""TabularClassifier and TabularRegressor, and pyspark.ml's feature stages before a model."""

import datetime as dt
import math

import pytest
from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.feature import Imputer, StandardScaler, StringIndexer, VectorAssembler
from pyspark.sql import functions as sf

from sparkdl import TabularClassifier, TabularRegressor, TorchEstimator, TorchModel
from sparkdl.errors import ColumnNotFoundError, DataError, EmptyDatasetError, InvalidParamError, SignatureError
from sparkdl.evaluate import evaluate
from sparkdl.preprocess import Categories, DateParts, Hashed, Numbers
from sparkdl.preprocess.learn import learn

QUIET = {"numProc": 1, "verbose": False, "collective": "torch"}
ROWS = 240


@pytest.fixture(scope="module")
def payments(spark):
    """Bad ones are large, or from one country; some cells are missing."""
    rows = []
    for i in range(ROWS):
        country = ("NO", "SE", "XX", "FI")[i % 4]
        amount = 900.0 if i % 5 == 0 else 5.0 + i % 7
        kind = "bad" if amount > 100 or country == "XX" else "good"
        when = dt.datetime(2024, 1 + i % 12, 1 + i % 28, i % 24)
        rows.append(
            (i, None if i % 11 == 7 else amount, country, f"device-{i % 50}", i % 2 == 0, when, kind, amount * 2.0)
        )
    ddl = (
        "id long, amount double, country string, device string, weekend boolean, at timestamp, kind string, fee double"
    )
    return spark.createDataFrame(rows, ddl).repartition(2).cache()


COLUMNS = {
    "numericCols": ["amount"],
    "categoricalCols": ["country", "weekend"],
    "hashedCols": ["device"],
    "dateCols": ["at"],
    "hashed": {"buckets": 16},
}


@pytest.fixture(scope="module")
def model(payments):
    estimator = TabularClassifier(
        labelCol="kind", **COLUMNS, numbers={"log": True, "indicator": True}, hiddenSizes=[16], epochs=40, batchSize=32,
        learningRate=0.02, classWeight="balanced", **QUIET,
    )  # fmt: skip
    return estimator.fit(payments)


def test_a_row_is_classified_by_its_label(model, payments):
    figures = evaluate(model, payments, "kind").figures
    assert figures["auroc"] > 0.95, figures
    scored = model.transform(payments)
    assert dict(scored.dtypes)["prediction"] == "string"
    assert scored.where("prediction = kind").count() > 0.9 * ROWS
