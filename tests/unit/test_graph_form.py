"""What a bundle keeps of its graph, and that a graph which is not what is told of it is refused."""

import json
import pickle
import random
from dataclasses import replace

import numpy as np
import onnx
import pytest
from making import signature, spec
from mutations import of_bytes, of_onnx
from onnx import TensorProto, helper

from sparkdl.bundle import Bundle
from sparkdl.bundle_files import sha256
from sparkdl.errors import BundleIntegrityError
from sparkdl.graph import Graph, Input, Output, Text


def doubling(node=None, **more):
    node = node or helper.make_node("Add", ["x", "x"], ["twice"])
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ("B", 3)) for name in ("x", "twice")]
    made = helper.make_graph([node], "g", ends[:1], ends[1:], **more)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.fixture(scope="module")
def bundle():
    return Bundle.from_onnx(doubling().SerializeToString())


@pytest.fixture(scope="module")
def kept(bundle):
    return bundle.with_graph(tolerance=1e-3)


def test_a_bundle_keeps_its_graph(kept, tmp_path):
    assert sorted(kept.files) == ["graph.onnx", "manifest.json", "program.onnx", "weights.safetensors"]
    manifest = json.loads(kept.files["manifest.json"])
    assert manifest["format"] == 4
    assert manifest["graph"] == kept.graph.to_json() == {
        "inputs": [{"name": "x", "dtype": "float32", "shape": [3], "columns": ["x"], "types": ["array<float>"]}],
        "outputs": [{"name": "twice", "dtype": "float32", "shape": [3]}],
        "tolerance": 1e-3,
        "sha256": sha256(kept.files["graph.onnx"]),
    }  # fmt: skip
    kept.save(str(tmp_path))
    loaded = Bundle.load(str(tmp_path))
    assert loaded.graph == kept.graph
    assert loaded.graph.content == kept.files["graph.onnx"]
    assert loaded.digest == kept.digest == Bundle.verify(str(tmp_path))


def test_a_bundle_without_one_is_as_it_was_and_makes_it_when_asked(bundle):
    manifest = json.loads(bundle.files["manifest.json"])
    assert (manifest["format"], "graph" in manifest, "graph.onnx" in bundle.files) == (2, False, False)
    assert bundle.graph is bundle.graph
    assert bundle.graph.tolerance == 1e-4


def test_equal_models_give_equal_bytes(bundle, kept):
    assert bundle.graph.content == kept.graph.content
    assert kept.with_graph(tolerance=1e-3).digest == kept.digest


def test_other_weights_have_another_graph(kept):
    assert kept.with_training({}, {}, {}).stored_graph is None


def test_the_description_goes_out_and_in_again():
    graph = Graph(
        b"some",
        (
            Input("words", "int64", (-1, 2), ("w",), ("array<array<long>>",)),
            Input("mask", "bool", (-1,), mask_of="words"),
            Input("age", "float64", (2,), ("a", "b"), ("long", "decimal"), missing="nan", refuses=("inf",)),
            Input("city", "string", (1,), ("c",), ("string",), missing=Text("null")),
        ),
        (Output("prediction", "string", ()),),
        0.5,
    )
    told = json.loads(json.dumps(graph.to_json()))
    assert told["inputs"][1] == {"name": "mask", "dtype": "bool", "shape": [-1], "mask_of": "words"}
    assert told["inputs"][2]["missing"], told["inputs"][3]["missing"] == ("nan", {"text": "null"})
    assert Graph.from_json(told, b"some") == graph == pickle.loads(pickle.dumps(graph))


def changed(files, change, content=None):
    """The bundle's files, with ``graph`` of the manifest changed, or another graph, and its digests put right."""
    files = dict(files)
    manifest = json.loads(files["manifest.json"])
    if content is not None:
        files["graph.onnx"] = content
        manifest["files"]["graph.onnx"] = {"sha256": sha256(content), "bytes": len(content)}
        manifest["graph"]["sha256"] = sha256(content)
    change(manifest["graph"])
    return {**files, "manifest.json": json.dumps(manifest).encode()}


BAD = {
    "a dtype that is none": lambda told: told["inputs"][0].update(dtype="float8"),
    "a shape that is text": lambda told: told["inputs"][0].update(shape=["3"]),
    "a size below 0": lambda told: told["outputs"][0].update(shape=[-1]),
    "a size that varies, not the first": lambda told: told["inputs"][0].update(shape=[3, -1]),
    "a field more": lambda told: told["inputs"][0].update(code="os.system"),
    "a field less": lambda told: told["inputs"][0].pop("name"),
    "columns without types": lambda told: told["inputs"][0].update(types=[]),
    "no columns": lambda told: told["inputs"][0].update(columns=[], types=[]),
    "a mask of nothing": lambda told: told["inputs"][0].update(columns=[], types=[], mask_of="y"),
    "nulls of another kind": lambda told: told["inputs"][0].update(missing="zero"),
    "refuses what no float is": lambda told: told["inputs"][0].update(refuses=["null"]),
    "a tolerance below 0": lambda told: told.update(tolerance=-1),
    "a tolerance that is none": lambda told: told.update(tolerance=float("nan")),
    "another digest": lambda told: told.update(sha256="0" * 64),
    "a list": lambda told: told.update(inputs={}),
}


