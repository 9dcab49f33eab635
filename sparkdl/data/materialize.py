"""DataFrame -> Parquet + manifest. Each partition is checked, laid out as tensors and written in one vectorised pass."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from sparkdl import store
from sparkdl.data import lease
from sparkdl.data.locate import Locator, located_error
from sparkdl.data.manifest import MANIFEST, DataFile, Dataset, LabelFacts, Layout, check_split, merged
from sparkdl.data.writer import HASH, VALIDATION, write_partition
from sparkdl.errors import (
    ColumnNotFoundError,
    DataError,
    EmptyDatasetError,
    InvalidParamError,
    SignatureError,
    StoreError,
)
from sparkdl.session import collect
from sparkdl.signature import Signature, check_indicator, column_kinds, label_spec, quoted, weight_spec

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

_TOLD = "partition int, told string"
_FOLDER = "data"
_SHARE_BITS = 53  # as many as a double holds exactly


def materialize(
    df: DataFrame,
    uri: str,
    *,
    inputCols: Sequence[str],
    labelCol: str = "label",
    weightCol: str | None = None,
    validationIndicatorCol: str | None = None,
    validationFraction: float = 0.0,
    shapes: Mapping[str, Sequence[int]] | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> Dataset:
    """Write the columns of ``df`` that training needs to ``uri``, once for many fits; ``fit`` takes the Dataset.

    Each column is stored in its own dtype and read in that of the model; scalar columns may be stacked then.

    uri: anything ``pyarrow.fs`` reads; driver and executors must be able to write there. weightCol: a number a row, of
    at least 0. validationIndicatorCol: a boolean column, true in the rows to validate with; or validationFraction: the
    share of rows, in (0, 1), that is; which ones depends on the rows' content and ``seed`` alone, and equal rows are on
    the same side. shapes: of one row, by column, for binary, string, and for arrays that are to be reshaped.

    The same rows and layout asked for again are recognised and not written again; others are a StoreError, or with
    ``overwrite`` replace what is there. No manifest, no dataset: a write that fails leaves nothing that counts.

    Raises InvalidParamError, ColumnNotFoundError and SignatureError before anything runs, and as ``write`` does.
    """
    if isinstance(inputCols, str) or not inputCols or not all(isinstance(name, str) for name in inputCols):
        raise InvalidParamError(
            f"'inputCols' must be a list of column names, at least one (got {inputCols!r})",
            param="inputCols",
            value=inputCols,
        )
    check_split(validationIndicatorCol, validationFraction)
    _check_batch(df)
    shapes = dict(shapes or {})
    for name in shapes:
        if name not in (*inputCols, labelCol):
            raise ColumnNotFoundError(name, [*inputCols, labelCol], role="in shapes, column")
    weight = weight_spec(df, weightCol, "float64") if weightCol is not None else None
    if validationIndicatorCol is not None:
        check_indicator(df, validationIndicatorCol)
    label = label_spec(df, labelCol, shapes)
    inputs = {name: shape for name, shape in shapes.items() if name in inputCols}
    signature = Signature.from_dataframe(df, list(inputCols), shapes=inputs)
    layout = Layout(signature, label, weight, validationIndicatorCol, validationFraction, seed)
    return write(df, uri, layout, overwrite=overwrite)


def write(df: DataFrame, uri: str, layout: Layout, *, overwrite: bool = False, digest: bool = True) -> Dataset:
    """Write the columns of ``df`` that training needs to ``uri`` and return the Dataset.

    The files go to a folder of this write's own under ``uri``, which every executor must be able to write; the manifest
    comes last. A write that fails removes its folder; one that is killed leaves a folder that no manifest lists, and
    that the next one to succeed here removes. A task that Spark runs twice leaves a file that nobody reads.

    A finished dataset at ``uri`` with the same rows (in any order) and layout is returned as it is; a different one is
    an error, or with ``overwrite`` replaced: it is there until the new manifest is. digest: False saves the hashing,
    for data that nobody will ask for again.

    Raises SignatureError before anything runs if a column is not there or the indicator is not boolean; DataError
    naming column, row, file, expected and got for the first bad row; EmptyDatasetError; DataError if no row is left to
    train on or to validate with; StoreError if ``uri`` cannot be written or holds something else.
    """
    uri = store.absolute(uri)
    _check_batch(df)
    column_kinds(df, _kinds(layout))
    if layout.indicator is not None:
        check_indicator(df, layout.indicator)
    if not overwrite:
        known = _known(df, uri, layout, digest)
        if known is not None:
            return known
    elif store.exists(store.join(uri, MANIFEST)):
        Dataset.load(uri)  # what is no dataset of ours is not overwritten
    folder = f"{_FOLDER}-{uuid.uuid4().hex}"
    own = store.join(uri, folder)
    try:
        lease.claim(own)
        dataset = _written(df, uri, folder, layout, digest)
        if not overwrite and store.exists(store.join(uri, MANIFEST)):
            raise StoreError(f"another dataset was written to {uri!r} meanwhile; ask again for it", uri=uri)
        dataset.save()
    except BaseException:
        store.delete(own)
        raise
    lease.release(own)
    _remove_unlisted(uri, folder)
    return dataset


def _check_batch(df: DataFrame) -> None:
    if df.isStreaming:
        raise SignatureError(
            "a stream cannot be materialised; write it to a table and materialise that",
            column=None,
            expected="a batch DataFrame",
            got="a stream",
        )


def _written(df: DataFrame, uri: str, folder: str, layout: Layout, digest: bool) -> Dataset:
    """The dataset, all but its manifest."""
    found = collect(df.select(*_selected(df, layout, digest)).mapInArrow(_Task(uri, folder, layout), _TOLD))
    told = [json.loads(row.told) for row in sorted(found, key=lambda row: row.partition)]
    problems = [part["problem"] for part in told if "problem" in part]
    if problems:
        if problems[0]["column"] is None:
            raise StoreError(problems[0]["text"], uri=uri)
        raise _located(df, layout, problems[0])
    files, validation_files = (
        tuple(
            DataFile(file["path"], tuple(file["row_groups"]))
            for part in told
            for file in part["files"]
            if file["validation"] == wanted
        )
        for wanted in (False, True)
    )
    if not files and not validation_files:
        raise EmptyDatasetError()
    content = sum(part["content"] for part in told) % 2**64
    dataset = Dataset(
        uri,
        files,
        layout.signature,
        layout.label,
        layout.weight,
        validation_files,
        f"{content:016x}{layout.digest}" if digest else None,
        merged([LabelFacts(**part["facts"]) for part in told if part["facts"]]),
    )
    if layout.splits:
        _check_sides(dataset, layout)
    return dataset


def _check_sides(dataset: Dataset, layout: Layout) -> None:
    for what, side in (("train on", dataset.files), ("validate with", dataset.validation_files)):
        if not side:
            by = f"{layout.indicator!r}" if layout.indicator else f"validationFraction={layout.fraction}"
            count = dataset.rows or (dataset.validation.rows if dataset.validation else 0)
            raise DataError(
                f"{by} leaves no row to {what}: all {count} are on the other side; change the split or give more rows",
                column=layout.indicator,
                row=None,
                file=None,
                expected=f"rows to {what}",
                got=0,
            )


def _known(df: DataFrame, uri: str, layout: Layout, digest: bool) -> Dataset | None:
    """The dataset at ``uri`` if it is what would be written; None if there is none. Raises StoreError if it differs."""
    if not store.exists(store.join(uri, MANIFEST)):
        return None
    found = Dataset.load(uri)
    differs = _differences(df, found, layout) if digest else "it is not asked which data it holds"
    if differs:
        raise StoreError(
            f"there is another dataset at {uri!r}: {differs}; replace it by overwrite=True, or choose another URI",
            uri=uri,
        )
    if layout.classes is not None:
        found.check_classes(layout.classes)
    return found


def _differences(df: DataFrame, found: Dataset, layout: Layout) -> str | None:
    """What sets the dataset apart from what would be written; None: nothing."""
    if found.digest is None:
        return "it was written without a digest, so it cannot be compared"
    differs = layout.difference(found)
    if differs:
        return differs
    from pyspark.sql import functions as sf

    hashed = df.select(_hash(df, layout).alias(HASH))
    row = collect(hashed.agg(sf.count("*").alias("rows"), sf.sum(sf.col(HASH).cast("decimal(20,0)")).alias("content")))
    there = found.rows + (found.validation.rows if found.validation else 0)
    if row[0].rows != there:
        return f"it has {there} rows, the DataFrame has {row[0].rows}"
    if f"{int(row[0].content) % 2**64:016x}" != found.digest[:16]:
        return f"its content differs (both have {there} rows)"
    return None


def _remove_unlisted(uri: str, current: str) -> None:
    """Remove what earlier writes left: folders of theirs that nobody is writing."""
    for name in store.names(uri):
        folder = store.join(uri, name)
        if name == current or not lease.is_named(name, _FOLDER):
            continue
        if not store.exists(store.join(folder, lease.OWNER)) or lease.is_abandoned(folder):
            store.delete(folder)


def plain(df: DataFrame, name: str, kind: str) -> Column:
    """The column as Arrow can carry it: a vector as an array, a timestamp as microseconds since 1970 in UTC, for pandas
    would turn it to the session's zone and has no year 1; all else as it is."""
    return plain_column(df[quoted(name)], kind).alias(name)


