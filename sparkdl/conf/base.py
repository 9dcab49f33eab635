"""What all confs share: reading, checking, and errors that name the key."""

from __future__ import annotations

import os
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from sparkdl.conf import secrets
from sparkdl.errors import ConfError, did_you_mean


class Conf(BaseModel):
    """A map of keys to values; keys that are not there are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


C = TypeVar("C", bound=Conf)


def load(kind: type[C], path: str, *, changes: Sequence[str] = ()) -> C:
    """The conf in the YAML file at ``path``. Raises ConfError naming file, key, value and what was expected.

    changes: of single values, each ``key.key=value``, the value as YAML.

    A value may hold ``${env:NAME}``: it stays as it is written until ``filled``, so that no secret is in a message, and
    it is an error here if the environment has no NAME. A key whose name is that of a secret, and a password in a URI, must
    be such a value.
    """
    content = _read(kind, path)
    for change in changes:
        _apply(kind, content, change, path)
    secrets.check(content, path)
    try:
        return kind(**{str(key): value for key, value in content.items()})
    except ValidationError as error:
        lines = [_explained(found, kind) for found in error.errors()]
        key = str((error.errors()[0]["loc"] or (None,))[0])
        raise ConfError(f"{path}:\n  " + "\n  ".join(lines), path=path, key=key) from error


def _read(kind: type[Conf], path: str) -> dict[str, Any]:
    try:
        content = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError as error:
        raise ConfError(
            f"there is no conf at {path!r}; it is looked for in {os.getcwd()}", path=path, key=None
        ) from error
    except OSError as error:
        raise ConfError(f"cannot read the conf {path!r}: {error.strerror}", path=path, key=None) from error
    except _TwiceError as error:
        raise ConfError(f"{path}: {error}", path=path, key=error.key) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfError(f"{path} is not YAML: {error}", path=path, key=None) from error
    if not isinstance(content, dict):
        got = "nothing: the file is empty" if content is None else _what(content)
        raise ConfError(
            f"{path} must be a map of keys to values (got {got}); its keys are {list(kind.model_fields)}",
            path=path,
            key=None,
        )
    return content


class _TwiceError(Exception):
    def __init__(self, key: str, line: int, before: int) -> None:
        super().__init__(f"line {line}: the key {key!r} is there already, in line {before}; leave one of them out")
        self.key = key


class _Loader(yaml.SafeLoader):
    """YAML's own rule, which PyYAML does not see to: a map has a key once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                told, line = (key.tag, key.value), key.start_mark.line + 1
                if told in lines:
                    raise _TwiceError(key.value, line, lines[told])
                lines[told] = line
        return super().construct_mapping(node, deep)


def _what(value: Any) -> str:
    names = {dict: "a map", list: "a list", str: "a text", bool: "true or false", int: "a number", float: "a number"}
    return f"{names.get(type(value), type(value).__name__)}, {value!r}"


def _apply(kind: type[Conf], content: dict[str, Any], change: str, path: str) -> None:
    """Put a value in its place. Raises ConfError if there is no such place."""
    told, mark, text = change.partition("=")
    if not mark or not told.strip():
        raise ConfError(f"--set takes KEY=VALUE, such as trigger='2 seconds' (got {change!r})", path=path, key=None)
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfError(f"--set {told}: the value is not YAML: {error}", path=path, key=told) from error
    *outer, last = _place(kind, told.strip().split("."))
    inner: Any = content
    for number, key in enumerate(outer):
        if inner.get(key) is None:
            inner[key] = {}
        inner = inner[key]
        if not isinstance(inner, dict):
            where = ".".join(outer[: number + 1])
            raise ConfError(
                f"--set {told}: {where} is {_what(inner)}, and not a map; set it whole", path=path, key=outer[0]
            )
    inner[last] = value


def _place(kind: type[BaseModel], keys: list[str]) -> list[str]:
    """The keys of a dotted key. In a map of options the rest is one key: ``kafka.bootstrap.servers``."""
    field = _fields(kind).get(keys[0])
    if field is None or len(keys) == 1:
        return keys
    inner = _models(field.annotation)
    if inner:
        return [keys[0], *_place(inner[0], keys[1:])]
    maps = [type_ for type_ in (field.annotation, *get_args(field.annotation)) if get_origin(type_) is dict]
    if maps and get_args(maps[0])[1] is not Any:
        return [keys[0], ".".join(keys[1:])]
    return keys


def schema(kind: type[Conf]) -> dict[str, Any]:
    """The JSON Schema of a conf, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **kind.model_json_schema(by_alias=True)}


def _explained(found: Any, kind: type[BaseModel]) -> str:
    key = ".".join(str(part) for part in found["loc"])
    fields = _fields(_of_place(kind, found["loc"][:-1]))
    if found["type"] == "extra_forbidden":
        return f"{key}: there is no such key{did_you_mean(str(found['loc'][-1]), fields)}"
    if found["type"] == "missing":
        return f"{key}: is missing ({fields[found['loc'][-1]].description})"
    if found["type"] == "value_error":  # ours: it names what it got
        said = f"{found['ctx']['error']}"
        return f"{key}: {said}" if key else said
    said = _EXPECTED.get(found["type"], found["msg"].removeprefix("Input "))
    got = "what is not shown" if secrets.named(tuple(map(str, found["loc"]))) else _what(found["input"])
    return f"{key}: {said} (got {got})"


_EXPECTED = {  # pydantic's words, as a conf's author has them
    "string_type": "should be a text",
    "int_type": "should be a whole number",
    "int_parsing": "should be a whole number",
    "int_from_float": "should be a whole number",
    "float_type": "should be a number",
    "float_parsing": "should be a number",
    "bool_type": "should be true or false",
    "bool_parsing": "should be true or false",
    "dict_type": "should be a map of keys to values",
    "model_type": "should be a map of keys to values",
    "model_attributes_type": "should be a map of keys to values",
    "list_type": "should be a list",
}


def _of_place(kind: type[BaseModel], place: Sequence[str | int]) -> type[BaseModel]:
    """The model of the map at ``place`` within one of ``kind``."""
    for part in place:
        field = _fields(kind).get(str(part))
        if field is not None:
            kind = next(iter(_models(field.annotation)), kind)
    return kind


def _fields(kind: type[BaseModel]) -> dict[str, Any]:
    return {field.alias or name: field for name, field in kind.model_fields.items()}


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The models among the types of a field."""
    return [t for t in (annotation, *get_args(annotation)) if isinstance(t, type) and issubclass(t, BaseModel)]
