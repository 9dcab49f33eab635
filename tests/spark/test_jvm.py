"""The engine onnx-jvm: what the bundle answers, the checks of columns.py, no Python worker, models that change on the fly."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import jvm
import kafka
import numpy as np
import onnx
import pyarrow as pa
import pytest
import torch
from onnx import TensorProto, helper
from pyspark.sql import functions as sf
from torch import nn

from sparkdl import Bundle, Signature, SparkdlError, TensorSpec, TorchModel, columns
from sparkdl.errors import BundleIntegrityError, InvalidParamError
from sparkdl.graph import Graph, Input, Output
from sparkdl.graph.graph import Buckets
from sparkdl.jvm import scorer, session
from sparkdl.preprocess import Hashed

DTYPES = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")
NAN, INF = float("nan"), float("inf")
AWAIT_S = 60


@pytest.fixture(autouse=True)
def _jar():
    jvm.require()


def onnx_bytes(dtype, shape, *nodes, output_shape=None, **initializers):
    """A model of the input ``x``, any number of rows, and the output ``y``."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    sizes = ["rows", *("length" if size < 0 else size for size in shape)]
    given = helper.make_tensor_value_info("x", kind, sizes)
    made = helper.make_tensor_value_info("y", kind, sizes if output_shape is None else ["rows", *output_shape])
    graph = helper.make_graph(list(nodes), "g", [given], [made], [*initializers.values()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


def graph_of(content, dtype, shape, kind, output_shape=None):
    output = shape if output_shape is None else output_shape
    return Graph(content, (Input("x", dtype, shape, ("x",), (kind,)),), (Output("y", dtype, output),), 0.0)


def signature_of(graph):
    (given,), (made,) = graph.inputs, graph.outputs
    spec = TensorSpec("x", given.dtype, given.shape, given.columns, given.types)
    return Signature((spec,), (TensorSpec("y", made.dtype, made.shape),))


def identity(dtype, shape=(), kind="float"):
    """The graph that gives its input; of one whose length varies, the sum over it."""
    if -1 not in shape:
        return graph_of(onnx_bytes(dtype, shape, helper.make_node("Identity", ["x"], ["y"])), dtype, shape, kind)
    axis = helper.make_tensor("axis", TensorProto.INT64, [1], [1])
    node = helper.make_node("ReduceSum", ["x", "axis"], ["y"], keepdims=0)
    content = onnx_bytes(dtype, shape, node, output_shape=shape[1:], axis=axis)
    return graph_of(content, dtype, shape, kind, shape[1:])


def scored(spark, graph, **settings):
    return scorer.scorer(spark, signature_of(graph), graph, scorer.Settings(**{"invalid": "keep", **settings}))


def expected(cell, graph, arrow):
    """What Python makes of the cell: the answer and what is wrong."""
    (spec,) = signature_of(graph).inputs
    try:
        value = columns.read({"x": pa.array([cell], arrow)}, spec)
    except columns.BadRows as error:
        return None, error.reasons[0]
    value = value.values.sum(axis=0)[None] if isinstance(value, columns.Ragged) else value
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        return None, f"non-finite: output 'y': the model returned {value[~np.isfinite(value)][0]}"
    return columns.to_arrow(value).to_pylist()[0], None


CELLS = {
    "boolean": (pa.bool_(), [True, False, None]),
    "byte": (pa.int8(), [-128, -1, 0, 127]),
    "short": (pa.int16(), [-129, 255, 256]),
    "long": (pa.int64(), [2**62, -(2**31) - 1, 2**24 + 1, 0]),
    "float": (pa.float32(), [1.5, 0.1, -0.0, 3.0, 255.0, 70000.0, 1e20, NAN, INF, -INF, None]),
    "double": (pa.float64(), [0.1, -1.0, 2.0**63, 300.0, 1e300, 1e-7, 123456789.5, 2.0**60]),
    "decimal": (pa.decimal128(12, 2), [Decimal("1.50"), Decimal("3.00"), Decimal("-129.00"), None]),
}
SQL = {"byte": "tinyint", "short": "smallint", "long": "bigint", "decimal": "decimal(12,2)"}


@pytest.mark.parametrize("kind", CELLS)
def test_a_scalar_becomes_each_dtype_as_in_python(spark, kind):
    arrow, cells = CELLS[kind]
    graphs = {dtype: identity(dtype, (), kind) for dtype in DTYPES}
    rows = spark.createDataFrame([(i, cell) for i, cell in enumerate(cells)], f"id int, x {SQL.get(kind, kind)}")
    found = rows.select("id", *(scored(spark, graph)(sf.struct("x")).alias(d) for d, graph in graphs.items()))
    for row in found.collect():
        for dtype, graph in graphs.items():
            if kind == "long" and dtype == "float16" and abs(cells[row.id]) > 65504:
                continue  # numpy makes an infinity of it
            value, problem = expected(cells[row.id], graph, arrow)
            assert (row[dtype].y, row[dtype].problem) == (value, problem), (dtype, cells[row.id])


ARRAYS = [
    ("float32", (2,), "array<float>", pa.list_(pa.float32()),
     [[1.0, 2.5], [1.0], [], [1.0, None], [None], [NAN, 1.0], None]),
    ("int8", (2,), "array<double>", pa.list_(pa.float64()), [[1.0, -2.0], [1.5, None], [1.5, 300.0], [300.0, 1.0]]),
    ("float64", (2, 2), "array<array<float>>", pa.list_(pa.list_(pa.float32())),
     [[[1.0, 2.0], [3.0, 4.0]], [[1.0, 2.0]], [[1.0, 2.0], [3.0]], [[1.0, 2.0], None], [[1.0, None], [3.0, 4.0]]]),
    ("float32", (2, 3), "array<int>", pa.list_(pa.int32()), [[1, 2, 3, 4, 5, 6], [1, 2, 3]]),
    ("int64", (-1,), "array<bigint>", pa.list_(pa.int64()), [[1, 2, 3], [7] * 300, [], [1, None]]),
    ("float32", (-1, 2), "array<float>", pa.list_(pa.float32()), [[1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0]]),
    ("float32", (-1, 2), "array<array<float>>", pa.list_(pa.list_(pa.float32())),
     [[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], [[1.0]]]),
    ("uint8", (2, 2), "binary", pa.binary(), [b"\x00\x01\xfe\xff", b"\x00", None]),
    ("float32", (2,), "binary", pa.binary(), [np.array([1.5, -2], "<f4").tobytes(), b"1234567"]),
    ("int64", (-1,), "binary", pa.binary(), [np.arange(5, dtype="<i8").tobytes(), b"1234567"]),
    ("uint8", (4,), "string", pa.string(), ["ab", "", "abcd", "€a", "€uro", None]),
    ("float32", (-1,), "string", pa.string(), ["ab", "€"]),
]  # fmt: skip


def test_arrays_bytes_and_texts_are_read_and_refused_as_in_python(spark):
    for dtype, shape, kind, arrow, cells in ARRAYS:
        graph = identity(dtype, shape, kind)
        rows = spark.createDataFrame([(i, cell) for i, cell in enumerate(cells)], f"id int, x {kind}").coalesce(1)
        for row in rows.select("id", scored(spark, graph)(sf.struct("x")).alias("s")).collect():
            value, problem = expected(cells[row.id], graph, arrow)
            assert (row.s.y, row.s.problem) == (value, problem), (dtype, shape, kind, cells[row.id])


TEXTS = {
    "string": (pa.string(), ["", "a", "Zürich", "1234567", "12345678", "123456789 and more than two words", None]),
    "bigint": (pa.int64(), [2, -7, 2**62, None]),
    "double": (pa.float64(), [2.0, 2.5, NAN, INF, 2.0**63, -0.0, None]),
    "boolean": (pa.bool_(), [True, False]),
}


@pytest.mark.parametrize("kind", TEXTS)
def test_cells_are_hashed_as_by_python(spark, kind):
    check_hashes(spark, kind, 12345)


def check_hashes(spark, kind, seed):
    arrow, cells = TEXTS[kind]
    plain = identity("int64", (), kind)
    (one,) = plain.inputs
    hashed = Graph(plain.content, (replace(one, hashed=Buckets(count=97, seed=seed)),), plain.outputs, 0.0)
    wanted = Hashed(buckets=97, seed=seed).read({"x": pa.array(cells, arrow)}).tolist()
    rows = spark.createDataFrame([(i, cell) for i, cell in enumerate(cells)], f"id int, x {kind}").coalesce(1)
    found = rows.select("id", scored(spark, hashed)(sf.struct("x")).alias("s")).collect()
    assert [wanted[row.id] for row in found] == [row.s.y for row in found]


def test_cells_are_hashed_alike_where_digits_are_written_otherwise(spark):
    locale = spark.sparkContext._jvm.java.util.Locale
    before = locale.getDefault()
    locale.setDefault(locale.forLanguageTag("ar-EG"))
    try:
        check_hashes(spark, "boolean", 54321)
    finally:
        locale.setDefault(before)


class Several(nn.Module):
    def __init__(self):
        super().__init__()
        self.image = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.word = nn.Embedding(20, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.table = nn.Linear(3, 4)

    def forward(self, image, words, table):
        words = self.word(words)
        mixed = self.attention(words, words, words)[0].mean(1)
        return {"mixed": torch.cat([self.image(image), mixed, self.table(table)], 1), "sum": table.sum(1)}


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(2, 4, batch_first=True)
        self.head = nn.Linear(4, 1)

    def forward(self, steps, mask):
        made = self.lstm(steps)[0] * mask.unsqueeze(-1)
        return self.head(made.sum(1))


def arrays(spec, rows, chance):
    size = (rows, *spec.shape)
    return chance.integers(0, 20, size) if spec.dtype == "int64" else chance.standard_normal(size).astype("float32")


@pytest.mark.parametrize("image_kind", ["array<array<array<float>>>", "binary"])
def test_images_words_by_attention_and_stacked_numbers(spark, several, image_kind):
    bundle, image = several, TensorSpec("image", "float32", (3, 32, 32), ("image",), (image_kind,))
    graph = bundle.graph
    given = tuple(
        Input(**{**vars(one), "types": (image_kind,)}) if one.name == "image" else one for one in graph.inputs
    )
    chance = np.random.default_rng(0)
    tensors = {spec.name: arrays(spec, 5, chance) for spec in bundle.signature.inputs}
    rows = [
        (one.tobytes() if image_kind == "binary" else one.tolist(), words.tolist(), *map(float, table))
        for one, words, table in zip(*tensors.values(), strict=True)
    ]
    df = spark.createDataFrame(rows, f"image {image_kind}, words array<bigint>, a double, b float, c double")
    signature = Signature((image, *bundle.signature.inputs[1:]), bundle.signature.outputs)
    score = scorer.scorer(spark, signature, Graph(graph.content, given, graph.outputs, 1e-4), scorer.Settings())
    found = df.coalesce(1).select(score(sf.struct(*signature.columns)).alias("s")).select("s.*").collect()
    for name, values in bundle.predict(tensors).items():
        np.testing.assert_allclose([row[name] for row in found], values, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def several():
    torch.manual_seed(0)
    image = TensorSpec("image", "float32", (3, 32, 32), ("image",), ("array<array<array<float>>>",))
    words = TensorSpec("words", "int64", (6,), ("words",), ("array<long>",))
    table = TensorSpec("table", "float32", (3,), ("a", "b", "c"), ("double", "float", "double"))
    return Bundle.from_module(Several(), Signature((image, words, table)))


def test_rows_of_varying_length_by_a_recurrent_model(spark):
    torch.manual_seed(0)
    steps = TensorSpec("steps", "float32", (-1, 2), ("steps",), ("array<array<float>>",))
    bundle = Bundle.from_module(Recurrent(), Signature((steps, TensorSpec("mask", "float32", (-1,), mask_of="steps"))))
    lengths = [1, 9, 3, 40, 0, 2]
    rows = [np.random.default_rng(i).standard_normal((n, 2)).astype("float32") for i, n in enumerate(lengths)]
    df = spark.createDataFrame([(row.tolist(),) for row in rows], "steps array<array<float>>").coalesce(1)
    (name,) = columns.answers(bundle.signature)
    found = TorchModel(bundle).setEngine("onnx-jvm").transform(df).collect()
    wanted = bundle.predict({"steps": columns.Ragged.of(rows, "float32", (-1, 2))})[name]
    np.testing.assert_allclose([row[name] for row in found], wanted, rtol=1e-4, atol=1e-5)


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))


@pytest.fixture(scope="module")
def bundle():
    spec = TensorSpec("features", "float32", (4,), ("features",), ("array<float>",))
    return Bundle.from_module(net(), Signature((spec,)), task="multiclass").with_graph()


@pytest.fixture
def model(bundle):
    return TorchModel(bundle).setEngine("onnx-jvm")


@pytest.fixture(scope="module")
def good_and_bad(spark):
    rows = [(0, [0.1, 0.2, 0.3, 0.4]), (1, None), (2, [1.0]), (3, [NAN, 0.0, 0.0, 0.0]), (4, [1.0, -1.0, 1.0, -1.0])]
    return spark.createDataFrame(rows, "id int, features array<float>").coalesce(1)


def by_python(features):
    made = net().eval()(torch.tensor(features)).softmax(1)
    return made.argmax(1).tolist(), made.tolist()


def test_a_model_scores_without_a_python_worker(spark, model, points):
    found = model.transform(points.withColumn("__Scored__", sf.lit(1)))
    plan = found._jdf.queryExecution().toString()
    assert "UDF(struct(" in plan
    assert "Python" not in plan
    rows = found.collect()
    assert {*points.columns, "__Scored__"} < set(found.columns)
    prediction, probability = by_python([row.features for row in rows])
    assert [row.prediction for row in rows] == prediction
    np.testing.assert_allclose([row.probability for row in rows], probability, atol=1e-5)


def test_bad_rows_are_kept_with_what_is_wrong_as_by_python(model, good_and_bad):
    model.setHandleInvalid("keep").setErrorCol("wrong")
    kept, by_python = (model.setEngine(one).transform(good_and_bad).collect() for one in ("onnx-jvm", "python"))
    assert [(row.id, row.prediction, row.wrong) for row in kept] == [
        (row.id, row.prediction, row.wrong) for row in by_python
    ]
    model.setEngine("onnx-jvm")
    assert [row.id for row in model.setHandleInvalid("skip").transform(good_and_bad).collect()] == [0, 4]


def test_a_bad_row_ends_the_job_with_its_column_and_what_it_holds(model, good_and_bad):
    with pytest.raises(Exception, match=r"column 'features': expected 4 values, got 1 values"):
        model.transform(good_and_bad.where("id = 2")).collect()
    with pytest.raises(Exception, match=r"the model returned nan; say handleInvalid='keep'"):
        model.transform(good_and_bad.where("id = 3")).collect()


def test_vectors_go_in_and_come_out(spark, bundle, points):
    from pyspark.ml.functions import array_to_vector

    spec = TensorSpec("features", "float32", (4,), ("features",), ("vector",))
    graph = bundle.graph
    vectors = Graph(graph.content, (Input(**{**vars(graph.inputs[0]), "types": ("vector",)}),), graph.outputs, 1e-4)
    changed = Bundle(
        bundle.program, bundle.weights, Signature((spec,), bundle.signature.outputs), "multiclass", stored_graph=vectors
    )
    model = TorchModel(changed).setEngine("onnx-jvm").setProbabilityAsVector(True)
    df = points.withColumn("features", array_to_vector(sf.col("features").cast("array<double>")))
    rows = model.transform(df).orderBy("id").limit(5).collect()
    np.testing.assert_allclose(
        [row.probability.toArray() for row in rows], by_python([row.features.toArray().tolist() for row in rows])[1],
        atol=1e-5,
    )  # fmt: skip


def test_an_expression_and_a_function_of_sql(spark, model, points):
    rows = points.select("features", model.udf()("features").alias("made")).collect()
    prediction, probability = by_python([row.features for row in rows])
    assert [row.made.prediction for row in rows] == prediction
    np.testing.assert_allclose([row.made.probability for row in rows], probability, atol=1e-5)
    model.register(spark, "jvm_score")
    points.createOrReplaceTempView("jvm_points")
    found = spark.sql("SELECT jvm_score(features).prediction AS p FROM jvm_points").collect()
    assert [row.p for row in found] == prediction


def test_a_stream_is_transformed(spark, model, points, tmp_path):
    points.select("id", "features").write.parquet(str(tmp_path / "in"))
    stream = spark.readStream.schema(points.select("id", "features").schema).parquet(str(tmp_path / "in"))
    writer = model.transform(stream).writeStream.format("memory").queryName("jvm_scored").trigger(availableNow=True)
    writer.option("checkpointLocation", str(tmp_path / "checkpoint")).start().awaitTermination(AWAIT_S)
    rows = spark.table("jvm_scored").orderBy("id").collect()
    assert [row.prediction for row in rows] == by_python([row.features for row in rows])[0]


@pytest.mark.parametrize(
    ("name", "value"), [("device", "cpu"), ("batchSize", 8), ("precision", "float16"), ("udfType", "pandas")]
)
def test_choices_that_python_alone_has_are_refused(model, points, name, value):
    with pytest.raises(InvalidParamError, match=f"'{name}' is set, and the engine 'onnx-jvm' has no such choice"):
        model.setParams(**{name: value}).transform(points)


def field(number, content, over=0):
    """Of a protobuf message; ``over``: bits of its tag behind the 32nd, which C++ cuts off and others may not."""
    written = b""
    for value in (over << 32 | number << 3 | 2, len(content)):
        while value > 0x7F:
            written += bytes([value & 0x7F | 0x80])
            value >>= 7
        written += bytes([value])
    return written + content


def hidden(case, model):
    graph = model.graph.SerializeToString()
    if case == "hidden external data":
        location = onnx.StringStringEntryProto(key="location", value="secret.bin").SerializeToString()
        tensor = TensorProto(name="w", data_type=1, dims=[1], data_location=TensorProto.EXTERNAL)
        data_location, over = b"\x70\x01", b"\xf0\x80\x80\x80\x10\x01"
        graph += field(5, tensor.SerializeToString().replace(data_location, over) + field(13, location, 1))
    elif case == "hidden domain":
        graph += field(1, helper.make_node("Gelu", ["x"], ["z"]).SerializeToString() + field(7, b"com.microsoft", 1))
    else:
        graph += field(0, b"nothing")
    model.ClearField("graph")
    return model.SerializeToString() + field(7, graph)


def hostile(case):
    content = onnx_bytes("float32", (), helper.make_node("Identity", ["x"], ["y"]))
    model = onnx.load_model_from_string(content)
    if case == "external data":
        tensor = model.graph.initializer.add(name="w", data_type=1, dims=[1], data_location=TensorProto.EXTERNAL)
        tensor.external_data.add(key="location", value="../../../../etc/passwd")
    elif case == "external data in an attribute":
        tensor = TensorProto(name="w", data_type=1, dims=[1])
        tensor.external_data.add(key="location", value="../../../../etc/passwd")
        model.graph.node.append(helper.make_node("Constant", [], ["w"], value=tensor))
    elif case == "operator":
        model.graph.node[0].op_type = "Nonsense"
    elif case == "domain":
        model.graph.node[0].domain = "com.example"
    elif case.startswith("hidden"):
        return hidden(case, model)
    changed = model.SerializeToString()
    return changed[:-9] if case == "truncated" else changed


@pytest.mark.parametrize(
    ("case", "why"),
    [
        ("external data", "lies in a further file"),
        ("external data in an attribute", "lies in a further file"),
        ("operator", "Nonsense"),
        ("domain", "operator of the domain 'com.example'"),
        ("truncated", "cut short"),
        ("hidden external data", "no protobuf message"),
        ("hidden domain", "no protobuf message"),
        ("hidden field of number 0", "no protobuf message"),
        ("digest", "its sha256 is"),
    ],
)
def test_a_hostile_model_is_refused(spark, case, why):
    graph = graph_of(hostile(case), "float32", (), "float")
    if case == "digest":
        graph.__dict__["sha256"] = "0" * 64
    with pytest.raises(BundleIntegrityError, match=why):
        scored(spark, graph)


def doubling(factor):
    by = helper.make_tensor("by", TensorProto.FLOAT, [], [factor])
    content = onnx_bytes("float32", (), helper.make_node("Mul", ["x", "by"], ["y"]), by=by)
    return graph_of(content, "float32", (), "float")


def publish(folder, version, graph, content=None, changed=None):
    """As the driver of a real-time query does it."""
    name = f"graph-{graph.sha256}.onnx"
    (folder / name).write_bytes(graph.content if content is None else content)
    told = {"model_version": version, "file": name, "graph": graph.to_json(), "answers": {"y": "float"}}
    told |= changed or {}
    (folder / ".next").write_text(json.dumps(told))
    os.replace(folder / ".next", folder / "current.json")


def metrics(spark):
    """What the scorers of this JVM counted."""
    session.load(spark)
    registry = spark.sparkContext._jvm.sparkdl.jvm.Metrics.here().metricRegistry()
    counts = {name: registry.getMeters().get(name).getCount() for name in ("rows", "deadLetters")}
    counts |= {name: registry.getCounters().get(name).getCount() for name in ("swaps", "refusals")}
    latencies = registry.getHistograms().get("latencyMs")
    counts |= {"latencies": latencies.getCount(), "slowest": latencies.getSnapshot().getMax()}
    return counts | {"version": registry.getGauges().get("modelVersion").getValue()}


def awaited(check):
    until = time.monotonic() + AWAIT_S
    while not (found := check()):
        assert time.monotonic() < until, "it did not come"
    return found


def test_a_folder_s_current_model_is_followed_and_a_bad_one_is_not(spark, tmp_path):
    follow = scorer.Following(tmp_path.as_uri(), 20)
    score = scored(spark, doubling(2.0), model_version="1", follow=follow)
    rows = spark.createDataFrame([(1.0,), (None,)], "x float").coalesce(1).select(score(sf.struct("x")).alias("s"))

    def scored_by(version):
        row = rows.collect()[0].s
        return row.model_version == version and row

    assert scored_by("1").y == 2.0
    before = metrics(spark)
    publish(tmp_path, "2", doubling(3.0))
    assert awaited(lambda: scored_by("2")).y == 3.0
    assert metrics(spark)["swaps"] == before["swaps"] + 1
    assert metrics(spark)["version"] == 2
    bad = [
        (doubling(4.0), b"another content"), (identity("float64"), None),
        (graph_of(hostile("external data"), "float32", (), "float"), None),
    ]  # fmt: skip
    for i, (graph, content) in enumerate(bad, 1):
        publish(tmp_path, f"bad {i}", graph, content)
        awaited(lambda i=i: metrics(spark)["refusals"] == before["refusals"] + i)
        assert scored_by("2").y == 3.0
    publish(tmp_path, "3", doubling(5.0))
    assert awaited(lambda: scored_by("3")).y == 5.0
    counted = metrics(spark)
    assert counted["refusals"] == before["refusals"] + len(bad)
    assert counted["rows"] - before["rows"] == 2 * (counted["deadLetters"] - before["deadLetters"]) > 0


def nonsense(**changed):
    """A description of a graph, and an input's part of it that is another."""
    told = doubling(2.0).to_json()
    return {"graph": told | {"inputs": [told["inputs"][0] | changed]}}


NONSENSE = [
    {"graph": None},
    {"graph": {"inputs": [], "outputs": []}},
    {"file": "absent.onnx"},
    {"file": "../graph.onnx"},
    nonsense(types=[]),
    nonsense(shape=[2**31 - 1, 2**31 - 1]),
    nonsense(shape=[2**31 - 1]),
    nonsense(dtype="float1"),
    nonsense(hashed={}),
    nonsense(missing={"text": ""}),
    nonsense(columns=[], types=[], mask_of="y"),
    nonsense(columns=[], types=[], mask_of="x", shape=[-1]),
]


def test_a_description_that_makes_no_sense_is_refused_and_the_old_model_goes_on(spark, tmp_path):
    score = scored(spark, doubling(2.0), model_version="1", follow=scorer.Following(tmp_path.as_uri(), 5))
    rows = spark.createDataFrame([(1.0,)], "x float").select(score(sf.struct("x")).alias("s"))
    assert rows.first().s.y == 2.0
    before = metrics(spark)["refusals"]
    for i, changed in enumerate(NONSENSE, 1):
        publish(tmp_path, f"bad {i}", doubling(3.0), changed=changed)
        awaited(lambda i=i: metrics(spark)["refusals"] == before + i)
    (tmp_path / "current.json").write_text("[" * 5000)
    awaited(lambda: metrics(spark)["refusals"] == before + len(NONSENSE) + 1)
    assert rows.first().s.model_version == "1"
    publish(tmp_path, "2", doubling(3.0))
    awaited(lambda: rows.first().s.y == 3.0)


def test_who_begins_takes_the_current_model_or_says_why_it_cannot(spark, tmp_path):
    rows = spark.createDataFrame([(1.0,)], "x float")

    def first(everyMs):
        follow = scorer.Following(tmp_path.as_uri(), everyMs)
        score = scored(spark, doubling(2.0), model_version="1", follow=follow)
        return rows.select(score(sf.struct("x")).alias("s")).first().s.model_version

    assert first(100_001) == "1"
    publish(tmp_path, "2", doubling(3.0))
    assert first(100_002) == "2"
    publish(tmp_path, "3", doubling(4.0), b"another content")
    with pytest.raises(Exception, match=r"cannot score by what the others score by: the model 3 .* its sha256 is"):
        first(100_003)


def test_a_model_without_rows_is_let_go_and_a_later_row_loads_it_anew(spark, tmp_path):
    score = scored(spark, doubling(2.0), follow=scorer.Following(tmp_path.as_uri(), 5))
    rows = spark.createDataFrame([(1.0,)], "x float").select(score(sf.struct("x")).y.alias("y"))
    jvm = spark.sparkContext._jvm
    threads = jvm.java.lang.Thread.getAllStackTraces

    def followers():
        return sum(one.getName() == f"sparkdl-follows-{tmp_path.name}" for one in threads().keySet())

    assert (rows.first().y, followers()) == (2.0, 1)
    loader = jvm.java.lang.Thread.currentThread().getContextClassLoader()
    (sweep,) = (one for one in loader.loadClass("sparkdl.jvm.Models").getDeclaredMethods() if one.getName() == "sweep")
    sweep.setAccessible(True)
    arguments = spark.sparkContext._gateway.new_array(jvm.java.lang.Object, 1)
    arguments[0] = jvm.java.lang.Long.valueOf(-(2**62))
    sweep.invoke(None, arguments)
    awaited(lambda: followers() == 0)
    assert (rows.first().y, followers()) == (2.0, 1)


def test_a_records_latency_is_that_since_its_timestamp(spark):
    score = scored(spark, doubling(2.0), record=True)
    before = metrics(spark)["latencies"]
    rows = spark.createDataFrame([(1.0, 10.0), (2.0, None)], "x float, ago double")
    rows = rows.select(
        "x",
        sf.lit(None).cast("string").alias("w"),
        sf.expr("timestamp_millis(cast(unix_millis(current_timestamp()) - 1000 * ago as bigint))").alias("t"),
    )
    assert {row.y for row in rows.select(score(sf.struct("x", "w", "t")).y.alias("y")).collect()} == {2.0, 4.0}
    assert metrics(spark)["latencies"] == before + 1
    assert 10_000 <= metrics(spark)["slowest"] < 10_000 + 1000 * AWAIT_S


def test_a_record_that_could_not_be_parsed_is_told_and_counted(spark):
    score = scored(spark, doubling(2.0), record=True, model_version="7")
    before = metrics(spark)
    rows = spark.range(3).selectExpr("string(null)", "1f as x", "if(id = 1, 'unparsable: x', null) as w", "now() as t")
    told = rows.select(score(sf.struct("x", "w", "t")).alias("s")).select("s.*").collect()
    assert [(row.y, row.problem, row.model_version) for row in told] == [
        (2.0, None, "7"), (None, "unparsable: x", None), (2.0, None, "7")
    ]  # fmt: skip
    after = metrics(spark)
    assert (after["rows"] - before["rows"], after["deadLetters"] - before["deadLetters"]) == (3, 1)


def test_loading_twice_adds_the_jar_once(spark):
    session.load(spark)
    session.load(spark)
    assert spark.sparkContext._jsc.sc().listJars().mkString(" ").count(session.JAR) == 1


def test_another_versions_jar_is_refused(spark, monkeypatch):
    monkeypatch.setattr(session, "__version__", "99.0")
    with pytest.raises(SparkdlError, match=r"is of sparkdl .*, and Python has 99\.0: build it anew"):
        session.load(spark)


def test_a_session_without_onnx_runtime_is_told_the_setting(spark, monkeypatch):
    monkeypatch.setattr(session, "_RUNTIME_CLASS", "ai.onnxruntime.Absent")
    with pytest.raises(SparkdlError, match=r"spark\.jars\.packages=com\.microsoft\.onnxruntime:onnxruntime:"):
        session.load(spark)


def test_an_onnx_runtime_that_is_too_old_is_told(spark, monkeypatch):
    monkeypatch.setattr(session, "LEAST_RUNTIME", (99, 0))
    with pytest.raises(SparkdlError, match=r"ONNX Runtime in Spark's JVM is 1\..*needs 99\.0 or newer"):
        session.load(spark)


def test_executors_of_their_own_need_no_python_and_their_sinks_show_the_metrics(bundle, tmp_path):
    """In a local cluster whose workers could not start a Python."""
    bundle.save(str(tmp_path / "bundle"))
    (tmp_path / "metrics").mkdir()
    script = Path(__file__).with_name("jvm_driver.py")
    environment = {**os.environ, "PYSPARK_PYTHON": "/nonexistent/python"}
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), ",".join(map(str, kafka.require_jars("onnx").glob("*.jar")))],
        env=environment, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert (
        json.loads((tmp_path / "answers.json").read_text())
        == by_python([[0.5 * i, 1.0, -1.0, 0.0] for i in range(6)])[0]
    )
    counted = [
        int(path.read_text().splitlines()[-1].split(",")[1]) for path in tmp_path.glob("metrics/*.sparkdl.rows.csv")
    ]
    assert sum(counted) == 6
