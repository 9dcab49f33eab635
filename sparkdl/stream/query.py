"""ScoreQuery: a running ``score_stream``."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sparkdl.errors import SparkdlError, StreamError
from sparkdl.score import scan
from sparkdl.stream.batch import MicroBatches
from sparkdl.stream.events import as_json
from sparkdl.stream.rate import Bound
from sparkdl.stream.told import Told
from sparkdl.stream.watched import WatchedQuery

if TYPE_CHECKING:
    from pyspark.sql.streaming import StreamingQuery

    from sparkdl.stream.status import StreamStatus

_LOOK_EVERY_S = 0.02
_WAKE_EVERY_S = 0.5


class ScoreQuery(WatchedQuery):
    """What ``score_stream`` gives: like Spark's StreamingQuery, which is its ``query``, and it knows its model.

    id: 32 hex digits, the same after a restart. name: as it was given, or None.
    """

    mode = "microbatch"

    def __init__(
        self,
        launch: Callable[[int | None], StreamingQuery],
        batches: MicroBatches,
        told: Told,
        bound: Bound | None,
        held: ExitStack,
    ) -> None:
        super().__init__()
        self._launch, self._batches, self._told, self._bound, self._held = launch, batches, told, bound, held
        self.query = launch(None)
        self.id, self.name = batches.records.query, self.query.name
        told.stop = self.stop
        self._watched_by(self._watch, "sparkdl-stream")

    def status(self) -> StreamStatus:
        """How it does: rows in, out and dead, versions, rows a second, milliseconds of a batch, how far it is behind."""
        self._look()
        return replace(self._told.status.now(), trouble=self._batches.models.trouble)

    def processAllAvailable(self) -> None:
        """Wait until what the source has now is committed; for tests. Raises what the query failed of."""
        from pyspark.errors import StreamingQueryException

        while True:
            query = self.query
            with contextlib.suppress(StreamingQueryException):  # it is told below, unless it was to end
                query.processAllAvailable()
                if query.isActive:
                    return
            with self._relaunching:
                if self.query is query:  # else it was started anew, with another number of rows a batch
                    break
        self.awaitTermination()

    def stop(self) -> None:
        """End it, after the micro-batch that is running, if there is one. Raises what it failed of, if it had."""
        with self._relaunching:
            self._batches.stopping = True
            self._stop_between_batches()
        self.awaitTermination()

    def events(self) -> list[dict[str, Any]]:
        """What is known of this run, the last 10,000 micro-batches at most, as a monitor writes it."""
        return self._told.known()

    def report(self, path: str) -> None:
        """Write what is known of this run as one HTML file, with pictures. Raises StoreError if it cannot be written."""
        from sparkdl.stream import report

        report.write(path, self.events(), name=self.id)

    def _stop_between_batches(self) -> None:
        """``MicroBatches`` begins no batch any more; wait for the end of the one that runs."""
        from pyspark.errors import StreamingQueryException

        query, batches = self.query, self._batches
        with contextlib.suppress(StreamingQueryException):  # a batch that was not begun, or what ``_watch`` will tell
            while query.isActive and not batches.refused_to_begin and query.status["isTriggerActive"]:
                query.awaitTermination(_LOOK_EVERY_S)
        query.stop()

    def _watch(self) -> None:
        """In a thread, from the start to the end: whoever looks away, the end is told and the checkpoint let go."""
        try:
            while self._wait():
                pass
            self._error = self._found_error()
        except Exception as error:  # of Spark's, of the events' function: nobody else would hear of it
            self._error = _as_stream_error(error, self._batches.records.checkpoint)
            self.query.stop()
        finally:
            try:
                self._batches.close()
                self._told.ended(self._error)
            finally:
                try:
                    self._held.close()
                finally:
                    self._ended.set()

    def _wait(self) -> bool:
        """Until the query ends, or another number of rows a batch suits better; True if it runs again with that."""
        from pyspark.errors import StreamingQueryException

        try:
            while not (self._bound and self._bound.is_poor.is_set()):
                if self.query.awaitTermination(_WAKE_EVERY_S):
                    return False
                self._look()
        except StreamingQueryException:
            return False
        with self._relaunching:
            if self._batches.stopping or not self.query.isActive:
                return False
            self._batches.stopping = True
            self._stop_between_batches()
            if self._batches.error is not None:
                return False
            self._batches.stopping = self._batches.refused_to_begin = False
            self.query = self._launch(self._bound.take())
        return True

    def _look(self) -> None:
        """At what Spark says of the last batch."""
        progress = self.query.lastProgress
        if progress is not None:
            self._told.progress(as_json(progress))

    def _found_error(self) -> SparkdlError | None:
        """What ended the query: a batch that failed, or something in Spark; not that it was told to stop."""
        if self._batches.error is not None or self._batches.stopping:
            return self._batches.error
        error = self.query.exception()
        return error and _as_stream_error(error, self._batches.records.checkpoint)


def _as_stream_error(error: Exception, checkpoint: str) -> SparkdlError:
    if isinstance(error, SparkdlError):
        return error
    return StreamError(f"the query failed:\n{scan.last_lines(error)}", checkpoint=checkpoint)
