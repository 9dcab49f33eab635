"""One static HTML file about a query, out of its events: no scripts, nothing fetched, text escaped."""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from typing import Any

from sparkdl import __version__, store
from sparkdl.errors import InvalidParamError
from sparkdl.stream.events import read
from sparkdl.stream.plots import PSI_LITTLE, PSI_MUCH, pictures
from sparkdl.stream.run import LISTED, Run, runs_of, totals

FEATURES = 20
_CELL = 300  # letters


def write(path: str, events: str | os.PathLike[str] | Iterable[Mapping[str, Any]], name: str | None = None) -> None:
    """Write the report of a query to the URI ``path``; its size does not grow with the number of batches.

    events: the file of a ``Monitor(jsonl=…)``, with those rotated away, or events themselves. name: the query's, or its
    id, where there are several; the last one that was started by default.
    Raises StoreError for files that cannot be read or written, InvalidParamError if there are no events.
    """
    many = runs_of(read(os.fspath(events)) if isinstance(events, (str, os.PathLike)) else events)
    named = [run for run in many.values() if name is not None and name in (run.name, run.query)]
    if not many:
        raise InvalidParamError(
            f"there are no events to report on in {str(events)[:_CELL]!r}", param="events", value=events
        )
    run = (named or list(many.values()))[-1]
    store.write_bytes(path, html(run, run.name or name or run.query[:8]).encode())


def html(run: Run, name: str) -> str:
    """The page. Raises SparkdlError if jinja2 or matplotlib is missing."""
    return page("report.html", name=name, run=run, images=inline(pictures(run)), facts=_facts(run),
                happened=run.happened[-LISTED:], more=max(0, len(run.happened) - LISTED),
                dead=totals(run.dead), versions=totals(run.versions), nulls=_top(dict(run.nulls)),
                drift=_drift(run))  # fmt: skip


def page(template: str, **told: Any) -> str:
    """A template of this package, filled in; text is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("sparkdl.stream"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"clock": _clock, "short": _short, "number": "{:,.0f}".format, "three": "{:.3g}".format}
    levels = {"little": PSI_LITTLE, "much": PSI_MUCH}
    return str(environment.get_template(template).render(version=__version__, now=time.time(), **levels, **told))


def inline(pictures: Mapping[str, str]) -> dict[str, str]:
    """SVG by name as what an img's src takes."""
    return {
        key: f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}" for key, svg in pictures.items()
    }


def _facts(run: Run) -> list[tuple[str, str, str]]:
    """The large figures at the top: what, how much, and a word with it."""
    first, last = run.span
    rows, dead = sum(run.rows), sum(totals(run.dead).values())
    share = f"{dead / rows:.3%} of all" if rows else ""
    facts = [
        ("rows in", f"{rows:,}", f"{rows / (last - first):,.0f} a second"),
        ("rows out", f"{run.scored:,}", f"{run.skipped:,} skipped" if run.skipped else ""),
        ("dead letters", f"{dead:,}", share),
        ("batches", f"{len(run.times):,}", f"{run.replayed:,} replayed" if run.replayed else ""),
    ]
    by = dict(run.percentiles())
    if "total" in by:
        p50, _, p99, most = by["total"]
        facts.append(("a batch, p50", f"{p50:,.0f} ms", f"p99 {p99:,.0f} ms, at most {most:,.0f} ms"))
    worst = run.drift[-1]["features"][0] if run.drift and run.drift[-1]["features"] else None
    if worst:
        facts.append(("largest PSI", f"{worst['psi']:.3f}", _short(worst["feature"])))
    facts.append(("alerts", f"{len(run.alerts):,}", f"refused models: {len(run.refused):,}" if run.refused else ""))
    return facts


def _drift(run: Run) -> list[Mapping[str, Any]]:
    return list(run.drift[-1]["features"][:FEATURES]) if run.drift else []


def _top(counts: Mapping[str, int], most: int = FEATURES) -> dict[str, int]:
    there = {name: count for name, count in counts.items() if count}
    return dict(sorted(there.items(), key=lambda item: -item[1])[:most])


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at, timezone.utc).strftime("%Y-%m-%d %H:%M:%S")


def _short(text: Any) -> str:
    text = str(text)
    return text if len(text) <= _CELL else text[:_CELL] + "…"
