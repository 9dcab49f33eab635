"""What several jobs do with a model and a table that the conf names."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sparkdl import store
from sparkdl.errors import SourceNotFoundError
from sparkdl.jobs import code
from sparkdl.jobs.run import Run
from sparkdl.registry import uri as registry_uri

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from sparkdl.model import TorchModel
    from sparkdl.registry.registry import Registry


def registry(run: Run, uri: str | None, bundles: str | None = None) -> Registry:
    """The conf's registry, or the configured one. Raises RegistryError."""
    from sparkdl.registry.registry import Registry

    if uri:
        return Registry(uri, bundles=bundles)
    return registry_uri.default(None if os.environ.get(registry_uri.VARIABLE) else run.spark)


def model(run: Run, uri: str, settings: Mapping[str, Any], registry_at: str | None = None) -> TorchModel:
    """The model at a bundle's URI or of a registry, with the Params of ``settings``; its code as far as the person who
    started the job allows it. Raises as ``Bundle.load``, ``Registry.load``, and InvalidParamError for a bad Param."""
    from sparkdl.bundle import Bundle
    from sparkdl.model import TorchModel

    trusted = code.trusted(run)
    if registry_uri.is_registry_uri(uri):
        bundle = registry_uri.load(uri, registry=registry(run, registry_at), trusted=trusted)
    else:
        bundle = Bundle.load(uri, trusted=trusted)
    return TorchModel(bundle).setParams(**settings)


def table(run: Run, uri: str, key: str) -> DataFrame:
    """The Parquet or Delta table that the conf's ``key`` names. Raises SourceNotFoundError."""
    from sparkdl.score import sources

    if not store.exists(uri):
        raise SourceNotFoundError(f"{key}: there is nothing at {store.shown(uri)!r}", uri=store.shown(uri))
    return sources.opened(run.spark, uri).df


def write_json(run: Run, uri: str, told: Mapping[str, Any]) -> None:
    """Write it whole, or not at all. NaN is null. Raises StoreError."""
    from sparkdl.stream.events import jsonable

    store.write_bytes(uri, (json.dumps(run.hushed(jsonable(told)), indent=2) + "\n").encode())
