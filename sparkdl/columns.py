"""Arrow columns <-> numpy arrays <-> tensors, by a TensorSpec. Zero-copy where the memory allows it.

Shapes: B rows of a record batch, then the spec's own sizes.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import repeat
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sparkdl.errors import DataError, SignatureError
from sparkdl.signature import Signature, TensorSpec, quoted

if TYPE_CHECKING:
    from torch import Tensor

_SPARK_OF_ARROW = {  # in SQL, and in the JSON of a schema
    pa.bool_(): ("boolean", "boolean"), pa.int8(): ("tinyint", "byte"), pa.int16(): ("smallint", "short"),
    pa.int32(): ("int", "integer"), pa.int64(): ("bigint", "long"), pa.float32(): ("float", "float"),
    pa.float64(): ("double", "double"), pa.string(): ("string", "string"), pa.binary(): ("binary", "binary"),
}  # fmt: skip
_ARROW_OF_KIND = {told: kind for kind, (_, told) in _SPARK_OF_ARROW.items()} | {
    "vector": pa.list_(pa.float64()), "date": pa.date32(), "timestamp": pa.int64(), "timestamp_ntz": pa.timestamp("us"),
}  # fmt: skip
KINDS = ("null", "shape", "value", "undecodable", "non-finite", "failed")  # of what can be wrong with a row
_WIDER = {"uint8": np.int16, "float16": np.float32}  # Spark has neither


@dataclass(frozen=True)
class Ragged:
    """Rows of varying length, end to end.

    values: ``(sum of all lengths, *shape[1:])``. offsets: ``(B + 1,)`` int64, from 0: row i is
    ``values[offsets[i]:offsets[i + 1]]``.
    """

    values: np.ndarray
    offsets: np.ndarray

    @classmethod
    def of(cls, rows: Sequence[Any], dtype: str, shape: Sequence[int]) -> Ragged:
        """From one array a row, each of shape ``(length, *shape[1:])``."""
        arrays = [np.asarray(row, dtype=dtype).reshape(-1, *shape[1:]) for row in rows]
        values = np.concatenate(arrays) if arrays else np.empty((0, *shape[1:]), dtype)
        return cls(values, np.concatenate([[0], np.cumsum([len(a) for a in arrays], dtype=np.int64)]).astype(np.int64))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, rows: slice) -> Ragged:
        start, stop, _ = rows.indices(len(self))
        marks = self.offsets[start : max(stop, start) + 1]
        return Ragged(self.values[marks[0] : marks[-1]], marks - marks[0])

    def take(self, rows: np.ndarray) -> Ragged:
        """These rows, in this order."""
        lengths = self.lengths[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        places = np.repeat(self.offsets[rows] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return Ragged(self.values[places], offsets)

    @property
    def lengths(self) -> np.ndarray:
        """``(B,)``."""
        return np.diff(self.offsets)

    def padded(self, rows: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
        """These rows, ``(len(rows), length, *shape[1:])``, zeros behind each, longer ones cut; and where
        there are values, bool."""
        is_value = np.arange(length) < self.lengths[rows][:, None]
        padded = np.zeros((len(rows), length, *self.values.shape[1:]), dtype=self.values.dtype)
        padded[is_value] = self.values[(self.offsets[rows][:, None] + np.arange(length))[is_value]]
        return padded, is_value


def to_numpy(columns: Mapping[str, pa.Array], spec: TensorSpec) -> np.ndarray:
    """The tensor of ``spec`` out of its columns: an array of ``spec.dtype``, shape ``(B, *spec.shape)``.

    Raises BadRows, a DataError naming the column and the first row (0-based in this batch) that does not fit;
    SignatureError for a length that varies.
    """
    values = read(columns, spec)
    if isinstance(values, Ragged):
        raise SignatureError(
            f"{spec} has a length that varies from row to row, which can be scored and not trained on; give all rows "
            "one length",
            column=spec.name,
            expected="a fixed shape",
            got=spec.shape,
        )
    return values


def read(columns: Mapping[str, pa.Array], spec: TensorSpec) -> np.ndarray | Ragged:
    """As ``to_numpy``; a Ragged where the length varies."""
    if spec.preprocess is not None:
        made = spec.preprocess.read({name: _whole(columns[name]) for name in spec.columns})
        return made if isinstance(made, Ragged) else _as_dtype(made, spec, spec.name)
    if not spec.is_stacked:
        (name,) = spec.columns
        return _column(columns[name], spec, name)
    scalar = TensorSpec(spec.name, spec.dtype)
    first = _column(columns[spec.columns[0]], scalar, spec.columns[0])
    stacked: np.ndarray = np.empty((len(first), len(spec.columns)), dtype=spec.dtype)
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
    """The array's memory as a tensor, also when it is read-only, as Arrow's is: whoever writes to it copies it first."""
    import torch  # an executor that lays out training data does without

    if not array.flags.writeable:
        _let_torch_warn_once()
    return torch.from_numpy(array)


@cache
def _let_torch_warn_once() -> None:
    """torch says that an array is read-only once a process; not to see that once costs less than hiding it each time."""
    import torch

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        torch.from_numpy(np.frombuffer(b"\0", np.uint8))


def flat(values: np.ndarray) -> pa.Array:
    """As ``to_arrow`` but never nested deeper than one list: the form in which training data lies on disk."""
    return to_arrow(values.reshape(len(values), math.prod(values.shape[1:])) if values.ndim > 2 else values)


def answers(signature: Signature) -> dict[str, pa.DataType]:
    """The columns that scoring adds, by name: what the decoder makes of the outputs, or these as they are."""
    if signature.decoder is not None:
        return signature.decoder.columns(signature.outputs)
    return {spec.name: arrow_type(spec) for spec in signature.outputs}


def answered(
    signature: Signature, outputs: Mapping[str, np.ndarray], rows: Mapping[str, pa.Array]
) -> dict[str, pa.Array]:
    """``answers``, of what the model returned for these rows."""
    if signature.decoder is None:
        return {name: to_arrow(values) for name, values in outputs.items()}
    made = signature.decoder.decode(outputs, rows)
    return {name: made[name].cast(kind) for name, kind in answers(signature).items()}


def ddl(kind: pa.DataType) -> str:
    """Spark's type of an answer's column, as it is written in SQL."""
    if pa.types.is_list(kind):
        return f"array<{ddl(kind.value_type)}>"
    if pa.types.is_struct(kind):
        return f"struct<{', '.join(f'{quoted(one.name)}:{ddl(one.type)}' for one in kind)}>"
    return _SPARK_OF_ARROW[kind][0]


def spark_json(kind: pa.DataType) -> Any:
    """Spark's type of an answer's column, as JSON values."""
    if pa.types.is_list(kind):
        return {"type": "array", "elementType": spark_json(kind.value_type), "containsNull": True}
    if pa.types.is_struct(kind):
        fields = [{"name": one.name, "type": spark_json(one.type), "nullable": True, "metadata": {}} for one in kind]
        return {"type": "struct", "fields": fields}
    return _SPARK_OF_ARROW[kind][1]


def arrow_of_kind(kind: str) -> pa.DataType | None:
    """The Arrow type of a column of this kind (see ``TensorSpec.types``) as ``materialize.plain`` hands it over; None
    where the kind does not tell it: a decimal, a struct."""
    if kind.startswith("array<"):
        inner = arrow_of_kind(kind[len("array<") : -1])
        return None if inner is None else pa.list_(inner)
    return _ARROW_OF_KIND.get(kind)


def arrow_type(spec: TensorSpec) -> pa.DataType:
    """The Arrow type that ``to_arrow`` gives for this spec."""
    kind = to_arrow(np.empty((0, *spec.shape), dtype=spec.dtype)).type
    return kind


class BadRows(DataError):
    """All rows of a batch that one check refuses; as a DataError it tells of the first.

    rows: ascending, 0-based in the batch. reasons: for each of these, ``KIND: what is wrong``, of KINDS.
    rest: what was read of the other rows, where reading is dear; else None.
    """

    rows: list[int]
    reasons: list[str]
    rest: np.ndarray | None = None

    def first(self, before: int) -> DataError:
        """The first of them, for people, in a batch in which so many rows come before these."""
        return DataError(**_told(self.column, self.rows[0] + before, self.expected, self.got))


def _told(column: str | None, row: int, expected: Any, got: Any) -> dict[str, Any]:
    """The message and the fields of a DataError."""
    message = f"column {column!r}, row {row}: expected {expected}, got {got}"
    return {"message": message, "column": column, "row": row, "file": None, "expected": expected, "got": got}


def bad_rows(kind: str, name: str, rows: Iterable[int], expected: Any, got: Iterable[Any]) -> BadRows:
    """The error for these rows of column ``name``, each of which has what ``got`` says at its place."""
    found = [(int(row), value) for row, value in zip(rows, got)]  # noqa: B905  # got may repeat for ever
    row, first = found[0]
    return BadRows(
        **_told(name, row, expected, first),
        rows=[row for row, _ in found],
        reasons=[f"{kind}: column {name!r}: expected {expected}, got {value}" for _, value in found],
    )


def _whole(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    if not isinstance(column, pa.ChunkedArray):
        return column
    whole = column.combine_chunks()
    return pa.concat_arrays(whole.chunks) if isinstance(whole, pa.ChunkedArray) else whole  # of older pyarrow


def _column(column: pa.Array, spec: TensorSpec, name: str) -> np.ndarray | Ragged:
    column = _whole(column)
    if not len(column):
        empty: np.ndarray = np.empty((0, *(spec.shape[1:] if spec.is_ragged else spec.shape)), dtype=spec.dtype)
        return Ragged(empty, np.zeros(1, np.int64)) if spec.is_ragged else empty
    if column.null_count:
        raise bad_rows("null", name, np.flatnonzero(nulls(column)), f"{spec.dtype}{list(spec.shape)}", repeat(None))
    kind = column.type
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return _from_binary(column, spec, name)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _from_string(column, spec, name)
    rows = len(column)
    values, offsets = _leaves(column, spec, name)
    if pa.types.is_decimal(values.type):
        values = pc.cast(values, pa.float64())
    array = _as_dtype(values.to_numpy(zero_copy_only=False), spec, name, offsets)
    return array.reshape(rows, *spec.shape) if offsets is None else Ragged(array.reshape(-1, *spec.shape[1:]), offsets)


def nulls(column: pa.Array) -> np.ndarray:
    """Where there is one, ``(B,)``."""
    return np.asarray(pc.is_null(column).to_numpy(zero_copy_only=False))


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _leaves(column: pa.Array, spec: TensorSpec, name: str) -> tuple[pa.Array, np.ndarray | None]:
    """The innermost values of nested lists, after every level's length was checked, and the offsets of a ragged one."""
    depth, kind = 0, column.type
    while _is_list(kind):
        depth, kind = depth + 1, kind.value_type
    steps = 1  # values to a step of a ragged row that is one flat list
    if depth == len(spec.shape):
        levels = spec.shape
    elif spec.is_ragged:
        levels, steps = (-1,), spec.size
    else:
        levels = (spec.size,)
    if len(levels) != depth:
        raise SignatureError(
            f"column {name!r} is {column.type}, which is no {spec}",
            column=name,
            expected=str(spec),
            got=str(column.type),
        )
    offsets: np.ndarray | None = None
    width_so_far = 1

    def rows_of(places: np.ndarray) -> np.ndarray:
        if offsets is None:
            return places // max(width_so_far, 1)
        return np.searchsorted(offsets, places // max(width_so_far, 1), side="right") - 1

    for width in levels:
        lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False)
        if width == -1:
            wrong = np.flatnonzero(lengths % max(steps, 1))
            if len(wrong):
                raise bad_rows("shape", name, wrong, f"a multiple of {steps} values", lengths[wrong])
            offsets = np.concatenate([[0], np.cumsum(lengths // max(steps, 1), dtype=np.int64)])
            width_so_far = steps
        else:
            wrong = np.flatnonzero(lengths != width)
            if len(wrong):
                rows, first = np.unique(rows_of(wrong), return_index=True)
                found = (f"{lengths[place]} values" for place in wrong[first])
                raise bad_rows("shape", name, rows, f"{width} values", found)
            width_so_far *= width
        column = column.flatten()
        if column.null_count:
            rows = np.unique(rows_of(np.flatnonzero(nulls(column))))
            raise bad_rows("null", name, rows, "values that are not null", repeat("a null inside the array"))
    return column, offsets


def _as_dtype(array: np.ndarray, spec: TensorSpec, name: str, offsets: np.ndarray | None = None) -> np.ndarray:
    def refused(wrong: np.ndarray, expected: str) -> BadRows:
        places = np.flatnonzero(wrong)
        rows = places // max(spec.size, 1)
        if offsets is not None:
            rows = np.searchsorted(offsets, rows, side="right") - 1
        rows, first = np.unique(rows, return_index=True)
        return bad_rows("value", name, rows, expected, array[places[first]])

    target = np.dtype(spec.dtype)
    if target.kind in "iub" and array.dtype.kind == "f":  # labels often come as doubles that hold whole numbers
        fraction = ~np.equal(np.mod(array, 1), 0)
        if fraction.any():
            raise refused(fraction, f"whole numbers ({spec.dtype})")
    if target.kind in "iu" and array.dtype.kind in "iuf" and array.dtype != target and len(array):
        limits = np.iinfo(target)
        above = array >= float(limits.max + 1) if array.dtype.kind == "f" else array > limits.max  # exact as a float
        outside = (array < limits.min) | above
        if outside.any():
            raise refused(outside, f"a value that {target} holds")
    if target.kind == "f" and array.dtype.kind == "f" and target.itemsize < array.dtype.itemsize:
        with np.errstate(over="ignore"):
            narrow = array.astype(target)
        too_large = np.isinf(narrow) & np.isfinite(array)
        if too_large.any():
            raise refused(too_large, f"a value that {target} holds")
        return narrow
    return array.astype(target, copy=False)


def _offsets_and_bytes(column: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    large = pa.types.is_large_binary(column.type) or pa.types.is_large_string(column.type)
    _, offsets, content = column.buffers()
    kind = np.int64 if large else np.int32
    marks = np.frombuffer(offsets, dtype=kind)[column.offset : column.offset + len(column) + 1]
    data = np.frombuffer(content, dtype=np.uint8) if content is not None else np.empty(0, np.uint8)
    return marks, data


def _from_binary(column: pa.Array, spec: TensorSpec, name: str) -> np.ndarray | Ragged:
    marks, data = _offsets_and_bytes(column)
    width = spec.size * np.dtype(spec.dtype).itemsize
    lengths = np.diff(marks)
    wrong = np.flatnonzero(lengths % max(width, 1) if spec.is_ragged else lengths != width)
    if len(wrong):
        expected = f"{'a multiple of ' if spec.is_ragged else ''}{width} bytes ({spec.dtype}{list(spec.shape)})"
        raise bad_rows("shape", name, wrong, expected, (f"{lengths[row]} bytes" for row in wrong))
    values = np.frombuffer(data[marks[0] : marks[-1]].tobytes(), dtype=spec.dtype)
    if spec.is_ragged:
        return Ragged(values.reshape(-1, *spec.shape[1:]), (marks - marks[0]).astype(np.int64) // max(width, 1))
    return values.reshape(len(column), *spec.shape)


def _from_string(column: pa.Array, spec: TensorSpec, name: str) -> np.ndarray | Ragged:
    marks, data = _offsets_and_bytes(column)
    if spec.is_ragged:
        values = data[marks[0] : marks[-1]].astype(spec.dtype)
        return Ragged(values, (marks - marks[0]).astype(np.int64))
    lengths = np.diff(marks)
    (width,) = spec.shape
    wrong = np.flatnonzero(lengths > width)
    if len(wrong):
        raise bad_rows("shape", name, wrong, f"at most {width} UTF-8 bytes", (f"{lengths[row]} bytes" for row in wrong))
    padded = np.zeros((len(column), width), dtype=np.uint8)
    padded[np.arange(width) < lengths[:, None]] = data[marks[0] : marks[-1]]
    return padded.astype(spec.dtype, copy=False)
