"""Series: arrays of one length as tensors, standardised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import repeat
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from sparkdl.columns import bad_rows, nulls
from sparkdl.errors import DataError, EmptyDatasetError
from sparkdl.preprocess.base import Preprocessor
from sparkdl.preprocess.cells import steady
from sparkdl.signature import quoted

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


class Series(Preprocessor):
    """An array column, array<double> or array<array<double>>, as float32 ``(length, features)``: each feature less its ``mean``,
    divided by its ``deviation``.

    length: steps of every row; that of the first row if it is not given. mean, deviation: one a feature, over all rows and steps
    where there is a value; learnt if they are not given. missing: what a null or NaN in the array is: ``refuse``, which makes it a
    bad row, or ``mean``, which is 0 once standardised.
    An infinity, another length, a null in place of the array are bad rows.
    """

    kind: Literal["series"] = "series"
    length: int = Field(default=0, ge=0, le=1_000_000)
    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()
    missing: Literal["refuse", "mean"] = "refuse"
    takes: ClassVar[tuple[str, ...]] = ("array<double>", "array<array<double>>")

    @model_validator(mode="after")
    def _fit_together(self) -> Series:
        if len(self.mean) != len(self.deviation):
            raise ValueError("mean and deviation must be as many, one a feature")
        if not all(np.isfinite(self.mean)) or not all(0 < one < np.inf for one in self.deviation):
            raise ValueError("mean must be finite, deviation above 0 and finite")
        return self

    @property
    def dtype(self) -> str:
        """Of the tensor."""
        return "float32"

    @property
    def shape(self) -> tuple[int, ...]:
        """Steps and features."""
        return (self.length, len(self.mean))

    def read(self, columns: Mapping[str, pa.Array]) -> np.ndarray:
        """See Preprocessor."""
        ((name, column),) = columns.items()
        values = self._values(name, column)
        missing = np.isnan(values)
        if self.missing == "refuse" and missing.any():
            raise _refused("null", name, missing, "values that are not null or NaN", "a step without a value")
        standard = (values - np.array(self.mean)) / np.array(self.deviation)
        standard[missing] = 0.0
        with np.errstate(over="ignore"):
            made = standard.astype(np.float32)
        infinite = np.isinf(made)
        if infinite.any():
            raise _refused(
                "non-finite", name, infinite, "finite values", "an infinity, or a value too large for float32"
            )
        return made

    def _values(self, name: str, column: pa.Array) -> np.ndarray:
        """(B, length, features) float64, NaN for a null. Raises BadRows for null and length."""
        expected = " × ".join(map(str, self.shape)) + " numbers"
        if column.null_count:
            raise bad_rows("null", name, np.flatnonzero(nulls(column)), expected, repeat(None))
        lengths = np.asarray(pc.list_value_length(column))
        self._check_lengths(name, lengths, np.arange(len(column)), self.length, "steps")
        steps = column.flatten()
        if _is_list(steps.type):
            rows = np.repeat(np.arange(len(column)), self.length)
            lengths = np.asarray(pc.fill_null(pc.list_value_length(steps), -1))
            self._check_lengths(name, lengths, rows, len(self.mean), "features in a step")
            steps = steps.flatten()
        numbers = pc.cast(steps, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        return np.array(numbers, dtype=np.float64).reshape(len(column), *self.shape)

    def _check_lengths(self, name: str, lengths: np.ndarray, rows: np.ndarray, expected: int, what: str) -> None:
        wrong = np.flatnonzero(lengths != expected)
        if len(wrong):
            found, first = np.unique(rows[wrong], return_index=True)
            got = (max(length, 0) for length in lengths[wrong[first]].tolist())
            raise bad_rows("shape", name, found, f"{expected} {what}", got)

    def fit(self, df: DataFrame, columns: Sequence[str]) -> Series:
        """See Preprocessor. Raises EmptyDatasetError; DataError for a feature of which there is no value."""
        from pyspark.sql import functions as sf

        (name,) = columns
        rows = df.select(quoted(name)).where(sf.size(quoted(name)) > 0)
        first = rows.head(1)
        if not first:
            raise EmptyDatasetError(name)
        nested, length = isinstance(first[0][0][0], (list, tuple)), len(first[0][0])
        known: dict[str, Any] = {"length": self.length or length}
        if not self.mean:
            known["mean"], known["deviation"] = _statistics(rows, name, len(first[0][0][0]) if nested else 0)
        return self.model_copy(update=known)


def _statistics(rows: DataFrame, name: str, nested: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of each feature, in one pass. nested: features of a step that is an array; 0: it is a number."""
    from pyspark.sql import functions as sf

    steps = rows.select(sf.explode(quoted(name)).alias("step"))
    features = [f"get(step, {j})" for j in range(nested)] or ["step"]
    told = []
    for feature in features:
        value = f"CAST({feature} AS DOUBLE)"
        number = f"CASE WHEN abs({value}) < double('infinity') THEN {value} END"  # Spark's NaN is above infinity
        told += [sf.expr(f"avg({number})"), sf.expr(f"stddev_pop({number})")]
    found = steps.select(*told).first()
    mean, deviation = tuple(found[0::2]), tuple(found[1::2])
    if None in mean:
        raise DataError(
            f"feature {mean.index(None)} of column {name!r} has no value in any row; leave it out",
            column=name, row=None, file=None, expected="numbers", got=None,
        )  # fmt: skip
    each = [steady(m, one if one > 1e-9 * max(abs(m), 1.0) else 1.0) for m, one in zip(mean, deviation, strict=True)]
    return tuple(m for m, _ in each), tuple(one for _, one in each)


def _refused(kind: str, name: str, wrong: np.ndarray, expected: str, got: str) -> Exception:
    return bad_rows(kind, name, np.flatnonzero(wrong.any(axis=(1, 2))), expected, repeat(got))


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))
