"""A bundle becomes a version of a registry, and perhaps what an alias names: once, however often it is asked for."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sparkdl import store
from sparkdl.errors import InvalidParamError, RegistryError, SourceNotFoundError, did_you_mean
from sparkdl.registry.records import CHAMPION
from sparkdl.registry.registry import Registry
from sparkdl.tasks import is_lower_better


@dataclass(frozen=True)
class Promotion:
    """version: its number. is_new: it was not there before. alias: that names it now, or None. before: what that named
    until then, or None."""

    version: int
    is_new: bool
    alias: str | None
    before: int | None


@dataclass(frozen=True)
class Judged:
    """What the job ``evaluate`` wrote of a model. digest: of its bundle. data: the table it was evaluated on. rows: of it."""

    digest: str
    data: str
    rows: int
    figures: Mapping[str, float]

    @classmethod
    def read(cls, uri: str) -> Judged:
        """Raises SourceNotFoundError if there is no file, InvalidParamError if it is no evaluation."""
        try:
            told = json.loads(store.read_bytes(uri))
            figures = {
                str(name): math.nan if value is None else float(value) for name, value in told["figures"].items()
            }
            return cls(str(told["digest"]), str(told["data"]), int(told["rows"]), figures)
        except FileNotFoundError as error:
            raise SourceNotFoundError(
                f"there is no evaluation at {store.shown(uri)!r}", uri=store.shown(uri)
            ) from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidParamError(
                f"{store.shown(uri)!r} is no evaluation, as the job evaluate writes it: {error!r}",
                param="evaluation",
                value=uri,
            ) from error

    def better_by(self, other: Judged, figure: str) -> float:
        """How much better its figure is than the other's; negative if it is worse, NaN if one of them is.

        Raises InvalidParamError if they are of different data, or lack the figure.
        """
        if (self.data, self.rows) != (other.data, other.rows):
            raise InvalidParamError(
                f"evaluations are compared on the same data (got {self.data!r}, {self.rows} rows, and {other.data!r}, "
                f"{other.rows} rows)",
                param="data",
                value=(self.data, other.data),
            )
        for one in (self, other):
            if figure not in one.figures:
                raise InvalidParamError(
                    f"an evaluation has no figure {figure!r}{did_you_mean(figure, one.figures)}; it has {list(one.figures)}",
                    param="figure",
                    value=figure,
                )
        gain = self.figures[figure] - other.figures[figure]
        return -gain if is_lower_better(figure) else gain


def check_of(judged: Judged, digest: str, what: str) -> None:
    """Raise InvalidParamError if the evaluation is of another bundle."""
    if judged.digest != digest:
        raise InvalidParamError(
            f"the evaluation is of bundle {judged.digest[:12]}, and {what} is {digest[:12]}; evaluate it anew",
            param="evaluation",
            value=judged.digest,
        )


def current(registry: Registry, name: str, alias: str = CHAMPION) -> int | None:
    """What the alias names now; None if there is no such model or alias yet."""
    if name not in registry.names():
        return None
    return registry.aliases(name).get(alias)


def digest_of(registry: Registry, name: str, version: int) -> str:
    """Of the bundle of a version."""
    return next(one.digest for one in registry.versions(name) if one.number == version)


def promote(
    registry: Registry, name: str, bundle: Any, *, alias: str | None = None, expected: Any = ..., note: str = ""
) -> Promotion:
    """Publish ``bundle``, a Bundle or the URI of one, unless a version has its digest already, and move the alias to it.

    expected: what the alias must name until then (None: nothing), else RegistryError is raised and it is not moved.
    Raises as ``Registry.publish`` and ``set_alias``.
    """
    from sparkdl.bundle import Bundle

    digest = bundle.digest if isinstance(bundle, Bundle) else Bundle.verify(bundle)
    known = registry.versions(name) if name in registry.names() else []
    same = [one.number for one in known if one.digest == digest]
    version = same[-1] if same else registry.publish(name, bundle, note=note)
    before = current(registry, name, alias) if alias else None
    if alias and before != version:
        if expected is not ... and before != expected:
            raise RegistryError(
                f"alias {alias!r} of model {name!r} names version {before}, not {expected} as when it was compared; "
                f"{version} is published, and the alias was not moved",
                registry=registry.uri,
                name=name,
                version=before,
            )
        registry.set_alias(name, alias, version, expected=before)
    return Promotion(version, not same, alias, before)
