"""The sinks that Spark itself has a hand in: Kafka, foreach; and that Spark's own Delta reads what Delta wrote."""

import base64
import datetime
import json
import os
import subprocess
import sys
import textwrap
import time

import kafka
import pytest
from staging import QUERY, spark_schema, stage

from sparkdl.errors import ColumnNotFoundError, InvalidParamError, SinkError
from sparkdl.sinks import Delta, Kafka, foreach

PLAIN = spark_schema(id="long", name="string")
ROWS = [{"id": 1, "name": "a"}, {"id": 2, "name": None}]


# ---- foreach


def test_foreach_gets_the_staged_rows_and_the_number_again_and_again(spark, tmp_path):
    seen = []
    sink = foreach(lambda df, batch: seen.append((batch, sorted(map(tuple, df.collect())))))
    staged = stage(sink, PLAIN, ROWS, batch=7, scratch=tmp_path, files=2)
    sink.check(spark, PLAIN)
    sink.commit(spark, staged)
    sink.commit(spark, staged)
    sink.commit(spark, stage(sink, PLAIN, [], batch=8, scratch=tmp_path))
    assert seen == [(7, [(1, "a"), (2, None)])] * 2 + [(8, [])]


@pytest.mark.parametrize("harm", [os.unlink, lambda path: open(path, "w").close()])
def test_a_staged_file_that_is_lost_is_an_error(spark, tmp_path, harm):
    sink = foreach(count_rows)
    staged = stage(sink, PLAIN, ROWS, scratch=tmp_path, files=2)
    harm(staged.uris[0])
    for one in (sink, Kafka("localhost:9092", "t")):
        with pytest.raises(SinkError, match=r"a file of batch 0 (is missing|has 0 bytes, not)"):
            one.commit(spark, staged)


def count_rows(df, batch):
    return df.selectExpr("max(id)", "max(name)").collect()


def test_foreach_is_known_by_its_functions_name_and_needs_one(spark):
    assert foreach(count_rows).identity == {"kind": "foreach", "function": f"{__name__}.count_rows"}
    with pytest.raises(InvalidParamError, match="takes a function of a DataFrame and a batch's number"):
        foreach("count_rows")


def test_what_a_function_raises_is_the_cause(spark, tmp_path):
    def fails(df, batch):
        raise KeyError("no such account")

    sink = foreach(fails)
    with pytest.raises(SinkError, match=r"fails of the sink raised KeyError on batch 3: 'no such account'") as caught:
        sink.commit(spark, stage(sink, PLAIN, ROWS, batch=3, scratch=tmp_path))
    assert isinstance(caught.value.__cause__, KeyError)


# ---- Kafka


def records(broker, spark, topic):
    """Key, value out of JSON, headers as a dict; in order of their ids."""
    found = []
    for row in broker.read(spark, topic).collect():
        headers = {header.key: header.value.decode() for header in row.headers}
        found.append((row.key and bytes(row.key), json.loads(row.value), headers))
    return sorted(found, key=lambda record: record[2]["sparkdl-id"])


def test_rows_become_records_with_a_header_that_tells_one_from_another(spark, broker, topic, tmp_path, jobs):
    sink = Kafka(broker.servers, topic, key="name")
    schema = spark_schema(id="long", name="string", bytes="binary", x="double", model_version="string")
    rows = [
        {"id": i, "name": "k" if i else None, "bytes": b"\x00\xff", "x": float("nan"), "model_version": "3"}
        for i in range(5)
    ]
    sink.check(spark, schema)
    staged = stage(sink, schema, rows, batch=4, scratch=tmp_path, files=2)
    before = jobs()
    sink.commit(spark, staged)
    assert jobs() - before == 1
    first = records(broker, spark, topic)
    values = sorted((value for _, value, _ in first), key=lambda value: value["id"])
    encoded = base64.b64encode(b"\x00\xff").decode()
    assert values == [{**row, "bytes": encoded, "x": "NaN"} for row in rows]
    assert all(key == (b"k" if value["id"] else None) for key, value, _ in first)
    ids = [headers["sparkdl-id"] for _, _, headers in first]
    assert len(set(ids)) == 5
    assert all(name.startswith(f"{QUERY}-4-part-0000") for name in ids)
    rest = {"sparkdl-query": QUERY, "sparkdl-batch": "4", "sparkdl-model-version": "3"}
    assert all({**headers, "sparkdl-id": 0} == {**rest, "sparkdl-id": 0} for _, _, headers in first)
    sink.commit(spark, staged)  # cut off, and sent again
    twice = records(broker, spark, topic)
    assert len(twice) == 10
    assert {headers["sparkdl-id"]: value for _, value, headers in twice}.keys() == set(ids)
    assert twice[::2] == first
    sink.commit(spark, stage(sink, schema, [], batch=5, scratch=tmp_path))
    assert len(records(broker, spark, topic)) == 10


