"""What a worker process keeps between tasks and micro-batches: one loaded model, by its bundle's digest."""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from sparkdl.bundle import Bundle
from sparkdl.score import engine
from sparkdl.score.predictor import Predictor
from sparkdl.score.scoring import Scoring

if TYPE_CHECKING:
    from sparkdl.score.scorer import Scorer
    from sparkdl.score.transfer import Arrays

logger = logging.getLogger(__name__)
_lock = threading.RLock()  # of what is kept, which a thread of ``residence`` may drop
_kept: tuple[tuple[str, Scoring], Predictor] | None = None


@contextmanager
def predictor(scorer: Scorer) -> Iterator[Predictor | InTurn]:
    """The scorer's model, loaded if it is not the one this process has; for as long as a task lasts.

    On a GPU at most ``models_per_gpu`` processes of this machine keep one there; others wait for their turn.
    """
    scoring = replace(scorer.scoring, device=_device(scorer.scoring.device))
    device = engine.device_of(scoring.device)
    if device.type == "cpu":
        yield _loaded(scorer, scoring)
        return
    from sparkdl.score import residence

    try:
        yield InTurn(scorer, scoring, device)
    finally:
        residence.ended(device)


@dataclass(frozen=True)
class InTurn:
    """A predictor that has its place on a GPU while it predicts, and not while it waits for rows: they may come from
    another process that waits for the place."""

    scorer: Scorer
    scoring: Scoring
    device: torch.device

    def predict(self, inputs: Mapping[str, Any]) -> Arrays:
        """See ``Predictor.predict``; waits for a place, and loads the model unless it is still there."""
        from sparkdl.score import residence

        with residence.held(self.device, self.scoring.models_per_gpu, on_evict=partial(_drop, self.device)):
            return _loaded(self.scorer, self.scoring).predict(inputs)


def _loaded(scorer: Scorer, scoring: Scoring) -> Predictor:
    global _kept
    key = (scorer.digest, scoring)
    with _lock:
        if _kept is None or _kept[0] != key:
            _drop()  # its memory first
            started = time.monotonic()
            bundle = Bundle.from_files(scorer.fetch(), trusted=scorer.trusted)
            _kept = (key, Predictor(bundle, scoring))
            logger.info("loaded the model %.12s in %.2f s", scorer.digest, time.monotonic() - started)
            if _task():
                gc.freeze()  # Spark's daemon collects garbage after every task: of torch that takes longer than a batch
        return _kept[1]


def _drop(device: torch.device | None = None) -> None:
    """Let go of the model, if it is on this device."""
    global _kept
    with _lock:
        if _kept is not None and device in (None, _kept[1].device):
            _kept = None
            gc.unfreeze()
            gc.collect()  # an exported program refers to itself, and would stay beside the next one


def use_cores() -> None:
    """Compute and decode with the cores of the task. Workers that each use all of a machine are in each other's way."""
    context = _task()
    engine.set_threads(context.cpus() if context else 1)


def _device(name: str) -> str:
    """``name``, with the GPU that Spark's resource scheduling gave to the task, if it does that."""
    context = _task()
    given = context.resources().get("gpu") if context and name in ("auto", "cuda") else None
    return f"cuda:{given.addresses[0]}" if given else name


def _task() -> Any:
    from pyspark import TaskContext

    return TaskContext.get()
