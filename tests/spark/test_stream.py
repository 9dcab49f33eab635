"""score_stream on a real session: each row once, one version a batch, dead letters, reload, restarts, bad input."""

import json
import os
import shutil
import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import functions as sf
from scale import DDL, Scale

import sparkdl
from sparkdl import Bundle, Signature, TensorSpec, TorchModel
from sparkdl.errors import (
    BundleNotFoundError,
    ColumnNotFoundError,
    DataError,
    InvalidParamError,
    RegistryError,
    SignatureError,
    SinkError,
    StreamError,
)

X = TensorSpec("features", "float32", (2,), ("features",), ("array<float>",))


def bundle_of(weight, spec=X):
    return Bundle.from_module(Scale(weight), Signature((spec,)))


@pytest.fixture
def place(tmp_path):
    """Folders of a stream: ``put(ids, …)`` lets a file arrive."""
    return Place(str(tmp_path))


class Place:
    def __init__(self, folder):
        self.folder, self.count = folder, 0
        os.makedirs(f"{folder}/in")
        self.sink, self.dead, self.checkpoint = f"{folder}/out", f"{folder}/dead", f"{folder}/checkpoint"

    def put(self, ids, features=None):
        features = features or [[float(number), 1.0] for number in ids]
        table = pa.table({"id": pa.array(ids, pa.int64()), "features": pa.array(features, pa.list_(pa.float32()))})
        pq.write_table(table, f"{self.folder}/arriving")
        self.count += 1
        os.rename(f"{self.folder}/arriving", f"{self.folder}/in/{self.count:06d}.parquet")

    def events(self, spark, files=1):
        return spark.readStream.schema(DDL).option("maxFilesPerTrigger", files).parquet(f"{self.folder}/in")

    def start(self, spark, model, events=None, **more):
        named = {"sink": sparkdl.sinks.Parquet(self.sink), "checkpoint": self.checkpoint, "deadLetter": self.dead}
        named |= {"trigger": "0 seconds"} | more
        return sparkdl.score_stream(events if events is not None else self.events(spark), model=model, **named)

    def run(self, spark, model, events=None, **more):
        """All that is there now; the status at the end."""
        query = self.start(spark, model, events, trigger="available now", **more)
        query.awaitTermination(120)
        return query.status()

    def rows(self, sink=None):
        table = pq.read_table(sink or self.sink)
        return sorted(table.to_pylist(), key=lambda row: row.get("id", 0)) if table.num_columns else []


@pytest.fixture
def registry(tmp_path):
    """With versions 1 and 2 of ``m``; the champion is 1."""
    made = sparkdl.Registry(str(tmp_path / "registry"))
    for weight in (1, 2):
        made.publish("m", bundle_of(weight))
    made.set_alias("m", "champion", 1)
    return made


def test_each_row_is_scored_once_or_a_dead_letter_and_a_restart_goes_on(spark, place):
    bundle = bundle_of(3)
    place.put([0, 1, 2], [[0.0, 1.0], None, [2.0]])
    place.put([3, 4])
    status = place.run(spark, bundle)
    assert (status.rows, status.scored, status.dead, status.batches) == (5, 3, {"null": 1, "shape": 1}, 2)
    place.put([5])
    assert place.run(spark, bundle).rows == 1
    assert place.run(spark, bundle).rows == 0
    rows = place.rows()
    assert [row["id"] for row in rows] == [0, 3, 4, 5]
    assert [row["prediction"] for row in rows] == [3.0, 12.0, 15.0, 18.0]
    assert {row["model_version"] for row in rows} == {bundle.digest[:12]}
    assert [(letter["kind"], letter["row"]["id"]) for letter in place.rows(place.dead)] == [("null", 1), ("shape", 2)]
    plain = spark.read.parquet(place.sink)
    assert sorted(row.id for row in plain.collect()) == [0, 3, 4, 5]
    helped = sparkdl.sinks.Parquet(place.sink).read(spark)
    assert sorted(helped.schema.names) == sorted(plain.schema.names)
    assert (
        helped.schema["features"].dataType
        == plain.schema["features"].dataType
        == place.events(spark).schema["features"].dataType
    )


