"""What a Delta table's schema may be, and what a table asks of its writers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sparkdl.sinks import schemas

_PLAIN = {
    "string", "long", "integer", "short", "byte", "float", "double", "boolean", "binary", "date", "timestamp",
    "timestamp_ntz",
}  # fmt: skip
_STRANGE = set(" ,;{}()\n\t=")  # in a column's name: Delta takes them with column mapping only


def refused(schema: Mapping[str, Any], folders: Sequence[str]) -> Iterator[str]:
    """Why Delta does not take a schema."""
    yield from schemas.refused(schema, folders)
    for told in schema["fields"]:
        for path, kind in _leaves(told["name"], told["type"]):
            if _STRANGE & set(path):
                yield f"the name {path!r} has one of ' ,;{{}}()=', a tab or a line's end: rename it"
            if not (isinstance(kind, str) and (kind in _PLAIN or kind.startswith("decimal("))):
                yield f"{path!r} is of type {kind if isinstance(kind, str) else kind.get('type')!r}: cast it"


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


def needs(there: Mapping[str, Any], configuration: Mapping[str, Any]) -> Iterator[str]:
    """What the table asks of writers that delta-rs does not do, or check, for files that are already written."""
    if configuration.get("delta.columnMapping.mode", "none") != "none":
        yield "column mapping"
    yield from (f"the constraint {name[18:]!r}" for name in configuration if name.startswith("delta.constraints."))
    for told in there["fields"]:
        for key in ("delta.invariants", "delta.generationExpression", "delta.identity.start"):
            if key in told.get("metadata", {}):
                yield f"{key} of the column {told['name']!r}"
