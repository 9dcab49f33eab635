"""Work that must neither hold up a stream nor break it: one thread, a bounded queue, errors to the log now and then."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable

logger = logging.getLogger(__name__)
QUIET_S = 60.0  # between two lines of the log about the same trouble


class Background:
    """Does what it is given, in order, in a thread of its own. A step that raises is logged, at most once a minute,
    and counted; where more than ``most`` steps wait, further ones are dropped, and counted.

    name: of the thread. idle: done by the thread about every ``every`` seconds, whether or not there are steps.
    """

    def __init__(
        self, name: str, *, most: int = 1000, idle: Callable[[], None] | None = None, every: float = 1.0
    ) -> None:
        self.dropped = self.failed = 0
        self._name, self._idle, self._every = name, idle, every
        self._steps: queue.Queue[Callable[[], None] | None] = queue.Queue(most)
        self._said = -QUIET_S
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def do(self, step: Callable[[], None]) -> None:
        """Returns at once."""
        try:
            self._steps.put_nowait(step)
        except queue.Full:
            self.dropped += 1
            self._say("%s is behind: %d steps are left out", self._name, self.dropped)

    def close(self, timeout: float = 5.0) -> bool:
        """Do what waits, for so many seconds at most, and end; False if that was not enough."""
        deadline = time.monotonic() + timeout
        try:
            self._steps.put(None, timeout=timeout)
        except queue.Full:
            return False
        self._thread.join(max(0.0, deadline - time.monotonic()))
        return not self._thread.is_alive()

    def _work(self) -> None:
        looked = time.monotonic()
        while True:
            try:
                step = self._steps.get(timeout=self._every)
            except queue.Empty:
                step = _nothing
            if step is None:
                return
            self._try(step)
            if self._idle is not None and time.monotonic() - looked >= self._every:
                looked = time.monotonic()
                self._try(self._idle)

    def _try(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:  # a full disk, a server that is down: the stream goes on without
            self.failed += 1
            self._say("%s: %s: %s (%d so far)", self._name, type(error).__name__, error, self.failed)

    def _say(self, text: str, *told: object) -> None:
        if time.monotonic() - self._said >= QUIET_S:
            self._said = time.monotonic()
            logger.warning(text, *told)


def _nothing() -> None:
    """No step."""
