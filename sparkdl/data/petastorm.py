"""Petastorm: its datasets as training data, its reader for ours, and its converter's cache. No Spark, no Horovod.

A rank's row groups are Petastorm's choice: number ``i`` is rank ``i % size``'s. So the ranks' rows differ, and are known
beforehand from the files' footers.

Shapes: B rows of a batch, then the spec's own sizes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from sparkdl import store
from sparkdl.data.batch import Batch
from sparkdl.data.manifest import Dataset
from sparkdl.data.petastorm_compat import file_system, import_petastorm
from sparkdl.errors import (
    ColumnNotFoundError,
    DataError,
    EmptyDatasetError,
    InvalidParamError,
    SignatureError,
    StoreError,
    TooFewRowsError,
)
from sparkdl.signature import DTYPES, Signature, TensorSpec, stack_scalars
from sparkdl.train.world import World

MEMORY_BUDGET = 1 << 30
ROWS_AT_ONCE = 256
SPARK_OF_NUMPY = {
    "bool": "boolean", "uint8": "short", "int8": "byte", "int16": "short", "int32": "integer", "int64": "long",
    "float16": "float", "float32": "float", "float64": "double",
}  # fmt: skip


@dataclass(frozen=True)
class PetastormDataset:
    """Training data that Petastorm wrote: Parquet with a Unischema, whose codecs its reader undoes.

    row_groups: the rows of each row group, in Petastorm's order.
    """

    uri: str
    row_groups: tuple[int, ...]
    signature: Signature
    label: TensorSpec
    weight: TensorSpec | None = None

    @property
    def rows(self) -> int:
        """Rows of all row groups."""
        return sum(self.row_groups)

    @property
    def tensors(self) -> tuple[TensorSpec, ...]:
        """The inputs, the label and, if there is one, the weight."""
        return (*self.signature.inputs, self.label, *([] if self.weight is None else [self.weight]))

    def cast(self, float_dtype: str | None, label_dtype: str) -> PetastormDataset:
        """The same files, read with floating inputs as ``float_dtype`` (None: as they are), labels as ``label_dtype``."""
        weight = self.weight
        if weight is not None and float_dtype in ("float32", "float64"):
            weight = replace(weight, dtype=float_dtype)
        signature = self.signature.with_float_dtype(float_dtype)
        return replace(self, signature=signature, label=replace(self.label, dtype=label_dtype), weight=weight)

    def stacked(self, name: str) -> PetastormDataset:
        """The same files, all inputs read as one vector of that name. Raises SignatureError if one is no scalar."""
        return replace(self, signature=Signature((stack_scalars(name, self.signature.inputs),)))

    @classmethod
    def open(
        cls, uri: str, *, inputCols: Sequence[str], labelCol: str, weightCol: str | None = None, trusted: bool
    ) -> PetastormDataset:
        """Read the schema and the footers of the dataset at ``uri``, any that ``pyarrow.fs`` opens.

        The Unischema is a pickle in the dataset's ``_common_metadata``, so it is read only when ``trusted``.

        The inputs' specs say what a model trained on them can score later: an array field of dtype uint8 a column of
        ``binary``, the raw bytes in C order (an image decoded to height x width x channels); one of another dtype a
        column of arrays, nested as deep as the field's shape; a scalar field a column of its Spark type.

        Raises InvalidParamError unless trusted; StoreError if there is no Petastorm dataset; ColumnNotFoundError;
        SignatureError for a field whose shape is not fixed, that may be null, or that is not a number or an array of
        numbers; EmptyDatasetError; DataError for a row group without rows.
        """
        if trusted is not True:
            raise InvalidParamError(
                f"the schema of the Petastorm dataset {uri!r} is a pickle, and reading it runs whatever code its "
                "writer put there; say trusted=True if you know where it comes from",
                param="trusted",
                value=trusted,
            )
        schema, row_groups = _opened(uri)
        fields = schema.fields
        weights = [] if weightCol is None else [weightCol]
        for name in (*inputCols, labelCol, *weights):
            if name not in fields:
                raise ColumnNotFoundError(name, fields, role="field")
        if not sum(row_groups):
            raise EmptyDatasetError()
        if 0 in row_groups:
            told = f"row group {row_groups.index(0)} (they count from 0) has no rows"
            raise DataError(
                f"{told} in {uri!r}, and Petastorm's reader divides by their number; write the dataset anew, with Spark",
                column=None,
                row=None,
                file=None,
                expected="row groups with rows",
                got=told,
            )
        inputs = Signature(tuple(_spec(fields[name]) for name in inputCols))
        weight = None
        if weightCol is not None:
            told = _spec(fields[weightCol])
            if told.shape:
                raise SignatureError(
                    f"weight field {weightCol!r} has shape {told.shape}; a weight is one number a row",
                    column=weightCol,
                    expected=(),
                    got=told.shape,
                )
            weight = replace(told, dtype="float64" if told.dtype == "float64" else "float32")
        return cls(str(uri), row_groups, inputs, _spec(fields[labelCol]), weight)


@dataclass(frozen=True)
class ConverterSource:
    """The cache that Petastorm's ``make_spark_converter`` wrote: plain Parquet.

    uri: of the folder. rows: how many.
    """

    uri: str
    rows: int


def converter_source(value: object) -> ConverterSource | None:
    """Where the data of a ``SparkDatasetConverter`` lies; None if ``value`` is none. Does not import Petastorm."""
    for cls in type(value).__mro__:
        if cls.__name__ == "SparkDatasetConverter" and cls.__module__.split(".")[0] == "petastorm":
            return ConverterSource(value.cache_dir_url, int(value.dataset_size))  # type: ignore[attr-defined]
    return None


def row_groups_of(dataset: Dataset | PetastormDataset) -> tuple[int, ...]:
    """The rows of each row group in the order in which Petastorm numbers them."""
    if isinstance(dataset, PetastormDataset):
        return dataset.row_groups
    return tuple(rows for file in dataset.files for rows in file.row_groups)


def rows_of_ranks(row_groups: Sequence[int], ranks: int) -> list[int]:
    """Rows of each rank: row group ``i`` is rank ``i % ranks``'s (``Reader._partition_row_groups`` in Petastorm)."""
    return [sum(row_groups[rank::ranks]) for rank in range(ranks)]


