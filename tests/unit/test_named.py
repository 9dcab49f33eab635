"""Losses and optimizers by torch's names; a name it has not is refused with the nearest ones."""

import pickle

import pytest
import torch
from torch import nn

from sparkdl.errors import InvalidParamError
from sparkdl.train.named import loss_named, named_optimizer, optimizer_class


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


@pytest.mark.parametrize("name", ["relu", "softmax", "Linear", "", "__doc__"])
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
