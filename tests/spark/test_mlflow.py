"""A bundle written by to_mlflow runs in mlflow.pyfunc.spark_udf, and gives what the bundle gives."""

import numpy as np
import pytest
import torch
from pyspark.sql import functions as sf
from torch import nn

from sparkdl import Bundle, Signature, TensorSpec

mlflow = pytest.importorskip("mlflow")
pytest.importorskip("mlflow.pyfunc")


def test_spark_udf(spark, tmp_path):
    torch.manual_seed(0)
    inputs = Signature((
        TensorSpec("x", "float32", (3,), ("features",), ("array<double>",)),
        TensorSpec("y", "float32", (2,), ("a", "b"), ("double", "double")),
    ))  # fmt: skip

    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(5, 3)

        def forward(self, x, y):
            return self.linear(torch.cat([x, y], dim=1))

    bundle = Bundle.from_module(Both(), inputs, task="multiclass")
    bundle.to_mlflow(str(tmp_path / "model"))
    rows = spark.range(20, numPartitions=2).select(
        "id",
        sf.array(sf.rand(1), sf.rand(2), sf.rand(3)).alias("features"),
        sf.rand(4).alias("a"),
        sf.rand(5).alias("b"),
    )
    score = mlflow.pyfunc.spark_udf(
        spark, str(tmp_path / "model"), result_type="prediction double, probability array<float>", env_manager="local"
    )
    found = rows.withColumn("scored", score("features", "a", "b")).orderBy("id").collect()
    expected = bundle.predict({
        "x": np.array([row["features"] for row in found], np.float32),
        "y": np.array([[row["a"], row["b"]] for row in found], np.float32),
    })  # fmt: skip
    np.testing.assert_array_equal([row["scored"]["prediction"] for row in found], expected["prediction"])
    np.testing.assert_allclose([row["scored"]["probability"] for row in found], expected["probability"], rtol=1e-5)
