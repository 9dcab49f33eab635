"""Preprocessors and decoders in a graph: each answers what it does in Python, of any cell. The model between is ONNX's
Identity, so that nothing has to be exported."""

import numpy as np
import onnx
import pyarrow as pa
import pytest
from onnx import TensorProto, helper

from sparkdl import columns
from sparkdl.bundle import Bundle
from sparkdl.columns import BadRows
from sparkdl.decode.labels import LabelDecoder
from sparkdl.decode.sequences import AnomalyDecoder, ForecastDecoder
from sparkdl.errors import GraphError
from sparkdl.graph import Text
from sparkdl.graph.build import build
from sparkdl.graph.rows import tensors
from sparkdl.interop.onnx import module
from sparkdl.preprocess import Categories, Characters, DateParts, Hashed, Image, Numbers
from sparkdl.signature import Signature, TensorSpec

NUMBERS = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    1e-20,
    -3e-9,
    0.1,
    2.5,
    7.0,
    -40.0,
    1e9 + 1,
    -1e9,
    2.0**53 + 2,
    1e15,
    None,
    float("nan"),
]
LEARNT = {
    "fills": (2.5, -3.0),
    "lows": (-30.0, -5.0),
    "highs": (40.0, 5.0),
    "shifts": (1.5, 0.0),
    "scales": (2.0, 1e-9),
}


def identity(shape=(2,), kind=TensorProto.FLOAT, name="x"):
    ends = [helper.make_tensor_value_info(each, kind, ("B", *shape)) for each in (name, "y")]
    node = helper.make_node("Identity", [name], ["y"])
    made = helper.make_graph([node], "g", ends[:1], ends[1:])
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()


def bundle_of(preprocess, names, kinds):
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(preprocess.dtype))
    spec = TensorSpec("x", preprocess.dtype, preprocess.shape, names, kinds, preprocess=preprocess)
    return Bundle.from_onnx(identity(preprocess.shape, kind), Signature((spec,)))


def graph_and_read(preprocess, rows, kinds):
    """The tensor as the graph makes it, and as the preprocessor does."""
    bundle = bundle_of(preprocess, tuple(rows), kinds)
    graph = bundle.graph
    return module(graph.content).run(tensors(graph, rows))["y"], columns.read(rows, bundle.signature.inputs[0])


def numbers_rows(values, kind="double"):
    arrow = columns.arrow_of_kind(kind)
    return {"a": pa.array(values, arrow), "b": pa.array(values[::-1], arrow)}


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("scale", [{}, {"clip": (0.01, 0.99)}, {"infinite": "clip"}])
@pytest.mark.parametrize("indicator", [False, True])
def test_numbers(log, scale, indicator):
    preprocess = Numbers(log=log, indicator=indicator, **scale, **LEARNT)
    infinite = [float("inf"), float("-inf")] if "infinite" in scale else []
    got, expected = graph_and_read(preprocess, numbers_rows([*NUMBERS, *infinite]), ("double", "double"))
    assert got.dtype == expected.dtype
    np.testing.assert_allclose(
        got, expected, rtol=0 if not log else 2e-7
    )  # of logarithms libraries differ in the last bit


@pytest.mark.parametrize("kind", ["byte", "integer", "long", "boolean", "float"])
def test_numbers_of_every_kind(kind):
    values = [True, False, None] if kind == "boolean" else [1, -7, 100, None]
    got, expected = graph_and_read(Numbers(**LEARNT), numbers_rows(values, kind), (kind, kind))
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    ("settings", "missing", "refuses"),
    [
        ({}, "nan", ("inf",)),
        ({"infinite": "clip"}, "nan", ()),
        ({"impute": "error"}, None, ("nan", "inf")),
        ({"impute": "error", "infinite": "clip"}, None, ("nan",)),
    ],
)
def test_rows_that_numbers_refuse(settings, missing, refuses):
    (told,) = bundle_of(Numbers(**settings, **LEARNT), ("a", "b"), ("double", "double")).graph.inputs
    assert (told.dtype, told.shape, told.columns) == ("float64", (2,), ("a", "b"))
    assert (told.missing, told.refuses) == (missing, refuses)


def test_a_null_is_bad_where_none_is_imputed():
    graph = bundle_of(Numbers(impute="error", **LEARNT), ("a", "b"), ("double", "double")).graph
    with pytest.raises(BadRows, match="column 'a', row 1: expected float64"):
        tensors(graph, numbers_rows([1.0, None, 2.0, 3.0]))


VOCABULARIES = (("rome", "", "Zürich", "東京", "null"), ("2", "-7", "9007199254740993"), ("true",), ())


def test_categories():
    rows = {
        "city": pa.array(["Zürich", "", None, "null", "rome ", "東京", "rome"]),
        "code": pa.array([2, None, -7, 9007199254740993, 9007199254740992, 0, 3], pa.int64()),
        "member": pa.array([True, False, None, True, True, False, False]),
        "new": pa.array(["a", "b", None, "", "c", "null?", "d"]),
    }
    preprocess = Categories(vocabularies=VOCABULARIES)
    got, expected = graph_and_read(preprocess, rows, ("string", "long", "boolean", "string"))
    np.testing.assert_array_equal(got, expected)
    assert got[:, 0].tolist() == [3, 2, 0, 5, 0, 4, 1]
    (told,) = bundle_of(preprocess, tuple(rows), ("string", "long", "boolean", "string")).graph.inputs
    assert (told.dtype, told.shape, told.missing) == ("string", (4,), Text("null?"))


