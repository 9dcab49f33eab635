"""What materialising leaves on disk: each row once, on its side of the split, as tensors; or nothing that counts."""

from __future__ import annotations

import json
import os
import sys

import numpy as np
import pytest
import torch
from pyspark.ml.linalg import Vectors, VectorUDT
from pyspark.sql import functions as sf
from pyspark.sql.types import LongType, StructType

import sparkdl.data
from sparkdl.data import Dataset, lease, materialize
from sparkdl.data.manifest import LabelFacts, Layout
from sparkdl.data.materialize import write
from sparkdl.data.reader import ArrowReader
from sparkdl.errors import (
    ColumnNotFoundError,
    DataError,
    EmptyDatasetError,
    InvalidParamError,
    SignatureError,
    StoreError,
)
from sparkdl.signature import Signature, TensorSpec, label_spec
from sparkdl.train.world import World

ROWS = 300
COLUMNS = {"inputCols": ["x", "id"], "labelCol": "y"}


@pytest.fixture(scope="module")
def table(spark):
    """``id`` (long), ``x`` array<float>[3] and the label ``y`` (double) made of it, weights ``w``, ``held``; in 3
    partitions."""
    return spark.range(0, ROWS, 1, 3).selectExpr(
        "id", "array(float(id), float(id + 0.25d), float(id + 0.5d)) x", "id * 2d y", "id / 4d w", "id % 5 = 0 held"
    )


@pytest.fixture
def uri(tmp_path):
    return str(tmp_path / "data")


def rows_of(data):
    """The ids of the dataset's rows, sorted; all else in a row is checked against it."""
    found = []
    for batch in ArrowReader(data, World(), batch_size=64, seed=0).scan():
        x, key = batch.inputs
        assert np.array_equal(x.numpy(), key.numpy()[:, None] + np.float32([0, 0.25, 0.5]))
        assert torch.equal(batch.label, key * 2.0)
        assert batch.weight is None or torch.equal(batch.weight, key / 4)
        found += key.tolist()
    return sorted(found)


def under(folder):
    return sorted(os.path.relpath(os.path.join(at, name), folder) for at, _, names in os.walk(folder) for name in names)


def listed(data):
    return sorted([*(file.path for file in (*data.files, *data.validation_files)), "manifest.json"])


# What is written


def test_every_row_is_there_and_no_file_that_is_not_listed(table, uri):
    data = materialize(table, uri, **COLUMNS, weightCol="w")
    assert rows_of(data) == list(range(ROWS))
    assert (data.rows, data.validation) == (ROWS, None)
    assert [str(spec) for spec in data.tensors] == [
        "x: float32[B, 3]", "id: int64[B]", "__label__: float64[B]", "__weight__: float64[B]"
    ]  # fmt: skip
    assert data.label_facts == LabelFacts(0, 598, True)
    assert Dataset.load(uri) == data
    assert under(uri) == listed(data)
    assert sparkdl.data.materialize is materialize


@pytest.mark.parametrize("settings", [{"validationIndicatorCol": "held"}, {"validationFraction": 0.3, "seed": 3}])
def test_each_row_is_on_one_side(table, uri, settings):
    data = materialize(table, uri, **COLUMNS, **settings)
    train, held = rows_of(data), rows_of(data.validation)
    assert sorted(train + held) == list(range(ROWS))
    assert (data.rows, data.validation.rows) == (len(train), len(held))
    assert Dataset.load(uri) == data
    if "validationIndicatorCol" in settings:
        assert held == list(range(0, ROWS, 5))
    else:
        assert 60 < len(held) < 120


def test_a_fraction_s_rows_depend_on_content_and_seed_alone(table, tmp_path):
    def held(df, seed):
        layout = Layout(
            Signature.from_dataframe(df, ["x", "id"]), label_spec(df, "y"), fraction=0.2, seed=seed
        )  # fmt: skip
        return rows_of(
            write(df, str(tmp_path / f"{seed}-{df.rdd.getNumPartitions()}"), layout, digest=False).validation
        )

    doubled = table.union(table).repartition(2, "w")
    one, other = held(table, 1), held(table, 2)
    assert one != other
    assert held(doubled, 1) == sorted(one * 2), "equal rows are on the same side"


