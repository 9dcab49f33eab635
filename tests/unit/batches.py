"""A Reader of batches in memory, and a small module to train on them."""

from dataclasses import dataclass

import torch
from torch import nn

from sparkdl.data.batch import Batch
from sparkdl.tasks import DEFAULT_LOSS
from sparkdl.train.loop import Training
from sparkdl.train.named import loss_named, named_optimizer


@dataclass
class Batches:
    """A Reader of given batches, the same each epoch."""

    batches: list

    def __post_init__(self):
        self.steps_per_epoch = len(self.batches)

    def rows_in_step(self, step):
        return [len(self.batches[step][1])]

    def epoch(self, epoch, first_step=0):
        return iter(list(self.scan())[first_step:])

    def scan(self):
        return iter([Batch(inputs, label, len(label), *weight) for inputs, label, *weight in self.batches])


def data(task, dtype=torch.float64, rows=50, batch=8):
    """The last batch has two rows."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, 4, dtype=dtype, generator=generator)
    y = {
        "regression": x.sum(dim=1),
        "binary": (x[:, 0] > 0).to(dtype),
        "multiclass": (x[:, 0] > 0).long() + (x[:, 1] > 0).long(),
    }[task or "regression"]
    return Batches([([x[i : i + batch]], y[i : i + batch]) for i in range(0, rows, batch)])


def module(task, dtype=torch.float64):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3 if task == "multiclass" else 1)).to(dtype)


def training(task, made, epochs=3, optimizer=("sgd", {"lr": 0.1, "momentum": 0.9}), loss=None, **more):
    loss = loss or loss_named(DEFAULT_LOSS[task])
    return Training(made, loss, named_optimizer(*optimizer), task, epochs, seed=0, **more)