def test_the_rows_are_those_of_transform(spark, place):
    model = TorchModel(bundle_of(0.1)).setParams(predictionCol="score")
    features = np.random.default_rng(0).normal(size=(300, 2)).astype(np.float32)
    place.put(list(range(300)), features.tolist())
    place.run(spark, model, columns=["id"])
    expected = {row.id: row.score for row in model.transform(spark.read.parquet(f"{place.folder}/in")).collect()}
    rows = place.rows()
    assert set(rows[0]) == {"id", "score", "model_version", "batch"}
    assert {row["id"]: row["score"] for row in rows} == pytest.approx(expected)


def test_a_batch_has_one_version_and_a_new_one_comes_in_while_the_query_runs(spark, place, registry):
    query = place.start(spark, "registry://m@champion", registry=registry, name="reloading")
    try:
        place.put([0])
        query.processAllAvailable()
        registry.set_alias("m", "champion", 2)
        ids = iter(range(1, 400))
        while query.status().version != "2":
            place.put([next(ids)])
            query.processAllAvailable()
    finally:
        query.stop()
    rows = place.rows()
    assert rows[0]["model_version"] == "1"
    assert rows[-1]["model_version"] == "2"
    versions = [row["model_version"] for row in rows]
    assert versions == sorted(versions)
    assert all(row["prediction"] == (row["id"] + 1.0) * int(row["model_version"]) for row in rows)
    by_batch = {}
    for row in rows:
        by_batch.setdefault(row["batch"], set()).add(row["model_version"])
    assert all(len(found) == 1 for found in by_batch.values())


def damaged(registry, tmp_path):
    registry.publish("m", bundle_of(5))
    digest = registry.load("m", 3).digest
    weights = tmp_path / "registry" / "bundles" / digest / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")


def other_signature(registry, tmp_path):
    registry.publish("m", bundle_of(5, TensorSpec("features", "float32", (3,), ("features",), ("array<float>",))))


def gives_nan(registry, tmp_path):
    registry.publish("m", bundle_of(float("nan")))


@pytest.mark.parametrize("worse", [damaged, other_signature, gives_nan])
def test_a_bad_version_is_refused_and_the_old_one_goes_on(spark, place, registry, tmp_path, worse):
    worse(registry, tmp_path)
    query = place.start(spark, "registry://m@champion", registry=registry)
    try:
        place.put([0])
        query.processAllAvailable()
        registry.set_alias("m", "champion", 3)
        ids = iter(range(1, 400))
        while not query.status().refused:
            place.put([next(ids)])
            query.processAllAvailable()
        assert "3" in query.status().refused
        assert "3" in str(query.status())
        registry.set_alias("m", "champion", 2)
        while query.status().version != "2":
            place.put([next(ids)])
            query.processAllAvailable()
    finally:
        query.stop()
    assert {row["model_version"] for row in place.rows()} == {"1", "2"}


class Interrupted(sparkdl.sinks.Parquet):
    """Ends the query before, or after, a batch is committed."""

    def __init__(self, uri, when):
        super().__init__(uri)
        self.when = when

    def commit(self, spark, staged):
        if self.when == "after":
            super().commit(spark, staged)
        raise OSError("the disk is full")


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_batch_that_was_cut_off_at_its_commit_is_ended_with_its_own_version(spark, place, registry, when):
    place.put([0, 1], [[0.0, 1.0], None])
    with pytest.raises(StreamError, match="batch 0 failed"):
        place.run(spark, "registry://m@champion", registry=registry, sink=Interrupted(place.sink, when))
    registry.set_alias("m", "champion", 2)
    place.put([2])
    status = place.run(spark, "registry://m@champion", registry=registry)
    assert (status.rows, status.replayed, status.versions) == (3, 1, {"1": 1, "2": 1})
    assert [(row["id"], row["model_version"]) for row in place.rows()] == [(0, "1"), (2, "2")]
    assert [letter["row"]["id"] for letter in place.rows(place.dead)] == [1]


