"""A rank's batches: its fragments read by pyarrow, shuffled, as torch tensors. No Spark, no Horovod.

Shapes: R rows of a pool, B rows of a batch.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from sparkdl.data.ahead import ahead
from sparkdl.data.batch import Batch
from sparkdl.data.fragments import Footers, read_fragment
from sparkdl.data.manifest import Dataset
from sparkdl.data.shard import pool_sizes, rows_in_step, shard, steps_per_epoch
from sparkdl.errors import TooFewRowsError
from sparkdl.train.world import World

MEMORY_BUDGET = 1 << 30
GATHER_BYTES = 1 << 20  # as many batches are gathered at a time as stay in a core's cache
SCAN_BYTES = 16 << 20
ORDER_BYTES = 8  # a row's place in the order


@dataclass(frozen=True)
class Pool:
    """Rows held in memory, each array ``(R, ...)``, and the order ``(R,)`` in which they are dealt out, or None.

    numpy, since torch would copy and gather with a team of threads for each thread that asks it to: several times slower
    where ranks and this thread share the cores.
    """

    arrays: list[np.ndarray]
    order: np.ndarray | None


class ArrowReader:
    """Reads a rank's shard of a Dataset.

    A shard of up to ``memory_budget`` bytes is read once and kept, and each epoch is shuffled whole. A larger one is
    read anew each epoch, its fragments in shuffled order, and shuffled within pools of up to half the budget: one is
    dealt out while a thread fills the next. Beside the budget there is memory for the row group being read, of about
    16 MiB, and for the batches that the caller has.

    drop_last: leave out the last batches of an epoch where not every rank has a full one.
    pin_memory: batches in page-locked memory, for a GPU.

    Raises TooFewRowsError if ``drop_last`` leaves no step.
    """

    def __init__(
        self,
        dataset: Dataset,
        world: World,
        *,
        batch_size: int,
        seed: int,
        memory_budget: int = MEMORY_BUDGET,
        drop_last: bool = False,
        pin_memory: bool = False,
    ) -> None:
        self.dataset = dataset
        self.batch_size = batch_size
        self.seed = seed
        self.drop_last = drop_last
        self.pin_memory = pin_memory
        self.fragments = shard(dataset.files, world, seed)
        self.ranks = world.size
        self.rows = sum(fragment.rows for fragment in self.fragments)
        self.steps_per_epoch = steps_per_epoch(dataset.rows, world.size, batch_size, drop_last=drop_last)
        if drop_last and not self.steps_per_epoch:
            raise _too_few_rows(dataset.rows, world.size, batch_size)
        self._row_bytes = ORDER_BYTES + sum(spec.size * np.dtype(spec.dtype).itemsize for spec in dataset.tensors)
        self._keeps = self.rows * self._row_bytes <= memory_budget
        self._pool_rows = self.rows if self._keeps else self._whole_batches(memory_budget // 2)
        self._kept: list[np.ndarray] | None = None
        self._spare: list[list[list[np.ndarray]]] = []  # memory of pools, from one epoch to the next
        self._footers: Footers = {}

    def rows_in_step(self, step: int) -> list[int]:
        """See Reader."""
        return rows_in_step(self.dataset.rows, self.ranks, self.batch_size, step, drop_last=self.drop_last)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """See Reader."""
        own_steps = min(-(-self.rows // self.batch_size), self.steps_per_epoch)
        if not own_steps:
            raise ValueError("a rank without rows cannot take a step")
        start = min(first_step, own_steps - 1)  # the last batch is there also for the steps after it
        with closing(self._batches(epoch, start)) as batches:
            for step, batch in enumerate(islice(batches, own_steps - start), start):
                if step >= first_step:
                    yield batch
        for _ in range(max(first_step, own_steps), self.steps_per_epoch):
            yield replace(batch, rows=0)

    def scan(self) -> Iterator[Batch]:
        """See Reader."""
        if self._keeps and self.fragments:
            yield from self._dealt(Pool(self._whole(), None))
        elif self.fragments:
            most = self._whole_batches(SCAN_BYTES)
            sizes = [min(most, self.rows - start) for start in range(0, self.rows, most)]
            order = range(len(self.fragments))
            with closing(ahead(lambda stopped: self._filled(order, sizes, None, stopped))) as pools:
                for pool in pools:
                    yield from self._dealt(Pool(pool, None))

    def _batches(self, epoch: int, start: int) -> Generator[Batch, None, None]:
        """The rank's batches of an epoch from step ``start`` on."""
        batches = self._from_memory(epoch, start) if self._keeps else self._streamed(epoch, start)
        return ahead(lambda stopped: _pinned(batches)) if self.pin_memory else batches

    def _from_memory(self, epoch: int, start: int) -> Generator[Batch, None, None]:
        yield from self._dealt(Pool(self._whole(), self._order(epoch, 0, self.rows)), start)

    def _whole(self) -> list[np.ndarray]:
        """The whole shard, read when it is first wanted."""
        if self._kept is None:
            order = range(len(self.fragments))
            (self._kept,) = self._filled(order, [self.rows], None, threading.Event())
        return self._kept

    def _streamed(self, epoch: int, start: int) -> Generator[Batch, None, None]:
        sizes = pool_sizes(self.rows, self.batch_size, self._pool_rows)
        first, skipped = 0, 0
        while skipped + sizes[first] <= start * self.batch_size:
            skipped += sizes[first]
            first += 1
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.fragments))
        memory = self._spare.pop() if self._spare else [self._empty(max(sizes)) for _ in range(min(2, len(sizes)))]

        def pools(stopped: threading.Event) -> Generator[Pool, None, None]:
            filled = self._filled(order, sizes[first:], memory, stopped, skipped)
            for number, arrays in enumerate(filled, first):
                yield Pool(arrays, self._order(epoch, number, len(arrays[0])))

        try:
            with closing(ahead(pools)) as ready:
                for pool in ready:
                    yield from self._dealt(pool, start - skipped // self.batch_size)
                    start, skipped = 0, 0
        finally:
            self._spare.append(memory)

    def _filled(
        self,
        order: Sequence[int] | np.ndarray,
        sizes: Sequence[int],
        memory: list[list[np.ndarray]] | None,
        stopped: threading.Event,
        skip: int = 0,
    ) -> Generator[list[np.ndarray], None, None]:
        """The fragments' rows in that order, but for the first ``skip``, in pools of these sizes.

        memory: for pools, used in turn; None: each has its own.
        """
        pieces = self._pieces(order, skip)
        piece: list[np.ndarray] = []
        for number, size in enumerate(sizes):
            arrays = self._empty(size) if memory is None else [a[:size] for a in memory[number % len(memory)]]
            filled = 0
            while filled < size:
                if stopped.is_set():
                    return
                piece = piece or next(pieces)
                count = min(size - filled, len(piece[0]))
                for target, source in zip(arrays, piece, strict=True):
                    np.copyto(target[filled : filled + count], source[:count], casting="unsafe")
                filled += count
                piece = [source[count:] for source in piece] if count < len(piece[0]) else []
            yield arrays

    def _pieces(self, order: Sequence[int] | np.ndarray, skip: int) -> Iterator[list[np.ndarray]]:
        for i in order:
            fragment = self.fragments[i]
            if skip < fragment.rows:
                wanted = replace(fragment, start=fragment.start + skip)
                yield read_fragment(self.dataset, wanted, self._footers)
            skip = max(0, skip - fragment.rows)

    def _dealt(self, pool: Pool, start: int = 0) -> Generator[Batch, None, None]:
        """The pool's batches from number ``start`` on, in its order, else as they lie."""
        rows = len(pool.arrays[0])
        step = self._whole_batches(GATHER_BYTES)
        for first in range(start * self.batch_size, rows, step):
            stop = min(first + step, rows)
            if pool.order is None:
                arrays = [array[first:stop].copy() for array in pool.arrays]  # a model may change its input in place
            else:
                arrays = [array.take(pool.order[first:stop], axis=0) for array in pool.arrays]
            for parts in zip(*(torch.from_numpy(array).split(self.batch_size) for array in arrays), strict=True):
                yield self._batch(list(parts))

    def _batch(self, tensors: list[Tensor]) -> Batch:
        inputs = len(self.dataset.signature.inputs)
        label, *weight = tensors[inputs:]
        return Batch(tensors[:inputs], label, len(label), weight[0] if weight else None)

    def _order(self, epoch: int, pool: int, rows: int) -> np.ndarray:
        return np.random.default_rng((self.seed, epoch, pool)).permutation(rows)

    def _empty(self, rows: int) -> list[np.ndarray]:
        return [np.empty((rows, *spec.shape), spec.dtype) for spec in self.dataset.tensors]

    def _whole_batches(self, size: int) -> int:
        """As many rows as make whole batches in ``size`` bytes, at least one batch."""
        return max(1, size // self._row_bytes // self.batch_size) * self.batch_size


def _pinned(batches: Generator[Batch, None, None]) -> Generator[Batch, None, None]:
    with closing(batches):
        for batch in batches:
            weight = None if batch.weight is None else batch.weight.pin_memory()
            inputs = [tensor.pin_memory() for tensor in batch.inputs]
            yield replace(batch, inputs=inputs, label=batch.label.pin_memory(), weight=weight)


def _too_few_rows(rows: int, ranks: int, batch_size: int) -> TooFewRowsError:
    return TooFewRowsError(
        f"{rows} rows do not fill one batch of {batch_size} on each of {ranks} ranks, which takes {ranks * batch_size}, "
        "and partial batches are dropped; make the batches smaller, or keep the partial ones",
        column=None,
        row=None,
        file=None,
        expected=ranks * batch_size,
        got=rows,
        rows=rows,
        ranks=ranks,
    )
