"""What a Delta table's schema may be, and how two differ; Spark's schemas as JSON values, which are Delta's too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_PLAIN = {
    "string", "long", "integer", "short", "byte", "float", "double", "boolean", "binary", "date", "timestamp",
    "timestamp_ntz",
}  # fmt: skip
_FOLDERS = {"string", "long", "integer", "short", "byte", "boolean", "date"}  # types that name a folder, and decimal
_STRANGE = set(" ,;{}()\n\t=")  # in a column's name: Delta takes them with column mapping only


def refused(schema: Mapping[str, Any], folders: Sequence[str]) -> Iterator[str]:
    """Why Delta does not take a schema."""
    lower = [told["name"].lower() for told in schema["fields"]]
    for name in sorted({name for name in lower if lower.count(name) > 1}):
        yield f"several columns are called {name!r}"
    for told in schema["fields"]:
        for path, kind in _leaves(told["name"], told["type"]):
            if _STRANGE & set(path):
                yield f"the name {path!r} has one of ' ,;{{}}()=', a tab or a line's end: rename it"
            if not (isinstance(kind, str) and (kind in _PLAIN or kind.startswith("decimal("))):
                yield f"{path!r} is of type {kind if isinstance(kind, str) else kind.get('type')!r}: cast it"
        if told["name"] in folders and not (told["type"] in _FOLDERS or str(told["type"]).startswith("decimal(")):
            yield f"the partition column {told['name']!r} is of type {told['type']}: cast it to a string"


def _leaves(path: str, kind: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(kind, str) and kind["type"] == "struct":
        for told in kind["fields"]:
            yield from _leaves(f"{path}.{told['name']}", told["type"])
    elif not isinstance(kind, str) and kind["type"] == "array":
        yield from _leaves(f"{path}.element", kind["elementType"])
    elif not isinstance(kind, str) and kind["type"] == "map":
        yield from _leaves(f"{path}.key", kind["keyType"])
        yield from _leaves(f"{path}.value", kind["valueType"])
    else:
        yield path, kind


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
    for name in theirs.keys() - own.keys():
        yield f"it has the column {name!r}, which the rows lack"
    for name in own.keys() - theirs.keys():
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
    return f"map<{_told(kind['keyType'])}, {_told(kind['valueType'])}>"


def needs(there: Mapping[str, Any], configuration: Mapping[str, Any]) -> Iterator[str]:
    """What the table asks of writers that delta-rs does not do, or check, for files that are already written."""
    if configuration.get("delta.columnMapping.mode", "none") != "none":
        yield "column mapping"
    yield from (f"the constraint {name[18:]!r}" for name in configuration if name.startswith("delta.constraints."))
    for told in there["fields"]:
        for key in ("delta.invariants", "delta.generationExpression", "delta.identity.start"):
            if key in told.get("metadata", {}):
                yield f"{key} of the column {told['name']!r}"
