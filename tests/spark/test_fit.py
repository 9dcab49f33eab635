"""TorchEstimator.fit on two ranks: it learns, it is reproducible, it equals one process, it leaves nothing behind."""

from __future__ import annotations

import os
import signal
import threading

import numpy as np
import pytest
import torch
from torch import nn

from sparkdl import TorchEstimator
from sparkdl.data.manifest import Layout
from sparkdl.data.materialize import write
from sparkdl.data.reader import ArrowReader
from sparkdl.signature import Signature
from sparkdl.train.world import World


def net(outputs: int, inputs: int = 4, seed: int = 0) -> nn.Module:
    """Two layers, the same weights each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(inputs, 32), nn.Tanh(), nn.Linear(32, outputs))


def estimator(**settings) -> TorchEstimator:
    return TorchEstimator(**({"numProc": 2, "batchSize": 16, "verbose": False} | settings))


def accuracy(model, df, label: str) -> float:
    return model.transform(df).selectExpr(f"avg(cast(prediction = {label} as double))").head()[0]


def test_regression_learns_and_is_the_same_twice(points):
    module = net(1)
    before = {name: value.clone() for name, value in module.state_dict().items()}

    def fit():
        return estimator(
            model=module, task="regression", labelCol="target", epochs=10, optimizer="SGD",
            optimizerParams={"momentum": 0.9}, learningRate=0.05, seed=5,
        ).fit(points)  # fmt: skip

    first, second = fit(), fit()
    losses = [entry["loss"] for entry in first.history]
    assert [entry["epoch"] for entry in first.history] == list(range(10))
    assert [entry["rows"] for entry in first.history] == [400] * 10
    assert losses[-1] < losses[0] / 10
    rows = first.transform(points).select("target", "prediction").collect()
    variance = np.var([row.target for row in rows])
    assert np.mean([(row.target - row.prediction) ** 2 for row in rows]) < variance / 10
    assert [entry["loss"] for entry in second.history] == losses
    for name, value in first.bundle.weights.items():
        assert torch.equal(value, second.bundle.weights[name])
        assert not torch.equal(value, before[name])
        assert torch.equal(module.state_dict()[name], before[name]), "the user's module is not modified"
    assert module.training
    assert all(parameter.grad is None and parameter.requires_grad for parameter in module.parameters())


def test_binary_learns(points):
    model = estimator(model=net(1), task="binary", labelCol="side", epochs=6, learningRate=0.02).fit(points)
    rows = model.transform(points).select("side", "prediction", "probability").collect()
    assert accuracy(model, points, "side") > 0.9
    assert {row.prediction for row in rows} == {0.0, 1.0}
    for row in rows:
        assert sum(row.probability) == pytest.approx(1, abs=1e-6)
        assert row.prediction == float(row.probability[1] > 0.5)
    assert model.history[-1]["accuracy"] > 0.9
    assert model.bundle.metrics == {k: model.history[-1][k] for k in ("loss", "accuracy")}


def test_multiclass_from_stacked_columns_a_function_and_named_parts(points):
    """inputCols of several numeric types make one tensor; the model is made by a function, loss and optimizer named."""
    df = points.selectExpr(
        "features[0] a", "cast(features[1] as double) b", "cast(features[2] as decimal(9, 4)) c",
        "cast(id % 7 as tinyint) d", "cast(quadrant as double) label",
    )  # fmt: skip

    def make():
        return nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 4))

    trained = estimator(
        model=make, task="multiclass", inputCols=["a", "b", "c", "d"], epochs=8, loss="CrossEntropyLoss",
        optimizer="adamw", learningRate=0.02, optimizerParams={"weight_decay": 1e-4}, seed=3,
    ).fit(df)  # fmt: skip
    assert str(trained.signature) == "(features: float32[B, 4]) -> (prediction: float64[B], probability: float32[B, 4])"
    assert trained.signature.columns == ("a", "b", "c", "d")
    assert accuracy(trained, df, "label") > 0.8  # a quarter by chance
    assert trained.history[0]["loss"] > trained.history[-1]["loss"]


class Everything(nn.Module):
    """An argument a column, each of another kind; three outputs by name."""

    def __init__(self):
        super().__init__()
        self.users = nn.Embedding(50, 4)
        self.letters = nn.Embedding(256, 3)
        self.head = nn.Linear(4 + 6 + 4 + 3 + 2 + 2, 1)

    def forward(self, user, patch, image, name, flag, pair, price):
        assert (user.dtype, image.dtype, name.dtype, flag.dtype) == (torch.int64, torch.uint8, torch.uint8, torch.bool)
        assert patch.shape[1:] == (2, 3)
        assert image.shape[1:] == (2, 2)
        letters = self.letters(name.long()).mean(dim=1)
        parts = [self.users(user), patch.flatten(1), image.flatten(1).float() / 255, letters, pair]
        numbers = torch.stack([flag.float(), price], dim=1)
        return {
            "score": self.head(torch.cat([*parts, numbers], dim=1)).squeeze(1),
            "counts": torch.stack([user, user + 1], dim=1),
            "patches": patch * 2,
        }


def test_every_kind_of_column_several_outputs_and_callable_parts(points):
    df = points.selectExpr(
        "id % 50 as user",
        "array(slice(features, 1, 3), slice(features, 2, 3)) as patch",
        "unhex(lpad(hex(id * 1234567), 8, '0')) as image",
        "substring('spark and torch', 1, cast(id % 9 as int)) as name",
        "id % 3 = 0 as flag",
        "array(cast(id % 5 as double), 1.5d) as pair",
        "cast(target as decimal(10, 3)) as price",
        "target as label",
    )
    columns = ["user", "patch", "image", "name", "flag", "pair", "price"]

    def loss(outputs, label):
        return ((outputs["score"] - label) ** 2).mean()

    def optimizer(parameters):
        return torch.optim.Adam(parameters, lr=0.05)

    shapes = {"image": (2, 2), "name": (8,), "patch": (2, 3)}
    model = estimator(
        model=Everything(), loss=loss, optimizer=optimizer, inputCols=columns, shapes=shapes, epochs=5
    ).fit(df)
    assert model.history[-1]["loss"] < model.history[0]["loss"] / 2
    got = model.transform(df)
    kinds = {field.name: field.dataType.simpleString() for field in got.schema}
    assert [kinds[name] for name in ("score", "counts", "patches")] == ["float", "array<bigint>", "array<array<float>>"]
    module = model.bundle.module()
    for row in got.where("user < 5").collect():
        text = list(row.name.encode())
        arguments = [
            torch.tensor([row.user]),
            torch.tensor([row.patch]),
            torch.tensor(list(row.image), dtype=torch.uint8).reshape(1, 2, 2),
            torch.tensor([text + [0] * (8 - len(text))], dtype=torch.uint8),
            torch.tensor([row.flag]),
            torch.tensor([row.pair]),
            torch.tensor([float(row.price)]),
        ]
        expected = {key: value[0].tolist() for key, value in module(*arguments).items()}
        assert row.score == pytest.approx(expected["score"], abs=1e-5)
        assert (row.counts, row.patches) == (expected["counts"], expected["patches"])


@pytest.mark.parametrize(
    ("rows", "optimizer", "arguments"),
    [
        pytest.param(
            65,
            "SGD",
            {"momentum": 0.9},
            id="SGD, rank 0 has no row in the last step",
            marks=pytest.mark.lane("spark35"),
        ),
        pytest.param(
            101, "AdamW", {"weight_decay": 0.05}, id="AdamW, a ragged last batch", marks=pytest.mark.lane("latest")
        ),
    ],
)
def test_two_ranks_equal_one_process_with_the_doubled_batch(points, tmp_path, rows, optimizer, arguments):
    """Weight for weight in float64: the loop is written out here, fed with the rows that the ranks' readers give."""
    df = points.selectExpr("id", "cast(features as array<double>) features", "target label").where(f"id < {rows}")
    batch, epochs, seed, rate = 16, 3, 11, 0.05
    module = net(1).double()
    fitted = estimator(
        model=module, task="regression", optimizer=optimizer, optimizerParams=arguments, learningRate=rate,
        batchSize=batch, epochs=epochs, seed=seed,
    ).fit(df)  # fmt: skip

    signature, label = Signature.from_dataframe(df, ["features"]), Signature.from_dataframe(df, ["label"]).inputs[0]
    data = write(df, str(tmp_path / "data"), Layout(signature, label))
    readers = [ArrowReader(data, World(rank, 2, rank, 2), batch_size=batch, seed=seed) for rank in range(2)]
    steps = readers[0].steps_per_epoch
    assert steps == readers[1].steps_per_epoch == -(-((rows + 1) // 2) // batch)
    alone = net(1).double()
    stepper = getattr(torch.optim, optimizer)(alone.parameters(), lr=rate, **arguments)
    everything = sorted(tuple(row.features) for row in df.collect())
    for epoch in range(epochs):
        ranks = [list(reader.epoch(epoch)) for reader in readers]
        seen = [tuple(x.tolist()) for batches in ranks for batch in batches if batch.rows for x in batch.inputs[0]]
        assert sorted(seen) == everything, "every row once an epoch"
        for step in range(steps):
            parts = [batches[step] for batches in ranks if batches[step].rows]
            x, y = torch.cat([part.inputs[0] for part in parts]), torch.cat([part.label for part in parts])
            stepper.zero_grad()
            nn.functional.mse_loss(alone(x).squeeze(1), y).backward()
            stepper.step()
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(fitted.bundle.weights[name], value, rtol=0, atol=1e-13)
        assert (value - module.state_dict()[name]).abs().max() > 1e-2


def test_empty_partitions_and_other_params_by_fit(points, tmp_path):
    """copy(extra) and fit(df, params) change a copy; partitions without rows do no harm."""
    df = points.where("id between 140 and 150").repartition(5, "side").select("features", "target")
    store = tmp_path / "store"
    base = estimator(model=net(1), task="regression", labelCol="target", storePath=str(store))
    copied = base.copy({base.epochs: 2})
    assert (base.getEpochs(), copied.getEpochs()) == (1, 2)
    fitted = copied.fit(df, {copied.predictionCol: "guess", copied.batchSize: 2})
    assert (copied.getPredictionCol(), copied.getBatchSize()) == ("prediction", 16)
    assert [entry["rows"] for entry in fitted.history] == [11, 11]
    assert fitted.transform(df).columns == ["features", "target", "guess"]
    assert fitted.bundle.training["settings"]["batchSize"] == 2
    assert os.listdir(store) == [], "the run's directory is gone"


def test_the_progress_of_a_fit_shows_on_the_driver(points, capfd):
    estimator(model=net(1), task="binary", labelCol="side", epochs=2, verbose=True).fit(points)
    shown = capfd.readouterr().out
    assert "2 ranks, Horovod, " in shown
    assert "epoch 1/2  loss " in shown
    assert "epoch 2/2  loss " in shown
    assert "accuracy" in shown


def test_torch_distributed_is_the_other_collective(points):
    settings = {"model": net(1).double(), "task": "regression", "labelCol": "target", "epochs": 2, "seed": 2}
    by_torch = estimator(collective="torch", **settings).fit(points)
    by_horovod = estimator(collective="horovod", **settings).fit(points)
    for name, value in by_horovod.bundle.weights.items():
        torch.testing.assert_close(by_torch.bundle.weights[name], value, rtol=0, atol=1e-13)


def test_an_interrupted_fit_leaves_nothing(spark, points, signals, tmp_path):
    """As Ctrl-C in a notebook: KeyboardInterrupt, the run's directory is gone, the session goes on."""
    training, never = (signals(), signals()), signals()
    heard = [rank.listen() for rank in training]
    store, survived = tmp_path / "store", tmp_path / "survived"

    def loss(outputs, label):
        from pyspark import TaskContext

        if (task := TaskContext.get()) is not None:  # the driver calls it too, to see that shapes fit
            training[task.partitionId()].send()
            never.wait(never.listen(), 20.0)
            survived.touch()
        return nn.functional.mse_loss(outputs, label)

    def interrupt():
        if all(rank.wait(fd) for rank, fd in zip(training, heard, strict=True)):
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    fit = estimator(model=net(1), task="regression", labelCol="target", loss=loss, storePath=str(store))
    with pytest.raises(KeyboardInterrupt):
        fit.fit(points)
    thread.join()
    assert os.listdir(store) == []
    assert spark.range(0, 2, 1, 2).count() == 2, "the session goes on, and the slots are free"
    assert not survived.exists(), "the ranks were ended"