def test_a_function_that_was_called_is_called_again_with_the_same_rows(spark, place, registry):
    """The query ends between the two commits; the source then has other rows, and the alias another version."""
    seen = []

    def keep(df, batch_id):
        seen.append((batch_id, sorted((row.id, row.prediction) for row in df.collect())))

    place.put([0, 1], [[0.0, 1.0], None])
    named = {"sink": sparkdl.sinks.foreach(keep), "registry": registry}
    with pytest.raises(StreamError, match="the disk is full"):
        place.run(spark, "registry://m@champion", deadLetter=Interrupted(place.dead, "before"), **named)
    registry.set_alias("m", "champion", 2)
    place.put([5])
    place.run(spark, "registry://m@champion", **named)
    place.run(spark, "registry://m@champion", **named)
    assert seen[:2] == [(0, [(0, 1.0)])] * 2
    assert [batch for batch, _ in seen] == [0, 0, 1]
    assert [letter["row"]["id"] for letter in place.rows(place.dead)] == [1]


def test_what_attempts_left_beside_the_checkpoint_is_removed_once_their_batch_is_done(spark, place):
    left = f"{place.checkpoint}/sparkdl/staged"
    sink = sparkdl.sinks.foreach(lambda df, batch_id: None)
    for number in range(3):
        place.put([number])
        place.run(spark, bundle_of(1), sink=sink)
        os.makedirs(f"{left}/{number}-{'0' * 32}")
        assert {int(name.split("-")[0]) for name in os.listdir(left)} == {number}


def test_what_ends_a_query_in_its_own_threads_is_told(spark, place, monkeypatch):
    from sparkdl.stream import rate

    monkeypatch.setattr(rate, "FIRST", 1)
    asked = []

    def events(rows):
        asked.append(rows)
        if len(asked) > 1:
            raise OSError("no such topic")
        return place.events(spark)

    for number in range(5):
        place.put([number])
    query = place.start(spark, bundle_of(1), events)
    with pytest.raises(StreamError, match="no such topic"):
        query.awaitTermination(60)
    assert not query.isActive
    assert query.status().state == "failed"
    place.run(spark, bundle_of(1))  # the checkpoint is free
    assert [row["id"] for row in place.rows()] == list(range(5))


def test_a_batch_that_fails_while_it_is_told_to_stop_is_told(spark, place):
    began, go = threading.Event(), threading.Event()

    def fail(df, batch_id):
        began.set()
        go.wait(60)
        raise OSError("no more room")

    place.put([0])
    query = place.start(spark, bundle_of(1), sink=sparkdl.sinks.foreach(fail))
    assert began.wait(60)
    stopping = threading.Timer(0.5, go.set)
    stopping.start()
    with pytest.raises(StreamError, match="no more room"):
        query.stop()


def test_a_version_that_is_gone_is_not_replaced_by_another_one(spark, place, registry, tmp_path):
    place.put([0])
    with pytest.raises(StreamError):
        place.run(spark, "registry://m@champion", registry=registry, sink=Failing(place.sink))
    shutil.rmtree(tmp_path / "registry/m/versions/1")
    registry.set_alias("m", "champion", 2)
    with pytest.raises(StreamError, match="begun with version '1'"):
        place.run(spark, "registry://m@champion", registry=registry)


class Failing(sparkdl.sinks.Parquet):
    """Cannot be written."""

    def staging(self, scratch, query, batch):
        return "/proc/no/such/place"


def test_champion_and_challenger(spark, place, registry):
    registry.set_alias("m", "challenger", 2)
    place.put(list(range(400)))
    model, other = "registry://m@champion", "registry://m@challenger"
    status = place.run(spark, model, registry=registry, challenger=other, share=0.25, shareBy="id")
    rows = place.rows()
    assert status.versions == {"1": 400 - status.versions["2"], "2": status.versions["2"]}
    assert 60 < status.versions["2"] < 140
    for row in rows:
        assert row["prediction"] == (row["id"] + 1.0) * int(row["model_version"])
        assert row["other_prediction"] == (row["id"] + 1.0) * int(row["other_version"])
        assert {row["model_version"], row["other_version"]} == {"1", "2"}
    assert status.compared["prediction.distance"] == pytest.approx(200.5)
    shares = {row["id"]: row["model_version"] for row in rows}
    place.put(list(range(400)))  # the same keys go to the same model
    place.run(spark, model, registry=registry, challenger=other, share=0.25, shareBy="id")
    assert {row["id"]: row["model_version"] for row in place.rows() if "-000000000001" in row["batch"]} == shares


