"""The scored rows of a piece, written with pyarrow as Spark lays out a table: hive folders, row groups. No Spark."""

from __future__ import annotations

import contextlib
import io
import json
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sparkdl import store
from sparkdl.errors import ColumnNotFoundError, InvalidParamError, StoreError
from sparkdl.score.parquet import ROW_METADATA, SPARK_VERSION, NotScannable

COMPRESSIONS = ("snappy", "zstd", "gzip", "lz4", "none")
NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"
ROW_GROUP_BYTES = 64 << 20  # where no number of rows is asked for
HELD_BYTES = 256 << 20  # over all partitions of a piece
MOST_OPEN = 256  # files of a piece: a process may have 1,024 as a rule
_ESCAPED = re.compile("[\x01-\x1f\"#%'*/:=?\\\\\x7f{\\[\\]^]")  # ExternalCatalogUtils.charToEscape in Spark


@dataclass(frozen=True)
class Layout:
    """How a table lies in its folder: the columns of its hive folders, rows to a row group (None: by size)."""

    partition_by: tuple[str, ...] = ()
    row_group_size: int | None = None
    compression: str = "snappy"

    @classmethod
    def checked(cls, partition_by: Any, row_group_size: Any, compression: Any) -> Layout:
        """Out of ``score_table``'s arguments. Raises InvalidParamError naming the one that is wrong."""
        if isinstance(partition_by, str) or not all(isinstance(name, str) for name in partition_by):
            raise _refuse("partitionBy", "a list of column names", partition_by)
        if row_group_size is not None and (
            isinstance(row_group_size, bool) or not isinstance(row_group_size, int) or row_group_size < 1
        ):
            raise _refuse("rowGroupSize", "a whole number of at least 1, or None", row_group_size)
        if compression not in COMPRESSIONS:
            raise _refuse("compression", f"one of {list(COMPRESSIONS)}", compression)
        return cls(tuple(partition_by), row_group_size, compression)

    def check_columns(self, types: Mapping[str, Any]) -> None:
        """types: of the table's columns, Spark's as JSON values. Raises ColumnNotFoundError and InvalidParamError."""
        for name in self.partition_by:
            if name not in types:
                raise ColumnNotFoundError(name, types, role="in partitionBy, column")
            if not isinstance(types[name], str):
                raise _refuse("partitionBy", f"columns of single values; {name!r} is none", list(self.partition_by))
        if len(set(self.partition_by)) < len(self.partition_by) or len(self.partition_by) == len(types):
            raise _refuse("partitionBy", "different columns, and not all of the table", list(self.partition_by))

    def check_texts(self, schema: pa.Schema) -> None:
        """Raise NotScannable if only Spark knows how a partition column is written as a folder's name."""
        for name in self.partition_by:
            kind = schema.field(name).type
            known = (
                pa.types.is_string,
                pa.types.is_integer,
                pa.types.is_boolean,
                pa.types.is_date32,
                pa.types.is_decimal,
            )
            if not any(is_kind(kind) for is_kind in known):
                raise NotScannable(f"the partition column {name!r} is a {kind}")


def _refuse(name: str, options: str, value: Any) -> InvalidParamError:
    return InvalidParamError(f"{name!r} must be {options} (got {value!r})", param=name, value=value)


def file_schema(schema: pa.Schema, told: Mapping[str, Any], spark_version: str, layout: Layout) -> pa.Schema:
    """The schema of the table's files, with what Spark's own writer tells of it: the columns' metadata, its calendar.

    told: Spark's schema of the table, as JSON values.
    """
    fields = [field for field in told["fields"] if field["name"] not in layout.partition_by]
    metadata = {ROW_METADATA: json.dumps({**told, "fields": fields}), SPARK_VERSION: spark_version}
    return pa.schema([f for f in schema if f.name not in layout.partition_by], metadata=metadata)


def folder_name(column: str, value: Any) -> str:
    """``column=value`` as Spark names the folder of a partition."""
    return f"{_escaped(column)}={_escaped(_text(value)) or NULL_PARTITION}"


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return format(value, "f") if hasattr(value, "as_tuple") else str(value)  # a Decimal without an exponent


def _escaped(text: str) -> str:
    return _ESCAPED.sub(lambda found: f"%{ord(found[0]):02X}", text)


def split(batch: pa.RecordBatch, columns: Sequence[str]) -> Iterator[tuple[str, pa.RecordBatch]]:
    """The rows of each partition, in order, without the partition columns; the folder of each."""
    if not columns:
        yield "", batch
        return
    codes = np.zeros(len(batch), np.int64)
    for name in columns:
        encoded = batch.column(name).dictionary_encode()
        own = encoded.indices.cast(pa.int64()).fill_null(len(encoded.dictionary)).to_numpy(zero_copy_only=False)
        _, codes = np.unique(codes * (len(encoded.dictionary) + 1) + own, return_inverse=True)
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    rest = batch.select([name for name in batch.schema.names if name not in columns])
    for rows in np.split(order, starts[1:]) if len(batch) else []:
        folders = (folder_name(name, batch.column(name)[int(rows[0])].as_py()) for name in columns)
        whole = len(rows) == len(batch)
        yield posixpath.join(*folders), rest if whole else _taken(rest, rows)


def _taken(batch: pa.RecordBatch, rows: np.ndarray) -> pa.RecordBatch:
    indices = pa.array(rows)
    return pa.RecordBatch.from_arrays([column.take(indices) for column in batch.columns], schema=batch.schema)


