"""The figures of an epoch as it goes on: loss and accuracy, over all rows of all ranks."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from sparkdl import tasks
from sparkdl.errors import NonFiniteLossError
from sparkdl.train.collective import Collective

_CHECK_EVERY = 32  # updates between looks at the loss on a GPU, where each look waits for it


class LossWatch:
    """The losses of an epoch: their mean, and an error as soon as one is not finite. accumulation: steps to one."""

    def __init__(self, epoch: int, device: torch.device, accumulation: int = 1) -> None:
        self.epoch, self.accumulation = epoch, accumulation
        self.every = 1 if device.type == "cpu" else _CHECK_EVERY
        self.waiting: list[tuple[Tensor, Tensor | float]] = []
        self.total, self.weight, self.updates = 0.0, 0.0, 0
        self.latest = math.nan

    def add(self, loss: Tensor, weight: Tensor | float) -> None:
        """Take the mean loss of an update over rows of ``weight`` in all. Raises NonFiniteLossError for this or an
        earlier one."""
        self.waiting.append((loss, weight))
        if len(self.waiting) >= self.every:
            self._look()

    def mean(self) -> float:
        """Mean loss over the epoch. Raises as ``add`` does."""
        self._look()
        return self.total / self.weight if self.weight else 0.0

    def state(self) -> list[float]:
        """For a checkpoint."""
        self._look()
        return [self.total, self.weight, self.updates, self.latest]

    def take_up(self, state: list[float]) -> None:
        """Go on from what ``state`` gave."""
        self.total, self.weight, self.latest = state[0], state[1], state[3]
        self.updates = int(state[2])

    def _look(self) -> None:
        for loss, weight in self.waiting:
            self.latest = float(loss)
            if not math.isfinite(self.latest):
                step = self.updates * self.accumulation
                raise NonFiniteLossError(
                    f"the loss became {self.latest} in epoch {self.epoch}, step {step} (both from 0); lower the "
                    "learning rate, clip gradients (clipNorm), scale the inputs, or look for NaN and infinite values "
                    "in them",
                    epoch=self.epoch,
                    step=step,
                    loss=self.latest,
                )
            self.total, self.weight = self.total + self.latest * float(weight), self.weight + float(weight)
            self.updates += 1
        self.waiting.clear()


class Accuracy:
    """The share of rows predicted right over an epoch and all ranks; nothing for a task without classes."""

    def __init__(self, task: str | None, collective: Collective) -> None:
        self.task = task if task in ("binary", "multiclass") else None
        self.collective = collective
        self.counts = torch.zeros(2, dtype=torch.float64, device=collective.device)  # right, all

    def add(self, outputs: Any, label: Tensor) -> None:
        """Take a batch."""
        if self.task:
            prediction = tasks.predictions(self.task, outputs)["prediction"]
            right = prediction == label.reshape(prediction.shape)  # labels may be (B, 1), which would broadcast
            self.counts += torch.stack([right.sum(), torch.tensor(len(label), device=label.device)])

    def over_ranks(self) -> dict[str, float]:
        """``accuracy`` since the last call; all ranks call it."""
        if not self.task:
            return {}
        self.collective.allreduce(self.counts)
        right, rows = self.counts.tolist()
        self.counts.zero_()
        return {"accuracy": right / rows} if rows else {}
