"""Long values as how they begin, and their size, at every depth: cut by Spark, so that the rest does not travel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sparkdl.showing.values import MOST_BYTES, MOST_ITEMS, MOST_LETTERS, Beginning

if TYPE_CHECKING:
    from pyspark.sql import Column


def cut(column: Column, kind: Any) -> Column:
    """A column that ``whole`` understands. kind: its type as Spark's JSON has it."""
    from pyspark.sql import functions as sf

    if not _is_long(kind):
        return column
    if kind in ("string", "binary"):
        most = MOST_LETTERS if kind == "string" else MOST_BYTES
        parts = [sf.substring(column, 1, most), sf.length(column)]
    elif _is_vector(kind):
        inner = sf.unwrap_udt(column)
        indices, numbers = inner["indices"], inner["values"]
        parts = [sf.slice(numbers, 1, MOST_ITEMS), sf.size(numbers), sf.slice(indices, 1, MOST_ITEMS), inner["size"]]
    elif kind["type"] == "array":
        parts = [_items(sf.slice(column, 1, MOST_ITEMS), kind["elementType"]), sf.size(column)]
    elif kind["type"] == "map":
        keys, items = (sf.slice(part, 1, MOST_ITEMS) for part in (sf.map_keys(column), sf.map_values(column)))
        parts = [_items(keys, kind["keyType"]), _items(items, kind["valueType"]), sf.size(column)]
    else:
        parts = [cut(column[field["name"]], field["type"]) for field in kind["fields"][:MOST_ITEMS]]
    return sf.when(column.isNotNull(), sf.struct(*(part.alias(f"c{i}") for i, part in enumerate(parts))))


def whole(value: Any, kind: Any) -> Any:
    """What ``cut`` left of a value, as ``values.cell`` takes it."""
    if value is None or not _is_long(kind):
        return value
    if kind in ("string", "binary"):
        return Beginning(value[0], value[1])
    if _is_vector(kind):
        numbers, size, indices, dimensions = value
        return Beginning(numbers if indices is None else tuple(zip(indices, numbers, strict=True)), size, dimensions)
    if kind["type"] == "array":
        return Beginning([whole(one, kind["elementType"]) for one in value[0]], value[1])
    if kind["type"] == "map":
        keys, items, size = value
        pairs = zip(keys, items, strict=True)
        return Beginning(
            tuple((whole(key, kind["keyType"]), whole(one, kind["valueType"])) for key, one in pairs), size
        )
    fields = kind["fields"]
    kept = zip(fields, value, strict=False)
    return Beginning(tuple((field["name"], whole(one, field["type"])) for field, one in kept), len(fields))


def _items(column: Column, kind: Any) -> Column:
    from pyspark.sql import functions as sf

    return sf.transform(column, lambda one: cut(one, kind)) if _is_long(kind) else column


def _is_vector(kind: Any) -> bool:
    return isinstance(kind, dict) and kind["type"] == "udt" and str(kind.get("class")).endswith(".linalg.VectorUDT")


def _is_long(kind: Any) -> bool:
    """True for what may be long and can be taken apart; fields whose names differ in case alone cannot be."""
    if not isinstance(kind, dict):
        return kind in ("string", "binary")
    if kind["type"] == "struct":
        names = {field["name"].lower() for field in kind["fields"]}
        return 0 < len(names) == len(kind["fields"])
    return kind["type"] in ("array", "map") or _is_vector(kind)
