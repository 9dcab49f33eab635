"""score_table: both ways give the rows of transform; a table comes whole, once, and what was finished stays finished."""

from __future__ import annotations

import datetime
import os
import signal
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pyspark.sql import functions as sf
from torch import nn

from sparkdl import Bundle, ScoredTable, Signature, TensorSpec, TorchModel, score_table
from sparkdl.columns import to_arrow
from sparkdl.errors import (
    BundleNotFoundError,
    ColumnNotFoundError,
    DataError,
    InvalidParamError,
    ScoringError,
    SignatureError,
    StoreError,
)

FEATURES = TensorSpec("features", "float32", (4,), ("features",), ("array<float>",))


@pytest.fixture(scope="module")
def bundle():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return Bundle.from_module(nn.Linear(4, 3), Signature((FEATURES,)), task="multiclass")


@pytest.fixture
def model(bundle):
    return TorchModel(bundle)


def table_of(rows, start=0):
    """``id`` and ``features`` (NaN nowhere)."""
    values = np.sin(np.arange(start, start + rows)[:, None] * np.array([3.0, 5.0, 7.0, 11.0])).astype(np.float32)
    return pa.table({"id": np.arange(start, start + rows), "features": to_arrow(values)})


@pytest.fixture
def small(tmp_path):
    """Two files, 40 rows."""
    os.makedirs(tmp_path / "source")
    for i in range(2):
        pq.write_table(table_of(20, 20 * i), tmp_path / f"source/{i}.parquet", row_group_size=7)
    return str(tmp_path / "source")


@pytest.fixture
def pieces_of_a_row_group(monkeypatch):
    """As if the smallest row groups were large."""
    from sparkdl.score import pieces

    monkeypatch.setattr(pieces, "MOST_ROWS", 7)


def rows_of(df, *order):
    return [row.asDict(recursive=True) for row in df.orderBy(*(order or ["id"])).collect()]


def assert_same(found, wanted, order="id"):
    """The same columns, types and rows."""
    assert sorted(found.schema.jsonValue()["fields"], key=str) == sorted(wanted.schema.jsonValue()["fields"], key=str)
    assert rows_of(found.select([f"`{name}`" for name in wanted.columns]), order) == rows_of(wanted, order)


# The same rows both ways


def every_type(spark):
    """Rows with every type that the scan takes, nulls in each, names that need quotes."""
    odd = spark.createDataFrame(
        [
            (i, [float(i), 1.0, -1.0, 0.5], None if i % 3 == 0 else f"s{i}", None if i % 4 == 0 else Decimal(i) / 7,
             None if i % 5 == 0 else datetime.datetime(2024, 3, 31, 1, i % 60, 0, 123456),
             None if i % 6 == 0 else datetime.date(1583 + i, 1, 2), None if i % 7 == 0 else {"k": [i, None], "n": None},
             None if i % 8 == 0 else (i, ("x", [b"\x00\xff", None])), i % 3 if i % 9 else None,
             ["a/b", "c=d", None, "é"][i % 4])
            for i in range(40)
        ],
        "id bigint, features array<float>, `a.b c` string, `déc` decimal(12,3), at timestamp, `on` date,"
        " `m:` map<string,array<int>>, st struct<x:int,`in ner`:struct<y:string,z:array<binary>>>, part int, text string",
    )  # fmt: skip
    return odd.selectExpr(
        "*",
        "cast(at as timestamp_ntz) ntz",
        "cast(id as byte) b",
        "cast(id as short) s",
        "id % 2 = 0 flag",
        "id / 3 dbl",
        "cast(`a.b c` as binary) bin",
        "date_add(date'2024-02-28', cast(id % 3 as int)) day",
    )


def test_every_type_passes_as_spark_reads_it(spark, model, tmp_path):
    """From folders that tell columns, to folders that tell columns."""
    every_type(spark).repartition(2).write.partitionBy("part", "text", "day").parquet(str(tmp_path / "source"))
    source = spark.read.parquet(str(tmp_path / "source"))
    scanned = score_table(str(tmp_path / "source"), model, str(tmp_path / "scan"), partitionBy=["text", "s", "flag"])
    by_spark = score_table(
        source.where("id >= 0"), model, str(tmp_path / "spark"), partitionBy=["text", "s", "flag"], verbose=False
    )
    assert (scanned.way, scanned.why, by_spark.way) == ("scan", None, "dataframe")
    assert scanned.rows == by_spark.rows == scanned.written == 40
    assert_same(spark.read.parquet(str(tmp_path / "scan")), spark.read.parquet(str(tmp_path / "spark")))
    folders = [
        {p.relative_to(tmp_path / way).parent for p in (tmp_path / way).rglob("*.parquet")} for way in ("scan", "spark")
    ]
    assert folders[0] == folders[1]


