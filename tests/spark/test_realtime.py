"""score_stream record by record: what it answers, what it buries, what it goes on with, and what it refuses to begin."""

import contextlib
import itertools
import json
import re
import threading
import time
import uuid

import kafka
import numpy as np
import pytest
import torch
from pyspark.sql import functions as sf
from torch import nn

import sparkdl
from sparkdl import Bundle, Signature, TensorSpec, connectors
from sparkdl.conf import ScoreStreamConf
from sparkdl.errors import GraphError, InvalidParamError, RealtimeError, SignatureError, SinkError, StreamError
from sparkdl.payloads import JSON
from sparkdl.preprocess import Image
from sparkdl.realtime import checks
from sparkdl.realtime import query as running
from sparkdl.sinks import Kafka, Parquet
from sparkdl.stream import configured, records

if kafka.lane() != "latest":
    pytest.skip("Spark's real-time mode reads Kafka since 4.3", allow_module_level=True)

X = TensorSpec("x", "float32", (2,), ("x",), ("array<float>",))
PAYLOAD = JSON("id bigint, x array<float>")
IN_PYTHON = TensorSpec("x", "float32", (3, 4, 4), ("x",), ("binary",), preprocess=Image(height=4, width=4))
PATIENCE_S = 60


class Root(nn.Module):
    """Of the features' weighted sum: NaN below zero."""

    def __init__(self, weight=1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, x):
        return torch.sqrt(self.weight * x.sum(dim=1))


def bundle_of(weight=1.0, spec=X):
    return Bundle.from_module(Root(weight), Signature((spec,)))


def until(true, query=None):
    """Wait for it, as long as the query runs."""
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        if query is not None and query.exception() is not None:
            raise query.exception()
        assert time.monotonic() < deadline, f"not within {PATIENCE_S} s; the query: {query!r}"
        threading.Event().wait(0.05)


class Live:
    """A query from topic ``source`` to ``out`` and ``dead``, and what goes through."""

    def __init__(self, spark, broker, folder):
        self.spark, self.broker, self.folder = spark, broker, folder
        mark = uuid.uuid4().hex[:8]
        self.source, self.out, self.dead = (broker.create_topic(f"{name}-{mark}") for name in ("in", "out", "dead"))
        self.sink = Kafka(broker.servers, self.out, key="id")
        self.queries = []

    def start(self, model, **more):
        named = {
            "events": self.broker.stream(self.spark, self.source), "sink": self.sink, "payload": PAYLOAD, "columns": ["id"],
            "checkpoint": str(self.folder / "checkpoint"), "mode": "realtime",
            "deadLetter": Kafka(self.broker.servers, self.dead),
        }  # fmt: skip
        self.queries.append(sparkdl.score_stream(**{**named, "model": model, **more}))
        return self.queries[-1]

    @contextlib.contextmanager
    def running(self, model, **more):
        query = self.start(model, **more)
        try:
            yield query
        finally:
            query.stop()

    def put(self, *values, key=None):
        """Returns where the first of them lies."""
        first = self.broker.count(self.source)
        with self.broker.sender(self.spark) as send:
            for value in values:
                send(self.source, value if value is None or isinstance(value, str) else json.dumps(value), key)
        return first

    def answered(self, count, query=None):
        """The records of ``out`` and ``dead``, once there are so many or more of both."""
        until(lambda: self.broker.count(self.out) + self.broker.count(self.dead) >= count, query)
        return [record for topic in (self.out, self.dead) for record in self.read(topic)]

    def read(self, topic):
        return [Record(row) for row in self.broker.read(self.spark, topic).sort("offset").collect()]


