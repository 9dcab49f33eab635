"""What is saved is what was trained, predicts the same, and is refused when anything of it was changed."""

import hashlib
import json
import os
import random
import shutil
from functools import partial
from pathlib import Path

import cloudpickle
import models
import numpy as np
import pytest
import torch
from making import signature, spec
from torch import nn

from sparkdl import bundle_files, store
from sparkdl.bundle import Bundle
from sparkdl.errors import (
    BundleError,
    BundleIntegrityError,
    BundleNotFoundError,
    BundleVersionError,
    SignatureError,
    SparkdlError,
    StoreError,
    UntrustedBundleError,
)
from sparkdl.tasks import named

SCALAR = {"float32": "float", "float64": "double", "int64": "long"}


def made(name):
    make, inputs = models.MODELS[name]
    torch.manual_seed(0)
    module = make()
    specs = [spec(key, dtype, shape, None if shape else SCALAR[dtype]) for key, (dtype, shape) in inputs.items()]
    return module, Bundle.from_module(module, signature(*specs))


def arguments(bundle, rows, seed=0):
    generator = np.random.default_rng(seed)
    return {
        s.name: generator.integers(0, 10, (rows, *s.shape)) if s.dtype == "int64"
        else generator.standard_normal((rows, *s.shape)).astype(s.dtype)
        for s in bundle.signature.inputs
    }  # fmt: skip


@pytest.fixture
def saved(tmp_path, mlp):
    mlp.save(str(tmp_path / "bundle"))
    return tmp_path / "bundle"


@pytest.fixture(scope="module")
def mlp():
    return made("MLP")[1]


@pytest.fixture(scope="module")
def pickled():
    return Bundle.from_module(models.Choosing(), signature(spec(shape=(4,))), trusted=True)


@pytest.mark.parametrize("name", models.MODELS)
def test_what_is_loaded_predicts_what_the_module_returns(tmp_path, name):
    module, bundle = made(name)
    bundle.save(str(tmp_path))
    loaded = Bundle.load(str(tmp_path))
    assert loaded.program.kind == "export"
    assert (loaded.signature, loaded.digest) == (bundle.signature, bundle.digest)
    assert Bundle.verify(str(tmp_path)) == bundle.digest
    module.eval()
    for rows in (1, 2, 0, 5000):  # 5000 is more than one batch
        inputs = arguments(bundle, rows)
        predicted = loaded.predict(inputs)
        assert {s.name: (s.dtype, (rows, *s.shape)) for s in loaded.signature.outputs} == {
            key: (value.dtype.name, value.shape) for key, value in predicted.items()
        }
        if 0 < rows <= 4096:
            with torch.no_grad():
                expected = named(module(*(torch.from_numpy(array) for array in inputs.values())))
            assert predicted.keys() == expected.keys()
            for key, value in expected.items():
                np.testing.assert_allclose(predicted[key], value.numpy(), rtol=1e-5, atol=1e-6)


def test_rows_do_not_depend_on_the_batch_they_are_in(mlp):
    inputs = arguments(mlp, 5000)
    whole = mlp.predict(inputs)["prediction"]
    tail = mlp.predict({name: array[4090:4100] for name, array in inputs.items()})["prediction"]
    np.testing.assert_allclose(whole[4090:4100], tail, rtol=1e-5, atol=1e-6)


def test_weights_are_kept_to_the_bit_and_tied_ones_once(tmp_path):
    module, bundle = made("tied weights")
    bundle.save(str(tmp_path))
    manifest = json.loads((tmp_path / "manifest.json").read_bytes())
    assert manifest["aliases"] in ({"decoder.weight": "encoder.weight"}, {"encoder.weight": "decoder.weight"})
    loaded = Bundle.load(str(tmp_path))
    assert loaded.weights.keys() == module.state_dict().keys()
    for name, value in module.state_dict().items():
        assert torch.equal(loaded.weights[name], value)


