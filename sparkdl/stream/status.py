"""How a query does, at a glance."""

from __future__ import annotations

import html
import json
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from sparkdl.stream.reports import BatchReport

if TYPE_CHECKING:
    from sparkdl.drift import Drift, Reference

STATES = ("starting", "running", "stopped", "failed")
HISTOGRAMS = 6  # that go with a drift event
_KEPT = 4096  # batches, at most, in a window


@dataclass(frozen=True)
class StreamStatus:
    """What a query has done since it was started here, and how fast it was in the last ``window`` seconds.

    since: when it was started, in seconds since 1970. rows: read. scored: rows that went to the sink; versions: of these,
    by model version; version: the one of the last batch. dead: rows among the dead letters, by kind. refused: model
    versions that were refused, with the reason. nulls: rows with a null, by column. replayed: batches that an earlier
    process had begun.
    rows_per_second, p50, p95, p99 (milliseconds that sparkdl's part of a batch took) and last (seconds since the last
    batch was done) are None before there is a batch in the window. stages: mean milliseconds of a batch's stages in it.
    lag: rows behind the end of the source, where the source tells (Kafka does), else None. late: seconds by which the
    last micro-batch took longer than the trigger, or None where this is not known.
    drift: the features that are farthest from the training reference, worst first.
    trouble: why the registry cannot be asked now, if it cannot: the version goes on. error: what the query failed of.
    """

    name: str
    id: str
    state: str
    since: float
    window: float
    batches: int = 0
    replayed: int = 0
    rows: int = 0
    scored: int = 0
    skipped: int = 0
    dead: Mapping[str, int] = field(default_factory=dict)
    nulls: Mapping[str, int] = field(default_factory=dict)
    versions: Mapping[str, int] = field(default_factory=dict)
    version: str | None = None
    refused: Mapping[str, str] = field(default_factory=dict)
    compared: Mapping[str, float] = field(default_factory=dict)
    rows_per_second: float | None = None
    dead_share: float | None = None
    null_share: float | None = None
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    stages: Mapping[str, float] = field(default_factory=dict)
    last: float | None = None
    lag: int | None = None
    late: float | None = None
    drift: tuple[Drift, ...] = ()
    trouble: str | None = None
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    def lines(self) -> list[tuple[str, str]]:
        """For people: what, and how it is."""
        told = [
            ("query", f"{self.name or 'without a name'} ({self.id[:8]}), {self.state} since {_clock(self.since)}"),
            ("rows", f"{self.rows:,} in, {self.scored:,} out, {sum(self.dead.values()):,} dead"
                     + _by(self.dead) + (f", {self.skipped:,} skipped" if self.skipped else "")),
            ("batches", f"{self.batches:,}" + (f", {self.replayed} of them replayed" if self.replayed else "")
                        + (f", the last {ago(self.last)} ago" if self.last is not None else "")),
        ]  # fmt: skip
        if self.version is not None:
            told.append(("model", f"version {self.version}" + (_by(self.versions) if len(self.versions) > 1 else "")))
        told += [("refused", f"version {version}: {reason}") for version, reason in self.refused.items()]
        if self.rows_per_second is not None:
            told.append(("speed", f"{self.rows_per_second:,.0f} rows/s over the last {self.window:g} s"))
        if self.p50 is not None:
            told.append(("latency", f"p50 {_ms(self.p50)}, p95 {_ms(self.p95)}, p99 {_ms(self.p99)} a batch"))
            told.append(("of it", ", ".join(f"{name} {_ms(value)}" for name, value in self.stages.items())))
        if self.lag is not None:
            told.append(("lag", f"{self.lag:,} rows behind the end of the source"))
        if self.late:
            told.append(("late", f"{self.late:.2f} s longer than the trigger"))
        if self.compared:
            told.append(("challenger", ", ".join(f"{name} {value:.4g}" for name, value in self.compared.items())))
        if self.drift:
            told.append(("drift", ", ".join(f"{d.feature} {d.psi:.3f}" for d in self.drift[:5]) + " (PSI)"))
        if self.trouble:
            told.append(("trouble", self.trouble))
        if self.error:
            told.append(("error", self.error))
        return [(what, text) for what, text in told if text]

    def __str__(self) -> str:
        return "\n".join(f"{what:<10}  {text}" for what, text in self.lines())

    def _repr_html_(self) -> str:
        rows = (f"<tr><th>{html.escape(what)}</th><td>{html.escape(text)}</td></tr>" for what, text in self.lines())
        return "<table>\n" + "\n".join(rows) + "\n</table>"


