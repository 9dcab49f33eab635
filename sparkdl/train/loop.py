"""The training loop that every rank runs. It sees batches and a Collective, never Spark or Horovod.

What a step computes is the gradient of the mean loss over all rows of the step on all ranks, also when ranks have
different numbers of rows in it: each rank's loss is weighted by its share. So N ranks with batches of B give the
weights that one process gives with batches of N * B.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sparkdl import tasks
from sparkdl.data.batch import Reader
from sparkdl.errors import NonFiniteLossError
from sparkdl.train.collective import Collective

Loss = Callable[[Any, Tensor], Tensor]
Progress = Callable[[dict[str, Any]], None]
_CHECK_EVERY = 32  # steps between looks at the loss on a GPU, where each look waits for it


@dataclass(frozen=True)
class Training:
    """What to train and how. ``loss(outputs, label)`` is a mean over the batch; ``optimizer(parameters)`` makes one."""

    module: nn.Module
    loss: Loss
    optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
    task: str | None
    epochs: int
    seed: int


@dataclass(frozen=True)
class Result:
    """history: a dictionary an epoch: ``epoch`` (from 0), ``loss``, the task's metrics, ``seconds``, ``rows``."""

    module: nn.Module
    history: list[dict[str, Any]] = field(default_factory=list)


def train(
    training: Training,
    reader: Reader,
    collective: Collective,
    *,
    progress: Progress = lambda message: None,
) -> Result:
    """Train on this rank; all ranks call it.

    progress: called on rank 0 after each step, and after each epoch with its history entry.
    Raises NonFiniteLossError, on every rank alike, naming epoch and step.
    """
    world, device = collective.world, collective.device
    torch.manual_seed(training.seed + world.rank)  # dropout differs between ranks, and is the same in every run
    module = training.module.to(device).train()
    for tensor in module.state_dict().values():
        collective.broadcast(tensor)
    optimizer = training.optimizer(parameter for parameter in module.parameters() if parameter.requires_grad)
    gradients = Gradients(module, collective)
    accuracy = Accuracy(training.task, collective)
    result = Result(module)
    for epoch in range(training.epochs):
        started, watch, rows = time.monotonic(), LossWatch(epoch, device), 0
        batches = reader.epoch(epoch)
        for step in range(reader.steps_per_epoch):
            rows_of = reader.rows_in_step(step)
            gradients.zero()
            batch = next(batches)
            label = batch.label.to(device, non_blocking=True)
            outputs = module(*(tensor.to(device, non_blocking=True) for tensor in batch.inputs))
            loss = training.loss(tasks.align(training.task, outputs, label), label)
            share = batch.rows / sum(rows_of)
            (loss * share).backward()
            loss = loss.detach() * share
            if batch.rows:
                with torch.no_grad():
                    accuracy.add(outputs, label)
            watch.add(gradients.reduce(loss), sum(rows_of))
            optimizer.step()
            rows += sum(rows_of)
            if world.is_chief:
                progress({"event": "step", "epoch": epoch, "step": step + 1, "loss": watch.latest, "rows": rows})
        seconds = time.monotonic() - started
        entry = {"epoch": epoch, "loss": watch.mean(), **accuracy.over_ranks(), "seconds": seconds, "rows": rows}
        result.history.append(entry)
        if world.is_chief:
            progress({"event": "epoch", **entry})
    gradients.release()
    return result


class Gradients:
    """All gradients of a module in one flat buffer a dtype, which one all-reduce a step sums over the ranks.

    Each parameter's ``grad`` is a view into it, so nothing is copied. The step's loss rides along in the first buffer.
    """

    def __init__(self, module: nn.Module, collective: Collective) -> None:
        self.collective = collective
        self.parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        dtypes = {parameter.dtype for parameter in self.parameters}
        loss_dtype = torch.float64 if torch.float64 in dtypes else torch.float32
        by_dtype: dict[torch.dtype, list[nn.Parameter]] = {loss_dtype: []}
        for parameter in self.parameters:
            by_dtype.setdefault(parameter.dtype, []).append(parameter)
        self.buffers: list[Tensor] = []
        for dtype, parameters in by_dtype.items():
            count = sum(parameter.numel() for parameter in parameters)
            is_first = not self.buffers
            buffer = torch.zeros(count + is_first, dtype=dtype, device=collective.device)
            offset = int(is_first)
            for parameter in parameters:
                parameter.grad = buffer[offset : offset + parameter.numel()].view_as(parameter)
                offset += parameter.numel()
            self.buffers.append(buffer)

    def zero(self) -> None:
        """Start a step."""
        for buffer in self.buffers:
            buffer.zero_()

    def reduce(self, loss: Tensor) -> Tensor:
        """Sum the gradients over all ranks, and this rank's share of the loss likewise; the loss of the step."""
        self.buffers[0][0] = loss
        for buffer in self.buffers:
            self.collective.allreduce(buffer)
        return self.buffers[0][0].clone()

    def release(self) -> None:
        """Let go of the buffers."""
        for parameter in self.parameters:
            parameter.grad = None


class LossWatch:
    """The losses of an epoch: their mean over rows, and an error as soon as one is not finite."""

    def __init__(self, epoch: int, device: torch.device) -> None:
        self.epoch = epoch
        self.every = 1 if device.type == "cpu" else _CHECK_EVERY
        self.waiting: list[tuple[Tensor, int]] = []
        self.total, self.rows, self.steps = 0.0, 0, 0
        self.latest = math.nan

    def add(self, loss: Tensor, rows: int) -> None:
        """Take the loss of a step over ``rows`` rows. Raises NonFiniteLossError for this or an earlier one."""
        self.waiting.append((loss, rows))
        if len(self.waiting) >= self.every:
            self._look()

    def mean(self) -> float:
        """Mean loss a row over the epoch. Raises as ``add`` does."""
        self._look()
        return self.total / max(self.rows, 1)

    def _look(self) -> None:
        for loss, rows in self.waiting:
            self.latest = float(loss)
            if not math.isfinite(self.latest):
                raise NonFiniteLossError(
                    f"the loss became {self.latest} in epoch {self.epoch}, step {self.steps} (both from 0); lower the "
                    "learning rate, scale the inputs, or look for NaN and infinite values in them",
                    epoch=self.epoch,
                    step=self.steps,
                    loss=self.latest,
                )
            self.total, self.rows, self.steps = self.total + self.latest * rows, self.rows + rows, self.steps + 1
        self.waiting.clear()


class Accuracy:
    """The share of rows predicted right over an epoch and all ranks; nothing for a task without classes."""

    def __init__(self, task: str | None, collective: Collective) -> None:
        self.task = task if task in ("binary", "multiclass") else None
        self.collective = collective
        self.counts = torch.zeros(2, device=collective.device)  # right, all

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
        return {"accuracy": right / rows}
