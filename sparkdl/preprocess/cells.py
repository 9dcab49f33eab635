"""The cells of a table's columns as numbers and as texts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sparkdl.columns import BadRows

_WHOLE = 2.0**63  # beyond it int64 holds none


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
