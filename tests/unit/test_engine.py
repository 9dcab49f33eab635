"""Devices and precisions: each gives what the module gives, as near as its numbers allow, or says why it cannot."""

import shutil

import numpy as np
import pytest
import torch
from making import signature, spec
from models import Choosing, mlp
from torch import nn

from sparkdl.bundle import Bundle
from sparkdl.errors import InvalidParamError, SparkdlError
from sparkdl.score import engine
from sparkdl.score.predictor import Predictor
from sparkdl.score.scoring import Scoring

CPU = torch.device("cpu")
no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")


def forward(module, width, precision="float32", compile=False):
    loaded = Bundle.from_module(module, signature(spec(shape=(width,)))).module()
    return engine.prepared(loaded, CPU, precision, compile)


@pytest.fixture(scope="module")
def module():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 32), nn.LayerNorm(32), nn.Tanh(), nn.Linear(32, 3)
    ).eval()


@pytest.mark.parametrize(
    ("name", "device"), [("cpu", "cpu"), ("auto", "cuda:0" if torch.cuda.is_available() else "cpu")]
)
def test_names_of_devices(name, device):
    assert engine.device_of(name) == torch.device(device)


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "CPU", "", "cpu:0", "mps"])
def test_other_names_are_refused(name):
    with pytest.raises(InvalidParamError, match=r"'device' must be one of \['auto', 'cpu', 'cuda', 'cuda:N'\]"):
        engine.device_of(name)


@no_gpu
@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_a_gpu_that_is_not_there_is_told_with_what_to_do(name):
    with pytest.raises(
        SparkdlError, match=f"device '{name}' was asked for, and this process sees 0 GPUs; say device='auto'"
    ):
        engine.device_of(name)


@pytest.mark.parametrize(
    ("precision", "near"), [("float32", 1e-5), ("bfloat16", 5e-2), ("float16", 5e-3), ("int8", 1e-1)]
)
def test_every_precision_is_near_the_module(module, precision, near):
    x = torch.randn(100, 20)
    with torch.inference_mode():
        expected, got = module(x), forward(module, 20, precision)(x)
    assert (got.float() - expected).abs().max() < near * expected.abs().max()
    assert not got.requires_grad


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_module_of_any_floats_keeps_its_own(module, dtype):
    own = nn.Linear(4, 3).to(getattr(torch, dtype))
    x = np.random.default_rng(0).normal(size=(9, 4)).astype(dtype)
    predicted = Predictor(Bundle.from_module(own, signature(spec(dtype=dtype, shape=(4,))))).predict({"x": x})
    assert predicted["prediction"].dtype == dtype
    with torch.no_grad():
        expected = own(torch.from_numpy(x)).numpy()
    tolerance = {"float16": 5e-3, "float32": 1e-6, "float64": 1e-15}[dtype]
    np.testing.assert_allclose(predicted["prediction"], expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_comes_out_in_the_signature_s_dtype(precision):
    predictor = Predictor(Bundle.from_module(mlp(), signature(spec(shape=(4,)))), Scoring(precision=precision))
    assert predictor.predict({"x": np.ones((3, 4))})["prediction"].dtype == np.float32


def test_8_bits_need_linear_layers_of_an_exported_program():
    convolution = Bundle.from_module(nn.Conv2d(1, 1, 1), signature(spec(shape=(1, 2, 2))))
    code = Bundle.from_module(Choosing(), signature(spec(shape=(4,))), trusted=True)
    for bundle in (convolution, code):
        with pytest.raises(InvalidParamError, match="'precision' int8 keeps the weights of Linear layers in 8 bits"):
            Predictor(bundle, Scoring(precision="int8"))


def test_8_bits_are_not_compiled_and_are_for_the_cpu(module):
    with pytest.raises(InvalidParamError, match="runs on the CPU only, and not compiled"):
        forward(module, 20, "int8", compile=True)
    with pytest.raises(InvalidParamError, match="asked for on meta"):
        engine.prepared(nn.Linear(2, 2), torch.device("meta"), "int8", False)


def test_another_precision_is_refused(module):
    with pytest.raises(InvalidParamError, match=r"'precision' must be one of .* \(got 'int4'\)"):
        forward(module, 20, "int4")


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_a_compiled_model_takes_batches_of_any_size(module):
    run = forward(module, 20, compile=True)
    for rows in (64, 5, 1):
        x = torch.randn(rows, 20)
        with torch.inference_mode():
            torch.testing.assert_close(run(x), module(x), rtol=1e-5, atol=1e-5)


def test_without_a_compiler_compiling_is_refused_at_once(module, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(InvalidParamError, match=r"needs a C\+\+ compiler .* 'no-such-compiler' is not there"):
        forward(module, 20, compile=True)


@pytest.mark.parametrize(("precision", "itemsize"), [("float32", 4), ("bfloat16", 2)])
def test_the_largest_tensor_is_one_that_grows_with_the_rows(precision, itemsize):
    """Autocast brings the weights, 2 MiB in bfloat16, to another dtype in every pass; as much as a tensor of 4 rows, or of
    8, may take by chance does not hide it."""
    prepared = forward(nn.Sequential(nn.Linear(256, 4096), nn.ReLU(), nn.Linear(4096, 2)), 256, precision)
    assert prepared.largest_tensor(torch.zeros(8, 256)) == 8 * 4096 * itemsize
    same = forward(nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 32)), 8, precision)
    assert same.largest_tensor(torch.zeros(8, 8)) == 8 * 64 * itemsize


def test_the_inputs_count_as_tensors():
    assert forward(nn.Linear(500, 2), 500).largest_tensor(torch.zeros(8, 500)) == 8 * 500 * 4


def test_threads():
    before = torch.get_num_threads()
    try:
        engine.set_threads(2)
        assert torch.get_num_threads() == 2
        engine.set_threads(0)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_what_means_that_memory_is_out():
    with pytest.raises(RuntimeError) as real:
        torch.empty(1 << 60)
    assert engine.is_out_of_memory(real.value)
    with pytest.raises(MemoryError) as real:
        np.empty(1 << 60, np.uint8)
    assert engine.is_out_of_memory(real.value)
    assert engine.is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not engine.is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
