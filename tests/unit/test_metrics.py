"""Metrics by forgiving names, made for the task, over all rows; the monitored figure. Over ranks: tests/parity."""

import math
import subprocess
import sys

import pytest
import torch
import torchmetrics
from torchmetrics import classification, regression

from sparkdl.errors import InvalidParamError
from sparkdl.train import tree
from sparkdl.train.collective import SingleProcess
from sparkdl.train.metrics import Metrics, Monitor, check_metrics, metric_named, metrics_given, monitor_for


def batches(task, rows=60, batch_size=16):
    """(outputs, label) batches as a model gives them; deterministic."""
    generator = torch.Generator().manual_seed(0)
    width = {"binary": 1, "multiclass": 3, "regression": 1}[task]
    outputs = torch.randn(rows, width, generator=generator)
    label = {
        "binary": (torch.rand(rows, generator=generator) > 0.4).float(),
        "multiclass": torch.arange(rows) % 3,
        "regression": torch.randn(rows, generator=generator),
    }[task]
    return list(zip(outputs.split(batch_size), label.split(batch_size), strict=True))


def measured(metrics, task):
    whole = Metrics(metrics, task, SingleProcess())
    for outputs, label in batches(task):
        whole.add(outputs, label)
    return whole.over_ranks()


@pytest.mark.parametrize(
    ("name", "task", "cls"),
    [
        ("accuracy", "binary", classification.BinaryAccuracy),
        ("Accuracy", "multiclass", classification.MulticlassAccuracy),
        ("f1", "binary", classification.BinaryF1Score),
        ("F1_Score", "multiclass", classification.MulticlassF1Score),
        ("AUROC", "binary", classification.BinaryAUROC),
        ("auc", "multiclass", classification.MulticlassAUROC),
        ("average precision", "binary", classification.BinaryAveragePrecision),
        ("precision", "binary", classification.BinaryPrecision),
        ("recall", "multiclass", classification.MulticlassRecall),
        ("matthews-corrcoef", "binary", classification.BinaryMatthewsCorrCoef),
        ("mse", "regression", regression.MeanSquaredError),
        ("MeanSquaredError", "regression", regression.MeanSquaredError),
        ("rmse", "regression", regression.MeanSquaredError),
        ("mae", "regression", regression.MeanAbsoluteError),
        ("r2", "regression", regression.R2Score),
        ("mse", None, regression.MeanSquaredError),
    ],
)
def test_a_name_gives_the_tasks_own_class(name, task, cls):
    assert type(metric_named(name, task, 3 if task == "multiclass" else None)) is cls


@pytest.mark.parametrize(
    ("name", "task", "said"),
    [
        ("acuracy", "binary", "did you mean 'accuracy'"),
        ("aurok", "multiclass", "did you mean 'auroc'"),
        ("mse", "multiclass", "it is one of task 'regression'"),
        ("f1", "regression", "it is one of task 'binary' or 'multiclass'"),
        ("roc", "binary", "knows no 'roc'"),  # a curve
        ("fbeta_score", "binary", "takes any torchmetrics object"),  # needs a beta
        ("", "binary", "knows no ''"),
        ("Metric", "regression", "knows no"),
    ],
)
def test_a_name_that_is_none_or_of_another_task(name, task, said):
    with pytest.raises(InvalidParamError, match=said) as caught:
        metric_named(name, task, 3)
    assert (caught.value.param, caught.value.value) == ("metrics", name)


def test_values_of_classes_are_those_of_probabilities_and_labels():
    logits, label = (torch.cat(parts) for parts in zip(*batches("multiclass"), strict=True))
    told = measured(metrics_given(["accuracy", "f1", "auroc"], "multiclass", 3), "multiclass")
    right = logits.argmax(dim=1)
    f1 = []
    for c in range(3):
        hits = ((right == c) & (label == c)).sum()
        f1.append(2 * hits / ((right == c).sum() + (label == c).sum()))
    assert told["accuracy"] == pytest.approx(float((right == label).float().mean()))
    assert told["f1"] == pytest.approx(float(torch.stack(f1).mean()))
    assert told["auroc"] == pytest.approx(float(classification.MulticlassAUROC(3)(logits.softmax(1), label)))


def test_values_of_a_binary_task_whose_model_gives_a_column():
    logits, label = (torch.cat(parts) for parts in zip(*batches("binary"), strict=True))
    told = measured(metrics_given(["accuracy", "auroc"], "binary", 2), "binary")
    assert told["accuracy"] == pytest.approx(float(((logits[:, 0] > 0) == label).float().mean()))
    above = (logits[label == 1] > logits[label == 0].T).float().mean()  # the meaning of the area under the curve
    assert told["auroc"] == pytest.approx(float(above))


