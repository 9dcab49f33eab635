"""What becomes known of a query while it runs, and who is told: its status, its monitor, its report."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sparkdl.stream.events import batch_event
from sparkdl.stream.reports import BatchReport
from sparkdl.stream.status import Status

if TYPE_CHECKING:
    from sparkdl.stream.monitor import Monitor
    from sparkdl.stream.rate import Bound
    from sparkdl.stream.versions import Served

_KEPT = 10_000  # events, for the report


class Told:
    """Of the query of this id. seconds: between two micro-batches, or None. stop: ends it, when an alert asks for that."""

    def __init__(
        self, query: str, name: str | None, seconds: float | None, monitor: Monitor | None, bound: Bound | None
    ) -> None:
        self.status = Status(query, name, trigger=seconds)
        self.monitor, self.bound = monitor, bound
        self.events: deque[dict[str, Any]] = deque(maxlen=_KEPT)
        self.stop: Callable[[], None] = lambda: None
        self._version: str | None = None
        self._progressed: tuple[Any, ...] = ()
        if monitor:
            monitor.started({"query": query, "name": name, "trigger": seconds}, stop=lambda: self.stop())

    def serves(self, served: Served) -> None:
        """The version of the batch that begins."""
        if served.version == self._version:
            return
        self._version = served.version
        reference = served.model.bundle.reference
        self.status.serves(served.version, reference)
        if self.monitor:
            self.monitor.serves(served.version, reference)

    def batch(self, report: BatchReport) -> None:
        """A micro-batch is done."""
        self.status.batch(report)
        if self.bound:
            self.bound.batch(report)
        self.events.append(batch_event(report, self.status.name))
        if self.monitor:
            for version, reason in report.refused.items():
                self.monitor.refused(version, reason)
            self.monitor.batch(report)

    def progress(self, progress: dict[str, Any]) -> None:
        """Spark's progress, as JSON values; the same again is not told."""
        at = (progress.get("runId"), progress.get("batchId"), progress.get("timestamp"))
        if at == self._progressed:
            return
        self._progressed = at
        self.status.progress(progress)
        if self.monitor:
            self.monitor.progress({**progress, "id": self.status.id})

    def known(self) -> list[dict[str, Any]]:
        """Of this run, as events: what a report is made of."""
        drifted = self.status.drift_event()
        return [*self.events, *([drifted] if drifted else [])]

    def ended(self, error: BaseException | None) -> None:
        """The query has ended."""
        self.status.ended(error)
        if self.monitor:
            self.monitor.ended(error)
