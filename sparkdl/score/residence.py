"""Which processes of a machine keep a model on a GPU: a bounded number, who comes late waits.

A process that has a place keeps it, and its model, when its task ends: the next one finds it loaded. Once it idles and
another process waits, a thread in it drops the model and gives the place up. It does so also in the middle of a task
that has had no rows for a while: that task may wait for one of the same query, which waits for the place. A place is a
lock on a file in the temporary directory, so that a process which is killed gives its own up too. Places are shared by
the processes of one user which have the same temporary directory.
"""

from __future__ import annotations

import gc
import logging
import os
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

POLL_S = 0.05
IDLE_S = 0.1  # tasks that follow each other at once leave no gap for another process: loading a model costs more
PAUSE_S = 5.0  # within a task; a slow source is no reason to load the model anew for every batch
logger = logging.getLogger(__name__)


@contextmanager
def held(device: torch.device, limit: int, *, on_evict: Callable[[], None]) -> Iterator[None]:
    """A place on the device while the model runs; waits until fewer than ``limit`` processes have one.

    on_evict: drops the model from the device, so that nothing refers to it any more; called in another thread, when
    nobody holds the place, and only if another process waits. Within a process, tasks share a place.
    It is kept for PAUSE_S thereafter, as more rows of the task may come, or until it ``ended``.
    """
    name = _name(device)
    place = _entered(name, device, limit, on_evict)
    try:
        yield
    finally:
        with _lock:
            place.holders -= 1
            place.idle_since = time.monotonic()
            place.spare_s = PAUSE_S


def ended(device: torch.device) -> None:
    """A task ended: another process that waits need not wait longer for this one's place."""
    with _lock:
        place = _places.get(_name(device))
        if place is not None:
            place.spare_s = IDLE_S


@dataclass
class _Place:
    """holders: with none, the place may be given up once it has been idle for ``spare_s``."""

    device: torch.device
    descriptor: int  # of the file whose lock this is
    on_evict: Callable[[], None]
    holders: int = 1
    idle_since: float = field(default_factory=time.monotonic)
    spare_s: float = PAUSE_S


_lock = threading.Lock()  # of what this process has
_waiting = threading.Lock()  # one thread of a process waits for a place, and the others for what it gets
_places: dict[str, _Place] = {}


def _entered(name: str, device: torch.device, limit: int, on_evict: Callable[[], None]) -> _Place:
    with _waiting:
        with _lock:
            place = _places.get(name)
            if place is not None:
                place.holders += 1
                place.on_evict = on_evict
                return place
        descriptor = _waited_for(name, limit)
        with _lock:
            place = _places[name] = _Place(device, descriptor, on_evict)
            if len(_places) == 1:
                threading.Thread(target=_give_up_what_others_want, name="sparkdl-residence", daemon=True).start()
        return place


def _waited_for(name: str, limit: int) -> int:
    """The descriptor of the lock of a place, as soon as there is one. Those who wait queue for the lock on ``queue``."""
    descriptor = _free_place(name, limit)
    if descriptor is not None:
        return descriptor
    logger.info("waiting for one of the %d places on %s (modelsPerGpu)", limit, name)
    queue = _opened(name, "queue")
    try:
        _flock(queue, wait=True)
        while (descriptor := _free_place(name, limit)) is None:
            time.sleep(POLL_S)
        return descriptor
    finally:
        os.close(queue)


def _free_place(name: str, limit: int) -> int | None:
    for number in range(limit):
        descriptor = _opened(name, str(number))
        if _flock(descriptor):
            return descriptor
        os.close(descriptor)
    return None


def _give_up_what_others_want() -> None:
    """Runs in a thread for as long as the process has a place."""
    while True:
        time.sleep(POLL_S)
        with _lock:
            for name, place in list(_places.items()):
                idle_s = 0 if place.holders else time.monotonic() - place.idle_since
                if idle_s > place.spare_s and _is_queued_for(name):
                    _give_up(name, place)
            if not _places:
                return


def _give_up(name: str, place: _Place) -> None:
    if place.spare_s == PAUSE_S:
        logger.warning(
            "a task without rows for %g s gives its place on %s to another process, and loads its model again when more "
            "come; if two models of one query wait for each other's rows, say modelsPerGpu=2 or more",
            PAUSE_S,
            name,
        )
    try:
        place.on_evict()
        gc.collect()  # an exported program refers to itself
        if place.device.type == "cuda":
            torch.cuda.empty_cache()
    except Exception:  # a place that nobody uses must not be kept from those who wait, whatever its model does
        logger.exception("the model could not be dropped from %s", name)
    finally:
        del _places[name]
        os.close(place.descriptor)


def _is_queued_for(name: str) -> bool:
    """The first who waits has the queue to itself; those who look share it, and are not taken for one who waits."""
    queue = _opened(name, "queue")
    try:
        return not _flock(queue, shared=True)
    finally:
        os.close(queue)


def _name(device: torch.device) -> str:
    """The same in all processes, whichever number each of them sees a GPU under."""
    told = str(torch.cuda.get_device_properties(device).uuid) if device.type == "cuda" else str(device)
    return re.sub(r"[^A-Za-z0-9-]", "_", told)


def _opened(name: str, what: str) -> int:
    path = os.path.join(tempfile.gettempdir(), f"sparkdl-{os.getuid()}-{name}-{what}.lock")
    return os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _flock(descriptor: int, *, shared: bool = False, wait: bool = False) -> bool:
    """Lock the file; False if another has it locked and this one is not to wait. Closing it unlocks it."""
    import fcntl  # not on Windows, where nothing of this is used

    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True