class Status:
    """Makes StreamStatus of what happens to one query. For several threads; nothing here waits.

    id, name: the query's. trigger: seconds between micro-batches, None for none. window: seconds that speed and latency
    are looked at over, and drift_window those of drift.
    """

    def __init__(
        self,
        id: str,
        name: str | None = None,
        *,
        trigger: float | None = None,
        window: float = 60.0,
        drift_window: float = 600.0,
    ) -> None:
        from sparkdl.stream.drifting import DriftWindow

        self.id, self.name, self.trigger, self.window = id, name or "", trigger, window
        self.drift = DriftWindow(drift_window)
        self.since, self._state = time.time(), "starting"
        self._error: str | None = None
        self._batches = self._replayed = self._rows = self._scored = self._skipped = 0
        self._dead: Counter[str] = Counter()
        self._nulls: Counter[str] = Counter()
        self._versions: Counter[str] = Counter()
        self._refused: dict[str, str] = {}
        self._last: BatchReport | None = None
        self._late: float | None = None
        self._lag: int | None = None
        self._recent: deque[BatchReport] = deque(maxlen=_KEPT)
        self._lock = threading.Lock()

    def serves(self, version: str, reference: Reference | None) -> None:
        """The model version that scores from now on, and its bundle's drift reference, if it has one."""
        self.drift.serves(version, reference)

    def batch(self, report: BatchReport) -> None:
        """A micro-batch is done."""
        self.drift.add(report.time, report.counts)
        with self._lock:
            self._state = "running"
            self._batches += 1
            self._replayed += report.replayed
            self._rows += report.rows
            self._scored += report.scored
            self._skipped += report.skipped
            self._dead.update(report.dead)
            self._nulls.update(report.nulls)
            self._versions.update(report.versions)
            self._refused.update(report.refused)
            self._last = report
            self._recent.append(report)

    def progress(self, progress: Mapping[str, Any]) -> None:
        """Spark's progress, as JSON values."""
        took = progress.get("durationMs", {}).get("triggerExecution")
        with self._lock:
            self._state = "running" if self._state == "starting" else self._state  # progress may come late
            self._lag = lag_of(progress)
            if self.trigger is not None and took is not None:
                self._late = max(0.0, took / 1000 - self.trigger)

    @property
    def behind(self) -> tuple[int | None, float | None]:
        """``lag`` and ``late``, see StreamStatus."""
        return self._lag, self._late

    def refused(self, version: str, reason: str) -> None:
        """A model version is not served."""
        with self._lock:
            self._refused[version] = reason

    def ended(self, error: BaseException | None = None) -> None:
        """The query has ended."""
        with self._lock:
            self._state = "failed" if error else "stopped"
            self._error = f"{type(error).__name__}: {error}" if error else None

    def drift_event(self) -> dict[str, Any] | None:
        """The drift of the window as an event for a report, with histograms of the worst features; None if there is none."""
        found = self.drift.drift()
        if not found:
            return None
        histograms = self.drift.histograms([drift.feature for drift in found[:HISTOGRAMS]])
        return {
            "event": "drift", "query": self.id, "name": self.name, "time": time.time(), "version": self.drift.version,
            "features": [asdict(drift) for drift in found], "histograms": histograms,
        }  # fmt: skip

    def now(self, *, drift: bool = True, active: bool = True) -> StreamStatus:
        """How it is. drift: whether to look at that too, which takes some milliseconds. active: False if the query is
        known to have ended, though nobody has said so here."""
        at, found = time.time(), tuple(self.drift.drift()) if drift else ()
        with self._lock:
            while self._recent and self._recent[0].time < at - self.window:
                self._recent.popleft()
            recent, last = list(self._recent), self._last
            return StreamStatus(
                name=self.name, id=self.id, state=self._state if active else _over(self._state), since=self.since, window=self.window,
                batches=self._batches, replayed=self._replayed, rows=self._rows, scored=self._scored,
                skipped=self._skipped, dead=dict(self._dead), nulls=dict(self._nulls), versions=dict(self._versions),
                version=_latest(last), refused=dict(self._refused), compared=dict(last.compared) if last else {},
                last=max(0.0, at - last.time) if last else None, lag=self._lag, late=self._late, drift=found,
                error=self._error, **_speed(recent, at, self.since, self.window),
            )  # fmt: skip


def _over(state: str) -> str:
    return "stopped" if state in ("starting", "running") else state


def lag_of(progress: Mapping[str, Any]) -> int | None:
    """Rows behind the end of the sources, or None if no source tells. Kafka tells the mean and the greatest over its
    partitions, and where it has read to: the mean times the number of partitions is their sum."""
    found = None
    for source in progress.get("sources", ()):
        mean = (source.get("metrics") or {}).get("avgOffsetsBehindLatest")
        if mean is not None:
            ends = source.get("endOffset")
            ends = json.loads(ends) if isinstance(ends, str) and ends.startswith("{") else ends  # Spark Connect's
            partitions = sum(map(len, ends.values())) if isinstance(ends, dict) else 1
            found = (found or 0) + round(float(mean) * partitions)
    return found


def _speed(recent: list[BatchReport], at: float, since: float, window: float) -> dict[str, Any]:
    """Of the batches in the window."""
    if not recent:
        return {"rows_per_second": 0.0} if at - since > window else {}
    import numpy as np

    rows = sum(report.rows for report in recent)
    totals = [report.seconds["total"] * 1000 for report in recent if "total" in report.seconds]
    found: dict[str, Any] = {"rows_per_second": rows / max(min(window, at - since), 1.0)}
    if rows:
        found["dead_share"] = sum(sum(report.dead.values()) for report in recent) / rows
        nulls: Counter[str] = Counter()
        for report in recent:
            nulls.update(report.nulls)
        found["null_share"] = max(nulls.values(), default=0) / rows
    if totals:
        found |= {f"p{q}": float(np.percentile(totals, q)) for q in (50, 95, 99)}
        names = dict.fromkeys(name for report in recent for name in report.seconds if name != "total")
        found["stages"] = {
            name: sum(report.seconds.get(name, 0.0) for report in recent) / len(recent) * 1000 for name in names
        }
    return found


def _latest(report: BatchReport | None) -> str | None:
    return max(report.versions, key=lambda version: report.versions[version]) if report and report.versions else None


def _by(counts: Mapping[str, int]) -> str:
    return " (" + ", ".join(f"{kind} {count:,}" for kind, count in counts.items()) + ")" if counts else ""


def ago(seconds: float) -> str:
    """``1.2 s``, ``5 min``, ``3 h``, ``40 d``."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:,.0f} {unit}"
    return f"{seconds:.1f} s"


def _ms(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:,.0f} ms"


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
