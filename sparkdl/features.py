"""What is watched of a model's columns and outputs, as plain numbers: features, by name. No Spark, no torch.

Shapes: B rows of a batch, F features of a column.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sparkdl.columns import answers, arrow_type
from sparkdl.signature import Signature, TensorSpec, form

FEATURES_MOST = (
    256  # elements of all inputs together, and of all outputs; the widest beyond that go by mean and deviation
)
_SUFFIXES = {"moments": ("mean", "std"), "length": ("length",), "sequence": ("length", "mean")}


@dataclass(frozen=True)
class Watched:
    """A column, or an output, and what of it is watched.

    how: ``elements``: each number of a row; ``moments``: their mean and their standard deviation; ``length``: bytes of a
    text or a file; ``sequence``: length and mean of a row that varies in length.
    names: of the features, F of them. size: numbers in a row. dtype: of its numbers as the model gets them; raw: they lie
    in a binary column.
    """

    column: str
    is_output: bool
    names: tuple[str, ...]
    how: str
    size: int
    dtype: str
    raw: bool = False

    @property
    def number(self) -> type[np.floating]:
        """In which features are counted: as precisely as the model sees them, so that equal numbers stay equal."""
        return np.float32 if self.dtype in ("float16", "float32") and self.how == "elements" else np.float64

    def values(self, column: pa.Array) -> np.ndarray:
        """``(F, B)`` of ``number``; NaN where a row has no such value: null, NaN, or another shape."""
        if self.how == "length":
            return _numbers(pc.binary_length(_binary(column)), self.number)[None]
        marks, leaves, there = _raw(column, self.dtype) if self.raw else _leaves(column, self.number)
        if self.how == "sequence":
            lengths = np.diff(marks)
            sums = np.concatenate([[0.0], np.cumsum(leaves, dtype=np.float64)])[marks]
            with np.errstate(invalid="ignore", divide="ignore"):
                both = np.stack([lengths.astype(np.float64), np.diff(sums) / lengths])
            return np.where(there, both, np.nan)
        rows = _rows(marks, leaves, there, self.size)
        if self.how == "elements":
            return np.ascontiguousarray(rows.T, dtype=self.number)
        return np.stack([rows.mean(axis=1, dtype=np.float64), rows.std(axis=1, dtype=np.float64)])


def watched(signature: Signature) -> list[Watched]:
    """What is watched of the columns and outputs of ``signature``, in its order."""
    inputs = list(
        {one.column: one for spec in reversed(signature.inputs) for one in reversed(_of_input(spec))}.values()
    )[::-1]
    told = answers(signature)  # what a decoder makes of an output is not watched, nor are texts
    outputs = [_of_output(spec) for spec in signature.outputs if told.get(spec.name) == arrow_type(spec)]
    return [*_condensed(inputs), *_condensed(outputs)]


def _of_input(spec: TensorSpec) -> list[Watched]:
    made = (_of_column(column, kind, spec) for column, kind in zip(spec.columns, spec.types, strict=True))
    return [one for one in made if one is not None]


def _of_column(column: str, kind: str, spec: TensorSpec) -> Watched | None:
    if spec.preprocess is not None:  # the column as it is, before that
        what, depth = form(kind)
        if what not in ("number", "string", "binary") or (depth and what != "number"):
            return None
        if depth:
            return _as("sequence", column, spec) if depth == 1 else None
        return _elements(column, TensorSpec(column, "float64"), ()) if what == "number" else _as("length", column, spec)
    if kind == "string":
        return _as("length", column, spec)
    if spec.is_ragged:
        return _as("length" if kind == "binary" else "sequence", column, spec)
    return _elements(column, spec, () if spec.is_stacked else spec.shape, raw=kind == "binary")


def _of_output(spec: TensorSpec) -> Watched:
    return _elements(spec.name, spec, spec.shape, is_output=True)


def _elements(
    column: str, spec: TensorSpec, shape: tuple[int, ...], *, raw: bool = False, is_output: bool = False
) -> Watched:
    size = math.prod(shape)
    names: tuple[str, ...] = ()
    if size <= FEATURES_MOST:
        places = product(*(range(n) for n in shape))
        names = tuple(f"{column}[{','.join(map(str, place))}]" if place else column for place in places)
    return Watched(column, is_output, names, "elements", size, spec.dtype, raw)


def _as(how: str, column: str, spec: TensorSpec) -> Watched:
    return Watched(column, False, tuple(f"{column}.{end}" for end in _SUFFIXES[how]), how, 0, spec.dtype)


def _condensed(many: list[Watched]) -> list[Watched]:
    """With the widest by mean and deviation until there are FEATURES_MOST elements at most."""
    while sum(one.size for one in many if one.how == "elements") > FEATURES_MOST:
        widest = max((one for one in many if one.how == "elements"), key=lambda one: one.size)
        if widest.size <= 2:
            break  # that many columns of their own
        names = tuple(f"{widest.column}.{end}" for end in _SUFFIXES["moments"])
        many = [
            Watched(one.column, one.is_output, names, "moments", one.size, one.dtype, one.raw) if one is widest else one
            for one in many
        ]
    return many


def merge_counts(many: Iterable[Mapping[str, list[int]]]) -> dict[str, list[int]]:
    """The sum of what several counters counted against one reference."""
    total: dict[str, np.ndarray] = {}
    for counts in many:
        for name, numbers in counts.items():
            total[name] = total[name] + numbers if name in total else np.array(numbers, dtype=np.int64)
    return {name: numbers.tolist() for name, numbers in total.items()}


def _numbers(array: pa.Array, kind: type[np.floating]) -> np.ndarray:
    """As floating numbers, NaN for null."""
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if array.null_count or pa.types.is_decimal(array.type) or pa.types.is_boolean(array.type):
        array = pc.cast(array, pa.float64())
    numbers: np.ndarray = array.to_numpy(zero_copy_only=False).astype(kind, copy=False)
    return numbers


def _leaves(column: pa.Array, kind: type[np.floating]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where each row's numbers begin and end, ``(B + 1,)``; all numbers; and which rows are not null, ``(B,)``."""
    marks, there = np.arange(len(column) + 1), np.asarray(column.is_valid().to_numpy(zero_copy_only=False))
    while _is_list(column.type):
        if pa.types.is_fixed_size_list(column.type):
            offsets = (np.arange(len(column) + 1) + column.offset) * column.type.list_size
        else:
            offsets = column.offsets.to_numpy()
        marks, column = offsets[marks], column.values
    first, last = int(marks[0]), int(marks[-1])
    return marks - first, _numbers(column.slice(first, last - first), kind), there


