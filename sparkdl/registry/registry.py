"""Registry: named bundles, versions 1, 2, 3, … of each, and aliases that are moved from one to another in one step."""

from __future__ import annotations

import getpass
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from sparkdl import bundle_files, store
from sparkdl.bundle import Bundle
from sparkdl.bundle_files import MANIFEST, sha256
from sparkdl.errors import InvalidParamError, RegistryError, RegistryUnreachableError
from sparkdl.registry.backend import Backend
from sparkdl.registry.records import (
    CHAMPION,
    Move,
    Version,
    check_alias,
    check_name,
    number_of,
    unknown,
)

__all__ = ["Move", "Registry", "Version"]

_ANY: Any = object()
MLFLOW = "mlflow:"


class Registry:
    """A registry at ``uri``: a folder of any store, ``sqlite:///…``, ``postgresql://…``, or ``mlflow:<tracking URI>``.

    bundles: a folder of any store for the bundles of an SQL catalogue, and, by choice, of a registry of files, which
    else keeps them in its own folder ``bundles``.

    What it is called with is named in errors: RegistryError for a name, alias or version that is not there or that no
    registry takes, and for a registry that cannot be read or written. ``docs/registry.md`` has the guarantees.
    """

    def __init__(self, uri: str | os.PathLike[str], *, bundles: str | os.PathLike[str] | None = None) -> None:
        if not isinstance(uri, (str, os.PathLike)) or not os.fspath(uri):
            raise InvalidParamError(
                f"'uri' must be a folder, sqlite:///…, postgresql://… or mlflow:<tracking URI> (got {uri!r})",
                param="uri",
                value=uri,
            )
        if bundles is not None and (not isinstance(bundles, (str, os.PathLike)) or not os.fspath(bundles)):
            raise InvalidParamError(
                f"'bundles' must be the URI of a folder (got {bundles!r})", param="bundles", value=bundles
            )
        self._secrets = store.secrets_of(os.fspath(uri))
        self._backend = _backend(os.fspath(uri), None if bundles is None else os.fspath(bundles))

    def __repr__(self) -> str:
        return f"Registry({self.uri!r})"

    @property
    def uri(self) -> str:
        """Its place, made absolute; passwords in it are left out."""
        return self._backend.uri

    def names(self) -> list[str]:
        """Of the models that have a version, sorted."""
        with self._asked("read", None):
            return self._backend.names()

    def publish(
        self, name: str, bundle: Bundle | str | os.PathLike[str], *, by: str | None = None, note: str = ""
    ) -> int:
        """Keep a bundle, or the one at a URI, as the next version of ``name``; gives its number, from 1.

        All its digests are checked before. What was published before is a new version all the same; it shares the files.
        by: who does it, the user's name by default. Raises BundleError for what is no whole bundle; UntrustedBundleError
        for one whose program is code, where the registry is MLflow's.
        """
        check_name(name, self.uri)
        by = _who(by)
        if not isinstance(note, str):
            raise InvalidParamError(f"'note' must be a text (got {note!r})", param="note", value=note)
        files, digest = _checked(bundle)
        with self._asked("written", name):
            return self._backend.publish(name, files, digest, by, note)

    def set_alias(
        self, name: str, alias: str, version: int, *, expected: int | None = _ANY, by: str | None = None
    ) -> None:
        """Let ``alias`` name this version, in one step.

        expected: what it must name until then, None for an alias that is not there; else nothing is moved, and
        RegistryError raised. Without it the last who moves has his way. by: as for ``publish``.
        """
        check_name(name, self.uri)
        check_alias(alias, self.uri, name)
        by = _who(by)
        number = self._number(name, version)

        def may(now: int | None) -> None:
            if expected is not _ANY and now != expected:
                raise RegistryError(
                    f"alias {alias!r} of model {name!r} names version {now}, not {expected} as expected; it was not moved",
                    registry=self.uri,
                    name=name,
                    version=now,
                )

        with self._asked("written", name):
            self._backend.move(name, alias, number, by, may)

    def resolve(self, name: str, alias: str | int = CHAMPION) -> int:
        """The number of the version that an alias names; a number gives itself, if there is such a version."""
        check_name(name, self.uri)
        if isinstance(alias, int) or number_of(alias) is not None:
            return self._number(name, alias)
        check_alias(alias, self.uri, name)
        with self._asked("read", name):
            found = self._backend.current(name, alias)
            if found is None:
                self._check_there(name)
                raise unknown("alias", alias, self._backend.aliases(name), self.uri, name)
            return found

    def load(
        self, name: str, alias_or_version: str | int = CHAMPION, *, trusted: bool | Collection[str] = False
    ) -> Bundle:
        """The bundle of a version, all digests checked. trusted: as for ``Bundle.load``, which see for what it raises."""
        number = self.resolve(name, alias_or_version)
        with self._asked("read", name):
            version = self._backend.version(name, number)
            if version is None:
                raise unknown("version", number, self._known(name), self.uri, name)
            return self._backend.load(name, version, trusted)

    def versions(self, name: str) -> list[Version]:
        """All of them, by number."""
        check_name(name, self.uri)
        with self._asked("read", name):
            return self._backend.versions(name) or self._none(name)

    def aliases(self, name: str) -> dict[str, int]:
        """Which alias names which version now."""
        check_name(name, self.uri)
        with self._asked("read", name):
            self._check_there(name)
            named = {alias: self._backend.current(name, alias) for alias in self._backend.aliases(name)}
            return {alias: number for alias, number in named.items() if number is not None}

    def history(self, name: str, alias: str | None = None) -> list[Move]:
        """Who moved the alias, or any, from where to where and when; the oldest first."""
        check_name(name, self.uri)
        if alias is not None:
            check_alias(alias, self.uri, name)
        with self._asked("read", name):
            self._check_there(name)
            known = self._backend.aliases(name)
            if alias is not None and alias not in known:
                raise unknown("alias", alias, known, self.uri, name)
            asked = known if alias is None else [alias]
            moves = [move for one in asked for move in self._backend.history(name, one)]
            return moves if alias is not None else sorted(moves, key=lambda move: move.time)

    def _number(self, name: str, version: Any) -> int:
        number = number_of(version)
        with self._asked("read", name):
            if number is None or self._backend.version(name, number) is None:
                self._check_there(name)
                raise unknown("version", version, self._known(name), self.uri, name)
        return number

    def _known(self, name: str) -> list[int]:
        return [version.number for version in self._backend.versions(name)]

    def _check_there(self, name: str) -> None:
        names = self._backend.names()
        if name not in names:
            raise unknown("model", name, names, self.uri, None)

    def _none(self, name: str) -> list[Version]:
        raise unknown("model", name, self._backend.names(), self.uri, None)

    @contextmanager
    def _asked(self, how: str, name: str | None) -> Iterator[None]:
        """Tell what the store raises as a RegistryUnreachableError. how: ``read`` or ``written``."""
        try:
            yield
        except self._backend.errors as error:
            told = f"{type(error).__name__}: {error}"
            for secret in self._secrets:
                told = told.replace(secret, "***")
            remedy = {
                "read": "see that its place is right and can be reached",
                "written": "publish and set_alias need the right to write there; reading needs none",
            }[how]
            raise RegistryUnreachableError(
                f"the registry {self.uri} cannot be {how} ({told}); {remedy}",
                registry=self.uri,
                name=name,
                version=None,
            ) from (None if self._secrets else error)