def test_sparse_vectors_and_ids_beyond_32_bits(spark, uri):
    schema = StructType().add("features", VectorUDT()).add("item", LongType()).add("label", LongType())
    vectors = [Vectors.sparse(5, {i % 5: float(i)}) if i % 2 else Vectors.dense([0, 0, i, 0, 0.5]) for i in range(40)]
    items = [2**53 + 2 * i + 1 for i in range(38)] + [-(2**63), 2**63 - 1]  # a double holds none of the first
    df = spark.createDataFrame([(v, k, k) for v, k in zip(vectors, items, strict=True)], schema)
    data = materialize(df, uri, inputCols=["features", "item"])
    found = {}
    for batch in ArrowReader(data, World(), batch_size=7, seed=0).epoch(0):
        features, item = batch.inputs
        assert (features.dtype, item.dtype, batch.label.dtype) == (torch.float64, torch.int64, torch.int64)
        assert torch.equal(item, batch.label)
        found |= dict(zip(item.tolist(), features.tolist(), strict=True))
    assert found == {k: v.toArray().tolist() for v, k in zip(vectors, items, strict=True)}
    assert data.label_facts == LabelFacts(-(2**63), 2**63 - 1, True)
    assert Dataset.load(uri).label_facts == data.label_facts
    read = Dataset.load(uri).cast("float32", "float32")
    assert next(ArrowReader(read, World(), batch_size=40, seed=0).scan()).inputs[0].dtype == torch.float32


def test_a_partition_without_rows_and_one_side_only(table, uri):
    data = materialize(table.where("id >= 250").repartition(5, "held"), uri, **COLUMNS, validationIndicatorCol="held")
    assert rows_of(data.validation) == list(range(250, ROWS, 5))
    assert len(data.files) == len(data.validation_files) == 1


# Asked again


@pytest.fixture(scope="module")
def stored(table, tmp_path_factory):
    return materialize(table, str(tmp_path_factory.mktemp("stored") / "data"), **COLUMNS, weightCol="w")


def test_the_same_content_is_recognised_whatever_its_order(table, stored):
    uri = stored.uri
    before = {name: os.stat(os.path.join(uri, name)).st_mtime_ns for name in under(uri)}
    again = table.repartition(2).sort(sf.desc("id"))
    assert materialize(again, uri, **COLUMNS, shapes={"x": (3,)}, weightCol="w") == stored
    assert {name: os.stat(os.path.join(uri, name)).st_mtime_ns for name in under(uri)} == before


@pytest.mark.parametrize(
    ("change", "settings", "difference"),
    [
        (["id < 299"], {}, "it has 300 rows, the DataFrame has 299"),
        ([], {"labelCol": "w"}, r"layout differs, in the label: \(y: float64\[B\] of double\) there, \(w:"),
        ([], {"weightCol": None}, r"in the weight: \(w: float64\[B\] of double\) there, none asked for"),
        ([], {"inputCols": ["id", "x"]}, "in the inputs"),
        ([], {"validationFraction": 0.5}, "in the way validation rows are chosen"),
        ([], {"validationFraction": 0.5, "seed": 1}, "in the way validation rows are chosen"),
        (["id <> 7", "id = 8"], {}, r"its content differs \(both have 300 rows\)"),
    ],
)
def test_other_content_at_the_same_place_is_an_error_that_names_what_differs(
    table, stored, change, settings, difference
):
    asked, data, uri = COLUMNS | {"weightCol": "w"}, stored, stored.uri
    other = table.where(change[0]) if change else table
    for more in change[1:]:
        other = other.union(table.where(more))
    with pytest.raises(StoreError, match=difference + ".*; replace it by overwrite=True, or choose another URI"):
        materialize(other, uri, **(asked | settings))
    assert Dataset.load(uri) == data
    assert under(uri) == listed(data)


def test_overwriting_replaces_everything_and_keeps_what_is_not_ours(table, uri, tmp_path):
    first = materialize(table, uri, **COLUMNS)
    (tmp_path / "data" / "notes.txt").write_text("by the user")
    (tmp_path / "data" / "data-of-mine").mkdir()
    second = materialize(table.where("id < 200"), uri, **COLUMNS, overwrite=True)
    assert rows_of(second) == list(range(200))
    assert second.digest != first.digest
    assert under(uri) == sorted([*listed(second), "notes.txt"])
    assert os.path.isdir(os.path.join(uri, "data-of-mine"))
    second.delete()
    assert under(uri) == ["notes.txt"]