class Record:
    def __init__(self, row):
        self.topic, self.key = row.topic, row.key and bytes(row.key).decode()
        self.value = row.value if row.value is None else bytes(row.value).decode()
        self.headers = {header.key: header.value.decode() for header in row.headers or () if header}

    @property
    def offset(self):
        """Of the record that it answers."""
        return int(self.headers["sparkdl-id"].rpartition("-")[2])


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    """Versions 1 and 2 of model ``root``, by alias ``champion``, and two that cannot take over: 3 reads other columns,
    4 needs Python."""
    made = sparkdl.Registry(str(tmp_path_factory.mktemp("registry")))
    made.publish("root", bundle_of(1.0))
    made.publish("root", bundle_of(4.0))
    other = TensorSpec("x", "float32", (2,), ("z",), ("array<float>",))
    made.publish("root", bundle_of(1.0, other))
    made.publish("root", Bundle.from_module(Root(), Signature((IN_PYTHON,))))
    made.set_alias("root", "champion", 1)
    return made


@pytest.fixture
def live(spark, broker, tmp_path):
    made = Live(spark, broker, tmp_path)
    yield made
    for query in made.queries:
        with contextlib.suppress(StreamError):  # it has been raised
            query.stop()
    for topic in (made.source, made.out, made.dead):
        broker.delete_topic(topic)


GOOD = [{"id": number, "x": [number, 0.25]} for number in range(20)]
BAD = {
    "rubbish": "unparsable: column 'value' is no JSON of bigint id, array<float> x: rubbish",
    json.dumps({"id": 90, "x": [1.0]}): "shape: column 'x': expected 2 values, got 1 values",
    json.dumps({"id": 91, "x": None}): "null: column 'x': expected float32[2], got None",
    json.dumps({"id": 92}): "null: column 'x': expected float32[2], got None",
    json.dumps({"id": 93, "x": [-1.0, 0.0]}): "non-finite: ",
}


def test_each_record_is_scored_or_a_dead_letter_with_key_and_headers(live):
    bundle = bundle_of()
    with live.running(bundle, name="roots") as query:
        live.put(*GOOD, key=b"\x01\xff")
        live.put(*BAD, None, key="as it came")
        records = live.answered(26, query)
        assert (query.mode, query.name, query.isActive, query.exception()) == ("realtime", "roots", True, None)
        assert query.status().state == "running"
        assert query.awaitTermination(0.1) is False
    assert not query.isActive
    scored, letters = ([record for record in records if record.topic == topic] for topic in (live.out, live.dead))
    assert [record.offset for record in scored] == list(range(20))
    expected = bundle.predict({"x": np.array([row["x"] for row in GOOD], np.float32)})["prediction"]
    for row, record, answer in zip(GOOD, scored, expected, strict=True):
        told = json.loads(record.value)
        assert told == {
            "id": row["id"],
            "prediction": pytest.approx(float(answer)),
            "model_version": bundle.digest[:12],
        }
        assert record.key == str(row["id"])
        assert record.headers.pop("sparkdl-source-time").isdigit()
        assert record.headers == {
            "sparkdl-id": f"{live.source}-0-{row['id']}",
            "sparkdl-query": query.id,
            "sparkdl-model-version": bundle.digest[:12],
        }
    assert [record.value for record in letters] == [*BAD, None]
    assert {record.key for record in letters} == {"as it came"}
    for record, reason in zip(letters, BAD.values(), strict=False):
        assert record.headers["sparkdl-reason"].startswith(reason)
    assert letters[-1].headers["sparkdl-reason"].startswith("unparsable: column 'value' is null")


@pytest.mark.parametrize(("invalid", "ids"), [("skip", [1, 2]), ("keep", [1, None, 90, 93, 2])])
def test_what_cannot_be_scored_is_skipped_or_kept_without_a_topic_for_it(live, invalid, ids):
    live.put({"id": 1, "x": [4, 0]}, "rubbish", {"id": 90, "x": [1]}, {"id": 93, "x": [-1, 0]}, {"id": 2, "x": [9, 0]})
    with live.running(bundle_of(), deadLetter=None, settings={"handleInvalid": invalid}) as query:
        values = [json.loads(record.value) for record in live.answered(len(ids), query)]
    assert [value["id"] for value in values] == ids
    assert [value["prediction"] for value in values] == [{1: 2.0, 2: 3.0}.get(id) for id in ids]
    told = [record.headers.get("sparkdl-reason", "").split(":")[0] for record in live.read(live.out)]
    assert told == [{1: "", None: "unparsable", 90: "shape", 93: "non-finite", 2: ""}[id] for id in ids]


