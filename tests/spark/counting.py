"""A training that can be disturbed: its ranks add numbers, and rank 0 writes down how far they are."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import torch

from sparkdl.train import messages
from sparkdl.train.pulse import mark

STEPS = 12


def counting(folder: str, disturb: Callable[[int, int], None] = lambda rank, step: None, at: str = "data") -> Any:
    """A main function that returns the sum over ranks and steps; ``disturb(rank, step)`` is called in phase ``at``."""

    def main(collective):
        rank, path = collective.world.rank, os.path.join(folder, "checkpoint")
        step, total = 0, 0.0
        if os.path.exists(path):
            with open(path) as file:
                step, total = json.load(file)
        messages.send("begins", rank=rank, step=step)
        while step < STEPS:
            for phase in ("data", "compute"):
                mark(phase)
                if phase == at:
                    disturb(rank, step)
            added = torch.tensor([(step + 1.0) * (rank + 1)])
            collective.allreduce(added)
            step, total = step + 1, total + added.item()
            if rank == 0:
                with open(path + ".part", "w") as file:
                    json.dump([step, total], file)
                os.replace(path + ".part", path)
        return total

    return main


def undisturbed(ranks: int = 2) -> float:
    return sum((step + 1.0) * (rank + 1) for step in range(STEPS) for rank in range(ranks))


def once(folder: str, name: str) -> bool:
    """True for the first process that asks."""
    try:
        os.close(os.open(os.path.join(folder, name), os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def kill(process: int | None = None) -> None:
    """kill -9, this process by default."""
    os.kill(process or os.getpid(), signal.SIGKILL)


def stop() -> None:
    """This process gets no more time: as one whose machine hangs."""
    os.kill(os.getpid(), signal.SIGSTOP)


def sleep() -> None:
    """This process does not go on, but lives."""
    threading.Event().wait()
