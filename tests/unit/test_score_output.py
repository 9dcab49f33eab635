"""What a piece's writer leaves: hive folders as Spark's, row groups as asked, all rows in their order."""

import datetime
import decimal
import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkdl import store
from sparkdl.errors import ColumnNotFoundError, InvalidParamError, StoreError
from sparkdl.score import output
from sparkdl.score.output import Layout, PieceWriter, file_schema, folder_name, split
from sparkdl.score.parquet import NotScannable

SPARK = {"fields": [{"name": name, "type": "long", "nullable": True, "metadata": {}} for name in ("k", "x")]}
SCHEMA = pa.schema([("k", pa.int64()), ("x", pa.int64())])


@pytest.mark.parametrize(
    ("value", "folder"),
    [
        ("a b", "k=a b"), ("x=y", "k=x%3Dy"), ("c%d", "k=c%25d"), ("e/f", "k=e%2Ff"), ("g:h", "k=g%3Ah"),
        ("{i}", "k=%7Bi}"), ("[j]", "k=%5Bj%5D"), ("^", "k=%5E"), ('"', "k=%22"), ("'", "k=%27"), ("ü", "k=ü"),
        ("#*?\\", "k=%23%2A%3F%5C"), ("\x01\n\x7f", "k=%01%0A%7F"), ("+&~|<> ", "k=+&~|<> "),
        ("", "k=__HIVE_DEFAULT_PARTITION__"), (None, "k=__HIVE_DEFAULT_PARTITION__"),
        (True, "k=true"), (-7, "k=-7"), (datetime.date(2024, 2, 9), "k=2024-02-09"),
        (decimal.Decimal("1.200"), "k=1.200"), (decimal.Decimal("1E+3"), "k=1000"),
    ],
)  # fmt: skip
def test_folders_are_named_as_spark_3_5_and_4_3_name_them(value, folder):
    assert folder_name("k", value) == folder


keys = st.sampled_from([None, "", "a", "b/c", "ü"])


@given(st.lists(st.tuples(keys, st.sampled_from([1, 2, None]), st.integers(0, 99))))
def test_a_split_keeps_every_row_once_and_in_order(rows):
    columns = [pa.array([row[i] for row in rows], kind) for i, kind in enumerate((pa.string(), pa.int64(), pa.int64()))]
    batch = pa.RecordBatch.from_arrays(columns, names=["s", "n", "x"])
    found = {}
    for folder, part in split(batch, ["s", "n"]):
        assert part.schema.names == ["x"]
        found.setdefault(folder, []).extend(part.column(0).to_pylist())
    wanted = {}
    for s, n, x in rows:
        wanted.setdefault(f"{folder_name('s', s)}/{folder_name('n', n)}", []).append(x)
    assert {key: sorted(value) for key, value in found.items()} == {k: sorted(v) for k, v in wanted.items()}
    if not any(s == "" for s, _, _ in rows):  # which shares the folder of null, and lies behind it
        assert found == wanted


def write(tmp_path, batches, **asked):
    layout = Layout.checked(
        asked.pop("partitionBy", ()), asked.pop("rowGroupSize", None), asked.pop("compression", "zstd")
    )
    writer = PieceWriter(str(tmp_path), "part.parquet", file_schema(SCHEMA, SPARK, "4.3.0", layout), layout)
    for batch in batches:
        writer.add(batch)
    return writer.close()


def batches(rows, size):
    values = np.arange(rows)
    whole = pa.RecordBatch.from_arrays([pa.array(values % 3), pa.array(values)], schema=SCHEMA)
    return [whole.slice(start, size) for start in range(0, rows, size)]


