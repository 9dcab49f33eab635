"""Named arrays in, named arrays out; what does not fit the signature is refused, and never broadcast or wrapped."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from making import signature, spec
from torch import nn

from sparkdl.bundle import Bundle
from sparkdl.errors import SignatureError
from sparkdl.score.predictor import Predictor
from sparkdl.score.scoring import Scoring
from sparkdl.signature import TensorSpec


class Both(nn.Module):
    def forward(self, x, key):
        return {"sum": x.sum(dim=1), "key": key + 1}


class Counting(nn.Module):
    """Tells how many rows came at a time."""

    def forward(self, x):
        return x.sum(dim=1) * 0 + x.shape[0]


@pytest.fixture(scope="module")
def both():
    return Bundle.from_module(Both(), signature(spec("x", shape=(2,)), spec("key", "int16", type="short")))


def ask(bundle, x=((1.0, 2.0), (3.0, 4.0)), key=(1, 2), x_dtype="float32", key_dtype="int16"):
    return bundle.predict({"x": np.array(x, x_dtype), "key": np.array(key, key_dtype)})


def test_outputs_come_by_name(both):
    predicted = ask(both)
    assert {name: (value.dtype.name, value.tolist()) for name, value in predicted.items()} == {
        "sum": ("float32", [3.0, 7.0]),
        "key": ("int16", [2, 3]),
    }


@pytest.mark.parametrize(("x_dtype", "key_dtype"), [("float64", "int64"), ("float16", "uint16"), ("int32", "bool")])
def test_other_dtypes_that_hold_the_same_values_are_taken(both, x_dtype, key_dtype):
    assert ask(both, key=(1, 0), x_dtype=x_dtype, key_dtype=key_dtype)["sum"].tolist() == [3.0, 7.0]


def test_lists_and_non_contiguous_and_read_only_arrays_are_taken(both):
    wide = np.arange(8, dtype=np.float32).reshape(2, 4)[:, ::2]
    wide.flags.writeable = False
    assert both.predict({"x": wide, "key": np.int16([1, 2])})["sum"].tolist() == [2.0, 10.0]
    assert both.predict({"x": [[1.0, 2.0]], "key": [1]})["key"].tolist() == [2]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"x": ((1.0, 2.0, 3.0),) * 2}, r"'x' must have shape \(B, 2\) \(got \(2, 3\)\)"),
        ({"x": (1.0, 2.0)}, r"'x' must have shape"),
        ({"x": 1.0}, r"'x' must have shape"),
        ({"key": ((1,), (2,))}, r"'key' must have shape \(B, \) \(got \(2, 1\)\)"),
        ({"key": (1, 2, 3)}, "'key' has 3 rows, 'x' has 2"),
        ({"key": (1.0, 2.0), "key_dtype": "float64"}, "'key' must be int16 .got float64, which it cannot hold"),
        ({"key": (1, 40_000), "key_dtype": "uint16"}, "'key' must be int16 .got uint16 values that it cannot hold"),
        ({"key": (1, 1 << 16), "key_dtype": "int64"}, "'key' must be int16 .got int64 values that it cannot hold"),
        ({"x": (("a", "b"),) * 2, "x_dtype": "str"}, "'x' must be float32"),
        ({"x": ((None, 1),) * 2, "x_dtype": "object"}, "'x' must be float32"),
    ],
)
def test_what_does_not_fit_is_refused(both, arguments, says):
    with pytest.raises(SignatureError, match=says):
        ask(both, **arguments)


def test_a_missing_input_is_named_with_those_given(both):
    with pytest.raises(SignatureError, match=r"input 'key' is missing; given are \['keys', 'x'\]"):
        both.predict({"x": np.zeros((1, 2)), "keys": np.zeros(1)})


def test_rows_go_through_in_batches_and_come_out_in_order():
    bundle = Bundle.from_module(Counting(), signature(spec(shape=(2,))))
    predicted = Predictor(bundle, Scoring(batch_size=3)).predict({"x": np.zeros((8, 2))})["prediction"]
    assert predicted.tolist() == [3, 3, 3, 3, 3, 3, 2, 2]
    rows = np.arange(10, dtype=np.float32)[:, None].repeat(2, 1)
    linear = Bundle.from_module(nn.Linear(2, 1), signature(spec(shape=(2,))))
    whole, parts = (Predictor(linear, Scoring(batch_size=size)).predict({"x": rows})["prediction"] for size in (100, 3))
    np.testing.assert_allclose(whole, parts, rtol=1e-6)


def test_no_rows_give_no_rows(both):
    predicted = both.predict({"x": np.zeros((0, 2)), "key": np.zeros(0, np.int16)})
    assert {name: (value.dtype.name, value.shape) for name, value in predicted.items()} == {
        "sum": ("float32", (0,)),
        "key": ("int16", (0,)),
    }


def test_outputs_of_another_shape_than_the_signature_s_are_refused_not_broadcast():
    bundle = Bundle.from_module(nn.Linear(2, 1), signature(spec(shape=(2,))))
    told = replace(bundle.signature, outputs=(TensorSpec("prediction", "float32", (4,)),))
    wrong = replace(bundle, signature=told)
    with pytest.raises(SignatureError, match=r"returned \(3, 1\) as 'prediction' for 3 rows"):
        wrong.predict({"x": np.zeros((3, 2))})


def test_bfloat16_which_numpy_lacks_comes_out_as_float32():
    class Half(nn.Module):
        def forward(self, x):
            return x.bfloat16()

    bundle = Bundle.from_module(Half(), signature(spec(shape=(2,))))
    predicted = bundle.predict({"x": [[1.5, 2.0]]})["prediction"]
    assert (predicted.dtype, predicted.tolist()) == (np.float32, [[1.5, 2.0]])


def test_predicting_keeps_no_graph(both):
    assert not torch.is_inference_mode_enabled()
    ask(both)
    assert torch.is_grad_enabled()