def limit(live, topic, nbytes):
    """Let a topic take so long messages only."""
    jvm, admins = live.spark._jvm, live.spark._jvm.org.apache.kafka.clients.admin
    kind = getattr(jvm, "org.apache.kafka.common.config.ConfigResource$Type").TOPIC
    resource = jvm.org.apache.kafka.common.config.ConfigResource(kind, topic)
    to = getattr(jvm, "org.apache.kafka.clients.admin.AlterConfigOp$OpType").SET
    told = admins.AlterConfigOp(admins.ConfigEntry("max.message.bytes", str(nbytes)), to)
    collections = jvm.java.util.Collections
    with connectors.kafka_admin(live.spark, live.broker.servers, {}) as admin:
        admin.incrementalAlterConfigs(collections.singletonMap(resource, collections.singletonList(told))).all().get()


@pytest.mark.parametrize("invalid", ["error", "keep"])
def test_what_is_too_large_is_cut_short_and_the_query_goes_on(live, invalid):
    long, wide = "x" * 1_048_400, {"id": 1, "x": [9.0, 0.0], "text": "y" * 10_000}
    limit(live, live.out, 10_000)
    limit(live, live.dead, 1_048_588)  # Kafka's default, which ``long`` and its headers are beyond
    more = {"deadLetter": None} if invalid == "keep" else {}
    payload = JSON("id bigint, x array<float>, text string")
    told = {"payload": payload, "columns": ["id", "text"], "settings": {"handleInvalid": invalid}}
    with live.running(bundle_of(), **told, **more) as query:
        live.put(long, wide, {"id": 2, "x": [4.0, 0.0]}, key="k")
        records = {record.offset: record for record in live.answered(3, query)}
        assert query.restarts == 0
    reasons = [records[offset].headers.get("sparkdl-reason", "") for offset in range(3)]
    size = r"too large: \d+ bytes, and the topic"
    assert json.loads(records[2].value)["id"] == 2
    assert reasons[2] == ""
    if invalid == "keep":
        assert reasons[0].startswith("unparsable: ")
        assert (records[1].key, records[1].value) == ("1", None)
    else:
        assert re.match(rf"{size} {live.dead} takes 1046540; unparsable: ", reasons[0])
        assert (records[0].key, records[0].value) == ("k", None)
        assert (records[1].key, records[1].value) == ("k", json.dumps(wide))
    assert re.match(rf"{size} {live.out} takes 7952", reasons[1])


@pytest.mark.parametrize("key", ["prediction", "model_version"])
def test_the_key_may_be_an_answer_and_fields_are_called_as_the_source_s_columns(live, key):
    payload = JSON("timestamp bigint, offset string, x array<float>")
    events = stream(live)
    events.createOrReplaceTempView("live")
    bundle = bundle_of()
    told = {"events": live.spark.sql("select * from live"), "payload": payload, "columns": None}
    with live.running(bundle, sink=Kafka(live.broker.servers, live.out, key=key), **told) as query:
        live.put({"timestamp": 7, "offset": "here", "x": [4.0, 0.0]})
        (record,) = live.answered(1, query)
    value = json.loads(record.value)
    assert (value["timestamp"], value["offset"], record.offset) == (7, "here", 0)
    assert record.key == {"prediction": "2.0", "model_version": bundle.digest[:12]}[key]