@pytest.mark.parametrize("size", [1, 7, 30, 100])
@pytest.mark.parametrize("asked", [1, 10, 64, 1000])
def test_row_groups_of_the_size_asked_for(tmp_path, size, asked):
    assert write(tmp_path, batches(100, size), rowGroupSize=asked) == ["part.parquet"]
    file = pq.ParquetFile(tmp_path / "part.parquet")
    found = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    assert found == [asked] * (100 // asked) + [100 % asked] * bool(100 % asked)
    assert file.read()["x"].to_pylist() == list(range(100))


def test_row_groups_by_bytes_and_what_is_held_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(output, "ROW_GROUP_BYTES", 160)
    write(tmp_path, batches(100, 5))
    assert pq.ParquetFile(tmp_path / "part.parquet").metadata.row_group(0).num_rows == 10
    monkeypatch.setattr(output, "ROW_GROUP_BYTES", 1 << 20)
    monkeypatch.setattr(output, "HELD_BYTES", 100)
    write(tmp_path / "many", batches(100, 5), partitionBy=["k"])
    assert pq.ParquetFile(tmp_path / "many/k=0/part.parquet").num_row_groups > 1


def test_partitions(tmp_path):
    assert sorted(write(tmp_path, batches(100, 7), partitionBy=["k"])) == [f"k={k}/part.parquet" for k in range(3)]
    table = ds.dataset(tmp_path, partitioning="hive").to_table()
    assert sorted(zip(table["k"].to_pylist(), table["x"].to_pylist(), strict=True)) == sorted(
        (i % 3, i) for i in range(100)
    )
    assert pq.ParquetFile(tmp_path / "k=1/part.parquet").read()["x"].to_pylist() == list(range(1, 100, 3))


def test_no_more_files_are_open_than_a_process_may_have(tmp_path, monkeypatch):
    """Two hundred partitions, of which four are written at a time; each has its rows in order of its files."""
    monkeypatch.setattr(output, "MOST_OPEN", 4)
    monkeypatch.setattr(output, "HELD_BYTES", 5000)
    most, opened = [], store.open_output

    def counted(uri):
        most.append(sum(os.path.exists(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")))
        return opened(uri)

    monkeypatch.setattr(store, "open_output", counted)
    values = np.arange(4000)
    whole = pa.RecordBatch.from_arrays([pa.array(values % 200), pa.array(values)], schema=SCHEMA)
    found = write(tmp_path, [whole.slice(i, 450) for i in range(0, 4000, 450)], partitionBy=["k"])
    assert len(set(found)) == len(found) > 200
    assert max(most) - most[0] <= 5
    assert sorted(found) == sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.parquet"))
    table = ds.dataset([str(tmp_path / path) for path in found], partitioning="hive").to_table()
    assert sorted(table["x"].to_pylist()) == values.tolist()
    of_seven = [pq.ParquetFile(tmp_path / path).read()["x"] for path in found if path.startswith("k=7/")]
    assert [x for file in of_seven for x in file.to_pylist()] == list(range(7, 4000, 200))


@pytest.mark.parametrize("compression", output.COMPRESSIONS)
def test_compression_and_what_spark_is_told(tmp_path, compression):
    write(tmp_path, batches(10, 10), compression=compression)
    metadata = pq.ParquetFile(tmp_path / "part.parquet").metadata
    wanted = {"none": "UNCOMPRESSED"}.get(compression, compression.upper())
    assert metadata.row_group(0).column(0).compression in (wanted, f"{wanted}_RAW")
    assert metadata.metadata[b"org.apache.spark.version"] == b"4.3.0"
    assert json.loads(metadata.metadata[b"org.apache.spark.sql.parquet.row.metadata"]) == SPARK


def test_no_rows_no_file(tmp_path):
    assert write(tmp_path, [batches(1, 1)[0].slice(1)] * 2) == []


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write"):
        write(tmp_path / "file", batches(10, 10))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"partitionBy": "k"}, r"'partitionBy' must be a list of column names \(got 'k'\)"),
        ({"partitionBy": [1]}, "'partitionBy' must be a list"),
        ({"rowGroupSize": 0}, "'rowGroupSize' must be a whole number of at least 1, or None"),
        ({"rowGroupSize": True}, "'rowGroupSize'"),
        ({"rowGroupSize": 1.5}, "'rowGroupSize'"),
        ({"compression": "brotli"}, r"'compression' must be one of \['snappy', 'zstd', .* \(got 'brotli'\)"),
    ],
)
def test_bad_values_are_refused(tmp_path, asked, message):
    with pytest.raises(InvalidParamError, match=message):
        write(tmp_path, [], **asked)


@pytest.mark.parametrize(
    ("columns", "error", "message"),
    [
        (["kk"], ColumnNotFoundError, "did you mean 'k'"),
        (["k", "k"], InvalidParamError, "different columns"),
        (["k", "x"], InvalidParamError, "not all"),
        (["a"], InvalidParamError, "'a' is none"),
    ],
)
def test_bad_partition_columns_are_refused(columns, error, message):
    with pytest.raises(error, match=message):
        Layout(tuple(columns)).check_columns(
            {"k": "long", "x": "long"} | ({"a": {"type": "array"}} if "a" in columns else {})
        )


def test_partition_values_whose_text_spark_alone_knows():
    for kind in (pa.float64(), pa.timestamp("us", "UTC"), pa.binary()):
        with pytest.raises(NotScannable, match="partition column 'k'"):
            Layout(("k",)).check_texts(pa.schema([("k", kind)]))