def test_making_a_bundle_leaves_the_module_as_it_was():
    module = models.cnn().train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    Bundle.from_module(module, signature(spec(shape=(1, 8, 8))))
    assert module.training
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_training_the_module_on_does_not_change_the_bundle():
    module, bundle = made("MLP")
    inputs = arguments(bundle, 3)
    before = bundle.predict(inputs)["prediction"].copy()
    with torch.no_grad():
        module[0].weight.add_(1)
    np.testing.assert_array_equal(Bundle.from_files(bundle.files).predict(inputs)["prediction"], before)


def test_other_weights_in_the_same_program():
    trained, untrained = models.mlp(), models.mlp()
    inputs = signature(spec(shape=(4,)))
    bundle = Bundle.from_module(untrained, inputs).with_training(trained.state_dict(), {"loss": 1.5}, {"rows": 3})
    x = arguments(bundle, 3)
    np.testing.assert_allclose(
        bundle.predict(x)["prediction"], trained(torch.from_numpy(x["x"])).detach().numpy(), rtol=1e-5
    )
    again = Bundle.from_files(bundle.files)
    assert (again.metrics, again.training) == ({"loss": 1.5}, {"rows": 3})


def test_the_same_model_gives_the_same_bytes():
    first, second = (Bundle.from_module(models.double(), signature(spec(shape=(4,)))) for _ in range(2))
    second = second.with_training(first.weights, {}, {})
    assert first.digest == second.digest
    assert first.files == second.files


@pytest.mark.parametrize("task", ["multiclass", "binary", "regression"])
def test_a_task_says_what_is_predicted(tmp_path, task):
    module = nn.Linear(4, 3 if task == "multiclass" else 1)
    bundle = Bundle.from_module(module, signature(spec(shape=(4,))), task=task)
    bundle.save(str(tmp_path))
    predicted = Bundle.load(str(tmp_path)).predict(arguments(bundle, 5))
    assert predicted["prediction"].dtype == np.float64
    assert predicted["prediction"].shape == (5,)
    if task != "regression":
        assert predicted["probability"].shape == (5, 3 if task == "multiclass" else 2)
        np.testing.assert_allclose(predicted["probability"].sum(axis=1), 1, rtol=1e-6)
        np.testing.assert_array_equal(predicted["probability"].argmax(axis=1), predicted["prediction"])


def test_integers_are_kept(tmp_path):
    _, bundle = made("several inputs, a tuple")
    assert [s.dtype for s in bundle.signature.inputs] == ["float32", "int64"]
    big = np.array([7], dtype=np.int64)
    predicted = bundle.predict({"x": np.zeros((1, 4), np.float32), "key": big})
    assert predicted["output_1"].dtype == np.int64
    assert predicted["output_1"].tolist() == [14]


def test_a_module_that_does_not_take_the_columns_is_refused_with_both_sides():
    with pytest.raises(SignatureError) as caught:
        Bundle.from_module(models.mlp(), signature(spec("patch", shape=(5,))))
    text = str(caught.value)
    assert "patch: float32[B, 5]" in text
    assert "mat1 and mat2 shapes cannot be multiplied" in text
    assert "in_features=4" in text


class Centred(nn.Module):
    def __init__(self, of):
        super().__init__()
        self.weight, self.of = nn.Parameter(torch.ones(4, 3)), of

    def forward(self, x):
        return {"fine": x @ self.weight, "centred": self.of(x)}


@pytest.mark.parametrize("of", [lambda x: x - x.mean(0), lambda x: x.softmax(0), lambda x: x.sum(0).expand_as(x)])
def test_an_output_that_depends_on_the_rows_beside_is_refused(of):
    with pytest.raises(SignatureError, match="output 'centred' for a row changes with the rows beside it"):
        Bundle.from_module(Centred(of), signature(spec(shape=(4,))))