def test_what_is_upstream_stays_what_it_is(spark, place):
    """A join with a table, a watermark, a stateful operator, a vector made before the model."""
    from pyspark.ml.functions import array_to_vector

    names = spark.createDataFrame([(number, f"name {number}") for number in range(10)], "id bigint, name string")
    place.put([0, 1, 2, 1])
    place.put([2, 3])
    events = place.events(spark).withColumn("at", sf.timestamp_seconds(sf.col("id") + 1_000_000))
    events = events.withWatermark("at", "1 hour").dropDuplicates(["id", "at"]).join(names, "id")
    bundle = bundle_of(2, TensorSpec("features", "float32", (2,), ("features",), ("vector",)))
    events = events.withColumn("features", array_to_vector(sf.col("features").cast("array<double>")))
    place.run(spark, bundle, events, columns=["id", "name", "at"])
    rows = place.rows()
    assert [(row["id"], row["name"], row["prediction"]) for row in rows] == [
        (number, f"name {number}", (number + 1) * 2.0) for number in range(4)
    ]
    assert spark.read.parquet(place.sink).schema["at"].dataType.simpleString() == "timestamp"


@pytest.mark.parametrize("when", ["before", "after"])
def test_the_state_of_a_batch_that_was_cut_off_at_its_commit_is_not_lost(spark, place, when):
    def events():
        return (
            place.events(spark)
            .withColumn("at", sf.timestamp_seconds(sf.col("id") + 1_000_000))
            .withWatermark("at", "1 hour")
            .dropDuplicates(["id", "at"])
        )

    place.put([0, 1])
    place.run(spark, bundle_of(1), events())
    place.put([1, 2])
    with pytest.raises(StreamError, match="the disk is full"):
        place.run(spark, bundle_of(1), events(), sink=Interrupted(place.sink, when))
    place.put([2, 3])
    place.run(spark, bundle_of(1), events())
    assert [row["id"] for row in place.rows()] == [0, 1, 2, 3]


def test_two_queries_in_one_session_keep_their_models(spark, place, tmp_path):
    other = Place(str(tmp_path / "other"))
    queries = [place.start(spark, bundle_of(1)), other.start(spark, bundle_of(2))]
    try:
        for number in range(3):
            for where, query in zip((place, other), queries, strict=True):
                where.put([number])
                query.processAllAvailable()
    finally:
        for query in queries:
            query.stop()
    assert [row["prediction"] for row in place.rows()] == [1.0, 2.0, 3.0]
    assert [row["prediction"] for row in other.rows()] == [2.0, 4.0, 6.0]


def test_rows_a_batch_follow_what_was_measured(spark, place, monkeypatch):
    from sparkdl.stream import rate

    monkeypatch.setattr(rate, "FIRST", 10)
    for number in range(40):
        place.put([number])
    asked = []

    def events(rows):
        asked.append(rows)
        return place.events(spark, files=min(rows, 10))

    query = place.start(spark, bundle_of(1), events)
    ids = iter(range(40, 1000))
    try:
        while len(asked) < 2:
            query.processAllAvailable()
            place.put([next(ids)])
        query.processAllAvailable()
    finally:
        query.stop()
    assert asked[0] == 10
    assert asked[1] >= 20
    assert [row["id"] for row in place.rows()] == list(range(next(ids)))
    with open(f"{place.checkpoint}/sparkdl/bound.json") as file:
        assert json.load(file) == {"rows": asked[-1]}


def test_stop_waits_for_the_end_of_the_batch_and_the_checkpoint_is_free_then(spark, place):
    began, go = threading.Event(), threading.Event()

    def wait(df, batch_id):
        began.set()
        go.wait(60)

    place.put([0])
    query = place.start(spark, bundle_of(1), sink=sparkdl.sinks.foreach(wait))
    assert began.wait(60)
    with pytest.raises(StreamError, match="another query runs on the checkpoint"):
        place.start(spark, bundle_of(1), sink=sparkdl.sinks.foreach(wait))
    assert not query.awaitTermination(0.1)
    stopping = threading.Thread(target=query.stop)
    stopping.start()
    go.set()
    stopping.join(60)
    assert not query.isActive
    assert query.exception() is None
    assert query.status().batches == 1
    place.run(spark, bundle_of(1), sink=sparkdl.sinks.foreach(wait))


