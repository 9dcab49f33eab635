"""From real Parquet files: each row once an epoch, batches as rows_in_step says, the order from (seed, epoch) alone.

In both modes: the shard kept in memory, and read anew each epoch (a memory budget of a few rows).
"""

import tempfile

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from making import dataset

from sparkdl.data.manifest import DataFile, Dataset
from sparkdl.data.reader import ArrowReader, read_fragment
from sparkdl.data.shard import Fragment
from sparkdl.errors import DataError, StoreError
from sparkdl.train.world import World

IN_MEMORY, STREAMING = 1 << 30, 120  # a row of making.dataset takes 24 bytes: a pool of 2 rows
BUDGETS = (IN_MEMORY, STREAMING)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("data"), [(5, 7), (1,), (9, 3)])


def keys(batches):
    return [tuple(batch.inputs[1].tolist()) for batch in batches if batch.rows]


def flat(batches):
    return [key for batch in keys(batches) for key in batch]


@settings(max_examples=30)
@given(
    layout=st.lists(st.lists(st.integers(1, 12), min_size=1, max_size=4), min_size=1, max_size=4),
    ranks=st.integers(1, 4),
    batch_size=st.integers(1, 15),
    seed=st.integers(0, 3),
    budget=st.sampled_from([IN_MEMORY, 0, 24, STREAMING, 400]),
)
def test_every_row_once_an_epoch_over_the_ranks(layout, ranks, batch_size, seed, budget):
    with tempfile.TemporaryDirectory() as folder:
        data = dataset(folder, layout)
        ranks = min(ranks, data.rows)
        readers = [
            ArrowReader(data, World(rank=rank, size=ranks), batch_size=batch_size, seed=seed, memory_budget=budget)
            for rank in range(ranks)
        ]
        assert len({reader.steps_per_epoch for reader in readers}) == 1
        for epoch in range(3):
            seen = []
            for rank, reader in enumerate(readers):
                batches = list(reader.epoch(epoch))
                wanted = [reader.rows_in_step(step)[rank] for step in range(reader.steps_per_epoch)]
                assert [batch.rows for batch in batches] == wanted
                seen += flat(batches)
            assert sorted(seen) == list(range(data.rows))


@pytest.mark.parametrize("budget", BUDGETS)
def test_a_row_stays_together_in_its_dtypes_and_shapes(data, budget):
    reader = ArrowReader(data, World(), batch_size=4, seed=0, memory_budget=budget)
    for batch in reader.epoch(0):
        (x, key), label = batch.inputs, batch.label
        assert (x.dtype, key.dtype, label.dtype) == (torch.float32, torch.int64, torch.float32)
        assert x.shape == (len(label), 3)
        assert torch.equal(x, key[:, None] + torch.arange(3) / 4)
        assert torch.equal(label, key.float())


@pytest.mark.parametrize("budget", BUDGETS)
def test_the_order_depends_on_seed_and_epoch_alone(data, budget):
    def order(seed, epoch):
        return keys(ArrowReader(data, World(), batch_size=4, seed=seed, memory_budget=budget).epoch(epoch))

    assert order(0, 1) == order(0, 1)
    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)
    reader = ArrowReader(data, World(), batch_size=4, seed=0, memory_budget=budget)
    assert [keys(reader.epoch(epoch)) for epoch in (0, 1)] == [order(0, 0), order(0, 1)]  # not on what was read before


def test_an_epoch_that_was_left_half_way_does_not_disturb_the_next(data):
    for budget in BUDGETS:
        reader = ArrowReader(data, World(), batch_size=4, seed=0, memory_budget=budget)
        next(reader.epoch(0))
        assert sorted(flat(reader.epoch(1))) == list(range(data.rows))


def test_rows_are_not_in_the_order_of_the_files(data):
    for budget in BUDGETS:
        order = flat(ArrowReader(data, World(), batch_size=4, seed=0, memory_budget=budget).epoch(0))
        assert order != sorted(order)


def test_a_rank_that_has_run_out_takes_the_last_step_with_rows_that_do_not_count(tmp_path):
    data = dataset(tmp_path, [(9,)])
    short, long = (ArrowReader(data, World(rank=rank, size=2), batch_size=4, seed=0) for rank in range(2))
    assert short.steps_per_epoch == long.steps_per_epoch == 2
    assert [batch.rows for batch in short.epoch(0)] == [4, 0]
    assert [batch.rows for batch in long.epoch(0)] == [4, 1]
    assert short.rows_in_step(1) == [0, 1]


def test_an_epoch_is_taken_up_at_a_step(data):
    for budget in BUDGETS:
        reader = ArrowReader(data, World(), batch_size=4, seed=0, memory_budget=budget)
        assert keys(reader.epoch(2, first_step=3)) == keys(reader.epoch(2))[3:]


def test_a_rank_without_rows_scans_nothing(tmp_path):
    data = dataset(tmp_path, [(1,)])
    assert list(ArrowReader(data, World(rank=0, size=2), batch_size=4, seed=0).scan()) == []


def test_a_kept_shard_is_read_once_and_a_streamed_one_each_epoch(tmp_path):
    data = dataset(tmp_path, [(4,), (6,)])
    kept, streamed = (ArrowReader(data, World(), batch_size=2, seed=0, memory_budget=budget) for budget in BUDGETS)
    assert flat(kept.epoch(0))
    assert flat(streamed.epoch(0))
    for file in data.files:
        (tmp_path / file.path).unlink()
    assert sorted(flat(kept.epoch(1))) == list(range(10))
    with pytest.raises(DataError):
        list(streamed.epoch(1))


def test_a_fragment_is_the_rows_it_names(tmp_path):
    data = dataset(tmp_path, [(4, 6)])
    x, key, label = read_fragment(data, Fragment(data.files[0].path, row_group=1, start=2, stop=5))
    assert key.tolist() == [6, 7, 8]
    assert x[:, 1].tolist() == [6.25, 7.25, 8.25]
    assert label.tolist() == [6.0, 7.0, 8.0]


def broken(content):
    return {
        "empty": b"",
        "truncated": content[: len(content) // 2],
        "not Parquet": b"a text\n" * 100,
        "footer gone": content[:-8] + b"\0" * 8,
    }


@pytest.mark.parametrize("how", [*broken(b""), "missing"])
def test_a_broken_file_is_a_data_error_that_names_it(tmp_path, how):
    data = dataset(tmp_path, [(4,)])
    path = tmp_path / data.files[0].path
    content = path.read_bytes()
    path.unlink()
    if how != "missing":
        path.write_bytes(broken(content)[how])
    with pytest.raises(DataError) as caught:
        list(ArrowReader(data, World(), batch_size=4, seed=0).epoch(0))
    assert caught.value.file == str(path)
    assert str(path) in str(caught.value)


def test_a_data_set_without_a_manifest_is_none(tmp_path):
    data = dataset(tmp_path, [(4,), (2, 3)])
    with pytest.raises(StoreError, match=r"no \(finished\) dataset"):
        Dataset.load(str(tmp_path))
    data.save()
    assert Dataset.load(str(tmp_path)) == data
    assert data.rows == 9
    assert data.files[1] == DataFile("part-1.parquet", (2, 3))


@pytest.mark.parametrize("content", [b"{", b"[]", b"{}", b'{"format": 2}', b'{"format": 1, "files": 3}'])
def test_a_manifest_that_cannot_be_understood_is_a_store_error(tmp_path, content):
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(StoreError):
        Dataset.load(str(tmp_path))
