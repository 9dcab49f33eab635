"""Every row once an epoch, every rank as many steps, sizes as even as can be; from the arguments alone."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkdl.data.manifest import DataFile
from sparkdl.data.shard import Fragment, even_split, pool_sizes, rows_in_step, rows_per_rank, shard, steps_per_epoch
from sparkdl.train.world import World


@pytest.mark.parametrize(
    ("rows", "ranks", "intervals"),
    [
        (4, 1, [(0, 4)]),
        (4, 2, [(0, 2), (2, 4)]),  # divides evenly
        (5, 2, [(0, 2), (2, 5)]),  # one left over
        (7, 3, [(0, 2), (2, 4), (4, 7)]),
        (8, 3, [(0, 2), (2, 5), (5, 8)]),  # those left over are spread, not all on the last
        (2, 3, [(0, 0), (0, 1), (1, 2)]),  # fewer rows than ranks: some have none
        (0, 2, [(0, 0), (0, 0)]),
    ],
)
def test_even_split(rows, ranks, intervals):
    assert [even_split(rows, ranks, rank) for rank in range(ranks)] == intervals


@pytest.mark.parametrize(
    ("rows", "ranks", "batch_size", "steps", "rows_of_steps"),
    [
        (8, 2, 2, 2, [[2, 2], [2, 2]]),  # full batches throughout
        (6, 2, 2, 2, [[2, 2], [1, 1]]),  # the last is smaller on both
        (5, 2, 2, 2, [[2, 2], [0, 1]]),  # rank 0 has none left, and still takes the step
        (3, 1, 10, 1, [[3]]),  # one batch holds all
        (1, 3, 4, 1, [[0, 0, 1]]),
        (0, 2, 4, 0, []),
    ],
)
def test_steps(rows, ranks, batch_size, steps, rows_of_steps):
    assert steps_per_epoch(rows, ranks, batch_size) == steps
    assert [rows_in_step(rows, ranks, batch_size, step) for step in range(steps)] == rows_of_steps


@pytest.mark.parametrize(
    ("rows", "ranks", "batch_size", "steps", "left_out"),
    [
        (8, 2, 2, 2, 0),  # nothing to drop
        (6, 2, 2, 1, 2),  # half a batch on each rank
        (5, 2, 2, 1, 1),  # rank 1 has one more than a batch
        (7, 2, 2, 1, 3),  # rank 1 has two full batches, rank 0 only one: neither takes the second
        (3, 1, 10, 0, 3),  # not one full batch
        (4, 3, 1, 1, 1),
        (0, 2, 4, 0, 0),
    ],
)
def test_steps_when_the_last_partial_batch_is_dropped(rows, ranks, batch_size, steps, left_out):
    assert steps_per_epoch(rows, ranks, batch_size, drop_last=True) == steps
    table = [rows_in_step(rows, ranks, batch_size, step, drop_last=True) for step in range(steps)]
    assert table == [[batch_size] * ranks] * steps
    assert rows - sum(map(sum, table)) == left_out


@pytest.mark.parametrize(
    ("rows", "batch_size", "most", "sizes"),
    [
        (100, 1, 32, [4, 8, 16, 32, 32, 8]),
        (100, 3, 24, [3, 6, 12, 24, 24, 24, 7]),  # whole batches but for the last
        (5, 4, 4, [4, 1]),
        (3, 4, 8, [3]),
        (0, 4, 8, []),
    ],
)
def test_pools_begin_small(rows, batch_size, most, sizes):
    assert pool_sizes(rows, batch_size, most) == sizes


def test_a_cut_may_go_through_a_row_group():
    files = [DataFile("a", (5,))]
    assert shard(files, World(rank=0, size=2), seed=0) == [Fragment("a", 0, 0, 2)]
    assert shard(files, World(rank=1, size=2), seed=0) == [Fragment("a", 0, 2, 5)]


def test_a_rank_without_rows_has_no_fragments():
    assert shard([DataFile("a", (1,))], World(rank=0, size=2), seed=0) == []


def test_row_groups_are_shuffled_by_the_seed():
    files = [DataFile(name, (1, 1, 1, 1)) for name in "abcd"]
    orders = {tuple((f.path, f.row_group) for f in shard(files, World(), seed)) for seed in range(5)}
    assert len(orders) == 5


layouts = st.lists(
    st.lists(st.integers(0, 40), max_size=5).map(tuple), max_size=6
).map(lambda groups: [DataFile(f"f{i}", rows) for i, rows in enumerate(groups)])  # fmt: skip


@given(layouts, st.integers(1, 9), st.integers(0, 5))
def test_every_row_exactly_once_over_the_ranks(files, ranks, seed):
    shards = [shard(files, World(rank=rank, size=ranks), seed) for rank in range(ranks)]
    read = Counter((f.path, f.row_group, row) for part in shards for f in part for row in range(f.start, f.stop))
    expected = {(f.path, i, row) for f in files for i, rows in enumerate(f.row_groups) for row in range(rows)}
    assert set(read) == expected
    assert all(count == 1 for count in read.values())
    sizes = [sum(f.rows for f in part) for part in shards]
    assert sizes == rows_per_rank(len(expected), ranks)
    assert max(sizes) - min(sizes) <= 1
    assert all(f.rows > 0 for part in shards for f in part)


@given(layouts, st.integers(1, 9), st.integers(0, 5))
def test_the_same_arguments_give_the_same_shard(files, ranks, seed):
    world = World(rank=ranks - 1, size=ranks)
    assert shard(files, world, seed) == shard(list(files), world, seed)


@given(st.integers(0, 500), st.integers(1, 9), st.integers(1, 40))
def test_rows_in_step_sum_to_all_rows_and_every_step_has_some(rows, ranks, batch_size):
    steps = steps_per_epoch(rows, ranks, batch_size)
    table = [rows_in_step(rows, ranks, batch_size, step) for step in range(steps)]
    assert [sum(column) for column in zip(*table, strict=True)] == (rows_per_rank(rows, ranks) if steps else [])
    assert all(any(row) and max(row) <= batch_size for row in table)
    assert all(row == [batch_size] * ranks for row in table[:-1])  # only the last is ragged
    assert rows_in_step(rows, ranks, batch_size, steps) == [0] * ranks


@given(st.integers(0, 500), st.integers(1, 9), st.integers(1, 40))
def test_dropping_leaves_out_what_does_not_fill_a_step_of_all_ranks(rows, ranks, batch_size):
    steps = steps_per_epoch(rows, ranks, batch_size, drop_last=True)
    assert steps == rows // (ranks * batch_size)
    left_out = [n - steps * batch_size for n in rows_per_rank(rows, ranks)]
    assert sum(left_out) == rows % (ranks * batch_size)
    assert all(0 <= n <= batch_size for n in left_out)
    assert rows_in_step(rows, ranks, batch_size, steps, drop_last=True) == [0] * ranks
    assert steps <= steps_per_epoch(rows, ranks, batch_size)
