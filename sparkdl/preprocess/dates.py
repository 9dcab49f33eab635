"""A date or a point in time as numbers that a model can use."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import repeat
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import model_validator

from sparkdl.columns import bad_rows
from sparkdl.preprocess.base import Preprocessor
from sparkdl.preprocess.cells import together

Part = Literal["year", "month", "day", "weekday", "hour"]
PERIODS = {"month": 12, "day": 31, "weekday": 7, "hour": 24}
_NULL = "a null"


class DateParts(Preprocessor):
    """A date or timestamp as float32 of shape ``(k,)``: its parts, in the order of ``parts``.

    ``year``: where it lies in ``years``, 0 at the start of the first and 1 at that of the last. The others go round: the
    sine and the cosine of 2π · part / period, two numbers, so that December is beside January; not ``cyclic``: one number,
    part / period. Counted from 0, of 12 months, 31 days, 7 weekdays (Monday 0), 24 hours with their minutes and seconds.

    A timestamp is taken in UTC, whatever the session's time zone is; one without a zone (timestamp_ntz) as its clock says.
    missing: a null becomes zeros (``zero``), as no date does while ``cyclic``, or is a bad row (``error``).
    outside: a year before the first or after the last of ``years``, of a clock that was never set, is a bad row
    (``error``), or counts as the first or last (``clip``).
    """

    kind: Literal["dates"] = "dates"
    parts: tuple[Part, ...] = ("year", "month", "day", "weekday", "hour")
    cyclic: bool = True
    years: tuple[int, int] = (1970, 2100)
    missing: Literal["zero", "error"] = "zero"
    outside: Literal["error", "clip"] = "error"
    takes: ClassVar[tuple[str, ...]] = ("timestamp", "timestamp_ntz", "date")

    @model_validator(mode="after")
    def _sound(self) -> DateParts:
        if not self.parts or len(set(self.parts)) < len(self.parts):
            raise ValueError("'parts' must be different parts, at least one")
        if not 1 <= self.years[0] < self.years[1] <= 9999:
            raise ValueError("'years' must be two years, the earlier first, from 1 to 9999")
        return self

    @property
    def dtype(self) -> str:
        """Of the parts."""
        return "float32"

    @property
    def shape(self) -> tuple[int, ...]:
        """One number for the year and, if ``cyclic``, two for each other part."""
        return (sum(1 if part == "year" or not self.cyclic else 2 for part in self.parts),)

    def read(self, columns: Mapping[str, pa.Array]) -> np.ndarray:
        """See Preprocessor."""
        ((name, column),) = columns.items()
        times = _in_utc(column)
        missing = times.is_null().to_numpy(zero_copy_only=False)
        times = pc.fill_null(times, 0)
        years = pc.year(times).to_numpy(zero_copy_only=False)
        outside = (years < self.years[0]) | (years > self.years[1])
        problems = []
        if self.missing == "error" and missing.any():
            problems.append(bad_rows("null", name, np.flatnonzero(missing), "a date", repeat(_NULL)))
        if self.outside == "error" and (outside & ~missing).any():
            wrong = np.flatnonzero(outside & ~missing)
            expected = f"a year from {self.years[0]} to {self.years[1]}"
            problems.append(bad_rows("value", name, wrong, expected, years[wrong]))
        if problems:
            raise together(problems)
        made = np.stack([value for part in self.parts for value in self._numbers(part, times, years)], axis=1)
        made[missing] = 0
        return made.astype(np.float32)

    def _numbers(self, part: str, times: pa.Array, years: np.ndarray) -> list[np.ndarray]:
        if part == "year":
            first, last = self.years
            return [(np.clip(years, first, last) - first) / (last - first)]
        share = _counted(part, times) / PERIODS[part]
        return [np.sin(2 * np.pi * share), np.cos(2 * np.pi * share)] if self.cyclic else [share]


def _in_utc(column: pa.Array) -> pa.Array:
    """Microseconds, without a zone. Numbers are microseconds since 1970 in UTC, as a Spark plan carries a timestamp to
    pandas, which has no year 1; and makes floats of whole numbers with a null among them."""
    if pa.types.is_floating(column.type):
        column = column.cast(pa.int64(), safe=False)
    if pa.types.is_date(column.type):
        column = column.cast(pa.date32())
    return column.cast(pa.timestamp("us"), safe=False)


def _counted(part: str, times: pa.Array) -> np.ndarray:
    """A part, counted from 0."""
    if part == "hour":
        day = times.cast(pa.int64()).to_numpy(zero_copy_only=False) % (24 * 3600 * 1_000_000)
        return np.asarray(day / (3600 * 1_000_000))
    if part == "weekday":
        return np.asarray(pc.day_of_week(times).to_numpy(zero_copy_only=False))
    number = (pc.month if part == "month" else pc.day)(times)
    return np.asarray(number.to_numpy(zero_copy_only=False) - 1)
