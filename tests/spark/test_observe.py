"""Watching plain queries by Spark's own means, on classic Spark and, in a process of its own, over Spark Connect."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import threading
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from torch import nn

from sparkdl.bundle import Bundle
from sparkdl.drift import Reference, compare
from sparkdl.errors import ColumnNotFoundError, InvalidParamError, StoreError
from sparkdl.estimator import TorchEstimator
from sparkdl.model import TorchModel
from sparkdl.signature import Signature, TensorSpec
from sparkdl.stream import events
from sparkdl.stream.monitor import Monitor
from sparkdl.stream.observe import observed, report_of_progress, unwatch, watch


class Waiting(Monitor):
    """One that can be waited for: Spark tells its listeners in its own time."""

    def __init__(self, *args, **settings):
        super().__init__(*args, **settings)
        self.over = threading.Event()

    def ended(self, error=None, query=None):
        super().ended(error, query)
        self.over.set()


def scorer():
    torch.manual_seed(0)
    told = Signature((TensorSpec("x", "float32", (3,), ("x",), ("array<float>",)),))
    made = TorchModel(Bundle.from_module(nn.Linear(3, 2), told, task="multiclass"))
    return made.setParams(handleInvalid="keep", errorCol="why")


def stream(spark, folder, rows=400):
    """Of so many rows in two files, every 10th null, every 25th too short."""
    spark.range(0, rows, 1, 2).selectExpr(
        "id",
        "CASE WHEN id % 10 = 0 THEN null WHEN id % 25 = 1 THEN array(1f) "
        "ELSE transform(array(1d, 2d, 3d), f -> cast(sin(id * f) as float)) END x",
    ).write.parquet(f"{folder}/in")
    return spark.readStream.schema("id bigint, x array<float>").option("maxFilesPerTrigger", 1).parquet(f"{folder}/in")


def run(df, folder, name=None, trigger=None):
    writer = df.writeStream.format("noop").option("checkpointLocation", f"{folder}/checkpoint")
    writer = writer.queryName(name) if name else writer
    return writer.trigger(**(trigger or {"availableNow": True})).start()


def watched(spark, folder):
    """A whole run, watched: what the file says, and the last status."""
    model, monitor = scorer(), Waiting(jsonl=f"{folder}/events.jsonl", alerts=[{"metric": "dead", "above": 0.1}])
    listener = watch(spark, monitor)
    try:
        query = run(observed(model.transform(stream(spark, folder)), model), folder, name="fraud")
        query.awaitTermination()
        assert monitor.over.wait(30)
    finally:
        unwatch(spark, listener)
    return list(events.read(f"{folder}/events.jsonl")), monitor.status(), model


def check(told, status, model):
    """The same on whichever Spark."""
    assert [one["event"] for one in told if one["event"] in ("started", "batch", "ended")] == [
        "started", "batch", "batch", "ended",
    ]  # fmt: skip
    assert {one["name"] for one in told} == {"fraud"}
    assert status.rows == 400
    assert status.nulls == {"x": 40}
    bad = sum(1 for i in range(400) if i % 10 and i % 25 == 1)
    assert status.dead == {"null": 40, "shape": bad}
    assert status.versions == {model.bundle.digest[:12]: 400 - 40 - bad}
    assert status.state == "stopped"
    assert status.p50 > 0
    assert set(status.stages) == {"source", "plan", "model", "log"}
    assert any(one["event"] == "alert" and one["metric"] == "dead" for one in told)
    told_of = next(one["progress"]["observedMetrics"] for one in told if one["event"] == "progress")
    figures = told_of[f"sparkdl:{model.bundle.digest[:12]}"]
    assert figures["prediction.min"] in (0, 1)
    assert 0 <= figures["prediction.mean"] <= 1
    assert len(figures["prediction.quantiles"]) == 3
    assert figures["probability.0.mean"] + figures["probability.1.mean"] == pytest.approx(1, abs=1e-5)


def test_a_plain_query_is_watched(spark, tmp_path):
    check(*watched(spark, tmp_path))


def test_what_is_observed_changes_no_row(spark, tmp_path):
    model = scorer()
    df = model.transform(stream(spark, tmp_path))
    query = observed(df, model).writeStream.format("memory").queryName("seen").trigger(availableNow=True).start()
    query.awaitTermination()
    assert spark.sql("SELECT count(*), count(why), count(prediction) FROM seen").first() == (400, 56, 344)


def test_a_query_that_is_not_observed_has_its_rows_and_its_error(spark, tmp_path):
    monitor = Waiting(jsonl=str(tmp_path / "events.jsonl"))
    listener = watch(spark, monitor)
    try:
        rows = stream(spark, tmp_path).selectExpr("CASE WHEN id = 399 THEN raise_error('no more') ELSE id END id")
        query = run(rows, tmp_path)
        with pytest.raises(Exception, match="no more"):
            query.awaitTermination()
        assert monitor.over.wait(30)
    finally:
        unwatch(spark, listener)
    status = monitor.status()
    assert status.rows in (0, 200), "one file of two is fine, whichever Spark takes first"
    assert status.versions == {}
    assert status.state == "failed"
    assert status.error


def test_an_alert_stops_a_query(spark, tmp_path):
    monitor = Waiting(alerts=[{"metric": "dead", "above": 0.01, "action": "stop"}])
    model = scorer()
    listener = watch(spark, monitor)
    try:
        query = run(
            observed(model.transform(stream(spark, tmp_path)), model), tmp_path, trigger={"processingTime": "0 seconds"}
        )
        assert query.awaitTermination(60)
        assert monitor.over.wait(30)
    finally:
        unwatch(spark, listener)
    assert monitor.failed.alert.text == "dead > 0.01"
    assert monitor.status().state == "stopped"


def test_bad_input(spark, tmp_path):
    model = scorer()
    df = stream(spark, tmp_path)
    with pytest.raises(ColumnNotFoundError, match="errorCol 'why'"):
        observed(df, model)
    with pytest.raises(ColumnNotFoundError, match="output 'prediction'"):
        observed(model.transform(df).select("x", "why"), model)
    with pytest.raises(InvalidParamError, match=r"takes a sparkdl\.stream"):
        watch(spark, "events.jsonl")
    with pytest.raises(StoreError, match="cannot be written"):
        watch(spark, Monitor(jsonl=str(tmp_path)))


def test_fit_keeps_what_drift_is_told_against(points):
    estimator = TorchEstimator(
        model=nn.Linear(4, 1), task="binary", labelCol="side", epochs=1, batchSize=64, numProc=1, verbose=False,
        validationFraction=0.25,
    )  # fmt: skip
    model = estimator.fit(points)
    reference = Reference.in_bundle(model.bundle)
    assert set(reference.features) == {
        *(f"features[{i}]" for i in range(4)),
        "prediction",
        "probability[0]",
        "probability[1]",
    }
    assert reference.rows == model.summary._training["rows"] < 400, "the rows that were trained on"
    rows = pa.table(
        {"features": pa.array([row[0] for row in points.select("features").collect()], pa.list_(pa.float32()))}
    )
    counter = reference.counter(model.signature)
    counter.add(rows.combine_chunks().to_batches()[0], {})
    assert all(drift.psi < 0.1 for drift in compare(reference, counter.counts))


def test_progress_without_a_batch_is_no_batch():
    assert report_of_progress({"id": "a", "durationMs": {"latestOffset": 3, "triggerExecution": 3}}) is None


@pytest.mark.skipif(
    importlib.util.find_spec("grpc_status") is None,
    reason="Spark Connect's client needs grpcio-status, not in this lane",
)
def test_connect(tmp_path):
    """The same over Spark Connect: the listener runs in the client."""
    command = [sys.executable, str(Path(__file__)), str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"[-6000:]
    assert json.loads(done.stdout.splitlines()[-1]).endswith("connect.session")


def main(folder: str) -> None:
    from pyspark.sql import SparkSession

    sys.path.insert(0, str(Path(__file__).parents[1]))
    from conftest import CONF

    builder = SparkSession.builder.config("spark.sql.warehouse.dir", f"{folder}/warehouse")
    for name, value in CONF.items():
        builder = builder.config(name, value)
    spark = builder.remote("local[2]").getOrCreate()
    try:
        check(*watched(spark, folder))
        print("\n" + json.dumps(type(spark).__module__), flush=True)
    finally:
        spark.stop()


if __name__ == "__main__":
    main(sys.argv[1])
