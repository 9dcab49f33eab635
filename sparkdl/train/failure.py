"""What a rank says when its function raised, and which of several said it first."""

from __future__ import annotations

import pickle
import time
import traceback
from collections.abc import Iterable
from dataclasses import dataclass

import cloudpickle

from sparkdl.errors import RankFailedError, SparkdlError

_BROKEN_COLLECTIVE = ("HorovodInternalError", "DistBackendError", "DistNetworkError")


@dataclass(frozen=True)
class Failure:
    """A rank's failure. ``echo``: it failed only because another rank did, and a collective broke."""

    rank: int
    host: str
    at: float
    echo: bool
    traceback: str
    error: bytes | None

    @classmethod
    def of(cls, error: BaseException, rank: int, host: str) -> Failure:
        """The failure of this rank, now, by ``error``; call it where the error was caught."""
        return cls(
            rank,
            host,
            at=time.time(),
            echo=is_echo(error),
            traceback="".join(traceback.format_exception(error)),
            error=_packed(error) if isinstance(error, SparkdlError) else None,
        )

    def exception(self) -> SparkdlError:
        """What the driver raises: the rank's own error if it is one of ours, else RankFailedError."""
        failed = RankFailedError(
            f"rank {self.rank} on {self.host} failed:\n{self.traceback}",
            rank=self.rank,
            host=self.host,
            traceback=self.traceback,
        )
        if self.error is None:
            return failed
        error: SparkdlError = pickle.loads(self.error)
        error.__cause__ = failed
        return error


def _packed(error: SparkdlError) -> bytes | None:
    """The error by cloudpickle, its class too if that is a notebook's own; None if it holds what cannot be pickled."""
    try:
        return bytes(cloudpickle.dumps(error))
    except Exception:  # pickling runs the fields' own code; the traceback still tells what happened
        return None


def first(failures: Iterable[Failure]) -> Failure | None:
    """The failure that caused the others."""
    return min(failures, key=lambda failure: (failure.echo, failure.at, failure.rank), default=None)


def is_echo(error: BaseException) -> bool:
    """True if a collective broke under this rank, as it does when another rank fails."""
    if type(error).__name__ in _BROKEN_COLLECTIVE:
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and "gloo" in text and "connection" in text
