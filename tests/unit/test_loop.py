"""One rank's loop is a plain training loop: the same weights, losses and accuracy as one written by hand."""

import copy
import math

import pytest
import torch
from batches import data, module, training
from torch import nn

from sparkdl.errors import NonFiniteLossError, TrainingError
from sparkdl.train.callbacks import Callback
from sparkdl.train.collective import SingleProcess
from sparkdl.train.loop import Training, train
from sparkdl.train.named import loss_named, named_optimizer


def by_hand(task, made, reader, epochs, optimizer):
    """The same with nothing of ours: (losses, accuracies) an epoch."""
    losses, accuracies = [], []
    for _ in range(epochs):
        total, right, rows = 0.0, 0, 0
        for (x,), y in reader.batches:
            optimizer.zero_grad()
            outputs = made(x) if task == "multiclass" else made(x).squeeze(1)
            loss = {
                "regression": nn.functional.mse_loss,
                "binary": nn.functional.binary_cross_entropy_with_logits,
                "multiclass": nn.functional.cross_entropy,
            }[task](outputs, y)
            loss.backward()
            optimizer.step()
            total, rows = total + loss.item() * len(y), rows + len(y)
            if task != "regression":
                predicted = outputs.argmax(dim=1) if task == "multiclass" else (outputs > 0).to(y.dtype)
                right += (predicted == y).sum().item()
        losses.append(total / rows)
        accuracies.append(right / rows)
    return losses, accuracies


@pytest.mark.parametrize("task", ["regression", "binary", "multiclass"])
@pytest.mark.parametrize(
    ("name", "arguments"),
    [("sgd", {"lr": 0.02, "momentum": 0.9}), ("adamw", {"lr": 0.01, "weight_decay": 0.1})],
)
def test_it_is_the_loop_one_would_write(task, name, arguments):
    reader, made = data(task), module(task)
    reference = copy.deepcopy(made)
    cls = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[name]
    losses, accuracies = by_hand(task, reference, reader, 3, cls(reference.parameters(), **arguments))
    result = train(training(task, made, optimizer=(name, arguments)), reader, SingleProcess())
    assert result.module is made
    for ours, theirs in zip(made.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    assert [entry["loss"] for entry in result.history] == pytest.approx(losses, abs=1e-12)
    assert losses[-1] < losses[0]
    if task == "regression":
        assert "accuracy" not in result.history[0]
    else:
        assert [entry["accuracy"] for entry in result.history] == pytest.approx(accuracies, abs=1e-6)


def test_the_history_tells_epoch_rows_and_seconds():
    history = train(training("regression", module("regression")), data("regression"), SingleProcess()).history
    assert [entry["epoch"] for entry in history] == [0, 1, 2]
    assert all(entry["rows"] == 50 and entry["seconds"] > 0 for entry in history)


def test_progress_is_told_each_step_and_each_epoch():
    told = []
    result = train(
        training("binary", module("binary"), epochs=2), data("binary"), SingleProcess(), progress=told.append
    )
    steps = [event for event in told if event["event"] == "step"]
    assert [(event["epoch"], event["step"], event["rows"]) for event in steps] == [
        (epoch, step, min(8 * step, 50)) for epoch in range(2) for step in range(1, 8)
    ]
    assert all(math.isfinite(event["loss"]) for event in steps)
    assert [event for event in told if event["event"] == "epoch"] == [
        {"event": "epoch", **entry} for entry in result.history
    ]


@pytest.mark.parametrize(("value", "name"), [(math.nan, "nan"), (math.inf, "inf")])
@pytest.mark.parametrize(("epoch", "step"), [(0, 0), (0, 3), (1, 6)])
def test_a_loss_that_is_not_finite_stops_naming_epoch_and_step(value, name, epoch, step):
    calls = []

    def loss(outputs, label):
        calls.append(1)
        return outputs.mean() * (value if len(calls) == epoch * 7 + step + 1 else 1.0)

    made = module("regression")
    with pytest.raises(NonFiniteLossError, match=rf"in epoch {epoch}, step {step} \(both from 0\)") as caught:
        train(training("regression", made, loss=loss), data("regression"), SingleProcess())
    assert (caught.value.epoch, caught.value.step) == (epoch, step)
    assert str(caught.value.loss).lstrip("-") == name
    assert isinstance(caught.value, TrainingError)
    assert all(parameter.isfinite().all() for parameter in made.parameters())  # stopped before the step was taken


def test_frozen_parameters_are_not_touched_and_the_others_are():
    made = module("regression")
    made[0].requires_grad_(False)
    before = copy.deepcopy(made.state_dict())
    train(
        training("regression", made, optimizer=("adamw", {"lr": 0.1, "weight_decay": 0.5})),
        data("regression"),
        SingleProcess(),
    )
    assert torch.equal(made[0].weight, before["0.weight"])
    assert not torch.equal(made[2].weight, before["2.weight"])
    assert made[0].weight.grad is None


def test_what_is_frozen_keeps_its_batch_norm_and_drops_nothing_out():
    modes = []

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.below = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
            self.head = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))

        def forward(self, x):
            if torch.is_grad_enabled():
                modes.append((self.below[2].training, self.head[1].training))
            return self.head(self.below(x))

    made = Net().double()
    before = copy.deepcopy(made.state_dict())
    trained = training("regression", made, epochs=2, frozen=("below.*",))
    train(trained, data("regression"), SingleProcess(), validation=data("regression"))
    assert torch.equal(made.below[1].running_mean, before["below.1.running_mean"])
    assert not torch.equal(made.head[1].running_mean, before["head.1.running_mean"])
    assert set(modes) == {(False, True)}


