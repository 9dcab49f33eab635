"""RealtimeQuery: a running ``score_stream`` in real time."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sparkdl import session
from sparkdl.errors import StreamError
from sparkdl.realtime.publish import Publisher
from sparkdl.realtime.slots import Slots
from sparkdl.realtime.tail import Latency, Tail
from sparkdl.stream.events import as_json
from sparkdl.stream.status import Status
from sparkdl.stream.watched import WatchedQuery

if TYPE_CHECKING:
    from pyspark.sql.streaming import StreamingQuery

    from sparkdl.stream.status import StreamStatus

LOOK_EVERY_S = 1.0  # at the model's alias, and whether the query is alive
WELL_AFTER_S = 60.0  # a run that lasts so long is a good one
LONGEST_WAIT_S = 30.0  # before a restart; the first is after 1 s, the next after twice as long, …
GIVE_UP_AFTER_S = 1800.0  # without a good run
_HOPELESS = re.compile(r"\[(INVALID_)?STREAMING_REAL_TIME_MODE")  # Spark's words for what no restart mends
logger = logging.getLogger(__name__)


class RealtimeQuery(WatchedQuery):
    """What ``score_stream(..., mode="realtime")`` gives: like Spark's StreamingQuery, which is its ``query``.

    Spark itself runs the tasks of a lost executor again, and waits for brokers that are away for a while. If it ends the query
    all the same, that is started again here, after 1, 2, 4, … 30 s, until it runs; half an hour without a run of a minute,
    and it has failed. What was scored since the last committed offsets is scored again, with the same ``sparkdl-id``.

    id: 32 hex digits, the same after a restart. name: as it was given, or None. restarts: how many there were.
    """

    mode = "realtime"

    def __init__(
        self,
        launch: Callable[[], StreamingQuery],
        publisher: Publisher,
        slots: Slots,
        tail: Tail,
        id: str,
        checkpoint: str,
        held: ExitStack,
    ) -> None:
        super().__init__()
        self._launch, self._publisher, self._checkpoint, self._held = launch, publisher, checkpoint, held
        self._slots, self._tail = slots, tail
        self.query = launch()
        self._since: float | None = time.monotonic()  # this run began; None between two
        self.id, self.name, self.restarts = id, self.query.name, 0
        self._status = Status(id, self.name)
        self._rows: dict[tuple[str, int], int] = {}
        self._trouble: str | None = None
        self._stopping = threading.Event()
        self._watched_by(self._watch, "sparkdl-realtime")

    def status(self) -> StreamStatus:
        """How it does: version, refused versions, what is wrong. Rows and batches are those of the long batches that have
        ended; latencies, rows and dead letters of now are in Spark's metrics, under ``sparkdl``."""
        told = self._status.now()
        return replace(
            told,
            state="running" if told.state == "starting" and self.isActive else told.state,
            rows=sum(self._rows.values()),
            batches=len(self._rows),
            version=self._publisher.version,
            refused=dict(self._publisher.refused),
            trouble=self._trouble or self._publisher.models.trouble,
        )

    def latency(self, seconds: float = 1.0) -> Latency:
        """How long the records take that are answered within so many seconds from now, from the timestamp of the source's
        record to that of the sink's; of 500 at most."""
        return self._tail.latency(seconds)

    def stop(self) -> None:
        """End it now. Records since the last committed offsets are scored again by the next run. Raises what it failed of,
        if it had."""
        with self._relaunching:
            self._stopping.set()
            self.query.stop()
        self.awaitTermination()

    def _watch(self) -> None:
        """In a thread, from the start to the end: the model's alias, and the query's life."""
        try:
            well, wait = time.monotonic(), 1.0
            failure = self._run()
            while failure is not None and not self._stopping.is_set():
                if self._is_well:
                    well, wait = time.monotonic(), 1.0
                if time.monotonic() - well > GIVE_UP_AFTER_S or _HOPELESS.search(str(failure)):
                    self._error = failure
                    break
                failure = self._again(failure, wait)
                wait = min(2 * wait, LONGEST_WAIT_S)
        except Exception as error:  # nobody else would hear of it
            self._error = _as_stream_error(error, self._checkpoint)
        finally:
            for end in (self.query.stop, self._tail.close, self._held.close):
                try:
                    end()
                except Exception as error:  # of a store, of Spark: whoever waits for the end is let go all the same
                    self._tell(f"at the end: {type(error).__name__}: {error}")
            self._status.ended(self._error)
            self._ended.set()

    def _run(self) -> StreamError | None:
        """Until the query ends; what it failed of, or None."""
        from pyspark.errors import StreamingQueryException

        while True:
            try:
                if self.query.awaitTermination(LOOK_EVERY_S):
                    return None
            except StreamingQueryException as error:
                return _as_stream_error(error, self._checkpoint)
            self._look()

    @property
    def _is_well(self) -> bool:
        return self._since is not None and time.monotonic() - self._since > WELL_AFTER_S

    def _look(self) -> None:
        try:
            self._publisher.look()
        except Exception as error:  # of a store, a registry, Py4J: what runs goes on
            self._tell(f"{type(error).__name__}: {error}")
        else:
            lacking = self._slots.lacking()
            if lacking:
                self._tell(lacking)
            elif self._is_well:
                self._trouble = None
        progress = self.query.lastProgress
        if progress is not None:
            told: dict[str, Any] = as_json(progress)
            self._status.progress(told)
            self._rows[told["runId"], told["batchId"]] = told["numInputRows"]

    def _again(self, failure: StreamError, wait: float) -> StreamError | None:
        """Start after so many seconds, and run; what that failed of, or None."""
        from py4j.protocol import Py4JNetworkError  # type: ignore[import-untyped,import-not-found]

        self._since = None
        self._tell(f"starts again after {wait:.0f} s, for {str(failure).splitlines()[0]}")
        if self._stopping.wait(wait) or not session.is_there():
            return None
        with self._relaunching:
            if self._stopping.is_set():
                return None
            try:
                self.query = self._launch()
            except (Py4JNetworkError, ConnectionError):  # the JVM is gone, and will not come back
                raise
            except Exception as error:  # of the checkpoint's store, of Spark: it is tried again
                return _as_stream_error(error, self._checkpoint)
            self.restarts += 1
            self._since = time.monotonic()
        return self._run()

    def _tell(self, trouble: str) -> None:
        if trouble == self._trouble:
            return
        self._trouble = trouble
        logger.warning("query %s: %s", self.name or self.id, trouble)


def _as_stream_error(error: Exception, checkpoint: str) -> StreamError:
    if isinstance(error, StreamError):
        return error
    told = str(error).split("\n=== Streaming Query ===")[0].split("\n\tat ")[0]  # without the plan, and the JVM's stack
    return StreamError(f"the query failed: {told.strip()}", checkpoint=checkpoint)
