"""What the executors do with a partition: check its rows, lay them out as tensors, write them. No Spark.

Beside the columns of the layout a batch may hold VALIDATION (boolean, true in rows for validation) and HASH (int64, of
the row's content).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sparkdl import columns, store
from sparkdl.data.manifest import PAGE_CHECKSUMS, LabelFacts, Layout, merged
from sparkdl.errors import DataError, StoreError
from sparkdl.signature import TensorSpec

ROW_GROUP_BYTES = 16 << 20
MOST_BYTES = 64 << 20  # of a row group, which a reader decodes whole; a batch of images may be larger
VALIDATION, HASH = "__validation__", "__hash__"


@dataclass(frozen=True)
class LaidOut:
    """A batch as it is stored, and what is told of it. is_validation: ``(B,)`` bool, or None: no row is."""

    rows: pa.RecordBatch
    is_validation: np.ndarray | None
    facts: LabelFacts
    content: int

    def part(self, validation: bool) -> pa.RecordBatch:
        """The rows for validation, or the others."""
        if self.is_validation is None:
            return self.rows.slice(0, 0) if validation else self.rows
        return self.rows.filter(pa.array(self.is_validation == validation))


@dataclass
class PartFile:
    """One Parquet file, made when the first row group is there."""

    uri: str
    path: str
    schema: pa.Schema
    row_groups: list[int] = field(default_factory=list)
    held: list[pa.RecordBatch] = field(default_factory=list)
    writer: pq.ParquetWriter | None = None
    stream: pa.NativeFile | None = None

    def add(self, rows: pa.RecordBatch) -> None:
        """Take rows, and write them when they make a row group. Raises StoreError."""
        if rows.num_rows:
            self.held.append(rows)
        if sum(piece.nbytes for piece in self.held) >= ROW_GROUP_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what is held as a row group."""
        if not self.held:
            return
        if self.writer is None:
            self.stream = store.open_output(store.join(self.uri, self.path))
            self.writer = pq.ParquetWriter(
                self.stream, self.schema, compression="lz4", use_dictionary=False, write_statistics=False,
                **({"write_page_checksum": True} if PAGE_CHECKSUMS else {}),
            )  # fmt: skip
        table = pa.Table.from_batches(self.held, self.schema)
        most = max(1, len(table) * MOST_BYTES // max(1, table.nbytes))
        self.writer.write_table(table, row_group_size=most)
        self.row_groups += [min(most, len(table) - start) for start in range(0, len(table), most)]
        self.held.clear()

    def close(self) -> None:
        """Nothing more will come."""
        if self.writer is not None and self.stream is not None:
            self.writer.close()
            self.stream.close()


def write_partition(uri: str, folder: str, partition: int, layout: Layout, batches: Iterable[pa.RecordBatch]) -> Any:
    """Write the rows to files in ``folder`` of ``uri`` and tell of them, as JSON values.

    ``files``: [{``path`` under uri, ``row_groups``, ``validation``}]; ``content``: the sum of HASH modulo 2^64;
    ``facts``: of the labels, or None without rows. Raises DataError (its row counts from the partition's start),
    StoreError.
    """
    name = f"{partition:05d}-{uuid.uuid4().hex}.parquet"
    schema = stored_schema(layout)
    files = {
        is_validation: PartFile(uri, f"{folder}/{kind}-{name}", schema)
        for is_validation, kind in ((False, "part"), (True, "validation"))
    }
    content, rows, facts = 0, 0, None
    try:
        for batch in batches:
            if batch.num_rows:
                found = lay_out(batch, layout, rows)
                rows += batch.num_rows
                content += found.content
                facts = merged([found.facts] if facts is None else [facts, found.facts])
                for is_validation, file in files.items():
                    file.add(found.part(is_validation))
        for file in files.values():
            file.flush()
            file.close()
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(f"cannot write under {uri!r}: {error}", uri=uri) from error
    return {
        "files": [
            {"path": file.path, "row_groups": file.row_groups, "validation": is_validation}
            for is_validation, file in files.items()
            if file.row_groups
        ],
        "content": content % 2**64,
        "facts": facts and asdict(facts),
    }


def stored_schema(layout: Layout) -> pa.Schema:
    """One column a tensor: a scalar or a flat list."""
    return pa.schema(
        [(spec.name, columns.flat(np.empty((0, *spec.shape), dtype=spec.dtype)).type) for spec in layout.tensors]
    )


def lay_out(batch: pa.RecordBatch, layout: Layout, first_row: int = 0) -> LaidOut:
    """The batch as it is stored. Raises DataError naming the column and the row, counted from ``first_row``."""
    arrays = dict(zip(batch.schema.names, batch.columns, strict=True))
    try:
        tensors = [columns.to_numpy(arrays, spec) for spec in layout.signature.inputs]
        label = columns.to_numpy(arrays, layout.label)
        _check_label(label, layout)
        tensors.append(label)
        if layout.weight is not None:
            tensors.append(_weights(arrays, layout.weight))
        is_validation = _is_validation(arrays[VALIDATION], layout) if layout.splits else None
    except DataError as error:
        error.row = first_row + (error.row or 0)
        raise
    rows = pa.RecordBatch.from_arrays([columns.flat(array) for array in tensors], schema=stored_schema(layout))
    content = int(arrays[HASH].to_numpy().view(np.uint64).sum(dtype=np.uint64)) if HASH in arrays else 0
    return LaidOut(rows, is_validation, label_facts(label), content)


def label_facts(label: np.ndarray) -> LabelFacts:
    """Of labels of shape ``(B, ...)``, none of them NaN."""
    if not label.size:
        return LabelFacts(0, 0, True)
    whole = label.dtype.kind != "f" or bool(np.isfinite(label).all() and (label == np.floor(label)).all())
    low, high = (value.item() for value in (label.min(), label.max()))
    return LabelFacts(low, high, whole)


def _check_label(label: np.ndarray, layout: Layout) -> None:
    if label.dtype.kind == "f" and np.isnan(label).any():
        raise _refused("label column", layout.label.name, np.isnan(label), label, "a number")
    if layout.classes is not None:
        outside = (label < 0) | (label >= layout.classes) | (label != np.floor(label))
        if outside.any():
            expected = f"a class number from 0 to {layout.classes - 1}"
            raise _refused("label column", layout.label.name, outside, label, expected)


def _weights(arrays: dict[str, pa.Array], spec: TensorSpec) -> np.ndarray:
    weight = columns.to_numpy(arrays, spec)
    wrong = ~np.isfinite(weight) | (weight < 0)
    if wrong.any():
        raise _refused("weight column", spec.name, wrong, weight, f"a weight that is finite in {spec.dtype} and >= 0")
    return weight


def _is_validation(column: pa.Array, layout: Layout) -> np.ndarray:
    if column.null_count:
        wrong = np.asarray(column.is_null().to_numpy(zero_copy_only=False))
        got = np.full(len(column), None)
        raise _refused("validation column", str(layout.indicator), wrong, got, "true or false")
    return np.asarray(column.to_numpy(zero_copy_only=False))


def _refused(what: str, name: str, wrong: np.ndarray, values: np.ndarray, expected: str) -> DataError:
    """For the first row that has a wrong value."""
    row = int(np.flatnonzero(wrong.reshape(len(values), -1).any(axis=1))[0])
    got = values[row].tolist() if isinstance(values[row], (np.ndarray, np.generic)) else values[row]
    return DataError(
        f"{what} {name!r}, row {row}: expected {expected}, got {got}",
        column=name,
        row=row,
        file=None,
        expected=expected,
        got=got,
    )
