"""A rank's batches through Petastorm's own reader: of a dataset that it wrote, or of ours. No Spark, no Horovod.

A rank's row groups are Petastorm's choice: number ``i`` is rank ``i % size``'s. So the ranks' rows differ, and are known
beforehand from the files' footers.

Shapes: B rows of a batch, then the spec's own sizes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from sparkdl import store
from sparkdl.data.batch import Batch
from sparkdl.data.manifest import Dataset
from sparkdl.data.petastorm_compat import import_petastorm
from sparkdl.data.petastorm_dataset import ConverterSource, PetastormDataset, converter_source, place
from sparkdl.data.shard import batches_in_step
from sparkdl.errors import DataError, InvalidParamError, TooFewRowsError
from sparkdl.signature import TensorSpec
from sparkdl.train.world import World

__all__ = [
    "ConverterSource", "PetastormDataset", "PetastormReader", "check_ranks", "converter_source", "row_groups_of",
    "rows_of_ranks",
]  # fmt: skip

MEMORY_BUDGET = 1 << 30
ROWS_AT_ONCE = 256


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
        return batches_in_step(self.rows_of_ranks, self.batch_size, step)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """See Reader."""
        random = np.random.default_rng((self.seed, epoch))
        order_seed = None if self._keeps else int(random.integers(1 << 32))  # what is kept must not tell the epoch
        batch, step = None, 0
        for pool in self._pools(order_seed):
            order = torch.from_numpy(random.permutation(len(pool[0])))
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
        """See Reader. Reads no further than its batches are asked for, unless the shard is in memory already."""
        for pool in [self._kept] if self._kept is not None else self._read(None, self.batch_size):
            for rows in torch.arange(len(pool[0])).split(self.batch_size):
                yield _batch(self.dataset, pool, rows)

    def _pools(self, order_seed: int | None) -> Iterator[list[Tensor]]:
        if self._kept is not None:
            yield self._kept
            return
        for pool in self._read(order_seed, self.pool_rows):
            if self._keeps:
                self._kept = pool
            yield pool

    def _read(self, order_seed: int | None, pool_rows: int) -> Iterator[list[Tensor]]:
        """The shard's rows, ``pool_rows`` at a time; the row groups in their own order if ``order_seed`` is None."""
        left, held = self.rows, 0
        pool = self._empty(min(pool_rows, left))
        for chunk in self._chunks(order_seed):
            start, stop = 0, len(chunk[0])
            while start < stop:
                taken = min(stop - start, len(pool[0]) - held)
                for target, values in zip(pool, chunk, strict=True):
                    target[held : held + taken] = values[start : start + taken]
                start, held = start + taken, held + taken
                if held == len(pool[0]):
                    yield [torch.from_numpy(array) for array in pool]
                    left, held = left - held, 0
                    pool = self._empty(min(pool_rows, left))

    def _empty(self, rows: int) -> list[np.ndarray]:
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
    filesystem, _, url = place(dataset.uri)
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
