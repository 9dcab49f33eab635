"""What the ranks of test_recipes run: trainings by recipe, and one that is interrupted and taken up."""

from dataclasses import dataclass

import torch
from ranks import ROWS, FixedReader
from torch import nn

from sparkdl.data.batch import Batch
from sparkdl.train.callbacks import Callback
from sparkdl.train.checkpoint import Checkpoints, Every
from sparkdl.train.loop import Training, train
from sparkdl.train.metrics import Monitor
from sparkdl.train.named import named_optimizer
from sparkdl.train.schedule import Schedule
from sparkdl.train.step import Recipe


@dataclass
class Reader(FixedReader):
    """Also with weights, and to be scanned."""

    weighted: bool = False

    def epoch(self, epoch, first_step=0):
        for step, batch in enumerate(super().epoch(epoch, first_step), start=first_step):
            yield self.with_weights(batch, step)

    def with_weights(self, batch, step):
        if not self.weighted:
            return batch
        start, _ = self.interval(step, self.world.rank)
        weight = (torch.arange(len(batch.label), dtype=torch.float64) + start) % 4  # some rows weigh nothing
        return Batch(batch.inputs, batch.label, batch.rows, weight)

    def scan(self):
        return (batch for batch in self.epoch(0) if batch.rows)


class Normed(nn.Module):
    """Batch norm over vectors and over maps."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 6)
        self.norm = nn.BatchNorm1d(6)
        self.maps = nn.BatchNorm2d(3, momentum=None)
        self.last = nn.Linear(6, 2)

    def forward(self, x):
        hidden = torch.relu(self.norm(self.first(x)))
        return self.last(self.maps(hidden.reshape(-1, 3, 2, 1)).flatten(1))


def module_of(kind):
    torch.manual_seed(0)
    if kind == "norm":
        return Normed().double()
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)).double()


def per_row(outputs, label):
    return nn.functional.cross_entropy(outputs, label, reduction="none")


RECIPES = {
    "accumulation": {"recipe": Recipe(accumulation=2)},
    "clipping": {"recipe": Recipe(clip_norm=0.05)},
    "weights": {"weighted": True},
    "weights, accumulated": {"weighted": True, "recipe": Recipe(accumulation=3)},
    "sync batch norm": {"kind": "norm", "recipe": Recipe(sync_batch_norm=True)},
    "groups, one frozen": {
        "frozen": ("0.bias",), "groups": ({"params": "2.*", "lr": 0.5}, {"params": ["*.weight"], "weight_decay": 0.1}),
    },
    "a scheduler, validation, the best epoch": {
        "schedule": Schedule(lambda optimizer, steps: torch.optim.lr_scheduler.StepLR(optimizer, 2), "step"),
        "validate": True, "monitor": Monitor("val_loss", "max"),
    },
    "linear scaling": {"schedule": Schedule(scaling="linear")},
}  # fmt: skip
COMPRESSED = {
    "float16": {"recipe": Recipe(compression="float16")},
    "bfloat16": {"recipe": Recipe(compression="bfloat16")},
}


def trained(collective, batch_size, kind="plain", weighted=False, validate=False, rate=0.1, rows=ROWS, **settings):
    """(weights on rank 0, history without times); every rank begins with weights of its own but those of rank 0."""
    torch.manual_seed(collective.world.rank)
    made = module_of(kind)
    training = Training(
        made, per_row if weighted else nn.functional.cross_entropy,
        named_optimizer("sgd", {"lr": rate, "momentum": 0.9}), "multiclass", 3, 0, **settings,
    )  # fmt: skip
    reader = Reader(collective.world, batch_size, rows, weighted)
    result = train(training, reader, collective, validation=reader if validate else None)
    buffers = [collective.allgather(value) for value in result.module.state_dict().values()]
    assert all(torch.equal(value[0], other) for value in buffers for other in value)  # the ranks agree to the bit
    return result.weights, [{k: v for k, v in e.items() if k not in ("seconds", "phases")} for e in result.history]


def all_of(collective, cases, batch_size):
    """``trained`` for each case, by name: one start of the ranks for all."""
    return {name: trained(collective, batch_size, **case) for name, case in cases.items()}


class Dies(Callback):
    def __init__(self, after):
        self.left = after

    def on_step_end(self, run):
        self.left -= 1
        if not self.left:
            raise InterruptedError


def interrupted(collective, folder, moments):
    """For each moment, an update: the weights of a run that is interrupted after it and taken up; and undisturbed ones.

    Dropout and batch norm make each rank's generator and buffers its own.
    """

    def run(places, callbacks=()):
        torch.manual_seed(0)
        made = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.4), nn.Linear(8, 2)).double()
        training = Training(
            made, nn.functional.cross_entropy, named_optimizer("adam", {"lr": 0.05}), "multiclass", 3, 0,
            callbacks=callbacks,
        )  # fmt: skip
        weights = train(training, Reader(collective.world, 5), collective, checkpoints=places).weights or {}
        return {name: value.numpy() for name, value in weights.items()}

    answers = {"undisturbed": run(None)}
    for moment in moments:
        places = Checkpoints(f"{folder}/{moment}", Every(updates=2), 2, {})
        try:
            run(places, (Dies(moment),))
        except InterruptedError:
            answers[moment] = run(places)
    return answers
