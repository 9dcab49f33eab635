"""The cells of a table's columns as numbers and as texts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sparkdl.columns import BadRows

_WHOLE = 2.0**63  # beyond it int64 holds none


class BadCell(Exception):
    """What is wrong with one row: kind, of ``columns.KINDS``; expected; got; and in which column, if there are several."""

    def __init__(self, kind: str, expected: str, got: Any, column: str = "") -> None:
        super().__init__(kind, expected, got, column)
        self.kind, self.expected, self.got, self.column = kind, expected, got, column


def floats(column: pa.Array) -> np.ndarray:
    """Numbers and booleans as float64, ``(B,)``; a null is NaN."""
    values = pc.cast(column, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return np.asarray(values, dtype=np.float64)


def texts(column: pa.Array) -> pa.Array:
    """Each cell as the text that tells it from others: ``2`` of 2 and of 2.0, ``true``; null of null, of a fraction, NaN
    and inf."""
    if pa.types.is_floating(column.type) or pa.types.is_decimal(column.type):
        values = floats(column)
        whole = (np.floor(values) == values) & (np.abs(values) < _WHOLE)
        column = pa.array(np.where(whole, values, 0).astype(np.int64), mask=~whole)
    return pc.cast(column, pa.string())


def steady(mean: float, deviation: float) -> tuple[float, float]:
    """Both, but for the last digits, which say nothing: sums differ in their last bits by how Spark cut the rows
    into parts, and a fit that is resumed compares what was learnt."""
    unit = min(max(deviation * 1e-9, abs(mean) * 1e-14), deviation * 1e-3)
    if not (math.isfinite(unit) and unit):
        return mean, deviation
    return round(mean, -math.ceil(math.log10(unit))), float(f"{deviation:.9g}")


def together(problems: Sequence[BadRows]) -> BadRows:
    """One error for the bad rows of several columns; of a row that is bad in several, the first counts."""
    first: dict[int, tuple[BadRows, str]] = {}
    for problem in problems:
        for row, reason in zip(problem.rows, problem.reasons, strict=True):
            first.setdefault(row, (problem, reason))
    rows = sorted(first)
    found = next(problem for problem in problems if problem.rows[0] == rows[0])
    found.rows, found.reasons = rows, [first[row][1] for row in rows]
    return found
