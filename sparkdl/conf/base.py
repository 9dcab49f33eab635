"""What all confs share: reading, checking, secrets out of the environment, and errors that name the key."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from sparkdl.errors import ConfError, did_you_mean

_FROM_ENVIRONMENT = re.compile(r"\$\{env:([A-Za-z_]\w*)\}")
_NAMES_A_SECRET = re.compile(r"secret|password|passwd|token|credential|access.?key|jaas", re.IGNORECASE)


class Conf(BaseModel):
    """A map of keys to values; keys that are not there are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


C = TypeVar("C", bound=Conf)


def load(kind: type[C], path: str) -> C:
    """The conf in the YAML file at ``path``. Raises ConfError naming file, key, value and what was expected.

    A value may hold ``${env:NAME}``: it stays as it is written until ``filled``, so that no secret is in a message, and
    it is an error here if the environment has no NAME. A key whose name is that of a secret must have such a value.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfError(f"cannot read the conf {path!r}: {error.strerror}", path=path, key=None) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfError(f"{path} is not YAML: {error}", path=path, key=None) from error
    if not isinstance(content, dict):
        raise ConfError(
            f"{path} must be a map of keys to values (got {type(content).__name__}); its keys are {list(kind.model_fields)}",
            path=path,
            key=None,
        )
    _check_secrets(content, path, ())
    try:
        return kind(**{str(key): value for key, value in content.items()})
    except ValidationError as error:
        lines = [_explained(found, kind) for found in error.errors()]
        key = str((error.errors()[0]["loc"] or (None,))[0])
        raise ConfError(f"{path}:\n  " + "\n  ".join(lines), path=path, key=key) from error


def _check_secrets(value: Any, path: str, place: tuple[str, ...]) -> None:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _check_secrets(inner, path, (*place, str(key)))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for number, inner in enumerate(value):
            _check_secrets(inner, path, (*place, str(number)))
    elif isinstance(value, str):
        key = ".".join(place)
        for name in _FROM_ENVIRONMENT.findall(value):
            if name not in os.environ:
                raise ConfError(f"{path}:\n  {key}: the environment has no {name}; set it", path=path, key=place[0])
        if place and _NAMES_A_SECRET.search(place[-1]) and not _FROM_ENVIRONMENT.search(value):
            raise ConfError(
                f"{path}:\n  {key}: a secret does not belong in a file; write ${{env:NAME}} and set NAME",
                path=path,
                key=place[0],
            )


def filled(value: Any) -> Any:
    """``value``, of maps, lists and texts, with every ``${env:NAME}`` replaced by what the environment has."""
    if isinstance(value, str):
        return _FROM_ENVIRONMENT.sub(lambda found: os.environ[found[1]], value)
    if isinstance(value, Mapping):
        return {key: filled(inner) for key, inner in value.items()}
    return [filled(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def _explained(found: Any, kind: type[BaseModel]) -> str:
    key = ".".join(str(part) for part in found["loc"])
    fields = {field.alias or name: field for name, field in _of_place(kind, found["loc"][:-1]).model_fields.items()}
    if found["type"] == "extra_forbidden":
        return f"{key}: there is no such key{did_you_mean(str(found['loc'][-1]), fields)}"
    if found["type"] == "missing":
        return f"{key}: is missing ({fields[found['loc'][-1]].description})"
    if found["type"] == "value_error":  # ours: it names what it got
        said = f"{found['ctx']['error']}"
        return f"{key}: {said}" if key else said
    return f"{key}: {found['msg']} (got {found['input']!r})"


def _of_place(kind: type[BaseModel], place: Sequence[str | int]) -> type[BaseModel]:
    """The model of the map at ``place`` within one of ``kind``."""
    for part in place:
        field = kind.model_fields.get(str(part))
        if field is not None:
            inner = [type_ for type_ in (field.annotation, *get_args(field.annotation)) if _is_model(type_)]
            kind = inner[0] if inner else kind
    return kind


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def of_command_line(kind: type[C]) -> C:
    """The conf named by the job's one argument; a bad one ends the job with its message and exit status 2."""
    if len(sys.argv) != 2:
        print(f"usage: spark-submit {sys.argv[0]} CONF.yaml", file=sys.stderr)
        raise SystemExit(2)
    try:
        return load(kind, sys.argv[1])
    except ConfError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from error