def _backend(uri: str, bundles: str | None) -> Backend:
    scheme = uri.partition(":")[0].partition("+")[0]
    if uri.startswith(MLFLOW):
        from sparkdl.registry.mlflow import MLflow

        if bundles is not None:
            raise InvalidParamError(
                f"'bundles' is where MLflow keeps artifacts, which it says itself (got {bundles!r})",
                param="bundles",
                value=bundles,
            )
        return MLflow(uri.removeprefix(MLFLOW))
    if scheme in ("sqlite", "postgresql", "postgres"):
        from sparkdl.interop.common import needed

        needed("sqlalchemy", "sql")
        from sparkdl.registry.sql import Sql

        if bundles is None:
            raise InvalidParamError(
                f"'bundles' must say where the bundles of {store.shown(uri)!r} are: a folder that all who use it can reach",
                param="bundles",
                value=None,
            )
        return Sql(uri, bundles)
    from sparkdl.registry.files import Files

    return Files(uri, bundles)


def _checked(bundle: Any) -> tuple[dict[str, bytes], str]:
    """The files of a bundle, found whole and with a meaning, and its digest; nothing of it is run."""
    if isinstance(bundle, Bundle):
        files, uri = dict(bundle.files), None
    elif isinstance(bundle, (str, os.PathLike)):
        uri = os.fspath(bundle)
        files = bundle_files.read(uri)
    else:
        raise InvalidParamError(
            f"'bundle' must be a Bundle or the URI of one (got {bundle!r})", param="bundle", value=bundle
        )
    Bundle.from_files(files, uri=uri, trusted=True)
    return files, sha256(files[MANIFEST])


def _who(by: Any) -> str:
    if by is None:
        try:
            return getpass.getuser()
        except (KeyError, OSError, ImportError):  # a container's user without a name
            return f"uid {os.getuid()}"
    if not isinstance(by, str) or not by:
        raise InvalidParamError(f"'by' must be a text that is not empty (got {by!r})", param="by", value=by)
    return by
