"""What a callback is given, and what it may ask for. That the loop calls it: tests/unit/test_loop.py."""

import copy
import inspect

import cloudpickle
import pytest
import torch
from torch import nn

from sparkdl.train.callbacks import Callback, Run
from sparkdl.train.world import World

HOOKS = [name for name in vars(Callback) if name.startswith("on_")]


@pytest.fixture
def run():
    module = nn.Linear(2, 1)
    return Run(World(), module, torch.optim.SGD(module.parameters(), lr=0.1))


def test_the_hooks_are_these():
    assert HOOKS == ["on_fit_start", "on_epoch_start", "on_step_end", "on_epoch_end", "on_fit_end"]
    assert all(list(inspect.signature(getattr(Callback, hook)).parameters) == ["self", "run"] for hook in HOOKS)


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_that_is_not_overridden_does_nothing(run, hook):
    before = copy.copy(run)
    assert getattr(Callback(), hook)(run) is None
    assert run == before


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
        assert run.stopping is stopped
