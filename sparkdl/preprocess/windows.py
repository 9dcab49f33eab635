"""Windows over events and metrics: rows with arrays, out of a table or of a stream by the same code. docs/sequences.md."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sparkdl.errors import ColumnNotFoundError, InvalidParamError, SignatureError, did_you_mean
from sparkdl.preprocess.windowing import COMBINE, FILL, FOREVER, Grid, State, Windows, advance
from sparkdl.signature import quoted
from sparkdl.stream.rate import seconds_of

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import DataFrame
    from pyspark.sql.streaming.state import GroupState

END, SERIES, LABEL = "window_end", "series", "label"  # of the columns that are made
REFUSED = "sparkdl_windows"  # the name under which what is left out is observed
_TIME = "sparkdl_time"
_NUMBERS = ("byte", "short", "integer", "long", "float", "double", "decimal", "boolean")


def windows(
    df: DataFrame,
    *,
    by: Sequence[str] | str,
    at: str,
    values: Sequence[str] | str,
    every: str,
    length: int,
    step: int = 1,
    horizon: int = 0,
    target: str | None = None,
    combine: str = "last",
    fill: str = "null",
    lateness: str = "10 minutes",
    skew: str = "1 hour",
    arrived: str | None = None,
) -> DataFrame:
    """A row a window: the columns of ``by``; ``window_end``, the time at which its last cell ends; ``series``, array<float>, of
    several values array<array<float>>, ``length`` long; with a ``horizon``, ``label``, array<float>: what came next.

    df: events, one a row, a table or a stream. A stream gives the windows of the table of all its events, each once, as soon as
    the watermark has passed them; in output mode append.

    by: whose series these are, ``["host"]``. at: a timestamp column. values: numeric columns; null and NaN are no value.
    every: the time of a cell, ``1 minute``; cells begin at multiples of it since 1970, in UTC.
    length, step, horizon: in cells: of a window, between the ends of two, of the label. A window ends where its end is a multiple
    of ``step * every``. target: which of the values the label is of, by default the first.
    combine: what becomes of several events in a cell: their ``last`` value (of two at the same time the larger), ``mean``, ``sum``,
    ``min`` or ``max``. An event that came twice counts twice in mean and sum: see ``DataFrame.dropDuplicates``.
    fill: what stands in a cell without a value: ``null``, ``zero``, or the ``previous`` value in the window (at its beginning the
    next). A hole as long as a window is not filled: after it windows begin anew.
    lateness: of a stream: how far behind the newest event one may come; a later one is left out, and counted by Spark as
    ``numRowsDroppedByWatermark``.
    skew: how far ahead an event's time may be of the time at which it arrived: now, or what is in the timestamp column
    ``arrived`` (of Kafka ``timestamp``). One that is farther ahead has a wrong clock: it is left out before it moves the watermark.
    It is counted, as is one without a time, in the observed metrics ``sparkdl_windows``: ``ahead`` and ``timeless``.

    Raises InvalidParamError, ColumnNotFoundError, SignatureError.
    """
    from pyspark.sql import functions as sf

    by, values = _names(by, "by"), _names(values, "values")
    _check_columns(df, by, at, values, arrived)
    grid = _grid(every, length, step, horizon, combine, fill, values, target)
    duration("lateness", lateness)
    known = _events(df, at, arrived, duration("skew", skew))
    if df.isStreaming:
        known = known.withWatermark(at, lateness)
    events = known.select(
        *(sf.col(quoted(name)) for name in by),
        *([sf.col(quoted(at))] if df.isStreaming else []),  # whose watermark the state waits for
        sf.unix_micros(sf.col(quoted(at))).alias(_TIME),
        *(sf.col(quoted(name)).cast("double").alias(f"{_TIME}_{j}") for j, name in enumerate(values)),
    )
    types = {field.name: field.dataType.simpleString() for field in df.schema.fields}
    series = "array<array<float>>" if len(values) > 1 else "array<float>"
    made = [*(f"{quoted(name)} {types[name]}" for name in by), f"{END} bigint", f"{SERIES} {series}"]
    made += [f"{LABEL} array<float>"] if horizon else []
    work = _Work(grid, tuple(by), len(values))
    groups = events.groupBy(*(sf.col(quoted(name)) for name in by))
    if df.isStreaming:
        found = groups.applyInPandasWithState(
            lambda key, events, state: work.of_stream(key, events, state),  # a method's self Spark would count
            ", ".join(made), "state binary", "append", "EventTimeTimeout",
        )  # fmt: skip
    else:
        found = groups.applyInPandas(lambda key, events: work.of_table(key, events), ", ".join(made))
    return found.withColumn(END, sf.timestamp_micros(END))


@dataclass(frozen=True)
class _Work:
    """What the workers do with the events of a key."""

    grid: Grid
    by: tuple[str, ...]
    values: int

    def of_table(self, key: tuple[Any, ...], events: pd.DataFrame) -> pd.DataFrame:
        """All windows."""
        _, found = advance(self.grid, State.empty(self.values), *self._arrays([events]), FOREVER)
        return self._rows(key, found)

    def of_stream(
        self, key: tuple[Any, ...], events: Iterator[pd.DataFrame], state: GroupState
    ) -> Iterator[pd.DataFrame]:
        """The windows that these events, or the time, have ended."""
        before = State.from_bytes(state.get[0], self.values) if state.exists else State.empty(self.values)
        watermark = state.getCurrentWatermarkMs()
        closed = self.grid.closed_at(max(watermark, 0) * 1000)
        after, found = advance(self.grid, before, *self._arrays([] if state.hasTimedOut else list(events)), closed)
        if found.wake is None:
            state.remove()
        else:
            state.update((after.to_bytes(),))
            state.setTimeoutTimestamp(max(found.wake * self.grid.every // 1000, watermark + 1))
        yield self._rows(key, found)

    def _arrays(self, events: list[pd.DataFrame]) -> tuple[np.ndarray, np.ndarray]:
        """Times (E,) and values (E, F)."""
        times = [one[_TIME].to_numpy(np.int64) for one in events]
        values = [one.filter(regex=f"^{_TIME}_").to_numpy(float) for one in events]
        empty = State.empty(self.values)
        return np.concatenate([empty.index, *times]), np.concatenate([empty.value, *values])

    def _rows(self, key: tuple[Any, ...], found: Windows) -> pd.DataFrame:
        import pandas as pd

        count = len(found.ends)
        columns: dict[str, Any] = {name: [value] * count for name, value in zip(self.by, key, strict=True)}
        series = found.series[..., 0] if self.values == 1 else found.series
        columns |= {END: found.ends, SERIES: series.tolist()}
        return pd.DataFrame(columns | ({LABEL: found.label.tolist()} if self.grid.horizon else {}))


def duration(name: str, told: Any) -> float:
    """Seconds of a text such as ``5 minutes``. Raises InvalidParamError."""
    try:
        return seconds_of(told)
    except ValueError:
        raise InvalidParamError(
            f"{name!r} must be a time such as '1 minute' (got {told!r})", param=name, value=told
        ) from None


def _events(df: DataFrame, at: str, arrived: str | None, skew: float) -> DataFrame:
    """Those with a time that can be; the others are counted as they go by."""
    from pyspark.sql import functions as sf

    time = sf.col(quoted(at))
    now = sf.current_timestamp() if arrived is None else sf.col(quoted(arrived))
    ahead = sf.coalesce(sf.unix_micros(time) > sf.unix_micros(now) + sf.lit(int(skew * 1e6)), sf.lit(False))
    counted = df.withColumn(_TIME, ahead).observe(
        REFUSED,
        sf.count(sf.when(sf.col(_TIME), 1)).alias("ahead"),
        sf.count(sf.when(time.isNull(), 1)).alias("timeless"),
    )
    return counted.where(time.isNotNull() & ~sf.col(_TIME)).drop(_TIME)


def _names(given: Any, what: str) -> list[str]:
    names = [given] if isinstance(given, str) else list(given) if isinstance(given, (list, tuple)) else []
    if not names or not all(isinstance(name, str) and name for name in names) or len(set(names)) < len(names):
        raise InvalidParamError(
            f"{what!r} must be names of columns, at least one, each once (got {given!r})", param=what, value=given
        )
    return names


def _check_columns(df: DataFrame, by: Sequence[str], at: str, values: Sequence[str], arrived: str | None) -> None:
    types = {field["name"]: field["type"] for field in df.schema.jsonValue()["fields"]}
    for role, names in (("by", by), ("at", [at]), ("values", values), ("arrived", [arrived] if arrived else [])):
        for name in names:
            if name not in types:
                raise ColumnNotFoundError(name, types, role=f"in {role}, column")
    for name in filter(None, (at, arrived)):
        if types[name] != "timestamp":
            raise SignatureError(
                f"column {name!r} is {types[name]}; the time of an event is a timestamp: cast it, to_timestamp({name}) or "
                f"timestamp_millis({name}) say",
                column=name, expected="timestamp", got=types[name],
            )  # fmt: skip
    for name in values:
        if str(types[name]).split("(")[0] not in _NUMBERS:
            raise SignatureError(
                f"column {name!r} is {types[name]}; the values of a window are numbers",
                column=name, expected="a number", got=types[name],
            )  # fmt: skip
    for name in by:
        if name in (END, SERIES, LABEL, at):
            raise InvalidParamError(
                f"'by' must not name {name!r}, which is the name of another column here; rename it",
                param="by",
                value=by,
            )


def _grid(
    every: Any, length: Any, step: Any, horizon: Any, combine: Any, fill: Any, values: Sequence[str], target: str | None
) -> Grid:
    cell = round(duration("every", every) * 1e6)
    if cell < 1000:
        raise InvalidParamError(f"'every' must be a millisecond or more (got {every!r})", param="every", value=every)
    for name, count, least in (("length", length, 1), ("step", step, 1), ("horizon", horizon, 0)):
        if isinstance(count, bool) or not isinstance(count, int) or count < least:
            raise InvalidParamError(
                f"{name!r} must be a whole number of cells, at least {least} (got {count!r})", param=name, value=count
            )
    for name, chosen, options in (
        ("combine", combine, COMBINE),
        ("fill", fill, FILL),
        ("target", target, (*values, None)),
    ):
        if chosen not in options:
            hint = did_you_mean(str(chosen), [option for option in options if option])
            raise InvalidParamError(
                f"{name!r} must be one of {list(options)}{hint} (got {chosen!r})", param=name, value=chosen
            )
    return Grid(cell, length, step, horizon, combine, fill, values.index(target) if target else 0)
