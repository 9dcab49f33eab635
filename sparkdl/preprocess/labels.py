"""Labels as class numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sparkdl.columns import bad_rows
from sparkdl.errors import DataError, EmptyDatasetError
from sparkdl.preprocess.base import Preprocessor
from sparkdl.signature import quoted

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

MOST = 100_000  # different labels: more than that are no classes


class Labels(Preprocessor):
    """A column of labels as class numbers, int64 of shape ``()``: the place of each in ``values``.

    values: the labels; those of the training rows in order if none are given. A null, or one that is not there, is a bad
    row.
    """

    kind: Literal["labels"] = "labels"
    values: tuple[bool | int | str, ...] = ()
    takes: ClassVar[tuple[str, ...]] = ("string", "long", "boolean")

    @property
    def dtype(self) -> str:
        """Of a class number."""
        return "int64"

    @property
    def shape(self) -> tuple[int, ...]:
        """One number a row."""
        return ()

    @cached_property
    def known(self) -> pa.Array:
        """The values."""
        return pa.array(list(self.values))

    def read(self, columns: Mapping[str, pa.Array]) -> np.ndarray:
        """See Preprocessor."""
        ((name, column),) = columns.items()
        numbers = places(column, self.known)
        if numbers.null_count:
            wrong = np.flatnonzero(numbers.is_null().to_numpy(zero_copy_only=False))
            got = (repr(column[int(row)].as_py()) for row in wrong)
            raise bad_rows("value", name, wrong, f"one of the {len(self.values)} labels {_some(self.values)}", got)
        return np.asarray(numbers.to_numpy(zero_copy_only=False), dtype=np.int64)

    def fit(self, df: DataFrame, columns: Sequence[str]) -> Labels:
        """See Preprocessor. Raises DataError for too many different labels, EmptyDatasetError."""
        if self.values:
            return self
        (name,) = columns
        found = df.select(quoted(name)).where(f"{quoted(name)} IS NOT NULL").distinct().limit(MOST + 1).collect()
        if not found:
            raise EmptyDatasetError(name)
        if len(found) > MOST:
            raise DataError(
                f"column {name!r} holds more than {MOST:,} different labels; are these classes?",
                column=name, row=None, file=None, expected=f"at most {MOST:,} labels", got=len(found),
            )  # fmt: skip
        values = [int(row[0]) if isinstance(row[0], float) and row[0].is_integer() else row[0] for row in found]
        fraction = next((value for value in values if isinstance(value, float)), None)
        if fraction is not None:
            raise DataError(
                f"column {name!r} holds numbers that are not whole, {fraction} say, which are no classes; train a regression",
                column=name, row=None, file=None, expected="labels", got=fraction,
            )  # fmt: skip
        return Labels(values=tuple(sorted(values)))


def places(column: pa.Array, known: pa.Array) -> pa.Array:
    """The place in ``known`` of each value of the column, int32; null for one that is not there."""
    numbers = pc.index_in(column.cast(known.type, safe=False), value_set=known)
    if pa.types.is_floating(column.type):  # whole ones, as the values were learnt from
        return pc.if_else(pc.equal(column, pc.floor(column)), numbers, None)
    return numbers


def _some(values: Sequence[object], most: int = 8) -> str:
    return ", ".join(map(repr, values[:most])) + (", …" if len(values) > most else "")
