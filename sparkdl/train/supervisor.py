"""Launching that outlives its ranks: what was lost with a process or a machine is launched again.

``main`` resumes by itself from its checkpoints; here it is only called again. Whatever a rank raised of its own accord
would be raised again, and is not retried.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sparkdl import session
from sparkdl.errors import NotEnoughSlotsError, RankFailedError, RanksLostError, SparkdlError
from sparkdl.train.launcher import launch
from sparkdl.train.messages import Handler
from sparkdl.train.pulse import Watch

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

logger = logging.getLogger(__name__)


def supervise(
    spark: SparkSession,
    main: Callable[[Any], Any],
    size: int,
    *,
    min_size: int | None = None,
    max_retries: int = 2,
    stall_timeout: float = 600.0,
    backend: str = "auto",
    on_message: Handler | None = None,
) -> tuple[Any, list[dict[str, Any]]]:
    """``launch``, again if ranks were lost; returns rank 0's answer and the attempts.

    The attempts are dicts of ``ranks`` and ``error``: one line, None for the one that succeeded.

    min_size: go on with so many ranks or more if lost executors are not replaced in ``session.REGISTRATION_S`` seconds;
        None: ``size``, no fewer. max_retries: launches after the first.
    stall_timeout: seconds after which a rank that is silent, or does not move while others wait for it, counts as lost.
    on_message: as for ``launch``; also called with ``{"kind": "retry", "attempt", "of", "ranks", "reason"}``.

    Raises what ``launch`` raises; the errors of a lost rank say how many attempts there were. NotEnoughSlotsError if
    fewer than ``min_size`` slots are left.
    """
    attempts: list[dict[str, Any]] = []
    ranks = size
    while True:
        watch = Watch(ranks, stall_timeout)
        try:
            answer = launch(spark, main, ranks, backend=backend, on_message=on_message, watch=watch)
        except SparkdlError as error:
            reason = one_line(error)
            attempts.append({"ranks": ranks, "error": reason})
            shrank = isinstance(error, NotEnoughSlotsError) and len(attempts) > 1  # while it was about to begin again
            if not is_lost(error) and not shrank:
                raise
            if len(attempts) > max_retries:
                raise _with_attempts(error, attempts) from error.__cause__
            ranks = _ranks_left(spark, size, size if min_size is None else min_size, error)
            told = {"attempt": len(attempts), "of": max_retries, "ranks": ranks, "reason": reason}
            logger.warning("retry %(attempt)d of %(of)d with %(ranks)d ranks: %(reason)s", told)
            if on_message:
                on_message({"kind": "retry", **told})
        else:
            attempts.append({"ranks": ranks, "error": None})
            return answer, attempts


def is_lost(error: BaseException) -> bool:
    """True if ranks were lost, so that launching them again may help; False if one raised an error of its own."""
    return isinstance(error, RanksLostError) or (isinstance(error, RankFailedError) and error.echo)


def one_line(error: SparkdlError) -> str:
    """What happened, in a line for a log or a list."""
    if isinstance(error, RanksLostError):
        return error.reason
    if isinstance(error, RankFailedError):
        last = error.traceback.strip().splitlines()[-1]
        what = "lost the others" if error.echo else "failed"
        return f"rank {error.rank} on {error.host} {what}: {last}"
    return str(error).split("\n", 1)[0]


def _with_attempts(error: SparkdlError, attempts: list[dict[str, Any]]) -> SparkdlError:
    if len(attempts) > 1:
        error.args = (f"{error}\n(the last of {len(attempts)} attempts; the others: "
                      + "; ".join(attempt["error"] for attempt in attempts[:-1]) + ")",)  # fmt: skip
    error.__dict__["attempts"] = attempts
    return error


def _ranks_left(spark: SparkSession, size: int, min_size: int, error: SparkdlError) -> int:
    """How many ranks to go on with. Raises NotEnoughSlotsError if ``min_size`` are not to be had."""
    slots = session.await_slots(spark, size, session.REGISTRATION_S)
    if slots is None or slots >= size:
        return size
    if slots >= min_size:
        return slots
    raise NotEnoughSlotsError(
        f"ranks were lost, and {session.REGISTRATION_S:g} s later the cluster has {slots} task slots where at least "
        f"{min_size} ranks are to go on (of {size}); bring executors back, or set minProc lower",
        needed=min_size,
        available=slots,
    ) from error
