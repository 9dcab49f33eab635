"""What a user's own code may do while a fit runs, on every rank. What only the driver does is in ``loggers``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from sparkdl.train.world import World


@dataclass
class Run:
    """Where a fit is, as this rank sees it. The loop keeps it up to date; a callback reads it, and may ``stop``.

    module: the one that is trained, on this rank's device. optimizer: this rank's. epoch: from 0; a resumed fit begins
    where the one before it ended. step: steps done in this epoch. history: an entry an epoch, its figures those over all
    ranks; in ``on_epoch_end`` the last is this epoch's.
    """

    world: World
    module: nn.Module
    optimizer: torch.optim.Optimizer
    epoch: int = 0
    step: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    stopping: bool = False

    def stop(self) -> None:
        """End the fit, well, after this epoch. It is enough that one rank asks."""
        self.stopping = True


class Callback:
    """Hooks that run on every rank, in the rank's process; override those you need, and give objects to ``callbacks``.

    The object is pickled on the driver, and each rank has its own copy: what one sets on itself the others and the driver
    do not see. ``sparkdl.log_to_driver`` shows a line on the driver. What a hook raises ends the fit as any error of
    that rank does. A hook that calls a collective operation must do so on all ranks.
    """

    def on_fit_start(self, run: Run) -> None:
        """Before the first step; also of a fit that resumes, whose history then has entries already."""

    def on_epoch_start(self, run: Run) -> None:
        """Before the first step of an epoch, or of what is left of one that is resumed."""

    def on_step_end(self, run: Run) -> None:
        """After each step, the weights updated: keep it short."""

    def on_epoch_end(self, run: Run) -> None:
        """After an epoch and its validation; ``run.history[-1]`` is its entry."""

    def on_fit_end(self, run: Run) -> None:
        """After the last epoch, before the best weights are put back; not after an error."""
