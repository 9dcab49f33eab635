"""What a registry holds: versions and moves of aliases; how both are named."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sparkdl.errors import RegistryError, did_you_mean

CHAMPION = "champion"
RESERVED = ("bundles",)  # the folder beside those of the names
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True)
class Version:
    """number: from 1. digest: of the bundle, sha256 of its manifest in hex; empty if whoever made it told none.
    time: when it was published, in seconds since 1970. by: who did."""

    number: int
    digest: str
    time: float
    by: str
    note: str = ""


@dataclass(frozen=True)
class Move:
    """alias: now names ``version``; ``before`` is what it named then, or None. time: in seconds since 1970."""

    alias: str
    version: int
    before: int | None
    time: float
    by: str


def check_name(name: Any, registry: str) -> str:
    """The name of a model. Raises RegistryError for one that no registry takes."""
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name in RESERVED:
        raise RegistryError(
            f"a model's name must be letters, digits, '.', '_' and '-', begin with a letter or digit, have at most 128 "
            f"of them and not be one of {list(RESERVED)} (got {name!r})",
            registry=registry,
            name=name,
            version=None,
        )
    return name


def check_alias(alias: Any, registry: str, name: str | None = None) -> str:
    """An alias. Raises RegistryError for one that no registry takes; a number would be a version."""
    if not isinstance(alias, str) or not _NAME.fullmatch(alias) or alias.isdecimal():
        raise RegistryError(
            "an alias must be letters, digits, '.', '_' and '-', begin with a letter or digit, have at most 128 of them "
            f"and not be a number (got {alias!r})",
            registry=registry,
            name=name,
            version=alias,
        )
    return alias


def number_of(version: Any) -> int | None:
    """The number of a version, given as one or as its digits; None for what is neither."""
    if isinstance(version, str) and re.fullmatch(r"[0-9]{1,9}", version):
        return int(version)
    return version if isinstance(version, int) and not isinstance(version, bool) and 0 < version < 10**9 else None


def unknown(what: str, asked: Any, known: Collection[Any], registry: str, name: str | None) -> RegistryError:
    """The error for a name, alias or version that is not there. what: ``model``, ``alias`` or ``version``."""
    of = f" of model {name!r}" if name is not None and what != "model" else ""
    options = [str(option) for option in known]
    few = options if len(options) <= 20 else [*options[:10], "…", *options[-10:]]
    told = f"there are [{', '.join(few)}]" if few else f"there is no {what} yet"
    return RegistryError(
        f"the registry {registry} has no {what} {asked!r}{of}; {told}{did_you_mean(str(asked), options)}",
        registry=registry,
        name=asked if what == "model" else name,
        version=None if what == "model" else asked,
    )