def plain_column(column: Column, kind: str) -> Column:
    """As ``plain``, of any expression of this kind."""
    from pyspark.ml.functions import vector_to_array
    from pyspark.sql.functions import unix_micros

    if kind == "timestamp":
        return unix_micros(column)
    return vector_to_array(column) if kind == "vector" else column


def _kinds(layout: Layout) -> dict[str, str]:
    """The columns that become tensors, each once, and their kinds (see ``TensorSpec.types``)."""
    specs = (*layout.signature.inputs, layout.label, *([layout.weight] if layout.weight else []))
    return {column: kind for spec in specs for column, kind in zip(spec.columns, spec.types, strict=True)}


def _selected(df: DataFrame, layout: Layout, digest: bool) -> list[Column]:
    """What the executors get."""
    from pyspark.sql import functions as sf

    selected = [plain(df, name, kind) for name, kind in _kinds(layout).items()]
    if layout.indicator is not None:
        selected.append(plain(df, layout.indicator, "boolean").alias(VALIDATION))
    elif layout.fraction:
        # by the row's content: a task that runs twice, or another partitioning, puts it on the same side
        share = sf.xxhash64(sf.lit(layout.seed), *selected).bitwiseAND(sf.lit(2**_SHARE_BITS - 1))
        selected.append((share < sf.lit(int(layout.fraction * 2**_SHARE_BITS))).alias(VALIDATION))
    if digest:
        selected.append(_hash(df, layout).alias(HASH))
    return selected


