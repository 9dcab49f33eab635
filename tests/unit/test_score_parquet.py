"""pyarrow reads Parquet as Spark would, or says that it does not."""

import datetime
import decimal
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from making import one_piece
from pyspark.sql import types as T
from pyspark.sql.pandas.types import to_arrow_schema

from sparkdl.errors import DataError
from sparkdl.score import parquet
from sparkdl.score.parquet import NotScannable, arrow_schema, constant, footer, read
from sparkdl.score.pieces import SourceFile

EVERY = T.StructType(
    [
        T.StructField(f"c{i}", kind)
        for i, kind in enumerate(
            [
                T.BooleanType(), T.ByteType(), T.ShortType(), T.IntegerType(), T.LongType(), T.FloatType(),
                T.DoubleType(), T.DecimalType(20, 3), T.StringType(), T.BinaryType(), T.DateType(), T.TimestampNTZType(),
                T.ArrayType(T.ArrayType(T.FloatType())), T.MapType(T.StringType(), T.ArrayType(T.LongType())),
                T.StructType([T.StructField("a b", T.StringType()), T.StructField("z", T.DecimalType(5, 0))]),
            ]
        )
    ]
)  # fmt: skip


def test_types_are_those_of_pyspark():
    assert arrow_schema(EVERY.jsonValue()).types == to_arrow_schema(EVERY).types
    stamp = T.StructType([T.StructField("t", T.TimestampType())])
    assert arrow_schema(stamp.jsonValue()).field("t").type == pa.timestamp("us", "UTC")


@pytest.mark.parametrize("kind", [T.DayTimeIntervalType(), T.YearMonthIntervalType(), T.NullType()])
@pytest.mark.parametrize("wrap", [lambda kind: kind, T.ArrayType])
def test_other_types_are_spark_s(kind, wrap):
    schema = T.StructType([T.StructField("x", wrap(kind))])
    with pytest.raises(NotScannable, match="column 'x'"):
        arrow_schema(schema.jsonValue())


def test_a_vector_is_spark_s():
    from pyspark.ml.linalg import VectorUDT

    with pytest.raises(NotScannable, match=r"'v' is of type .*VectorUDT"):
        arrow_schema(T.StructType([T.StructField("v", VectorUDT())]).jsonValue())


@pytest.mark.parametrize(
    ("value", "kind", "python"),
    [
        (None, pa.int32(), None),
        ("007", pa.int32(), 7),
        ("-3", pa.int64(), -3),
        ("1e3", pa.float64(), 1000.0),
        ("2024-02-29", pa.date32(), datetime.date(2024, 2, 29)),
        ("a/b", pa.string(), "a/b"),
        ("true", pa.bool_(), True),
    ],
)
def test_partition_values(value, kind, python):
    assert constant(value, kind) == pa.scalar(python, kind)


@pytest.mark.parametrize(
    ("value", "kind"),
    [("x", pa.int32()), ("2024-1-5", pa.date32()), ("2024-01-05", pa.timestamp("us", "UTC")), ("9" * 20, pa.int32())],
)
def test_partition_values_that_spark_must_read(value, kind):
    with pytest.raises(NotScannable, match="partition value"):
        constant(value, kind)


def piece_of(path, wanted, constants=()):
    piece = one_piece([SourceFile(str(path), constants, footer(str(path), wanted))])
    return piece


def read_all(path, wanted, constants=()):
    return pa.Table.from_batches(read(piece_of(path, wanted, constants), wanted), wanted)


UTC = datetime.timezone.utc
STAMP = datetime.datetime(2024, 5, 6, 7, 8, 9, 123456)


@pytest.mark.parametrize(
    ("stored", "kind"),
    [
        (pa.array(["a", None], pa.large_string()), pa.string()),
        (pa.array(["a", None]).dictionary_encode(), pa.string()),
        (pa.array([b"ab", None], pa.binary(2)), pa.binary()),
        (pa.array([1, 255], pa.uint8()), pa.int16()),
        (pa.array([1, 2**32 - 1], pa.uint32()), pa.int64()),
        (pa.array([STAMP], pa.timestamp("us", "America/New_York")), pa.timestamp("us", "UTC")),
        (pa.array([STAMP.replace(microsecond=123000)], pa.timestamp("ms", "UTC")), pa.timestamp("us", "UTC")),
        (pa.array([STAMP], pa.timestamp("us")), pa.timestamp("us")),
        (pa.array([[1.0, None], None], pa.large_list(pa.float32())), pa.list_(pa.float32())),
        (pa.array([{"x": "a"}], pa.struct([("x", pa.large_string())])), pa.struct([("x", pa.string())])),
        (pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())), pa.map_(pa.string(), pa.int64())),
        (pa.array([decimal.Decimal("1.20")]), pa.decimal128(3, 2)),
    ],
)
def test_what_is_cast(tmp_path, stored, kind):
    pq.write_table(pa.table({"x": stored}), tmp_path / "a.parquet")
    found = read_all(tmp_path / "a.parquet", pa.schema([("x", kind)]))
    assert found.schema.field("x").type == kind
    assert found["x"].to_pylist() == stored.cast(kind).to_pylist()


