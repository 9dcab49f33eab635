"""A rank's pulse: where it is and whether it moves, told to the driver, and the driver's watch over all ranks.

The loop calls ``mark`` several times a step. A thread of the rank tells the driver of it about once a second, and ends
the process when nobody is left to work for: a rank must not outlive its executor or its driver.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sparkdl.errors import StalledRankError
from sparkdl.train import messages
from sparkdl.train.messages import Message

START = "start"  # the phase of a rank that has marked none yet
WAITING = "all_reduce"  # the phase of a rank that waits for the others
_EVERY_S = 1.0
_REFUSALS = 3
_LONGEST_TICK_S = 5.0
ORPHANED = 70  # the exit status of a rank that ended itself
logger = logging.getLogger(__name__)


class _Place:
    __slots__ = ("marks", "phase")

    def __init__(self) -> None:
        self.phase = START
        self.marks = 0


_here = _Place()


def mark(phase: str) -> None:
    """This rank begins ``phase``: ``data``, ``compute``, ``all_reduce`` (it waits for others), ``validation``, …

    Takes well below a microsecond, and does the same anywhere: outside a rank nobody looks.
    """
    _here.phase = phase
    _here.marks += 1


@contextlib.contextmanager
def waiting() -> Iterator[None]:
    """This rank waits for the others until the block ends; then it is back in the phase it was in."""
    before = _here.phase
    mark(WAITING)
    try:
        yield
    finally:
        mark(before)


@contextlib.contextmanager
def beating(
    rank: int, host: str, *, task: int = 0, parent: int | None = None, every: float = _EVERY_S
) -> Iterator[None]:
    """Send this rank's pulse until the block ends, and end this process when nobody is left to work for.

    That is: its ``parent`` (process id; the present parent by default) is gone, as it is when its executor died; or the
    driver, which it could reach before, refuses connections, as when it died or has given this launch up.
    task: the number of the barrier task, by which Spark names it. every: seconds between two beats.
    """
    parent = os.getppid() if parent is None else parent
    _here.phase, _here.marks = START, 0
    done = threading.Event()

    def beat() -> None:
        refused = 0
        while True:
            if os.getppid() != parent:
                _end(rank, "its parent process is gone")
            try:
                messages.beat(rank=rank, host=host, task=task, phase=_here.phase, marks=_here.marks)
                refused = 0
            except ConnectionRefusedError:
                refused += 1
                if refused >= _REFUSALS:
                    _end(rank, "the driver no longer listens")
            if done.wait(every):
                return

    thread = threading.Thread(target=beat, name="sparkdl-pulse", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        with contextlib.suppress(ConnectionRefusedError):
            messages.beat(rank=rank, host=host, task=task, phase=_here.phase, marks=_here.marks, done=True)


def _end(rank: int, why: str) -> None:
    logger.error("rank %d ends itself: %s", rank, why)
    os._exit(ORPHANED)  # at once: other threads may be in a collective that never returns


@dataclass
class _Rank:
    """What the driver knows of a rank, in seconds of the watch's own clock."""

    host: str
    task: int
    phase: str
    marks: int
    heard: float
    moved: float
    done: bool


class Watch:
    """The driver's watch over the pulses of ``size`` ranks: who of them holds up the others.

    A rank is stalled if for ``stall_timeout`` seconds its pulse has ceased, or it has not moved while it does not wait
    for others. As long as none has marked a phase of its own, as in functions that know of no marks, ranks are judged
    by their pulse alone. One that was never heard is not judged. If all wait for each other, the one furthest behind is
    named.
    """

    def __init__(self, size: int, stall_timeout: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.size, self.stall_timeout = size, stall_timeout
        self._clock, self._last, self._now = clock, clock(), 0.0
        self._ranks: dict[int, _Rank] = {}
        self._is_marked = False
        self._lock = threading.Lock()

    def hear(self, pulse: Message) -> None:
        """Take a pulse; from any thread."""
        with self._lock:
            known = self._ranks.get(pulse["rank"])
            self._is_marked = self._is_marked or pulse["phase"] not in (START, WAITING)
            self._ranks[pulse["rank"]] = _Rank(
                pulse["host"], pulse["task"], pulse["phase"], pulse["marks"], heard=self._now,
                moved=self._now if known is None or known.marks != pulse["marks"] else known.moved, done=pulse.get("done", False),
            )  # fmt: skip

    def check(self) -> None:
        """Call it about once a second. Raises StalledRankError if a rank is stalled."""
        with self._lock:
            now = self._clock()
            # a driver that slept itself (a suspended laptop, a stopped process) heard nobody meanwhile
            self._now += min(now - self._last, _LONGEST_TICK_S)
            self._last = now
            stalled = self._stalled()
        if stalled:
            raise stalled

    def heard_any(self) -> bool:
        """True once a rank has sent a pulse."""
        return bool(self._ranks)

    def who(self, task: int) -> str | None:
        """``rank 1 on 10.0.0.2``: the rank of a barrier task, if it was heard."""
        with self._lock:
            found = next(((number, rank) for number, rank in self._ranks.items() if rank.task == task), None)
        return f"rank {found[0]} on {found[1].host}" if found else None

    def _stalled(self) -> StalledRankError | None:
        running = {number: rank for number, rank in self._ranks.items() if not rank.done}
        found = []
        for number, rank in running.items():
            silent, still = self._now - rank.heard, self._now - rank.moved
            if silent >= self.stall_timeout:
                found.append((silent, -number, f"sent no sign of life for {silent:.0f} s, the last one"))
            elif still >= self.stall_timeout and self._is_marked and rank.phase != WAITING:
                found.append((still, -number, f"has not moved for {still:.0f} s"))
        if not found and len(running) == self.size:
            still = self._now - max(rank.moved for rank in running.values())
            if still >= self.stall_timeout and all(rank.phase == WAITING for rank in running.values()):
                behind = min(running, key=lambda number: (running[number].marks, number))
                found.append((still, -behind, f"has waited for {still:.0f} s as all ranks do, the furthest behind,"))
        if not found:
            return None
        seconds, negative, what = max(found)
        rank = running[-negative]
        return StalledRankError(
            f"rank {-negative} on {rank.host} {what} in phase {rank.phase!r}; the limit is "
            f"{self.stall_timeout:g} s. Look at that host (disk, memory, network) and at what this rank does there",
            rank=-negative,
            host=rank.host,
            seconds=seconds,
            phase=rank.phase,
            reason=f"rank {-negative} on {rank.host} stalled in phase {rank.phase!r}",
        )
