"""Labels as class numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sparkdl.columns import bad_rows
from sparkdl.errors import DataError, EmptyDatasetError, InvalidParamError, SignatureError
from sparkdl.preprocess.base import Preprocessor
from sparkdl.settings import Values
from sparkdl.signature import quoted

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

MOST = 100_000  # different labels: more than that are no classes


class Labels(Preprocessor):
    """A column of labels as class numbers, int64 of shape ``()``: the place of each in ``values``.

    values: the labels, all of one kind; in order those of all rows that ``fit`` is given, validation rows too, if none are
    given. A null, or one that is not there, is a bad row.
    """

    kind: Literal["labels"] = "labels"
    values: Values = ()
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
    def _known(self) -> pa.Array:
        """The values; booleans as 0 and 1, so that 2 is none of them."""
        return pa.array(self.values, pa.string()) if self._are_texts else pa.array([int(one) for one in self.values])

    @property
    def _are_texts(self) -> bool:
        return isinstance(self.values[0], str)

    def places(self, name: str, column: pa.Array) -> pa.Array:
        """The place in ``values`` of each value of the column, int32; null for one that is not there. Raises
        InvalidParamError before ``fit``, SignatureError for a column of another kind than the values."""
        if not self.values:
            raise InvalidParamError(
                "these Labels have no values yet: fit learns them (sparkdl.preprocess.learn)",
                param="values",
                value=self.values,
            )
        self._check_kind(
            name, str(column.type), pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
        )
        numbers = pc.index_in(column.cast(self._known.type, safe=False), value_set=self._known)
        if pa.types.is_floating(column.type) or pa.types.is_decimal(column.type):
            return pc.if_else(pc.equal(column, pc.floor(column)), numbers, None)  # whole ones, as they were learnt from
        return numbers

    def _check_kind(self, name: str, kind: str, is_text: bool) -> None:
        if is_text != self._are_texts:
            raise SignatureError(
                f"column {name!r} is {kind}, and the labels are {'texts' if self._are_texts else 'no texts'}, "
                f"{self.values[0]!r} say; give labels of its kind, or none, and they are learnt",
                column=name,
                expected="text" if self._are_texts else "numbers or booleans",
                got=kind,
            )

    def read(self, columns: Mapping[str, pa.Array]) -> np.ndarray:
        """See Preprocessor."""
        ((name, column),) = columns.items()
        numbers = self.places(name, column)
        if numbers.null_count:
            wrong = np.flatnonzero(numbers.is_null().to_numpy(zero_copy_only=False))
            got = (repr(column[int(row)].as_py()) for row in wrong)
            raise bad_rows("value", name, wrong, f"one of the {len(self.values)} labels {_some(self.values)}", got)
        return np.asarray(numbers.to_numpy(zero_copy_only=False), dtype=np.int64)

    def fit(self, df: DataFrame, columns: Sequence[str]) -> Labels:
        """See Preprocessor. Raises DataError for too many different labels, EmptyDatasetError, SignatureError for values
        of another kind than the column."""
        (name,) = columns
        if self.values:
            kind = df.schema[name].dataType.typeName()
            self._check_kind(name, kind, kind in ("string", "char", "varchar"))
            return self
        found = df.select(quoted(name)).where(f"{quoted(name)} IS NOT NULL").distinct().limit(MOST + 1).collect()
        if not found:
            raise EmptyDatasetError(name)
        if len(found) > MOST:
            raise DataError(
                f"column {name!r} holds more than {MOST:,} different labels; are these classes?",
                column=name, row=None, file=None, expected=f"at most {MOST:,} labels", got=len(found),
            )  # fmt: skip
        values = [_whole(row[0]) for row in found]
        fraction = next((value for value in values if isinstance(value, (float, Decimal))), None)
        if fraction is not None:
            raise DataError(
                f"column {name!r} holds numbers that are not whole, {fraction} say, which are no classes; train a regression",
                column=name, row=None, file=None, expected="labels", got=fraction,
            )  # fmt: skip
        return Labels(values=tuple(sorted(values)))


def _whole(value: Any) -> Any:
    """A number without a fraction as an int; anything else as it is."""
    is_whole = isinstance(value, (float, Decimal)) and math.isfinite(value) and value == int(value)
    return int(value) if is_whole else value


def _some(values: Sequence[object], most: int = 8) -> str:
    return ", ".join(map(repr, values[:most])) + (", …" if len(values) > most else "")