def test_normalisation_by_what_training_saw_depends_on_no_other_row():
    alone = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3), nn.Dropout(), nn.LayerNorm(3))
    assert Bundle.from_module(alone, signature(spec(shape=(4,))), task="multiclass").program.kind == "export"


def test_an_output_without_rows_is_refused():
    with pytest.raises(SignatureError, match="its first dimension must be the rows"):
        Bundle.from_module(nn.Sequential(nn.Linear(4, 2), nn.Flatten(0)), signature(spec(shape=(4,))))


# --- what is on the disk


def test_the_manifest_is_written_last_and_lists_the_others(tmp_path, mlp, monkeypatch):
    written = []
    write = store.write_bytes
    monkeypatch.setattr(
        store, "write_bytes", lambda uri, content: (written.append(Path(uri).name), write(uri, content))
    )
    mlp.save(str(tmp_path))
    assert written[-1] == "manifest.json"
    assert sorted(written) == sorted(path.name for path in tmp_path.iterdir())
    listed = json.loads((tmp_path / "manifest.json").read_bytes())["files"]
    assert sorted(listed) == sorted(written[:-1])


@pytest.mark.parametrize("fails_at", [0, 1, 2])
@pytest.mark.parametrize("over", [False, True])
def test_an_interrupted_save_leaves_no_bundle(tmp_path, mlp, monkeypatch, fails_at, over):
    if over:
        made("MLP")[1].with_training(models.mlp().state_dict(), {}, {}).save(str(tmp_path))
    write, calls = store.write_bytes, []

    def failing(uri, content):
        if len(calls) == fails_at:
            raise KeyboardInterrupt
        calls.append(uri)
        write(uri, content)

    with monkeypatch.context() as patch:
        patch.setattr(store, "write_bytes", failing)
        with pytest.raises(KeyboardInterrupt):
            mlp.save(str(tmp_path), overwrite=over)
    with pytest.raises(BundleNotFoundError, match="no bundle at"):
        Bundle.load(str(tmp_path))
    mlp.save(str(tmp_path))  # and can be done again
    assert Bundle.verify(str(tmp_path)) == mlp.digest


def test_a_bundle_is_not_replaced_unless_told_to(saved, mlp):
    other = mlp.with_training(models.mlp().state_dict(), {"loss": 2}, {})
    with pytest.raises(BundleError, match="overwrite=True"):
        other.save(str(saved))
    assert Bundle.verify(str(saved)) == mlp.digest
    other.save(str(saved), overwrite=True)
    assert Bundle.verify(str(saved)) == other.digest != mlp.digest


def test_a_place_that_cannot_be_written_is_a_store_error(tmp_path, mlp):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write"):
        mlp.save(str(tmp_path / "file" / "bundle"))


def test_nothing_there_is_said_so(tmp_path):
    for place in (tmp_path, tmp_path / "none"):
        for use in (Bundle.load, Bundle.verify):
            with pytest.raises(BundleNotFoundError, match="saving was interrupted"):
                use(str(place))


def test_other_files_are_left_alone(saved, mlp):
    (saved / "README").write_text("mine")
    (saved / "evil.pkl").write_bytes(b"x")
    assert Bundle.load(str(saved)).digest == mlp.digest
    mlp.save(str(saved), overwrite=True)
    assert (saved / "README").read_text() == "mine"


# --- what is refused


def refused(place, kind=BundleIntegrityError, says=None, **arguments):
    """Loading and verifying both refuse."""
    with pytest.raises(kind, match=says) as caught:
        Bundle.load(str(place), **arguments)
    with pytest.raises(kind, match=says):
        Bundle.verify(str(place))
    return caught.value


