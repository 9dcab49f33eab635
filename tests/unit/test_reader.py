"""From real Parquet files: each row once an epoch, batches as rows_in_step says, the order from (seed, epoch) alone.

In both modes: the shard kept in memory, and read anew each epoch (a memory budget of a few rows).
"""

import tempfile
import threading

import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from making import dataset

from sparkdl.data.fragments import read_fragment
from sparkdl.data.manifest import PAGE_CHECKSUMS
from sparkdl.data.reader import ArrowReader
from sparkdl.data.shard import Fragment
from sparkdl.errors import DataError, TooFewRowsError
from sparkdl.train.world import World

IN_MEMORY, STREAMING = 1 << 30, 300  # a row of making.dataset takes 32 bytes: pools of 4 rows
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
    budget=st.sampled_from([IN_MEMORY, 0, 32, STREAMING, 600, 1000]),
    drop_last=st.booleans(),
)
def test_every_row_once_an_epoch_over_the_ranks(layout, ranks, batch_size, seed, budget, drop_last):
    with tempfile.TemporaryDirectory() as folder:
        data = dataset(folder, layout)
        ranks = min(ranks, data.rows)
        batch_size = min(batch_size, data.rows // ranks) if drop_last else batch_size
        readers = [
            ArrowReader(data, World(rank=rank, size=ranks), batch_size=batch_size, seed=seed, memory_budget=budget,
                        drop_last=drop_last)
            for rank in range(ranks)
        ]  # fmt: skip
        assert len({reader.steps_per_epoch for reader in readers}) == 1
        for epoch in range(3):
            seen = []
            for rank, reader in enumerate(readers):
                batches = list(reader.epoch(epoch))
                wanted = [reader.rows_in_step(step)[rank] for step in range(reader.steps_per_epoch)]
                assert [batch.rows for batch in batches] == wanted
                seen += flat(batches)
            assert len(set(seen)) == len(seen)
            assert len(seen) == data.rows - (data.rows % (ranks * batch_size) if drop_last else 0)
        scanned = [list(reader.scan()) for reader in readers]
        assert sorted(key for batches in scanned for key in flat(batches)) == list(range(data.rows))
        assert all(batch.rows == len(batch.label) <= batch_size for batches in scanned for batch in batches)


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


def test_rows_within_a_row_group_come_in_another_order_each_epoch(tmp_path):
    data = dataset(tmp_path, [(40,)])
    for budget in BUDGETS:
        reader = ArrowReader(data, World(), batch_size=8, seed=0, memory_budget=budget)
        assert len({tuple(flat(reader.epoch(epoch))) for epoch in range(4)}) == 4


def test_two_epochs_at_the_same_time_do_not_share_memory(data):
    for budget in BUDGETS:
        reader = ArrowReader(data, World(), batch_size=4, seed=0, memory_budget=budget)
        alone = [flat(reader.epoch(epoch)) for epoch in (0, 1)]
        together = list(zip(reader.epoch(0), reader.epoch(1), strict=True))
        assert [flat(batches) for batches in zip(*together, strict=True)] == alone


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


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("budget", [*BUDGETS, 1000])
@pytest.mark.parametrize("rank", [0, 1])
def test_an_epoch_is_taken_up_at_any_step(tmp_path, budget, rank, drop_last):
    data = dataset(tmp_path, [(5, 20), (1,), (30, 9)])  # 65: rank 1 takes a step more than rank 0

    def batches(first_step):
        reader = ArrowReader(data, World(rank=rank, size=2), batch_size=4, seed=0, memory_budget=budget,
                             drop_last=drop_last)  # fmt: skip
        return [(batch.rows, batch.inputs[1].tolist()) for batch in reader.epoch(2, first_step)]

    whole = batches(0)
    assert len(whole) == (8 if drop_last else 9)
    for first_step in range(len(whole) + 2):
        assert batches(first_step) == whole[first_step:]


def test_a_scan_has_the_same_order_each_time_and_what_it_gave_stays(data):
    for budget in BUDGETS:
        reader = ArrowReader(data, World(), batch_size=4, seed=0, memory_budget=budget)
        batches = list(reader.scan())
        assert [batch.rows for batch in batches] == [4] * 6 + [1]
        assert sorted(flat(batches)) == list(range(data.rows))
        assert list(reader.epoch(0))
        assert keys(reader.scan()) == keys(batches)


def test_batches_stay_what_they_were_when_the_next_come(data):
    for budget in BUDGETS:
        reader = ArrowReader(data, World(), batch_size=2, seed=0, memory_budget=budget)
        batches = [(batch, batch.inputs[1].tolist()) for epoch in range(2) for batch in reader.epoch(epoch)]
        assert all(batch.inputs[1].tolist() == told for batch, told in batches)


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


def test_weights_come_along(tmp_path):
    data = dataset(tmp_path, [(4, 6), (7,)], weighted=True)
    for budget in BUDGETS:
        for batch in ArrowReader(data, World(), batch_size=4, seed=0, memory_budget=budget).epoch(0):
            assert torch.equal(batch.weight, batch.label / 8)
            assert batch.weight.dtype == torch.float32
            assert len(batch.inputs) == 2


def test_the_same_files_are_read_in_other_dtypes(data):
    cast = data.cast("float64", "int64")
    for budget in BUDGETS:
        for batch in ArrowReader(cast, World(), batch_size=4, seed=0, memory_budget=budget).epoch(0):
            x, key = batch.inputs
            assert (x.dtype, key.dtype, batch.label.dtype) == (torch.float64, torch.int64, torch.int64)
            assert torch.equal(x, key[:, None] + torch.arange(3) / 4)
            assert torch.equal(batch.label, key)


def test_scalars_are_read_as_one_vector(tmp_path):
    data = dataset(tmp_path, [(4, 6)], width=None)
    for batch in ArrowReader(data.stacked("features"), World(), batch_size=4, seed=0).epoch(0):
        (features,) = batch.inputs
        assert features.dtype == torch.float64  # float32 and int64 in one
        assert torch.equal(features, batch.label[:, None].double().expand(-1, 2))


def test_too_few_rows_for_a_step_of_full_batches(data):
    with pytest.raises(TooFewRowsError, match=r"25 rows do not fill one batch of 9 on each of 3 ranks") as caught:
        ArrowReader(data, World(size=3), batch_size=9, seed=0, drop_last=True)
    assert (caught.value.rows, caught.value.ranks) == (25, 3)
    ArrowReader(data, World(size=3), batch_size=8, seed=0, drop_last=True)


@pytest.mark.parametrize("how", ["closed", "failed", "exhausted"])
def test_no_thread_outlives_an_epoch(data, how):
    reader = ArrowReader(data, World(), batch_size=4, seed=0, memory_budget=STREAMING)
    before = set(threading.enumerate())
    batches = reader.epoch(0)
    next(batches)
    assert len(set(threading.enumerate()) - before) == 1
    if how == "closed":
        batches.close()
    elif how == "exhausted":
        assert list(batches)
    else:
        with pytest.raises(RuntimeError, match="the model fails"):
            batches.throw(RuntimeError("the model fails"))
    assert set(threading.enumerate()) == before


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


@pytest.mark.skipif(not PAGE_CHECKSUMS, reason="pyarrow 14 writes no checksums")
@pytest.mark.parametrize("budget", BUDGETS)
def test_a_byte_that_changed_in_a_page_is_noticed_or_does_no_harm(tmp_path, budget):
    """Wrong numbers would be learnt from without a word. The error names the file and the row group."""
    data = dataset(tmp_path, [(40,), (3, 4)])
    path = tmp_path / data.files[1].path
    content = path.read_bytes()
    second = pq.ParquetFile(path).metadata.row_group(1)
    middle = min(second.column(i).data_page_offset for i in range(second.num_columns))
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")

    def read():
        reader = ArrowReader(data, World(), batch_size=4, seed=0, memory_budget=budget)
        try:
            return [[*(x.tolist() for x in batch.inputs), batch.label.tolist()] for batch in reader.epoch(0)]
        except DataError as error:
            return error

    right, unnoticed = read(), 0
    for position in range(4, footer):
        path.write_bytes(content[:position] + bytes([content[position] ^ 0x10]) + content[position + 1 :])
        found = read()
        if isinstance(found, DataError):
            assert found.file == str(path)
            assert f"row group {int(position >= middle)} of {path}" in str(found)
        else:
            assert found == right  # a byte of a page's header that the reader has no use for
            unnoticed += 1
    assert unnoticed < 0.2 * footer
