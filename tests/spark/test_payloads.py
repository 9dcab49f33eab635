"""sparkdl.payloads on real records, batch and streaming: what is parsed, what is told of the rest, what is refused."""

import base64
import datetime
import json
import struct
import uuid

import kafka
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from sparkdl.errors import ColumnNotFoundError, InvalidParamError, SignatureError, SparkdlError
from sparkdl.payloads import JSON, PARSED, UNPARSABLE, Avro, Protobuf, parse

ALL = "id bigint, x array<float>, s struct<a: int, b: string>, raw binary, at timestamp, n decimal(5,2), `a.b` int"


def parsed(spark, payload, values, kind="binary"):
    """The struct as a dict, or the reason, of each value."""
    events = spark.createDataFrame([(i, value) for i, value in enumerate(values)], f"n int, {payload.column} {kind}")
    rows = sorted(parse(events, payload).collect())
    assert [row[1] for row in rows] == values
    assert all((row[PARSED] is None) != (row[UNPARSABLE] is None) for row in rows)
    return [row[UNPARSABLE] or row[PARSED].asDict(recursive=True) for row in rows]


def fields(spark, payload):
    """What ``parse`` makes of a record."""
    return parse(spark.createDataFrame([], f"{payload.column} binary"), payload).schema[PARSED].dataType


def texts(*values):
    return [None if value is None else value.encode() for value in values]


# ---- JSON


def test_json_of_every_kind_of_field(spark):
    record = {
        "id": 2**53 + 1, "x": [1, 2.5, None], "s": {"a": 1, "zz": 9}, "raw": base64.b64encode(b"\xff\xd8jpeg").decode(),
        "at": "2024-05-01T12:00:00Z", "n": 1.25, "a.b": 4, "more": {"ignored": True},
    }  # fmt: skip
    [full, empty] = parsed(spark, JSON(ALL), texts(json.dumps(record), "{}"))
    at = full.pop("at").astimezone(datetime.timezone.utc)
    assert at == datetime.datetime(2024, 5, 1, 12, tzinfo=datetime.timezone.utc)
    assert full["raw"] == b"\xff\xd8jpeg"
    assert full["id"] == 2**53 + 1
    assert full["x"] == [1.0, 2.5, None]
    assert full["s"] == {"a": 1, "b": None}
    assert full["a.b"] == 4
    assert set(empty.values()) == {None}
    assert list(empty) == ["id", "x", "s", "raw", "at", "n", "a.b"]


UNREADABLE = [
    "", "  ", "null", "3", '"text"', "[]", '[{"id": 1}]', '{"id": 1', '{"id": "one"}', '{"id": "1"}', '{"id": 1.5}',
    '{"id": true}', '{"x": 3}', '{"x": ["a"]}', '{"s": {"a": "q"}}', '{"raw": "***"}', '{"raw": [1]}', '{"at": "soon"}',
    '{"n": 12345.678}', "\x00\x01",
]  # fmt: skip


@pytest.mark.parametrize("kind", ["binary", "string"])
def test_json_that_is_not_the_record_is_told_and_not_made_of_nulls(spark, kind):
    values = UNREADABLE if kind == "string" else texts(*UNREADABLE)
    reasons = parsed(spark, JSON(ALL), values, kind)
    start = "unparsable: column 'value' is no JSON of bigint id, array<float> x, struct<a:int,b:string> s, "
    assert [reason.startswith(start) for reason in reasons] == [True] * len(values)
    assert [reason.rpartition("int a.b: ")[2] for reason in reasons] == UNREADABLE


def test_a_reason_shows_no_more_than_100_characters(spark):
    [long, null] = parsed(spark, JSON("id int"), ["{" * 1000, None], "string")
    assert long == "unparsable: column 'value' is no JSON of int id: " + "{" * 100
    assert null == "unparsable: column 'value' is null"


def test_options_reach_spark(spark):
    payload = JSON("day date", column="text", options={"dateFormat": "dd.MM.yyyy"})
    assert parsed(spark, payload, ['{"day": "29.02.2024"}'], "string") == [{"day": datetime.date(2024, 2, 29)}]