def test_gradients_are_let_go_of_at_the_end():
    made = module("regression")
    train(training("regression", made), data("regression"), SingleProcess())
    assert all(parameter.grad is None for parameter in made.parameters())


def test_parameters_of_several_dtypes_are_trained():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(4, 4)
            self.second = nn.Linear(4, 1).double()

        def forward(self, x):
            return self.second(self.first(x).double())

    torch.manual_seed(0)
    made, reader = Mixed(), data("regression", torch.float32)
    for step, ((x,), y) in enumerate(reader.batches):
        reader.batches[step] = ([x], y.double())
    reference = copy.deepcopy(made)
    losses, _ = by_hand("regression", reference, reader, 2, torch.optim.SGD(reference.parameters(), lr=0.1))
    result = train(training("regression", made, epochs=2, optimizer=("sgd", {"lr": 0.1})), reader, SingleProcess())
    assert [entry["loss"] for entry in result.history] == pytest.approx(losses, rel=1e-6)
    for ours, theirs in zip(made.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_same_seed_gives_the_same_weights_dropout_included():
    def weights(seed):
        made = nn.Sequential(nn.Dropout(0.5), module("regression"))
        settings = training("regression", made)
        train(Training(**{**vars(settings), "seed": seed}), data("regression"), SingleProcess())
        return made[1][0].weight

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_a_module_in_evaluation_mode_is_trained_in_training_mode():
    made = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 1)).double().eval()
    train(training("regression", made), data("regression"), SingleProcess())
    assert made[0].num_batches_tracked == 3 * 7


def test_without_a_task_outputs_and_labels_go_to_the_loss_as_they_are():
    shapes = set()

    def loss(outputs, label):
        shapes.add((tuple(outputs["a"].shape), tuple(label.shape)))
        return outputs["a"].mean()

    class Dictionary(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 1).double()

        def forward(self, x):
            return {"a": self.linear(x)}

    settings = Training(Dictionary(), loss, named_optimizer("sgd", {"lr": 0.1}), None, 1, 0)
    train(settings, data("regression"), SingleProcess())
    assert shapes == {((8, 1), (8,)), ((2, 1), (2,))}


def test_labels_in_a_column_of_their_own_are_counted_right():
    """Labels of shape (B, 1), as an array column of one number gives them."""
    reader = data("binary")
    reader.batches = [(inputs, label[:, None]) for inputs, label in reader.batches]
    flat = train(training("binary", module("binary")), data("binary"), SingleProcess()).history
    column = train(training("binary", module("binary")), reader, SingleProcess()).history
    assert [entry["accuracy"] for entry in column] == [entry["accuracy"] for entry in flat]
    assert [entry["loss"] for entry in column] == pytest.approx([entry["loss"] for entry in flat])


def test_a_callback_may_let_go_of_the_gradients():
    class Zeroes(Callback):
        def on_step_end(self, run):
            run.optimizer.zero_grad()

    plain, zeroed = (
        train(training("binary", module("binary"), callbacks=callbacks), data("binary"), SingleProcess()).weights
        for callbacks in ((), (Zeroes(),))
    )
    assert all(torch.equal(value, zeroed[name]) for name, value in plain.items())


def test_a_step_whose_weights_are_all_zero_changes_nothing():
    reader = data("regression")
    reader.batches = [(inputs, y, torch.zeros(len(y), dtype=torch.float64)) for inputs, y in reader.batches]
    made = module("regression")
    before = copy.deepcopy(made.state_dict())
    loss = loss_named("mse_loss", reduction="none")
    result = train(training("regression", made, epochs=1, loss=loss), reader, SingleProcess())
    assert all(torch.equal(value, before[name]) for name, value in result.weights.items())
    assert result.history[0]["loss"] == 0.0
