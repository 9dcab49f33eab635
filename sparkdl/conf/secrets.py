"""Secrets of confs: a conf names them, ``${env:NAME}``; the environment has them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from pydantic import BaseModel

from sparkdl import store
from sparkdl.errors import ConfError

_REFERENCE = re.compile(r"\$\{env:([A-Za-z_]\w*)\}")
_NAME = re.compile(r"secret|password|passwd|token|credential|access.?key|jaas", re.IGNORECASE)
_MAY_BE = re.compile(r"jaas|^url$|hook", re.IGNORECASE)  # what comes from the environment for such a key, too
_LITERAL_IN_JAAS = re.compile(r"""(?i)(?:password|secret|token)\w*\s*=\s*["']?(?!["'\s]|\$\{env:)""")
_PARAMS = ("estimator", "settings")  # maps with keys of the user's: columns, say
_MARK = "${env\0"  # a reference without its colon, which would end a URI's user
_SHORTEST = 4  # characters: what is shorter is no secret, and is in every other word


def named(place: tuple[str, ...]) -> bool:
    """True if a conf's key sounds as if its value was a secret."""
    return bool(place) and place[0] not in _PARAMS and _NAME.search(place[-1]) is not None


def check(content: Any, path: str) -> None:
    """Raise ConfError for a secret that is written out, and for what the environment lacks."""
    for place, value in _scalars(content):
        key = ".".join(place)
        for name in _REFERENCE.findall(str(value)):
            if name not in os.environ:
                raise ConfError(f"{path}:\n  {key}: the environment has no {name}; set it", path=path, key=place[0])
        if _is_written_out(place, str(value)):
            raise ConfError(
                f"{path}:\n  {key}: a secret does not belong in a conf; write ${{env:NAME}} and set NAME",
                path=path,
                key=place[0],
            )


def _is_written_out(place: tuple[str, ...], value: str) -> bool:
    if named(place):
        if "jaas" in place[-1].lower():  # a whole sentence, of which only the password is secret
            return not _REFERENCE.search(value) or _LITERAL_IN_JAAS.search(value) is not None
        return not _is_reference(value)
    found = store.secrets_of(value.replace("${env:", _MARK))
    return not all(_is_reference(secret.replace(_MARK, "${env:")) for secret in found)


def _is_reference(value: str) -> bool:
    return bool(value) and not _REFERENCE.sub("", value)


def filled(value: Any) -> Any:
    """``value``, of confs, maps, lists and texts, with every ``${env:NAME}`` replaced by what the environment has."""
    if isinstance(value, str):
        return _REFERENCE.sub(lambda found: os.environ[found[1]], value)
    if isinstance(value, BaseModel):
        changed = {name: new for name, old in value if (new := filled(old)) != old}
        return value.model_copy(update=changed)
    if isinstance(value, Mapping):
        return {key: filled(inner) for key, inner in value.items()}
    return [filled(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def secrets_of(conf: BaseModel) -> list[str]:
    """What must not be told of a conf that is filled: passwords in its URIs, and what the environment has under a name, or
    for a key, that sounds like a secret. The longest first."""
    found = set()
    for place, value in _scalars(conf):
        if isinstance(value, str):
            found.update(store.secrets_of(filled(value)))
            key = next((part for part in reversed(place) if not part.isdigit()), "")
            brought = _REFERENCE.findall(value)
            found.update(os.environ[name] for name in brought if _may_be_one(key) or _may_be_one(name))
    found |= {unquote(secret) for secret in found}
    return sorted((secret for secret in found if len(secret) >= _SHORTEST), key=len, reverse=True)


def _may_be_one(name: str) -> bool:
    return store.sounds_secret(name) or _MAY_BE.search(name) is not None


def hushed(value: Any, secrets: list[str]) -> Any:
    """``value``, of maps, lists and texts, without the secrets."""
    if isinstance(value, str):
        return store.hushed(value, secrets)
    if isinstance(value, Mapping):
        return {key: hushed(inner, secrets) for key, inner in value.items()}
    return [hushed(inner, secrets) for inner in value] if isinstance(value, (list, tuple)) else value


def printable(conf: BaseModel) -> dict[str, Any]:
    """All values of the conf, defaults too, without secrets: ``${env:NAME}`` as it is written."""
    return dict(_printable(conf.model_dump(by_alias=True, exclude_none=True), ()))


def _printable(value: Any, place: tuple[str, ...]) -> Any:
    if isinstance(value, Mapping):
        return {key: _printable(inner, (*place, str(key))) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_printable(inner, (*place, str(number))) for number, inner in enumerate(value)]
    if value is not None and named(place) and _is_written_out(place, str(value)):
        return "***"
    return store.shown(value.replace("${env:", _MARK)).replace(_MARK, "${env:") if isinstance(value, str) else value


def _scalars(value: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each value that is neither map nor list nor nothing, and its place."""
    if isinstance(value, BaseModel):
        value = value.model_dump(by_alias=True)
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _scalars(inner, (*place, str(key)))
    elif isinstance(value, (list, tuple)):
        for number, inner in enumerate(value):
            yield from _scalars(inner, (*place, str(number)))
    elif value is not None:
        yield place, value
