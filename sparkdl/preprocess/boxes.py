"""Boxes around objects as a tensor.

Sizes: B rows, N boxes of all rows, M boxes to a row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from sparkdl.columns import bad_rows
from sparkdl.errors import SignatureError
from sparkdl.preprocess.base import Preprocessor
from sparkdl.preprocess.labels import Labels
from sparkdl.settings import Values
from sparkdl.signature import quoted

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

LONGEST_SIDE = 1 << 14  # of an image, in pixels
SIDES = ("xmin", "ymin", "xmax", "ymax")
NO_BOX = -1  # the class of what a row is padded with


class Boxes(Preprocessor):
    """A column ``array<struct<xmin, ymin, xmax, ymax, label>>`` as float32 ``(limit, 5)``: the four sides in pixels of an image of
    this height and width, x to the right and y down from its upper left corner, and the class number. Rows with fewer boxes
    are padded: class -1.

    unit: of the column, ``pixel`` of such an image, or ``relative``, shares of the width and height in [0, 1], which stay
    right when an image is resized. values: the labels, as ``Labels`` has them. A row with no box is one; a null, more than ``limit`` boxes, a label that is not there, a side outside of the
    image, or a box without an area make a bad row.
    """

    kind: Literal["boxes"] = "boxes"
    height: int = Field(ge=1, le=LONGEST_SIDE)
    width: int = Field(ge=1, le=LONGEST_SIDE)
    limit: int = Field(default=20, ge=1, le=10_000)
    unit: Literal["pixel", "relative"] = "pixel"
    values: Values = ()
    takes: ClassVar[tuple[str, ...]] = ("array<struct>",)

    @property
    def dtype(self) -> str:
        """Of a side in pixels."""
        return "float32"

    @property
    def shape(self) -> tuple[int, ...]:
        """``(limit, 5)``."""
        return (self.limit, 5)

    def read(self, columns: Mapping[str, pa.Array]) -> np.ndarray:
        """See Preprocessor."""
        ((name, column),) = columns.items()
        if column.null_count:
            rows = np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))
            raise bad_rows("null", name, rows, "an array of boxes, which may be empty", (None for _ in rows))
        counts_B = pc.list_value_length(column).to_numpy(zero_copy_only=False).astype(np.int64)
        too_many = np.flatnonzero(counts_B > self.limit)
        if len(too_many):
            raise bad_rows(
                "shape", name, too_many, f"at most {self.limit} boxes", (int(counts_B[row]) for row in too_many)
            )
        row_N, boxes = np.repeat(np.arange(len(column)), counts_B), column.flatten()
        _check_fields(name, boxes.type)
        sides_N4 = np.stack([_numbers(boxes, side) for side in SIDES], axis=1)
        self._check_sides(name, row_N, sides_N4)
        place_N = np.arange(len(row_N)) - np.repeat(np.cumsum(counts_B) - counts_B, counts_B)
        made: np.ndarray = np.zeros((len(column), self.limit, 5), np.float32)
        made[..., 4] = NO_BOX
        made[row_N, place_N, :4] = sides_N4 * self.scale
        made[row_N, place_N, 4] = self._classes(name, row_N, _field(boxes, "label"))
        return made

    @property
    def scale(self) -> np.ndarray:
        """Pixels to the column's unit, of each side."""
        one = (1, 1) if self.unit == "pixel" else (self.width, self.height)
        return np.array([*one, *one], np.float64)

    def _check_sides(self, name: str, row_N: np.ndarray, sides_N4: np.ndarray) -> None:
        xmin, ymin, xmax, ymax = sides_N4.T
        right, low = np.array([self.width, self.height]) / self.scale[:2]
        is_good = (xmin >= 0) & (ymin >= 0) & (xmin < xmax) & (ymin < ymax) & (xmax <= right) & (ymax <= low)
        wrong = np.flatnonzero(~is_good)  # a NaN too
        if len(wrong):
            rows, first = np.unique(row_N[wrong], return_index=True)
            expected = f"boxes with 0 <= xmin < xmax <= {right:g} and 0 <= ymin < ymax <= {low:g}, {self.unit}"
            raise bad_rows("value", name, rows, expected, (sides_N4[box].tolist() for box in wrong[first]))

    def _classes(self, name: str, row_N: np.ndarray, labels: pa.Array) -> np.ndarray:
        found = Labels(values=self.values).places(f"{name}.label", labels)
        if found.null_count:
            wrong = np.flatnonzero(found.is_null().to_numpy(zero_copy_only=False))
            rows, first = np.unique(row_N[wrong], return_index=True)
            expected = f"labels out of {list(self.values[:8])}{' …' if len(self.values) > 8 else ''}"
            raise bad_rows("value", name, rows, expected, (repr(labels[int(box)].as_py()) for box in wrong[first]))
        return np.asarray(found.to_numpy(zero_copy_only=False), np.float32)

    def fit(self, df: DataFrame, columns: Sequence[str]) -> Boxes:
        """See Preprocessor. Raises SignatureError for structs without one of the fields, and as ``Labels.fit``."""
        (name,) = columns
        fields = [field.name for field in df.schema[name].dataType.elementType.fields]
        _check_names(name, fields)
        labels = df.selectExpr(f"explode({quoted(name)}.label) AS label")
        return self.model_copy(update={"values": Labels(values=self.values).fit(labels, ["label"]).values})


def _check_fields(name: str, kind: pa.DataType) -> None:
    _check_names(name, [field.name for field in kind])


def _check_names(name: str, fields: Sequence[str]) -> None:
    missing = [field for field in (*SIDES, "label") if field not in fields]
    if missing:
        raise SignatureError(
            f"the boxes of column {name!r} have no {', '.join(missing)}; they are structs of {', '.join(SIDES)} and label",
            column=name,
            expected=[*SIDES, "label"],
            got=list(fields),
        )


def _field(boxes: pa.Array, name: str) -> pa.Array:
    """A null box's fields are null."""
    return pc.struct_field(boxes, boxes.type.get_field_index(name))


def _numbers(boxes: pa.Array, side: str) -> np.ndarray:
    """A null as NaN."""
    return np.asarray(_field(boxes, side).cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)
