"""The Parquet sink: a batch becomes the table's in one step, once, whatever was cut off."""

import os
import threading

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sparkdl import sinks
from sparkdl.errors import ColumnNotFoundError, InvalidParamError, SinkError
from sparkdl.sinks.sink import Staged, StagedFile

QUERY = "0123456789abcdef" * 2
SCHEMA = {
    "type": "struct",
    "fields": [
        {"name": "id", "type": "long", "nullable": True, "metadata": {}},
        {"name": "day", "type": "string", "nullable": True, "metadata": {}},
    ],
}


def staged(sink, batch, ids, query=QUERY, stray=False):
    folder = sink.staging("", query, batch)
    os.makedirs(f"{folder}/day=1")
    path = "day=1/part-00000.parquet"
    pq.write_table(pa.table({"id": ids}), f"{folder}/{path}")
    if stray:  # of an attempt whose task was given up
        pq.write_table(pa.table({"id": ids}), f"{folder}/day=1/stray.parquet")
    return Staged(query, batch, folder, (StagedFile(path, len(ids), os.path.getsize(f"{folder}/{path}")),), SCHEMA)


def ids(uri):
    table = pq.read_table(uri)
    return sorted(table.column("id").to_pylist()) if table.num_columns else []


@pytest.fixture
def sink(tmp_path):
    made = sinks.Parquet(str(tmp_path / "table"), partitionBy=["day"])
    made.check(None, SCHEMA)
    return made


def test_a_batch_is_seen_once_it_is_committed_and_once_only(sink):
    first = staged(sink, 0, [1, 2], stray=True)
    assert sink.files() == []
    for _ in range(3):  # it may be called again for a batch that is committed
        sink.commit(None, first)
        assert ids(sink.uri) == [1, 2]
    sink.commit(None, staged(sink, 1, [3]))
    assert ids(sink.uri) == [1, 2, 3]
    assert [name.split("/table/")[1] for name in sink.files()] == [
        f"batch=q01234567-{batch:012d}/day=1/part-00000.parquet" for batch in (0, 1)
    ]
    assert not [name for name in os.listdir(sink.uri) if name.startswith(".staging")]


def test_other_files_of_a_batch_that_is_committed_are_dropped(sink):
    sink.commit(None, staged(sink, 0, [1]))
    sink.commit(None, staged(sink, 0, [1, 9]))
    assert ids(sink.uri) == [1]


def test_queries_share_a_table(sink):
    sink.commit(None, staged(sink, 0, [1]))
    sink.commit(None, staged(sink, 0, [2], query="f" * 32))
    assert ids(sink.uri) == [1, 2]


def test_a_commit_that_was_cut_off_in_the_middle_is_ended(sink):
    half = staged(sink, 0, [1, 2])
    os.makedirs(f"{half.folder}/ready/day=1")
    os.rename(f"{half.folder}/day=1/part-00000.parquet", f"{half.folder}/ready/day=1/part-00000.parquet")
    assert ids(sink.uri) == []
    sink.commit(None, half)
    assert ids(sink.uri) == [1, 2]


@pytest.mark.parametrize("left", [None, 0, 100])
def test_a_file_that_is_gone_or_cut_short_is_not_passed_over(sink, left):
    gone = staged(sink, 0, [1, 2])
    os.remove(gone.uris[0]) if left is None else os.truncate(gone.uris[0], left)
    with pytest.raises(SinkError, match=r"a file of batch 0 (is missing|has)"):
        sink.commit(None, gone)


def test_an_empty_batch_leaves_nothing(sink):
    sink.commit(None, Staged(QUERY, 0, sink.staging("", QUERY, 0), (), SCHEMA))
    assert sink.files() == []
    assert os.listdir(sink.uri) == ["_sparkdl.json"]


def test_what_failed_attempts_left_is_swept_and_nothing_else(sink):
    left = [staged(sink, batch, [1]) for batch in (3, 3, 4)]
    other = staged(sink, 3, [1], query="f" * 32)
    sink.commit(None, staged(sink, 2, [5]))
    sink.swept(QUERY, 3)
    assert [os.path.exists(made.folder) for made in (*left, other)] == [False, False, True, True]
    assert ids(sink.uri) == [5]


