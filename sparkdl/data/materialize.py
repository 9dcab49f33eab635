"""DataFrame -> Parquet + manifest. Each partition is checked, laid out as tensors and written in one vectorised pass."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sparkdl import columns, store
from sparkdl.data.manifest import LABEL, DataFile, Dataset
from sparkdl.errors import DataError, EmptyDatasetError, StoreError
from sparkdl.session import collect
from sparkdl.signature import Signature, TensorSpec

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

ROW_GROUP_BYTES = 16 << 20
_RESULT = "partition int, path string, row_groups array<bigint>, problem string"


def materialize(
    df: DataFrame, uri: str, signature: Signature, label: TensorSpec, *, classes: int | None = None
) -> Dataset:
    """Write the columns of ``df`` that training needs to ``uri`` and return the Dataset.

    Every executor must be able to write to ``uri``. A task that Spark runs twice leaves a file that the manifest does
    not list, and that nobody reads.

    classes: if given, labels must be whole numbers in ``[0, classes)``.
    Raises DataError naming column, row, file, expected and got for the first bad row; EmptyDatasetError.
    """
    wanted = dict(zip((*signature.columns, *label.columns), (*_types(signature), *label.types), strict=True))
    prepared = df.select(*(plain(df, name, kind) for name, kind in wanted.items()))
    found = collect(prepared.mapInArrow(_Writer(uri, signature, label, classes), _RESULT))
    problems = sorted((row.partition, row.problem) for row in found if row.problem)
    if problems:
        problem = json.loads(problems[0][1])
        if problem["column"] is None:
            raise StoreError(problem["text"], uri=uri)
        raise _located(df, signature, label, classes, problem)
    files = tuple(DataFile(row.path, tuple(row.row_groups)) for row in sorted(found, key=lambda row: row.partition))
    dataset = Dataset(uri, files, signature, label)
    if not dataset.rows:
        raise EmptyDatasetError()
    dataset.save()
    return dataset


def plain(df: DataFrame, name: str, kind: str) -> Column:
    """The column as Arrow can carry it: a vector as an array, all else as it is."""
    from pyspark.ml.functions import vector_to_array

    column = df[f"`{name.replace('`', '``')}`"]
    return vector_to_array(column).alias(name) if kind == "vector" else column.alias(name)


def _types(signature: Signature) -> tuple[str, ...]:
    kinds = {column: kind for spec in signature.inputs for column, kind in zip(spec.columns, spec.types, strict=True)}
    return tuple(kinds[column] for column in signature.columns)


@dataclass(frozen=True)
class _Writer:
    """Runs in the executors: Arrow batches of a partition in, one row about the file it wrote out."""

    uri: str
    signature: Signature
    label: TensorSpec
    classes: int | None

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from pyspark import TaskContext

        context = TaskContext.get()
        partition = context.partitionId() if context else 0
        path = f"part-{partition:05d}-{uuid.uuid4().hex}.parquet"
        row_groups: list[int] = []
        problem = None
        try:
            row_groups = self._write(path, batches)
        except DataError as error:
            problem = json.dumps({"column": error.column, "row": error.row, "text": str(error)}, default=str)
        except StoreError as error:
            problem = json.dumps({"column": None, "text": f"on an executor: {error}"})
        if row_groups or problem:
            yield pa.RecordBatch.from_arrays(
                [
                    pa.array([partition], pa.int32()),
                    pa.array([path]),
                    pa.array([row_groups], pa.list_(pa.int64())),
                    pa.array([problem], pa.string()),
                ],
                names=["partition", "path", "row_groups", "problem"],
            )

    def _write(self, path: str, batches: Iterator[pa.RecordBatch]) -> list[int]:
        row_groups: list[int] = []
        held: list[pa.RecordBatch] = []
        schema = self.schema()
        writer = stream = None

        def flush() -> None:
            nonlocal writer, stream
            if not held:
                return
            if writer is None:
                stream = store.open_output(store.join(self.uri, path))
                writer = pq.ParquetWriter(
                    stream, schema, compression="lz4", use_dictionary=False, write_statistics=False
                )
            table = pa.Table.from_batches(held, schema)
            writer.write_table(table, row_group_size=len(table))
            row_groups.append(len(table))
            held.clear()

        rows = 0
        try:
            for batch in batches:
                if batch.num_rows:
                    held.append(self.laid_out(batch, rows))
                    rows += batch.num_rows
                if sum(piece.nbytes for piece in held) >= ROW_GROUP_BYTES:
                    flush()
            flush()
        finally:
            if writer is not None and stream is not None:
                writer.close()
                stream.close()
        return row_groups

    def schema(self) -> pa.Schema:
        """One column a tensor: a scalar or a flat list."""
        specs = (*self.signature.inputs, replace(self.label, name=LABEL))
        return pa.schema([(s.name, columns.flat(np.empty((0, *s.shape), dtype=s.dtype)).type) for s in specs])

    def laid_out(self, batch: pa.RecordBatch, first_row: int) -> pa.RecordBatch:
        """The batch as it is stored. Raises DataError; rows count from the partition's start."""
        arrays = dict(zip(batch.schema.names, batch.columns, strict=True))
        try:
            tensors = [columns.to_numpy(arrays, spec) for spec in self.signature.inputs]
            label = columns.to_numpy(arrays, self.label)
            self._check_label(label)
        except DataError as error:
            error.row = first_row + (error.row or 0)
            raise
        return pa.RecordBatch.from_arrays([columns.flat(array) for array in (*tensors, label)], schema=self.schema())

    def _check_label(self, label: np.ndarray) -> None:
        if label.dtype.kind == "f" and np.isnan(label).any():
            self._refuse_label(np.isnan(label), label, "a number")
        if self.classes is not None:
            outside = (label < 0) | (label >= self.classes) | (label != np.floor(label))
            if outside.any():
                self._refuse_label(outside, label, f"a class number from 0 to {self.classes - 1}")

    def _refuse_label(self, wrong: np.ndarray, label: np.ndarray, expected: str) -> None:
        row = int(np.flatnonzero(wrong.reshape(len(label), -1).any(axis=1))[0])
        got = label[row].tolist()
        name = self.label.name
        raise DataError(
            f"label column {name!r}, row {row}: expected {expected}, got {got}",
            column=name,
            row=row,
            file=None,
            expected=expected,
            got=got,
        )


