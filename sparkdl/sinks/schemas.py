"""Schemas of a sink's table and of the rows, Spark's as JSON values: what no table takes, and how two differ."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

# Types of which a folder's name is read back as what it was; decimals too.
_FOLDERS = {"string", "long", "integer", "short", "byte", "boolean", "date"}


def refused(schema: Mapping[str, Any], folders: Sequence[str]) -> Iterator[str]:
    """Why no table takes rows of this schema. folders: the partition columns."""
    lower = [told["name"].lower() for told in schema["fields"]]
    for name in sorted({name for name in lower if lower.count(name) > 1}):
        yield f"several columns are called {name!r}"
    for told in schema["fields"]:
        if told["name"] in folders and not (told["type"] in _FOLDERS or str(told["type"]).startswith("decimal(")):
            yield f"the partition column {told['name']!r} is of type {told['type']}: cast it to a string"


def nullable(kind: Any) -> Any:
    """A type of which every part may be null, without metadata: as Spark's Delta makes a table."""
    if isinstance(kind, str):
        return kind
    if kind["type"] == "struct":
        fields = [
            {"name": told["name"], "type": nullable(told["type"]), "nullable": True, "metadata": {}}
            for told in kind["fields"]
        ]
        return {"type": "struct", "fields": fields}
    if kind["type"] == "array":
        return {"type": "array", "elementType": nullable(kind["elementType"]), "containsNull": True}
    if kind["type"] != "map":
        return kind
    return {
        "type": "map",
        "keyType": nullable(kind["keyType"]),
        "valueType": nullable(kind["valueType"]),
        "valueContainsNull": True,
    }


def differences(there: Mapping[str, Any], ours: Mapping[str, Any]) -> Iterator[str]:
    """How the table's schema differs from the rows': names and types, in any order; parts that must not be null."""
    theirs = {told["name"]: told for told in there["fields"]}
    own = {told["name"]: told for told in ours["fields"]}
    for name in sorted(theirs.keys() - own.keys()):
        yield f"it has the column {name!r}, which the rows lack"
    for name in sorted(own.keys() - theirs.keys()):
        yield f"it lacks the column {name!r}"
    for name in sorted(theirs.keys() & own.keys()):
        one, two = _told(nullable(theirs[name]["type"])), _told(nullable(own[name]["type"]))
        if one != two:
            yield f"its column {name!r} is {one}, not {two}"
        elif not theirs[name]["nullable"] and own[name]["nullable"]:
            yield f"its column {name!r} must not be null"


def _told(kind: Any) -> str:
    """A type as SQL writes it, near enough to tell two apart."""
    if isinstance(kind, str):
        return kind
    if kind["type"] == "struct":
        return f"struct<{', '.join(sorted(told['name'] + ': ' + _told(told['type']) for told in kind['fields']))}>"
    if kind["type"] == "array":
        return f"array<{_told(kind['elementType'])}>"
    if kind["type"] == "map":
        return f"map<{_told(kind['keyType'])}, {_told(kind['valueType'])}>"
    return json.dumps(kind, sort_keys=True)