def test_versions_come_in_while_records_flow_and_one_that_does_not_fit_stays_out(live, registry):
    flowing, told_to_end, moves = [], threading.Event(), ["1", "2", "1", "2"]
    registry.set_alias("root", "champion", 1)

    def flow():
        with live.broker.sender(live.spark) as send:
            while not told_to_end.wait(0.005):
                flowing.append(len(flowing))
                send(live.source, json.dumps({"id": flowing[-1], "x": [flowing[-1], 0]}))

    def scored_by(version):
        return [record for record in live.read(live.out)[-1:] if record.headers["sparkdl-model-version"] == version]

    with live.running("registry://root@champion", registry=registry) as query:
        sending = threading.Thread(target=flow)
        sending.start()
        try:
            until(lambda: scored_by("1"), query)
            for version in moves[1:]:
                registry.set_alias("root", "champion", int(version))
                until(lambda version=version: scored_by(version), query)
            assert query.status().version == moves[-1]
            registry.set_alias("root", "champion", 3)
            until(lambda: "3" in query.status().refused, query)
            registry.set_alias("root", "champion", 4)
            until(lambda: "4" in query.status().refused, query)
            after = live.broker.count(live.out)
            until(lambda: live.broker.count(live.out) > after + 5, query)
        finally:
            told_to_end.set()
            sending.join()
        records = live.answered(len(flowing), query)
        refused = query.status().refused
    assert [record.offset for record in records] == flowing
    versions = [record.headers["sparkdl-model-version"] for record in records]
    assert [version for version, _ in itertools.groupby(versions)] == moves
    for record in records:
        number, told = record.offset, json.loads(record.value)
        assert told["model_version"] == record.headers["sparkdl-model-version"]
        assert told["prediction"] == pytest.approx((number * (1.0 if told["model_version"] == "1" else 4.0)) ** 0.5)
    assert "has columns ('z',)" in refused["3"]
    assert "Image, which reads column 'x', runs in Python only" in refused["4"]


def test_a_query_goes_on_where_it_stopped_and_starts_again_by_itself(live, registry, tmp_path):
    registry.set_alias("root", "champion", 2)
    started = {"model": "registry://root@champion", "registry": registry}
    with live.running(**started) as query:
        live.put(*GOOD[:10])
        live.answered(10, query)
        live.spark.sparkContext.cancelAllJobs()
        until(lambda: query.restarts == 1, query)
        live.put(*GOOD[10:])
        until(lambda: {record.offset for record in live.read(live.out)} == set(range(20)), query)
        assert (query.isActive, query.exception()) == (True, None)
        assert re.search("starts again after 1 s, for the query failed: .*cancelled", query.status().trouble)
    registry.set_alias("root", "champion", 3)
    live.put({"id": 20, "x": [4, 0]})
    with live.running(**started) as again:
        until(lambda: {record.offset for record in live.read(live.out)} == set(range(21)), again)
        assert again.id == query.id
        assert again.status().version == "2"
        assert "3" in again.status().refused
    answers = {}
    for record in live.read(live.out):
        answers.setdefault(record.headers["sparkdl-id"], set()).add((record.key, record.value))
    assert len(answers) == 21
    assert all(len(same) == 1 for same in answers.values())
    with pytest.raises(StreamError, match="model"):
        live.start(bundle_of(9.0))
    with pytest.raises(StreamError, match="sink"):
        live.start(**started, sink=Kafka(live.broker.servers, live.dead))
    registry.set_alias("root", "champion", 2)
    with pytest.raises(StreamError, match="mode"):
        live.start(**started, mode="microbatch", trigger="available now")


def test_a_query_that_cannot_go_on_tells_what_of(live, monkeypatch):
    monkeypatch.setattr(running, "GIVE_UP_AFTER_S", 0)
    query = live.start(bundle_of())
    live.put(GOOD[1])
    live.answered(1, query)
    live.spark.sparkContext.cancelAllJobs()
    with pytest.raises(StreamError, match=r"the query failed: .*cancelled"):
        query.awaitTermination(PATIENCE_S)
    assert not query.isActive
    assert query.status().state == "failed"
    with pytest.raises(StreamError, match="cancelled"):
        query.stop()
    assert query.exception() is not None


def test_what_spark_refuses_is_not_begun_again(live, monkeypatch):
    monkeypatch.setattr(checks, "_check_plan", lambda *_: None)
    query = live.start(bundle_of(), events=stream(live).coalesce(1))
    live.put(GOOD[1])
    with pytest.raises(StreamError, match=r"the query failed: .*STREAMING_REAL_TIME_MODE"):
        query.awaitTermination(PATIENCE_S)
    assert query.restarts == 0


