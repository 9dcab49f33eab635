"""TabularRegressor against plain PyTorch, on scikit-learn's diabetes."""

import sys
from pathlib import Path

import pytest

from sparkdl import TabularRegressor
from sparkdl.evaluate import evaluate

sys.path.insert(0, str(Path(__file__).with_name("applications")))
import diabetes


@pytest.fixture(scope="module")
def script():
    return diabetes.figure()


@pytest.mark.parametrize("ranks", [1, 2])
def test_as_good_as_the_script(spark, ranks, script):
    train, test = (spark.createDataFrame(table.to_pandas()) for table in diabetes.tables())
    estimator = TabularRegressor(
        labelCol="progression", hiddenSizes=diabetes.HIDDEN, dropout=diabetes.DROPOUT, epochs=diabetes.EPOCHS,
        batchSize=diabetes.BATCH // ranks, learningRate=diabetes.RATE, numProc=ranks, verbose=False,
    )  # fmt: skip
    figures = evaluate(estimator.fit(train), test, "progression").figures
    assert figures["r2"] >= script - 0.02, figures
