"""ScoreQuery: a running ``score_stream``."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from sparkdl.errors import SparkdlError, StreamError
from sparkdl.score import scan
from sparkdl.stream.batch import MicroBatches
from sparkdl.stream.told import Told

if TYPE_CHECKING:
    from pyspark.sql.streaming import StreamingQuery

    from sparkdl.stream.status import StreamStatus


class ScoreQuery:
    """What ``score_stream`` gives: like Spark's StreamingQuery, which is its ``query``, and it knows its model.

    id: 32 hex digits, the same after a restart. name: as it was given, or None.
    """

    def __init__(self, query: StreamingQuery, batches: MicroBatches, told: Told, held: ExitStack) -> None:
        self.query, self.id, self.name = query, batches.records.query, query.name
        self._batches, self._told, self._held = batches, told, held
        self._ended = False

    def __repr__(self) -> str:
        return str(self.status())

    def _repr_html_(self) -> str:
        return self.status()._repr_html_()

    @property
    def isActive(self) -> bool:
        """True until it is stopped or fails."""
        return bool(self.query.isActive)

    def status(self) -> StreamStatus:
        """How it does: rows in, out and dead, versions, rows a second, milliseconds of a batch, how far it is behind."""
        progress = self.query.lastProgress
        if progress is not None:
            self._told.status.progress(as_json(progress))
        return self._told.status.now()

    def exception(self) -> SparkdlError | None:
        """What it failed of, or None."""
        if self.query.isActive or self._batches.stopping:
            return None
        error = self.query.exception()
        if error is None:
            return None
        return self._batches.error or StreamError(
            f"the query failed:\n{scan.last_lines(error)}", checkpoint=self._batches.records.checkpoint
        )

    def awaitTermination(self, timeout: float | None = None) -> bool:
        """Wait until it has ended, or for so many seconds; True if it has. Raises what it failed of."""
        from pyspark.errors import StreamingQueryException

        try:
            ended = self.query.awaitTermination(timeout)
        except StreamingQueryException:
            ended = True
        if timeout is None or ended:
            self._end()
            return True
        return False

    def processAllAvailable(self) -> None:
        """Wait until what the source has now is committed; for tests. Raises what it failed of."""
        from pyspark.errors import StreamingQueryException

        try:
            self.query.processAllAvailable()
        except StreamingQueryException:
            self._end()
            raise

    def stop(self) -> None:
        """End it, after the micro-batch that is running, if there is one."""
        self._batches.stopping = True
        while self.query.isActive and not self._batches.refused_to_begin and self.query.status["isTriggerActive"]:
            self.query.awaitTermination(0.02)
        with self._batches.running:
            self.query.stop()
        self._end()

    def report(self, path: str) -> None:
        """Write what is known of this run as one HTML file, with pictures. Raises StoreError if it cannot be written."""
        from sparkdl.stream import report

        report.write(path, list(self._told.events), name=self.name or self.id)

    def _end(self) -> None:
        """Let go of the checkpoint. Raises what the query failed of."""
        error = self.exception()
        if not self._ended:
            self._ended = True
            self._batches.close()
            self._told.ended(error)
            self._held.close()
        if error is not None:
            raise error


def as_json(progress: Any) -> dict[str, Any]:
    """Spark's progress as JSON values, whichever version gives it."""
    if isinstance(progress, dict):
        return dict(progress)
    told: dict[str, Any] = json.loads(progress.json)
    return told
