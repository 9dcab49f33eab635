"""Callbacks run in the order given, and any rank's wish to stop is all ranks'."""

import inspect
from types import SimpleNamespace

import cloudpickle
import pytest
import torch
from torch import nn

from sparkdl.train.callbacks import Callback, Run, fan_out
from sparkdl.train.collective import SingleProcess
from sparkdl.train.world import World

HOOKS = [name for name in vars(Callback) if name.startswith("on_")]


@pytest.fixture
def run():
    module = nn.Linear(2, 1)
    return Run(World(), module, torch.optim.SGD(module.parameters(), lr=0.1))


class Noting(Callback):
    def __init__(self, name, told):
        self.name, self.told = name, told

    def __getattribute__(self, attribute):
        if attribute in HOOKS:
            return lambda run: self.told.append((attribute, self.name, run))
        return super().__getattribute__(attribute)


def test_the_hooks_are_these():
    assert HOOKS == ["on_fit_start", "on_epoch_start", "on_step_end", "on_epoch_end", "on_fit_end"]
    assert all(list(inspect.signature(getattr(Callback, hook)).parameters) == ["self", "run"] for hook in HOOKS)


@pytest.mark.parametrize("hook", HOOKS)
def test_each_hook_of_each_callback_is_called_in_the_order_given(run, hook):
    told = []
    getattr(fan_out([Noting("a", told), Callback(), Noting("b", told)]), hook)(run)
    assert told == [(hook, "a", run), (hook, "b", run)]


def test_an_error_of_a_callback_is_not_swallowed(run):
    class Failing(Callback):
        def on_step_end(self, run):
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        fan_out([Failing()]).on_step_end(run)


@pytest.mark.parametrize(("asks", "others_ask", "expected"), [(0, 0, False), (1, 0, True), (0, 1, True), (1, 2, True)])
def test_any_rank_may_ask_to_stop(run, asks, others_ask, expected):
    others = SimpleNamespace(device=torch.device("cpu"), allreduce=lambda tensor: tensor.add_(others_ask))
    if asks:
        run.stop()
    assert run.agree(others) is expected
    assert run.asked_to_stop is expected


def test_alone_it_is_its_own_wish(run):
    assert run.agree(SingleProcess()) is False
    run.stop()
    assert run.agree(SingleProcess()) is True


def test_a_callback_written_in_a_notebook_travels(run):
    class Stopping(Callback):
        def __init__(self, below):
            self.below = below

        def on_epoch_end(self, run):
            if run.history[-1]["loss"] < self.below:
                run.stop()

    arrived = cloudpickle.loads(cloudpickle.dumps(Stopping(0.5)))
    for loss, stopped in ((0.7, False), (0.4, True)):
        run.history.append({"epoch": 0, "loss": loss})
        arrived.on_epoch_end(run)
        assert run.asked_to_stop is stopped
