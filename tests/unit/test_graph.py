"""Models of every kind as one ONNX graph: raw columns in, the bundle's own answers out."""

import models
import numpy as np
import pyarrow as pa
import pytest
import torch
from making import signature, spec
from torch import nn

from sparkdl import columns
from sparkdl.bundle import Bundle
from sparkdl.decode.labels import LabelDecoder
from sparkdl.errors import BundleError, InvalidParamError
from sparkdl.graph.build import build
from sparkdl.graph.rows import tensors
from sparkdl.interop.onnx import module
from sparkdl.preprocess import Categories, Numbers
from sparkdl.ready.table_net import TableNet
from sparkdl.signature import Signature, TensorSpec

SCALAR = {"float32": "float", "float64": "double", "int64": "long"}


def answers(bundle, rows):
    """What the graph gives of these rows, and what the bundle does."""
    graph = bundle.graph
    got = module(graph.content).run(tensors(graph, rows))
    inputs = {one.name: columns.read(rows, one) for one in bundle.signature.inputs if one.columns}
    return got, columns.answered(bundle.signature, bundle.predict(inputs), rows)


def check_same(bundle, rows):
    got, expected = answers(bundle, rows)
    assert list(got) == list(expected) == list(columns.answers(bundle.signature))
    for name, column in expected.items():
        if pa.types.is_string(column.type):
            assert got[name].tolist() == column.to_pylist()
        else:
            np.testing.assert_allclose(got[name], column.to_pylist(), rtol=1e-4, atol=1e-5)
    assert [(one.dtype, (len(rows[next(iter(rows))]), *one.shape)) for one in bundle.graph.outputs] == [
        (value.dtype.name.replace("object", "string"), value.shape) for value in got.values()
    ]


@pytest.mark.parametrize("name", ["CNN with batch norm", "LSTM", "Transformer", "several inputs, a tuple", "float64"])
def test_models(name):
    make, inputs = models.MODELS[name]
    torch.manual_seed(0)
    specs = [spec(key, dtype, shape, None if shape else SCALAR[dtype]) for key, (dtype, shape) in inputs.items()]
    bundle = Bundle.from_module(make(), signature(*specs))
    chance = np.random.default_rng(0)
    for rows in (1, 5):
        check_same(bundle, {
            one.name: columns.to_arrow(
                chance.integers(0, 10, (rows, *one.shape)) if one.dtype == "int64"
                else chance.standard_normal((rows, *one.shape)).astype(one.dtype)
            )
            for one in specs
        })  # fmt: skip


def test_rows_of_varying_length():
    torch.manual_seed(0)
    tokens = spec("tokens", "int64", (-1,), type="array<long>")
    bundle = Bundle.from_module(
        models.Masked("transformer"), Signature((tokens, TensorSpec("mask", "bool", (-1,), mask_of="tokens")))
    )
    mask = bundle.graph.inputs[1]
    assert (mask.name, mask.dtype, mask.shape, mask.mask_of) == ("mask", "bool", (-1,), "tokens")
    for some in ([[1, 2, 3]], [[4] * 20, [1], [2, 3], [9] * 13]):
        check_same(bundle, {"tokens": pa.array(some)})


@pytest.fixture(scope="module")
def table():
    """As TabularClassifier makes one."""
    torch.manual_seed(0)
    numbers = Numbers(
        log=True, fills=(3.0, 0.1), lows=(0.0, -9.0), highs=(9.0, 9.0), shifts=(2.0, 0.0), scales=(1.5, 3.0)
    )
    categories = Categories(vocabularies=(("rome", "oslo"), ("2", "7", "5")))
    inputs = (
        TensorSpec("numbers", "float32", (2,), ("age", "income"), ("integer", "double"), preprocess=numbers),
        TensorSpec("kinds", "int64", (2,), ("city", "code"), ("string", "long"), preprocess=categories),
    )
    net = TableNet(2, categories.sizes, 3, hidden=(8,))
    return Bundle.from_module(
        net, Signature(inputs, decoder=LabelDecoder(values=("no", "maybe", "yes"))), task="multiclass"
    )


def test_a_table_of_numbers_and_categories(table):
    check_same(table, {
        "age": pa.array([30, None, 7, -1], pa.int32()),
        "income": pa.array([1e6, 0.5, None, float("nan")]),
        "city": pa.array(["rome", "oslo", None, "bonn"]),
        "code": pa.array([7, 3, None, 2], pa.int64()),
    })  # fmt: skip
    assert [(one.name, one.dtype, one.columns) for one in table.graph.inputs] == [
        ("numbers", "float64", ("age", "income")),
        ("kinds", "string", ("city", "code")),
    ]
    assert [(one.name, one.dtype, one.shape) for one in table.graph.outputs] == [
        ("prediction", "string", ()),
        ("probability", "float32", (3,)),
    ]


def test_scalars_are_stacked_and_names_kept_apart():
    torch.manual_seed(0)
    stacked = TensorSpec("prediction", "float32", (3,), ("a", "b", "c"), ("float", "long", "double"))
    bundle = Bundle.from_module(nn.Linear(3, 1), signature(stacked), task="regression")
    assert bundle.graph.inputs[0].name != bundle.graph.outputs[0].name == "prediction"
    check_same(bundle, {"a": pa.array([1.5, 2.0], pa.float32()), "b": pa.array([3, 4]), "c": pa.array([0.1, 0.2])})


@pytest.mark.parametrize(("dtype", "column"), [("float16", "float32"), ("uint8", "int16")])
def test_outputs_that_spark_has_no_type_of_are_wider(dtype, column):
    class Narrow(nn.Module):
        def forward(self, x):
            return x.abs().to(getattr(torch, dtype))

    bundle = Bundle.from_module(Narrow(), signature(spec(shape=(2,))))
    assert bundle.graph.outputs[0].dtype == column
    check_same(bundle, {"x": pa.array([[1.0, 2.0], [3.0, 4.5]], pa.list_(pa.float32()))})


def test_answers_that_differ_are_refused():
    torch.manual_seed(0)
    wide = nn.Sequential(nn.Linear(999, 999), nn.GELU(), nn.Linear(999, 99), nn.Softmax(dim=1))
    bundle = Bundle.from_module(wide, signature(spec(shape=(999,))))
    with pytest.raises(BundleError, match=r"e-\d+ from torch's for \d rows, more than the tolerance of 0"):
        bundle.with_graph(tolerance=0)


@pytest.mark.parametrize("tolerance", [-1, float("nan"), "much", True, None])
def test_a_tolerance_is_a_number_from_0(table, tolerance):
    with pytest.raises(InvalidParamError, match="'tolerance' must be a number from 0"):
        build(table, tolerance)


def test_what_torch_cannot_export_says_why():
    bundle = Bundle.from_module(models.Choosing(), signature(spec(shape=(4,))), trusted=True)
    with pytest.raises(BundleError, match="torch cannot export this model as ONNX"):
        bundle.graph  # noqa: B018  # it is made now
