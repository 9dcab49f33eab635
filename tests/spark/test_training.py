"""What a fit can do beside fitting: validate, choose, resume, start warm, take datasets; as a stage of pyspark.ml too."""

from __future__ import annotations

import os

import pytest
import torch
from pyspark.ml import Pipeline
from pyspark.ml.evaluation import BinaryClassificationEvaluator, RegressionEvaluator
from pyspark.ml.tuning import CrossValidator, ParamGridBuilder, TrainValidationSplit
from torch import nn

import sparkdl
from sparkdl import Callback, Logger, TorchEstimator, TorchModel, World, plan
from sparkdl.errors import CheckpointError, RankFailedError


def net(outputs: int = 1, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Dropout(0.2), nn.Linear(32, outputs))


def estimator(**settings) -> TorchEstimator:
    return TorchEstimator(
        **{"model": net(), "task": "binary", "labelCol": "side", "numProc": 2, "batchSize": 16, "epochs": 4,
           "learningRate": 0.02, "verbose": False} | settings
    )  # fmt: skip


def same(first: TorchModel, second: TorchModel) -> bool:
    weights = second.bundle.weights
    return all(torch.equal(value, weights[name]) for name, value in first.bundle.weights.items())


def figures(model: TorchModel) -> list[dict]:
    return [{k: v for k, v in entry.items() if k not in ("seconds", "phases")} for entry in model.history]


def test_validation_metrics_and_the_best_epoch(points):
    model = estimator(
        validationFraction=0.25, metrics=["f1", "auroc"], monitor="val_auroc", epochs=5, scheduler="exponential",
        schedulerParams={"gamma": 0.5}, clipNorm=1.0, accumulationSteps=2,
    ).fit(points)  # fmt: skip
    history, told = model.history, model.bundle.training
    assert told["rows"] + told["validation_rows"] == 400
    assert 60 < told["validation_rows"] < 140
    assert {"loss", "accuracy", "val_loss", "val_accuracy", "val_f1", "val_auroc", "lr"} <= set(history[0])
    assert [entry["lr"] for entry in history] == pytest.approx([0.02 * 0.5**i for i in range(5)])
    best = max(range(5), key=lambda i: (history[i]["val_auroc"], -i))
    assert told["best_epoch"] == best
    assert model.bundle.metrics["val_auroc"] == history[best]["val_auroc"]
    summary = model.summary
    assert list(summary.history["epoch"]) == [0, 1, 2, 3, 4]
    assert {"materialise", "launch", "data", "compute", "all_reduce", "validation"} <= set(summary.phases)
    assert summary.rowsPerSecond > 0
    assert summary.bestEpoch == best
    assert summary.attempts == [{"ranks": 2, "error": None}]


def test_an_indicator_column_says_which_rows_validate_and_patience_ends_the_fit(points):
    """The validation rows' labels are the opposite: every epoch is worse than the first."""
    df = points.selectExpr("id % 4 = 0 as held_out", "features", "if(id % 4 = 0, 1 - side, side) as side")
    model = estimator(validationIndicatorCol="held_out", patience=2, epochs=30).fit(df)
    assert len(model.history) == 3
    assert (model.bundle.training["best_epoch"], model.bundle.training["validation_rows"]) == (0, 100)
    assert model.history[0]["rows"] == 300


def test_rows_of_weight_zero_teach_nothing(points):
    df = points.selectExpr("features", "if(id % 2 = 0, 1 - side, side) as side", "cast(id % 2 as int) as w")
    model = estimator(weightCol="w", epochs=8, validationFraction=0.2).fit(df)
    scored = model.transform(df.where("w = 1")).selectExpr("avg(cast(prediction = side as double))").head()[0]
    assert scored > 0.9
    assert model.history[-1]["val_loss"] < 0.4, "which is weighted too"


def test_a_dataset_and_its_uri_stand_for_the_frame(points, tmp_path, jobs):
    df = points.select("features", "side")
    data = sparkdl.materialize(df, str(tmp_path / "data"), inputCols=["features"], labelCol="side")
    first = estimator().fit(df)
    before = os.listdir(tmp_path / "data")
    second, third = estimator().fit(data), estimator().fit(str(tmp_path / "data"))
    assert figures(first) == figures(second) == figures(third)
    assert same(first, second)
    assert same(first, third)
    assert str(second.signature) == str(first.signature)
    assert os.listdir(tmp_path / "data") == before, "a dataset that the user named is left alone"
    assert second.transform(df).count() == 400


class DiesAt(Callback):
    def __init__(self, epoch: int, step: int = 0) -> None:
        self.at = (epoch, step)

    def on_step_end(self, run) -> None:
        if (run.epoch, run.step) == self.at:
            raise ConnectionAbortedError("the power is gone")


