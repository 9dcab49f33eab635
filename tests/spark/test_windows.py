"""Windows over events: out of a table, out of a stream, and scored on the way."""

import json
import os

import numpy as np
import pytest
import torch
from pyspark.sql import functions as sf

from sparkdl import Bundle, Signature, TensorSpec, TorchModel, score_stream
from sparkdl.errors import ColumnNotFoundError, InvalidParamError, SignatureError
from sparkdl.preprocess.windows import windows
from sparkdl.sinks import Parquet

BEGIN = 1_700_000_100  # seconds since 1970, a multiple of 60
EVENTS = "host string, time bigint, load double, errors double, came bigint"


def made_up(hosts=2, minutes=40, seed=0):
    """An event every 20 s or so, some missing, a hole in between; ``came``: its place in the order of arrival."""
    rng = np.random.default_rng(seed)
    rows = []
    for host in range(hosts):
        times = np.arange(0, minutes * 60, 20) + rng.integers(0, 20, minutes * 3)
        times = times[(rng.random(len(times)) < 0.7) & ((times < 15 * 60) | (times > 24 * 60))]
        for time in times.tolist():
            load = float(round(rng.normal(), 3)) if rng.random() < 0.9 else None
            rows.append((f"h{host}", BEGIN + time, load, float(rng.integers(0, 3)), time + int(rng.integers(0, 110))))
    return sorted(rows, key=lambda row: row[-1])


@pytest.fixture(scope="module")
def rows():
    return made_up()


def table(spark, rows):
    df = spark.createDataFrame(rows, EVENTS).repartition(3)
    return df.withColumn("time", sf.timestamp_seconds("time"))


def windowed(df, **more):
    given = {
        "by": ["host"],
        "at": "time",
        "values": ["load", "errors"],
        "every": "1 minute",
        "length": 5,
        "combine": "sum",
    }
    return windows(df, **{**given, "lateness": "2 minutes", **more})


def told(df):
    """(host, end, series, label) of each row, in order."""
    found = [row.asDict() for row in df.withColumn("window_end", sf.unix_seconds("window_end")).collect()]
    return sorted((row["host"], row["window_end"], str(row["series"]), str(row.get("label"))) for row in found)


def stream(spark, folder, batches):
    """A stream of these batches, one file a micro-batch."""
    folder.mkdir()
    for i, batch in enumerate(batches):
        lines = [
            json.dumps({"host": host, "time": time, "load": load, "errors": errors})
            for host, time, load, errors, _ in batch
        ]
        (folder / f"{i:04d}.json").write_text("\n".join(lines) + "\n")
        os.utime(folder / f"{i:04d}.json", (BEGIN + i, BEGIN + i))  # Spark reads the oldest first
    read = spark.readStream.schema("host string, time bigint, load double, errors double")
    events = read.option("maxFilesPerTrigger", 1).json(str(folder))
    return events.withColumn("time", sf.timestamp_seconds("time"))


def run(df, name, checkpoint):
    writer = df.writeStream.format("memory").queryName(name).outputMode("append")
    query = writer.option("checkpointLocation", str(checkpoint)).trigger(availableNow=True).start()
    query.awaitTermination()
    return query


def later(rows, minutes):
    """An event of another host so much after all others: it moves the watermark."""
    return ("clock", max(row[1] for row in rows) + minutes * 60, 0.0, 0.0, 0)


def test_a_stream_gives_the_windows_of_the_table_each_once(spark, rows, tmp_path):
    expected = told(windowed(table(spark, rows), horizon=1, step=2))
    assert len(expected) > 15
    batches = [*(rows[i : i + 40] for i in range(0, len(rows), 40)), [later(rows, 30)], [later(rows, 31)]]
    query = run(
        windowed(stream(spark, tmp_path / "in", batches), horizon=1, step=2), "each_once", tmp_path / "checkpoint"
    )
    assert told(spark.table("each_once")) == expected
    state = query.lastProgress["stateOperators"][0]
    assert state["numRowsTotal"] == 1, "only the clock's key is held"


