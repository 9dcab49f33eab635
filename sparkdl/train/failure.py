"""What a rank says when its function raised, which of several said it first, and what Spark says of ranks that died."""

from __future__ import annotations

import pickle
import re
import time
import traceback
from collections.abc import Iterable
from dataclasses import dataclass

import cloudpickle

from sparkdl.errors import RankFailedError, SparkdlError

_BROKEN_COLLECTIVE = ("HorovodInternalError", "DistBackendError", "DistNetworkError", "DistStoreError")
_BROKEN_GLOO = ("connect", "timed out", "timeout", "closed")


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
            echo=self.echo,
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


class PeerFailedError(RuntimeError):
    """Another rank cannot begin, so this one does not either."""


def is_echo(error: BaseException) -> bool:
    """True if a collective broke under this rank, as it does when another rank fails."""
    if isinstance(error, PeerFailedError) or type(error).__name__ in _BROKEN_COLLECTIVE:
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and "gloo" in text and any(word in text for word in _BROKEN_GLOO)


@dataclass(frozen=True)
class Loss:
    """Why Spark gave up a barrier stage. ``task``: the barrier task that died first, if Spark says so."""

    task: int | None
    reason: str


def loss_in(text: str) -> Loss | None:
    """What Spark's error says of a rank that died; None if it tells of none, or of one that raised an error.

    What is asked is whether the same job may well succeed the next time: yes if a process or a machine died, no if
    Python code raised or somebody cancelled the job.
    """
    aborted = re.search(r"Job aborted due to stage failure: (.+)", text, re.DOTALL)
    if not aborted or "PythonException" in aborted[1] or re.search(r"\bcancelled\b", aborted[1]):
        return None
    task = re.search(r"barrier task ResultTask\(\d+, (\d+)\)", aborted[1])
    return Loss(int(task[1]) if task else None, _reason(aborted[1]))


def _reason(text: str) -> str:
    lost = re.search(r"ExecutorLostFailure \(executor (\S+) .*?\)\s*(?:Reason: (.+))?", text)
    if lost:
        return f"executor {lost[1]} is lost: {(lost[2] or 'Spark does not say why').strip()}"
    if "Python worker exited unexpectedly" in text:
        return "its Python worker process exited unexpectedly (killed, out of memory, or crashed)"
    lines = [line.strip() for line in text.split("finished unsuccessfully.")[-1].splitlines() if line.strip()]
    return lines[0] if lines else "Spark does not say why"
