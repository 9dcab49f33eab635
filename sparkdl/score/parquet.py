"""Parquet files read with pyarrow as Spark reads them; what pyarrow does not read exactly so is told. No Spark."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sparkdl import store
from sparkdl.errors import DataError
from sparkdl.score.pieces import Part, Piece, RowGroup

BATCH_ROWS = 16384
BATCH_BYTES = 16 << 20
ROW_METADATA, SPARK_VERSION = "org.apache.spark.sql.parquet.row.metadata", "org.apache.spark.version"
_LEGACY = (b"org.apache.spark.legacyDateTime", b"org.apache.spark.legacyINT96")
_OPTIONS: dict[str, Any] = {"coerce_int96_timestamp_unit": "us"}  # nanoseconds would end in 2262
_SCALARS = {
    "boolean": pa.bool_(), "byte": pa.int8(), "short": pa.int16(), "integer": pa.int32(), "long": pa.int64(),
    "float": pa.float32(), "double": pa.float64(), "string": pa.string(), "binary": pa.binary(), "date": pa.date32(),
    "timestamp": pa.timestamp("us", "UTC"), "timestamp_ntz": pa.timestamp("us"),
}  # fmt: skip
_AS_SPARK = {  # by what pyarrow finds in a file: Spark's type to which the cast is exact, beside the equal one
    pa.large_string(): (pa.string(),),
    pa.large_binary(): (pa.binary(),),
    pa.uint8(): (pa.int16(),),
    pa.uint16(): (pa.int32(),),
    pa.uint32(): (pa.int64(),),
}


class NotScannable(Exception):
    """Why Spark must read the table itself; nobody but ``score_table`` sees it."""


def arrow_schema(told: Mapping[str, Any]) -> pa.Schema:
    """Spark's schema, as JSON values, as Arrow's. Raises NotScannable for a type that Arrow or Parquet has not."""
    return pa.schema([(field["name"], arrow_type(field["type"], field["name"])) for field in told["fields"]])


def arrow_type(told: Any, column: str) -> pa.DataType:
    """A Spark type, as its JSON tells it, as the one in which ``mapInArrow`` hands it out. Raises NotScannable."""
    if isinstance(told, str):
        decimal = re.fullmatch(r"decimal\((\d+),(\d+)\)", told)
        if decimal:
            return pa.decimal128(int(decimal[1]), int(decimal[2]))
        if told in _SCALARS:
            return _SCALARS[told]
    elif told["type"] == "array":
        return pa.list_(pa.field("element", arrow_type(told["elementType"], column)))
    elif told["type"] == "map":
        return pa.map_(arrow_type(told["keyType"], column), arrow_type(told["valueType"], column))
    elif told["type"] == "struct":
        return pa.struct([(field["name"], arrow_type(field["type"], column)) for field in told["fields"]])
    name = told if isinstance(told, str) else told.get("class") or told["type"]
    raise NotScannable(f"column {column!r} is of type {name}")


def constant(value: str | None, kind: pa.DataType) -> pa.Scalar:
    """A partition's value out of its folder's name, with the type that Spark gave it. Raises NotScannable."""
    try:
        if value is None or pa.types.is_string(kind):
            return pa.scalar(value, kind)
        if pa.types.is_integer(kind):
            return pa.scalar(int(value), kind)
        if pa.types.is_float64(kind):
            return pa.scalar(float(value), kind)
        if pa.types.is_boolean(kind):
            return pa.scalar({"true": True, "false": False}[value], kind)
        if pa.types.is_date32(kind):
            return pa.scalar(datetime.date.fromisoformat(value), kind)
    except (ValueError, KeyError, OverflowError, pa.ArrowInvalid):
        pass
    raise NotScannable(f"the partition value {value!r} is a {kind} by Spark's rules")


def footer(path: str, wanted: pa.Schema) -> tuple[RowGroup, ...]:
    """The row groups of a file, of which the columns ``wanted`` are to be read.

    Raises NotScannable if pyarrow would not read them as Spark does, DataError if it is no Parquet file.
    """
    filesystem, place = store.resolve(path)
    try:
        with filesystem.open_input_file(place) as source:
            file = pq.ParquetFile(source, **_OPTIONS)
            metadata, schema = file.metadata, file.schema_arrow
            groups = (metadata.row_group(i) for i in range(metadata.num_row_groups))
            row_groups = tuple(RowGroup(group.num_rows, group.total_byte_size) for group in groups)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, "the footer", error) from error
    told = metadata.metadata or {}
    version = told.get(SPARK_VERSION.encode(), b"3")
    if any(key in told for key in _LEGACY) or version < b"3":
        raise NotScannable(f"{path} may hold dates of the calendar that Spark had before version 3")
    for field in wanted:
        found = _found(schema, field.name, path)
        if found is not None and not _reads_alike(schema.field(found).type, field.type):
            raise NotScannable(
                f"column {field.name!r} of {path} is {schema.field(found).type}, and Spark's {field.type}"
            )
    return row_groups


def read(piece: Piece, wanted: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The rows of a piece, in order, in batches of the schema ``wanted``.

    Raises DataError naming the file and the row group that cannot be read.
    """
    for part in piece.parts:
        group = part.row_groups[0]
        try:
            filesystem, place = store.resolve(part.path)
            with filesystem.open_input_file(place) as source:
                file = pq.ParquetFile(source, **_OPTIONS)
                conform = _Conform(file.schema_arrow, wanted, part)
                most = min(BATCH_ROWS, max(1, BATCH_BYTES * part.rows // max(part.nbytes, 1)))
                rows = 0
                for group in part.row_groups:
                    for batch in _batches(file, group, conform.names, most):
                        rows += len(batch)
                        yield conform(batch)
            if rows != part.rows:
                raise ValueError(f"there were {part.rows} rows, and now there are {rows}")
        except (OSError, pa.ArrowException, ValueError, IndexError) as error:
            raise _unreadable(part.path, f"row group {group}", error) from error


def _batches(file: pq.ParquetFile, group: int, names: list[str], most: int) -> Iterator[pa.RecordBatch]:
    if names:
        yield from file.iter_batches(most, row_groups=[group], columns=names, use_threads=False)
        return
    rows = file.metadata.row_group(group).num_rows  # all that is wanted are constants
    for start in range(0, rows, most):
        yield pa.RecordBatch.from_arrays([pa.nulls(min(most, rows - start))], names=[""])


class _Conform:
    """Gives a batch out of one file the schema ``wanted``: casts, constants of the partition, nulls."""

    def __init__(self, schema: pa.Schema, wanted: pa.Schema, part: Part) -> None:
        self.wanted = wanted
        self.constants = dict(part.constants)
        self.found = {
            field.name: None if field.name in self.constants else _found(schema, field.name, part.path)
            for field in wanted
        }
        self.names = [name for name in self.found.values() if name is not None]

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        arrays = [self._column(batch, field) for field in self.wanted]
        return pa.RecordBatch.from_arrays(arrays, schema=self.wanted)

    def _column(self, batch: pa.RecordBatch, field: pa.Field) -> pa.Array:
        found = self.found[field.name]
        if found is not None:
            column = batch.column(batch.schema.get_field_index(found))
            return column if column.type == field.type else column.cast(field.type)
        return pa.repeat(constant(self.constants.get(field.name), field.type), len(batch))


def _found(schema: pa.Schema, name: str, path: str) -> str | None:
    """The file's name for a column; as in Spark, case is no difference."""
    names = [found for found in schema.names if found.lower() == name.lower()]
    if len(names) > 1:
        raise NotScannable(f"{path} has several columns that Spark calls {name!r}: {names}")
    return names[0] if names else None


def _reads_alike(found: pa.DataType, wanted: pa.DataType) -> bool:
    """True when a cast of what pyarrow finds gives what Spark reads. Where Spark's versions differ: False."""
    if found == wanted or wanted in _AS_SPARK.get(found, ()):
        return True
    if pa.types.is_dictionary(found):
        return _reads_alike(found.value_type, wanted)
    if pa.types.is_fixed_size_binary(found):
        return bool(pa.types.is_binary(wanted))
    if pa.types.is_timestamp(found) and pa.types.is_timestamp(wanted):  # to UTC, a time without a zone is as it is
        return found.unit in ("us", "ms") and (wanted.tz is not None or found.tz is None)
    if pa.types.is_list(wanted):
        is_list = pa.types.is_list(found) or pa.types.is_large_list(found) or pa.types.is_fixed_size_list(found)
        return is_list and _reads_alike(found.value_type, wanted.value_type)
    if pa.types.is_map(found) and pa.types.is_map(wanted):
        return _reads_alike(found.key_type, wanted.key_type) and _reads_alike(found.item_type, wanted.item_type)
    if pa.types.is_struct(found) and pa.types.is_struct(wanted):
        names = [[kind.field(i).name for i in range(kind.num_fields)] for kind in (found, wanted)]
        fields = ((found.field(i).type, wanted.field(i).type) for i in range(found.num_fields))
        return names[0] == names[1] and all(_reads_alike(*pair) for pair in fields)
    return False


def _unreadable(path: str, what: str, error: Exception) -> DataError:
    reason = " ".join(str(error).split())
    return DataError(
        f"{what} of {path} cannot be read: {reason}",
        column=None,
        row=None,
        file=path,
        expected="a readable Parquet file",
        got=reason,
    )