@pytest.mark.parametrize("name", ["weights.safetensors", "program.pt2"])
@pytest.mark.parametrize("where", ["first", "middle", "last"])
def test_a_flipped_byte_is_found(saved, name, where):
    content = bytearray((saved / name).read_bytes())
    content[{"first": 0, "middle": len(content) // 2, "last": -1}[where]] ^= 1
    (saved / name).write_bytes(content)
    error = refused(saved, says=f"{name} of the bundle .* is not what was saved")
    assert (error.file, error.uri) == (name, str(saved))


@pytest.mark.parametrize("name", ["weights.safetensors", "program.pt2"])
def test_a_missing_file_is_named(saved, name):
    (saved / name).unlink()
    assert refused(saved, says=f"{name} of the bundle .* cannot be read").file == name


def test_a_missing_manifest_is_no_bundle(saved):
    (saved / "manifest.json").unlink()
    refused(saved, BundleNotFoundError)


@pytest.mark.parametrize("name", ["weights.safetensors", "program.pt2", "manifest.json"])
def test_a_symbolic_link_is_refused(saved, tmp_path, name):
    (saved / name).rename(tmp_path / "elsewhere")
    (saved / name).symlink_to(tmp_path / "elsewhere")
    assert refused(saved, says="is a symbolic link").file == name


def changed(saved, change):
    """The manifest with a change, in place."""
    manifest = json.loads((saved / "manifest.json").read_bytes())
    change(manifest)
    (saved / "manifest.json").write_text(json.dumps(manifest))


def test_a_newer_format_says_what_to_do(saved):
    changed(saved, lambda manifest: manifest.update(format=5))
    error = refused(saved, BundleVersionError, "has format 5; this sparkdl reads up to 4: upgrade")
    assert (error.found, error.supported) == (5, 4)


@pytest.mark.parametrize(
    "name",
    [
        "../secret",
        "..",
        "a/b",
        "/etc/passwd",
        "",
        ".",
        ".hidden",
        "a\\b",
        "a\nb",
        "..\\a",
        "file:///etc/passwd",
        "é",
        "a..b",
    ],
)
def test_a_name_that_is_not_of_a_file_beside_it_is_refused(saved, tmp_path, name):
    content = b"secret"
    (tmp_path / "secret").write_bytes(content)
    told = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    changed(saved, lambda manifest: manifest["files"].update({name: told}))
    refused(saved, says="not the name of a file beside it")


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"null", b"3", b"[]", b'"text"', b"{}", b'{"format": 1}', b'{"format": "1"}', b'{"format": true}',
     b'{"format": 0}', b'{"format": -1}', b'{"format": 1, "files": []}', b'{"format": 1, "files": {}}',
     b'{"format": 1, "files": {"weights.safetensors": 3}}', b"[" * 100_000, b"9" * 5000],
    ids=lambda content: content[:40].decode(errors="replace") or "empty",
)  # fmt: skip
def test_a_manifest_that_is_none_is_refused(saved, content):
    (saved / "manifest.json").write_bytes(content)
    refused(saved, says="manifest.json of the bundle")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (field, value)
        for field in ("task", "signature", "program", "aliases", "metrics", "training", "files")
        for value in (3, "text", [], [1], None, {"a": 1}, True)
        if (field, value) not in [("task", None), ("metrics", {"a": 1}), ("training", {"a": 1})]  # they have one
    ],
)
def test_a_field_that_has_no_meaning_is_refused(saved, field, value):
    changed(saved, lambda manifest: manifest.update({field: value}))
    with pytest.raises(BundleIntegrityError):
        Bundle.load(str(saved))


@pytest.mark.parametrize(
    "program",
    [
        {"kind": "exec"}, {"kind": None}, {"kind": ["export"]}, {"kind": "pickle"},  # no program.pkl is listed
        {"kind": "import", "factory": 3}, {"kwargs": [1]}, {"reason": None},
    ],
)  # fmt: skip
def test_a_program_that_has_no_meaning_is_refused(saved, program):
    changed(saved, lambda manifest: manifest["program"].update(program))
    with pytest.raises(BundleIntegrityError):
        Bundle.load(str(saved), trusted=True)


def test_an_export_without_its_file_is_refused(saved):
    changed(saved, lambda manifest: manifest["files"].pop("program.pt2"))
    with pytest.raises(BundleIntegrityError):
        Bundle.load(str(saved))


