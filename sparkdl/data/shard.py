"""Which rank reads which rows, and in how many steps. Pure functions of the manifest, the world and the seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from sparkdl.data.manifest import DataFile
from sparkdl.train.world import World


@dataclass(frozen=True)
class Fragment:
    """Rows ``[start, stop)`` of one row group of a file."""

    path: str
    row_group: int
    start: int
    stop: int

    @property
    def rows(self) -> int:
        """How many rows."""
        return self.stop - self.start


def even_split(rows: int, ranks: int, rank: int) -> tuple[int, int]:
    """The half-open interval ``[start, stop)`` of ``rows`` that is ``rank``'s: sizes differ by at most one."""
    return rows * rank // ranks, rows * (rank + 1) // ranks


def shard(files: Sequence[DataFile], world: World, seed: int) -> list[Fragment]:
    """The fragments of ``world.rank``: together the ranks read every row exactly once.

    Row groups are laid out in one sequence, shuffled by ``seed`` so that data written in order is not learnt in order,
    and the sequence is cut into equal parts; a cut may go through a row group.
    """
    groups = [(file.path, i, rows) for file in files for i, rows in enumerate(file.row_groups)]
    random.Random(seed).shuffle(groups)
    first, last = even_split(sum(rows for *_, rows in groups), world.size, world.rank)
    fragments, offset = [], 0
    for path, row_group, rows in groups:
        start, stop = max(first - offset, 0), min(last - offset, rows)
        if start < stop:
            fragments.append(Fragment(path, row_group, start, stop))
        offset += rows
    return fragments


def rows_per_rank(rows: int, ranks: int) -> list[int]:
    """Rows of each rank's shard."""
    return [stop - start for start, stop in (even_split(rows, ranks, rank) for rank in range(ranks))]


def steps_per_epoch(rows: int, ranks: int, batch_size: int, *, drop_last: bool = False) -> int:
    """Steps every rank takes in an epoch, the same on all.

    As many as the largest shard needs; or with ``drop_last`` as many full batches as the smallest shard has, which is
    ``rows // (ranks * batch_size)`` and leaves out ``rows % (ranks * batch_size)`` rows, at most ``batch_size`` a rank.
    """
    sizes = rows_per_rank(rows, ranks)
    return min(sizes) // batch_size if drop_last else -(-max(sizes) // batch_size)


def rows_in_step(rows: int, ranks: int, batch_size: int, step: int, *, drop_last: bool = False) -> list[int]:
    """Rows each rank has in ``step``: ``batch_size``, but for the last step, where it may be fewer, or none; with
    ``drop_last`` ``batch_size`` in every step. Beyond the last step nobody has any."""
    if drop_last:
        return [batch_size * (step < steps_per_epoch(rows, ranks, batch_size, drop_last=True))] * ranks
    return batches_in_step(rows_per_rank(rows, ranks), batch_size, step)


def batches_in_step(sizes: Sequence[int], batch_size: int, step: int) -> list[int]:
    """Rows of each rank's batch in ``step``, from the rows that each rank has in all."""
    return [max(0, min(batch_size, rows - step * batch_size)) for rows in sizes]


def pool_sizes(rows: int, batch_size: int, most: int) -> list[int]:
    """How many rows a reader holds at a time: whole batches in each pool but the last, ``most`` (a multiple) at most.

    The first pool is an eighth of ``most`` and each next one twice as large up to ``most``, since the first has to be
    full before the epoch starts, and each later one fills while the one before is dealt out.
    """
    sizes: list[int] = []
    size = max(1, most // batch_size // 8) * batch_size
    while rows > 0:
        sizes.append(min(size, rows))
        rows -= sizes[-1]
        size = min(2 * size, most)
    return sizes
