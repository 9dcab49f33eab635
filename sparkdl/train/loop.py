"""The training loop that every rank runs. It sees batches and a Collective, never Spark or Horovod.

An epoch is: updates (train/step.py), ranks agree on their buffers, validation, the scheduler, callbacks, a checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sparkdl.data.batch import Reader
from sparkdl.train import batch_norm, parameters
from sparkdl.train.callbacks import Callback, Run
from sparkdl.train.checkpoint import Checkpoints
from sparkdl.train.clock import Clock
from sparkdl.train.collective import Collective
from sparkdl.train.metrics import Monitor
from sparkdl.train.passes import Passes
from sparkdl.train.state import Best, State, agree, seed_everything, weights_of
from sparkdl.train.step import Recipe

Loss = Callable[[Any, Tensor], Tensor]
Progress = Callable[[dict[str, Any]], None]
SCALINGS = ("none", "linear", "sqrt")


@dataclass(frozen=True)
class Schedule:
    """The learning rate. make: ``(optimizer, steps in all) -> scheduler``, stepped each ``interval`` ("epoch" or
    "step": an update). scaling: by how much more rows a step has with N ranks: "linear" N times the rate (Goyal et al.
    2017), "sqrt" its root, "none"."""

    make: Callable[[torch.optim.Optimizer, int], Any] | None = None
    interval: str = "epoch"
    scaling: str = "none"

    def factor(self, ranks: int) -> float:
        """What the rate is multiplied by."""
        return {"none": 1.0, "linear": float(ranks), "sqrt": math.sqrt(ranks)}[self.scaling]


@dataclass(frozen=True)
class Training:
    """What to train and how.

    loss: ``(outputs, label)`` -> the mean over the batch; with weights in the batches, a loss a row.
    optimizer: makes one of parameters, or of parameter groups.
    frozen, groups: see train/parameters.py. monitor: None returns the last weights rather than the best.
    """

    module: nn.Module
    loss: Loss
    optimizer: Callable[[Any], torch.optim.Optimizer]
    task: str | None
    epochs: int
    seed: int
    recipe: Recipe = field(default_factory=Recipe)
    schedule: Schedule = field(default_factory=Schedule)
    frozen: tuple[str, ...] = ()
    groups: tuple[Mapping[str, Any], ...] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)
    monitor: Monitor | None = None
    callbacks: tuple[Callback, ...] = ()


@dataclass(frozen=True)
class Result:
    """history: an entry an epoch. best_epoch: whose weights these are, None for the last's. weights: on rank 0."""

    module: nn.Module
    history: list[dict[str, Any]]
    best_epoch: int | None
    weights: dict[str, Tensor] | None


def train(
    training: Training,
    reader: Reader,
    collective: Collective,
    *,
    validation: Reader | None = None,
    checkpoints: Checkpoints | None = None,
    progress: Progress = lambda message: None,
) -> Result:
    """Train on this rank; all ranks call it.

    checkpoints: where training is taken up if there is one, and saved to.
    progress: called on rank 0 after each update, and after each epoch with its history entry.
    Raises NonFiniteLossError, on every rank alike, naming epoch and step.
    """
    world = collective.world
    state = begin(training, reader, collective)
    clock = Clock()
    if checkpoints:
        taken_up = checkpoints.restore(state, collective)
        if taken_up and taken_up.ranks != world.size:
            _rescale(state, training.schedule.factor(world.size) / training.schedule.factor(taken_up.ranks))
    run = Run(world=world, module=state.module, optimizer=state.optimizer, history=state.history)

    def save() -> None:
        clock("checkpoint")
        if checkpoints and checkpoints.every.due(state, training.epochs):
            state.running = passes.running()
            checkpoints.save(state, collective)
        clock("compute")

    passes = Passes(training, state, collective, clock, reader, validation)
    _tell(training.callbacks, "on_fit_start", run)
    while state.epoch < training.epochs and not state.stopped:
        clock.restart()
        run.epoch, run.step = state.epoch, state.step
        _tell(training.callbacks, "on_epoch_start", run)
        entry = passes.train(run, save, progress)
        batch_norm.agree_on_buffers(state.module, collective)
        entry |= passes.validate()
        _conclude(training, state, entry, world.is_chief)
        _tell(training.callbacks, "on_epoch_end", run)
        state.stopped = agree(collective, float(run.stopping)) > 0 or _patience_is_over(training.monitor, state)
        entry["phases"] = clock.seconds
        save()
        if world.is_chief:
            progress({"event": "epoch", **entry})
    _tell(training.callbacks, "on_fit_end", run)
    passes.stepper.gradients.release()
    best = state.best
    weights = (best.weights if best else weights_of(state.module)) if world.is_chief else None
    return Result(state.module, state.history, best.epoch if best else None, weights)


def _tell(callbacks: Sequence[Callback], hook: str, run: Run) -> None:
    for callback in callbacks:
        getattr(callback, hook)(run)


def begin(training: Training, reader: Reader, collective: Collective) -> State:
    """The state before the first step, the same on all ranks but for their generators."""
    seed_everything(training.seed + collective.world.rank)  # dropout differs between ranks, not between runs
    module = training.module.to(collective.device).train()
    parameters.freeze(module, training.frozen)
    if training.recipe.sync_batch_norm:
        module = batch_norm.synchronised(module, collective)
    for tensor in module.state_dict().values():
        collective.broadcast(tensor)
    optimizer = training.optimizer(parameters.grouped(module, training.groups))
    for group in optimizer.param_groups:
        group["lr"] = group["lr"] * training.schedule.factor(collective.world.size)
    scaler = torch.amp.GradScaler(collective.device.type, enabled=training.recipe.precision == "float16")
    schedule = training.schedule
    updates = -(-reader.steps_per_epoch // training.recipe.accumulation)
    steps = training.epochs * (updates if schedule.interval == "step" else 1)
    return State(module, optimizer, scaler, schedule.make(optimizer, steps) if schedule.make else None)


def _rescale(state: State, factor: float) -> None:
    """Change the learning rate, also the one that a scheduler starts from."""
    for group in state.optimizer.param_groups:
        group["lr"] = group["lr"] * factor
        if "initial_lr" in group:
            group["initial_lr"] = group["initial_lr"] * factor
    if hasattr(state.scheduler, "base_lrs"):
        state.scheduler.base_lrs = [rate * factor for rate in state.scheduler.base_lrs]


def _conclude(training: Training, state: State, entry: dict[str, Any], is_chief: bool) -> None:
    """The epoch is over: remember it, keep its weights if they are the best, step the scheduler."""
    monitor = training.monitor
    if monitor and monitor.better(entry[monitor.name], state.best.value if state.best else None):
        state.best = Best(state.epoch, entry[monitor.name], weights_of(state.module) if is_chief else None)
    if state.scheduler is not None and training.schedule.interval == "epoch":
        if isinstance(state.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            state.scheduler.step(entry[monitor.name if monitor else "loss"])
        else:
            state.scheduler.step()
    state.history.append(entry)
    state.epoch, state.step, state.running = state.epoch + 1, 0, {}


def _patience_is_over(monitor: Monitor | None, state: State) -> bool:
    if monitor is None or not monitor.patience:
        return False
    return state.epoch - 1 - (state.best.epoch if state.best else -1) >= monitor.patience
