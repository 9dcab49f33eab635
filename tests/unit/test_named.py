"""Losses, optimizers and schedulers by torch's names; a name it has not is refused with the nearest ones."""

import pickle

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from sparkdl.errors import InvalidParamError
from sparkdl.train.named import loss_named, named_optimizer, named_scheduler, optimizer_class, scheduler_class


@pytest.mark.parametrize(
    "name", ["mse_loss", "cross_entropy", "binary_cross_entropy_with_logits", "huber_loss", "l1_loss"]
)
def test_a_loss_function(name):
    assert loss_named(name) is getattr(nn.functional, name)


@pytest.mark.parametrize("name", ["MSELoss", "CrossEntropyLoss", "SmoothL1Loss"])
def test_a_loss_module(name):
    assert type(loss_named(name)) is getattr(nn, name)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("mse", "'mse_loss'"),
        ("cross_entropi", "'cross_entropy'"),
        ("CrossEntropy", "'CrossEntropyLoss'|'cross_entropy'"),
    ],
)
def test_a_loss_that_torch_has_not(name, nearest):
    with pytest.raises(
        InvalidParamError, match=rf"'loss' must be .*got '{name}'.*did you mean .*({nearest})"
    ) as caught:
        loss_named(name)
    assert (caught.value.param, caught.value.value) == ("loss", name)


@pytest.mark.parametrize("name", ["relu", "softmax", "Linear", "", "__doc__", "LinearCrossEntropyLoss"])
def test_what_is_no_loss(name):
    with pytest.raises(InvalidParamError):
        loss_named(name)


@pytest.mark.parametrize(
    ("name", "cls"),
    [("adam", torch.optim.Adam), ("AdamW", torch.optim.AdamW), ("SGD", torch.optim.SGD), ("sgd", torch.optim.SGD)],
)
def test_an_optimizer_whatever_the_case(name, cls):
    assert optimizer_class(name) is cls


@pytest.mark.parametrize(("name", "nearest"), [("adamm", "'Adam"), ("rms", "'RMSprop'"), ("sdg", "'SGD'|'ASGD'")])
def test_an_optimizer_that_torch_has_not(name, nearest):
    with pytest.raises(
        InvalidParamError, match=rf"torch\.optim \(got '{name}'\); did you mean .*({nearest})"
    ) as caught:
        optimizer_class(name)
    assert (caught.value.param, caught.value.value) == ("optimizer", name)


@pytest.mark.parametrize("name", ["Optimizer", "lr_scheduler", "optimizer", ""])
def test_what_is_no_optimizer(name):
    with pytest.raises(InvalidParamError):
        optimizer_class(name)


def test_a_named_optimizer_travels_and_is_made_with_its_arguments():
    made = pickle.loads(pickle.dumps(named_optimizer("sgd", {"lr": 0.5, "momentum": 0.9})))
    optimizer = made(nn.Linear(2, 2).parameters())
    assert type(optimizer) is torch.optim.SGD
    assert (optimizer.defaults["lr"], optimizer.defaults["momentum"]) == (0.5, 0.9)


def test_an_argument_that_the_optimizer_does_not_take():
    with pytest.raises(InvalidParamError, match="SGD takes no 'momentun'; did you mean 'momentum'") as caught:
        named_optimizer("sgd", {"lr": 0.5, "momentun": 0.9})
    assert caught.value.param == "optimizerParams"
    with pytest.raises(InvalidParamError, match="takes no 'params'"):
        named_optimizer("sgd", {"params": []})


@pytest.mark.parametrize("name", ["mse_loss", "MSELoss", "cross_entropy", "CrossEntropyLoss", "HuberLoss"])
def test_a_loss_of_each_row_whose_mean_is_the_loss(name):
    outputs = torch.arange(12.0).reshape(4, 3)
    label = torch.arange(4) % 3 if "ross" in name else outputs.flip(0)
    each = loss_named(name, "none")(outputs, label)
    assert len(each) == 4
    torch.testing.assert_close(each.mean(), loss_named(name)(outputs, label))
    assert pickle.loads(pickle.dumps(loss_named(name, "none")))(outputs, label).equal(each)


