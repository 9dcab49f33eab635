"""A registry, whatever keeps it: numbered versions, aliases that are moved, and who moved them."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import shutil
import tempfile
import time
from pathlib import Path

import models
import numpy as np
import pytest
import torch
from making import signature, spec
from torch import nn

import sparkdl
from sparkdl import bundle_files, store
from sparkdl.bundle import Bundle
from sparkdl.errors import (
    BundleIntegrityError,
    BundleNotFoundError,
    InvalidParamError,
    RegistryError,
    SparkdlError,
    UntrustedBundleError,
)
from sparkdl.registry import files as files_backend
from sparkdl.registry.registry import Move, Registry, Version

KINDS = ("files", "sqlite", "postgresql", "mlflow")


@pytest.fixture(scope="module")
def bundles():
    """Three of them, that differ."""
    torch.manual_seed(0)
    first = Bundle.from_module(nn.Linear(2, 1), signature(spec("x", shape=(2,))), task="regression")
    return [first.with_training(first.weights, {"loss": n / 4}, {}) for n in range(3)]


@pytest.fixture(params=KINDS)
def registry(request, tmp_path, monkeypatch):
    """Empty."""
    return made(request.param, tmp_path, monkeypatch)


def made(kind, tmp_path, monkeypatch):
    if kind == "files":
        return Registry(tmp_path / "registry")
    if kind == "mlflow":
        pytest.importorskip("mlflow.tracking")
        monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        monkeypatch.chdir(tmp_path)  # where MLflow puts artifacts, unless its server says otherwise
        return Registry(f"mlflow:sqlite:///{tmp_path}/mlflow.db")
    pytest.importorskip("sqlalchemy")
    if kind == "sqlite":
        return Registry(f"sqlite:///{tmp_path}/catalogue.db", bundles=tmp_path / "bundles")
    uri = os.environ.get("SPARKDL_TEST_POSTGRES")
    if not uri:
        pytest.skip("SPARKDL_TEST_POSTGRES names no database whose tables may be dropped")
    found = Registry(uri, bundles=tmp_path / "bundles")
    from sparkdl.registry.sql import MOVES, VERSIONS

    for table in (MOVES, VERSIONS):
        table.drop(found._backend.engine, checkfirst=True)
    return found


def test_versions_are_numbered_from_one_and_told_as_they_were_published(registry, bundles):
    before = time.time()
    assert registry.publish("fraud", bundles[0], note="the first") == 1
    assert registry.publish("fraud", bundles[1], by="nightly") == 2
    assert registry.publish("churn", bundles[2]) == 1
    versions = registry.versions("fraud")
    assert [(v.number, v.digest, v.by, v.note) for v in versions] == [
        (1, bundles[0].digest, getpass.getuser(), "the first"), (2, bundles[1].digest, "nightly", ""),
    ]  # fmt: skip
    assert all(before - 1 <= version.time <= time.time() + 1 for version in versions)
    assert registry.names() == ["churn", "fraud"]


def test_a_version_is_loaded_by_number_or_alias(registry, bundles):
    for bundle in bundles:
        registry.publish("fraud", bundle)
    registry.set_alias("fraud", "champion", 2)
    assert registry.load("fraud").digest == bundles[1].digest
    assert [registry.load("fraud", n + 1).digest for n in range(3)] == [bundle.digest for bundle in bundles]
    assert registry.load("fraud", "3").predict({"x": [[1.0, 2.0]]})["prediction"].shape == (1,)


def test_the_same_bundle_is_a_new_version_all_the_same(registry, bundles):
    assert [registry.publish("fraud", bundles[0]) for _ in range(3)] == [1, 2, 3]
    assert len({version.digest for version in registry.versions("fraud")}) == 1


def test_an_alias_names_what_it_was_moved_to_last_and_its_moves_are_told(registry, bundles):
    for bundle in bundles:
        registry.publish("fraud", bundle)
    registry.set_alias("fraud", "champion", 1, by="ann")
    registry.set_alias("fraud", "challenger", 2, by="bob")
    registry.set_alias("fraud", "champion", 3, by="bob")
    registry.set_alias("fraud", "champion", 1, by="ann")
    assert registry.aliases("fraud") == {"champion": 1, "challenger": 2}
    assert registry.resolve("fraud") == registry.resolve("fraud", "champion") == 1
    assert [(m.alias, m.before, m.version, m.by) for m in registry.history("fraud", "champion")] == [
        ("champion", None, 1, "ann"), ("champion", 1, 3, "bob"), ("champion", 3, 1, "ann"),
    ]  # fmt: skip
    assert [(m.alias, m.version) for m in registry.history("fraud")] == [
        ("champion", 1), ("challenger", 2), ("champion", 3), ("champion", 1),
    ]  # fmt: skip
    times = [move.time for move in registry.history("fraud")]
    assert times == sorted(times)


def test_numbers_resolve_to_themselves(registry, bundles):
    registry.publish("fraud", bundles[0])
    assert registry.resolve("fraud", 1) == registry.resolve("fraud", "1") == 1


def test_an_alias_is_moved_only_from_where_it_is_expected(registry, bundles):
    for bundle in bundles:
        registry.publish("fraud", bundle)
    registry.set_alias("fraud", "champion", 1, expected=None)
    registry.set_alias("fraud", "champion", 2, expected=1)
    for expected in (1, 3, None):
        with pytest.raises(RegistryError, match=f"names version 2, not {expected} as expected; it was not moved"):
            registry.set_alias("fraud", "champion", 3, expected=expected)
    assert registry.resolve("fraud") == 2
    assert len(registry.history("fraud", "champion")) == 2


def test_what_is_not_there_is_said_with_what_is(registry, bundles):
    with pytest.raises(RegistryError, match="has no model 'fraud'; there is no model yet"):
        registry.resolve("fraud")
    registry.publish("fraud", bundles[0])
    with pytest.raises(RegistryError, match="has no alias 'champion' of model 'fraud'; there is no alias yet"):
        registry.load("fraud")
    registry.set_alias("fraud", "champion", 1)
    for ask in (
        lambda: registry.resolve("fruad"), lambda: registry.load("fruad", 1), lambda: registry.versions("fruad"),
        lambda: registry.aliases("fruad"), lambda: registry.history("fruad"), lambda: registry.set_alias("fruad", "a", 1),
    ):  # fmt: skip
        with pytest.raises(RegistryError, match="did you mean 'fraud'") as caught:
            ask()
        assert (caught.value.name, caught.value.registry) == ("fruad", registry.uri)
    for ask in (lambda: registry.resolve("fraud", "champoin"), lambda: registry.history("fraud", "champoin")):
        with pytest.raises(RegistryError, match="did you mean 'champion'") as caught:
            ask()
        assert (caught.value.name, caught.value.version) == ("fraud", "champoin")
    for version in (0, 2, -1, "2", "0", True, None, 1.0, "²", "x", 10**12, "9" * 5000):
        with pytest.raises(RegistryError, match=r"has no version .*; there are \[1\]"):
            registry.set_alias("fraud", "champion", version)
    for version in (0, 2, -1, "2", True, 10**12):
        with pytest.raises(RegistryError, match="has no version"):
            registry.resolve("fraud", version)
    for alias in ("²", "9" * 5000, None, 1.0):
        with pytest.raises(RegistryError, match="an alias must be"):
            registry.resolve("fraud", alias)
    with pytest.raises(RegistryError, match="has no version 7"):
        registry.load("fraud", 7)


@pytest.mark.parametrize(
    "name", ["", "a/b", "../a", ".a", "-a", "a b", "bundles", "a@b", "a" * 129, 3, None, "ä", "a\n"]
)
def test_names_that_are_none_are_refused(tmp_path, bundles, name):
    registry = Registry(tmp_path)
    with pytest.raises(RegistryError, match="a model's name must be") as caught:
        registry.publish(name, bundles[0])
    assert repr(name) in str(caught.value)
    for ask in (registry.resolve, registry.load, registry.versions, registry.aliases, registry.history):
        with pytest.raises(RegistryError, match="a model's name must be"):
            ask(name)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("alias", ["", "a/b", "..", ".a", "12", "a b", "a" * 129, None])
def test_aliases_that_are_none_are_refused(tmp_path, bundles, alias):
    registry = Registry(tmp_path)
    registry.publish("fraud", bundles[0])
    with pytest.raises(RegistryError, match="an alias must be"):
        registry.set_alias("fraud", alias, 1)


@pytest.mark.parametrize("uri", [None, "", 3])
def test_a_registry_needs_a_place(uri):
    with pytest.raises(InvalidParamError, match="'uri' must be"):
        Registry(uri)
    if uri is not None:
        with pytest.raises(InvalidParamError, match="'bundles' must be"):
            Registry("/tmp/x", bundles=uri)


def test_a_catalogue_needs_a_place_for_the_bundles_and_mlflow_has_its_own(tmp_path):
    with pytest.raises(InvalidParamError, match="'bundles' must say where the bundles of 'sqlite:"):
        Registry(f"sqlite:///{tmp_path}/c.db")
    with pytest.raises(InvalidParamError, match="'bundles' is where MLflow"):
        Registry("mlflow:sqlite:///x.db", bundles="/tmp/b")
    with pytest.raises(RegistryError, match="must be followed by a tracking URI"):
        Registry("mlflow:")
    with pytest.raises(SparkdlError, match="no file system can open 'nowhere://x'"):
        Registry("nowhere://x")


@pytest.mark.parametrize(
    "uri", ["sqlite://", "sqlite:///:memory:", "postgresql://host", "postgresql://u:secret@host:x/d"]
)
def test_a_catalogue_that_is_none(uri):
    pytest.importorskip("sqlalchemy")
    with pytest.raises(RegistryError, match="is no catalogue for a registry") as caught:
        Registry(uri, bundles="/tmp/b")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("arguments", [{"by": ""}, {"by": 3}, {"note": None}, {"note": 3}])
def test_who_and_why_are_texts(tmp_path, bundles, arguments):
    with pytest.raises(InvalidParamError, match=f"'{next(iter(arguments))}' must be"):
        Registry(tmp_path).publish("fraud", bundles[0], **arguments)


def test_what_is_no_whole_bundle_is_not_published(registry, bundles, tmp_path):
    with pytest.raises(InvalidParamError, match="'bundle' must be a Bundle or the URI of one"):
        registry.publish("fraud", 3)
    with pytest.raises(BundleNotFoundError):
        registry.publish("fraud", tmp_path / "nothing")
    bundles[0].save(str(tmp_path / "bundle"))
    weights = tmp_path / "bundle" / bundle_files.WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    with pytest.raises(BundleIntegrityError, match="is not what was saved"):
        registry.publish("fraud", tmp_path / "bundle")
    assert registry.names() == []


def test_a_bundle_is_published_from_its_uri(registry, bundles, tmp_path):
    bundles[0].save(str(tmp_path / "bundle"))
    registry.publish("fraud", tmp_path / "bundle")
    registry.publish("fraud", (tmp_path / "bundle").as_uri())
    shutil.rmtree(tmp_path / "bundle")
    assert registry.load("fraud", 2).digest == bundles[0].digest


def test_code_is_loaded_by_those_who_trust_it(tmp_path):
    code = Bundle.from_module(models.Choosing(), signature(spec(shape=(4,))), trusted=True)
    registry = Registry(tmp_path)
    registry.publish("choosing", code)
    with pytest.raises(UntrustedBundleError):
        registry.load("choosing", 1)
    assert registry.load("choosing", 1, trusted=True).digest == code.digest


def test_mlflow_takes_no_code_and_its_own_client_runs_what_is_published(tmp_path, monkeypatch, bundles):
    import mlflow
    import pandas as pd

    registry = made("mlflow", tmp_path, monkeypatch)
    with pytest.raises(UntrustedBundleError):
        registry.publish("choosing", Bundle.from_module(models.Choosing(), signature(spec(shape=(4,))), trusted=True))
    registry.publish("fraud", bundles[0])
    registry.set_alias("fraud", "champion", 1)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    mlflow.set_registry_uri(f"sqlite:///{tmp_path}/mlflow.db")
    theirs = mlflow.pyfunc.load_model("models:/fraud@champion").predict(
        pd.DataFrame({"x": [np.array([1, 2], np.float32)]})
    )
    assert theirs["prediction"][0] == pytest.approx(bundles[0].predict({"x": [[1.0, 2.0]]})["prediction"][0])


def test_mlflow_s_own_moves_are_followed_but_not_in_the_history(tmp_path, monkeypatch, bundles):
    registry = made("mlflow", tmp_path, monkeypatch)
    registry.publish("fraud", bundles[0])
    registry.publish("fraud", bundles[1])
    registry.set_alias("fraud", "champion", 1)
    registry._backend._client.set_registered_model_alias("fraud", "champion", "2")
    assert registry.resolve("fraud") == 2
    assert len(registry.history("fraud", "champion")) == 1


# what lies where


def test_the_layout_is_as_documented(tmp_path, bundles):
    registry = Registry(tmp_path)
    registry.publish("fraud", bundles[0], by="ann", note="héllo")
    registry.publish("fraud", bundles[0])
    registry.set_alias("fraud", "champion", 1, by="bob")
    found = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    digest = bundles[0].digest
    assert found == sorted([
        *(f"bundles/{digest}/{name}" for name in bundles[0].files),
        "fraud/versions/1/record.json", "fraud/versions/2/record.json", "fraud/aliases/champion/1/record.json",
    ])  # fmt: skip
    version = json.loads((tmp_path / "fraud/versions/1/record.json").read_text(encoding="utf-8"))
    move = json.loads((tmp_path / "fraud/aliases/champion/1/record.json").read_text(encoding="utf-8"))
    assert len(version.pop("token")) == len(move.pop("token")) == 32
    assert version.pop("time") <= move.pop("time") <= time.time()
    assert version == {"format": 1, "number": 1, "digest": digest, "by": "ann", "note": "héllo"}
    assert move == {"format": 1, "alias": "champion", "version": 1, "before": None, "by": "bob"}


def test_what_a_killed_publisher_leaves_is_not_seen(tmp_path, bundles):
    registry = Registry(tmp_path)
    registry.publish("fraud", bundles[0])
    for left in ("fraud/versions/.0123", "fraud/aliases/champion/.0123", ".hidden"):
        (tmp_path / left).mkdir(parents=True)
        (tmp_path / left / "record.json").write_text("{}")
    (tmp_path / "bundles" / bundles[1].digest).mkdir()  # begun, and without its manifest
    (tmp_path / "bundles" / bundles[1].digest / bundle_files.WEIGHTS).write_bytes(b"half")
    assert registry.names() == ["fraud"]
    assert registry.aliases("fraud") == {}
    assert registry.publish("fraud", bundles[1]) == 2
    assert registry.load("fraud", 2).digest == bundles[1].digest


def test_a_damaged_bundle_is_refused_and_made_whole_by_the_next_who_publishes_it(tmp_path, bundles):
    registry = Registry(tmp_path)
    registry.publish("fraud", bundles[0])
    place = tmp_path / "bundles" / bundles[0].digest
    (place / bundle_files.WEIGHTS).write_bytes(b"")
    with pytest.raises(BundleIntegrityError):
        registry.load("fraud", 1)
    registry.publish("fraud", bundles[0])
    assert registry.load("fraud", 1).digest == bundles[0].digest
    shutil.rmtree(place)
    bundles[1].save(str(place))
    with pytest.raises(BundleIntegrityError, match="is another one"):
        registry.load("fraud", 1)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"format": 2}', b'{"format": 1, "number": 1}', b"\xff"])
def test_a_record_that_cannot_be_understood_is_named(tmp_path, bundles, content):
    registry = Registry(tmp_path)
    registry.publish("fraud", bundles[0])
    record = tmp_path / "fraud/versions/1/record.json"
    record.write_bytes(content)
    with pytest.raises(RegistryError, match="cannot be understood") as caught:
        registry.versions("fraud")
    assert str(record) in str(caught.value)


def test_a_record_is_added_only_where_there_is_none(tmp_path):
    assert files_backend._added(str(tmp_path), 1, {"a": 1})
    before = (tmp_path / "1/record.json").read_bytes()
    assert not files_backend._added(str(tmp_path), 1, {"a": 2})
    assert (tmp_path / "1/record.json").read_bytes() == before
    assert os.listdir(tmp_path) == ["1"]


@pytest.fixture
def objects(monkeypatch):
    """A folder as an object store: nothing in it is renamed."""
    monkeypatch.setattr(store, "renames_folders", lambda uri: False)


def test_a_registry_in_an_object_store(tmp_path, bundles, objects):
    registry = Registry(tmp_path)
    assert [registry.publish("fraud", bundle) for bundle in bundles] == [1, 2, 3]
    registry.set_alias("fraud", "champion", 2, expected=None)
    with pytest.raises(RegistryError, match="it was not moved"):
        registry.set_alias("fraud", "champion", 3, expected=1)
    registry.set_alias("fraud", "champion", 3, expected=2)
    assert registry.names() == ["fraud"]
    assert registry.aliases("fraud") == {"champion": 3}
    assert registry.load("fraud").digest == bundles[2].digest
    assert not list(tmp_path.glob("fraud/versions/.*/*"))


def test_an_object_that_is_there_is_not_replaced(tmp_path, objects):
    assert files_backend._added(str(tmp_path), 1, {"a": 1})
    before = (tmp_path / "1/record.json").read_bytes()
    assert not files_backend._added(str(tmp_path), 1, {"a": 2})
    assert (tmp_path / "1/record.json").read_bytes() == before


def test_a_number_that_another_claims_is_his(tmp_path, bundles, objects, monkeypatch):
    registry = Registry(tmp_path)
    registry.publish("fraud", bundles[0])
    (tmp_path / "fraud/versions/.2").mkdir(exist_ok=True)
    (tmp_path / "fraud/versions/.2/another").write_text("{}")  # before his record
    assert not files_backend._added(str(tmp_path / "fraud/versions"), 2, {})
    monkeypatch.setattr(files_backend, "STALE_S", 0.2)  # he was killed
    assert registry.publish("fraud", bundles[1]) == 3
    assert [version.number for version in registry.versions("fraud")] == [1, 3]
    (tmp_path / "fraud/aliases/champion/.1").mkdir(parents=True)
    (tmp_path / "fraud/aliases/champion/.1/another").write_text("{}")
    registry.set_alias("fraud", "champion", 3)
    assert registry.resolve("fraud") == 3
    assert [move.before for move in registry.history("fraud", "champion")] == [None]


def test_hdfs_renames_into_a_folder_that_is_there(tmp_path, monkeypatch):
    """As its rename does; a local one fails instead."""

    def move(uri, target):
        os.rename(uri, f"{target}/{os.path.basename(uri)}" if os.path.isdir(target) else target)

    monkeypatch.setattr(store, "move", move)
    assert files_backend._added(str(tmp_path), 1, {"a": 1})
    assert not files_backend._added(str(tmp_path), 1, {"a": 2})
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["1", "1/record.json"]


# a store that may only be read


@contextlib.contextmanager
def unwritable(folder):
    """Nothing under it can be written in this block; root, who may write anything, is somebody else meanwhile."""
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    if os.geteuid() == 0:
        os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(0)
    else:
        yield
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)


@pytest.mark.parametrize("kind", ["files", "sqlite"])
def test_a_registry_that_may_only_be_read(kind, bundles, monkeypatch):
    folder = Path(tempfile.mkdtemp())  # under tmp_path nobody else may look
    try:
        registry = made(kind, folder, monkeypatch)
        registry.publish("fraud", bundles[0])
        registry.set_alias("fraud", "champion", 1)
        with unwritable(folder):
            reader = made(kind, folder, monkeypatch)
            assert reader.load("fraud").digest == bundles[0].digest
            assert reader.aliases("fraud") == {"champion": 1}
            for write in (
                lambda: reader.publish("fraud", bundles[1]), lambda: reader.publish("fraud", bundles[0]),
                lambda: reader.publish("churn", bundles[0]), lambda: reader.set_alias("fraud", "champion", 1),
            ):  # fmt: skip
                with pytest.raises(RegistryError, match="cannot be written") as caught:
                    write()
                assert "need the right to write there; reading needs none" in str(caught.value)
        assert [version.number for version in registry.versions("fraud")] == [1]
    finally:
        shutil.rmtree(folder)


def test_reading_makes_nothing(tmp_path):
    pytest.importorskip("sqlalchemy")
    for registry in (
        Registry(tmp_path / "no"), Registry(f"sqlite:///{tmp_path}/no.db", bundles=tmp_path / "no"),
    ):  # fmt: skip
        assert registry.names() == []
    assert os.listdir(tmp_path) == []


def test_a_catalogue_that_cannot_be_reached_is_an_error_without_its_password(tmp_path):
    pytest.importorskip("sqlalchemy")
    (tmp_path / "c.db").write_text("this is no database at all" * 100)
    with pytest.raises(RegistryError, match="cannot be read"):
        Registry(f"sqlite:///{tmp_path}/c.db", bundles=tmp_path).names()
    with pytest.raises(RegistryError) as caught:  # no driver, or no server: both tell of the registry
        Registry("postgresql://ann:hush-hush@127.0.0.1:1/d?sslpassword=quiet", bundles=tmp_path).names()
    assert "postgresql://ann:***@127.0.0.1:1/d?sslpassword=***" in str(caught.value)
    for error in (caught.value, caught.value.__cause__):
        assert "hush" not in str(error)
        assert "quiet" not in str(error)


def test_the_façade_has_it():
    assert sparkdl.Registry is Registry
    assert Version(1, "", 0.0, "ann").note == ""
    assert Move("champion", 1, None, 0.0, "ann").before is None
