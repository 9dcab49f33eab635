"""Keras 3 models on the torch backend: exported as any other, predicting what Keras itself returns."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from making import signature, spec

from sparkdl.bundle import Bundle
from sparkdl.errors import SignatureError, SparkdlError

pytestmark = pytest.mark.lane("latest")

os.environ["KERAS_BACKEND"] = "torch"  # as a user would, before the first import


@pytest.fixture(scope="module")
def keras():
    module = pytest.importorskip("keras")
    assert module.backend.backend() == "torch"
    return module


def sequential(keras):
    layers = keras.layers
    return keras.Sequential([
        keras.Input((4,), name="x"), layers.Dense(8, activation="relu"), layers.BatchNormalization(),
        layers.Dropout(0.5), layers.Dense(3),
    ])  # fmt: skip


def images(keras):
    layers = keras.layers
    return keras.Sequential([
        keras.Input((8, 8, 3), name="image"), layers.Conv2D(4, 3, activation="relu"), layers.MaxPooling2D(),
        layers.GlobalAveragePooling2D(), layers.Dense(2),
    ])  # fmt: skip


def functional(keras):
    """Two inputs, one of integers, as a list; two outputs."""
    x, key = keras.Input((4,), name="x"), keras.Input((2,), name="key", dtype="int32")
    joined = keras.layers.Concatenate()([x, keras.layers.Flatten()(keras.layers.Embedding(10, 4)(key))])
    return keras.Model([x, key], [keras.layers.Dense(2)(joined), keras.layers.Dense(1)(joined)])


def by_name(keras):
    """Inputs in a dictionary, outputs in one."""
    b, a = keras.Input((1,), name="b"), keras.Input((3,), name="a")
    return keras.Model({"b": b, "a": a}, {"sum": keras.layers.Add()([a, b]), "twice": keras.layers.Add()([a, a])})


def given(bundle, rows):
    generator = np.random.default_rng(0)
    return {
        s.name: generator.integers(0, 10, (rows, *s.shape)).astype(s.dtype) if s.dtype.startswith("int")
        else generator.standard_normal((rows, *s.shape)).astype(s.dtype)
        for s in bundle.signature.inputs
    }  # fmt: skip


@pytest.mark.parametrize("make", [sequential, images, functional])
def test_it_predicts_what_keras_returns(keras, make):
    keras.utils.set_random_seed(0)
    model = make(keras)
    bundle = Bundle.from_keras(model)
    assert bundle.program.kind == "export"
    loaded = Bundle.from_files(bundle.files)
    for rows in (1, 5):
        inputs = given(bundle, rows)
        arguments = [torch.from_numpy(array) for array in inputs.values()]
        with torch.no_grad():
            expected = model(arguments if len(arguments) > 1 else arguments[0], training=False)
        expected = expected if isinstance(expected, (list, tuple)) else [expected]
        for got, value in zip(loaded.predict(inputs).values(), expected, strict=True):
            np.testing.assert_allclose(got, value.numpy(), rtol=1e-5, atol=1e-6)


def test_inputs_and_outputs_by_name(keras):
    bundle = Bundle.from_keras(by_name(keras))
    assert [(s.name, s.shape) for s in bundle.signature.inputs] == [("b", (1,)), ("a", (3,))]
    inputs = {"a": np.full((2, 3), 1, np.float32), "b": np.full((2, 1), 10, np.float32)}
    got = bundle.predict(inputs)
    assert {name: value[0, 0] for name, value in got.items()} == {"sum": 11, "twice": 2}


def test_the_signature_is_the_model_s_own(keras):
    shown = {
        s.name: (s.dtype, s.shape, s.columns, s.types) for s in Bundle.from_keras(functional(keras)).signature.inputs
    }
    assert shown == {
        "x": ("float32", (4,), ("x",), ("array<float>",)),
        "key": ("int32", (2,), ("key",), ("array<integer>",)),
    }
    assert Bundle.from_keras(images(keras)).signature.inputs[0].shape == (8, 8, 3)  # as it is: channels last


def test_a_signature_and_a_task_of_one_s_own(keras):
    bundle = Bundle.from_keras(sequential(keras), signature(spec("features", shape=(4,))), task="multiclass")
    assert bundle.signature.columns == ("features",)
    assert [s.name for s in bundle.signature.outputs] == ["prediction", "probability"]


def test_a_model_that_does_not_tell_its_inputs_needs_a_signature(keras):
    class Own(keras.Model):
        def call(self, x):
            return x * 2

    with pytest.raises(SignatureError, match=r"does not tell its inputs.*give a signature"):
        Bundle.from_keras(Own())
    assert Bundle.from_keras(Own(), signature(spec(shape=(4,)))).program.kind == "export"


def test_what_is_no_keras_model_is_refused():
    with pytest.raises(SparkdlError, match=r"takes a keras.Model \(got Linear\)"):
        Bundle.from_keras(torch.nn.Linear(4, 2))


def test_another_backend_is_refused_with_what_to_set():
    code = "from sparkdl import Bundle; Bundle.from_keras(None)"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "KERAS_BACKEND": "tensorflow"}, capture_output=True, text=True
    )
    assert (
        "Keras must run on torch (it asks for tensorflow): set the environment variable KERAS_BACKEND=torch"
        in done.stderr
    )
