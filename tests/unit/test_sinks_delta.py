"""sparkdl.sinks.Delta: one commit a micro-batch, whatever happens; what it refuses. No JVM: delta-rs reads it back."""

import dataclasses
import datetime
import decimal
import json
import os
import threading

import pyarrow as pa
import pytest
from deltalake import DeltaTable, Schema
from staging import QUERY, spark_schema, stage

from sparkdl.errors import ColumnNotFoundError, InvalidParamError, SinkError, SparkdlError
from sparkdl.sinks import Delta, Staged

PLAIN = spark_schema(id="long", name="string")
ARRAY = {"type": "array", "elementType": "float", "containsNull": True}
STRUCT = {"type": "struct", "fields": spark_schema(x="double", y=ARRAY)["fields"]}
MAP = {"type": "map", "keyType": "string", "valueType": "integer", "valueContainsNull": True}


@pytest.fixture
def sink(tmp_path):
    return Delta(str(tmp_path / "table"))


def rows_of(sink, *columns):
    table = DeltaTable(sink.uri).to_pyarrow_table()
    found = table.select(list(columns) or table.schema.names).to_pylist()
    return sorted(found, key=str)


def some(start, count=3):
    return [{"id": i, "name": f"row {i}"} for i in range(start, start + count)]


def test_rows_are_the_tables_only_after_the_commit_and_once(sink):
    first, second = stage(sink, PLAIN, some(0), files=2), stage(sink, PLAIN, some(3), batch=1)
    with pytest.raises(Exception, match=r"not exist|No files|Not a Delta"):
        DeltaTable(sink.uri)
    sink.check(None, PLAIN)
    sink.commit(None, first)
    assert rows_of(sink) == some(0)
    sink.commit(None, second)
    for again in (first, second, first):
        sink.commit(None, Staged.from_json(json.loads(json.dumps(again.to_json()))))
        Delta(sink.uri).commit(None, again)  # as a process does that has just started
    assert rows_of(sink) == some(0, 6)
    table = DeltaTable(sink.uri)
    assert table.version() == 1
    assert table.transaction_version(sink.application(QUERY, PLAIN)) == 1
    assert table.get_add_actions().num_rows == 3


def at_once(works):
    """Run functions in threads that start together; their exceptions."""
    start, errors = threading.Barrier(len(works)), []

    def run(work):
        start.wait()
        try:
            work()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def test_a_batch_that_several_commit_at_once_is_committed_once(sink):
    for batch in range(10):
        staged = stage(sink, PLAIN, some(3 * batch), batch=batch)
        assert at_once([lambda staged=staged: Delta(sink.uri).commit(None, staged)] * 4) == []
    assert rows_of(sink) == sorted(some(0, 30), key=str)
    assert DeltaTable(sink.uri).version() == 9


def test_queries_that_write_one_table_at_once_make_it_once_and_lose_nothing(sink):
    def run(query, start):
        own = Delta(sink.uri)
        for batch in range(8):
            own.commit(None, stage(own, PLAIN, some(start + 3 * batch), query=query, batch=batch))

    assert at_once([lambda i=i: run(f"{i}" * 32, 24 * i) for i in range(3)]) == []
    assert rows_of(sink) == sorted(some(0, 72), key=str)
    assert DeltaTable(sink.uri).version() == 23


def test_a_batch_without_rows_is_committed_too(sink):
    sink.commit(None, stage(sink, PLAIN, []))
    assert rows_of(sink) == []
    assert DeltaTable(sink.uri).transaction_version(sink.application(QUERY, PLAIN)) == 0
    sink.commit(None, stage(sink, PLAIN, some(0), batch=1))
    sink.commit(None, stage(sink, PLAIN, [], batch=2))
    assert rows_of(sink) == some(0)
    assert DeltaTable(sink.uri).transaction_version(sink.application(QUERY, PLAIN)) == 2
    batches = os.listdir(f"{sink.uri}/sparkdl-{QUERY}")
    assert batches == [f"{1:012d}"]


def test_what_failed_attempts_left_goes_with_the_commit_and_the_tables_own_files_never(sink):
    stage(sink, PLAIN, some(0))
    other = stage(sink, PLAIN, some(7), query="f" * 32)
    staged = stage(sink, PLAIN, some(0))
    sink.commit(None, staged)
    assert len(os.listdir(f"{sink.uri}/sparkdl-{QUERY}/{0:012d}")) == 1
    assert os.path.exists(other.uris[0])
    # The record of what was staged got lost, so the batch was staged anew: the table has it already.
    sink.commit(None, stage(sink, PLAIN, some(0)))
    assert rows_of(sink) == some(0)


