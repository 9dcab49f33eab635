"""What training is at a moment: all that a checkpoint must hold so that going on gives the same weights."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Tree = dict[str, Any]


@dataclass
class Best:
    """The epoch with the best monitored value so far; rank 0 alone holds its weights, and knows the file they are in
    (name and sha256) once a checkpoint has them."""

    epoch: int
    value: float
    weights: dict[str, Tensor] | None = None
    file: tuple[str, str] | None = None


@dataclass
class State:
    """epoch and step: the next to be taken, from 0; a step is one batch on each rank. updates: of the weights, so far.
    running: this rank's figures of an epoch that is not over. attempt: see Checkpoints."""

    module: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    scheduler: Any = None
    epoch: int = 0
    step: int = 0
    updates: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    best: Best | None = None
    stopped: bool = False
    running: Tree = field(default_factory=dict)
    attempt: str = ""

    def shared(self) -> Tree:
        """What is the same on all ranks."""
        return {
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": _schedule(self.scheduler),
            "scaler": self.scaler.state_dict(),
            "epoch": self.epoch,
            "step": self.step,
            "updates": self.updates,
            "history": self.history,
            "stopped": self.stopped,
            "best": [self.best.epoch, self.best.value] if self.best else None,
        }

    def own(self) -> Tree:
        """What is this rank's own."""
        buffers = dict(self.module.named_buffers())
        if not self.step:  # between epochs ranks have agreed on them, and the module's state has all but some
            kept = self.module.state_dict()
            buffers = {name: value for name, value in buffers.items() if name not in kept}
        return {"random": random_state(self.module), "buffers": buffers, "running": self.running}

    def take_up(self, shared: Tree, own: Tree | None) -> None:
        """Become what was saved. own: None if it is not this rank's: there are more or fewer ranks than there were."""
        self.module.load_state_dict(shared["module"])
        self.optimizer.load_state_dict(shared["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(shared["scheduler"])
        self.scaler.load_state_dict(shared["scaler"])
        self.epoch, self.step, self.updates = shared["epoch"], shared["step"], shared["updates"]
        self.history, self.stopped = shared["history"], shared["stopped"]
        self.best = Best(*shared["best"]) if shared["best"] else None
        if own is not None:
            set_random_state(self.module, own["random"])
            with torch.no_grad():
                for name, buffer in self.module.named_buffers():
                    if name in own["buffers"]:
                        buffer.copy_(own["buffers"][name])
            self.running = own["running"]


def _schedule(scheduler: Any) -> Tree | None:
    """A scheduler's state without the functions that some keep in it, which are made anew with it."""
    if scheduler is None:
        return None
    return {key: value for key, value in scheduler.state_dict().items() if not callable(value)}


def seed_everything(seed: int) -> None:
    """Seed what a module may draw from: torch, numpy and Python's own generator."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def random_state(module: nn.Module) -> Tree:
    """The states of those generators, and of the module's GPU."""
    kind, keys, position, has_gauss, gauss = np.random.get_state()
    python = random.getstate()
    state = {
        "torch": torch.get_rng_state(),
        "numpy": [kind, keys, position, has_gauss, gauss],
        "python": [python[0], list(python[1]), python[2]],
    }
    if (device := _device(module)).type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(module: nn.Module, state: Tree) -> None:
    """Go back to what ``random_state`` gave."""
    torch.set_rng_state(state["torch"])
    np.random.set_state(tuple(state["numpy"]))
    version, keys, gauss = state["python"]
    random.setstate((version, tuple(keys), gauss))
    if "cuda" in state and (device := _device(module)).type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)


def _device(module: nn.Module) -> torch.device:
    return next((parameter.device for parameter in module.parameters()), torch.device("cpu"))


def is_finite(module: nn.Module) -> bool:
    """False if a parameter holds a NaN or an infinite number: nothing to go on from."""
    return all(bool(parameter.isfinite().all()) for parameter in module.parameters())


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """A copy of the module's state on the CPU."""
    return {name: value.detach().to("cpu", copy=True) for name, value in module.state_dict().items()}