@dataclass
class PieceWriter:
    """Writes batches to files under ``folder`` called ``name``, one a partition. schema: see ``file_schema``. Where more
    than ``MOST_OPEN`` of them are being written, the one unused for longest is closed, and its partition may get another."""

    folder: str
    name: str
    schema: pa.Schema
    layout: Layout
    files: dict[str, _File] = field(default_factory=dict)  # by partition
    opened: dict[str, _File] = field(default_factory=dict)  # those of them that have a stream, the last one used last
    done: list[str] = field(default_factory=list)  # paths of files that are closed
    nbytes: int = 0  # held by all files
    rows: dict[str, int] = field(default_factory=dict)  # given to each file, by its path

    def add(self, batch: pa.RecordBatch) -> None:
        """Take rows. Raises StoreError."""
        for folder, rows in split(batch, self.layout.partition_by) if len(batch) else ():
            if folder not in self.files:
                path = posixpath.join(folder, self._new_name())
                self.files[folder] = _File(store.join(self.folder, path), path, self.schema, self.layout)
            file = self.files[folder]
            self.nbytes += file.add(rows)
            self.rows[file.path] = self.rows.get(file.path, 0) + len(rows)
            self._used(folder)
        if self.nbytes > HELD_BYTES:
            for folder, file in list(self.files.items()):
                self.nbytes += file.flush()
                self._used(folder)

    def _new_name(self) -> str:
        stem, end = posixpath.splitext(self.name)
        return f"{stem}-{len(self.done)}{end}" if self.done else self.name

    def _used(self, folder: str) -> None:
        file = self.files.get(folder)
        if file is None or file.writer is None:
            return
        self.opened.pop(folder, None)
        self.opened[folder] = file
        if len(self.opened) > MOST_OPEN:
            self._finish(next(iter(self.opened)))

    def _finish(self, folder: str) -> None:
        file = self.files.pop(folder)
        self.nbytes -= file.nbytes
        file.close()
        self.opened.pop(folder, None)
        self.done.append(file.path)

    def close(self) -> list[str]:
        """Write what is held; the files' paths under ``folder``."""
        for folder in list(self.files):
            self._finish(folder)
        return self.done

    def abort(self) -> None:
        """Let go of the files as they are; nothing to do after ``close``."""
        for file in self.files.values():
            file.abort()


@dataclass
class _File:
    """One Parquet file. ``add`` and ``flush`` tell by how many bytes what is held grew."""

    uri: str
    path: str
    schema: pa.Schema
    layout: Layout
    held: list[pa.RecordBatch] = field(default_factory=list)
    rows: int = 0
    nbytes: int = 0
    stream: pa.NativeFile | None = None
    writer: pq.ParquetWriter | None = None

    def add(self, batch: pa.RecordBatch) -> int:
        before, size = self.nbytes, self.layout.row_group_size
        while size is not None and self.rows + len(batch) >= size:
            taken = size - self.rows
            self._hold(batch.slice(0, taken))
            self.flush()
            batch = batch.slice(taken)
        self._hold(batch)
        if size is None and self.nbytes >= ROW_GROUP_BYTES:
            self.flush()
        return self.nbytes - before

    def _hold(self, batch: pa.RecordBatch) -> None:
        if len(batch):
            self.held.append(batch)
            self.rows += len(batch)
            self.nbytes += batch.nbytes

    def flush(self) -> int:
        """Write what is held as a row group."""
        freed = self.nbytes
        if self.held:
            self._write(pa.Table.from_batches(self.held, self.held[0].schema))
        self.held, self.rows, self.nbytes = [], 0, 0
        return -freed

    def _write(self, rows: pa.Table) -> None:
        try:
            if self.writer is None:
                self.stream = store.open_output(self.uri)
                self.writer = pq.ParquetWriter(self.stream, self.schema, **writer_options(self.schema, self.layout))
            self.writer.write_table(
                rows.replace_schema_metadata(self.schema.metadata), row_group_size=max(len(rows), 1)
            )
        except OSError as error:
            raise StoreError(f"cannot write {self.uri!r}: {error}", uri=self.uri) from error

    def close(self) -> None:
        self.flush()
        if self.writer is None or self.stream is None:
            return
        try:
            self.writer.close()
            self.stream.close()
        except OSError as error:
            raise StoreError(f"cannot write {self.uri!r}: {error}", uri=self.uri) from error

    def abort(self) -> None:
        self.held = []
        with contextlib.suppress(OSError, pa.ArrowException):  # of a file that nobody reads
            self.close()


def write_empty(uri: str, schema: pa.Schema, layout: Layout) -> None:
    """A file without rows: a table that has none still tells its columns. Raises StoreError."""
    with store.open_output(uri) as stream:
        pq.ParquetWriter(stream, schema, **writer_options(schema, layout)).close()


def writer_options(schema: pa.Schema, layout: Layout) -> dict[str, Any]:
    """A dictionary where values may recur, statistics where a reader can skip by them: both cost time."""
    buffer = io.BytesIO()
    pq.ParquetWriter(buffer, schema.remove_metadata()).close()
    columns = pq.ParquetFile(buffer).schema
    leaves = [columns.column(i) for i in range(len(columns))]
    return {
        "compression": layout.compression,
        "use_dictionary": [leaf.path for leaf in leaves if _may_recur(leaf)],
        "write_statistics": [leaf.path for leaf in leaves if leaf.max_repetition_level == 0],
    }


def _may_recur(leaf: Any) -> bool:
    is_binary = leaf.physical_type == "BYTE_ARRAY" and leaf.logical_type.type == "NONE"
    return not is_binary and leaf.physical_type not in ("FLOAT", "DOUBLE", "BOOLEAN")