def test_categories_of_fractions():
    rows = {"x": pa.array([2.0, 2.5, None, float("nan"), float("inf"), -0.0, 2.0**63])}
    got, expected = graph_and_read(Categories(vocabularies=(("2", "0"),)), rows, ("double",))
    assert got.tolist() == expected.tolist() == [[1], [0], [0], [0], [0], [2], [0]]


DATES = ["0001-01-01", "1600-02-29", "1899-12-31", "1969-12-31", "1970-01-01", "2000-02-29", "2024-02-28", "2024-02-29",
         "2024-03-01", "2023-12-31", "2100-02-28", "2100-03-01", "2254-01-01", "9999-12-31"]  # fmt: skip


@pytest.mark.parametrize("kind", ["date", "timestamp", "timestamp_ntz"])
@pytest.mark.parametrize("settings", [{}, {"cyclic": False}, {"parts": ("hour", "year")}, {"parts": ("weekday",)}])
def test_dates(kind, settings):
    times = np.array(DATES, "datetime64[us]")
    if kind != "date":
        exact = times[2:-1]  # of the years 1685 to 2254
        times = np.concatenate([times, exact - 1, exact + 86_399_999_999, exact + 45_678_901_234])
    column = pa.array(times, mask=np.arange(len(times)) == 4).cast(
        pa.date32() if kind == "date" else pa.timestamp("us")
    )
    column = column.cast(pa.int64()) if kind == "timestamp" else column
    got, expected = graph_and_read(DateParts(outside="clip", **settings), {"at": column}, (kind,))
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-7)


def test_every_day_of_eight_centuries():
    days = pa.array(np.arange("1600-01-01", "2400-01-01", dtype="datetime64[D]"))
    preprocess = DateParts(parts=("year", "month", "day", "weekday"), cyclic=False, years=(1600, 2400))
    got, expected = graph_and_read(preprocess, {"at": days}, ("date",))
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    ("preprocess", "kind", "values", "bad"),
    [
        (DateParts(), "date", ["1969-12-31", "1970-01-01", None, "2100-12-31", "2101-01-01"], [0, 4]),
        (Categories(vocabularies=(("a",),), unknown="error"), "string", ["a", "b", None, "a"], [1, 2]),
        (Numbers(**{key: value[1:] for key, value in LEARNT.items()}), "double", [1.0, 1e30, None, -1e300], [1, 3]),
    ],
)
def test_all_answers_of_a_row_that_a_step_refuses_are_nan(preprocess, kind, values, bad):
    """They are bad rows in Python too."""
    column = pa.array(values).cast(columns.arrow_of_kind(kind))
    bundle = with_float_outputs(preprocess, kind)
    with pytest.raises(BadRows) as caught:
        columns.read({"c": column}, bundle.signature.inputs[0])
    got = module(bundle.graph.content).run(tensors(bundle.graph, {"c": column}))
    assert caught.value.rows == bad == np.flatnonzero(np.isnan(got["score"])).tolist()
    np.testing.assert_array_equal(np.isnan(got["y"]).any(axis=1), np.isnan(got["score"]))


def with_float_outputs(preprocess, kind):
    """A model of two outputs, ``(B, n)`` and ``(B,)``, in float32."""
    dtype = helper.np_dtype_to_tensor_dtype(np.dtype(preprocess.dtype))
    ends = [helper.make_tensor_value_info("x", dtype, ("B", *preprocess.shape))]
    ends += [
        helper.make_tensor_value_info("y", TensorProto.FLOAT, ("B", *preprocess.shape)),
        helper.make_tensor_value_info("score", TensorProto.FLOAT, ("B",)),
    ]
    nodes = [
        helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT),
        helper.make_node("Tanh", ["y"], ["small"]),
        helper.make_node("Gather", ["small", "first"], ["score"], axis=1),
    ]
    first = helper.make_tensor("first", TensorProto.INT64, [], [0])
    made = helper.make_graph(nodes, "g", ends[:1], ends[1:], [first])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()
    spec = TensorSpec("x", preprocess.dtype, preprocess.shape, ("c",), (kind,), preprocess=preprocess)
    return Bundle.from_onnx(model, Signature((spec,)))


def test_where_no_answer_can_be_nan_no_row_could_be_refused():
    with pytest.raises(
        GraphError, match="Categories, which reads column 'c', refuses rows by their values, which only"
    ):
        bundle_of(Categories(vocabularies=(("a",),), unknown="error"), ("c",), ("string",)).with_graph()