def _raw(column: pa.Array, dtype: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same of a binary column that holds numbers, little-endian."""
    column = _binary(column)
    if column.null_count:
        there = np.asarray(column.is_valid().to_numpy(zero_copy_only=False))
        column = pc.fill_null(column, b"")
    else:
        there = np.ones(len(column), dtype=bool)
    width = np.dtype(dtype).itemsize
    lengths = pc.binary_length(column).to_numpy(zero_copy_only=False).astype(np.int64)
    whole = lengths % width == 0
    _, offsets, content = column.buffers()
    large = pa.types.is_large_binary(column.type)
    places = np.frombuffer(offsets, np.int64 if large else np.int32)[column.offset : column.offset + len(column) + 1]
    data = np.frombuffer(content, np.uint8)[places[0] : places[-1]] if content is not None else np.empty(0, np.uint8)
    if not whole.all():
        data = data[np.repeat(whole, lengths)]
    numbers = np.frombuffer(data.tobytes(), dtype=dtype).astype(np.float64 if dtype == "float64" else np.float32)
    return np.concatenate([[0], np.cumsum(np.where(whole, lengths, 0) // width)]), numbers, there & whole


def _rows(marks: np.ndarray, leaves: np.ndarray, there: np.ndarray, size: int) -> np.ndarray:
    """``(B, size)``, NaN in rows that have another number of numbers."""
    fits = there & (np.diff(marks) == size)
    if fits.all():
        return leaves.reshape(-1, size)
    rows: np.ndarray = np.full((len(there), size), np.nan, dtype=leaves.dtype)
    rows[fits] = leaves[marks[:-1][fits][:, None] + np.arange(size)]
    return rows


def _binary(column: pa.Array) -> pa.Array:
    large = pa.types.is_large_string(column.type) or pa.types.is_large_binary(column.type)
    kind = pa.large_binary() if large else pa.binary()
    return column if column.type == kind else column.cast(kind)


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))