def test_a_rows_source_is_its_id(spark, broker, topic, tmp_path):
    sink = Kafka(broker.servers, topic, key="offset")
    schema = spark_schema(topic="string", partition="integer", offset="long", value="binary")
    rows = [{"topic": "in", "partition": 1, "offset": i, "value": b"v"} for i in (5, 6)]
    sink.commit(spark, stage(sink, schema, [*rows, dict.fromkeys(rows[0])], scratch=tmp_path))
    found = records(broker, spark, topic)
    assert [headers["sparkdl-id"] for _, _, headers in found[1:]] == ["in-1-5", "in-1-6"]
    assert found[0][2]["sparkdl-id"].startswith(QUERY)  # a row that lacks its source
    assert [key for key, _, _ in found] == [None, b"5", b"6"]
    assert "sparkdl-model-version" not in found[0][2]


def test_a_key_of_bytes_is_those_bytes_and_names_may_be_strange(spark, broker, topic, tmp_path):
    sink = Kafka(broker.servers, topic, key="a.b`c")
    schema = spark_schema(**{"a.b`c": "binary", "at": "timestamp", "day": "date"})
    at = datetime.datetime(2024, 5, 1, 12, tzinfo=datetime.timezone.utc)
    rows = [{"a.b`c": b"\x01\x02", "at": at, "day": at.date()}]
    sink.check(spark, schema)
    sink.commit(spark, stage(sink, schema, rows, scratch=tmp_path))
    [(key, value, _)] = records(broker, spark, topic)
    assert key == b"\x01\x02"
    assert datetime.datetime.fromisoformat(value["at"].replace("Z", "+00:00")) == at
    assert value["day"] == "2024-05-01"


def test_what_kafka_cannot_take_is_refused_before_the_start(spark, broker, topic):
    with pytest.raises(ColumnNotFoundError, match="the Kafka sink's key, column 'nam'"):
        Kafka(broker.servers, topic, key="nam").check(spark, PLAIN)
    with pytest.raises(
        SinkError, match="there is no topic 'elsewhere', and the broker makes none by itself: create it"
    ):
        Kafka(broker.servers, "elsewhere").check(spark, PLAIN)
    with pytest.raises(SinkError, match="hides where a row lies"):
        Kafka(broker.servers, topic).check(spark, spark_schema(_metadata="string"))
    nobody = f"127.0.0.1:{kafka.free_ports(1)[0]}"
    started = time.monotonic()
    with pytest.raises(SinkError, match=f"Kafka {topic} at {nobody}: the brokers do not answer"):
        Kafka(nobody, topic).check(spark, PLAIN)
    assert time.monotonic() - started < 20


def test_a_batch_that_the_broker_does_not_take_is_an_error_of_the_sink(spark, broker, tmp_path):
    options = {"kafka.max.block.ms": "2000", "kafka.delivery.timeout.ms": "2000", "kafka.request.timeout.ms": "1000"}
    sink = Kafka(broker.servers, "nowhere", options=options)
    with pytest.raises(SinkError, match="batch 0 was not sent whole") as caught:
        sink.commit(spark, stage(sink, PLAIN, ROWS, scratch=tmp_path))
    assert caught.value.batch == 0
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"servers": ""}, "'servers' must be a text"),
        ({"topic": 3}, "'topic' must be a text"),
        ({"options": {"acks": "all"}}, "begin with 'kafka.'"),
        ({"options": {"kafka.bootstrap.servers": "x:1"}}, "which is 'servers'"),
        ({"options": {"kafka.acks": 1}}, "must be texts"),
    ],
)
def test_arguments_that_kafka_cannot_use(arguments, said):
    with pytest.raises(InvalidParamError, match=said):
        Kafka(**{"servers": "localhost:9092", "topic": "t", **arguments})


