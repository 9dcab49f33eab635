"""Arrow columns <-> numpy arrays <-> tensors, by a TensorSpec. Zero-copy where the memory allows it.

Shapes: B rows of a record batch, then the spec's own sizes.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sparkdl.errors import DataError
from sparkdl.signature import TensorSpec

if TYPE_CHECKING:
    from torch import Tensor

SPARK_OF_DTYPE = {
    "bool": "boolean", "uint8": "smallint", "int8": "tinyint", "int16": "smallint", "int32": "int",
    "int64": "bigint", "float16": "float", "float32": "float", "float64": "double",
}  # fmt: skip
_WIDER = {"uint8": np.int16, "float16": np.float32}  # Spark has neither


def to_numpy(columns: Mapping[str, pa.Array], spec: TensorSpec) -> np.ndarray:
    """The tensor of ``spec`` out of its columns: an array of ``spec.dtype``, shape ``(B, *spec.shape)``.

    Raises DataError naming the column and the first row (0-based in this batch) that is null or has another size.
    """
    if not spec.is_stacked:
        (name,) = spec.columns
        return _column(columns[name], spec, name)
    scalar = TensorSpec(spec.name, spec.dtype)
    first = _column(columns[spec.columns[0]], scalar, spec.columns[0])
    stacked = np.empty((len(first), len(spec.columns)), dtype=spec.dtype)
    stacked[:, 0] = first
    for i, name in enumerate(spec.columns[1:], start=1):
        stacked[:, i] = _column(columns[name], scalar, name)
    return stacked


def to_arrow(values: np.ndarray) -> pa.Array:
    """An array of shape ``(B, ...)`` as a column: a primitive one, or lists nested as deep as the shape."""
    values = values.astype(_WIDER[values.dtype.name]) if values.dtype.name in _WIDER else values
    column = pa.array(values.reshape(-1))
    for axis in range(values.ndim - 1, 0, -1):
        count, width = math.prod(values.shape[:axis]), values.shape[axis]
        offsets = np.arange(count + 1, dtype=np.int32) * np.int32(width)
        column = pa.ListArray.from_arrays(pa.array(offsets), column)
    return column


def as_tensor(array: np.ndarray) -> Tensor:
    """The array's memory as a tensor, also when it is read-only, as Arrow's is: nobody writes to a model's input."""
    import torch  # an executor that lays out training data does without

    if array.flags.writeable:
        return torch.from_numpy(array)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def flat(values: np.ndarray) -> pa.Array:
    """As ``to_arrow`` but never nested deeper than one list: the form in which training data lies on disk."""
    return to_arrow(values.reshape(len(values), math.prod(values.shape[1:])) if values.ndim > 2 else values)


def spark_type(spec: TensorSpec) -> str:
    """The DDL type of an output column."""
    text = SPARK_OF_DTYPE[spec.dtype]
    for _ in spec.shape:
        text = f"array<{text}>"
    return text


def arrow_type(spec: TensorSpec) -> pa.DataType:
    """The Arrow type that ``to_arrow`` gives for this spec."""
    kind = to_arrow(np.empty((0, *spec.shape), dtype=spec.dtype)).type
    return kind


def _bad_row(name: str, row: int, expected: Any, got: Any) -> DataError:
    return DataError(
        f"column {name!r}, row {row}: expected {expected}, got {got}",
        column=name,
        row=int(row),
        file=None,
        expected=expected,
        got=got,
    )


def _column(column: pa.Array, spec: TensorSpec, name: str) -> np.ndarray:
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if column.null_count:
        raise _bad_row(name, int(np.argmax(_mask(column))), f"{spec.dtype}{list(spec.shape)}", None)
    kind = column.type
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return _from_binary(column, spec, name)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _from_string(column, spec, name)
    rows = len(column)
    values = _leaves(column, spec, name)
    if pa.types.is_decimal(values.type):
        values = pc.cast(values, pa.float64())
    array = _as_dtype(values.to_numpy(zero_copy_only=False), spec, name)
    return array.reshape(rows, *spec.shape)