@pytest.mark.parametrize(
    ("every", "at"),
    [
        pytest.param("1 epoch", (2, 3), marks=pytest.mark.lane("spark35")),
        pytest.param("2 steps", (1, 5), marks=pytest.mark.lane("latest")),
    ],
)
def test_a_fit_that_was_interrupted_resumes_to_the_same_weights(points, tmp_path, every, at):
    place = str(tmp_path / "checkpoints")
    settings = {"validationFraction": 0.2, "scheduler": "cosineannealing", "metrics": ["auroc"]}
    undisturbed = estimator(**settings).fit(points)
    with pytest.raises(RankFailedError, match="the power is gone"):
        estimator(checkpointDir=place, checkpointEvery=every, callbacks=[DiesAt(*at)], **settings).fit(points)
    resumed = estimator(checkpointDir=place, checkpointEvery=every, **settings).fit(points, resume=True)
    assert figures(resumed) == figures(undisturbed)
    assert same(resumed, undisturbed)
    (run,) = os.listdir(place)
    assert sorted(os.listdir(os.path.join(place, run))) == ["checkpoints", "finished"], "its data is gone"
    assert len([name for name in os.listdir(os.path.join(place, run, "checkpoints")) if name.startswith("ep")]) == 2

    with pytest.raises(CheckpointError, match="4 epochs are done; set epochs higher"):
        estimator(checkpointDir=place, **settings).fit(points, resume=True)
    longer = estimator(checkpointDir=place, **settings | {"epochs": 5}).fit(points, resume=True)
    assert figures(longer)[:4] == figures(undisturbed)
    for changed, what in [
        ({"batchSize": 8}, "batchSize was 16, and is 8 now"),
        ({"model": net(2), "task": "multiclass"}, r"model 3.weight was 'float32\[1, 32\]'"),
        ({"numProc": 1}, "of 2 ranks, and numProc is 1"),
    ]:
        with pytest.raises(CheckpointError, match=what):
            estimator(checkpointDir=place, **settings | {"epochs": 9} | changed).fit(points, resume=True)
    with pytest.raises(CheckpointError, match=r"data rows was|of other data"):
        estimator(checkpointDir=place, **settings | {"epochs": 9}).fit(points.where("id > 50"), resume=True)
    fewer = estimator(checkpointDir=place, minProc=1, **settings | {"epochs": 6, "numProc": 1}).fit(points, resume=True)
    assert [entry["rows"] for entry in fewer.history] == [undisturbed.history[0]["rows"]] * 6
    assert figures(fewer)[:5] == figures(longer)


def test_nothing_to_resume_is_said_at_once(points, tmp_path, jobs):
    with pytest.raises(CheckpointError, match="nothing to resume"):
        estimator(checkpointDir=str(tmp_path)).fit(points, resume=True)
    with pytest.raises(sparkdl.errors.InvalidParamError, match="'resume' needs 'checkpointDir'"):
        estimator().fit(points, resume=True)
    assert jobs() == 0


def test_a_warm_start_with_layers_frozen(points, tmp_path):
    first = estimator(epochs=6, learningRate=0.05).fit(points)
    first.write().overwrite().save(str(tmp_path / "model"))
    first.bundle.save(str(tmp_path / "bundle"))
    made = net(seed=7)
    before = {name: value.clone() for name, value in made.state_dict().items()}
    for start in (first, first.bundle, str(tmp_path / "model"), str(tmp_path / "bundle"), dict(first.bundle.weights)):
        settings = {"model": made, "initialWeights": start, "epochs": 1}
        if start is first:
            groups = [{"params": "3.bias", "lr": 0.0}]
            tuned = estimator(frozen=["0.*"], parameterGroups=groups, **settings).fit(points)
            weights = tuned.bundle.weights
            for name in ("0.weight", "0.bias", "3.bias"):
                assert torch.equal(weights[name], first.bundle.weights[name])
            assert not torch.equal(weights["3.weight"], first.bundle.weights["3.weight"])
            assert tuned.history[0]["loss"] < first.history[0]["loss"] / 2
        else:  # what differs is only how it was given
            module = plan.module_of(plan.values_of(estimator(**settings)))
            assert all(torch.equal(value, first.bundle.weights[name]) for name, value in module.state_dict().items())
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())
    assert all(parameter.requires_grad for parameter in made.parameters())


class Everywhere(Callback):
    """Tells the driver where it was called, and asks for the end on one rank."""

    def on_epoch_end(self, run) -> None:
        assert isinstance(run.world, World)
        sparkdl.log_to_driver(f"rank {run.world.rank} epoch {run.epoch} loss {run.history[-1]['loss']:.6f}")
        if run.world.rank == 1 and run.epoch == 1:
            run.stop()