@pytest.mark.parametrize("name", ["weights.safetensors", "program.pt2"])
@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04" + b"\0" * 100, b"\xff" * 16])
def test_a_file_of_another_kind_with_the_right_digest_is_refused(saved, name, content):
    forge(saved, name, content)
    with pytest.raises(BundleIntegrityError):
        Bundle.load(str(saved)).module()


def forge(saved, name, content):
    (saved / name).write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    changed(saved, lambda manifest: manifest["files"].update({name: {"sha256": digest, "bytes": len(content)}}))


def test_weights_of_another_model_are_refused(saved):
    other = Bundle.from_module(nn.Linear(4, 2), signature(spec(shape=(4,))))
    forge(saved, "weights.safetensors", other.files["weights.safetensors"])
    with pytest.raises(BundleIntegrityError, match="cannot be loaded by torch"):
        Bundle.load(str(saved)).module()


# --- code


def test_a_module_that_cannot_be_exported_needs_trust():
    with pytest.raises(UntrustedBundleError, match=r"cannot be exported by torch\.export .*trusted=True"):
        Bundle.from_module(models.Choosing(), signature(spec(shape=(4,))))


@pytest.mark.parametrize(
    ("factory", "path", "kwargs"),
    [
        (models.choosing, "models:choosing", {}),
        (models.Choosing, "models:Choosing", {}),
        (partial(models.choosing, width=3), "models:choosing", {"width": 3}),
    ],
)
def test_with_trust_it_is_kept_as_an_import_path(tmp_path, factory, path, kwargs):
    module = factory()
    bundle = Bundle.from_module(module, signature(spec(shape=(4,))), factory=factory, trusted=True)
    bundle.save(str(tmp_path))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["manifest.json", "weights.safetensors"]
    loaded = Bundle.load(str(tmp_path), trusted=True)
    assert (loaded.program.kind, loaded.program.factory, loaded.program.kwargs) == ("import", path, kwargs)
    assert loaded.program.reason
    x = arguments(bundle, 3)
    np.testing.assert_array_equal(loaded.predict(x)["prediction"], bundle.predict(x)["prediction"])
    with pytest.raises(UntrustedBundleError, match=f"an? import \\({path}\\)|import \\({path}\\)"):
        Bundle.load(str(tmp_path))


@pytest.mark.parametrize("factory", [None, lambda: models.choosing(), partial(models.choosing, 2)])
def test_with_trust_and_no_import_path_it_is_pickled(tmp_path, factory):
    bundle = Bundle.from_module(models.choosing(), signature(spec(shape=(4,))), factory=factory, trusted=True)
    bundle.save(str(tmp_path))
    assert (tmp_path / "program.pkl").exists()
    x = arguments(bundle, 3)
    loaded = Bundle.load(str(tmp_path), trusted=True)
    np.testing.assert_array_equal(loaded.predict(x)["prediction"], bundle.predict(x)["prediction"])


