"""A partition in the executors: what is refused, where its rows go, what is told of it. Arrow alone, no session."""

from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from making import flushing_every_batch, signature, spec

from sparkdl.data.manifest import LabelFacts, Layout
from sparkdl.data.writer import HASH, VALIDATION, label_facts, lay_out, write_partition
from sparkdl.errors import DataError, StoreError

X, Y, W = spec("x"), spec("y", "float64", type="double"), spec("w")
PLAIN = Layout(signature(X), Y)
FULL = Layout(signature(X), Y, W, indicator="held")


def batch(rows=4, **changed):
    """Rows 0, 1, …, every other for validation."""
    number = np.arange(rows)
    columns = {"x": number.astype(np.float32), "y": number.astype(np.float64), "w": number.astype(np.float32) / 2,
               VALIDATION: number % 2 == 1, HASH: number.astype(np.int64)} | changed  # fmt: skip
    return pa.RecordBatch.from_arrays([pa.array(values) for values in columns.values()], names=list(columns))


@pytest.mark.parametrize(
    ("column", "values", "row", "told"),
    [
        ("w", [1, None, 1, 1], 1, "expected float32[], got None"),
        ("w", [1, 1, float("nan"), -1], 2, "expected a weight that is finite in float32 and >= 0, got nan"),
        ("w", [1, 1, 1, -0.5], 3, ">= 0, got -0.5"),
        ("w", [1, float("inf"), 1, 1], 1, "got inf"),
        ("w", [1.0, 1e300, 1, 1], 1, "a value that float32 holds"),
        (VALIDATION, [True, None, None, False], 1, "column 'held', row 1: expected true or false, got None"),
        ("y", [0, 1, float("nan"), 3], 2, "label column 'y', row 2: expected a number, got nan"),
        ("x", [None, 1, 2, 3], 0, "column 'x', row 0: expected float32[], got None"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_a_bad_row_is_named(column, values, row, told):
    with pytest.raises(DataError) as caught:
        lay_out(batch(**{column: values}), FULL, first_row=100)
    assert told in str(caught.value)
    assert (caught.value.column, caught.value.row) == ("held" if column == VALIDATION else column, 100 + row)


def test_rows_are_counted_from_the_partition_s_start(tmp_path):
    with pytest.raises(DataError) as caught:
        write_partition(str(tmp_path), "d", 0, PLAIN, [batch(), batch(0), batch(y=[0, 1, None, 3])])
    assert caught.value.row == 6


@pytest.mark.parametrize("classes", [3, 4])
def test_classes(classes):
    layout = Layout(signature(X), Y, classes=classes)
    if classes == 4:
        assert lay_out(batch(), layout).facts == LabelFacts(0, 3, True)
    else:
        with pytest.raises(DataError, match=r"a class number from 0 to 2, got 3\.0"):
            lay_out(batch(), layout)


@pytest.mark.parametrize(
    ("label", "facts"),
    [
        (np.float64([1, 2.5]), LabelFacts(1, 2.5, False)),
        (np.float32([-3, 2]), LabelFacts(-3, 2, True)),
        (np.float64([1, np.inf]), LabelFacts(1, np.inf, False)),
        (np.int64([2**63 - 1, -(2**63)]), LabelFacts(-(2**63), 2**63 - 1, True)),
        (np.bool_([True, False]), LabelFacts(False, True, True)),
        (np.float64([[1, 2], [0, 7]]), LabelFacts(0, 7, True)),
        (np.float64([]), LabelFacts(0, 0, True)),
    ],
)
def test_label_facts(label, facts):
    assert label_facts(label) == facts


@given(st.lists(st.lists(st.tuples(st.booleans(), st.integers(-(2**63), 2**63 - 1)), max_size=6), max_size=5))
def test_each_row_goes_to_its_side_once(tmp_path_factory, told):
    folder = tmp_path_factory.mktemp("data")
    first, batches = 0, []
    for rows in told:
        number = np.arange(first, first + len(rows))
        batches.append(
            batch(len(rows), x=number.astype(np.float32), **{
                VALIDATION: np.array([side for side, _ in rows], bool), HASH: np.array([h for _, h in rows], np.int64)
            })
        )  # fmt: skip
        first += len(rows)
    with flushing_every_batch():
        written = write_partition(str(folder), "d", 3, FULL, batches)
    flat = [row for rows in told for row in rows]
    for side in (False, True):
        files = [file for file in written["files"] if file["validation"] == side]
        tables = [pq.ParquetFile(folder / file["path"]) for file in files]
        assert [[t.metadata.row_group(i).num_rows for i in range(t.num_row_groups)] for t in tables] == [
            file["row_groups"] for file in files
        ]
        found = [x for table in tables for x in table.read()["x"].to_pylist()]
        assert found == [i for i, (is_held, _) in enumerate(flat) if is_held == side]
        assert len(files) == (1 if found else 0)
    assert written["content"] == sum(h for _, h in flat) % 2**64
    assert (written["facts"] is None) == (not flat)
    assert len(list(folder.rglob("*.parquet"))) == len(written["files"])


def test_a_batch_of_large_rows_becomes_several_row_groups(tmp_path):
    layout = Layout(signature(spec("x", shape=(1000,))), Y)
    rows = 70
    x = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(rows * 1000, dtype=np.float32)), 1000)
    large = pa.RecordBatch.from_arrays([x, pa.array(np.arange(rows) * 1.0)], names=["x", "y"])
    with patch("sparkdl.data.writer.MOST_BYTES", 81_000):
        (file,) = write_partition(str(tmp_path), "d", 0, layout, [large])["files"]
    assert file["row_groups"] == [20, 20, 20, 10]
    found = pq.ParquetFile(tmp_path / file["path"])
    assert [found.metadata.row_group(i).num_rows for i in range(found.num_row_groups)] == file["row_groups"]


def test_a_place_that_cannot_be_written():
    with pytest.raises(StoreError, match="cannot write"):
        write_partition("/proc/sparkdl", "d", 0, PLAIN, [batch()])


def test_a_full_disk_is_a_store_error():
    full = patch("sparkdl.store.open_output", lambda uri: pa.OSFile("/dev/full", "w"))
    with full, flushing_every_batch(), pytest.raises(StoreError, match=r"cannot write under '/d'.*No space left"):
        write_partition("/d", "d", 0, PLAIN, [batch()])
