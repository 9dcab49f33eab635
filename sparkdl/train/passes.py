"""The two passes of an epoch over the data: one that trains, one that validates; and the figures they give."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from sparkdl.data.batch import Reader
from sparkdl.train import parameters
from sparkdl.train.callbacks import Run
from sparkdl.train.clock import Clock
from sparkdl.train.collective import Collective
from sparkdl.train.figures import Accuracy, LossWatch
from sparkdl.train.metrics import Metrics
from sparkdl.train.state import State
from sparkdl.train.step import Forward, Stepper

if TYPE_CHECKING:
    from sparkdl.train.loop import Training


class Passes:
    """A rank's passes. Metrics are measured on the validation rows if there are some, else on the training rows."""

    def __init__(
        self,
        training: Training,
        state: State,
        collective: Collective,
        clock: Clock,
        reader: Reader,
        validation: Reader | None,
    ) -> None:
        self.training, self.state, self.collective, self.clock = training, state, collective, clock
        self.reader, self.validation = reader, validation
        self.forward = Forward(state.module, training.loss, training.task, training.recipe, collective.device)
        self.accuracy = Accuracy(training.task, collective)
        self.metrics = Metrics(training.metrics, training.task, collective) if training.metrics else None
        watchers = [self.accuracy] if validation or not self.metrics else [self.accuracy, self.metrics]
        self.stepper = Stepper(state, self.forward, training.recipe, collective, clock, watchers)

    def train(self, run: Run, save: Callable[[], None], progress: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """Take the epoch's updates from ``state.step`` on, ``save`` between them; its history entry."""
        state, reader = self.state, self.reader
        self._take_up(state.running)
        batches = reader.epoch(state.epoch, state.step)
        accumulation = self.training.recipe.accumulation
        per_update = self.training.schedule.interval == "step" and state.scheduler is not None
        rate = state.optimizer.param_groups[0]["lr"]
        while state.step < reader.steps_per_epoch:
            stop = min(state.step + accumulation, reader.steps_per_epoch)
            rows = [sum(reader.rows_in_step(step)) for step in range(state.step, stop)]
            self.watch.add(*self.stepper.update(batches, rows))
            rate = state.optimizer.param_groups[0]["lr"]
            self.stepper.apply()
            if per_update:
                state.scheduler.step()
            self.rows += sum(rows)
            state.step = run.step = stop
            for callback in self.training.callbacks:
                callback.on_step_end(run)
            if self.collective.world.is_chief:
                told = {"epoch": state.epoch, "step": stop, "loss": self.watch.latest, "rows": self.rows}
                progress({"event": "step", **told})
            if stop < reader.steps_per_epoch:
                save()
        seconds = time.monotonic() - self.started
        figures = {"epoch": state.epoch, "loss": self.watch.mean(), **self.accuracy.over_ranks()}
        if self.metrics and not self.validation:
            figures |= self.metrics.over_ranks()
        return {**figures, "lr": float(rate), "rows": self.rows, "seconds": seconds}

    def running(self) -> dict[str, Any]:
        """This rank's figures of an epoch that is not over; nothing between epochs."""
        if not self.state.step:
            return {}
        return {
            "loss": self.watch.state(),
            "accuracy": self.accuracy.counts,
            "metrics": self.metrics.state() if self.metrics else None,
            "seconds": time.monotonic() - self.started,
            "rows": self.rows,
        }

    def _take_up(self, running: dict[str, Any]) -> None:
        """Begin the epoch, or go on with the figures of a checkpoint within it."""
        self.watch = LossWatch(self.state.epoch, self.collective.device, self.training.recipe.accumulation)
        self.started, self.rows = time.monotonic(), 0
        if running:
            self.watch.take_up(running["loss"])
            self.accuracy.counts.copy_(running["accuracy"])
            if self.metrics and running["metrics"]:
                self.metrics.load_state(running["metrics"])
            self.started, self.rows = self.started - running["seconds"], running["rows"]

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """``val_loss`` and the other figures over all validation rows of all ranks; nothing if there are none."""
        if self.validation is None:
            return {}
        device = self.collective.device
        sums = torch.zeros(2, dtype=torch.float64, device=device)  # of the losses, and of what they weigh
        accuracy = Accuracy(self.training.task, self.collective)
        module = self.state.module.eval()
        for batch in self.validation.scan():
            self.clock("validation")  # each batch is a sign of life
            outputs, label, loss, weight = self.forward(batch)
            if weight is None:
                loss, weight = loss * batch.rows, torch.full((), batch.rows, device=device)
            sums += torch.stack([loss.double(), weight.double()])
            accuracy.add(outputs, label)
            if self.metrics:
                self.metrics.add(outputs, label)
        parameters.in_training(module, self.training.frozen)
        self.collective.allreduce(sums)
        figures = {"loss": float(sums[0] / sums[1]), **accuracy.over_ranks()}
        if self.metrics:
            figures |= self.metrics.over_ranks()
        self.clock("compute")
        return {f"val_{name}": value for name, value in figures.items()}