def test_without_dead_letters_a_bad_row_ends_the_query_or_is_left_out(spark, place):
    place.put([0, 1], [[0.0, 1.0], None])
    with pytest.raises(DataError, match=r"batch 0: .*features"):
        place.run(spark, bundle_of(1), deadLetter=None)
    status = place.run(spark, bundle_of(1), deadLetter=None, settings={"handleInvalid": "skip"})
    assert (status.scored, status.skipped) == (1, 1)
    assert [row["id"] for row in place.rows()] == [0]


def test_bad_input_is_refused_before_the_start(spark, place, registry, tmp_path):
    bundle = bundle_of(1)
    table = spark.createDataFrame([(1, [1.0, 2.0])], DDL)

    def refused(error, match, model=bundle, **more):
        with pytest.raises(error, match=match):
            place.start(spark, model, **more)
        assert not os.path.exists(place.checkpoint)

    refused(InvalidParamError, "score a table with score_table", events=table)
    refused(InvalidParamError, "'events' must be a streaming", events=[1])
    interval = place.events(spark).withColumn("span", sf.expr("make_interval(0, 1)"))
    refused(SignatureError, r"interval.*cast it, or drop it", events=interval)
    refused(InvalidParamError, "'sink' must be one of sparkdl.sinks", sink=place.sink)
    refused(InvalidParamError, "'trigger' must be a time", trigger="often")
    refused(InvalidParamError, "'checkpoint' must be the URI", checkpoint=None)
    refused(InvalidParamError, "'outputMode'", outputMode="complete")
    refused(InvalidParamError, "'model' must be", model=3)
    refused(BundleNotFoundError, "", model=str(tmp_path / "nowhere"))
    refused(RegistryError, "campion.*did you mean 'champion'", model="registry://m@campion", registry=registry)
    refused(RegistryError, "did you mean 'm'", model="registry://mm", registry=registry)
    refused(RegistryError, "no registry is configured", model="registry://m")
    refused(InvalidParamError, "did you mean 'predictionCol'", settings={"predictioncol": "p"})
    refused(
        ColumnNotFoundError,
        "did you mean 'featurse'",
        events=place.events(spark).withColumnRenamed("features", "featurse"),
    )
    refused(ColumnNotFoundError, "in columns, column 'idd'", columns=["idd"])
    refused(SignatureError, "'prediction' already", events=place.events(spark).withColumn("prediction", sf.lit(1)))
    refused(SignatureError, "model_version", events=place.events(spark).withColumn("model_version", sf.lit(1)))
    refused(InvalidParamError, "'share' must be a number from 0 to 1", share=2)
    refused(InvalidParamError, "'challenger' is not given", share=0.1)
    refused(InvalidParamError, "'shareBy' is not given", share=0.1, challenger=bundle_of(2))
    refused(ColumnNotFoundError, "shareBy 'key'", share=0.1, shareBy="key", challenger=bundle_of(2))
    refused(SinkError, "'sink', .* and 'deadLetter', .* lie in one another", deadLetter=place.sink)
    refused(SinkError, "'sink', .* and 'deadLetter', .* lie in one another", deadLetter=f"file://{place.sink}/dead")
    refused(SinkError, "'sink', .* and 'checkpoint', .* lie in one another", checkpoint=f"{place.sink}/checkpoint")
    refused(InvalidParamError, "'deadLetter' must be", deadLetter=3)
    wider = TensorSpec("features", "float32", (3,), ("features",), ("array<float>",))
    refused(SignatureError, "one signature", challenger=bundle_of(1, wider))


def test_a_checkpoint_belongs_to_its_query(spark, place, registry):
    place.put([0])
    place.run(spark, "registry://m@champion", registry=registry)
    with pytest.raises(StreamError, match="another model"):
        place.run(spark, bundle_of(1))
    with pytest.raises(StreamError, match="another sink"):
        place.run(spark, "registry://m", registry=registry, sink=sparkdl.sinks.Parquet(place.sink + "2"))
    with pytest.raises(SinkError, match=r"another schema.*'id'"):
        place.run(spark, "registry://m", registry=registry, columns=["features"])
    place.run(spark, "registry://m/2", registry=registry)  # another version is the same model