def test_what_is_no_dataset_is_not_overwritten(table, tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps({"format": 1, "files": {}}))  # a bundle's, say
    for overwrite in (False, True):
        with pytest.raises(StoreError, match=r"no \(finished\) dataset at .*its manifest has no 'kind'"):
            materialize(table, str(tmp_path), **COLUMNS, overwrite=overwrite)
    assert under(tmp_path) == ["manifest.json"]


def test_a_dataset_without_a_digest_is_not_mistaken(table, uri):
    layout = Layout(Signature.from_dataframe(table, ["x", "id"]), label_spec(table, "y"))
    assert write(table, uri, layout, digest=False).digest is None
    with pytest.raises(StoreError, match="written without a digest"):
        write(table, uri, layout)
    with pytest.raises(StoreError, match="not asked which data it holds"):
        write(table, uri, layout, digest=False)


# Failures


def test_a_failed_write_leaves_nothing_and_the_old_dataset_as_it_was(table, uri):
    old = materialize(table, uri, **COLUMNS)
    bad = table.withColumn("y", sf.expr("if(id = 170, double('NaN'), y)"))
    with pytest.raises(DataError, match="'y'"):
        materialize(bad, uri, **COLUMNS, overwrite=True)
    assert under(uri) == listed(old)
    assert rows_of(Dataset.load(uri)) == list(range(ROWS))


def test_what_a_killed_write_left_goes_with_the_next_that_succeeds(table, uri, tmp_path):
    gone, alive = (f"data-{number:032x}" for number in (1, 2))
    for folder in (gone, alive):
        lease.claim(os.path.join(uri, folder))
        (tmp_path / "data" / folder / "part-00000.parquet").write_bytes(b"half")
    owner = tmp_path / "data" / gone / lease.OWNER
    owner.write_text(json.dumps(json.loads(owner.read_text()) | {"started": 0.0}))  # the id was given to another since
    with pytest.raises(StoreError, match=r"no \(finished\) dataset"):
        Dataset.load(uri)
    data = materialize(table, uri, **COLUMNS)
    assert under(uri) == sorted([*listed(data), f"{alive}/owner.json", f"{alive}/part-00000.parquet"])


def test_of_two_writes_at_once_without_overwriting_the_first_stands(table, uri, monkeypatch):
    module = sys.modules["sparkdl.data.materialize"]
    first, written = [], module._written

    def meanwhile(*arguments):
        with monkeypatch.context() as undone:
            undone.setattr(module, "_written", written)
            first.append(materialize(table.where("id < 10"), uri, **COLUMNS))
        return written(*arguments)

    monkeypatch.setattr(module, "_written", meanwhile)
    with pytest.raises(StoreError, match=r"another dataset was written to .* meanwhile"):
        materialize(table, uri, **COLUMNS)
    assert Dataset.load(uri) == first[0]
    assert under(uri) == listed(first[0]), "and the first did not remove what the second was writing"


def test_a_uri_and_a_relative_path(table, tmp_path, monkeypatch):
    data = materialize(table, (tmp_path / "a").as_uri(), **COLUMNS, validationIndicatorCol="held")
    assert rows_of(data) == rows_of(Dataset.load(str(tmp_path / "a")))
    monkeypatch.chdir(tmp_path)
    assert Dataset.load("a").uri == str(tmp_path / "a")
    assert materialize(table, "a", **COLUMNS, validationIndicatorCol="held") == Dataset.load("a")


def test_a_place_that_cannot_be_written(table):
    with pytest.raises(StoreError, match="cannot write"):
        materialize(table, "/proc/sparkdl", **COLUMNS)


# Bad input


