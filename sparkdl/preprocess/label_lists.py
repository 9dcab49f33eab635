"""Lists of labels as class numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sparkdl.columns import Ragged
from sparkdl.preprocess.base import Preprocessor
from sparkdl.preprocess.labels import Labels
from sparkdl.settings import Values
from sparkdl.signature import quoted

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


class LabelLists(Preprocessor):
    """A column of arrays of labels as class numbers from 1, int64 of shape ``(-1,)``: 0 is what shorter rows are padded with.

    values: the labels, as ``Labels`` has them. A null array is an empty one; what is in an array and not in ``values``, a
    null say, is left out. For scoring: a model is trained on rows of one length.
    """

    kind: Literal["label_lists"] = "label_lists"
    values: Values = ()
    takes: ClassVar[tuple[str, ...]] = ("array<string>", "array<long>")

    @property
    def dtype(self) -> str:
        """Of a class number."""
        return "int64"

    @property
    def shape(self) -> tuple[int, ...]:
        """As many as the row has."""
        return (-1,)

    def read(self, columns: Mapping[str, pa.Array]) -> Ragged:
        """See Preprocessor. No row is a bad one."""
        ((name, column),) = columns.items()
        found = self._labels.places(name, column.flatten())
        rows = pc.list_parent_indices(column).filter(found.is_valid()).to_numpy(zero_copy_only=False)
        numbers = found.drop_null().to_numpy(zero_copy_only=False).astype(np.int64) + 1
        lengths = np.bincount(rows.astype(np.int64), minlength=len(column))
        return Ragged(numbers, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))

    @cached_property
    def _labels(self) -> Labels:
        return Labels(values=self.values)

    def fit(self, df: DataFrame, columns: Sequence[str]) -> LabelLists:
        """See Preprocessor. Raises as ``Labels.fit``."""
        (name,) = columns
        found = self._labels.fit(df.selectExpr(f"explode({quoted(name)}) AS {quoted(name)}"), columns)
        return LabelLists(values=found.values)