def rate(live):
    return live.spark.readStream.format("rate").load()


def files(live):
    return live.spark.readStream.schema("value string").text(str(live.folder))


def stream(live, topic=None, **options):
    return live.broker.stream(live.spark, topic or live.source, **options)


REFUSED = {
    "a rate source": (RealtimeError, "come from 1 source.s., the first of them rate", lambda live: {"events": rate(live)}),
    "files": (RealtimeError, "the first of them FileSource", lambda live: {"events": files(live)}),
    "two sources": (RealtimeError, "2 source", lambda live: {"events": stream(live).union(stream(live))}),
    "no position": (
        RealtimeError, r"lack the columns \['offset', 'timestamp'\].*parse them by payload=",
        lambda live: {"events": stream(live).drop("offset", "timestamp")},
    ),
    "counts": (
        RealtimeError, "the events have the operator Aggregate",
        lambda live: {"events": stream(live).groupBy(*checks.COLUMNS).count()},
    ),
    "Python": (
        RealtimeError, "the events have a function in Python",
        lambda live: {"events": stream(live).where(sf.udf(bool, "boolean")("offset"))},
    ),
    "a function": (RealtimeError, "'events' is a function of a number of rows", lambda live: {"events": lambda rows: stream(live)}),
    "a table": (InvalidParamError, "must be a streaming DataFrame", lambda live: {"events": live.spark.range(1)}),
    "no topic to read": (RealtimeError, "no topic.* 'nowhere'", lambda live: {"events": stream(live, "nowhere")}),
    "no topic to write": (SinkError, "no topic 'nowhere'", lambda live: {"sink": Kafka(live.broker.servers, "nowhere")}),
    "too few slots": (
        RealtimeError, r"4 partitions, .* the session has 2: start it with --master local\[4\]",
        lambda live: {"events": stream(live, minPartitions="4")},
    ),
    "a step in Python": (
        GraphError, "Image, which reads column 'x', runs in Python only; .*mode='microbatch'",
        lambda live: {"model": Bundle.from_module(Root(), Signature((IN_PYTHON,))), "payload": JSON("id bigint, x binary")},
    ),
    "a trigger": (
        RealtimeError, "'trigger' must be a time of 5 seconds or more, .*got 'available now'",
        lambda live: {"trigger": "available now"},
    ),
    "no such column": (SignatureError, "'x'", lambda live: {"payload": JSON("id bigint")}),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_before_it_starts(live, case):
    kind, words, told = REFUSED[case]
    with pytest.raises(kind, match=words):
        live.start(**{"model": bundle_of(), **told(live)})
    assert not live.spark.streams.active
    checkpoint = live.folder / "checkpoint"
    assert not (checkpoint / "sparkdl/query.json").exists(), "the checkpoint is nobody's"
    with records.locked(str(checkpoint)):
        pass


def test_brokers_that_do_not_answer_are_told(live, monkeypatch):
    monkeypatch.setattr(connectors, "ANSWER_S", 1)
    nowhere = f"127.0.0.1:{kafka.free_ports(1)[0]}"
    with pytest.raises(SinkError, match=f"{nowhere}: the brokers do not answer"):
        live.start(bundle_of(), sink=Kafka(nowhere, live.out), deadLetter=Kafka(nowhere, live.dead))
    with pytest.raises(RealtimeError, match=f"the source's brokers at {nowhere} do not answer"):
        live.start(bundle_of(), events=stream(live, **{"kafka.bootstrap.servers": nowhere}))


def test_auto_takes_no_passing_trouble_for_its_answer(live, monkeypatch):
    monkeypatch.setattr(connectors, "ANSWER_S", 1)
    nowhere = f"127.0.0.1:{kafka.free_ports(1)[0]}"
    with pytest.raises(RealtimeError, match="do not answer"):
        live.start(bundle_of(), mode="auto", events=stream(live, **{"kafka.bootstrap.servers": nowhere}))
    assert records.mode(str(live.folder / "checkpoint")) is None


def test_a_job_s_dry_run_checks_what_needs_no_start(live):
    def told(**more):
        topic = {"kind": "kafka", "servers": live.broker.servers}
        made = {
            "model": "root", "source": {"format": "kafka"}, "checkpoint": str(live.folder), "mode": "realtime",
            "sink": {**topic, "topic": live.out}, "deadLetter": {**topic, "topic": live.dead},
            "payload": {"format": "json", "schema": PAYLOAD.schema}, "columns": ["id"],
        }  # fmt: skip
        return ScoreStreamConf.model_validate({**made, **more})

    model = sparkdl.TorchModel(bundle_of())
    rows = configured.check(stream(live), told(), model)
    assert [field["name"] for field in rows["fields"]] == ["id", "prediction", "model_version"]
    for more, words in (({"deadLetter": None}, "one bad record"), ({"trigger": "1 second"}, "'trigger'")):
        with pytest.raises(RealtimeError, match=words):
            configured.check(stream(live), told(**more), model)
    with pytest.raises(RealtimeError, match="4 partitions"):
        configured.check(stream(live, minPartitions="4"), told(), model)


def test_a_mistyped_login_is_told_without_its_secret(live):
    login = {
        "kafka.security.protocol": "SASL_PLAINTEXT", "kafka.sasl.mechanism": "PLAIN",
        "kafka.sasl.jaas.config": "PlainLoginModule HUNTER2 required;",
    }  # fmt: skip
    with pytest.raises(RealtimeError, match=r"no client of these settings: .*see the options .*jaas") as told:
        live.start(bundle_of(), events=stream(live, **login))
    assert "HUNTER2" not in str(told.value)


def test_auto_is_micro_batches_where_real_time_cannot_be_and_says_so(live, tmp_path, caplog):
    with live.running(bundle_of(), mode="auto", sink=Parquet(str(tmp_path / "rows")), deadLetter=None) as query:
        assert query.mode == "microbatch"
    assert "scored by micro-batches: real time is not to be had: the sink is Parquet" in caplog.text
    with live.running(bundle_of(), mode="auto", checkpoint=str(tmp_path / "other")) as query:
        assert query.mode == "realtime"
    with pytest.raises(RealtimeError, match="the sink is Parquet"):
        live.start(bundle_of(), mode="auto", checkpoint=str(tmp_path / "other"), sink=Parquet(str(tmp_path / "rows")))


def test_how_long_records_take_is_read_off_the_sink(live):
    with live.running(bundle_of()) as query:
        live.put({"id": 0, "x": [1.0, 3.0]})
        live.answered(1, query)
        ended = threading.Event()

        def send():
            for number in itertools.count(1):
                if ended.wait(0.02):
                    return
                live.put({"id": number, "x": [1.0, 3.0]})

        sender = threading.Thread(target=send)
        sender.start()
        try:
            told = query.latency(3.0)
        finally:
            ended.set()
            sender.join()
        assert told.records > 0
        assert 0 <= told.p50 <= told.p99 <= told.largest < 1000 * PATIENCE_S
        assert f"of {told.records} records in" in str(told)
        assert str(query.latency(0.05)) == "no record was answered within 0.1 s"
    (first, *_) = live.read(live.out)
    assert abs(int(first.headers["sparkdl-source-time"]) / 1000 - time.time()) < 10 * PATIENCE_S


def test_a_second_query_finds_the_slots_taken(live, spark):
    two = live.broker.create_topic(f"two-{uuid.uuid4().hex[:8]}", 2)
    more = {"events": live.broker.stream(spark, two), "checkpoint": str(live.folder / "second")}
    with (
        live.running(bundle_of()),
        pytest.raises(RealtimeError, match="has 2, of which other queries in real time keep 1"),
    ):
        live.start(bundle_of(), **more)
    with live.running(bundle_of(), **more):
        pass
    live.broker.delete_topic(two)