def test_values_of_regression_are_those_of_all_rows_not_a_mean_of_batches():
    outputs, label = (torch.cat(parts) for parts in zip(*batches("regression"), strict=True))
    told = measured(metrics_given(["mse", "rmse", "mae", "r2"], "regression", None), "regression")
    error = outputs[:, 0] - label
    assert told["mse"] == pytest.approx(float((error**2).mean()))
    assert told["rmse"] == pytest.approx(float((error**2).mean()) ** 0.5)
    assert told["mae"] == pytest.approx(float(error.abs().mean()))
    assert told["r2"] == pytest.approx(1 - float((error**2).sum() / ((label - label.mean()) ** 2).sum()))


def test_labels_in_a_column_are_numbers_too():
    outputs, label = torch.randn(9, 1), torch.randn(9)
    told = []
    for shape in ((9,), (9, 1)):
        metrics = Metrics(
            metrics_given(["mse", "kendall_rank_corrcoef"], "regression", None), "regression", SingleProcess()
        )
        metrics.add(outputs, label.reshape(shape))
        told.append(metrics.over_ranks())
    assert told[0] == told[1]


def test_without_a_task_a_metric_gets_what_the_model_gives():
    class Halves(torchmetrics.MeanMetric):
        def update(self, outputs, label):
            super().update(outputs["mean"] / label)

    metrics = Metrics({"halves": Halves()}, None, SingleProcess())
    metrics.add({"mean": torch.tensor([1.0, 2.0])}, torch.tensor([2.0, 4.0]))
    assert metrics.over_ranks() == {"halves": 0.5}


def test_half_precision_outputs_are_measured_in_float32():
    metrics = Metrics(metrics_given(["mse"], "regression", None), "regression", SingleProcess())
    metrics.add(torch.full((400, 1), 256.0, dtype=torch.float16), torch.zeros(400))
    assert metrics.over_ranks() == {"mse": 65536.0}  # which float16 does not hold


def test_each_value_of_several_has_its_own_name():
    metrics = {
        "f1": classification.MulticlassF1Score(3, average=None),
        "confusion": classification.MulticlassConfusionMatrix(3),
        "recall": torchmetrics.wrappers.ClasswiseWrapper(classification.MulticlassRecall(3, average=None)),
    }
    told = measured(metrics, "multiclass")
    assert {f"f1_{c}" for c in range(3)} | {f"confusion_{a}_{b}" for a in range(3) for b in range(3)} < told.keys()
    assert len(told) == 3 + 9 + 3
    assert sum(value for name, value in told.items() if name.startswith("confusion")) == 60


def test_an_epoch_begins_anew_and_the_users_own_object_is_not_touched():
    mine = classification.BinaryAUROC()
    mine.update(torch.tensor([0.1, 0.9]), torch.tensor([1, 0]))
    metrics = Metrics({"auroc": mine}, "binary", SingleProcess())
    label = torch.tensor([0.0, 1.0])
    for logits, expected in (([-1.0, 1.0], 1.0), ([1.0, -1.0], 0.0)):
        metrics.add(torch.tensor(logits), label)
        assert metrics.over_ranks() == {"auroc": expected}
    assert float(mine.compute()) == 0.0


def test_no_rows_at_all_is_nan_and_no_metrics_is_nothing():
    metrics = Metrics(metrics_given(["auroc", "f1"], "binary", 2), "binary", SingleProcess())
    metrics.add(torch.empty(0), torch.empty(0))
    told = metrics.over_ranks()
    assert list(told) == ["auroc", "f1"]
    assert all(math.isnan(value) for value in told.values())
    assert Metrics({}, "binary", SingleProcess()).over_ranks() == {}


def test_a_state_taken_in_mid_epoch_goes_on_as_if_nothing_had_been():
    given = metrics_given(["auroc", "f1", "accuracy"], "multiclass", 3) | {
        "recall": torchmetrics.wrappers.ClasswiseWrapper(classification.MulticlassRecall(3, average=None)),
    }
    first, whole = (Metrics(given, "multiclass", SingleProcess()) for _ in range(2))
    rows = batches("multiclass")
    for batch in rows:
        whole.add(*batch)
    for batch in rows[:2]:
        first.add(*batch)
    state = first.state()
    assert_plain(state)
    state = tree.load(tree.dump(state))  # as a checkpoint keeps it
    first.add(*rows[3])  # after the state was taken
    second = Metrics(given, "multiclass", SingleProcess())
    second.add(*rows[0])  # is forgotten
    second.load_state(state)
    for batch in rows[2:]:
        second.add(*batch)
    assert second.over_ranks() == whole.over_ranks()


def assert_plain(value):
    if isinstance(value, dict):
        assert all(isinstance(key, str) for key in value)
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            assert_plain(one)
    else:
        assert isinstance(value, (int, float, torch.Tensor))


