"""What a query writes down beside its checkpoint."""

import json
import multiprocessing
from dataclasses import replace

import pytest

from sparkdl.errors import StreamError
from sparkdl.sinks.sink import Staged, StagedFile
from sparkdl.stream import records
from sparkdl.stream.records import BatchRecord

IDENTITY = {"model": {"name": "fraud"}, "sink": {"kind": "parquet", "uri": "/out"}, "deadLetter": None}
OFFSETS = 'v1\n{"batchWatermarkMs":0}\n{"logOffset":0}'
STAGED = Staged(
    "q" * 32, 3, "/out/.staging", (StagedFile("a=1/part.parquet", 5, 100),), {"type": "struct", "fields": []}
)


@pytest.fixture
def checkpoint(tmp_path):
    """Of a query that has done batch 0 and begun batch 1, as Spark writes it."""
    place = tmp_path / "checkpoint"
    files = {
        "metadata": '{"id":"x"}',
        "offsets/0": OFFSETS,
        "offsets/1": OFFSETS.replace("0}", "1}"),
        "commits/0": 'v1\n{"nextBatchWatermarkMs":0}',
        "sources/0/0": 'v1\n{"path":"file:///in/0","timestamp":1,"batchId":0}',
        "sources/0/1": 'v1\n{"path":"file:///in/1","timestamp":1,"batchId":1}',
        "sources/1/0": '\0v1\n{"topic":{"0":0}}',  # as Kafka's
        "sources/2/0": "something else",  # a format of its own
    }
    opened = records.opened(str(place), IDENTITY)
    for name, text in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)
    opened.write(BatchRecord(0, "1", offsets=OFFSETS, rows=STAGED))
    opened.write(BatchRecord(1, "2", offsets=files["offsets/1"]))
    return place


def test_a_record_is_read_as_it_was_written(checkpoint):
    opened = records.opened(str(checkpoint), IDENTITY)
    assert opened.begun(0) == BatchRecord(0, "1", offsets=OFFSETS, rows=STAGED)
    assert opened.begun(1).version == "2"
    assert opened.begun(2) is None
    whole = replace(opened.begun(1), rows=STAGED, dead=STAGED, told={"rows": 5})
    opened.write(whole)
    assert opened.begun(1) == whole


def test_the_id_of_a_query_stays(checkpoint):
    assert records.opened(str(checkpoint), IDENTITY).query == records.opened(str(checkpoint), IDENTITY).query


@pytest.mark.parametrize("what", IDENTITY)
def test_a_checkpoint_of_another_query_is_refused(checkpoint, what):
    with pytest.raises(StreamError, match=f"another {what}.*Name another checkpoint") as caught:
        records.opened(str(checkpoint), {**IDENTITY, what: {"name": "other"}})
    assert caught.value.checkpoint == str(checkpoint)


def test_a_checkpoint_of_a_plain_query_is_refused(checkpoint):
    (checkpoint / "sparkdl/query.json").unlink()
    with pytest.raises(StreamError, match="score_stream did not start"):
        records.opened(str(checkpoint), IDENTITY)


@pytest.mark.parametrize(
    ("path", "remedy"),
    [
        ("offsets/1", "write the text kept as 'offsets' in sparkdl/batches/1.json"),
        ("commits/0", "remove it and its .crc file"),
        ("sources/0/1", "put back a copy"),
        ("sources/1/0", "put back a copy"),
        ("metadata", "put back a copy"),
        ("sparkdl/batches/1.json", "if commits/1 is there"),
        ("sparkdl/query.json", "put back a copy"),
    ],
)
@pytest.mark.parametrize("left", [0.0, 0.5, 0.9])
def test_a_file_that_is_cut_short_is_refused_with_the_remedy(checkpoint, path, remedy, left):
    file = checkpoint / path
    text = file.read_text()
    file.write_text(text[: int(len(text) * left)])
    with pytest.raises(StreamError) as caught:
        records.opened(str(checkpoint), IDENTITY)
    assert path in str(caught.value)
    assert remedy in str(caught.value)


def test_the_remedy_for_offsets_mends_them(checkpoint):
    file = checkpoint / "offsets/1"
    whole = file.read_text()
    file.write_text(whole[:5])
    file.write_text(json.loads((checkpoint / "sparkdl/batches/1.json").read_text())["offsets"])
    assert file.read_text() == whole
    records.opened(str(checkpoint), IDENTITY)


def test_a_batch_that_spark_now_gives_other_rows_is_refused(checkpoint):
    opened = records.opened(str(checkpoint), IDENTITY)
    (checkpoint / "offsets/1").write_text(OFFSETS)
    with pytest.raises(StreamError, match="begun with other rows"):
        opened.begun(1)


def test_records_of_batches_long_done_are_removed(checkpoint):
    opened = records.opened(str(checkpoint), IDENTITY)
    opened.write(BatchRecord(150, "1"))
    opened.forget(150)
    assert [opened.begun(number) is None for number in (0, 1, 150)] == [True, True, False]


def hold(checkpoint, ready, done):
    with records.locked(checkpoint):
        ready.set()
        done.wait()


def test_two_queries_cannot_have_one_checkpoint_and_a_killed_one_lets_it_go(tmp_path):
    place, context = str(tmp_path / "checkpoint"), multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    other = context.Process(target=hold, args=(place, ready, done))
    other.start()
    assert ready.wait(60)
    with pytest.raises(StreamError, match="another query runs"), records.locked(place):
        pass
    other.kill()
    other.join()
    with records.locked(place):
        pass
    with records.locked(place), pytest.raises(StreamError, match="another query runs"), records.locked(place):
        pass