def test_other_columns_stay_as_they_are_and_nothing_is_parsed_twice(spark):
    events = spark.createDataFrame([(b'{"id": 1}', 7, "k")], "value binary, `a.b` int, key string")
    read = parse(events, JSON("id bigint, x float"))
    assert read.columns == ["value", "a.b", "key", PARSED, UNPARSABLE]
    used = read.selectExpr(f"{PARSED}.id", f"{PARSED}.x", UNPARSABLE, f"{PARSED} is null as bad")
    plan = used._jdf.queryExecution().optimizedPlan().toString()
    assert plan.count("from_json(") == 1
    assert used.collect() == [(1, None, None, False)]


@pytest.mark.parametrize("payload", [JSON("id bigint, x array<float>")])
def test_a_stream_is_parsed_as_a_table_is(spark, tmp_path, payload):
    values = ['{"id": 1, "x": [0.5]}', '{"id": "one"}', "rubbish"]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("\n".join(values))
    stream = parse(spark.readStream.text(str(tmp_path / "in")), payload)
    assert stream.isStreaming
    name = f"t{uuid.uuid4().hex}"
    query = (
        stream.writeStream.format("memory").queryName(name).trigger(availableNow=True)
        .option("checkpointLocation", str(tmp_path / "checkpoint")).start()
    )  # fmt: skip
    assert query.awaitTermination(120)
    table = parse(spark.read.text(str(tmp_path / "in")), payload)
    assert sorted(spark.table(name).collect(), key=str) == sorted(table.collect(), key=str)
    assert table.where(f"{UNPARSABLE} is null").count() == 1


# ---- Avro

FIELDS = [
    {"name": "id", "type": "long"},
    {"name": "x", "type": {"type": "array", "items": "float"}},
    {"name": "image", "type": ["null", "bytes"], "default": None},
]
RECORD = json.dumps({"type": "record", "name": "Event", "fields": FIELDS})
NULLABLE = json.dumps({"type": "record", "name": "Event", "fields": [{"name": "id", "type": ["null", "long"]}]})


def zigzag(number):
    number, made = number * 2 if number >= 0 else -2 * number - 1, b""
    while number > 127:
        made, number = made + bytes([number & 127 | 128]), number >> 7
    return made + bytes([number])


def avro(number, x, image):
    """https://avro.apache.org/docs/1.12.0/specification/#binary-encoding"""
    items = zigzag(len(x)) + b"".join(struct.pack("<f", one) for one in x) + b"\0" if x else b"\0"
    return zigzag(number) + items + (b"\0" if image is None else b"\2" + zigzag(len(image)) + image)


def test_avro(spark):
    kafka.require_jars(kafka.lane())
    payload = Avro(RECORD)
    good = [avro(-3, [1.5, 2.0], b"\xff\xd8"), avro(2**40, [], None)]
    bad = [b"", b"\x01", avro(1, [1.0], b"abc")[:-1], b"\x80" * 20, None]
    assert parsed(spark, payload, [*good, *bad])[:2] == [
        {"id": -3, "x": [1.5, 2.0], "image": b"\xff\xd8"},
        {"id": 2**40, "x": [], "image": None},
    ]
    reasons = parsed(spark, payload, bad)
    start = "unparsable: column 'value' is no Avro of bigint id, array<float> x, binary image: "
    assert reasons[:2] == [start, f"{start}01"]
    assert all(reason.startswith(start) for reason in reasons[:-1])
    assert reasons[-1] == "unparsable: column 'value' is null"
    assert fields(spark, payload).simpleString() == "struct<id:bigint,x:array<float>,image:binary>"


def test_an_avro_record_of_nulls_is_one(spark):
    kafka.require_jars(kafka.lane())
    assert parsed(spark, Avro(NULLABLE), [b"\0", b"\2\4", b"\2"])[:2] == [{"id": None}, {"id": 2}]
    assert parsed(spark, Avro(NULLABLE), [b"\2"])[0].startswith("unparsable")
    newer = json.dumps({"type": "record", "name": "Event", "fields": [
        {"name": "id", "type": ["null", "long"]}, {"name": "more", "type": "string", "default": "?"},
    ]})  # fmt: skip
    assert parsed(spark, Avro(NULLABLE, options={"avroSchema": newer}), [b"\2\4"]) == [{"id": 2, "more": "?"}]


# ---- Protobuf