@pytest.mark.skipif(
    pa.__version__ < "15", reason="deltalake lists no partitions to this pyarrow; Spark's Delta reads them"
)
def test_partitions_with_names_that_a_path_cannot_hold(tmp_path):
    sink = Delta(str(tmp_path / "a table"), partitionBy=["name", "day", "price"])
    schema = spark_schema(id="long", name="string", day="date", price="decimal(6,2)")
    day, price = datetime.date(2024, 2, 29), decimal.Decimal("12.50")
    names = ["x", "a b/c=%41:é+&?#", "100%", None, "..", "%2F"]
    rows = [{"id": i, "name": name, "day": day, "price": price} for i, name in enumerate(names)]
    sink.check(None, schema)
    sink.commit(None, stage(sink, schema, rows))
    assert rows_of(sink, *schema_names(schema)) == rows
    assert DeltaTable(sink.uri).metadata().partition_columns == ["name", "day", "price"]


def schema_names(schema):
    return [field["name"] for field in schema["fields"]]


def test_every_type_that_delta_has(sink):
    schema = spark_schema(
        string="string", long="long", integer="integer", short="short", byte="byte", float="float", double="double",
        boolean="boolean", binary="binary", date="date", timestamp="timestamp", decimal="decimal(20,4)", array=ARRAY,
        struct=STRUCT, map=MAP, deep={"type": "array", "elementType": STRUCT, "containsNull": True},
    )  # fmt: skip
    at = datetime.datetime(2024, 5, 1, 12, 30, 15, 123456, tzinfo=datetime.timezone.utc)
    struct = {"x": 0.5, "y": [1.0, None]}
    row = {
        "string": "é", "long": 2**62, "integer": -5, "short": 3, "byte": -1, "float": 0.25, "double": 1e300,
        "boolean": True, "binary": b"\x00\xff", "date": datetime.date(1960, 1, 1), "timestamp": at,
        "decimal": decimal.Decimal("12345678901234.5678"), "array": [1.5, None], "struct": struct,
        "map": [("a", 1), ("b", None)], "deep": [struct, None],
    }  # fmt: skip
    nothing = dict.fromkeys(row)
    sink.check(None, schema)
    sink.commit(None, stage(sink, schema, [row, nothing]))
    sink.check(None, schema)
    found = DeltaTable(sink.uri).to_pyarrow_table().to_pylist()
    assert found == [row, nothing]
    with_zoneless = Delta(f"{sink.uri}-ntz")
    told = spark_schema(at="timestamp_ntz")
    with_zoneless.check(None, told)
    with_zoneless.commit(None, stage(with_zoneless, told, [{"at": at.replace(tzinfo=None)}]))
    assert rows_of(with_zoneless) == [{"at": at.replace(tzinfo=None)}]


def other(**change):
    kinds = {field["name"]: field["type"] for field in PLAIN["fields"]} | change
    return spark_schema(**{name: kind for name, kind in kinds.items() if kind})


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        (other(name=None), "it has the column 'name', which the rows lack"),
        (other(more="double"), "it lacks the column 'more'"),
        (other(name="binary"), "its column 'name' is string, not binary"),
        (other(name=ARRAY), "its column 'name' is string, not array<float>"),
    ],
)
def test_a_table_of_another_schema_is_refused_at_the_start_and_at_the_commit(sink, schema, said):
    sink.commit(None, stage(sink, PLAIN, some(0)))
    with pytest.raises(SinkError, match="the table there has another schema") as caught:
        sink.check(None, schema)
    assert said in str(caught.value)
    row = {field["name"]: None for field in schema["fields"]}
    with pytest.raises(SinkError, match="the table there has another schema"):
        sink.commit(None, stage(sink, schema, [row], batch=1))
    assert rows_of(sink) == some(0)


