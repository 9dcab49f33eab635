"""Bundles and signatures of formats 1 to 4 stay readable, answer what they answered, and lie as docs/bundle-format.md says.

The files were written once, by the version that had this format first; a change that needs them written anew is a
change of format.
"""

import base64
import hashlib
import io
import json
import struct
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from sparkdl.bundle import Bundle
from sparkdl.columns import BadRows, Ragged, answered, read
from sparkdl.interop.onnx import module
from sparkdl.preprocess import Image
from sparkdl.signature import Signature, TensorSpec

HERE = Path(__file__).parent
BUNDLE = HERE / "bundle-v1"
DIGEST = "31352ebd4a33b73de1d0eca18e24ccbf3dcd4a5d13a1288177f2511bd3aef122"


@pytest.fixture(scope="module")
def answer():
    return json.loads((HERE / "bundle-v1-answer.json").read_text())


def test_it_answers_what_it_answered(answer):
    bundle = Bundle.load(str(BUNDLE))
    predicted = bundle.predict({name: np.array(values) for name, values in answer["inputs"].items()})
    assert predicted["prediction"].tolist() == answer["outputs"]["prediction"]
    np.testing.assert_allclose(predicted["probability"], answer["outputs"]["probability"], rtol=1e-5)


def test_it_tells_what_it_told():
    bundle = Bundle.load(str(BUNDLE))
    x = TensorSpec("x", "float32", (4,), ("a", "b", "c", "d"), ("double", "float", "long", "boolean"))
    key = TensorSpec("key", "int64", (), ("key",), ("long",))
    outputs = (TensorSpec("prediction", "float64"), TensorSpec("probability", "float32", (3,)))
    assert bundle.signature == Signature((x, key), outputs)
    assert (bundle.task, bundle.program.kind) == ("multiclass", "export")
    assert bundle.metrics == {"loss": 0.25, "accuracy": 0.9375}
    assert bundle.training["history"][0]["rows"] == 64


def test_the_digest_is_the_sha256_of_the_manifest_and_stays_when_it_is_saved_again(tmp_path):
    assert hashlib.sha256((BUNDLE / "manifest.json").read_bytes()).hexdigest() == DIGEST
    assert Bundle.verify(str(BUNDLE)) == DIGEST
    bundle = Bundle.load(str(BUNDLE))
    assert bundle.digest == DIGEST
    bundle.save(str(tmp_path))
    for file in BUNDLE.iterdir():
        assert (tmp_path / file.name).read_bytes() == file.read_bytes()


