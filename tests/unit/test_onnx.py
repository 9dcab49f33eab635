"""ONNX in and out: the same outputs as torch's, nothing outside the model's own bytes."""

import json

import models
import numpy as np
import onnx
import pytest
import torch
from making import signature, spec
from onnx import TensorProto, helper
from torch import nn

from sparkdl.bundle import Bundle
from sparkdl.errors import BundleError, BundleIntegrityError, InvalidParamError, SignatureError
from sparkdl.score.predictor import Predictor
from sparkdl.score.scoring import Scoring
from sparkdl.signature import Signature, TensorSpec

pytestmark = pytest.mark.lane("latest")

SCALAR = {"float32": "float", "float64": "double", "int64": "long"}
KINDS = ("MLP", "several inputs, a tuple", "a dictionary")  # test_graph has others


def graph(nodes, inputs, outputs, **more):
    made = helper.make_graph(nodes, "g", inputs, outputs, **more)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def floats(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def doubling(shape=("B", 3), node=None, **more):
    node = node or helper.make_node("Add", ["x", "x"], ["twice"])
    return graph([node], [floats("x", shape)], [floats("twice", shape)], **more)


def texts():
    ends = [floats(name, ("B",), TensorProto.STRING) for name in ("x", "y")]
    return graph([helper.make_node("Identity", ["x"], ["y"])], ends[:1], ends[1:])


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A bundle, and the ONNX model that it was written as."""
    torch.manual_seed(0)
    bundle = Bundle.from_module(models.mlp(), signature(spec(shape=(4,))), task="multiclass")
    place = tmp_path_factory.mktemp("onnx") / "model.onnx"
    bundle.to_onnx(str(place))
    return bundle, place


@pytest.mark.parametrize("name", KINDS)
def test_out_and_in_again(tmp_path, name):
    make, inputs = models.MODELS[name]
    torch.manual_seed(0)
    specs = [spec(key, dtype, shape, None if shape else SCALAR[dtype]) for key, (dtype, shape) in inputs.items()]
    bundle = Bundle.from_module(make(), signature(*specs))
    bundle.to_onnx(str(tmp_path / "model.onnx"))
    back = Bundle.from_onnx(str(tmp_path / "model.onnx"))
    assert [(s.name, s.dtype, s.shape) for s in back.signature.inputs] == [(s.name, s.dtype, s.shape) for s in specs]
    assert back.signature.outputs == bundle.signature.outputs
    generator = np.random.default_rng(0)
    for rows in (1, 6):
        given = {
            s.name: generator.integers(0, 10, (rows, *s.shape)).astype(s.dtype) if s.dtype == "int64"
            else generator.standard_normal((rows, *s.shape)).astype(s.dtype)
            for s in specs
        }  # fmt: skip
        expected, got = bundle.predict(given), back.predict(given)
        for key, value in expected.items():
            np.testing.assert_allclose(got[key], value, rtol=1e-4, atol=1e-5)


def test_lengths_stay_free(tmp_path):
    torch.manual_seed(0)
    tokens = spec("tokens", "int64", (-1,), type="array<long>")
    mask = TensorSpec("mask", "bool", (-1,), mask_of="tokens")
    bundle = Bundle.from_module(models.Masked("lstm"), Signature((tokens, mask)))
    bundle.to_onnx(str(tmp_path / "model.onnx"))
    back = Bundle.from_onnx(str(tmp_path / "model.onnx"), bundle.signature)
    is_token = torch.arange(17) < torch.tensor([17, 3, 9, 1])[:, None]
    with torch.no_grad():
        expected = bundle.module()(is_token * 4, is_token)
    torch.testing.assert_close(back.module()(is_token * 4, is_token)["prediction"], expected, rtol=1e-4, atol=1e-5)


def test_predictions_and_probabilities_go_out(written):
    bundle, place = written
    x = {"x": np.random.default_rng(0).standard_normal((7, 4)).astype(np.float32)}
    got, expected = Bundle.from_onnx(place).predict(x), bundle.predict(x)
    assert list(got) == ["prediction", "probability"]
    np.testing.assert_array_equal(got["prediction"], expected["prediction"])
    np.testing.assert_allclose(got["probability"], expected["probability"], rtol=1e-5)


def test_no_path_of_this_machine_goes_out(written):
    content = written[1].read_bytes()
    assert b".py" not in content
    assert b"stack_trace" not in content


def test_a_bundle_of_onnx_is_a_bundle_like_any_other(written, tmp_path):
    bundle = Bundle.from_onnx(written[1].read_bytes())
    bundle.save(str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["manifest.json", "program.onnx", "weights.safetensors"]
    manifest = json.loads((tmp_path / "manifest.json").read_bytes())
    assert (manifest["format"], manifest["program"]["kind"]) == (2, "onnx")
    assert Bundle.verify(str(tmp_path)) == bundle.digest == Bundle.load(str(tmp_path)).digest
    Bundle.load(str(tmp_path)).to_onnx(str(tmp_path / "again.onnx"))
    assert (tmp_path / "again.onnx").read_bytes() == written[1].read_bytes()


def test_a_task_makes_predictions_of_the_only_output():
    bundle = Bundle.from_onnx(doubling().SerializeToString(), task="multiclass")
    x = np.array([[0.0, 1.0, 3.0]], np.float32)
    np.testing.assert_allclose(bundle.predict({"x": x})["probability"][0], torch.tensor(2 * x[0]).softmax(0), rtol=1e-6)


def test_outputs_that_differ_are_refused_and_nothing_is_written(tmp_path):
    torch.manual_seed(0)
    wide = nn.Sequential(nn.Linear(999, 999), nn.GELU(), nn.Linear(999, 99), nn.Softmax(dim=1))
    bundle = Bundle.from_module(wide, signature(spec(shape=(999,))))
    with pytest.raises(BundleError, match=r"from torch's for \d rows, more than the tolerance of 0"):
        bundle.to_onnx(str(tmp_path / "model.onnx"), tolerance=0)  # no two libraries add in the same order
    assert not list(tmp_path.iterdir())


def test_what_torch_cannot_export_says_why(tmp_path):
    bundle = Bundle.from_module(models.Choosing(), signature(spec(shape=(4,))), trusted=True)
    with pytest.raises(BundleError, match="torch cannot export this model as ONNX"):
        bundle.to_onnx(str(tmp_path / "model.onnx"))


def external(where):
    """A model with a tensor told to lie in another file: a weight, in a constant, in a branch."""
    tensor = helper.make_tensor("w", TensorProto.FLOAT, [3], np.ones(3, np.float32).tobytes(), raw=True)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.ClearField("raw_data")
    tensor.external_data.add(key="location", value="../../etc/passwd")
    add = helper.make_node("Add", ["x", "w"], ["twice"])
    if where == "weight":
        return doubling(node=add, initializer=[tensor])
    constant = helper.make_node("Constant", [], ["w"], value=tensor)
    if where == "constant":
        return graph([constant, add], [floats("x", ("B", 3))], [floats("twice", ("B", 3))])
    yes = helper.make_tensor("yes", TensorProto.BOOL, [], [True])
    branches = [helper.make_graph([constant, add], name, [], [floats("twice", ("B", 3))]) for name in ("a", "b")]
    choose = helper.make_node("If", ["yes"], ["twice"], then_branch=branches[0], else_branch=branches[1])
    return doubling(node=choose, initializer=[yes])


@pytest.mark.parametrize("where", ["weight", "constant", "branch"])
def test_what_lies_in_another_file_is_refused(where):
    with pytest.raises(BundleIntegrityError, match="lies in a further file"):
        Bundle.from_onnx(external(where).SerializeToString())


@pytest.mark.parametrize("domain", ["com.microsoft", "custom", "ai.onnx.contrib"])
def test_operators_of_others_are_refused(domain):
    model = doubling(node=helper.make_node("Evil", ["x"], ["twice"], domain=domain))
    model.opset_import.add(domain=domain, version=1)
    with pytest.raises(BundleIntegrityError, match=f"'Evil' is of {domain!r}"):
        Bundle.from_onnx(model.SerializeToString())


def test_a_name_that_is_no_text_is_refused():
    content = doubling(node=helper.make_node("Add", ["x", "x"], ["twice"], name="nodename")).SerializeToString()
    with pytest.raises(BundleIntegrityError):
        Bundle.from_onnx(content.replace(b"nodename", b"node\xf4ame").replace(b"Add", b"\xf4dd"))


def test_functions_of_its_own_are_refused():
    opset = [helper.make_opsetid("", 18)]
    nodes = [helper.make_node("F", ["a"], ["b"], domain="own")]  # calls itself
    function = helper.make_function("own", "F", ["a"], ["b"], nodes, [*opset, helper.make_opsetid("own", 1)])
    model = doubling(node=helper.make_node("F", ["x"], ["twice"], domain="own"))
    model.functions.append(function)
    model.opset_import.add(domain="own", version=1)
    with pytest.raises(BundleIntegrityError, match=r"inline_local_functions"):
        Bundle.from_onnx(model.SerializeToString())


@pytest.mark.parametrize("content", [b"", b"text", b"\x08", b"ORTM" * 10, b"\x08\x0a\x12\x04ORTM", b"\xff" * 100])
def test_what_is_no_model_is_refused(content):
    with pytest.raises(BundleIntegrityError, match="the ONNX model is refused"):
        Bundle.from_onnx(content)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (doubling((1, 3)), "its first dimension must be free"),
        (texts(), "is object; it must be one of"),
        (doubling(()), "its first dimension must be free"),
        (doubling(("B", 3, "N")), "only the first may be -1"),
    ],
)
def test_inputs_that_are_no_rows_are_refused(model, says):
    with pytest.raises(SignatureError, match=says):
        Bundle.from_onnx(model.SerializeToString())


def test_a_free_second_size_varies_from_row_to_row():
    node = helper.make_node("ReduceSum", ["x", "axes"], ["twice"], keepdims=0)
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [1])
    model = graph([node], [floats("x", ("B", "L"))], [floats("twice", ("B",))], initializer=[axes])
    bundle = Bundle.from_onnx(model.SerializeToString())
    assert bundle.signature.inputs[0].shape == (-1,)
    onnx.checker.check_model(model)


def test_it_runs_on_the_cpu_and_in_its_own_precision():
    bundle = Bundle.from_onnx(doubling().SerializeToString())
    assert bundle.module().session.get_providers() == ["CPUExecutionProvider"]
    for precision in ("bfloat16", "float16"):
        with pytest.raises(InvalidParamError, match="'precision' must be 'float32' for an ONNX model"):
            Predictor(bundle, Scoring(device="cpu", precision=precision)).predict({"x": np.ones((2, 3), np.float32)})