def test_a_table_of_other_partitions_or_with_rules_of_its_own_is_refused(sink, tmp_path):
    sink.commit(None, stage(sink, PLAIN, some(0)))
    with pytest.raises(SinkError, match=r"its partition columns are \[\], not \['name'\]"):
        Delta(sink.uri, partitionBy=["name"]).check(None, PLAIN)
    table = DeltaTable(sink.uri)
    table.alter.add_constraint({"positive": "id >= 0"})
    with pytest.raises(SinkError, match="needs of its writers what this sink does not do: the constraint 'positive'"):
        sink.check(None, PLAIN)
    with pytest.raises(SinkError, match="the constraint 'positive'"):
        sink.commit(None, stage(sink, PLAIN, some(3), batch=1))
    needy = Delta(str(tmp_path / "needy"))
    told = {"type": "struct", "fields": [{**field, "nullable": False} for field in PLAIN["fields"]]}
    DeltaTable.create(needy.uri, Schema.from_json(json.dumps(told)))
    with pytest.raises(SinkError, match="its column 'id' must not be null; its column 'name' must not be null"):
        needy.check(None, PLAIN)


def test_a_table_whose_features_delta_rs_does_not_write_is_refused_in_its_words(sink):
    sink.commit(None, stage(sink, PLAIN, some(0)))
    protocol = {
        "protocol": {
            "minReaderVersion": 3,
            "minWriterVersion": 7,
            "readerFeatures": [],
            "writerFeatures": ["icebergCompatV2"],
        }
    }
    with open(f"{sink.uri}/_delta_log/{1:020d}.json", "w") as log:
        log.write(json.dumps(protocol) + "\n")
    with pytest.raises(SinkError, match=r"(?i)icebergCompatV2"):
        sink.commit(None, stage(sink, PLAIN, some(3), batch=1))


@pytest.mark.parametrize(
    ("schema", "partitions", "said"),
    [
        (spark_schema(a="void"), (), "'a' is of type 'void': cast it"),
        (spark_schema(a={"type": "udt", "class": "v"}), (), "'a' is of type 'udt'"),
        (
            spark_schema(a={**ARRAY, "elementType": "interval day to second"}),
            (),
            "'a.element' is of type 'interval day",
        ),
        (spark_schema(**{"a b": "long"}), (), "the name 'a b' has one of"),
        (spark_schema(a={"type": "struct", "fields": spark_schema(**{"b=": "long"})["fields"]}), (), "the name 'a.b='"),
        (spark_schema(a="long", A="long"), (), "several columns are called 'a'"),
        (spark_schema(a="long", t="timestamp"), ("t",), "the partition column 't' is of type timestamp"),
    ],
)
def test_rows_that_delta_cannot_hold_are_refused(tmp_path, schema, partitions, said):
    with pytest.raises(SinkError, match="a Delta table cannot hold these rows") as caught:
        Delta(str(tmp_path), partitionBy=partitions).check(None, schema)
    assert said in str(caught.value)


def test_places_and_arguments_that_cannot_be_used(tmp_path, monkeypatch):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(SinkError, match=r"no Delta table, but other files \('notes.txt'"):
        Delta(str(tmp_path)).check(None, PLAIN)
    with pytest.raises(SinkError, match="cannot be written") as caught:
        Delta(str(tmp_path / "notes.txt" / "table")).check(None, PLAIN)
    assert isinstance(caught.value, SparkdlError)
    with pytest.raises(ColumnNotFoundError, match="'nam'"):
        Delta(str(tmp_path / "t"), partitionBy=["nam"]).check(None, PLAIN)
    with pytest.raises(InvalidParamError, match="partitionBy"):
        Delta(str(tmp_path), partitionBy="name")
    with pytest.raises(InvalidParamError, match="storageOptions"):
        Delta(str(tmp_path), storageOptions={"timeout": 3})
    monkeypatch.setitem(__import__("sys").modules, "deltalake", None)
    monkeypatch.setitem(__import__("sys").modules, "deltalake.exceptions", None)
    with pytest.raises(SinkError, match=r"pip install 'sparkdl\[delta\]'"):
        Delta(str(tmp_path / "t")).check(None, PLAIN)


def test_files_that_are_not_what_was_staged_are_not_committed(sink, tmp_path):
    staged = stage(sink, PLAIN, some(0))
    os.truncate(staged.uris[0], 10)
    with pytest.raises(SinkError, match="has 10 bytes, not"):
        sink.commit(None, staged)
    os.unlink(staged.uris[0])
    with pytest.raises(SinkError, match="is missing"):
        sink.commit(None, staged)
    outside = dataclasses.replace(stage(sink, PLAIN, some(0)), folder=str(tmp_path / "elsewhere"))
    with pytest.raises(SinkError, match="not in its folder"):
        sink.commit(None, outside)
    with pytest.raises(Exception, match=r"not exist|No files|Not a Delta"):
        DeltaTable(sink.uri)


