"""score_stream from a Kafka topic of JSON records: into Parquet, Kafka and Delta; what cannot be read goes, with its place."""

import base64
import json

import pytest
import torch
from deltalake import DeltaTable
from torch import nn

import sparkdl
from sparkdl import Bundle, Signature, TensorSpec, TorchModel
from sparkdl.payloads import JSON
from sparkdl.sinks import Delta, Kafka, Parquet

SPEC = TensorSpec("features", "float32", (2,), ("features",), ("array<float>",))
PAYLOAD = JSON("id bigint, features array<float>")
SOURCE = ("topic", "partition", "offset")


class Sum(nn.Module):
    """Of the features, plus a bias."""

    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.tensor(1.0))

    def forward(self, features):
        return features.sum(dim=1) + self.bias


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    place = str(tmp_path_factory.mktemp("model") / "bundle")
    Bundle.from_module(Sum(), Signature((SPEC,))).save(place)
    return place


def record(number):
    return json.dumps({"id": number, "features": [number, 0.5], "more": "ignored"})


BAD = ['{"id": "one"}', "rubbish", None]


class Stream:
    """A topic with records, and the folder of a query that scores them."""

    def __init__(self, spark, broker, topic, model, folder):
        self.spark, self.broker, self.topic, self.model, self.folder = spark, broker, topic, model, folder
        self.dead = str(folder / "dead")

    def put(self, *values):
        """Keys tell the records apart; Kafka chooses the partition by them."""
        self.broker.produce(self.spark, self.topic, [(f"k{value}"[:20], value) for value in values])

    def run(self, sink, **more):
        """Score all that is there; the status."""
        events = self.broker.stream(self.spark, self.topic, maxOffsetsPerTrigger="4")
        named = {"checkpoint": str(self.folder / "checkpoint"), "deadLetter": self.dead, "trigger": "available now"}
        query = sparkdl.score_stream(events, model=self.model, sink=sink, payload=PAYLOAD, **named, **more)
        query.awaitTermination(200)
        return query.status()

    def sent(self):
        """By place, what the topic holds."""
        rows = self.broker.read(self.spark, self.topic).collect()
        return {tuple(row[name] for name in SOURCE): row.value and row.value.decode() for row in rows}


@pytest.fixture
def stream(spark, broker, topic, model, tmp_path):
    return Stream(spark, broker, topic, model, tmp_path)


def test_each_record_is_scored_once_or_is_a_dead_letter_with_its_place(spark, stream, tmp_path):
    sink = Parquet(str(tmp_path / "out"))
    stream.put(*(record(number) for number in range(6)), *BAD)
    stream.run(sink)
    stream.put(*(record(number) for number in range(6, 9)))
    stream.run(sink)
    sent = stream.sent()
    rows = spark.read.parquet(sink.uri).collect()
    assert {"value", "more"}.isdisjoint(rows[0].asDict())
    found = {tuple(row[name] for name in SOURCE): (row.id, list(row.features), row["prediction"]) for row in rows}
    assert len(rows) == len(found) == 9
    told = {place: json.loads(value)["id"] for place, value in sent.items() if value not in BAD}
    assert found == {place: (number, [number, 0.5], number + 1.5) for place, number in told.items()}
    letters = spark.read.parquet(stream.dead).collect()
    assert len(letters) == 3
    assert {letter.kind for letter in letters} == {"unparsable"}
    by_source = {letter.source: letter for letter in letters}
    for (topic, partition, offset), value in sent.items():
        if value in BAD:
            letter = by_source[f"{topic}-{partition}@{offset}"]
            assert (letter.row.value and letter.row.value.decode()) == value
            assert letter.row.offset == offset
            assert letter.reason.startswith("unparsable: column 'value' is ")
            assert value is None or letter.reason.endswith(value)


