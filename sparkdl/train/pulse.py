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

BEGIN = "begin"  # the phase of a rank that has not met the others yet
START = "start"  # the phase of a rank that has marked none yet
WAITING = "all_reduce"  # the phase of a rank that waits for the others
_EVERY_S = 1.0
_REFUSALS = 3
_LONGEST_TICK_S = 5.0
ORPHANED = 70  # the exit status of a rank that ended itself
logger = logging.getLogger(__name__)


class _Place:
    __slots__ = ("host", "marks", "phase", "rank")

    def __init__(self) -> None:
        self.rank = 0
        self.host = ""
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
    _here.rank, _here.host, _here.phase, _here.marks = rank, host, START, 0
    done = threading.Event()

    def send(**more: bool) -> None:
        content = {name: getattr(_here, name) for name in _Place.__slots__}
        messages.beat(task=task, **content, **more)

    def beat() -> None:
        refused = 0
        while True:
            if os.getppid() != parent:
                _end("its parent process is gone")
            try:
                send()
                refused = 0
            except ConnectionRefusedError:
                refused += 1
                if refused >= _REFUSALS:
                    _end("the driver no longer listens")
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
            send(done=True)


def _end(why: str) -> None:
    logger.error("rank %s ends itself: %s", _here.rank, why)
    os._exit(ORPHANED)  # at once: other threads may be in a collective that never returns


@dataclass
class _Rank:
    """What the driver knows of a rank, in seconds of the watch's own clock."""

    number: int
    host: str
    phase: str
    marks: int
    heard: float
    moved: float
    done: bool


class Watch:
    """The driver's watch over the pulses of ``size`` ranks: who of them holds up the others.

    A rank is stalled if for ``stall_timeout`` seconds its pulse has ceased, or it has not moved while it does not wait
    for others, or it has not begun while others have. As long as none has marked a phase of its own, as in functions that
    know of no marks, ranks are judged by their pulse alone. If all wait for each other, the one furthest behind is named.
    """

    def __init__(self, size: int, stall_timeout: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.size, self.stall_timeout = size, stall_timeout
        self._clock, self._last, self._now = clock, clock(), 0.0
        self._ranks: dict[int, _Rank] = {}  # by barrier task
        self._first_heard = 0.0
        self._is_marked = False
        self._lock = threading.Lock()

    def hear(self, pulse: Message) -> None:
        """Take a pulse; from any thread."""
        with self._lock:
            known = self._ranks.get(pulse["task"])
            if not self._ranks:
                self._first_heard = self._now
            self._is_marked = self._is_marked or pulse["phase"] not in (BEGIN, START, WAITING)
            is_same = known is not None and known.marks == pulse["marks"]
            self._ranks[pulse["task"]] = _Rank(
                pulse["rank"], pulse["host"], pulse["phase"], pulse["marks"], heard=self._now,
                moved=known.moved if known and is_same else self._now, done=pulse.get("done", False),
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
            return _named(task, self._ranks[task]) if task in self._ranks else None

    def _stalled(self) -> StalledRankError | None:
        running = {task: rank for task, rank in self._ranks.items() if not rank.done}
        found = []
        for task, rank in running.items():
            silent, still = self._now - rank.heard, self._now - rank.moved
            if silent >= self.stall_timeout:
                found.append((silent, task, "sent no sign of life"))
            elif still >= self.stall_timeout and rank.phase != WAITING and (self._is_marked or rank.phase == BEGIN):
                found.append((still, task, "has not moved"))
        if found:
            seconds, task, what = max(found)
            return self._error(task, seconds, what)
        waited = self._now - self._first_heard
        absent = [task for task in range(self.size) if task not in self._ranks]
        if self._ranks and absent and waited >= self.stall_timeout:
            return self._error(absent[0], waited, "has not begun")
        still = self._now - max((rank.moved for rank in running.values()), default=self._now)
        all_wait = len(running) == self.size and all(rank.phase == WAITING for rank in running.values())
        if not all_wait or still < self.stall_timeout:
            return None
        behind = min(running, key=lambda task: (running[task].marks, running[task].number))
        return self._error(behind, still, "is furthest behind of all, which wait for each other")

    def _error(self, task: int, seconds: float, what: str) -> StalledRankError:
        rank = self._ranks.get(task)
        who = _named(task, rank)
        phase = rank.phase if rank else BEGIN
        return StalledRankError(
            f"{who} {what} for {seconds:.0f} s in phase {phase!r}; the limit is {self.stall_timeout:g} s. Look at that "
            "host (disk, memory, network) and at what this rank does there",
            rank=rank.number if rank else None,
            host=rank.host if rank else "",
            seconds=seconds,
            phase=phase,
            reason=f"{who} stalled in phase {phase!r}",
        )


def _named(task: int, rank: _Rank | None) -> str:
    return f"rank {rank.number} on {rank.host}" if rank else f"the rank of barrier task {task}"