@pytest.mark.parametrize(
    ("stored", "kind"),
    [
        (pa.array([1], pa.int32()), pa.int64()),  # which Spark 4 reads and 3.5 refuses
        (pa.array([1.0], pa.float32()), pa.float64()),
        (pa.array([STAMP], pa.timestamp("us", "UTC")), pa.timestamp("us")),
        (pa.array([STAMP], pa.timestamp("ns", "UTC")), pa.timestamp("us", "UTC")),
        (pa.array([b"a"]), pa.string()),
        (pa.array([None]), pa.string()),
        (pa.array([{"x": 1}]), pa.struct([("x", pa.int64()), ("y", pa.int64())])),
        (pa.array([1], pa.time32("ms")), pa.int32()),
    ],
)
def test_what_is_left_to_spark(tmp_path, stored, kind):
    pq.write_table(pa.table({"x": stored}), tmp_path / "a.parquet")
    with pytest.raises(NotScannable, match="column 'x'"):
        footer(str(tmp_path / "a.parquet"), pa.schema([("x", kind)]))


def test_int96_in_any_century(tmp_path):
    old = [datetime.datetime(1, 1, 1), datetime.datetime(2024, 1, 1, 1), datetime.datetime(9999, 12, 31)]
    table = pa.table({"x": pa.array(old, pa.timestamp("us"))})
    pq.write_table(table, tmp_path / "a.parquet", use_deprecated_int96_timestamps=True, store_schema=False)
    found = read_all(tmp_path / "a.parquet", pa.schema([("x", pa.timestamp("us", "UTC"))]))
    assert found["x"].cast(pa.timestamp("us")).to_pylist() == old


@pytest.mark.parametrize(
    "metadata",
    [
        {"org.apache.spark.version": "2.4.8"},
        {"org.apache.spark.version": "3.5.9", "org.apache.spark.legacyDateTime": ""},
        {"org.apache.spark.version": "4.3.0", "org.apache.spark.legacyINT96": ""},
    ],
)
def test_the_calendar_of_old_is_left_to_spark(tmp_path, metadata):
    pq.write_table(pa.table({"x": [1]}).replace_schema_metadata(metadata), tmp_path / "a.parquet")
    with pytest.raises(NotScannable, match="calendar"):
        footer(str(tmp_path / "a.parquet"), pa.schema([("x", pa.int64())]))


def test_columns_are_found_as_spark_does(tmp_path):
    """By name, whatever their order and case; dots are no paths; what is not there is null, or a folder's constant."""
    table = pa.table({"ID": [1, 2], "s.x": ["flat", "flat"], "s": [{"x": 1, "y": 2}] * 2, "é ü": [3, 4]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=1)
    wanted = pa.schema(
        [("é ü", pa.int64()), ("s.x", pa.string()), ("none", pa.list_(pa.float32())), ("id", pa.int64()),
         ("s", pa.struct([("x", pa.int64()), ("y", pa.int64())]))]
    )  # fmt: skip
    assert read_all(tmp_path / "a.parquet", wanted).to_pylist() == [
        {"é ü": i + 2, "s.x": "flat", "none": None, "id": i, "s": {"x": 1, "y": 2}} for i in (1, 2)
    ]
    found = read_all(tmp_path / "a.parquet", pa.schema([("k", pa.string())]), (("k", "v"),))
    assert found.to_pylist() == [{"k": "v"}] * 2
    assert read_all(tmp_path / "a.parquet", pa.schema([("k", pa.string())]), (("k", None),))["k"].null_count == 2


def test_names_that_clash_but_for_case_are_left_to_spark(tmp_path):
    pq.write_table(pa.table({"a": [1], "A": [2]}), tmp_path / "a.parquet")
    with pytest.raises(NotScannable, match="several columns"):
        footer(str(tmp_path / "a.parquet"), pa.schema([("a", pa.int64())]))


def test_batches_are_bounded_by_rows_and_by_bytes(tmp_path, monkeypatch):
    pq.write_table(pa.table({"x": range(1000)}), tmp_path / "a.parquet", row_group_size=400)
    wanted = pa.schema([("x", pa.int64())])
    piece = piece_of(tmp_path / "a.parquet", wanted)
    monkeypatch.setattr(parquet, "BATCH_ROWS", 150)
    found = list(read(piece, wanted))
    assert max(map(len, found)) <= 150
    assert pa.Table.from_batches(found)["x"].to_pylist() == list(range(1000))
    monkeypatch.setattr(parquet, "BATCH_BYTES", piece.parts[0].nbytes // 100)
    assert max(map(len, read(piece, wanted))) <= 10


def test_a_broken_row_group_is_named_with_its_file(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"x": [f"{i:0100d}" for i in range(300)]}), path, row_group_size=100, compression="snappy")
    wanted = pa.schema([("x", pa.string())])
    piece = piece_of(path, wanted)
    column = pq.ParquetFile(path).metadata.row_group(1).column(0)
    content = bytearray(path.read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    content[start : start + 60] = b"\xff" * 60
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"row group 1 of .*a.parquet cannot be read") as caught:
        list(read(piece, wanted))
    assert caught.value.file == str(path)


def test_a_file_that_changed_since_it_was_listed(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"x": [1, 2, 3]}), path)
    wanted = pa.schema([("x", pa.int64())])
    piece = piece_of(path, wanted)
    pq.write_table(pa.table({"x": [1, 2]}), path)
    with pytest.raises(DataError, match="there were 3 rows, and now there are 2"):
        list(read(piece, wanted))


def test_what_is_no_parquet(tmp_path):
    (tmp_path / "a.parquet").write_text(json.dumps({}))
    with pytest.raises(DataError, match=r"the footer of .*a.parquet cannot be read"):
        footer(str(tmp_path / "a.parquet"), pa.schema([]))