def test_it_is_known_by_its_place_and_tells_no_secret(tmp_path):
    sink = Delta(str(tmp_path / "t"), partitionBy=["name"], storageOptions={"secret_key": "hush"})
    assert sink.identity == {"kind": "delta", "uri": str(tmp_path / "t"), "partitionBy": ["name"]}
    assert "hush" not in repr(sink) + json.dumps(sink.identity)
    assert sink.layout.partition_by == ("name",)


def test_two_sinks_of_a_query_in_one_table_lose_nothing_silently(sink):
    letters = spark_schema(kind="string", reason="string")
    sink.commit(None, stage(sink, PLAIN, some(0)))
    for other in (Delta(f"file://{sink.uri}"), Delta(sink.uri)):
        with pytest.raises(SinkError, match="the table there has another schema"):
            other.commit(None, stage(other, letters, [{"kind": "null", "reason": ""}]))
    other = Delta(sink.uri, partitionBy=["name"])
    with pytest.raises(SinkError, match="its partition columns are"):
        other.commit(None, stage(other, PLAIN, some(0)))
    assert sink.application(QUERY, PLAIN) != sink.application(QUERY, letters)
    assert rows_of(sink) == some(0)


def test_the_log_of_a_table_that_the_sink_made_does_not_grow_for_ever(sink, tmp_path):
    def log(of):
        return [name for name in os.listdir(f"{of.uri}/_delta_log") if name.endswith(".json")]

    def ran(of):
        for batch in range(101):
            of.commit(None, stage(of, PLAIN, [], batch=batch))
            if batch == 99:
                for name in os.listdir(f"{of.uri}/_delta_log"):
                    os.utime(f"{of.uri}/_delta_log/{name}", (0, 0))  # by delta-rs's clock, decades old

    ran(sink)
    assert DeltaTable(sink.uri).metadata().configuration == {"delta.logRetentionDuration": "interval 1 hours"}
    assert len(log(sink)) < 5
    kept = Delta(str(tmp_path / "kept"))
    properties = {"delta.enableExpiredLogCleanup": "false", "delta.logRetentionDuration": "interval 1 hours"}
    DeltaTable.create(kept.uri, Schema.from_json(json.dumps(PLAIN)), configuration=properties)
    ran(kept)
    assert len(log(kept)) == 102


def test_a_uri_with_options_and_a_secret(tmp_path):
    told = "s3://KEY:a%2Fb@bucket/t?region=eu-west-1"
    sink = Delta(told, storageOptions={"aws_session_token": "hush", "timeout": "9s"})
    with pytest.raises(SinkError) as caught:
        sink._partition("x=a%2Fb/f")
    for text in (repr(sink), json.dumps(sink.identity), sink.place, str(caught.value), repr(caught.value)):
        assert "a%2Fb" not in text
        assert "hush" not in text
    assert sink.place == "s3://KEY:***@bucket/t?region=eu-west-1"
    with pytest.raises(SinkError, match=r"token \*\*\* of 9s"):
        raise sink._error("the token hush of 9s")


def test_the_files_of_a_batch_are_found_however_the_uri_is_spelt(tmp_path):
    sink = Delta("s3://KEY:hush@bucket/t?region=eu-west-1")
    staged = Staged(QUERY, 0, sink.staging("", QUERY, 0), (), PLAIN)
    inside = sink._inside(staged)
    assert inside.startswith(f"sparkdl-{QUERY}/{0:012d}/")
    kept = Staged.from_json(json.loads(json.dumps(staged.to_json())))
    assert "hush" not in kept.folder
    assert sink._inside(kept) == inside
    assert sink._opens() == (
        "s3://bucket/t",
        {"AWS_REGION": "eu-west-1", "AWS_ACCESS_KEY_ID": "KEY", "AWS_SECRET_ACCESS_KEY": "hush"},
    )
    # The whole way, locally: Hadoop's spelling, and one with escapes.
    local = Delta(f"file:{tmp_path}/a%20b")
    local.commit(None, stage(local, PLAIN, some(0)))
    assert DeltaTable(str(tmp_path / "a b")).to_pyarrow_table().num_rows == 3
