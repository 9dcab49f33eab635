"""A rank's batches: its fragments read by pyarrow, shuffled, as torch tensors. No Spark, no Horovod.

Shapes: R rows held at a time, B rows of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from sparkdl import store
from sparkdl.columns import as_tensor
from sparkdl.data.batch import Batch
from sparkdl.data.manifest import Dataset
from sparkdl.data.shard import Fragment, rows_in_step, shard, steps_per_epoch
from sparkdl.errors import DataError
from sparkdl.signature import TensorSpec
from sparkdl.train.world import World

MEMORY_BUDGET = 1 << 30


class ArrowReader:
    """Reads a rank's shard of a Dataset.

    A shard of up to ``memory_budget`` bytes is read once and kept, and each epoch is shuffled whole. A larger one is
    read anew each epoch, its fragments in shuffled order, and shuffled within pools of half the budget.
    """

    def __init__(
        self, dataset: Dataset, world: World, *, batch_size: int, seed: int, memory_budget: int = MEMORY_BUDGET
    ) -> None:
        self.dataset = dataset
        self.batch_size = batch_size
        self.seed = seed
        self.fragments = shard(dataset.files, world, seed)
        self.ranks = world.size
        self.steps_per_epoch = steps_per_epoch(dataset.rows, world.size, batch_size)
        row_bytes = sum(spec.size * np.dtype(spec.dtype).itemsize for spec in dataset.tensors)
        rows = sum(fragment.rows for fragment in self.fragments)
        self.pool_rows = rows if rows * row_bytes <= memory_budget else max(batch_size, memory_budget // 2 // row_bytes)
        self._kept: list[Tensor] | None = None
        self._keeps = self.pool_rows == rows

    def rows_in_step(self, step: int) -> list[int]:
        """See Reader."""
        return rows_in_step(self.dataset.rows, self.ranks, self.batch_size, step)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """See Reader."""
        batch = None
        for step, batch in enumerate(self._batches(epoch)):
            if step >= first_step:
                yield batch
        if batch is None:
            raise ValueError("a rank without rows cannot take a step")
        for _ in range(max(first_step, step + 1), self.steps_per_epoch):
            yield replace(batch, rows=0)

    def scan(self) -> Iterator[Batch]:
        """See Reader."""
        return self._batches(0) if self.fragments else iter(())

    def _batches(self, epoch: int) -> Iterator[Batch]:
        generator = np.random.default_rng((self.seed, epoch))
        left: list[Tensor] | None = None
        for pool in self._pools(generator):
            order = torch.from_numpy(generator.permutation(len(pool[0])))
            shuffled = pool if left is None else [torch.cat(pair) for pair in zip(left, pool, strict=True)]
            if left is not None:
                kept = len(left[0])
                order = torch.cat([torch.arange(kept), order + kept])
            whole = len(order) - len(order) % self.batch_size
            for start in range(0, whole, self.batch_size):
                yield _batch(shuffled, order[start : start + self.batch_size])
            left = [tensor[order[whole:]] for tensor in shuffled] if whole < len(order) else None
        if left is not None:
            yield Batch(left[:-1], left[-1], len(left[-1]))

    def _pools(self, generator: np.random.Generator) -> Iterator[list[Tensor]]:
        """The shard's rows in pieces of at least ``pool_rows`` rows, but for the last."""
        if self._kept is not None:
            yield self._kept
            return
        order = range(len(self.fragments)) if self._keeps else generator.permutation(len(self.fragments))
        pieces: list[list[Tensor]] = []
        held = 0
        for i in order:
            pieces.append(read_fragment(self.dataset, self.fragments[i]))
            held += self.fragments[i].rows
            if held >= self.pool_rows:
                pool = _concatenated(pieces)
                if self._keeps:
                    self._kept = pool
                yield pool
                pieces, held = [], 0
        if pieces:
            yield _concatenated(pieces)


def read_fragment(dataset: Dataset, fragment: Fragment) -> list[Tensor]:
    """The fragment's tensors, in the order of ``dataset.tensors``, each ``(rows, *shape)``.

    Raises DataError naming the file and the row group if it cannot be read.
    """
    filesystem, path = store.resolve(store.join(dataset.uri, fragment.path))
    try:
        with filesystem.open_input_file(path) as source:
            table = pq.ParquetFile(source).read_row_group(fragment.row_group, use_threads=False)
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"row group {fragment.row_group} of {path} cannot be read: {error}",
            column=None,
            row=None,
            file=path,
            expected="a readable Parquet row group",
            got=str(error),
        ) from error
    rows = table.slice(fragment.start, fragment.rows)
    return [_tensor(rows.column(spec.name).combine_chunks(), spec) for spec in dataset.tensors]


def _tensor(column: pa.Array, spec: TensorSpec) -> Tensor:
    """One column as it lies on disk (see ``columns.flat``), in the dtype of the spec."""
    if isinstance(column, pa.ChunkedArray):
        column = column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
    values = column.flatten() if spec.shape else column
    array = values.to_numpy(zero_copy_only=False).astype(spec.dtype, copy=False)
    return as_tensor(array.reshape(len(column), *spec.shape))


def _batch(tensors: Sequence[Tensor], rows: Tensor) -> Batch:
    *inputs, label = (tensor[rows] for tensor in tensors)
    return Batch(inputs, label, len(label))


def _concatenated(pieces: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    return [torch.cat(list(parts)) for parts in zip(*pieces, strict=True)]