@pytest.mark.parametrize("what", BAD)
def test_a_description_without_meaning_is_refused_on_load(kept, what):
    with pytest.raises(BundleIntegrityError, match="the graph is refused: "):
        Bundle.from_files(changed(kept.files, BAD[what]))


@pytest.mark.parametrize("told", [{}, [], "graph", 3, False])
def test_a_description_that_is_none_is_refused_on_load(kept, told):
    manifest = json.loads(kept.files["manifest.json"]) | {"graph": told}
    with pytest.raises(BundleIntegrityError, match="the graph is refused"):
        Bundle.from_files({**kept.files, "manifest.json": json.dumps(manifest).encode()})


def test_a_graph_without_a_file_or_in_an_older_format_is_refused(kept, bundle):
    for told in (kept, bundle):
        manifest = json.loads(told.files["manifest.json"]) | {"format": 3, "graph": kept.graph.to_json()}
        with pytest.raises(BundleIntegrityError, match="its format has no meaning" if told is kept else "sha256"):
            Bundle.from_files({**told.files, "manifest.json": json.dumps(manifest).encode()})


def test_a_graph_that_was_changed_is_refused_on_load(kept, tmp_path):
    kept.save(str(tmp_path))
    (tmp_path / "graph.onnx").write_bytes(kept.files["graph.onnx"][:-1])
    with pytest.raises(BundleIntegrityError, match=r"graph\.onnx of the bundle .* is not what was saved"):
        Bundle.load(str(tmp_path))


OTHER = {
    "another input": (lambda told: told["inputs"][0].update(name="z"), "its ONNX model has .*'x'.*the description says .*'z'"),
    "another dtype": (lambda told: told["inputs"][0].update(dtype="float64"), "the description says"),
    "another shape": (lambda told: told["outputs"][0].update(shape=[4]), "the description says"),
    "another column": (lambda told: told["inputs"][0].update(columns=["z"]), r"it reads the columns \['z'\]"),
    "an input more": (lambda told: told["inputs"].append({**told["inputs"][0], "name": "z"}), "its ONNX model has None"),
    "no outputs": (lambda told: told.update(outputs=[]), "the description says None"),
}  # fmt: skip


@pytest.mark.parametrize("what", OTHER)
def test_a_graph_that_is_another_than_is_told_is_refused(kept, what):
    change, words = OTHER[what]
    bundle = Bundle.from_files(changed(kept.files, change))
    with pytest.raises(BundleIntegrityError, match=words):
        bundle.graph  # noqa: B018  # it is checked when it is asked for


def external():
    tensor = helper.make_tensor("w", TensorProto.FLOAT, [3], np.ones(3, np.float32).tobytes(), raw=True)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.ClearField("raw_data")
    tensor.external_data.add(key="location", value="../../etc/passwd")
    return doubling(helper.make_node("Add", ["x", "w"], ["twice"]), initializer=[tensor])


def function():
    body = helper.make_function(
        "own", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 18)]
    )
    model = doubling(helper.make_node("Twice", ["x"], ["twice"], domain="own"))
    model.functions.append(body)
    return model


HOSTILE = {
    "external data": (lambda: external().SerializeToString(), "lies in a further file"),
    "a function": (lambda: function().SerializeToString(), "functions of its own"),
    "an operator of others": (
        lambda: doubling(helper.make_node("Shell", ["x"], ["twice"], domain="evil")).SerializeToString(),
        "its operator 'Shell' is of 'evil'",
    ),
    "truncated": (lambda: doubling().SerializeToString()[:-9], "refused"),
    "empty": (lambda: b"", "refused"),
    "text": (lambda: b"import os", "refused"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_graph_is_refused(kept, what):
    make, words = HOSTILE[what]
    bundle = Bundle.from_files(changed(kept.files, lambda told: None, make()))
    with pytest.raises(BundleIntegrityError, match=words) as caught:
        bundle.graph  # noqa: B018  # as above
    assert caught.value.file == "graph.onnx"


def test_a_mutated_graph_is_refused_or_sound(kept):
    """With all digests put right: what is not refused has the inputs and outputs that are told, and needs nothing else."""
    chance, refused = random.Random(0), 0
    for _ in range(150):
        how = chance.choice([of_onnx, of_bytes])
        bundle = Bundle.from_files(changed(kept.files, lambda told: None, how(chance, kept.files["graph.onnx"])))
        try:
            assert (bundle.graph.inputs, bundle.graph.outputs) == (kept.graph.inputs, kept.graph.outputs)
        except BundleIntegrityError:
            refused += 1
    assert refused > 75


def test_a_graph_of_another_signature_is_refused(kept):
    other = replace(kept, signature=replace(kept.signature, inputs=signature(spec("z", shape=(3,))).inputs))
    with pytest.raises(BundleIntegrityError, match=r"it reads the columns \['x'\], and the signature has \['z'\]"):
        other.graph  # noqa: B018  # as above


def test_a_bundle_with_a_graph_scores_as_before(kept, bundle):
    x = {"x": np.ones((2, 3), np.float32)}
    np.testing.assert_array_equal(Bundle.from_files(kept.files).predict(x)["twice"], bundle.predict(x)["twice"])
    assert onnx.load_from_string(kept.graph.content).producer_name == "sparkdl"