@pytest.mark.parametrize(
    ("name", "cls"),
    [
        ("StepLR", lr_scheduler.StepLR),
        ("step", lr_scheduler.StepLR),
        ("cosine_annealing", lr_scheduler.CosineAnnealingLR),
        ("CosineAnnealingLR", lr_scheduler.CosineAnnealingLR),
        ("onecycle", lr_scheduler.OneCycleLR),
        ("one_cycle_lr", lr_scheduler.OneCycleLR),
        ("reduce_lr_on_plateau", lr_scheduler.ReduceLROnPlateau),
        ("lambda", lr_scheduler.LambdaLR),
    ],
)
def test_a_scheduler_whatever_the_spelling(name, cls):
    assert scheduler_class(name) is cls


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("CosineAnealing", "did you mean 'CosineAnnealingLR'"),
        ("LRScheduler", "got 'LRScheduler'"),
        ("SequentialLR", "not made of others"),
        ("", "got ''"),
    ],
)
def test_a_scheduler_that_torch_has_not(name, said):
    with pytest.raises(InvalidParamError, match=said) as caught:
        named_scheduler(name, {})
    assert (caught.value.param, caught.value.value) == ("scheduler", name)


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("step", {"stepsize": 3}, "StepLR takes no 'stepsize'; did you mean 'step_size'"),
        ("step", {"gamma": 0.5}, "StepLR needs 'step_size'; give it in schedulerParams"),
        ("onecycle", {}, "OneCycleLR needs 'max_lr'"),
        ("cyclic", {}, "CyclicLR needs 'base_lr', 'max_lr'"),
        ("step", {"step_size": 3, "last_epoch": 2}, "takes no 'last_epoch'"),
        ("step", {"step_size": 3, "optimizer": None}, "takes no 'optimizer'"),
    ],
)
def test_arguments_that_the_scheduler_does_not_take_or_lacks(name, arguments, said):
    with pytest.raises(InvalidParamError, match=said) as caught:
        named_scheduler(name, arguments)
    assert (caught.value.param, caught.value.value) == ("schedulerParams", arguments)


def rates(scheduler, steps):
    """The learning rate of each step, and the one after the last."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5, momentum=0.9)
    made, told = pickle.loads(pickle.dumps(scheduler))(optimizer, steps), []
    for _ in range(steps):
        told.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        made.step()
    return [*told, optimizer.param_groups[0]["lr"]]


def test_the_number_of_steps_is_filled_in():
    assert rates(named_scheduler("cosine_annealing", {}), 4) == pytest.approx([0.5, 0.4268, 0.25, 0.0732, 0], abs=1e-4)
    told = rates(named_scheduler("onecycle", {"max_lr": 1.0}), 10)
    assert (max(told[:-1]), told.index(max(told))) == (pytest.approx(1.0), 2)  # its pct_start is 0.3
    assert rates(named_scheduler("step", {"step_size": 2, "gamma": 0.1}), 4) == pytest.approx(
        [0.5, 0.5, 0.05, 0.05, 0.005]
    )


def test_a_number_of_steps_that_was_given_stays():
    told = rates(named_scheduler("cosine_annealing", {"T_max": 2}), 4)
    assert told == pytest.approx([0.5, 0.25, 0, 0.25, 0.5])
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5, momentum=0.9)
    assert (
        named_scheduler("onecycle", {"max_lr": 1, "epochs": 3, "steps_per_epoch": 5})(optimizer, 99).total_steps == 15
    )


def test_only_plateau_is_stepped_with_a_value_and_told_which_way_is_better():
    plateau, step = named_scheduler("ReduceLROnPlateau", {"patience": 0}), named_scheduler("step", {"step_size": 1})
    assert (plateau.is_plateau, step.is_plateau) == (True, False)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    assert plateau.for_mode("max")(optimizer, 3).mode == "max"
    assert named_scheduler("ReduceLROnPlateau", {"mode": "min"}).for_mode("max")(optimizer, 3).mode == "min"
    assert step.for_mode("max") == step