class Evil:
    """Unpickling it makes a directory."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return os.mkdir, (str(self.place),)


def test_without_trust_no_code_of_the_bundle_runs(tmp_path, pickled):
    pickled.save(str(tmp_path / "bundle"))
    proof = tmp_path / "ran"
    forge(tmp_path / "bundle", "program.pkl", cloudpickle.dumps(Evil(proof)))
    Bundle.verify(str(tmp_path / "bundle"))
    with pytest.raises(UntrustedBundleError, match="trusted=True"):
        Bundle.load(str(tmp_path / "bundle"))
    assert not proof.exists()
    with pytest.raises(Exception, match="load_state_dict"):  # with trust it does run: the proof proves something
        Bundle.load(str(tmp_path / "bundle"), trusted=True).module()
    assert proof.exists()


def test_a_wrong_digest_is_found_before_code_runs_even_with_trust(tmp_path, pickled):
    pickled.save(str(tmp_path / "bundle"))
    (tmp_path / "bundle" / "program.pkl").write_bytes(cloudpickle.dumps(Evil(tmp_path / "ran")))
    with pytest.raises(BundleIntegrityError):
        Bundle.load(str(tmp_path / "bundle"), trusted=True)
    assert not (tmp_path / "ran").exists()


# --- anything at all


def mutations(saved, count):
    """Bundles with something wrong: bytes of a file, or a field of the manifest, digests put right or not."""
    chance = random.Random(7)
    originals = {path.name: path.read_bytes() for path in saved.iterdir()}
    values = [None, True, 0, -1, 2**70, 1.5, float("inf"), "", "x", "../x", [], {}, ["a"], {"a": 1}, [[[]]]]
    for _ in range(count):
        files = {name: bytearray(content) for name, content in originals.items()}
        name = chance.choice([*files, "manifest.json"])
        how = chance.choice(["flip", "cut", "insert", "field", "field"])
        if how == "field":
            manifest = json.loads(files["manifest.json"])
            place = manifest
            for _ in range(chance.randint(0, 5)):
                inner = [value for value in (place.values() if isinstance(place, dict) else place)
                         if isinstance(value, (dict, list)) and value]  # fmt: skip
                place = chance.choice(inner) if inner else place
            key = chance.choice(list(place) if isinstance(place, dict) else range(len(place)))
            if chance.random() < 0.3:
                del place[key]
            else:
                place[key] = chance.choice(values)
            files["manifest.json"] = json.dumps(manifest).encode()
        else:
            content = files[name]
            for _ in range(chance.randint(1, 4)):
                at = chance.randrange(len(content) or 1)
                if how == "flip" and content:
                    content[at] ^= 1 << chance.randrange(8)
                elif how == "cut":
                    del content[at : at + chance.randint(1, 1000)]
                else:
                    content[at:at] = chance.randbytes(chance.randint(1, 50))
            if name != "manifest.json" and chance.random() < 0.7:  # by someone who knows how to hash
                manifest = json.loads(files["manifest.json"])
                manifest["files"][name]["sha256"] = hashlib.sha256(content).hexdigest()
                files["manifest.json"] = json.dumps(manifest).encode()
        yield files


@pytest.mark.parametrize("trusted", [False, True])
def test_a_broken_bundle_raises_errors_of_ours_only_and_writes_nothing(tmp_path, saved, trusted):
    place = tmp_path / "broken"
    outcomes = {True: 0, False: 0}
    for files in mutations(saved, 150):
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        for name, content in files.items():
            (place / name).write_bytes(content)
        try:
            bundle = Bundle.load(str(place), trusted=trusted)
            if bundle.program.kind == "export":
                bundle.predict({"x": np.zeros((2, 4), np.float32)})
        except SparkdlError:
            outcomes[False] += 1
        else:
            outcomes[True] += 1  # a metric, a digest's own length: nothing that matters
        assert sorted(path.name for path in tmp_path.iterdir()) == ["broken", "bundle"]
        assert sorted(path.name for path in place.iterdir()) == sorted(files)
    assert outcomes[False] > outcomes[True]


def test_the_format_is_the_first_while_nothing_newer_is_used(mlp):
    assert json.loads(mlp.files["manifest.json"])["format"] == 1
    assert bundle_files.FORMAT == 4


def test_a_bundle_that_was_loaded_is_saved_with_its_manifest_last_too(tmp_path, monkeypatch):
    Bundle.from_module(nn.Linear(2, 1), signature(spec(shape=(2,)))).save(str(tmp_path / "one"))
    loaded, written, write = Bundle.load(str(tmp_path / "one")), [], store.write_bytes
    monkeypatch.setattr(
        store, "write_bytes", lambda uri, content: (written.append(Path(uri).name), write(uri, content))
    )
    loaded.save(str(tmp_path / "two"))
    assert written[-1] == "manifest.json"
