"""Columns of streams: whatever their names, each is the event's, the payload's or the model's, and what cannot be is refused."""

import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from scale import DDL, Scale
from torch import nn

import sparkdl
from sparkdl import Bundle, Signature, TensorSpec
from sparkdl.errors import SignatureError
from sparkdl.payloads import JSON
from sparkdl.score.output import Layout
from sparkdl.score.scorer import Scorer
from sparkdl.score.scoring import Scoring
from sparkdl.stream.letters import schema
from sparkdl.stream.rows import Shape
from sparkdl.stream.stage import SAMPLE_TASKS, TOLD, Place, Stage


class Two(Scale):
    """Has an output whose name begins as the challenger's columns do."""

    def forward(self, features):
        return {"score": features.sum(dim=1), "other_score": features[:, 0] > self.weight}


class Classes(Scale):
    """Logits of two classes."""

    def forward(self, features):
        return torch.stack([features.sum(dim=1) * self.weight, features.sum(dim=1)], 1)


class Fragile(nn.Module):
    """Knows so many ids, and raises on others."""

    def __init__(self, known):
        super().__init__()
        self.table = nn.Embedding(known, 1)

    def forward(self, id):
        return self.table(id)[:, 0] * 0 + id


def bundle_of(weight, kind=Scale, column="features", **more):
    return Bundle.from_module(
        kind(weight), Signature((TensorSpec("features", "float32", (2,), (column,), ("array<float>",)),)), **more
    )


@pytest.fixture
def start(spark, tmp_path):
    """A function that streams the rows of a table to an end; gives the table of the sink."""

    def run(table, ddl, model, partitionBy=(), **more):
        os.makedirs(tmp_path / "in", exist_ok=True)
        pq.write_table(pa.table(table), tmp_path / "in/1.parquet")
        events = spark.readStream.schema(ddl).parquet(str(tmp_path / "in"))
        if change := more.pop("change", None):
            events = change(events)
        sink = sparkdl.sinks.Parquet(str(tmp_path / "out"), partitionBy=partitionBy)
        named = {"checkpoint": str(tmp_path / "checkpoint"), "deadLetter": str(tmp_path / "dead")} | more
        query = sparkdl.score_stream(events, model=model, sink=sink, trigger="available now", **named)
        assert query.awaitTermination(120)
        return spark.read.parquet(str(tmp_path / "out")).drop("batch")

    return run


def rows(count):
    features = pa.array([[float(number), 1.0] for number in range(count)], pa.list_(pa.float32()))
    return {"id": pa.array(range(count), pa.int64()), "features": features}


@pytest.mark.parametrize("payload", [False, True])
def test_names_with_dots_spaces_backticks_and_capitals(start, tmp_path, payload):
    names = ["a.b", "the key", "tick`ed", "Größe", "X.y"]
    columns = {name: pa.array([f"{number % 3}" for number in range(60)]) for name in names}
    columns["in.put S"] = rows(60)["features"]
    columns["in.put S"] = pa.array([None, *columns["in.put S"].to_pylist()[1:]], columns["in.put S"].type)
    ddl = ", ".join(f"`{name.replace('`', '``')}` string" for name in names) + ", `in.put S` array<float>"
    options = {"challenger": bundle_of(2, column="in.put S"), "share": 0.5, "shareBy": "the key"}
    table, of_events = columns, ddl
    if payload:
        texts = [
            dict(zip(columns, row, strict=True)) for row in zip(*(c.to_pylist() for c in columns.values()), strict=True)
        ]
        table = {"pay load.": pa.array([json.dumps(text) for text in texts])}
        of_events, options["payload"] = "`pay load.` string", JSON(ddl, column="pay load.")
    made = start(table, of_events, bundle_of(1, column="in.put S"), ["a.b", "tick`ed"], **options)
    rest = [name for name in columns if name not in ("a.b", "tick`ed")]
    models = ["prediction", "other_prediction", "model_version", "other_version"]
    assert made.columns == [*rest, *models, "a.b", "tick`ed"]
    found = sorted((row.asDict() for row in made.collect()), key=lambda row: row["in.put S"])
    assert [row["in.put S"] for row in found] == columns["in.put S"].to_pylist()[1:]
    assert all([str(row[name]) for name in names] == [str(int(row["in.put S"][0]) % 3)] * 5 for row in found)
    one, two = bundle_of(1, column="in.put S").digest[:12], options["challenger"].digest[:12]
    assert {row["prediction"] / sum(row["in.put S"]) for row in found} == {
        {one: 1.0, two: 2.0}[row["model_version"]] for row in found
    }
    assert len({(row["the key"], row["model_version"]) for row in found}) == 3  # a key goes to one model
    (letter,) = pq.read_table(tmp_path / "dead").to_pylist()
    assert letter["row"] == {name: column[0].as_py() for name, column in table.items()}