def test_a_table_is_refused_before_the_start(tmp_path, sink):
    other = {"type": "struct", "fields": [SCHEMA["fields"][1], {**SCHEMA["fields"][0], "type": "string"}]}
    with pytest.raises(SinkError, match="its column 'id' is long, not string"):
        sink.check(None, other)
    more = {"type": "struct", "fields": [*SCHEMA["fields"], {"name": "new", "type": "long", "nullable": True}]}
    with pytest.raises(SinkError, match="it lacks the column 'new'"):
        sink.check(None, more)
    with pytest.raises(SinkError, match="another schema"):
        sinks.Parquet(sink.uri).check(None, SCHEMA)  # without partitionBy
    named = {"type": "struct", "fields": [*SCHEMA["fields"], {"name": "Batch", "type": "long", "nullable": True}]}
    with pytest.raises(SinkError, match="column 'batch' of its own"):
        sinks.Parquet(str(tmp_path / "new")).check(None, named)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("")
    with pytest.raises(SinkError, match="something else, 'notes"):
        sinks.Parquet(str(tmp_path / "full")).check(None, SCHEMA)
    with pytest.raises(ColumnNotFoundError, match="'dya' is not"):
        sinks.Parquet(str(tmp_path / "new"), partitionBy=["dya"]).check(None, SCHEMA)
    with pytest.raises(InvalidParamError, match="compression"):
        sinks.Parquet(str(tmp_path / "new"), compression="zip")
    with pytest.raises(SinkError, match="use sinks"):
        sinks.Parquet("s3://bucket/table?region=eu-west-1").check(None, SCHEMA)


def schema_of(**types):
    return {"type": "struct", "fields": [{"name": n, "type": t, "nullable": True} for n, t in types.items()]}


@pytest.mark.parametrize("kind", ["binary", "double", "float", "timestamp", "timestamp_ntz", "void"])
def test_partition_columns_that_spark_would_read_back_as_something_else_are_refused(tmp_path, kind):
    made = sinks.Parquet(str(tmp_path / "t"), partitionBy=["p"])
    with pytest.raises(SinkError, match=f"the partition column 'p' is of type {kind}: cast it"):
        made.check(None, schema_of(id="long", p=kind))


@pytest.mark.parametrize("kind", ["string", "long", "integer", "short", "byte", "boolean", "date", "decimal(9,2)"])
def test_partition_columns_of_other_types_are_taken(tmp_path, kind):
    sinks.Parquet(str(tmp_path / "t"), partitionBy=["p"]).check(None, schema_of(id="long", p=kind))


def test_columns_that_are_one_to_spark_are_refused(tmp_path):
    with pytest.raises(SinkError, match="several columns are called 'id'"):
        sinks.Parquet(str(tmp_path / "t")).check(None, schema_of(id="long", ID="long"))


@pytest.mark.parametrize(
    "told",
    ["not JSON", "[]", "{}", "null", '{"format": 2}', '{"format": 1, "schema": {"fields": [1]}, "partitionBy": []}',
     '{"format": 1, "schema": {"type": "struct", "fields": []}, "partitionBy": 3}',
     '{"format": 1, "schema": [], "partitionBy": []}'],
)  # fmt: skip
def test_a_table_whose_description_is_damaged_is_refused_clearly(sink, told):
    with open(f"{sink.uri}/_sparkdl.json", "w") as file:
        file.write(told)
    with pytest.raises(SinkError, match=r"_sparkdl\.json is not what sparkdl writes"):
        sink.check(None, SCHEMA)


def test_of_two_first_starts_at_once_with_different_schemas_one_is_refused(tmp_path):
    for trial in range(10):
        made = sinks.Parquet(str(tmp_path / f"t{trial}"))
        start, said = threading.Barrier(2), []

        def run(schema, made=made, start=start, said=said):
            start.wait()
            try:
                made.check(None, schema)
                said.append(None)
            except SinkError as error:
                said.append(str(error))

        threads = [threading.Thread(target=run, args=(schema_of(id=kind),)) for kind in ("long", "string")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [text is None for text in said].count(True) == 1
        assert "holds rows of another schema: its column 'id' is" in next(text for text in said if text)
        assert os.listdir(made.uri) == ["_sparkdl.json"]


def test_columns_in_another_order_are_the_same_table(sink):
    sink.check(None, {**SCHEMA, "fields": SCHEMA["fields"][::-1]})


def test_the_folder_that_a_sink_writes(tmp_path):
    assert sinks.Parquet(str(tmp_path / "t")).place == str(tmp_path / "t")
    assert sinks.Delta(str(tmp_path / "t")).place == str(tmp_path / "t")
    assert sinks.foreach(print).place is None
    assert sinks.Kafka("host:9092", "topic").place is None
