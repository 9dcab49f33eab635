"""An ensemble is a model like any other: saved, loaded, and run by Spark."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sparkdl import Bundle, Ensemble, Signature, TensorSpec, TorchModel


def test_an_ensemble_saved_and_loaded_transforms_to_the_mean_of_its_members(spark, tmp_path):
    torch.manual_seed(0)
    nets = [nn.Linear(4, 3) for _ in range(3)]
    features = Signature((TensorSpec("features", "float32", (4,), ("features",), ("array<float>",)),))
    members = [Bundle.from_module(net, features, task="multiclass") for net in nets]
    Ensemble(members).save(str(tmp_path / "model"))

    rows = [[float((i * j) % 7 - 3) for j in range(1, 5)] for i in range(20)]
    frame = spark.createDataFrame([(row,) for row in rows], "features array<float>")
    scored = TorchModel.load(str(tmp_path / "model")).transform(frame).collect()

    mean = torch.stack([net(torch.tensor([row["features"] for row in scored])).softmax(1) for net in nets]).mean(0)
    assert [row["prediction"] for row in scored] == mean.argmax(1).tolist()
    for row, expected in zip(scored, mean.tolist(), strict=True):
        assert row["probability"] == pytest.approx(expected, rel=1e-5)
