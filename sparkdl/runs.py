"""The runs in a checkpointDir: one folder a fit, with its training data while it is not finished, and its checkpoints.

::

    checkpointDir/
      run-20261121T030000-4f1c22ab/
        owner.json        the process that works on it, while it does
        data/             what the DataFrame was materialised to; gone when the run is finished
        checkpoints/      see train/checkpoint.py
        finished          there when it is
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import re
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from sparkdl import store
from sparkdl.data import lease
from sparkdl.data.manifest import MANIFEST, Dataset
from sparkdl.errors import CheckpointError, StoreError
from sparkdl.source import Frame, PetastormDataset, Stored
from sparkdl.train import checkpoint
from sparkdl.train.checkpoint import Saved

_RUN = re.compile(r"run-\d{8}T\d{6}-[0-9a-f]{8}")
_FINISHED = "finished"
logger = logging.getLogger(__name__)


@contextlib.contextmanager
def run_in(place: str, *, resume: bool) -> Iterator[str]:
    """The folder of this fit's run under ``place``: a new one, or with ``resume`` the newest that has a checkpoint.

    When the block ends well, the run's data and the finished runs before it are removed; when it does not, everything
    stays, for ``resume``.
    Raises CheckpointError if there is nothing to resume, or if another process works on it.
    """
    run = _newest(place) if resume else store.join(place, _new_name())
    with _held(run):
        lease.claim(run)
        yield run
    try:  # the fit is done: what cannot be cleared away must not cost it
        store.write_bytes(store.join(run, _FINISHED), b"")
        lease.release(run)
        for name in ("data", "weights.safetensors"):
            store.delete(store.join(run, name))
        _remove_older(place, run)
    except OSError as error:
        logger.warning("the run %s is finished, and could not be cleared: %s", run, error)


_holding: set[str] = set()  # the runs that threads of this process work on


@contextlib.contextmanager
def _held(run: str) -> Iterator[None]:
    _holding.add(run)
    try:
        yield
    finally:
        _holding.discard(run)


def _new_name() -> str:
    now = datetime.datetime.now(datetime.timezone.utc)
    return f"run-{now:%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"


def _newest(place: str) -> str:
    for name in sorted(filter(_RUN.fullmatch, store.names(place)), reverse=True):
        run = store.join(place, name)
        if newest(run) is None:
            continue
        if run in _holding or lease.is_held(run):
            raise CheckpointError(
                f"another fit on this host works on {run}; let it end, or stop it, before resuming",
                uri=run,
                what="owner",
            )
        return run
    raise CheckpointError(
        f"there is nothing to resume: no finished checkpoint in {place!r}; fit without resume, or give the checkpointDir "
        "of the run that was interrupted",
        uri=place,
        what=None,
    )


def unfinished(place: str) -> str | None:
    """The newest run in a checkpointDir that was interrupted and has a checkpoint to go on from, or None."""
    for name in sorted(filter(_RUN.fullmatch, store.names(place)), reverse=True):
        run = store.join(place, name)
        if newest(run) is not None:
            return None if store.exists(store.join(run, _FINISHED)) else run
    return None


def _remove_older(place: str, run: str) -> None:
    """Runs before this one: finished ones, and those that nobody has touched for a week."""
    for name in filter(_RUN.fullmatch, store.names(place)):
        other = store.join(place, name)
        if other < run and (store.exists(store.join(other, _FINISHED)) or lease.is_forgotten(other)):
            store.delete(other)


def newest(run: str) -> Saved | None:
    """The run's newest checkpoint, by its manifest."""
    return next(checkpoint.saved(store.join(run, "checkpoints")), None)


def check(run: str, identity: Mapping[str, Any], ranks: int, fewest: int, epochs: int) -> None:
    """Raise CheckpointError unless the run can be taken up by a fit of this identity, but for its data, with ``ranks``
    ranks, where ``fewest`` would do, and has epochs left."""
    found = newest(run)
    if found is None:
        raise CheckpointError(f"there is nothing to resume in {run}", uri=run, what=None)
    checkpoint.check_identity({key: value for key, value in found.identity.items() if key != "data"}, identity, run)
    if found.ranks != ranks and not (fewest and ranks >= fewest):
        raise CheckpointError(
            f"the checkpoints at {run} are of {found.ranks} ranks, and numProc is {ranks}; set it to {found.ranks}, or "
            f"minProc to go on with another number from the end of an epoch",
            uri=run,
            what="numProc",
            expected=found.ranks,
            got=ranks,
        )
    if found.epoch >= epochs and store.exists(store.join(run, _FINISHED)):
        raise CheckpointError(
            f"there is nothing to resume in {run}: its {found.epoch} epochs are done; set epochs higher to train on",
            uri=run,
            what="epochs",
            expected=f"more than {found.epoch}",
            got=epochs,
        )


def same_data(run: str, source: Frame | Stored, classes: int | None) -> Dataset | PetastormDataset:
    """The data of the run that is taken up, which must be that of ``source``: what is still there of it, or written anew
    after the run was finished, which it no longer is. Raises CheckpointError if it is other data."""
    uri, found = store.join(run, "data"), newest(run)
    is_there = store.exists(store.join(uri, MANIFEST))
    try:
        data = source.dataset(uri, classes=classes, digest=True)
        if found is not None:
            checkpoint.check_identity({"data": found.identity["data"]}, {"data": identity_of(data)}, run)
    except StoreError as error:
        raise CheckpointError(f"the run at {run} is of other data: {error}", uri=run, what="data") from error
    except CheckpointError:
        if not is_there:
            store.delete(uri)
        raise
    store.delete(store.join(run, _FINISHED))
    return data


def identity_of(data: Dataset | PetastormDataset) -> dict[str, Any]:
    """What tells training data from other data."""
    return {"rows": data.rows, "content": getattr(data, "digest", None)}
