"""What a query's events say together: the figures behind its report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

BINS = 240  # of time, whatever the number of batches
LISTED = 50  # alerts, refusals, starts and ends, the newest
QUANTILES = (0.5, 0.95, 0.99)


@dataclass
class Run:
    """Of one query, over all its starts. Lists have an item a batch; times are in seconds since 1970. bins: of time, for what
    is told over time, at most."""

    query: str = ""
    name: str = ""
    bins: int = BINS
    about: dict[str, Any] = field(default_factory=dict)
    times: list[float] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    versions: list[Mapping[str, int]] = field(default_factory=list)
    dead: list[Mapping[str, int]] = field(default_factory=list)
    seconds: list[Mapping[str, float]] = field(default_factory=list)
    nulls: Counter[str] = field(default_factory=Counter)
    skipped: int = 0
    replayed: int = 0
    nbytes: int = 0
    compared: list[tuple[float, Mapping[str, float]]] = field(default_factory=list)
    lag: list[tuple[float, int]] = field(default_factory=list)
    drift: list[Mapping[str, Any]] = field(default_factory=list)
    happened: list[tuple[float, str, str]] = field(default_factory=list)  # when, what, and in words
    alerts: list[Mapping[str, Any]] = field(default_factory=list)
    refused: list[Mapping[str, Any]] = field(default_factory=list)

    def add(self, event: Mapping[str, Any]) -> None:
        """Take an event; those of a later sparkdl that are not known here are left out."""
        take = getattr(self, "_" + str(event.get("event")).replace(" ", "_"), None)
        if take is not None:
            take(event)

    def _started(self, event: Mapping[str, Any]) -> None:
        beside = ("event", "time", "name", "query")
        self.about = {key: value for key, value in event.items() if key not in beside and value is not None}
        self.happened.append((float(event["time"]), "started", ""))

    def _serves(self, event: Mapping[str, Any]) -> None:
        self.happened.append((float(event["time"]), "serves", f"version {event['version']}"))

    def _batch(self, event: Mapping[str, Any]) -> None:
        self.times.append(float(event["time"]))
        self.rows.append(int(event["rows"]))
        self.versions.append(event.get("versions") or {})
        self.dead.append(event.get("dead") or {})
        self.seconds.append(event.get("seconds") or {})
        self.nulls.update(event.get("nulls") or {})
        self.skipped += int(event.get("skipped", 0))
        self.replayed += bool(event.get("replayed"))
        self.nbytes += int(event.get("nbytes", 0))
        if event.get("compared"):
            self.compared.append((self.times[-1], event["compared"]))

    def _progress(self, event: Mapping[str, Any]) -> None:
        from sparkdl.stream.status import lag_of

        lag = lag_of(event.get("progress") or event)
        if lag is not None:
            self.lag.append((float(event.get("time") or (self.times[-1] if self.times else 0.0)), lag))

    def _refused(self, event: Mapping[str, Any]) -> None:
        self.refused.append(event)
        self.happened.append((float(event["time"]), "refused", f"version {event['version']}: {event['reason']}"))

    def _alert(self, event: Mapping[str, Any]) -> None:
        self.alerts.append(event)
        detail = f" ({event['detail']})" if event.get("detail") else ""
        told = f"{event['alert']}: {float(event['value']):.4g}{detail}"
        self.happened.append((float(event["time"]), "alert", told))

    def _alert_over(self, event: Mapping[str, Any]) -> None:
        self.happened.append((float(event["time"]), "alert over", str(event["alert"])))

    def _drift(self, event: Mapping[str, Any]) -> None:
        self.drift.append(event)

    def _ended(self, event: Mapping[str, Any]) -> None:
        self.happened.append((float(event["time"]), "ended", str(event.get("error") or "")))

    @property
    def scored(self) -> int:
        """Rows that went to the sink."""
        return sum(sum(one.values()) for one in self.versions)

    @property
    def span(self) -> tuple[float, float]:
        """From the first batch's start, as far as it is known, to the last batch's end."""
        starts = [at for at, what, _ in self.happened if what == "started"]
        ends = self.times or [at for at, *_ in self.happened] or [0.0]
        first = min([*starts, *(at - told.get("total", 0.0) for at, told in zip(self.times[:1], self.seconds, strict=False))],
                    default=ends[0])  # fmt: skip
        return first, max(max(ends), first + 1e-3)

    @property
    def stages(self) -> list[str]:
        """Of a batch, in its order, ``total`` last."""
        names = dict.fromkeys(name for told in self.seconds for name in told if name != "total")
        return [*names, "total"]

    def milliseconds(self, stage: str) -> np.ndarray:
        """``(batches,)``, NaN where it is not told."""
        return np.array([told.get(stage, np.nan) for told in self.seconds], dtype=float) * 1000

    def percentiles(self) -> list[tuple[str, list[float]]]:
        """Milliseconds by stage: 50 %, 95 %, 99 %, greatest."""
        found = []
        for stage in self.stages:
            known = self.milliseconds(stage)
            known = known[~np.isnan(known)]
            if len(known):
                found.append((stage, [*np.quantile(known, QUANTILES).tolist(), float(known.max())]))
        return found

    def edges(self) -> np.ndarray:
        """Of the bins of time, each 1, 2, 5, 10, … seconds: so that about as many batches are in each."""
        first, last = self.span
        width = next(
            w * 10**power for power in range(12) for w in (1, 2, 5) if w * 10**power * self.bins >= last - first
        )
        edges = first + width * np.arange(max(1, round((last - first) / width)) + 1.0)
        edges[-1] = last
        return edges

    def a_second(self, values: Iterable[float]) -> np.ndarray:
        """A value that each batch has, summed in each bin of time, a second of it."""
        edges = self.edges()
        sums = np.histogram(self.times, edges, weights=np.fromiter(values, float))[0]
        return sums / np.diff(edges)

    def by_bin(self, values: np.ndarray, how: Any) -> np.ndarray:
        """``how`` (np.mean, …) of the values in each bin of time, NaN where there are none."""
        places = np.clip(np.searchsorted(self.edges(), self.times, side="right") - 1, 0, len(self.edges()) - 2)
        found = np.full(len(self.edges()) - 1, np.nan)
        for place in np.unique(places):
            known = values[places == place]
            known = known[~np.isnan(known)]
            if len(known):
                found[place] = how(known)
        return found


def runs_of(events: Iterable[Mapping[str, Any]], bins: int = BINS) -> dict[str, Run]:
    """By query, in the order in which they first appear, with so many bins of time. Events that name no query are of the last one that was named."""
    found: dict[str, Run] = {}
    last = ""
    for event in events:
        last = str(event.get("query") or last)
        run = found.setdefault(last, Run(last, bins=bins))
        run.name = str(event.get("name") or run.name)
        run.add(event)
    return found


def totals(many: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The sum by key, largest first."""
    total: Counter[str] = Counter()
    for one in many:
        total.update(one)
    return dict(total.most_common())