@pytest.mark.parametrize(
    ("settings", "error", "told"),
    [
        ({"inputCols": "x"}, InvalidParamError, "'inputCols' must be a list of column names"),
        ({"inputCols": []}, InvalidParamError, "at least one"),
        ({"inputCols": ["X1"]}, ColumnNotFoundError, "'X1' is not in the DataFrame.*'x'"),
        ({"labelCol": "lable"}, ColumnNotFoundError, "'lable'"),
        ({"weightCol": "ww"}, ColumnNotFoundError, "'ww'.*did you mean 'w'"),
        ({"weightCol": "x"}, SignatureError, "weight column 'x' is array<float>; a weight is one number a row"),
        ({"weightCol": "held"}, SignatureError, "weight column 'held' is boolean"),
        ({"validationIndicatorCol": "hold"}, ColumnNotFoundError, "did you mean 'held'"),
        ({"validationIndicatorCol": "w"}, SignatureError, r"validation column 'w' must be boolean \(got double\)"),
        ({"validationIndicatorCol": "held", "validationFraction": 0.1}, InvalidParamError, "both set"),
        ({"validationFraction": 1.0}, InvalidParamError, r"at least 0 and below 1 \(got 1.0\)"),
        ({"validationFraction": -0.1}, InvalidParamError, "at least 0 and below 1"),
        ({"validationFraction": float("nan")}, InvalidParamError, "got nan"),
        ({"validationFraction": "a half"}, InvalidParamError, "'a half'"),
        ({"validationFraction": True}, InvalidParamError, "got True"),
        ({"shapes": {"z": (3,)}}, ColumnNotFoundError, "in shapes, column 'z'"),
    ],
)
def test_what_is_asked_wrongly_is_refused_before_anything_runs(table, uri, jobs, settings, error, told):
    with pytest.raises(error, match=told):
        materialize(table, uri, **(COLUMNS | settings))
    assert jobs() == 0
    assert not os.path.exists(uri)


def test_a_stream_and_a_reserved_name(spark, uri):
    stream = spark.readStream.format("rate").load().selectExpr("float(value) x", "double(value) y")
    with pytest.raises(SignatureError, match="a stream cannot be materialised"):
        materialize(stream, uri, inputCols=["x"], labelCol="y")
    df = spark.range(3).selectExpr("id __label__", "id y")
    with pytest.raises(SignatureError, match="cannot be called '__label__'"):
        materialize(df, uri, inputCols=["__label__"], labelCol="y")


@pytest.mark.parametrize(
    ("column", "value", "expected", "got"),
    [
        ("w", "-0.5d", ">= 0", "-0.5"),
        ("held", "null", "true or false", "None"),
    ],
)
def test_a_bad_row_is_named_with_its_file(table, spark, uri, tmp_path, column, value, expected, got):
    source = str(tmp_path / "source")
    table.withColumn(column, sf.expr(f"if(id = 170, {value}, {column})")).coalesce(1).write.parquet(source)
    with pytest.raises(DataError, match=rf"column '{column}', row 170 of .*\.parquet: expected .*, got") as caught:
        materialize(spark.read.parquet(source), uri, **COLUMNS, weightCol="w", validationIndicatorCol="held")
    error = caught.value
    assert (error.column, error.row) == (column, 170)
    assert error.file.endswith(".parquet")
    assert expected in str(error)
    assert str(error).endswith(f"got {got}")
    assert not os.path.exists(os.path.join(uri, "manifest.json"))
    assert under(uri) == []


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"validationIndicatorCol": "all"}, "'all' leaves no row to train on: all 300 are on the other side"),
        ({"validationIndicatorCol": "none"}, "'none' leaves no row to validate with"),
        ({"validationFraction": 1e-9}, "validationFraction=1e-09 leaves no row to validate with"),
    ],
)
def test_a_side_without_rows(table, uri, settings, told):
    df = table.withColumns({"all": sf.lit(True), "none": sf.lit(False)})
    with pytest.raises(DataError, match=told):
        materialize(df, uri, **COLUMNS, **settings)
    assert under(uri) == []


def test_no_rows(table, uri):
    with pytest.raises(EmptyDatasetError):
        materialize(table.where("id < 0"), uri, **COLUMNS, shapes={"x": (3,)})
    assert under(uri) == []


def test_labels_of_a_known_dataset_are_checked_against_the_classes(table, stored):
    weight = TensorSpec("w", "float64", (), ("w",), ("double",))
    layout = Layout(Signature.from_dataframe(table, ["x", "id"]), label_spec(table, "y"), weight, classes=10)
    with pytest.raises(DataError, match=r"expected class numbers from 0 to 9, got labels from 0.0 to 598.0"):
        write(table, stored.uri, layout)