def _hash(df: DataFrame, layout: Layout) -> Column:
    """64 bits of the content of a row: all that is written of it, and its side if a column tells that."""
    from pyspark.sql import functions as sf

    used = [plain(df, name, kind) for name, kind in _kinds(layout).items()]
    if layout.indicator is not None:
        used.append(plain(df, layout.indicator, "boolean"))
    return sf.xxhash64(*used)


@dataclass(frozen=True)
class _Task:
    """Runs in the executors: Arrow batches of a partition in, one row about what it wrote out."""

    uri: str
    folder: str
    layout: Layout

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from pyspark import TaskContext

        context = TaskContext.get()
        partition = context.partitionId() if context else 0
        try:
            told = write_partition(self.uri, self.folder, partition, self.layout, batches)
        except DataError as error:
            told = {"problem": {"column": error.column, "row": error.row, "text": str(error)}}
        except StoreError as error:
            told = {"problem": {"column": None, "text": f"on an executor: {error}"}}
        yield pa.RecordBatch.from_arrays(
            [pa.array([partition], pa.int32()), pa.array([json.dumps(told)])], names=["partition", "told"]
        )


def _located(df: DataFrame, layout: Layout, problem: dict[str, Any]) -> DataError:
    """The first bad row once more, now with the file it came from, which the hot path does not carry along."""
    for place in ("struct(_metadata.file_path AS file, _metadata.row_index AS row)",
                  "struct(nullif(input_file_name(), '') AS file, cast(null AS bigint) AS row)"):  # fmt: skip
        from pyspark.errors import AnalysisException
        from pyspark.sql import functions as sf

        try:
            located = df.select(*_selected(df, layout, digest=False), sf.expr(place).alias("__place__"))
            _ = located.schema  # Connect analyses only now
        except AnalysisException:  # not straight from files: no _metadata
            continue
        rows = located.mapInArrow(Locator(layout), "file string, row bigint, problem string").limit(1).collect()
        if rows and rows[0].problem:
            return located_error(json.loads(rows[0].problem), rows[0].file, rows[0].row)
    return located_error({**problem, "expected": None, "got": None}, None, None)
