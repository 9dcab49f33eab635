"""Dead letters, replayed after a fix: each once, however often one asks, and whatever was cut off."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

import sparkdl
from sparkdl import Signature, TensorSpec
from sparkdl.errors import SinkError, StreamError
from sparkdl.stream.replay import replay_dead_letters

COLUMNS = "id bigint, x array<float>"


class Codes(nn.Module):
    """The sum of embeddings of ``codes``; a number that is not below ``size`` raises."""

    def __init__(self, size):
        super().__init__()
        self.embedding = nn.EmbeddingBag(size, 1, mode="sum")
        nn.init.constant_(self.embedding.weight, 1.0)

    def forward(self, x):
        return self.embedding(x.long())


def model(size):
    return sparkdl.TorchModel(
        sparkdl.Bundle.from_module(
            Codes(size),
            Signature((TensorSpec("x", "float32", (2,), ("x",), ("array<float>",)),)),
            task="regression",
            example=[torch.zeros(3, 2)],
        )
    )


@pytest.fixture(scope="module")
def small():
    return model(10)


@pytest.fixture(scope="module")
def large():
    return model(100)


@pytest.fixture
def place(tmp_path):
    (tmp_path / "arriving").mkdir()
    return tmp_path


def feed(place, name, rows):
    schema = pa.schema([("id", pa.int64()), ("x", pa.list_(pa.float32()))])
    table = pa.Table.from_pylist([{"id": id, "x": x} for id, x in rows], schema)
    pq.write_table(table, place / "arriving" / f"{name}.parquet")


def stream(spark, place, model, **told):
    events = told.pop("events", None)
    if events is None:
        events = spark.readStream.schema(COLUMNS).parquet(str(place / "arriving"))
    query = sparkdl.score_stream(
        events, model=model, sink=sparkdl.sinks.Parquet(str(place / "out")), checkpoint=str(place / "checkpoint"),
        deadLetter=str(place / "dead"), trigger="available now", **told,
    )  # fmt: skip
    query.awaitTermination()


def replay(spark, place, model, **told):
    told = {"deadLetter": str(place / "dead"), "sink": sparkdl.sinks.Parquet(str(place / "out")), **told}
    return replay_dead_letters(spark, model=model, **told)


def scored(spark, place):
    rows = spark.read.parquet(str(place / "out")).select("id", "prediction").collect()
    return sorted((row.id, row.prediction) for row in rows)


def letters(spark, place):
    return sorted((row.row.id, row.kind) for row in spark.read.parquet(str(place / "dead")).collect())


def test_each_dead_letter_is_replayed_once_and_fails_again_as_a_new_one(spark, place, small, large):
    feed(place, "0", [(0, [1, 2]), (1, [30, 2]), (2, None), (3, [50, 2]), (4, [4])])
    stream(spark, place, small)
    assert scored(spark, place) == [(0, 2.0)]
    assert letters(spark, place) == [(1, "failed"), (2, "null"), (3, "failed"), (4, "shape")]
    assert replay(spark, place, large) == {"rows": 4, "scored": 2, "dead": 2, "batches": 1}
    assert scored(spark, place) == [(0, 2.0), (1, 2.0), (3, 2.0)]
    assert [id for id, _ in letters(spark, place)] == [1, 2, 2, 3, 4, 4]
    assert replay(spark, place, large) == {"rows": 2, "scored": 0, "dead": 2, "batches": 1}
    feed(place, "1", [(5, [6, 2]), (6, [70, 2])])
    stream(spark, place, small)  # the stream goes on, into the same tables
    assert replay(spark, place, large) == {"rows": 3, "scored": 1, "dead": 2, "batches": 1}
    assert scored(spark, place) == [(id, 2.0) for id in (0, 1, 3, 5, 6)]


def test_with_nothing_left_a_replay_does_nothing(spark, place, small, large):
    feed(place, "0", [(0, [1, 2]), (1, [30, 2])])
    stream(spark, place, small)
    assert replay(spark, place, large) == {"rows": 1, "scored": 1, "dead": 0, "batches": 1}
    nothing = {"rows": 0, "scored": 0, "dead": 0, "batches": 0}
    assert [replay(spark, place, large) for _ in range(2)] == [nothing] * 2
    assert scored(spark, place) == [(0, 2.0), (1, 2.0)]


def test_no_dead_letters_at_all(spark, place, large):
    nothing = {"rows": 0, "scored": 0, "dead": 0, "batches": 0}
    assert replay(spark, place, large) == nothing
    feed(place, "0", [(0, [1, 2])])
    stream(spark, place, large)
    assert replay(spark, place, large) == nothing


class DiesAt(sparkdl.sinks.Parquet):
    """Fails in the commit of one batch, before or after the rows are there."""

    def __init__(self, uri, batch, after):
        super().__init__(uri)
        self.batch, self.after = batch, after

    def commit(self, spark, staged):
        if self.after:
            super().commit(spark, staged)
        if staged.batch == self.batch:
            raise OSError("cut off")
        super().commit(spark, staged)


@pytest.mark.parametrize("after", [False, True])
def test_a_replay_that_is_cut_off_is_taken_up(spark, place, small, large, after):
    feed(place, "0", [(id, [30, 2]) for id in range(20)])
    stream(spark, place, small)
    with pytest.raises(StreamError, match="cut off"):
        replay(spark, place, large, sink=DiesAt(str(place / "out"), 0, after))
    replay(spark, place, large)
    assert scored(spark, place) == [(id, 2.0) for id in range(20)]
    assert replay(spark, place, large)["rows"] == 0


def test_payloads_are_replayed_with_a_mended_schema(spark, place, large):
    texts = [json.dumps({"id": 0, "x": [1, 2]}), json.dumps({"id": "seven", "x": [1, 2]}), "{"]
    (place / "arriving/0.json").write_text("\n".join(texts))
    events = spark.readStream.schema("value string").text(str(place / "arriving"))
    stream(spark, place, large, events=events, payload=sparkdl.payloads.JSON(COLUMNS))
    found = [row.row.value for row in spark.read.parquet(str(place / "dead")).collect()]
    assert sorted(found) == sorted(texts[1:])
    out = sparkdl.sinks.Parquet(str(place / "mended"))
    told = {"payload": sparkdl.payloads.JSON("id string, x array<float>"), "sink": out}
    assert replay(spark, place, large, **told) == {"rows": 2, "scored": 1, "dead": 1, "batches": 1}
    assert [row.id for row in spark.read.parquet(str(place / "mended")).collect()] == ["seven"]


def test_old_files_are_not_forgotten(spark, place, small, large):
    """Spark's file source takes what is a week older than the newest it has seen for seen."""
    import os
    import time

    feed(place, "0", [(0, [30, 2])])
    stream(spark, place, small)
    replay(spark, place, large)
    feed(place, "1", [(1, [30, 2])])
    stream(spark, place, small)
    long_ago = time.time() - 30 * 86_400
    for file in (place / "dead").rglob("*-000000000001/*.parquet"):
        os.utime(file, (long_ago, long_ago))
    assert replay(spark, place, large)["scored"] == 1


def test_what_is_no_table_of_dead_letters(spark, place, small):
    spark.range(3).write.parquet(str(place / "other"))
    with pytest.raises(StreamError, match="is no table of dead letters: score_stream writes them"):
        replay(spark, place, small, deadLetter=str(place / "other"))
    feed(place, "0", [(0, [1, 2])])
    stream(spark, place, small)
    with pytest.raises(StreamError, match=r"is no table of dead letters.*it has \['id', 'x', 'prediction'"):
        replay(spark, place, small, deadLetter=str(place / "out"))
    (place / "delta/_delta_log").mkdir(parents=True)
    (place / "delta/part.parquet").write_bytes(b"")
    with pytest.raises(SinkError, match="are a Delta table, which is not replayed"):
        replay(spark, place, small, deadLetter=str(place / "delta"))
    with pytest.raises(TypeError, match="takes no 'trigger'"):
        replay(spark, place, small, trigger="1 second")