@pytest.mark.parametrize("stored", ["INT96", "TIMESTAMP_MILLIS", "TIMESTAMP_MICROS"])
def test_times_of_every_kind(spark, model, small, tmp_path, stored):
    spark.conf.set("spark.sql.parquet.outputTimestampType", stored)
    try:
        df = spark.read.parquet(small).selectExpr("*", "timestamp'1921-07-01 12:00:00.125' at")
        df.write.parquet(str(tmp_path / "times"))
    finally:
        spark.conf.unset("spark.sql.parquet.outputTimestampType")
    done = score_table(str(tmp_path / "times"), model, str(tmp_path / "out"))
    assert done.way == "scan"
    wanted = model.transform(spark.read.parquet(str(tmp_path / "times")))
    assert_same(spark.read.parquet(str(tmp_path / "out")), wanted)


def test_a_file_that_lacks_a_column_gives_nulls(spark, model, small, tmp_path):
    pq.write_table(table_of(5, 40).append_column("extra", pa.array(range(5))), f"{small}/2.parquet")
    df = spark.read.option("mergeSchema", "true").parquet(small)
    spark.conf.set("spark.sql.parquet.mergeSchema", "true")
    try:
        done = score_table(small, model, str(tmp_path / "out"))
    finally:
        spark.conf.unset("spark.sql.parquet.mergeSchema")
    assert done.way == "scan"
    assert_same(spark.read.parquet(str(tmp_path / "out")), model.transform(df))


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda df: df.where("id < 30"), "more than the rows"),
        (lambda df: df.selectExpr("*", "interval '1' day i"), "more than the rows"),
        (lambda df: df.repartition(3).sortWithinPartitions("id"), "more than the rows"),
    ],
)
def test_any_other_plan_is_spark_s(spark, model, small, tmp_path, make, why):
    df = make(spark.read.parquet(small))
    done = score_table(df, model, str(tmp_path / "out"), columns=["id"])
    assert done.way == "dataframe"
    assert why in done.why
    wanted = model.transform(df).select("id", "prediction", "probability")
    assert_same(spark.read.parquet(str(tmp_path / "out")), wanted)


def test_a_dataframe_of_parquet_files_is_scanned(spark, model, small, tmp_path):
    done = score_table(spark.read.parquet(small), model, str(tmp_path / "out"))
    assert done.way == "scan"
    assert_same(spark.read.parquet(str(tmp_path / "out")), model.transform(spark.read.parquet(small)))


def test_rows_that_are_read_twice_are_scored_twice(spark, model, small, tmp_path):
    for i, paths in enumerate(([small, small], [small, f"{small}/1.parquet"])):
        df = spark.read.parquet(*paths)
        done = score_table(df, model, str(tmp_path / f"out{i}"))
        assert (done.way, done.rows) == ("dataframe", df.count())
        assert "repeat or lie in one another" in done.why
    done = score_table(spark.read.parquet(*(f"{small}/{i}.parquet" for i in range(2))), model, str(tmp_path / "files"))
    assert (done.way, done.rows) == ("scan", 40)


def test_a_table_does_not_replace_its_source(spark, model, small, tmp_path):
    (tmp_path / "link").symlink_to("source")
    df = spark.read.parquet(small)
    sources = (str(tmp_path / "link"), df, df.where("id > 1"), df.union(spark.read.parquet(f"{small}/1.parquet")))
    for source in sources:
        for sink in (small, f"{small}/out", str(tmp_path / "link"), str(tmp_path / "link/out"), str(tmp_path)):
            with pytest.raises(StoreError, match="lie in one another"):
                score_table(source, model, sink, overwrite=True)
    beside = score_table(spark.read.parquet(f"{small}/0.parquet").where("id > 1"), model, f"{small}/out")
    assert beside.rows == 18