def test_the_manifest():
    content = (BUNDLE / "manifest.json").read_bytes()
    manifest = json.loads(content)
    assert content == json.dumps(manifest, sort_keys=True, indent=2).encode()
    assert manifest["format"] == 1
    assert sorted(manifest) == sorted(
        ["format", "task", "signature", "program", "aliases", "metrics", "training", "versions", "files"]
    )
    assert manifest["program"] == {"kind": "export", "factory": "", "kwargs": None, "reason": ""}
    assert sorted(manifest["files"]) == ["program.pt2", "weights.safetensors"]
    for name, told in manifest["files"].items():
        data = (BUNDLE / name).read_bytes()
        assert told == {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def test_the_weights():
    data = (BUNDLE / "weights.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    assert header["head.weight"]["dtype"] == "F32"
    assert header["head.weight"]["shape"] == [3, 4]
    assert header["norm.num_batches_tracked"]["dtype"] == "I64"
    start, stop = header["head.weight"]["data_offsets"]
    weight = np.frombuffer(data[8 + length :][start:stop], "<f4").reshape(3, 4)
    np.testing.assert_array_equal(weight, Bundle.load(str(BUNDLE)).weights["head.weight"].numpy())
    assert max(told["data_offsets"][1] for told in header.values() if "shape" in told) == len(data) - 8 - length


def test_the_program():
    with zipfile.ZipFile(io.BytesIO((BUNDLE / "program.pt2").read_bytes())) as archive:
        entries = archive.infolist()
        assert all(entry.filename.startswith("archive/") for entry in entries)
        assert all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
        assert archive.read("archive/data/sample_inputs/model.pt") == b""
        graph = json.loads(archive.read("archive/models/model.json"))
        stand_ins = [entry for entry in entries if entry.filename.startswith("archive/data/weights/weight_")]
    assert all(entry.file_size <= 8 for entry in stand_ins)
    assert all(node["metadata"] == {} for node in graph["graph_module"]["graph"]["nodes"])


@pytest.mark.parametrize(("name", "kind"), [("bundle-v2", "export"), ("bundle-v2-onnx", "onnx")])
def test_format_2_answers_what_it_answered(tmp_path, name, kind):
    bundle = Bundle.load(str(HERE / name))
    answer = json.loads((HERE / f"{name}-answer.json").read_text())
    inputs = {
        spec.name: Ragged.of(answer["inputs"][spec.name], spec.dtype, spec.shape) if spec.is_ragged
        else np.array(answer["inputs"][spec.name], spec.dtype)
        for spec in bundle.signature.inputs if spec.columns
    }  # fmt: skip
    predicted = bundle.predict(inputs)
    assert predicted.keys() == answer["outputs"].keys()
    for key, value in answer["outputs"].items():
        np.testing.assert_allclose(predicted[key], value, rtol=1e-5)
    assert bundle.program.kind == kind
    assert json.loads((HERE / name / "manifest.json").read_bytes())["format"] == 2
    bundle.save(str(tmp_path))
    for file in (HERE / name).iterdir():
        assert (tmp_path / file.name).read_bytes() == file.read_bytes()


def test_lengths_and_masks_of_format_2():
    signature = Bundle.load(str(HERE / "bundle-v2")).signature
    assert signature.inputs == (
        TensorSpec("tokens", "int64", (-1,), ("text",), ("array<long>",)),
        TensorSpec("mask", "float32", (-1,), mask_of="tokens"),
    )


def test_a_signature():
    content = json.loads((HERE / "signature-v1.json").read_text())
    signature = Signature.from_json(content)
    assert json.loads(json.dumps(signature.to_json())) == content
    assert str(signature) == (
        "(patch: uint8[B, 28, 28, 1], text: uint8[B, 64], features: float64[B, 3], embedding: float32[B, 2, 3], "
        "vector: float64[B, 10], key: int64[B]) -> (prediction: float64[B], probability: float32[B, 3])"
    )
    assert signature.columns == ("patch", "text", "age", "amount", "member", "embedding", "vector", "key")


def test_image_files_of_format_2(tmp_path):
    """EXIF data turned no picture, and of an animation the first was taken."""
    bundle = Bundle.load(str(HERE / "bundle-v2-image"))
    answer = json.loads((HERE / "bundle-v2-image-answer.json").read_text())
    (spec,) = bundle.signature.inputs
    assert spec.preprocess == Image(height=4, width=6, resize="never", orient=False, animated=True)
    files = pa.array([base64.b64decode(file) for file in answer["files"]])
    with pytest.raises(BadRows) as caught:
        read({"file": files}, spec)
    assert caught.value.rows == answer["bad"]
    assert [why.partition(":")[0] for why in caught.value.reasons] == ["shape", "undecodable"]
    predicted = bundle.predict({"image": caught.value.rest})["prediction"]
    np.testing.assert_allclose(predicted, answer["predictions"], rtol=1e-5)
    bundle.save(str(tmp_path))
    assert bundle.digest == answer["digest"] == Bundle.verify(str(tmp_path))


def test_preprocessors_and_a_decoder_of_format_3(tmp_path):
    bundle = Bundle.load(str(HERE / "bundle-v3"))
    answer = json.loads((HERE / "bundle-v3-answer.json").read_text())
    rows = {
        "age": pa.array(answer["rows"]["age"], pa.float64()),
        "income": pa.array(answer["rows"]["income"], pa.int64()),
        "city": pa.array(answer["rows"]["city"]),
    }
    predicted = bundle.predict({spec.name: read(rows, spec) for spec in bundle.signature.inputs})
    made = answered(bundle.signature, predicted, rows)
    assert made["prediction"].to_pylist() == answer["columns"]["prediction"]
    np.testing.assert_allclose(made["probability"].to_pylist(), answer["columns"]["probability"], rtol=1e-5)
    manifest = json.loads((HERE / "bundle-v3/manifest.json").read_bytes())
    assert manifest["format"] == 3
    assert [told["preprocess"]["kind"] for told in manifest["signature"]["inputs"]] == ["numbers", "categories"]
    assert manifest["signature"]["decoder"] == {"kind": "labels", "values": ["no", "yes"]}
    bundle.save(str(tmp_path))
    for file in (HERE / "bundle-v3").iterdir():
        assert (tmp_path / file.name).read_bytes() == file.read_bytes()


def test_a_graph_of_format_4(tmp_path):
    """The bundle of format 3 with its graph, which answers the same without the bundle's program."""
    bundle = Bundle.load(str(HERE / "bundle-v4"))
    answer = json.loads((HERE / "bundle-v3-answer.json").read_text())
    manifest = json.loads((HERE / "bundle-v4/manifest.json").read_bytes())
    assert manifest["format"] == 4
    assert bundle.graph.to_json() == manifest["graph"]
    made = module(bundle.graph.content).run({
        "numbers": np.array([answer["rows"]["age"], answer["rows"]["income"]], float).T,  # a null is NaN
        "city": np.array(answer["rows"]["city"], object),
    })  # fmt: skip
    assert made["prediction"].tolist() == answer["columns"]["prediction"]
    np.testing.assert_allclose(made["probability"], answer["columns"]["probability"], rtol=1e-5)
    bundle.save(str(tmp_path))
    for file in (HERE / "bundle-v4").iterdir():
        assert (tmp_path / file.name).read_bytes() == file.read_bytes()