def test_what_a_user_may_give():
    mine = classification.BinaryF1Score()
    both = torchmetrics.MetricCollection({"p": classification.BinaryPrecision(), "r": classification.BinaryRecall()})
    assert list(metrics_given("auroc", "binary", 2)) == ["auroc"]
    assert metrics_given([mine, "accuracy"], "binary", 2)["f1_score"] is mine
    assert list(metrics_given({"a": "accuracy", "mine": mine}, "binary", 2)) == ["a", "mine"]
    assert list(metrics_given([both], "binary", 2)) == ["p", "r"]
    assert list(metrics_given({"both": both}, "binary", 2)) == ["both_p", "both_r"]
    assert list(metrics_given([classification.MulticlassAUROC(3)], "multiclass", 3)) == ["auroc"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([3], "must be names or torchmetrics objects"),
        (["f1", "f1"], "'f1' is given twice"),
        ({"loss": "f1"}, "'loss' is what the history calls"),
        ({"val_f1": "f1"}, "'val_f1' is what the history calls"),
    ],
)
def test_what_a_user_may_not_give(given, said):
    with pytest.raises(InvalidParamError, match=said) as caught:
        metrics_given(given, "binary", 2)
    assert caught.value.param == "metrics"


def test_metrics_are_tried_before_anything_runs():
    outputs, label = batches("multiclass")[0]
    assert check_metrics(metrics_given(["f1", "confusion_matrix"], "multiclass", 3), "multiclass", outputs, label) == [
        "f1", *(f"confusion_matrix_{a}_{b}" for a in range(3) for b in range(3)),
    ]  # fmt: skip
    with pytest.raises(InvalidParamError, match=r"metric 'f1' \(MulticlassF1Score\) does not take .*") as caught:
        check_metrics({"f1": classification.MulticlassF1Score(5)}, "multiclass", outputs, label)
    assert caught.value.param == "metrics"


@pytest.mark.parametrize(
    ("mode", "min_delta", "value", "best", "better"),
    [
        ("min", 0.0, 1.0, None, True),
        ("min", 0.0, 1.0, 2.0, True),
        ("min", 0.0, 2.0, 2.0, False),
        ("min", 0.5, 1.5, 2.0, False),
        ("min", 0.5, 1.4, 2.0, True),
        ("max", 0.0, 3.0, 2.0, True),
        ("max", 0.0, 2.0, 2.0, False),
        ("max", 0.5, 2.5, 2.0, False),
        ("min", 0.0, math.nan, None, False),
        ("max", 0.0, math.nan, 1.0, False),
        ("min", 0.0, 1.0, math.nan, True),
        ("min", 0.0, math.inf, None, True),
    ],
)
def test_what_is_better(mode, min_delta, value, best, better):
    assert Monitor("x", mode, min_delta=min_delta).better(value, best) is better


GIVEN = {"f1": classification.BinaryF1Score(), "mse": regression.MeanSquaredError()}


@pytest.mark.parametrize(
    ("name", "has_validation", "task", "expected"),
    [
        (None, False, "binary", None),
        (None, True, "binary", ("val_loss", "min")),
        ("loss", True, "binary", ("loss", "min")),
        ("val_accuracy", True, "binary", ("val_accuracy", "max")),
        ("accuracy", False, "multiclass", ("accuracy", "max")),
        ("f1", False, "binary", ("f1", "max")),
        ("val_mse", True, None, ("val_mse", "min")),
        ("f1_0", False, "multiclass", ("f1_0", "max")),
    ],
)
def test_the_monitor_of_a_name(name, has_validation, task, expected):
    monitor = monitor_for(name, has_validation, GIVEN, task)
    assert (monitor and (monitor.name, monitor.mode)) == expected


@pytest.mark.parametrize(
    ("name", "has_validation", "said"),
    [
        ("val_f2", True, r"must be one of \['loss', 'val_loss', 'val_f1', 'val_mse'\] .*did you mean 'val_f1'"),
        ("val_loss", False, "this fit has no validation rows"),
        ("accuracy", True, "must be one of"),  # regression has none
        ("lr", True, "must be one of"),
        ("f1", True, "did you mean 'val_f1'"),  # measured on the validation rows only
    ],
)
def test_a_monitor_that_there_is_not(name, has_validation, said):
    with pytest.raises(InvalidParamError, match=said) as caught:
        monitor_for(name, has_validation, GIVEN, "regression")
    assert (caught.value.param, caught.value.value) == ("monitor", name)


def test_a_metric_that_is_neither_better_high_nor_low_cannot_be_monitored():
    confusion = {"confusion": classification.BinaryConfusionMatrix()}
    with pytest.raises(InvalidParamError, match="does not say whether higher is better"):
        monitor_for("confusion_0_0", False, confusion, "binary")


def test_torchmetrics_is_imported_only_when_it_is_used():
    code = "import sys, sparkdl.train.metrics; print('torchmetrics' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