def test_a_source_that_changes_meanwhile(spark, model, small, tmp_path, monkeypatch):
    from sparkdl.score import sources

    def changed(source):
        pq.write_table(table_of(3), f"{small}/0.parquet")
        return check(source)

    check = sources.Source.check_unchanged
    monkeypatch.setattr(sources.Source, "check_unchanged", changed)
    with pytest.raises(StoreError, match=r"0.parquet' was changed or removed while the table was scored"):
        score_table(small, model, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_what_only_spark_reads_goes_its_way_and_says_why(spark, model, small, tmp_path):
    df = spark.read.parquet(small).selectExpr("*", "interval '1' day i")
    df.write.parquet(str(tmp_path / "intervals"))
    done = score_table(str(tmp_path / "intervals"), model, str(tmp_path / "out"))
    assert (done.way, done.why) == ("dataframe", "column 'i' is of type interval day")
    assert_same(
        spark.read.parquet(str(tmp_path / "out")), model.transform(spark.read.parquet(str(tmp_path / "intervals")))
    )
    assert score_table(str(tmp_path / "intervals"), model, str(tmp_path / "out")).already
    done = score_table(str(tmp_path / "intervals"), model, str(tmp_path / "out2"), columns=["id"])
    assert done.way == "scan", "of columns that are not asked for nothing is"


def test_vectors_as_output(spark, bundle, small, tmp_path):
    model = TorchModel(bundle).setParams(probabilityAsVector=True)
    done = score_table(small, model, str(tmp_path / "out"))
    assert done.way == "dataframe"
    assert_same(spark.read.parquet(str(tmp_path / "out")), model.transform(spark.read.parquet(small)))


def test_delta_by_its_own_list_of_files(spark, model, tmp_path):
    from deltalake import DeltaTable, write_deltalake

    uri = str(tmp_path / "delta")
    keys = pa.array(["a/b", None, "é", "x y"] * 5)
    table = table_of(20).append_column("k", keys).append_column("n", pa.array([1, 2] * 10, pa.int32()))
    write_deltalake(uri, table, partition_by=["k", "n"])
    write_deltalake(
        uri, table_of(4, 100).append_column("k", keys[:4]).append_column("n", table["n"][:4]), mode="append"
    )
    DeltaTable(uri).delete("id = 3")  # leaves a file that is no part of the table any more
    done = score_table(uri, model, str(tmp_path / "out"), spark=spark)
    assert (done.way, done.rows) == ("scan", 23)
    found = {row.id: (row.k, row.n) for row in spark.read.parquet(str(tmp_path / "out")).collect()}
    wanted = dict(enumerate(zip(keys.to_pylist(), table["n"].to_pylist(), strict=True)))
    assert found == {i: wanted[i % 100] for i in (*range(20), *range(100, 104)) if i != 3}
    assert score_table(uri, model, str(tmp_path / "out")).already
    write_deltalake(uri, table, mode="append")
    with pytest.raises(StoreError, match="other rows, model or settings"):
        score_table(uri, model, str(tmp_path / "out"))


def test_delta_that_pyarrow_alone_cannot_read(spark, model, tmp_path):
    from deltalake import DeltaTable, write_deltalake

    uri = str(tmp_path / "delta")
    write_deltalake(uri, table_of(4), configuration={"delta.enableDeletionVectors": "true"})
    if "deletionVectors" not in (DeltaTable(uri).protocol().reader_features or []):
        pytest.skip("this deltalake writes no such table")
    with pytest.raises(StoreError, match=r"it uses deletionVectors.*; pass spark.read.format\(.delta.\)"):
        score_table(uri, model, str(tmp_path / "out"))


# Bad rows


@pytest.fixture
def with_bad_rows(tmp_path):
    """30 rows; 3 has a null, 17 another shape, 29 an infinity."""
    rows = table_of(30)["features"].to_pylist()
    rows[3], rows[17], rows[29] = None, [1.0], [float("inf")] * 4
    os.makedirs(tmp_path / "bad")
    table = pa.table({"id": range(30), "features": pa.array(rows, pa.list_(pa.float32()))})
    for i in range(3):
        pq.write_table(table.slice(10 * i, 10), tmp_path / f"bad/{i}.parquet")
    return str(tmp_path / "bad")


@pytest.mark.parametrize(("invalid", "error_column"), [("keep", "why"), ("keep", ""), ("skip", "")])
def test_bad_rows_kept_or_left_out_are_counted_both_ways(spark, bundle, with_bad_rows, tmp_path, invalid, error_column):
    model = TorchModel(bundle).setParams(handleInvalid=invalid, errorCol=error_column)
    df = spark.read.parquet(with_bad_rows)
    ways = {"scan": with_bad_rows, "dataframe": df.where("id >= 0")}
    for way, source in ways.items():
        done = score_table(source, model, str(tmp_path / way))
        assert (done.way, done.rows, done.written) == (way, 30, 27 if invalid == "skip" else 30)
        assert done.invalid == {"null": 1, "shape": 1, "non-finite": 1}
        assert_same(spark.read.parquet(str(tmp_path / way)), model.transform(df))
        assert score_table(source, model, None).invalid == done.invalid


def test_a_bad_row_ends_it_and_is_named_with_its_file(spark, model, with_bad_rows, tmp_path, pieces_of_a_row_group):
    with pytest.raises(DataError, match=r"'(features|probability)', row \d of .*bad/\d.parquet: ") as caught:
        score_table(with_bad_rows, model, str(tmp_path / "out"))
    place = caught.value.row, os.path.basename(caught.value.file)
    assert place in [(3, "0.parquet"), (7, "1.parquet"), (9, "2.parquet")], "whichever was met first"
    with pytest.raises(DataError, match=r"column 'features', row 3 of .*bad/0.parquet"):
        score_table(with_bad_rows, model, None)
    with pytest.raises(DataError, match="column 'features', row"):
        score_table(spark.read.parquet(with_bad_rows).where("id >= 0"), model, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_what_was_finished_before_a_bad_row_is_not_scored_again(
    spark, model, small, tmp_path, pieces_of_a_row_group, monkeypatch
):
    """The last file is broken: it stands there whole again, with its old time, for the second run."""
    last = Path(small) / "1.parquet"
    good, times = last.read_bytes(), os.stat(last)
    column = pq.ParquetFile(last).metadata.row_group(2).column(1)
    broken = bytearray(good)
    start = column.dictionary_page_offset or column.data_page_offset
    broken[start : start + 20] = b"\xff" * 20

    def put(content):
        last.write_bytes(content)
        os.utime(last, ns=(times.st_atime_ns, times.st_mtime_ns))

    put(broken)
    with pytest.raises(DataError, match=r"row group 2 of .*1.parquet cannot be read.* finished pieces are kept in"):
        score_table(small, model, str(tmp_path / "out"))
    put(good)
    done = score_table(small, model, str(tmp_path / "out"))
    assert done.pieces == 6
    assert done.resumed >= 1
    assert_same(spark.read.parquet(str(tmp_path / "out")), model.transform(spark.read.parquet(small)))
    assert "pieces finished before" in repr(done)


# Once, and whole

KILLED = """
import signal, sys
from pyspark.sql import SparkSession
from sparkdl import Bundle, score_table
from sparkdl.score import pieces, scan

class OnlyTheFirst(scan._Task):
    def __call__(self, batches):
        for told in super().__call__(batch for batch in batches if batch.column(0)[0].as_py() == 0 or signal.pause()):
            yield told

pieces.MOST_ROWS, scan._Task = 7, OnlyTheFirst
source, bundle, sink = sys.argv[1:]
SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
score_table(source, Bundle.load(bundle), sink)
"""


@pytest.mark.lane("spark35")
def test_a_driver_that_is_killed_is_taken_up(spark, bundle, small, tmp_path, pieces_of_a_row_group):
    """All of its tasks but the first wait for ever."""
    bundle.save(str(tmp_path / "bundle"))
    arguments = [sys.executable, "-c", KILLED, small, str(tmp_path / "bundle"), str(tmp_path / "out")]
    driver = subprocess.Popen(arguments, start_new_session=True, stderr=subprocess.DEVNULL)
    try:
        while not list(tmp_path.glob(".out.sparkdl-*/done-*/*.json")):
            assert driver.poll() is None, "it ended before a piece was finished"
            time.sleep(0.01)
        with pytest.raises(StoreError, match="another process makes"):
            score_table(small, bundle, str(tmp_path / "out"))
    finally:
        os.killpg(driver.pid, signal.SIGKILL)
        driver.wait()
    assert not (tmp_path / "out").exists()
    (finished,) = tmp_path.glob(".out.sparkdl-*/table/*.parquet")
    written = finished.stat().st_mtime_ns
    done = score_table(small, bundle, str(tmp_path / "out"))
    assert (done.resumed, done.pieces) == (1, 6)
    assert (tmp_path / "out" / finished.name).stat().st_mtime_ns == written, "it was not scored again"
    assert len(list((tmp_path / "out").glob("*.parquet"))) == 6
    assert_same(spark.read.parquet(str(tmp_path / "out")), TorchModel(bundle).transform(spark.read.parquet(small)))
    assert sorted(os.listdir(tmp_path)) == ["bundle", "out", "source"]


def test_a_table_that_is_there_is_not_made_again(spark, bundle, small, tmp_path, jobs):
    sink = str(tmp_path / "out")
    first = score_table(small, bundle, sink, compression="zstd")
    before = jobs()
    again = score_table(small, bundle, sink, compression="zstd")
    assert again.already
    assert (again.rows, again.way) == (first.rows, "scan")
    assert "there already" in repr(again)
    for changed in ({"compression": "none"}, {"columns": ["id"]}, {"partitionBy": ["id"]}, {"rowGroupSize": 5}):
        with pytest.raises(StoreError, match="other rows, model or settings"):
            score_table(small, bundle, sink, **{"compression": "zstd", **changed})
    with pytest.raises(StoreError, match="other rows, model or settings"):
        score_table(small, TorchModel(bundle).setParams(predictionCol="p"), sink, compression="zstd")
    assert jobs() - before <= 10, "listing only"
    pq.write_table(table_of(3, 90), f"{small}/9.parquet")
    done = score_table(small, bundle, sink, compression="zstd", overwrite=True)
    assert (done.rows, done.already) == (43, False)
    assert sorted(os.listdir(tmp_path)) == ["out", "source"]


def test_layout_as_asked(spark, model, small, tmp_path):
    done = score_table(small, model, str(tmp_path / "out"), columns=["id"], rowGroupSize=4, compression="gzip")
    assert (done.way, done.rows, done.uri) == ("scan", 40, str(tmp_path / "out"))
    files = [pq.ParquetFile(path) for path in sorted((tmp_path / "out").glob("*.parquet"))]
    groups = [file.metadata.row_group(i) for file in files for i in range(file.num_row_groups)]
    assert sorted({group.num_rows for group in groups}, reverse=True)[0] == 4
    assert {group.column(0).compression for group in groups} == {"GZIP"}
    assert files[0].schema_arrow.names == ["id", "prediction", "probability"]
    ids = [id for file in files for id in file.read()["id"].to_pylist()]
    assert ids == list(range(40)), "in the order of the files"


def test_row_groups_where_spark_writes(spark, model, small, tmp_path):
    df = spark.read.parquet(small).where("id >= 0").coalesce(1)
    if spark.version < "4":
        with pytest.raises(InvalidParamError, match="'rowGroupSize' must be None"):
            score_table(df, model, str(tmp_path / "out"), rowGroupSize=8)
        assert os.listdir(tmp_path) == ["source"]
        return
    score_table(df, model, str(tmp_path / "out"), rowGroupSize=8)
    (path,) = (tmp_path / "out").glob("*.parquet")
    assert pq.ParquetFile(path).metadata.row_group(0).num_rows == 8


def test_no_rows_one_row_and_all_rows_bad(spark, bundle, tmp_path):
    os.makedirs(tmp_path / "source")
    pq.write_table(table_of(0), tmp_path / "source/0.parquet")
    for rows, way in ((0, "none"), (1, "one")):
        pq.write_table(table_of(rows), tmp_path / "source/1.parquet")
        done = score_table(str(tmp_path / "source"), bundle, str(tmp_path / way))
        assert (done.rows, done.written, done.way) == (rows, rows, "scan")
        found = spark.read.parquet(str(tmp_path / way))
        assert_same(found, TorchModel(bundle).transform(spark.read.parquet(str(tmp_path / "source"))))
    pq.write_table(
        pa.table({"id": [1], "features": pa.array([None], pa.list_(pa.float32()))}), tmp_path / "source/1.parquet"
    )
    skipping = TorchModel(bundle).setParams(handleInvalid="skip")
    done = score_table(str(tmp_path / "source"), skipping, str(tmp_path / "skipped"))
    assert (done.rows, done.written, done.invalid) == (1, 0, {"null": 1})
    assert spark.read.parquet(str(tmp_path / "skipped")).columns == ["id", "features", "prediction", "probability"]
    score_table(str(tmp_path / "source"), skipping, str(tmp_path / "parts"), partitionBy=["id"])
    found = spark.read.parquet(str(tmp_path / "parts"))
    assert (found.count(), found.columns) == (0, ["features", "prediction", "probability", "id"])
    (path,) = (tmp_path / "parts").rglob("*.parquet")
    assert pq.read_schema(path).names == ["features", "prediction", "probability"]


def test_nothing_is_written_without_a_sink(spark, model, small, tmp_path):
    done = score_table(small, model, None)
    assert done == ScoredTable(None, 40, 0, {}, done.seconds, "scan", pieces=6)
    assert os.listdir(tmp_path) == ["source"]


# What is refused before anything runs


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"model": 5}, InvalidParamError, "'model' must be a TorchModel, a Bundle or the URI of a bundle"),
        ({"model": "/nowhere"}, BundleNotFoundError, "/nowhere"),
        ({"source": 5}, InvalidParamError, "'source' must be a DataFrame, or the URI"),
        ({"source": "/nowhere"}, StoreError, "there is nothing at '/nowhere'"),
        ({"source": "EMPTY"}, StoreError, "there is no Parquet table at"),
        ({"sink": "SOURCE"}, StoreError, "lie in one another"),
        ({"sink": "SOURCE/out"}, StoreError, "lie in one another"),
        ({"sink": "PARENT"}, StoreError, "lie in one another"),
        ({"sink": "/proc/x/out"}, StoreError, "cannot be written"),
        ({"sink": "EMPTY"}, StoreError, "there is something at"),
        ({"sink": 3}, InvalidParamError, r"'sink' must be the URI of a folder, or None \(got 3\)"),
        ({"sink": "/"}, StoreError, "'/' is no folder that a table can be made of"),
        ({"columns": ["idd"]}, ColumnNotFoundError, "in columns, column 'idd' is not .*did you mean 'id'"),
        ({"columns": "id"}, InvalidParamError, "'columns' must be a list"),
        ({"partitionBy": ["predicion"]}, ColumnNotFoundError, "did you mean 'prediction'"),
        ({"partitionBy": ["features"]}, InvalidParamError, "'features' is none"),
        ({"rowGroupSize": -1}, InvalidParamError, "'rowGroupSize'"),
        ({"compression": "zip"}, InvalidParamError, "'compression' must be one of"),
    ],
)
def test_bad_input(spark, bundle, small, tmp_path, jobs, change, error, message):
    (tmp_path / "empty").mkdir()
    places = {"SOURCE": small, "SOURCE/out": f"{small}/out", "PARENT": str(tmp_path), "EMPTY": str(tmp_path / "empty")}
    asked = {"source": small, "model": bundle, "sink": str(tmp_path / "out"), **change}
    asked = {name: places.get(value, value) if isinstance(value, str) else value for name, value in asked.items()}
    with pytest.raises(error, match=message):
        score_table(**asked)
    assert sorted(os.listdir(tmp_path)) == ["empty", "source"]
    assert os.listdir(tmp_path / "empty") == []


