"""Watching queries: events to a file, figures to Prometheus, alerts. It never holds up a query, and never breaks one."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from sparkdl.errors import InvalidParamError
from sparkdl.stream.alerts import Alert, Alerts, Fired, post
from sparkdl.stream.background import Background
from sparkdl.stream.events import BACKUPS, MAX_BYTES, Lines, batch_event
from sparkdl.stream.prometheus import Exporter, address_of
from sparkdl.stream.reports import BatchReport
from sparkdl.stream.status import Status, StreamStatus

if TYPE_CHECKING:
    from sparkdl.drift import Drift, Reference

logger = logging.getLogger(__name__)
DRIFT_EVERY_S = 5.0  # that drift is looked at
DRIFT_TOLD_S = 60.0  # that it is written to the file


class Monitor:
    """Watches a query: ``score_stream(…, monitor=Monitor(jsonl="events.jsonl", alerts=[Alert("dead", above=0.01)]))``;
    or any query of a session, see ``sparkdl.stream.observe``.

    jsonl: a local file that events are added to, one JSON object a line; at maxBytes it is rotated, and ``backups`` old ones
    are kept. prometheus: a port, served on 127.0.0.1, or ``host:port``; other hosts need a ``token``, which
    requests send as ``Authorization: Bearer TOKEN``. alerts: Alert objects, or maps of their fields.
    window: seconds that speed, latency and shares are looked at over; driftWindow: those of drift. about: JSON values by name
    that each event has too.

    The first query that starts opens file and port (or ``open``), the last that ends closes them (or ``close``). What a query tells goes through one
    thread, webhooks through another; each has a bounded queue, and what does not fit is dropped and counted. Trouble
    with the disk or a webhook is logged once a minute at most, and does not reach the query.

    failed: the first alert that asked to stop a query, or None.
    Raises InvalidParamError; ``started`` raises StoreError and StreamError, as long as nothing runs.
    """

    def __init__(
        self,
        jsonl: str | None = None,
        prometheus: int | str | None = None,
        alerts: Iterable[Alert | Mapping[str, Any]] = (),
        *,
        window: float = 60.0,
        driftWindow: float = 600.0,
        token: str | None = None,
        maxBytes: int = MAX_BYTES,
        backups: int = BACKUPS,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        if isinstance(alerts, (str, Mapping)):
            raise InvalidParamError(f"'alerts' must be a list of them (got {alerts!r})", param="alerts", value=alerts)
        self.alerts = [Alert.of(one) for one in alerts]
        self.jsonl, self._max_bytes, self._backups = jsonl, maxBytes, backups
        self.window, self.drift_window = _seconds("window", window), _seconds("driftWindow", driftWindow)
        self._address = None if prometheus is None else address_of(prometheus, token)
        self._token = token
        self._about = dict(about or {})
        self.failed: Fired | None = None
        self._queries: dict[str, _Query] = {}
        self._held = 0
        self._lines: Lines | None = None
        self._exporter: Exporter | None = None
        self._work: Background | None = None
        self._hooks: Background | None = None
        self._lock = threading.Lock()

    @property
    def port(self) -> int | None:
        """Of Prometheus' exporter, while it is open."""
        return self._exporter.port if self._exporter else None

    @property
    def trouble(self) -> dict[str, int]:
        """How many events and webhooks were ``dropped`` because too many waited, and how many ``failed``."""
        there = [one for one in (self._work, self._hooks) if one]
        return {"dropped": sum(one.dropped for one in there), "failed": sum(one.failed for one in there)}

    def status(self, query: str | None = None) -> StreamStatus:
        """Of the query with this id, by default the last that was started. Raises KeyError if there is none."""
        return self._queries[self._id(query)].status.now()

    def open(self) -> Monitor:
        """Open file and port now, and keep them until ``close``, whether or not queries run; a ``with`` block does both.

        Raises StoreError if the file cannot be written, StreamError if the port is taken.
        """
        with self._lock:
            if not self._held and all(one.ended for one in self._queries.values()):
                self._open()
            self._held += 1
        return self

    def close(self) -> None:
        """Take back one ``open``; what was told is written, unless a query still runs or somebody else holds it open."""
        with self._lock:
            self._held = max(0, self._held - 1)
            self._close_if_last()

    def __enter__(self) -> Monitor:
        return self.open()

    def __exit__(self, *_: object) -> None:
        self.close()

    def started(self, info: Mapping[str, Any], stop: Callable[[], None] | None = None) -> None:
        """A query starts. info: ``query``, its id, and what is known of ``name``, ``model``, ``sink``, ``trigger`` (in seconds), ….
        stop: is called, in a thread, when an alert asks to stop it.

        Raises StoreError if the file cannot be written, StreamError if the port is taken.
        """
        with self._lock:
            if not self._held and all(one.ended for one in self._queries.values()):
                self._open()
            key, name = _key(info["query"]), str(info.get("name") or "")
            self._queries.pop(key, None)
            status = Status(key, name, trigger=info.get("trigger"), window=self.window, drift_window=self.drift_window)
            self._queries[key] = _Query(status, name or key[:8], Alerts(self.alerts), stop)
        self._write({"event": "started", "time": time.time(), **info, "query": key, "name": name})

    def serves(self, version: str, reference: Reference | None = None, query: str | None = None) -> None:
        """A model version scores from now on. reference: the one of its bundle (``drift.Reference.in_bundle``)."""
        self._do(query, lambda one: self._served(one, version, reference))

    def batch(self, report: BatchReport) -> None:
        """A micro-batch is done."""
        self._do(report.query, lambda one: self._batch(one, report))

    def progress(self, progress: Mapping[str, Any]) -> None:
        """Spark's progress of a query, as JSON values."""
        self._do(str(progress.get("id", "")), lambda one: self._progress(one, progress))

    def refused(self, version: str, reason: str, query: str | None = None) -> None:
        """A model version was refused, and the one before goes on."""
        self._do(query, lambda one: self._refused(one, version, reason))

    def ended(self, error: BaseException | None = None, query: str | None = None) -> None:
        """A query has ended. Returns when what it told is written, after 5 seconds at most."""
        with self._lock:
            one = self._queries.get(self._id(query)) if self._queries else None
            if one is None or one.ended:
                return
            one.ended = True
            self._do_now(one, lambda one: self._ended(one, error))
            self._close_if_last()

    def _open(self) -> None:
        self.failed = None
        self._lines = Lines(self.jsonl, self._max_bytes, self._backups, self._about) if self.jsonl else None
        try:
            self._exporter = Exporter(*self._address, self._token) if self._address else None
        except BaseException:
            if self._lines:
                self._lines.close()
            raise
        self._hooks = Background("sparkdl-webhooks", most=100)
        self._work = Background("sparkdl-monitor", most=10_000, idle=self._look)

    def _close_if_last(self) -> None:
        if self._held or not all(one.ended for one in self._queries.values()):
            return
        for each in (self._work, self._hooks):
            if each and not each.close():
                logger.warning("what a query told was not all written in time")
        if self._exporter:
            self._exporter.close()
        try:
            if self._lines:
                self._lines.close()
        except OSError as error:  # a disk is full still
            logger.warning("the last events are not in %s: %s", self.jsonl, error.strerror)
        self._exporter = self._lines = None

    def _id(self, query: str | None) -> str:
        if query is not None and _key(query) in self._queries:
            return _key(query)
        return next(reversed(self._queries))

    def _do(self, query: str | None, step: Callable[[_Query], None]) -> None:
        with self._lock:
            one = self._queries.get(self._id(query)) if self._queries else None
            if one is not None and not one.ended:
                self._do_now(one, step)

    def _do_now(self, one: _Query, step: Callable[[_Query], None]) -> None:
        if self._work:
            self._work.do(partial(step, one))

    def _write(self, event: Mapping[str, Any]) -> None:
        if self._work and self._lines:
            self._work.do(partial(self._lines.write, event))

    # what follows runs in the thread

    def _tell(self, one: _Query, event: str, **told: Any) -> None:
        if self._lines:
            about = {"query": one.status.id, "name": one.status.name, "time": time.time()}
            self._lines.write({"event": event, **about, **told})

    def _batch(self, one: _Query, report: BatchReport) -> None:
        one.status.batch(report)
        if self._exporter:
            self._exporter.batch(one.label, report)
        self._alert(one)
        if self._lines:
            self._lines.write(batch_event(report, one.status.name))

    def _served(self, one: _Query, version: str, reference: Reference | None) -> None:
        if one.status.drift.version not in (None, version):
            self._drift(one)  # the last of the version before
        one.status.serves(version, reference)
        if self._exporter:
            self._exporter.serves(one.label, version)
        self._tell(one, "serves", version=version, reference=reference.rows if reference else None)

    def _progress(self, one: _Query, progress: Mapping[str, Any]) -> None:
        one.status.progress(progress)
        if self._exporter:
            self._exporter.lag(one.label, *one.status.behind)
        self._alert(one)
        self._tell(one, "progress", progress=progress)

    def _refused(self, one: _Query, version: str, reason: str) -> None:
        one.status.refused(version, reason)
        if self._exporter:
            self._exporter.refusals.labels(one.label).inc()
        self._alert(one)
        self._tell(one, "refused", version=version, reason=reason)

    def _ended(self, one: _Query, error: BaseException | None) -> None:
        self._drift(one)
        one.status.ended(error)
        self._tell(one, "ended", error=f"{type(error).__name__}: {error}" if error else None)

    def _look(self) -> None:
        """Also where nothing happens: a query that hangs tells nothing."""
        for one in list(self._queries.values()):
            if not one.ended:
                self._alert(one)

    def _alert(self, one: _Query) -> None:
        now = time.time()
        if now - one.looked >= DRIFT_EVERY_S and (self.alerts or self._lines or self._exporter):
            one.drift = tuple(one.status.drift.drift())
            one.looked = now if one.drift else 0.0  # the first to be seen is told at once
            if self._exporter:
                self._exporter.drift(one.label, one.drift)
            if now - one.told >= DRIFT_TOLD_S and one.drift:
                self._drift(one)
        if not self.alerts:
            return
        firing, over = one.alerts.look(replace(one.status.now(drift=False), drift=one.drift), now)
        for fired in firing:
            self._fire(one, fired)
        for alert in over:
            logger.info("over: %s, query %s", alert.text, one.label)
            self._tell(one, "alert over", alert=alert.text)

    def _fire(self, one: _Query, fired: Fired) -> None:
        logger.warning("%s", fired)
        if fired.alert.action == "stop":
            self.failed = self.failed or fired
            if one.stop:  # in a thread of its own: to stop a query waits for its batch, and then for this thread
                threading.Thread(target=one.stop, name="sparkdl-stop", daemon=True).start()
                one.stop = None
        if fired.alert.url and self._hooks:
            self._hooks.do(partial(post, fired.alert.url, fired.to_json()))
        if self._exporter:
            self._exporter.fired.labels(one.label, fired.alert.text).inc()
        self._tell(one, "alert", **fired.to_json())

    def _drift(self, one: _Query) -> None:
        event = one.status.drift_event() if self._lines else None
        if event and self._lines:
            one.told = event["time"]
            self._lines.write(event)


class _Query:
    """What the monitor knows of one."""

    def __init__(self, status: Status, label: str, alerts: Alerts, stop: Callable[[], None] | None) -> None:
        self.status, self.label, self.alerts, self.stop = status, label, alerts, stop
        self.ended = False
        self.drift: tuple[Drift, ...] = ()
        self.looked = self.told = 0.0


def _key(id: Any) -> str:
    return str(id).replace("-", "")


def _seconds(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not (value > 0 and math.isfinite(value)):
        raise InvalidParamError(
            f"{name!r} of a monitor must be seconds, above 0 (got {value!r})", param=name, value=value
        )
    return float(value)
