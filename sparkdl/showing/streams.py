"""Running queries: what is known of one now, with pictures of how it went so far."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from sparkdl.errors import InvalidParamError, SparkdlError
from sparkdl.showing import encoding, plain, values
from sparkdl.showing.pieces import Facts, Picture, Piece

if TYPE_CHECKING:
    from sparkdl.stream.run import Run

_BINS = 36  # of time: two pictures with more would not fit into a paragraph of Zeppelin
_DRAWN = {"throughput": "rows a second over time", "latency": "milliseconds of a batch over time, by stage"}


def is_query(x: Any) -> bool:
    """True for a ``score_stream`` and for any other streaming query of Spark's."""
    return any(
        (kind.__module__, kind.__name__) == ("sparkdl.stream.watched", "WatchedQuery")
        or (kind.__name__ == "StreamingQuery" and kind.__module__.startswith("pyspark.sql"))
        for kind in type(x).__mro__
    )


def checked(query: Any) -> Any:
    """The query. Raises InvalidParamError for anything else."""
    if not is_query(query):
        raise InvalidParamError(
            f"live takes a running query: what score_stream or writeStream.start() gave (got {type(query).__name__})",
            param="query",
            value=query,
        )
    return query


def pieces_of(query: Any) -> list[Piece]:
    """How it is now, and bars of how it went."""
    if not hasattr(query, "events"):
        return [Facts(tuple(_of_real_time(query) if hasattr(query, "latency") else _of_spark(query)))]
    lines, run = query.status().lines(), _run(query)
    if len(run.times) > 1:
        lines.append(("rows/s", plain.sparkline(run.a_second(run.rows))))
        lines.append(("ms a batch", plain.sparkline(run.milliseconds("total"))))
    return [Facts(tuple(lines))]


def with_pictures(query: Any) -> list[Piece]:
    """The same with pictures in place of bars, where there is matplotlib."""
    if not hasattr(query, "events"):
        return pieces_of(query)
    try:
        encoding.needed("matplotlib")
    except SparkdlError:
        return pieces_of(query)
    from sparkdl.stream.plots import pictures

    drawn = pictures(_run(query), list(_DRAWN))
    return [
        Facts(tuple(query.status().lines())),
        *(Picture(_rounded(svg).encode(), _DRAWN[name], name, media="image/svg+xml") for name, svg in drawn.items()),
    ]


def _rounded(svg: str) -> str:
    """The places of lines to a tenth of a point, which nobody sees, and which is half of the bytes."""
    return re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\.\d)\d+", r"\1", path[0]), svg)


def _run(query: Any) -> Run:
    from sparkdl.stream.run import Run, runs_of

    return next(iter(runs_of(query.events(), bins=_BINS).values()), Run())


def _of_real_time(query: Any) -> list[tuple[str, str]]:
    lines: list[tuple[str, str]] = query.status().lines()
    return [*lines, ("latency", str(query.latency()))] if query.isActive else lines


def _of_spark(query: Any) -> list[tuple[str, str]]:
    """Of a query that sparkdl did not start."""
    from sparkdl.stream.events import as_json

    error = query.exception()
    state = "running" if query.isActive else "failed" if error else "stopped"
    lines = [("query", f"{query.name or 'without a name'} ({str(query.id)[:8]}), {state}")]
    if query.isActive:
        lines.append(("now", str(query.status.get("message", ""))))
    progress = [as_json(one) for one in query.recentProgress]
    if progress:
        last = progress[-1]
        rows = [one.get("numInputRows") or 0 for one in progress]
        took = np.array(
            [(one.get("durationMs") or {}).get("triggerExecution", np.nan) for one in progress], dtype=float
        )
        speed = last.get("processedRowsPerSecond") or 0.0
        lines += [
            ("batch", f"{last['batchId']:,}, {values.count(rows[-1], 'row')}, {speed:,.0f} rows/s, {took[-1]:,.0f} ms"),
            (
                "rows",
                f"{sum(rows):,} in the last {values.count(len(rows), 'batch') if len(rows) == 1 else f'{len(rows)} batches'}",
            ),
            ("rows a batch", plain.sparkline(rows)),
            ("ms a batch", plain.sparkline(took)),
        ]
    if error:
        lines.append(("error", values.shortened(str(error).split("\n")[0], 500)))
    return lines
