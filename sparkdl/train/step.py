"""One update of the weights.

What it computes is the gradient of the mean loss over all rows that all ranks have in it, also when ranks have
different numbers of rows: each rank's loss is weighted by its share. So N ranks with batches of B give the weights that
one process gives with batches of N * B; and ``accumulation`` steps in one update those of batches as much larger.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sparkdl import tasks
from sparkdl.data.batch import Batch
from sparkdl.train.batch_norm import SyncBatchNorm
from sparkdl.train.clock import Clock
from sparkdl.train.collective import Collective
from sparkdl.train.gradients import Gradients
from sparkdl.train.state import State

PRECISIONS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Recipe:
    """How an update is computed.

    accumulation: steps to an update. clip_norm: the gradient's largest norm. precision: of autocast, one of PRECISIONS
    (float32: none), float16 with a scaled loss. compression: see Gradients. compile: by torch.compile.
    sync_batch_norm: see SyncBatchNorm.
    """

    accumulation: int = 1
    clip_norm: float | None = None
    precision: str = "float32"
    compression: str | None = None
    compile: bool = False
    sync_batch_norm: bool = False


class Forward:
    """The module and its loss on this rank's device, in the recipe's precision. A module's ``added_loss()`` is added:
    what it asks of its own parameters, as Keras' regularizers do."""

    def __init__(self, module: nn.Module, loss: Any, task: str | None, recipe: Recipe, device: torch.device) -> None:
        self.call = torch.compile(module) if recipe.compile else module
        self.added_loss = getattr(module, "added_loss", None)
        self.loss, self.task, self.device = loss, task, device
        self.dtype = None if recipe.precision == "float32" else getattr(torch, recipe.precision)

    def __call__(self, batch: Batch) -> tuple[Any, Tensor, Tensor, Tensor | None]:
        """Outputs, label, loss, weight: the mean loss and None, or the sum of each row's loss times its weight and the
        sum of the weights."""
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
            label = batch.label.to(self.device, non_blocking=True)
            outputs = self.call(*(tensor.to(self.device, non_blocking=True) for tensor in batch.inputs))
            loss = self.loss(tasks.align(self.task, outputs, label), label)
            if self.added_loss is not None:
                loss = loss + self.added_loss()
            if batch.weight is None:
                return outputs, label, loss, None
            weight = batch.weight.to(self.device, non_blocking=True) * bool(batch.rows)
            return outputs, label, (loss.flatten(1).mean(1) if loss.ndim > 1 else loss).mul(weight).sum(), weight.sum()


class Stepper:
    """Takes updates; all ranks in step."""

    def __init__(
        self,
        state: State,
        forward: Forward,
        recipe: Recipe,
        collective: Collective,
        clock: Clock,
        watchers: Sequence[Any],
    ) -> None:
        self.state, self.forward, self.recipe, self.clock = state, forward, recipe, clock
        self.watchers = watchers
        self.gradients = Gradients(state.module, collective, recipe.compression)
        self.norms = [part for part in state.module.modules() if isinstance(part, SyncBatchNorm)]

    def update(self, batches: Iterator[Batch], rows: Sequence[int]) -> tuple[Tensor, Tensor | float]:
        """Take the next ``len(rows)`` batches, of so many rows on all ranks together; the mean loss over them, and the
        weight it is the mean over."""
        clock, state, device = self.clock, self.state, self.forward.device
        self.gradients.zero()
        loss, weight = torch.zeros((), device=device), torch.zeros((), device=device)
        for _ in rows:
            clock("data")
            batch = next(batches)
            clock("compute")
            loss_of, weight_of = self._backward(batch, sum(rows))
            loss, weight = loss + loss_of, weight + weight_of
        clock("all_reduce")
        sums = self.gradients.reduce(loss, weight)
        clock("compute")
        loss, weight = sums
        if batch.weight is not None:
            positive = weight.clamp(min=torch.finfo(weight.dtype).tiny)
            self.gradients.divide(positive)
            loss = loss / positive
        if state.scaler.is_enabled():
            state.scaler.unscale_(state.optimizer)
        if self.recipe.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.gradients.parameters, self.recipe.clip_norm)
        return loss, sum(rows) if batch.weight is None else weight

    def apply(self) -> None:
        """Let the optimizer take the step."""
        self.state.scaler.step(self.state.optimizer)
        self.state.scaler.update()
        self.state.updates += 1

    def _backward(self, batch: Batch, rows: int) -> tuple[Tensor, Tensor]:
        for norm in self.norms:
            norm.counts = batch.rows > 0
        outputs, label, loss, weight = self.forward(batch)
        if weight is None:
            loss, weight = loss * (batch.rows / rows), loss.new_zeros(())
        self.state.scaler.scale(loss).backward()
        if batch.rows:
            with torch.no_grad():
                for watcher in self.watchers:
                    watcher.add(outputs, label)
        return loss.detach(), weight