def decoded(decoder, values, task=None):
    """The columns as the graph gives them, and as the decoder does."""
    dtype = values.dtype.name
    spec = TensorSpec(
        "x", dtype, values.shape[1:], ("x",), ("array<" * (values.ndim - 1) + "float" + ">" * (values.ndim - 1),)
    )
    kind = helper.np_dtype_to_tensor_dtype(values.dtype)
    bundle = Bundle.from_onnx(identity(values.shape[1:], kind), Signature((spec,)), task=task)
    bundle = Bundle(bundle.program, {}, Signature((spec,), bundle.signature.outputs, decoder), task)
    expected = columns.answered(bundle.signature, bundle.predict({"x": values}), {"x": columns.to_arrow(values)})
    graph = bundle.graph
    assert [(one.name, one.dtype) for one in graph.outputs] == [
        (key, _dtype(kind)) for key, kind in columns.answers(bundle.signature).items()
    ]
    got = module(graph.content).run({graph.inputs[0].name: values})
    return {key: value.tolist() for key, value in got.items()}, {
        key: value.to_pylist() for key, value in expected.items()
    }


def _dtype(kind):
    while pa.types.is_list(kind):
        kind = kind.value_type
    return {"double": "float64", "float": "float32"}.get(str(kind), str(kind))


LOGITS = np.array([[2.0, -1.0, 0.5], [0.0, 3.0, 0.0], [-1.0, -1.0, 4.0]], np.float32)


@pytest.mark.parametrize("labels", [("no", "maybe", "是"), (3, 1, 2)])
def test_labels(labels):
    got, expected = decoded(LabelDecoder(values=labels), LOGITS, task="multiclass")
    assert got["prediction"] == expected["prediction"] == list(labels)
    np.testing.assert_allclose(got["probability"], expected["probability"], rtol=1e-6)


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_labels_of_two_classes(shape):
    logits = np.array([-3.0, 0.0, 1e-3, 90.0], np.float32).reshape(shape)
    got, expected = decoded(LabelDecoder(values=(False, True)), logits, task="binary")
    assert got["prediction"] == expected["prediction"] == [False, False, True, True]
    np.testing.assert_allclose(got["probability"], expected["probability"], rtol=1e-6)


@pytest.mark.parametrize("shape", [(3,), (3, 1), (3, 2)])
def test_a_regression(shape):
    values = np.arange(float(np.prod(shape)), dtype=np.float32).reshape(shape)
    got, expected = decoded(None, values, task="regression")
    assert got == expected


def test_a_forecast():
    got, expected = decoded(ForecastDecoder(mean=100.1, deviation=7.3), LOGITS[..., None])
    np.testing.assert_allclose(got["prediction"], expected["prediction"], rtol=1e-6)


def test_an_anomaly():
    got, expected = decoded(AnomalyDecoder(threshold=0.5), np.array([0.25, 0.5, 0.75], np.float32))
    assert got == expected == {"prediction": [0.0, 0.0, 1.0], "score": [0.25, 0.5, 0.75]}


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("string", ["a", "a longer text", "", "žluť 🦊", None]),
        ("long", [0, -7, 2**62, None]),
        ("boolean", [True, False]),
    ],
)
def test_hashed(kind, values):
    column = pa.array(values, columns.arrow_of_kind(kind))
    got, expected = graph_and_read(Hashed(buckets=50, seed=3), {"c": column}, (kind,))
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    ("preprocess", "kind", "words"),
    [
        (Characters(), "string", "Characters, which reads column 'c', runs in Python only; score it by micro-batches"),
        (Image(height=4, width=4), "binary", "Image, which reads column 'c'"),
    ],
)
def test_a_step_that_runs_in_python_only_is_named(preprocess, kind, words):
    bundle = bundle_of(preprocess, ("c",), (kind,))
    with pytest.raises(GraphError, match=words) as caught:
        build(bundle)
    assert (caught.value.step, caught.value.column) == (type(preprocess).__name__, "c")
    with pytest.raises(GraphError, match="mode='microbatch'"):
        bundle.with_graph()


def test_the_model_is_one_for_a_checker():
    onnx.checker.check_model(
        bundle_of(Categories(vocabularies=(("a",),)), ("c",), ("string",)).graph.content, full_check=True
    )


def test_a_category_is_known_as_java_writes_it():
    """By JNI's modified UTF-8: 🦊, U+1F98A, as U+D83E U+DD8A (Java Native Interface Specification, chapter 3)."""
    graph = bundle_of(Categories(vocabularies=(("a", "🦊\0"),)), ("c",), ("string",)).graph
    (encoder,) = (
        node for node in onnx.load_model_from_string(graph.content).graph.node if node.op_type == "LabelEncoder"
    )
    told = {one.name: one for one in encoder.attribute}
    assert list(told["keys_strings"].strings) == [b"a", "🦊\0".encode(), b"\xed\xa0\xbe\xed\xb6\x8a\xc0\x80"]
    assert list(told["values_int64s"].ints) == [1, 2, 2]


def test_a_label_that_java_cannot_be_given_is_named():
    with pytest.raises(GraphError, match="has the label '🦊', which ONNX Runtime garbles for Java"):
        decoded(LabelDecoder(values=("a", "🦊", "c")), LOGITS, task="multiclass")
