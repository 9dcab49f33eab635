"""Bundles out of state dicts, TorchScript and inner modules predict what the module they came from returns."""

import warnings
from collections import OrderedDict
from functools import partial

import models
import numpy as np
import pytest
import safetensors.torch
import torch
from making import signature, spec
from torch import nn

from sparkdl.bundle import Bundle
from sparkdl.errors import (
    BundleError,
    BundleIntegrityError,
    SignatureError,
    SparkdlError,
    StoreError,
    UntrustedBundleError,
)
from sparkdl.interop.common import needed

INPUTS = signature(spec(shape=(4,)))
X = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)


def returned(module):
    with torch.no_grad():
        return module(torch.from_numpy(X)).numpy()


# --- state dicts


@pytest.mark.parametrize("kind", ["dictionary", "weights.pt", "weights.safetensors"])
def test_a_state_dict(tmp_path, kind):
    trained = models.mlp()
    state = trained.state_dict()
    if kind != "dictionary":
        state = tmp_path / kind
        (safetensors.torch.save_file if kind.endswith("safetensors") else torch.save)(trained.state_dict(), state)
    bundle = Bundle.from_state_dict(models.mlp, state, INPUTS)
    np.testing.assert_allclose(bundle.predict({"x": X})["prediction"], returned(trained), rtol=1e-5, atol=1e-6)


def test_the_factory_is_what_is_kept_of_a_model_that_cannot_be_exported():
    factory = partial(models.choosing, width=3)
    bundle = Bundle.from_state_dict(factory, factory().state_dict(), INPUTS, trusted=["models"])
    assert (bundle.program.kind, bundle.program.factory) == ("import", "models:choosing")


def test_a_pickle_in_place_of_a_state_dict_is_refused(tmp_path):
    for name, content in (("a.pt", models.mlp()), ("b.pt", [1, 2])):
        torch.save(content, tmp_path / name)
        with pytest.raises(BundleError, match=r"not a state dict"):
            Bundle.from_state_dict(models.mlp, tmp_path / name, INPUTS)
    (tmp_path / "c.safetensors").write_bytes(b"text")
    with pytest.raises(BundleError, match="not a state dict that holds tensors only"):
        Bundle.from_state_dict(models.mlp, str(tmp_path / "c.safetensors"), INPUTS)
    with pytest.raises(StoreError):
        Bundle.from_state_dict(models.mlp, tmp_path / "none.pt", INPUTS)


def test_weights_of_another_module_are_refused():
    with pytest.raises(BundleError, match="the weights are not those of Sequential"):
        Bundle.from_state_dict(models.mlp, nn.Linear(4, 2).state_dict(), INPUTS)


# --- TorchScript


@pytest.fixture(scope="module")
def script():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(models.mlp().eval(), torch.from_numpy(X))


def test_torchscript_is_kept_as_it_is_and_needs_trust(script, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(script, tmp_path / "model.pt")
    for given in (script, str(tmp_path / "model.pt")):
        with pytest.raises(UntrustedBundleError, match="trusted=True"):
            Bundle.from_torchscript(given, INPUTS)
        bundle = Bundle.from_torchscript(given, INPUTS, task="multiclass", trusted=True)
        place = str(tmp_path / f"bundle-{isinstance(given, str)}")
        bundle.save(place)
        with pytest.raises(UntrustedBundleError, match="it is TorchScript"):
            Bundle.load(place)
        loaded = Bundle.load(place, trusted=True)
        assert (loaded.program.kind, loaded.digest, dict(loaded.weights)) == ("torchscript", bundle.digest, {})
        expected = torch.softmax(torch.from_numpy(returned(script)), dim=1).numpy()
        np.testing.assert_allclose(loaded.predict({"x": X})["probability"], expected, rtol=1e-5)


def test_what_is_no_torchscript_is_refused(tmp_path):
    (tmp_path / "x").write_bytes(b"text")
    with pytest.raises(BundleError, match="not a TorchScript module"):
        Bundle.from_torchscript(tmp_path / "x", INPUTS, trusted=True)


# --- outputs from inside


def network():
    return nn.Sequential(OrderedDict(body=nn.Sequential(nn.Linear(4, 8), nn.ReLU()), head=nn.Linear(8, 3)))


@pytest.mark.parametrize("task", [None, "multiclass"])
def test_what_a_module_inside_returns_is_an_output(task):
    module = network().eval()
    bundle = Bundle.from_module(module, INPUTS, task=task, outputs={"embedding": "body", "first": "body.0"})
    assert bundle.program.kind == "export"
    got = Bundle.from_files(bundle.files).predict({"x": X})
    assert list(got) == ["prediction", *(["probability"] if task else []), "embedding", "first"]
    plain = Bundle.from_module(module, INPUTS, task=task).predict({"x": X})
    for name, value in plain.items():
        np.testing.assert_allclose(got[name], value, rtol=1e-6)
    np.testing.assert_allclose(got["embedding"], returned(module.body), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(got["first"], returned(module.body[0]), rtol=1e-5, atol=1e-6)
    assert not any(part._forward_hooks for part in module.modules())  # as it was


def test_they_stand_beside_several_outputs_of_its_own():
    bundle = Bundle.from_module(models.Named(), INPUTS, outputs={"hidden": "linear"})
    assert [spec.name for spec in bundle.signature.outputs] == ["logits", "norm", "hidden"]


@pytest.mark.parametrize(
    ("outputs", "says"),
    [
        ({"e": "boddy"}, r"the module 'boddy', which the model does not have; did you mean 'body'"),
        ({"e": ""}, "asks for the module ''"),
        ({"prediction": "body"}, "has an output 'prediction' already"),
    ],
)
def test_a_module_that_is_not_there_or_a_name_that_is_taken_is_refused(outputs, says):
    with pytest.raises(SignatureError, match=says):
        Bundle.from_module(network(), INPUTS, outputs=outputs)


def test_an_output_inside_that_is_no_tensor_is_refused():
    with pytest.raises(SignatureError, match=r"'lstm' returns, which is not a tensor \(got tuple\)"):
        Bundle.from_module(models.Recurrent(), signature(spec(shape=(5, 4))), outputs={"steps": "lstm"})


# --- all of them


def test_a_missing_package_is_named_with_the_extra_that_has_it():
    with pytest.raises(SparkdlError, match=r"no_such_package is not installed: pip install 'sparkdl\[keras\]'"):
        needed("no_such_package", "keras")


def test_torchscript_with_another_content_is_no_crash(script):
    bundle = Bundle.from_torchscript(script, INPUTS, trusted=True)
    files = {**bundle.files, "program.pt": b"text"}
    with pytest.raises(BundleIntegrityError, match="not what was saved"):
        Bundle.from_files(files, trusted=True)
