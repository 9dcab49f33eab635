"""Registry URIs, and the registry that is configured."""

import pytest
import torch
from making import signature, spec
from torch import nn

from sparkdl.bundle import Bundle
from sparkdl.errors import RegistryError
from sparkdl.registry import uri
from sparkdl.registry.registry import Registry
from sparkdl.registry.uri import ModelName
from sparkdl.store import secrets_of, shown


@pytest.fixture(autouse=True)
def unset(monkeypatch):
    for name in (uri.VARIABLE, uri.BUNDLES_VARIABLE):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("text", "named", "at"),
    [
        ("registry://fraud", ModelName("fraud", "champion"), "champion"),
        ("registry://fraud@champion", ModelName("fraud", "champion"), "champion"),
        ("registry://fraud@challenger", ModelName("fraud", "challenger"), "challenger"),
        ("registry://fraud/3", ModelName("fraud", None, 3), 3),
        ("registry://Fraud-2.1_x@eu-west.1", ModelName("Fraud-2.1_x", "eu-west.1"), "eu-west.1"),
    ],
)
def test_what_a_uri_names(text, named, at):
    assert uri.parse(text) == named
    assert named.at == at
    assert uri.parse(str(named)) == named


@pytest.mark.parametrize(
    "text",
    [
        "registry:fraud", "fraud", "", None, 3, "registry://", "registry://@champion", "registry://fraud@", "registry://fraud/",
        "registry://fraud/0", "registry://fraud/x", "registry://fraud/3/4", "registry://fraud@a@b", "registry://fraud@a/3",
        "registry://fraud@3", "registry://../x", "registry://bundles", "registry://fraud?x=1", "registry://fraud/9999999999",
    ],
)  # fmt: skip
def test_what_is_none_is_refused(text):
    with pytest.raises(RegistryError) as caught:
        uri.parse(text)
    assert "registry URI is" in str(caught.value) or "must be letters" in str(caught.value)


def test_which_texts_are_meant_as_registry_uris():
    assert uri.is_registry_uri("registry://fraud")
    assert not any(uri.is_registry_uri(other) for other in ("/registry/fraud", "s3://x", None, 3))


def test_the_default_is_what_the_environment_says(tmp_path, monkeypatch):
    with pytest.raises(RegistryError, match=r"give registry=, or set spark.sparkdl.registry .* or SPARKDL_REGISTRY"):
        uri.default()
    monkeypatch.setenv("SPARKDL_REGISTRY", str(tmp_path / "r"))
    assert uri.default().uri == str(tmp_path / "r")
    pytest.importorskip("sqlalchemy")
    monkeypatch.setenv("SPARKDL_REGISTRY", f"sqlite:///{tmp_path}/c.db")
    monkeypatch.setenv("SPARKDL_REGISTRY_BUNDLES", str(tmp_path / "b"))
    assert uri.default().uri == f"sqlite:///{tmp_path}/c.db"


def test_a_bundle_is_loaded_by_a_registry_uri(tmp_path, monkeypatch):
    torch.manual_seed(0)
    bundle = Bundle.from_module(nn.Linear(2, 1), signature(spec("x", shape=(2,))))
    registry = Registry(tmp_path)
    registry.publish("fraud", bundle)
    registry.set_alias("fraud", "champion", 1)
    assert uri.load("registry://fraud", registry=registry).digest == bundle.digest
    monkeypatch.setenv("SPARKDL_REGISTRY", str(tmp_path))
    assert uri.load("registry://fraud/1").digest == bundle.digest


@pytest.mark.parametrize(
    ("told", "without", "secrets"),
    [
        ("/data/registry", "/data/registry", []),
        ("postgresql://ann@host/d", "postgresql://ann@host/d", []),
        ("postgresql://ann:hush@host:5/d", "postgresql://ann:***@host:5/d", ["hush"]),
        ("postgresql+psycopg2://ann:a@b@host/d", "postgresql+psycopg2://ann:***@host/d", ["a@b"]),
        ("postgresql://ann:a/b?c@host/d?user=e@f", "postgresql://ann:***@host/d?user=e@f", ["a/b?c"]),
        ("postgresql://ann:12/b@host:5/d", "postgresql://ann:***@host:5/d", ["12/b"]),
        ("postgresql://ann:a?b=c/d@host/d", "postgresql://ann:***@host/d", ["a?b=c/d"]),
        ("postgresql://host:5432/d?user=ann@corp", "postgresql://host:5432/d?user=ann@corp", []),
        ("s3://id:hush@bucket/x?region=eu", "s3://id:***@bucket/x?region=eu", ["hush"]),
        ("postgresql://h/d?user=ann&password=hush&a=1", "postgresql://h/d?user=ann&password=***&a=1", ["hush"]),
        ("abfs://c@a.net/x?sas_token=hush", "abfs://c@a.net/x?sas_token=***", ["hush"]),
        ("mlflow:https://ann:hush@host/", "mlflow:https://ann:***@host/", ["hush"]),
    ],
)
def test_a_uri_is_shown_without_its_secrets(told, without, secrets):
    assert shown(told) == without
    assert secrets_of(told) == secrets
