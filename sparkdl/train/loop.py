"""The training loop that every rank runs. It sees batches and a Collective, never Spark or Horovod.

An epoch is: updates (train/step.py), ranks agree on their buffers, validation, the scheduler, callbacks, a checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sparkdl.data.batch import Reader
from sparkdl.errors import TrainingError
from sparkdl.train import batch_norm, messages, parameters, pulse, tree
from sparkdl.train.agree import agree
from sparkdl.train.callbacks import Callback, Run
from sparkdl.train.checkpoint import Checkpoints
from sparkdl.train.clock import Clock
from sparkdl.train.collective import Collective
from sparkdl.train.metrics import Monitor
from sparkdl.train.passes import Passes
from sparkdl.train.schedule import Schedule, lengths, scale, stretch
from sparkdl.train.state import Best, State, is_finite, seed_everything, weights_of
from sparkdl.train.step import Recipe

Loss = Callable[[Any, Tensor], Tensor]
Progress = Callable[[dict[str, Any]], None]


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
    pulse.mark("begin to train")
    state = begin(training, reader, collective)
    clock = Clock()
    if checkpoints:
        _take_up(training, state, reader, collective, checkpoints)
    run = Run(world=world, module=state.module, optimizer=state.optimizer, history=state.history)

    def save() -> None:
        clock("checkpoint")
        if checkpoints and checkpoints.every.due(state, training.epochs) and is_finite(state.module):
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
    if checkpoints and world.is_chief:
        checkpoints.check_ours(state)
    best = state.best
    if training.monitor and best is None and world.is_chief:
        name = training.monitor.name
        messages.send("log", text=f"warning: {name} was never a number; the weights are those of the last epoch")
    weights = (best.weights if best else weights_of(state.module)) if world.is_chief else None
    return Result(state.module, state.history, best.epoch if best else None, weights)


def _tell(callbacks: Sequence[Callback], hook: str, run: Run) -> None:
    for callback in callbacks:
        getattr(callback, hook)(run)


def begin(training: Training, reader: Reader, collective: Collective) -> State:
    """The state before the first step, the same on all ranks but for their generators."""
    seed_everything(training.seed + collective.world.rank)  # dropout differs between ranks, not between runs
    module = parameters.in_training(training.module.to(collective.device), training.frozen)
    parameters.freeze(module, training.frozen)
    if training.recipe.sync_batch_norm:
        module = batch_norm.synchronised(module, collective)
    for tensor in module.state_dict().values():
        collective.broadcast(tensor)
    optimizer = training.optimizer(parameters.grouped(module, training.groups))
    scaler = torch.amp.GradScaler(collective.device.type, enabled=training.recipe.precision == "float16")
    updates = updates_per_epoch(training, reader)
    scheduler = training.schedule.start(optimizer, collective.world.size, updates, training.epochs)
    return State(module, optimizer, scaler, scheduler)


def updates_per_epoch(training: Training, reader: Reader) -> int:
    """Updates of the weights in an epoch."""
    return -(-reader.steps_per_epoch // training.recipe.accumulation)


def _take_up(
    training: Training, state: State, reader: Reader, collective: Collective, checkpoints: Checkpoints
) -> None:
    """Go on from the newest checkpoint, if there is one."""
    shared = state.shared()
    try:
        tree.dump([shared["optimizer"], shared["scheduler"]])
    except TypeError as error:
        raise TrainingError(
            f"the optimizer or the scheduler has a state that checkpoints cannot hold: {error}; make it of numbers, "
            "texts, tensors, lists and dictionaries, or train without checkpoints: no checkpointDir, maxRetries=0"
        ) from error
    told = lengths(state.scheduler) if state.scheduler is not None else {}
    taken_up = checkpoints.restore(state, collective)
    if taken_up is None:
        return
    factor = training.schedule.factor
    if taken_up.ranks != collective.world.size:
        scale(state.optimizer, factor(collective.world.size) / factor(taken_up.ranks), state.scheduler)
    if told and told != lengths(state.scheduler):
        done = state.epoch
        if training.schedule.interval == "step":
            done = done * updates_per_epoch(training, reader) + state.step // training.recipe.accumulation
        stretch(state.scheduler, told, done)


def _conclude(training: Training, state: State, entry: dict[str, Any], is_chief: bool) -> None:
    """The epoch is over: remember it, keep its weights if they are the best, step the scheduler."""
    monitor = training.monitor
    if monitor and monitor.better(entry[monitor.name], state.best.value if state.best else None):
        state.best = Best(state.epoch, entry[monitor.name], weights_of(state.module) if is_chief else None)
    if state.scheduler is not None and training.schedule.interval == "epoch":
        training.schedule.step(state.scheduler, entry[monitor.name if monitor else "loss"])
    state.history.append(entry)
    state.epoch, state.step, state.running = state.epoch + 1, 0, {}


def _patience_is_over(monitor: Monitor | None, state: State) -> bool:
    if monitor is None or not monitor.patience:
        return False
    return state.epoch - 1 - (state.best.epoch if state.best else -1) >= monitor.patience