def _mask(column: pa.Array) -> np.ndarray:
    return np.asarray(pc.is_null(column).to_numpy(zero_copy_only=False))


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _leaves(column: pa.Array, spec: TensorSpec, name: str) -> pa.Array:
    """The innermost values of nested lists, after every level's length was checked."""
    depth, kind = 0, column.type
    while _is_list(kind):
        depth, kind = depth + 1, kind.value_type
    levels = spec.shape if depth == len(spec.shape) else (spec.size,)
    if len(levels) != depth:
        raise _bad_row(name, 0, f"{spec.dtype}{list(spec.shape)}", f"a column of type {column.type}")
    values_a_row = 1
    for width in levels:
        lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False)
        wrong = np.flatnonzero(lengths != width)
        if len(wrong):
            row = int(wrong[0]) // values_a_row
            raise _bad_row(name, row, f"{width} values", f"{int(lengths[wrong[0]])} values")
        column, values_a_row = column.flatten(), values_a_row * width
        if column.null_count:
            row = int(np.argmax(_mask(column))) // max(values_a_row, 1)
            raise _bad_row(name, row, "values that are not null", "a null inside the array")
    return column


def _as_dtype(array: np.ndarray, spec: TensorSpec, name: str) -> np.ndarray:
    target = np.dtype(spec.dtype)
    if target.kind in "iub" and array.dtype.kind == "f":  # labels often come as doubles that hold whole numbers
        whole = np.equal(np.mod(array, 1), 0)
        if not whole.all():
            position = int(np.argmin(whole))
            raise _bad_row(name, position // max(spec.size, 1), f"whole numbers ({spec.dtype})", array[position])
    if target.kind in "iu" and array.dtype.kind in "iuf" and array.dtype != target and len(array):
        limits = np.iinfo(target)
        above = array >= float(limits.max + 1) if array.dtype.kind == "f" else array > limits.max  # exact as a float
        outside = (array < limits.min) | above
        if outside.any():
            position = int(np.argmax(outside))
            raise _bad_row(name, position // max(spec.size, 1), f"a value that {target} holds", array[position])
    return array.astype(target, copy=False)


def _offsets_and_bytes(column: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    large = pa.types.is_large_binary(column.type) or pa.types.is_large_string(column.type)
    _, offsets, content = column.buffers()
    kind = np.int64 if large else np.int32
    marks = np.frombuffer(offsets, dtype=kind)[column.offset : column.offset + len(column) + 1]
    data = np.frombuffer(content, dtype=np.uint8) if content is not None else np.empty(0, np.uint8)
    return marks, data


def _from_binary(column: pa.Array, spec: TensorSpec, name: str) -> np.ndarray:
    if not len(column):
        return np.empty((0, *spec.shape), dtype=spec.dtype)
    marks, data = _offsets_and_bytes(column)
    width = spec.size * np.dtype(spec.dtype).itemsize
    lengths = np.diff(marks)
    wrong = np.flatnonzero(lengths != width)
    if len(wrong):
        raise _bad_row(name, wrong[0], f"{width} bytes ({spec.dtype}{list(spec.shape)})", f"{lengths[wrong[0]]} bytes")
    content = data[marks[0] : marks[-1]]
    return np.frombuffer(content.tobytes(), dtype=spec.dtype).reshape(len(column), *spec.shape)


def _from_string(column: pa.Array, spec: TensorSpec, name: str) -> np.ndarray:
    if not len(column):
        return np.empty((0, *spec.shape), dtype=spec.dtype)
    marks, data = _offsets_and_bytes(column)
    lengths = np.diff(marks)
    (width,) = spec.shape
    wrong = np.flatnonzero(lengths > width)
    if len(wrong):
        raise _bad_row(name, wrong[0], f"at most {width} UTF-8 bytes", f"{lengths[wrong[0]]} bytes")
    padded = np.zeros((len(column), width), dtype=np.uint8)
    padded[np.arange(width) < lengths[:, None]] = data[marks[0] : marks[-1]]
    return padded.astype(spec.dtype, copy=False)