def test_what_has_a_wrong_clock_is_left_out_and_counted_before_it_moves_the_watermark(spark, tmp_path):
    steady = [("h0", BEGIN + 60 * i, 1.0, 0.0, 0) for i in range(8)]
    wrong = [("h0", 4_000_000_000, 9.0, 0.0, 0), ("h0", None, 9.0, 0.0, 0)]
    late = ("h0", BEGIN + 60, 9.0, 0.0, 0)
    batches = [[*steady, *wrong], [later(steady, 30)], [later(steady, 31), late]]
    query = run(windowed(stream(spark, tmp_path / "in", batches), values="load"), "clocks", tmp_path / "checkpoint")
    found = told(spark.table("clocks"))
    assert [row[1] for row in found] == [BEGIN + 60 * i for i in (5, 6, 7, 8)]
    assert {row[2] for row in found} == {str([1.0] * 5)}
    progress = query.recentProgress
    assert [
        sum(p["observedMetrics"]["sparkdl_windows"][name] for p in progress if p["numInputRows"])
        for name in ("ahead", "timeless")
    ] == [1, 1]
    assert sum(p["stateOperators"][0]["numRowsDroppedByWatermark"] for p in progress) == 1


def test_the_time_of_arrival_may_be_told(spark):
    rows = [("h0", 60 * i, 1.0, 0.0, 60 * i) for i in range(6)] + [("h0", 60 * 6, 9.0, 0.0, 60)]
    df = table(spark, rows).withColumn("came", sf.timestamp_seconds("came"))
    assert [row[1] for row in told(windowed(df, arrived="came", skew="2 minutes"))] == [300, 360]
    assert len(told(windowed(df, arrived="came", skew="5 minutes"))) == 3


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"by": []}, InvalidParamError, "'by' must be names"),
        ({"by": ["load", "load"]}, InvalidParamError, "'by' must be names"),
        ({"by": ["hosts"]}, ColumnNotFoundError, "did you mean 'host'"),
        ({"at": "came"}, SignatureError, "'came' is long; the time of an event is a timestamp"),
        ({"values": ["host"]}, SignatureError, "'host' is string; the values of a window are numbers"),
        ({"every": "one minute"}, InvalidParamError, "'every' must be a time such as '1 minute'"),
        ({"every": "0 seconds"}, InvalidParamError, "'every' must be a millisecond or more"),
        ({"length": 0}, InvalidParamError, "'length' must be a whole number of cells, at least 1"),
        ({"step": 1.5}, InvalidParamError, "'step' must be a whole number"),
        ({"horizon": -1}, InvalidParamError, "'horizon' must be a whole number of cells, at least 0"),
        ({"combine": "max "}, InvalidParamError, "did you mean 'max'"),
        ({"fill": "nan"}, InvalidParamError, "'fill' must be one of"),
        ({"target": "errors ", "horizon": 1}, InvalidParamError, "did you mean 'errors'"),
        ({"lateness": 5}, InvalidParamError, "'lateness' must be a time"),
        ({"skew": ""}, InvalidParamError, "'skew' must be a time"),
        ({"arrived": "host"}, SignatureError, "'host' is string; the time of an event"),
    ],
)
def test_arguments_that_cannot_be(spark, rows, given, error, message):
    with pytest.raises(error, match=message):
        windowed(table(spark, rows), **given)


@pytest.fixture(scope="module")
def bundle():
    """Of a model that gives the mean of each window."""

    class Mean(torch.nn.Module):
        def forward(self, series):
            return series.mean(dim=1)

    signature = Signature((TensorSpec("series", "float32", (5,), ("series",), ("array<float>",)),))
    return Bundle.from_module(Mean(), signature, task="regression")


@pytest.fixture(scope="module")
def steady():
    return [[("h0", BEGIN + 60 * i, float(i), 0.0, 0) for i in range(8)], [("clock", BEGIN + 9000, 0.0, 0.0, 0)]]


def test_windows_of_a_stream_are_scored_on_the_way(spark, steady, bundle, tmp_path):
    live = windowed(stream(spark, tmp_path / "in", steady), values="load")
    run(TorchModel(bundle).transform(live), "scored_on_the_way", tmp_path / "checkpoint")
    scored = spark.table("scored_on_the_way").orderBy("window_end").collect()
    assert [row["prediction"] for row in scored] == [2.0, 3.0, 4.0, 5.0]


def test_score_stream_takes_windows(spark, steady, bundle, tmp_path):
    live = windowed(stream(spark, tmp_path / "in", steady), values="load")
    query = score_stream(
        live,
        model=bundle,
        sink=Parquet(str(tmp_path / "scored")),
        checkpoint=str(tmp_path / "checkpoint"),
        trigger="available now",
    )
    query.awaitTermination()
    scored = spark.read.parquet(str(tmp_path / "scored")).orderBy("window_end").collect()
    assert [row["prediction"] for row in scored] == [2.0, 3.0, 4.0, 5.0]