def test_input_columns_that_do_not_fit(spark, model, small, tmp_path):
    df = spark.read.parquet(small)
    for bad, error, message in (
        (df.withColumnRenamed("features", "feature"), ColumnNotFoundError, "did you mean 'feature'"),
        (df.withColumn("features", sf.lit("x")), SignatureError, "column 'features' is string"),
        (df.withColumn("Prediction", sf.lit(1)), SignatureError, "would be column 'prediction'"),
    ):
        with pytest.raises(error, match=message):
            score_table(bad, model, str(tmp_path / "out"))


def test_a_source_that_pyarrow_cannot_open_is_named(spark, model, small, tmp_path):
    (Path(small) / "2.parquet").write_text("no Parquet")
    with pytest.raises((DataError, StoreError), match=r"2\.parquet"):
        score_table(small, model, str(tmp_path / "out"))
    assert os.listdir(tmp_path) == ["source"]


def test_what_a_model_raises_is_told(spark, small, tmp_path):
    """Twenty rows of a table of ten: the model's own error, which is no bad row's."""
    ids = TensorSpec("id", "int64", (), ("id",), ("long",))
    bundle = Bundle.from_module(nn.Embedding(10, 1), Signature((ids,)))
    with pytest.raises(ScoringError, match=r"the Spark job that scores the table failed(.|\n)*index out of range"):
        score_table(small, bundle, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