@pytest.fixture(scope="module")
def protobuf():
    """The bytes of a FileDescriptorSet, and the class of its message p.Event."""
    if kafka.lane() != "spark35":
        pytest.skip("Maven Central has no spark-protobuf for this Spark")
    kafka.require_jars("spark35")
    kinds = descriptor_pb2.FieldDescriptorProto
    made = descriptor_pb2.FileDescriptorSet()
    file = made.file.add(name="event.proto", package="p", syntax="proto3")
    event, flat = file.message_type.add(name="Event"), file.message_type.add(name="Flat")
    event.field.add(name="id", number=1, type=kinds.TYPE_INT64, label=kinds.LABEL_OPTIONAL)
    event.field.add(name="x", number=2, type=kinds.TYPE_FLOAT, label=kinds.LABEL_REPEATED)
    event.field.add(name="image", number=3, type=kinds.TYPE_BYTES, label=kinds.LABEL_OPTIONAL)
    flat.field.add(name="id", number=1, type=kinds.TYPE_INT64, label=kinds.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return made.SerializeToString(), message_factory.GetMessageClass(pool.FindMessageTypeByName("p.Event"))


def test_protobuf(spark, protobuf, tmp_path):
    descriptor, event = protobuf
    (tmp_path / "event.desc").write_bytes(descriptor)
    good = [event(id=3, x=[1.5], image=b"\xff\xd8").SerializeToString(), event().SerializeToString()]
    bad = [b"\xff\xff", good[0][:-1], None]
    for place in (descriptor, str(tmp_path / "event.desc")):
        payload = Protobuf("p.Event", place)
        found = parsed(spark, payload, [*good, *bad])
        assert found[0] == {"id": 3, "x": [1.5], "image": b"\xff\xd8"}
        assert found[1] == {"id": None, "x": [], "image": None}
        assert found[2] == "unparsable: column 'value' is no Protobuf of bigint id, array<float> x, binary image: FFFF"
        assert found[3].startswith("unparsable")
        assert found[4] == "unparsable: column 'value' is null"
    assert parsed(spark, Protobuf("p.Flat", descriptor), [b"", b"\x08\x05", b"\xff"])[:2] == [{"id": None}, {"id": 5}]
    assert fields(spark, payload).simpleString() == "struct<id:bigint,x:array<float>,image:binary>"


def test_protobuf_that_cannot_be_used(spark, protobuf):
    descriptor, _ = protobuf
    with pytest.raises(InvalidParamError, match=r"Spark cannot parse Protobuf\(message='p.Evnt'"):
        fields(spark, Protobuf("p.Evnt", descriptor))
    with pytest.raises(InvalidParamError, match="Spark cannot parse Protobuf"):
        fields(spark, Protobuf("p.Event", b"no descriptor"))
    with pytest.raises(InvalidParamError, match=r"the descriptor '/nowhere\.desc' cannot be read"):
        fields(spark, Protobuf("p.Event", "/nowhere.desc"))


def test_a_package_that_the_session_lacks_is_named(spark):
    if kafka.lane() == "spark35":
        pytest.skip("this lane's session has it")
    with pytest.raises(
        SparkdlError, match=r"spark\.jars\.packages=org\.apache\.spark:spark-protobuf_2\.13:4\."
    ) as caught:
        fields(spark, Protobuf("p.Event", b"\0"))
    assert caught.value.package.startswith("spark.jars.packages=")


# ---- what is refused


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ("id bigit", "Spark cannot parse JSON"),
        ("bigint", "Spark cannot parse|tells bigint"),
        ("array<struct<a: int>>", "tells array"),
    ],
)
def test_json_schemas_that_are_none(spark, schema, said):
    with pytest.raises(InvalidParamError, match=said):
        fields(spark, JSON(schema))


def test_columns_that_hold_no_payload(spark):
    events = spark.createDataFrame([], "value int, text string, body binary")
    with pytest.raises(
        ColumnNotFoundError, match="the payload's column 'vale' is not in the DataFrame; did you mean 'value'"
    ):
        parse(events, JSON("id int", column="vale"))
    with pytest.raises(SignatureError, match="'value' is of type integer; JSON takes binary or string"):
        parse(events, JSON("id int"))
    with pytest.raises(SignatureError, match="'text' is of type string; Avro takes binary"):
        parse(events, Avro(RECORD, column="text"))
    with pytest.raises(SignatureError, match="have a column '__parsed__'"):
        parse(spark.createDataFrame([], f"value string, {PARSED} int"), JSON("id int"))