def test_a_model_whose_output_begins_with_other(start):
    made = start(rows(3), DDL, bundle_of(1, Two), columns=["id"])
    assert made.dtypes == [
        ("id", "bigint"),
        ("score", "float"),
        ("other_score", "boolean"),
        ("model_version", "string"),
    ]
    assert [row.other_score for row in made.orderBy("id").collect()] == [False, False, True]


def test_two_outputs_that_would_be_one_column_are_refused(start, tmp_path):
    with pytest.raises(SignatureError, match=r"output 'score' would be column 'other_score'.*'other_score' already"):
        start(rows(3), DDL, bundle_of(1, Two), challenger=bundle_of(0, Two))
    assert not (tmp_path / "checkpoint").exists()


def test_a_challenger_beside_a_model_without_probabilities(start):
    one, two = (bundle_of(weight, Classes, task="multiclass") for weight in (2, 3))
    made = start(rows(3), DDL, one, challenger=two, settings={"probabilityCol": ""}, columns=["id"])
    assert made.columns == ["id", "prediction", "other_prediction", "model_version", "other_version"]
    assert {(row.model_version, row.other_version) for row in made.collect()} == {(one.digest[:12], two.digest[:12])}


def test_a_challenger_that_cannot_score_does_not_end_the_stream(start):
    known, few = (
        Bundle.from_module(Fragile(known), Signature((TensorSpec("id", "int64", (), ("id",), ("bigint",)),)))
        for known in (1000, 5)
    )
    made = start(rows(300), DDL, known, challenger=few, columns=["id"]).orderBy("id").collect()
    assert [row.prediction for row in made] == list(range(300))
    assert {(row.other_prediction, row.model_version, row.other_version) for row in made} == {
        (None, known.digest[:12], few.digest[:12])
    }


def test_the_key_is_the_payloads_field_and_not_the_column_of_the_same_name(start):
    texts = [json.dumps({"value": number % 2, "features": [float(number), 1.0]}) for number in range(40)]
    payload = JSON("value bigint, features array<float>")
    made = start(
        {"value": pa.array(texts)}, "value string", bundle_of(1), payload=payload, challenger=bundle_of(2), share=0.5,
        shareBy="value",
    )  # fmt: skip
    assert len({(row.value, row.model_version) for row in made.collect()}) == 2


@pytest.mark.parametrize(
    ("match", "change", "more"),
    [
        ("'model_version'.*'Model_Version' already", lambda e: e.withColumnRenamed("id", "Model_Version"), {}),
        ("'OTHER_prediction'", lambda e: e.withColumnRenamed("id", "OTHER_prediction"), {"challenger": bundle_of(2)}),
        ("'other_version'.*'Other_Version'", lambda e: e.withColumnRenamed("id", "Other_Version"), {"challenger": bundle_of(2)}),
        ("'ID'.*'id' already", lambda e: e.select("*", e.id.alias("ID")), {}),
        ("'id'.*'id' already, column 1", lambda e: e.select("*", "id"), {"columns": ["features"]}),
        ("'__share__'", lambda e: e.withColumnRenamed("id", "__share__"), {}),
        ("'__parsed__'", lambda e: e.withColumnRenamed("id", "__parsed__"), {}),
        ("'ID'.*'id' already", None, {"payload": JSON("ID bigint"), "ddl": f"{DDL}, value string"}),
    ],
)  # fmt: skip
def test_names_that_are_not_their_own_are_refused_before_the_start(start, tmp_path, match, change, more):
    ddl = more.get("ddl", DDL)
    with pytest.raises(SignatureError, match=match):
        start(rows(3), ddl, bundle_of(1), change=change, **{name: more[name] for name in more if name != "ddl"})
    assert not (tmp_path / "checkpoint").exists()


def test_few_tasks_give_rows_back(spark, tmp_path):
    bundle, event = bundle_of(1), spark.createDataFrame([], DDL).schema.jsonValue()
    files = dict(bundle.files)
    table = {**event, "fields": [*event["fields"], *schema(event)["fields"][:1]]}
    shape = Shape(("id", "features"), ("id",), ("features",), (), {"prediction": "prediction"})
    place = Place(str(tmp_path / "rows"), table, Layout(), spark.version)
    scorer = Scorer(bundle.digest, lambda: files, bundle.signature, Scoring(invalid="keep"), False)
    stage = Stage("0" * 32, 0, 0.0, shape, "1", scorer, None, 0.0, "keep", place, None, None, sample=True)
    events = spark.range(12, numPartitions=6).selectExpr("id", "array(cast(id as float), float(1)) features")
    told = events.mapInArrow(stage, TOLD).collect()
    assert len(told) == 6
    assert [row.sample is not None for row in told] == [number < SAMPLE_TASKS for number in range(6)]
    assert np.sum([json.loads(row.told)["rows"] for row in told]) == 12
