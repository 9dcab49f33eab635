"""Columns of numbers as one vector: missing ones filled in, log-scaled, clipped, standardised."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import model_validator

from sparkdl.columns import bad_rows
from sparkdl.errors import DataError
from sparkdl.preprocess.cells import floats, steady, together
from sparkdl.preprocess.learner import Learner
from sparkdl.preprocess.statistics import Moments, bins, quantiles


class Numbers(Learner):
    """Columns of numbers or booleans as float32 of shape ``(n,)``, with ``indicator`` ``(2 n,)``.

    impute: what a null or NaN becomes: the column's ``mean`` or ``median``, the number ``fill`` (``constant``), or it is a
    bad row (``error``). indicator: n further numbers, 1 where the column's was missing.
    infinite: an infinite one is a bad row (``error``), or the largest or smallest that was learnt (``clip``).
    clip: two quantiles, ``(0.01, 0.99)``, that values are held between. They and the median are right to 0.1 % of themselves.
    log: sign(x) · ln(1 + \\|x\\|) in place of x.
    scale: ``standard`` (x - mean) / standard deviation, of the rows; ``minmax`` (x - smallest) / (largest - smallest);
    ``none``. With the first two a column of one value becomes 0. Mean and deviation are of the log-scaled values before they are clipped.

    All of it is done here, in float64, and rounded to float32 then: in a model's float32 the small differences of large
    numbers (an account number, seconds since 1970) were lost before a mean could be taken off.

    The other fields, one number a column, are learnt: ``fills``, ``lows``, ``highs`` of the log-scaled values; ``shifts``
    and ``scales``, what is taken off and what divided by then.
    """

    kind: Literal["numbers"] = "numbers"
    impute: Literal["mean", "median", "constant", "error"] = "median"
    fill: float = 0.0
    indicator: bool = False
    infinite: Literal["error", "clip"] = "error"
    clip: tuple[float, float] | None = None
    log: bool = False
    scale: Literal["standard", "minmax", "none"] = "standard"
    fills: tuple[float, ...] = ()
    lows: tuple[float, ...] = ()
    highs: tuple[float, ...] = ()
    shifts: tuple[float, ...] = ()
    scales: tuple[float, ...] = ()
    takes: ClassVar[tuple[str, ...]] = ("long", "boolean")
    most: ClassVar[int | None] = None

    @model_validator(mode="after")
    def _sound(self) -> Numbers:
        if self.clip is not None and not 0 <= self.clip[0] < self.clip[1] <= 1:
            raise ValueError("'clip' must be two quantiles, the lower first, from 0 to 1")
        learnt = (self.fills, self.lows, self.highs, self.shifts, self.scales)
        if len({len(one) for one in learnt}) > 1:
            raise ValueError("'fills', 'lows', 'highs', 'shifts' and 'scales' must have a number for each column")
        if not all(math.isfinite(value) for one in (*learnt, (self.fill,)) for value in one) or 0 in self.scales:
            raise ValueError("what is learnt must be finite, and no scale 0")
        return self

    @property
    def dtype(self) -> str:
        """Of the vector."""
        return "float32"

    @property
    def shape(self) -> tuple[int, ...]:
        """One number a column; with ``indicator`` two."""
        return (len(self.fills) * (2 if self.indicator else 1),)

    @property
    def count(self) -> int | None:
        """See Preprocessor."""
        return len(self.fills) or None

    @property
    def is_learnt(self) -> bool:
        """See Learner."""
        return bool(self.fills)

    def read(self, columns: Mapping[str, pa.Array]) -> np.ndarray:
        """See Preprocessor."""
        rows = len(next(iter(columns.values())))
        made: np.ndarray = np.zeros((rows, *self.shape), dtype=np.float32)
        problems = []
        for place, (name, column) in enumerate(columns.items()):
            values = floats(column)
            missing, infinite = np.isnan(values), np.isinf(values)
            if self.impute == "error" and missing.any():
                wrong = np.flatnonzero(missing)
                problems.append(bad_rows("null", name, wrong, "a number", ("a null or NaN" for _ in wrong)))
            if self.infinite == "error" and infinite.any():
                wrong = np.flatnonzero(infinite)
                problems.append(bad_rows("non-finite", name, wrong, "a finite number", values[wrong]))
            values = self._scaled(values)
            if self.clip is not None or self.infinite == "clip":
                values = np.clip(values, self.lows[place], self.highs[place])
            values = np.where(missing, self.fills[place], values)
            with np.errstate(over="ignore"):
                made[:, place] = (values - self.shifts[place]) / self.scales[place]
            too_large = np.flatnonzero(np.isinf(made[:, place]) & ~infinite)
            if len(too_large):
                problems.append(
                    bad_rows("value", name, too_large, "a number that float32 holds", floats(column)[too_large])
                )
            if self.indicator:
                made[:, len(self.fills) + place] = missing
        if problems:
            raise together(problems)
        return made

    def measured(self, columns: Mapping[str, pa.Array]) -> list[np.ndarray]:
        """See Learner."""
        return [self._scaled(floats(column)) for column in columns.values()]

    def counted(self, columns: Mapping[str, pa.Array]) -> list[pa.Array]:
        """See Learner."""
        return [bins(values) for values in self.measured(columns)] if self._needs_quantiles else []

    @property
    def _needs_quantiles(self) -> bool:
        return self.clip is not None or self.impute == "median"

    def _scaled(self, values: np.ndarray) -> np.ndarray:
        return np.sign(values) * np.log1p(np.abs(values)) if self.log else values

    def learnt(
        self, columns: Sequence[str], moments: Sequence[Moments], counts: Sequence[Mapping[str, int]]
    ) -> Numbers:
        """See Learner. A column without a finite number can only be filled with a ``constant``."""
        found = [self._one(*told) for told in zip(columns, moments, counts, strict=True)]
        told = dict(zip(("fills", "lows", "highs", "shifts", "scales"), zip(*found, strict=True), strict=True))
        return Numbers(**{**self.model_dump(), **told})

    def _one(self, name: str, known: Moments, counts: Mapping[str, int]) -> tuple[float, float, float, float, float]:
        """What is learnt of a column: fill, low, high, shift, scale."""
        constant = float(self._scaled(np.array([self.fill]))[0])
        if not known.count:
            if self.impute == "constant":
                return constant, constant, constant, 0.0, 1.0
            raise DataError(
                f"column {name!r} holds no number to learn from, only null, NaN or inf; leave it out, or impute='constant'",
                column=name, row=None, file=None, expected="numbers", got=None,
            )  # fmt: skip
        smallest, largest = known.smallest, known.largest
        mean, deviation = steady(known.mean, known.deviation)
        forms = {
            "standard": (mean, deviation),
            "minmax": (smallest, largest - smallest),
            "none": (0.0, 1.0),
        }
        shift, scale = forms[self.scale]
        if not (math.isfinite(shift) and math.isfinite(scale)):
            raise DataError(
                f"column {name!r} holds numbers as large as {max(abs(smallest), abs(largest)):g}, whose mean or deviation "
                "float64 does not hold; set log=True, or scale='none'",
                column=name, row=None, file=None, expected="numbers that can be added", got=largest,
            )  # fmt: skip
        low, median, high = smallest, 0.0, largest
        if self._needs_quantiles:
            asked = quantiles({int(number): count for number, count in counts.items()}, [*(self.clip or (0, 1)), 0.5])
            *ends, median = (min(max(value, smallest), largest) for value in asked)
            low, high = ends if self.clip is not None else (low, high)
        fill = {"mean": mean, "median": median, "constant": constant, "error": 0.0}[self.impute]
        if smallest == largest and self.scale != "none":  # its deviation is 0 but for rounding
            return fill, low, high, smallest, 1.0
        return fill, low, high, shift, scale or 1.0