def check_ranks(dataset: Dataset | PetastormDataset, ranks: int) -> None:
    """Raise TooFewRowsError if there are fewer row groups than ``ranks``, since Petastorm shares out whole ones."""
    row_groups = row_groups_of(dataset)
    if len(row_groups) < ranks:
        raise TooFewRowsError(
            f"Petastorm shares out whole row groups, and {dataset.uri} has {len(row_groups)} for {ranks} ranks; "
            "lower numProc, write it with more row groups (repartition, or a smaller row group size), "
            "or use the Arrow reader where it is plain Parquet",
            rows=dataset.rows,
            ranks=ranks,
            column=None,
            row=None,
            file=None,
            expected=f"at least {ranks} row groups",
            got=len(row_groups),
        )


class PetastormReader:
    """Reads a rank's row groups through Petastorm: ``make_reader`` for a PetastormDataset, else ``make_batch_reader``.

    A shard of up to ``memory_budget`` bytes, decoded, is read once and kept, and each epoch is shuffled whole. A larger
    one is read anew each epoch, its row groups in shuffled order, and shuffled within pools of half the budget. It reads
    in the calling thread (Petastorm's "dummy" pool), so that the order depends on (seed, epoch) alone.

    drop_last: leave out, each epoch, the rows that do not fill a batch on every rank, instead of padding.

    Raises as ``check_ranks``, and InvalidParamError if ``drop_last`` leaves no step.
    """

    def __init__(
        self,
        dataset: Dataset | PetastormDataset,
        world: World,
        *,
        batch_size: int,
        seed: int,
        memory_budget: int = MEMORY_BUDGET,
        drop_last: bool = False,
    ) -> None:
        check_ranks(dataset, world.size)
        self.dataset = dataset
        self.world = world
        self.batch_size = batch_size
        self.seed = seed
        self.rows_of_ranks = rows_of_ranks(row_groups_of(dataset), world.size)
        self.rows = self.rows_of_ranks[world.rank]
        fewest, most = min(self.rows_of_ranks), max(self.rows_of_ranks)
        self.steps_per_epoch = fewest // batch_size if drop_last else -(-most // batch_size)
        if not self.steps_per_epoch:
            raise InvalidParamError(
                f"batchSize {batch_size} leaves no step when last batches are dropped: a rank has only {fewest} rows",
                param="batchSize",
                value=batch_size,
            )
        row_bytes = max(1, sum(spec.size * np.dtype(spec.dtype).itemsize for spec in dataset.tensors))
        self._keeps = self.rows * row_bytes <= memory_budget
        held = self.rows if self._keeps else max(1, memory_budget // 2 // row_bytes)
        self.pool_rows = -(-held // batch_size) * batch_size  # whole batches: no batch is of two pools
        self._kept: list[Tensor] | None = None

    def rows_in_step(self, step: int) -> list[int]:
        """See Reader."""
        return [max(0, min(self.batch_size, rows - step * self.batch_size)) for rows in self.rows_of_ranks]

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """See Reader."""
        random = np.random.default_rng((self.seed, epoch))
        order_seed = None if self._keeps else int(random.integers(1 << 32))  # what is kept must not tell the epoch
        batch, step = None, 0
        for pool in self._pools(order_seed):
            order = torch.from_numpy(random.permutation(len(pool[-1])))
            for rows in order.split(self.batch_size):
                if step >= self.steps_per_epoch:
                    return
                if step >= first_step or step + 1 == -(-self.rows // self.batch_size):
                    batch = _batch(self.dataset, pool, rows)
                if step >= first_step and batch is not None:
                    yield batch
                step += 1
        for _ in range(max(first_step, step), self.steps_per_epoch):
            if batch is not None:
                yield replace(batch, rows=0)

    def scan(self) -> Iterator[Batch]:
        """See Reader."""
        for pool in self._pools(None):
            for rows in torch.arange(len(pool[-1])).split(self.batch_size):
                yield _batch(self.dataset, pool, rows)

    def _pools(self, order_seed: int | None) -> Iterator[list[Tensor]]:
        """The shard's rows, ``pool_rows`` at a time; the row groups in their own order if ``order_seed`` is None."""
        if self._kept is not None:
            yield self._kept
            return
        left, pool, held = self.rows, self._empty(self.rows), 0
        for chunk in self._chunks(order_seed):
            start, stop = 0, len(chunk[-1])
            while start < stop:
                taken = min(stop - start, len(pool[-1]) - held)
                for target, values in zip(pool, chunk, strict=True):
                    target[held : held + taken] = values[start : start + taken]
                start, held = start + taken, held + taken
                if held == len(pool[-1]):
                    tensors = [torch.from_numpy(array) for array in pool]
                    if self._keeps:
                        self._kept = tensors
                    yield tensors
                    left, held = left - held, 0
                    pool = self._empty(left)

    def _empty(self, rows: int) -> list[np.ndarray]:
        rows = min(self.pool_rows, rows)
        return [np.empty((rows, *spec.shape), spec.dtype) for spec in self.dataset.tensors]

    def _chunks(self, order_seed: int | None) -> Iterator[list[np.ndarray]]:
        """The shard's rows in pieces, each an array ``(rows, *shape)`` a tensor, in the spec's dtype."""
        specs = self.dataset.tensors
        where = f"rank {self.world.rank}'s row groups of {self.dataset.uri}"
        left = self.rows
        reader = _make_reader(self.dataset, self.world, order_seed)
        try:
            # Not until it is exhausted: the "dummy" pool can wait for ever for an item after its last.
            while left:
                if isinstance(self.dataset, Dataset):
                    chunk = next(reader)
                else:
                    rows = [next(reader) for _ in range(min(left, ROWS_AT_ONCE))]
                    chunk = {name: _stacked(name, [row[name] for row in rows], where) for name in rows[0]}
                tensors = [_fitted(chunk, spec, where) for spec in specs]
                if isinstance(self.dataset, PetastormDataset):
                    _check_targets(self.dataset, tensors, where)
                yield tensors
                left -= len(tensors[0])
        except DataError:
            raise
        except (StopIteration, OSError, pa.ArrowException, RuntimeError, ValueError) as error:
            told = "there are fewer rows than the footers say" if isinstance(error, StopIteration) else str(error)
            raise DataError(
                f"{where} cannot be read by Petastorm: {told}",
                column=None,
                row=None,
                file=None,
                expected="readable row groups",
                got=told,
            ) from error
        finally:
            reader.stop()
            reader.join()


class _AsDict:
    """Stands for a reader's schema, so that rows come as dictionaries: a namedtuple refuses ``__label__`` or "a b"."""

    def __init__(self, fields: Any) -> None:
        self.fields = fields

    def make_namedtuple(self, **row: Any) -> dict[str, Any]:
        return row


def _make_reader(dataset: Dataset | PetastormDataset, world: World, order_seed: int | None) -> Any:
    """A Petastorm reader of one pass over the rank's row groups, shuffled by ``order_seed`` unless that is None."""
    petastorm = import_petastorm()
    filesystem, _, url = _place(dataset.uri)
    # A stacked vector is one column on disk, or several, if it was stacked since.
    names = dict.fromkeys(name for spec in dataset.tensors for name in (spec.name, *_parts(spec)))
    options: dict[str, Any] = {
        "schema_fields": [f"^{re.escape(name)}$" for name in names],
        "reader_pool_type": "dummy",
        "shuffle_row_groups": order_seed is not None,
        "seed": order_seed,
        "cur_shard": world.rank,
        "shard_count": world.size,
        "filesystem": filesystem,
    }
    if isinstance(dataset, PetastormDataset):
        reader = petastorm.make_reader(url, **options)
    else:
        reader = petastorm.make_batch_reader([store.join(url, file.path) for file in dataset.files], **options)
    reader.schema = _AsDict(reader.schema.fields)
    return reader


def _parts(spec: TensorSpec) -> tuple[str, ...]:
    return spec.columns if spec.is_stacked else ()


def _place(uri: str) -> tuple[Any, str, str]:
    """The file system of ``uri`` for Petastorm, the path in it, and a URL that Petastorm takes for that path."""
    filesystem, path = store.resolve(uri)
    # Petastorm cuts the scheme off, and the bucket too but for those that it knows, s3 among them.
    url = f"file://{path}" if path.startswith("/") else f"s3://{path}"
    return file_system(filesystem), path, url


def _opened(uri: str) -> tuple[Any, tuple[int, ...]]:
    """The Unischema of the dataset, and the rows of each row group in Petastorm's order."""
    metadata = import_petastorm("petastorm.etl.dataset_metadata")
    filesystem, path, _ = _place(uri)
    try:
        files = metadata.pq.ParquetDataset(path, filesystem=filesystem, validate_schema=False)
        schema = metadata.get_schema(files)
        pieces = metadata.load_row_groups(files)
        footers = {piece.path: _footer(filesystem, piece.path) for piece in pieces}
    except (OSError, pa.ArrowException, metadata.PetastormMetadataError, StopIteration, KeyError) as error:
        raise StoreError(f"there is no (finished) Petastorm dataset at {uri!r}: {error!r}", uri=str(uri)) from error
    return schema, tuple(footers[piece.path].row_group(piece.row_group).num_rows for piece in pieces)


def _footer(filesystem: Any, path: str) -> pq.FileMetaData:
    with filesystem.open(path, "rb") as source:
        return pq.read_metadata(source)


def _spec(field: Any) -> TensorSpec:
    dtype = "none" if field.numpy_dtype is None else np.dtype(field.numpy_dtype).name
    shape = tuple(field.shape or ())
    problem = None
    if dtype not in DTYPES:
        problem = f"its dtype is {dtype}, which no tensor can hold; write it as one of {list(DTYPES)}"
    elif None in shape:
        problem = f"its shape {shape} is not fixed; write it cut or padded to one shape"
    elif field.nullable:
        problem = "it may be null; write it as not nullable"
    if problem:
        raise SignatureError(
            f"field {field.name!r} of the Petastorm dataset cannot be trained on: {problem}",
            column=field.name,
            expected="numbers of a fixed shape",
            got=f"{dtype}{list(shape)}",
        )
    if not shape:
        kind = _scalar_type(field, dtype)
    else:
        kind = "binary" if dtype == "uint8" else "array<" * len(shape) + SPARK_OF_NUMPY[dtype] + ">" * len(shape)
    return TensorSpec(field.name, dtype, shape, columns=(field.name,), types=(kind,))


def _scalar_type(field: Any, dtype: str) -> str:
    """The Spark type that the field's codec names, if it is a number's."""
    spark_dtype = getattr(field.codec, "spark_dtype", None)
    told = str(spark_dtype().jsonValue()).split("(")[0] if spark_dtype else ""
    return told if told in {*SPARK_OF_NUMPY.values(), "decimal"} else SPARK_OF_NUMPY[dtype]


def _stacked(name: str, values: Sequence[Any], where: str) -> np.ndarray:
    """Decoded values of one field as an array ``(rows, ...)``. A codec does not check what it reads."""
    shapes = {None if value is None else np.shape(value) for value in values}
    if len(shapes) > 1 or None in shapes:
        told = " and ".join(sorted("null" if shape is None else f"shape {shape}" for shape in shapes))
        raise _unfit(name, "values of one shape", told, where)
    return np.stack(values)


def _fitted(chunk: Mapping[str, np.ndarray], spec: TensorSpec, where: str) -> np.ndarray:
    """The tensor ``(rows, *shape)`` in the spec's dtype. Raises DataError for another shape or changed whole numbers."""
    if spec.name in chunk:
        array = np.asarray(chunk[spec.name])
    else:
        array = np.stack([chunk[name] for name in spec.columns], axis=1)
    shape = array.shape[1:]
    if shape not in (spec.shape, (spec.size,)):
        raise _unfit(spec.name, f"shape {spec.shape}", f"shape {shape}", where)
    fitted = array.reshape(len(array), *spec.shape).astype(spec.dtype, copy=False)
    if fitted.dtype.kind in "iub" and fitted.dtype != array.dtype and (fitted.ravel() != array.ravel()).any():
        raise _unfit(spec.name, f"values that {spec.dtype} holds", f"{array.dtype} values that it does not", where)
    return fitted


def _check_targets(dataset: PetastormDataset, tensors: Sequence[np.ndarray], where: str) -> None:
    """What ``materialize`` looks at when it writes: labels are numbers, weights are numbers of at least 0."""
    label = tensors[len(dataset.signature.inputs)]
    if label.dtype.kind == "f" and np.isnan(label).any():
        raise _unfit(dataset.label.name, "a number", "NaN", where)
    if dataset.weight is not None and not (np.isfinite(tensors[-1]) & (tensors[-1] >= 0)).all():
        raise _unfit(dataset.weight.name, "finite weights of at least 0", "another", where)


def _unfit(name: str, expected: Any, got: Any, where: str) -> DataError:
    return DataError(
        f"field {name!r} in {where}: expected {expected}, got {got}",
        column=name,
        row=None,
        file=None,
        expected=expected,
        got=got,
    )


def _batch(dataset: Dataset | PetastormDataset, pool: Sequence[Tensor], rows: Tensor) -> Batch:
    tensors = [tensor[rows] for tensor in pool]
    weight = None if dataset.weight is None else tensors.pop()
    *inputs, label = tensors
    return Batch(inputs, label, len(label), weight)
