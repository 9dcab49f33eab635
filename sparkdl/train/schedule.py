"""The learning rate: how it is scaled by the number of ranks, and how it changes while training goes on."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim import lr_scheduler

SCALINGS = ("none", "linear", "sqrt")
_LENGTHS = ("total_steps", "T_max", "_schedule_phases")  # what torch's schedulers keep of how long training is


@dataclass(frozen=True)
class Schedule:
    """make: ``(optimizer, how often it will be stepped) -> scheduler``, stepped each ``interval``: "epoch", or "step",
    after each update. scaling: by how much more rows a step has with N ranks: "linear" N times the rate (Goyal et al.
    2017), "sqrt" its root, "none". Rates that a scheduler is given itself, as OneCycleLR's, are taken as they are."""

    make: Callable[[torch.optim.Optimizer, int], Any] | None = None
    interval: str = "epoch"
    scaling: str = "none"

    def factor(self, ranks: int) -> float:
        """What the rate is multiplied by."""
        return {"none": 1.0, "linear": float(ranks), "sqrt": math.sqrt(ranks)}[self.scaling]

    def start(self, optimizer: torch.optim.Optimizer, ranks: int, updates: int, epochs: int) -> Any:
        """Scale the optimizer's rates, and make the scheduler for epochs of so many updates; None if there is none."""
        scale(optimizer, self.factor(ranks))
        return self.make(optimizer, epochs * (updates if self.interval == "step" else 1)) if self.make else None

    def step(self, scheduler: Any, value: float) -> None:
        """One step of the scheduler. value: the monitored figure."""
        if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
            scheduler.step(value)
        else:
            scheduler.step()


def scale(optimizer: torch.optim.Optimizer, factor: float, scheduler: Any = None) -> None:
    """Multiply the rates of an optimizer, and those that its scheduler starts from."""
    for group in optimizer.param_groups:
        for key in ("lr", "initial_lr"):
            if key in group:
                group[key] = group[key] * factor
    for one in [scheduler, *getattr(scheduler, "_schedulers", [])]:
        if hasattr(one, "base_lrs"):
            one.base_lrs = [rate * factor for rate in one.base_lrs]


def lengths(scheduler: Any) -> dict[str, Any]:
    """What a scheduler knows of how long training is; to be given to ``stretch``."""
    return {key: value for key, value in vars(scheduler).items() if key in _LENGTHS}


def stretch(scheduler: Any, told: dict[str, Any], done: int) -> None:
    """Training has become longer or shorter than when the scheduler's state was saved: go on after ``done`` steps of a
    training of the lengths ``told``."""
    vars(scheduler).update(told)
    scheduler.last_epoch = done
    if hasattr(scheduler, "_get_closed_form_lr"):
        rates = scheduler._get_closed_form_lr()
    elif hasattr(scheduler, "total_steps"):  # OneCycleLR computes its rates from last_epoch alone
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="To get the last learning rate")
            rates = scheduler.get_lr()
    else:
        return
    for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    scheduler._last_lr = list(rates)