class Told(Logger):
    def __init__(self) -> None:
        self.calls: list = []

    def on_fit_start(self, settings) -> None:
        self.calls.append(("start", settings["batchSize"]))

    def on_epoch_end(self, entry) -> None:
        self.calls.append(("epoch", entry["epoch"], entry["loss"]))

    def on_fit_end(self, model, error) -> None:
        self.calls.append(("end", type(model).__name__, error))


def test_callbacks_run_on_every_rank_and_loggers_on_the_driver(points, tmp_path, capfd):
    told = Told()
    files = [sparkdl.CSVLogger(str(tmp_path / "h.csv")), sparkdl.JSONLinesLogger(str(tmp_path / "h.jsonl"))]
    model = estimator(callbacks=[Everywhere(), told, *files], verbose=True).fit(points)
    shown = capfd.readouterr().out
    losses = [entry["loss"] for entry in model.history]
    assert len(losses) == 2, "one rank's wish to stop is enough"
    for rank in (0, 1):
        assert f"rank {rank} epoch 1 loss {losses[1]:.6f}" in shown
    assert told.calls == [
        ("start", 16), ("epoch", 0, losses[0]), ("epoch", 1, losses[1]), ("end", "TorchModel", None),
    ]  # fmt: skip
    assert len((tmp_path / "h.jsonl").read_text().splitlines()) == 2
    assert len((tmp_path / "h.csv").read_text().splitlines()) == 3


def test_a_logger_hears_of_the_error(points):
    told = Told()
    with pytest.raises(RankFailedError):
        estimator(callbacks=[DiesAt(0, 1), told]).fit(points)
    assert told.calls[-1][0] == "end"
    assert isinstance(told.calls[-1][2], RankFailedError)


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))

    def forward(self, x):
        return self.net(x)


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(
            {"syncBatchNorm": True, "precision": "bfloat16", "gradientCompression": "bfloat16"},
            id="sync batch norm, bfloat16",
            marks=pytest.mark.lane("spark35"),
        ),
        pytest.param(
            {"compileModel": True, "precision": "float16", "gradientCompression": "float16", "dropLast": True},
            id="compiled, float16",
            marks=pytest.mark.lane("latest"),
        ),
    ],
)
def test_every_recipe_learns_on_the_executors(points, settings):
    torch.manual_seed(0)
    model = estimator(model=Normed(), epochs=6, learningRateScaling="linear", **settings).fit(points)
    assert model.history[-1]["accuracy"] > 0.85
    assert model.history[-1]["lr"] == pytest.approx(0.04)
    assert model.history[-1]["rows"] == (384 if settings.get("dropLast") else 400)


def test_batch_norm_and_a_last_step_of_one_row_is_said_before_the_launch(points, jobs):
    df = points.where("id < 66")  # 33 rows a rank: two steps of 16, and one row
    with pytest.raises(sparkdl.errors.TooFewRowsError, match=r"batch norm.*dropLast=True"):
        estimator(model=Normed()).fit(df)
    assert len(estimator(model=Normed(), epochs=1, dropLast=True).fit(df).history) == 1


def test_a_stage_of_a_pipeline(points, tmp_path):
    stage = estimator(epochs=6, learningRate=0.05)
    model = Pipeline(stages=[stage]).fit(points)
    scored = model.transform(points)
    assert BinaryClassificationEvaluator(labelCol="side", rawPredictionCol="prediction").evaluate(scored) > 0.9


@pytest.mark.lane("latest")
def test_cross_validation_of_two_fits_at_a_time(points):
    """Each wants both slots: they take turns."""
    tried = estimator(model=net(), task="regression", labelCol="target", epochs=3)
    grid = ParamGridBuilder().addGrid(tried.learningRate, [1e-5, 0.05]).addGrid(tried.batchSize, [8]).build()
    evaluator = RegressionEvaluator(labelCol="target", metricName="rmse")
    found = CrossValidator(
        estimator=tried, estimatorParamMaps=grid, evaluator=evaluator, numFolds=2, parallelism=2, seed=1
    ).fit(points)
    assert found.avgMetrics[1] < found.avgMetrics[0]
    assert found.bestModel.bundle.training["settings"]["learningRate"] == 0.05
    assert tried.getLearningRate() == 0.02


@pytest.mark.lane("spark35")
def test_train_validation_split(points):
    tried = estimator(task="regression", labelCol="target", epochs=2)
    grid = ParamGridBuilder().addGrid(tried.learningRate, [1e-5, 0.05]).build()
    evaluator = RegressionEvaluator(labelCol="target", metricName="rmse")
    found = TrainValidationSplit(
        estimator=tried, estimatorParamMaps=grid, evaluator=evaluator, parallelism=2, seed=1
    ).fit(points)
    assert found.validationMetrics[1] < found.validationMetrics[0]
    assert isinstance(found.bestModel, TorchModel)