def _located(
    df: DataFrame, signature: Signature, label: TensorSpec, classes: int | None, problem: dict[str, Any]
) -> DataError:
    """The first bad row once more, now with the file it came from, which the hot path does not carry along."""
    writer = _Writer("", signature, label, classes)
    kinds = dict(zip((*signature.columns, *label.columns), (*_types(signature), *label.types), strict=True))
    prepared = [plain(df, column, kind) for column, kind in kinds.items()]
    for place in ("struct(_metadata.file_path AS file, _metadata.row_index AS row)",
                  "struct(nullif(input_file_name(), '') AS file, cast(null AS bigint) AS row)"):  # fmt: skip
        from pyspark.errors import AnalysisException
        from pyspark.sql import functions as sf

        try:
            located = df.select(*prepared, sf.expr(place).alias("__place__"))
            _ = located.schema  # Connect analyses only now
        except AnalysisException:  # not straight from files: no _metadata
            continue
        rows = located.mapInArrow(_Locator(writer), "file string, row bigint, problem string").limit(1).collect()
        if rows and rows[0].problem:
            return _as_error(json.loads(rows[0].problem), rows[0].file, rows[0].row)
    return _as_error({**problem, "expected": None, "got": None}, None, None)


def _as_error(problem: dict[str, Any], file: str | None, row: int | None) -> DataError:
    row = problem["row"] if row is None else row
    where = f"row {row} of {file}" if file else f"row {row} of its partition (rows count from 0)"
    return DataError(
        f"column {problem['column']!r}, {where}: {problem['text'].split(': ', 1)[-1]}",
        column=problem["column"],
        row=row,
        file=file,
        expected=problem["expected"],
        got=problem["got"],
    )


@dataclass(frozen=True)
class _Locator:
    """Runs in the executors: the first bad row of a partition with its ``__place__``."""

    writer: _Writer

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            try:
                self.writer.laid_out(batch, 0)
            except DataError as error:
                place = batch.column(batch.schema.get_field_index("__place__"))[error.row].as_py()
                problem = {"column": error.column, "row": error.row, "text": str(error),
                           "expected": error.expected, "got": error.got}  # fmt: skip
                yield pa.RecordBatch.from_arrays(
                    [
                        pa.array([place["file"]], pa.string()),
                        pa.array([place["row"]], pa.int64()),
                        pa.array([json.dumps(problem, default=str)]),
                    ],
                    names=["file", "row", "problem"],
                )
                return