def test_options_are_told_nowhere(spark, broker, topic):
    options = {
        "kafka.sasl.jaas.config": "hush hush",
        "kafka.security.protocol": "SASL_PLAINTEXT",
        "kafka.sasl.mechanism": "PLAIN",
    }
    sink = Kafka(broker.servers, topic, options=options)
    assert "hush" not in repr(sink) + json.dumps(sink.identity)
    with pytest.raises(SinkError) as caught:
        sink.check(spark, PLAIN)
    assert "hush" not in str(caught.value)


@pytest.mark.lane("latest")
def test_a_session_without_the_connector_is_told_which_package_it_lacks(tmp_path):
    said = in_another_session(
        """
        from sparkdl.sinks import Kafka
        from sparkdl.errors import SinkError
        try:
            Kafka("localhost:9092", "t").check(spark, {"fields": []})
        except SinkError as error:
            print(error)
        """,
        tmp_path,
    )
    import pyspark

    scala = "2.13" if kafka.lane() == "latest" else "2.12"
    assert f"spark.jars.packages=org.apache.spark:spark-sql-kafka-0-10_{scala}:{pyspark.__version__}" in said


# ---- Delta


def in_another_session(code, tmp_path, **conf):
    """What `code` prints; it has a `spark` of its own."""
    conf = {
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.driver.memory": "512m",
        "spark.sql.shuffle.partitions": "1",
        **conf,
    }
    head = f"""
    from pyspark.sql import SparkSession
    builder = SparkSession.builder.master("local[1]")
    for name, value in {conf!r}.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    """
    script = tmp_path / "session.py"
    script.write_text(textwrap.dedent(head) + textwrap.dedent(code))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=200, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.skipif(kafka.lane() != "spark35", reason="Delta has no release for this Spark")
def test_sparks_own_delta_reads_and_appends_to_what_was_written(tmp_path):
    jars = kafka.require_jars("spark35-delta")
    sink = Delta(str(tmp_path / "table"), partitionBy=["name", "day"])
    array = {"type": "array", "elementType": "float", "containsNull": True}
    schema = spark_schema(
        id="long", name="string", day="date", at="timestamp", price="decimal(6,2)", bytes="binary", values=array,
        pair={"type": "struct", "fields": spark_schema(x="double", y="integer")["fields"]},
    )  # fmt: skip
    names = ["x", "a b/c=%41:é+&?#", "100%", None]
    common = {
        "day": datetime.date(2024, 2, 29), "at": datetime.datetime(2024, 5, 1, 12, tzinfo=datetime.timezone.utc),
        "price": 12, "bytes": b"\x00", "values": [1.5, None], "pair": {"x": 0.5, "y": None},
    }  # fmt: skip
    for batch, rows in enumerate([[], [{"id": i, "name": name, **common} for i, name in enumerate(names)]]):
        sink.commit(None, stage(sink, schema, rows, batch=batch))
    said = in_another_session(
        f"""
        import json
        table = spark.read.format("delta").load({sink.uri!r})
        for row in table.orderBy("id").collect():
            print(json.dumps([row.name, str(row.day), row.at.isoformat(), str(row.price), list(row.bytes), row["values"], list(row.pair)]))
        table.where("id = 0").write.format("delta").mode("append").save({sink.uri!r})
        """,
        tmp_path,
        **{
            "spark.jars": ",".join(map(str, jars.glob("*.jar"))),
            "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
            "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
            "spark.sql.session.timeZone": "UTC",
            "spark.databricks.delta.snapshotPartitions": "1",
        },
    )
    found = [json.loads(line) for line in said.splitlines()]
    assert [row[0] for row in found] == names
    assert [row[1] for row in found] == ["2024-02-29"] * 4
    assert [row[3:] for row in found] == [["12.00", [0], [1.5, None], [0.5, None]]] * 4
    sink.commit(None, stage(sink, schema, [{"id": 20, "name": "y", **common}], batch=2))
    from deltalake import DeltaTable

    assert DeltaTable(sink.uri).count() == 6
