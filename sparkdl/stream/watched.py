"""What every query that ``score_stream`` gives has in common: a thread that watches it, an end, and what it failed of."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

from sparkdl.errors import SparkdlError

if TYPE_CHECKING:
    from sparkdl.stream.status import StreamStatus


class WatchedQuery(ABC):
    """Base of ScoreQuery and RealtimeQuery. Whoever watches sets ``_error``, if there is one, and ``_ended`` at the end."""

    def __init__(self) -> None:
        self._error: SparkdlError | None = None
        self._ended = threading.Event()
        self._relaunching = threading.Lock()

    def _watched_by(self, watch: Callable[[], None], thread: str) -> None:
        threading.Thread(target=watch, name=thread, daemon=True).start()

    def __repr__(self) -> str:
        return str(self.status())

    def _repr_html_(self) -> str:
        return self.status()._repr_html_()

    @property
    def isActive(self) -> bool:
        """True until it is stopped or fails."""
        return not self._ended.is_set()

    @abstractmethod
    def status(self) -> StreamStatus:
        """How it does."""

    def exception(self) -> SparkdlError | None:
        """What it failed of, or None."""
        return self._error

    def awaitTermination(self, timeout: float | None = None) -> bool:
        """Wait until it has ended, or for so many seconds; True if it has. Raises what it failed of."""
        ended = self._ended.wait(timeout)
        if ended and self._error is not None:
            raise self._error
        return ended