def test_from_topic_to_topic_each_row_has_its_source_as_its_id(spark, broker, stream):
    target = broker.create_topic(f"{stream.topic}-scored", 1)
    sink = Kafka(broker.servers, target, key="id")
    stream.put(*(record(number) for number in range(5)), BAD[0])
    stream.run(sink, columns=["id", "topic", "partition", "offset"])
    stream.run(sink, columns=["id", "topic", "partition", "offset"])  # there is nothing new
    told = {"-".join(map(str, place)): value for place, value in stream.sent().items() if value != BAD[0]}
    scored = broker.read(spark, target).collect()
    assert len(scored) == 5
    for row in scored:
        headers = {header.key: header.value.decode() for header in row.headers}
        number = json.loads(told.pop(headers["sparkdl-id"]))["id"]
        value = json.loads(row.value)
        assert (value["id"], value["prediction"], row.key) == (number, number + 1.5, str(number).encode())
        assert value["model_version"] == headers["sparkdl-model-version"]
        assert set(headers) == {"sparkdl-id", "sparkdl-query", "sparkdl-batch", "sparkdl-model-version"}
    broker.delete_topic(target)


def committed(table):
    """The ids of the applications whose transactions a Delta table's log holds."""
    lines = [line for path in (table / "_delta_log").glob("*.json") for line in path.read_text().splitlines()]
    return {json.loads(line)["txn"]["appId"] for line in lines if "txn" in json.loads(line)}


def test_into_delta_dead_letters_too_over_a_restart(spark, stream, tmp_path):
    stream.dead = Delta(str(tmp_path / "letters"))
    sink = Delta(str(tmp_path / "table"))
    stream.put(*(record(number) for number in range(6)), *BAD)
    stream.run(sink)
    stream.put(*(record(number) for number in range(6, 10)))
    stream.run(Delta(sink.uri))
    table, letters = DeltaTable(sink.uri), DeltaTable(stream.dead.uri)
    rows = table.to_pyarrow_table().to_pylist()
    assert sorted(row["id"] for row in rows) == list(range(10))
    assert all(row["prediction"] == row["id"] + 1.5 for row in rows)
    assert letters.count() == 3
    (done,), (buried,) = (committed(tmp_path / name) for name in ("table", "letters"))
    assert table.transaction_version(done) == letters.transaction_version(buried)
    assert table.version() == table.transaction_version(done) >= 3  # a batch, a commit


def test_images_as_base64_in_json_reach_the_sink_as_bytes(spark, broker, topic, model, tmp_path):
    value = {"id": 1, "features": [1, 2], "image": base64.b64encode(b"\xff\xd8\xff").decode()}
    broker.produce(spark, topic, [json.dumps(value)])
    sink = Parquet(str(tmp_path / "out"))
    query = sparkdl.score_stream(
        broker.stream(spark, topic), model=model, sink=sink, checkpoint=str(tmp_path / "checkpoint"),
        payload=JSON("id bigint, features array<float>, image binary"), trigger="available now",
    )  # fmt: skip
    query.awaitTermination(200)
    [row] = spark.read.parquet(sink.uri).select("image", "prediction").collect()
    assert (bytes(row.image), row.prediction) == (b"\xff\xd8\xff", 4.0)


def test_a_plain_query_from_topic_to_topic_may_track_its_progress_asynchronously(
    spark, broker, stream, model, tmp_path
):
    """Stateless and into Kafka: the only kind for which Spark has it."""
    target = broker.create_topic(f"{stream.topic}-plain", 1)
    stream.put(*(record(number) for number in range(5)))
    events = broker.stream(spark, stream.topic).selectExpr(
        "from_json(string(value), 'id bigint, features array<float>') r"
    )
    scored = TorchModel(Bundle.load(model)).transform(events.select("r.*"))
    writer = scored.selectExpr("to_json(struct(id, prediction)) value").writeStream.format("kafka")
    writer = writer.option("kafka.bootstrap.servers", broker.servers).option("topic", target)
    writer = writer.option("asyncProgressTrackingEnabled", "true").option("checkpointLocation", str(tmp_path / "plain"))
    query = writer.trigger(processingTime="100 milliseconds").start()
    try:
        query.processAllAvailable()
        stream.put(*(record(number) for number in range(5, 8)))
        query.processAllAvailable()
    finally:
        query.stop()
    values = [json.loads(row.value) for row in broker.read(spark, target).collect()]
    assert {value["id"]: value["prediction"] for value in values} == {number: number + 1.5 for number in range(8)}
    broker.delete_topic(target)
