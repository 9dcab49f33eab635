"""What a worker process keeps between tasks and micro-batches: loaded models, by their bundle's digest.

One of them, as a rule: the last one used. A stream may say that more of them stay (``keep``), and have the next one
loaded in a thread while the one before it still scores (``tidy``).
"""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
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
    from sparkdl.drift import Counter, Reference
    from sparkdl.score.scorer import Scorer
    from sparkdl.score.transfer import Arrays

Key = tuple[str, Scoring]
logger = logging.getLogger(__name__)
_lock = threading.RLock()  # of what is kept, which a thread of ``residence`` may drop
_kept: dict[Key, Predictor] = {}
_references: dict[str, Reference | None] = {}  # of models that are kept, once they are asked for
_wanted: dict[str, tuple[frozenset[str], float]] = {}  # by stream: digests of models that stay, and when it said so
_tidying: threading.Thread | None = None
FORGET_S = 600.0


@contextmanager
def predictor(scorer: Scorer) -> Iterator[Predictor | InTurn]:
    """The scorer's model, loaded if it is not the one this process has; for as long as a task lasts.

    On a GPU at most ``models_per_gpu`` processes of this machine keep one there; others wait for their turn.
    """
    scoring = _key(scorer)[1]
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

        with residence.held(self.device, self.scoring.models_per_gpu, on_evict=partial(_drop_from, self.device)):
            return _loaded(self.scorer, self.scoring).predict(inputs)


def keep(stream: str, digests: Collection[str]) -> None:
    """From now on the models of these bundles stay when another one is loaded; see ``tidy``. A stream that has not been heard
    of for ``FORGET_S`` wants none."""
    now = time.monotonic()
    _wanted[stream] = frozenset(digests), now
    for other, (_, told) in list(_wanted.items()):
        if now - told > FORGET_S:
            del _wanted[other]


def tidy(ahead: Scorer | None = None) -> None:
    """After a task, in a thread: let the models go that no stream wants, and load this one, unless it is here or would run
    elsewhere than on the CPU. Both hold up who computes beside them."""
    global _tidying
    if _tidying is not None and _tidying.is_alive():
        return
    with _lock:
        is_new = ahead is not None and _key(ahead) not in _kept
        if is_new or not all(_is_wanted(digest) for digest, _ in _kept):
            _tidying = threading.Thread(target=_tidy, args=(ahead,), name="sparkdl-tidy", daemon=True)
            _tidying.start()


def _tidy(ahead: Scorer | None) -> None:
    _drop(lambda key, _: not _is_wanted(key[0]))
    if ahead is None or _key(ahead) in _kept or engine.device_of(_key(ahead)[1].device).type != "cpu":
        return
    try:
        predictor = _made(ahead, _key(ahead))
    except Exception:  # whatever loading raises, the first task that needs it will raise again
        logger.warning("the model %.12s could not be loaded ahead", ahead.digest, exc_info=True)
        return
    with _lock:
        if _is_wanted(ahead.digest):
            _kept.setdefault(_key(ahead), predictor)
            _freeze()


def _is_wanted(digest: str) -> bool:
    return any(digest in digests for digests, _ in list(_wanted.values()))


def loaded() -> list[str]:
    """Digests of the bundles whose models are here."""
    with _lock:
        return sorted({digest for digest, _ in _kept})


def counter(scorer: Scorer) -> Counter | None:
    """A new counter for the drift of the scorer's model; None if its bundle has no reference that can be understood, or
    its model is not here."""
    from sparkdl.drift import Reference

    with _lock:
        made = next((made for key, made in _kept.items() if key[0] == scorer.digest), None)
        if made is None:
            return None
        if scorer.digest not in _references:
            _references[scorer.digest] = Reference.understood(made.reference)
        found = _references[scorer.digest]
    return found.counter(scorer.signature) if found else None


def _key(scorer: Scorer) -> Key:
    return scorer.digest, replace(scorer.scoring, device=_device(scorer.scoring.device))


def _loaded(scorer: Scorer, scoring: Scoring) -> Predictor:
    key = (scorer.digest, scoring)
    with _lock:
        if key not in _kept:
            _drop(lambda other, _: not _is_wanted(other[0]))  # its memory first
            _kept[key] = _made(scorer, key)
            _freeze()
        return _kept[key]


def _made(scorer: Scorer, key: Key) -> Predictor:
    started = time.monotonic()
    predictor = Predictor(Bundle.from_files(scorer.fetch(), trusted=scorer.trusted), key[1])
    logger.info("loaded the model %.12s in %.2f s", scorer.digest, time.monotonic() - started)
    return predictor


def _freeze() -> None:
    """Spark's daemon collects garbage after every task: of torch's objects that takes longer than a batch."""
    if _task():
        gc.freeze()


def _drop(is_done_with: Callable[[Key, Predictor], bool]) -> None:
    """Let go of these models."""
    with _lock:
        done = [key for key, predictor in _kept.items() if is_done_with(key, predictor)]
        for key in done:
            del _kept[key]
            _references.pop(key[0], None)
        if done:
            gc.unfreeze()
            gc.collect()  # an exported program refers to itself, and would stay beside the next one
            if _kept:
                _freeze()


def _drop_from(device: torch.device) -> None:
    _drop(lambda _, predictor: predictor.device == device)


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
