"""Registry URIs: ``registry://fraud@champion``, ``registry://fraud/3``, ``registry://fraud``; and the default registry."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sparkdl.errors import RegistryError
from sparkdl.registry.records import CHAMPION, check_alias, check_name

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from sparkdl.bundle import Bundle
    from sparkdl.registry.registry import Registry

SCHEME = "registry://"
CONF = "spark.sparkdl.registry"
BUNDLES_CONF = "spark.sparkdl.registry.bundles"
VARIABLE = "SPARKDL_REGISTRY"
BUNDLES_VARIABLE = "SPARKDL_REGISTRY_BUNDLES"


@dataclass(frozen=True)
class ModelName:
    """A model of a registry, by an alias or by the number of a version; the other one is None."""

    name: str
    alias: str | None = CHAMPION
    version: int | None = None

    @property
    def at(self) -> str | int:
        """What ``Registry.resolve`` and ``load`` take."""
        return self.version if self.version is not None else self.alias or CHAMPION

    def __str__(self) -> str:
        return f"{SCHEME}{self.name}" + (f"/{self.version}" if self.version is not None else f"@{self.alias}")


def is_registry_uri(value: Any) -> bool:
    """True for a text that begins as a registry URI does."""
    return isinstance(value, str) and value.startswith(SCHEME)


def parse(text: str) -> ModelName:
    """What a registry URI names; no alias is ``champion``. Raises RegistryError."""
    found = (
        re.fullmatch(r"([^@/]*)(?:@([^@/]*)|/([^@/]*))?", text.removeprefix(SCHEME)) if is_registry_uri(text) else None
    )
    if found is None or (found[3] is not None and not re.fullmatch(r"[1-9][0-9]{0,8}", found[3])):
        raise RegistryError(
            f"a registry URI is {SCHEME}<name>@<alias>, {SCHEME}<name>/<version> or {SCHEME}<name> (got {text!r})",
            registry="",
            name=None,
            version=None,
        )
    name = check_name(found[1], "")
    if found[3] is not None:
        return ModelName(name, None, int(found[3]))
    return ModelName(name, CHAMPION if found[2] is None else check_alias(found[2], "", name))


def default(spark: SparkSession | None = None) -> Registry:
    """The configured registry: Spark's conf ``spark.sparkdl.registry``, else the variable SPARKDL_REGISTRY; the bundles of
    an SQL catalogue by ``spark.sparkdl.registry.bundles``, else SPARKDL_REGISTRY_BUNDLES.

    spark: the session; by default the one of this thread, if there is one. Raises RegistryError if neither is set.
    """
    from sparkdl.registry.registry import Registry

    session = spark if spark is not None else _active()
    told = {key: session.conf.get(key, None) for key in (CONF, BUNDLES_CONF)} if session is not None else {}
    uri = told.get(CONF) or os.environ.get(VARIABLE)
    bundles = told.get(BUNDLES_CONF) or os.environ.get(BUNDLES_VARIABLE)
    if not uri:
        raise RegistryError(
            f"no registry is configured: give registry=, or set {CONF} in Spark's conf, or {VARIABLE}",
            registry="",
            name=None,
            version=None,
        )
    return Registry(uri, bundles=bundles or None)


def load(
    text: str,
    *,
    registry: Registry | None = None,
    spark: SparkSession | None = None,
    trusted: bool | Collection[str] = False,
) -> Bundle:
    """The bundle that a registry URI names now, out of ``registry`` or the default one. Raises as ``Registry.load``."""
    model = parse(text)
    return (registry if registry is not None else default(spark)).load(model.name, model.at, trusted=trusted)


def _active() -> SparkSession | None:
    if "pyspark" not in sys.modules:
        return None
    from pyspark.sql import SparkSession

    return SparkSession.getActiveSession()
