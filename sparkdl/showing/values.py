"""Values as text for people: short, on one line, and without letters that a terminal or a notebook would act on."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

MOST_LETTERS = 200  # of a cell
MOST_ITEMS = 6  # of an array, vector or map
MOST_BYTES = 8
_JOINERS = "\u00a0\u200c\u200d"  # of words and of emoji; not printable to Python, and harmless


@dataclass(frozen=True)
class Beginning:
    """How a value begins: letters, bytes, a list of items or a tuple of pairs, of ``size``. dimensions: of a sparse vector."""

    head: Any
    size: int
    dimensions: int | None = None


def printable(text: str, *, lines: bool = False) -> str:
    """``text`` with letters that do not print (ends of lines, tabs, escape codes, marks of direction) as Python writes
    them: ``\\n``. lines: ends of lines and tabs stay."""
    kept = _JOINERS + "\n\t" if lines else _JOINERS
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in kept else c.encode("unicode_escape").decode() for c in text)


def shortened(text: str, most: int = MOST_LETTERS) -> str:
    """At most ``most`` letters."""
    return text if len(text) <= most else text[: most - 1] + "…"


def cell(value: Any) -> str | None:
    """A value as one cell of a table; None for a null."""
    if value is None:
        return None
    text = printable(_text(value))
    return text if isinstance(value, Beginning) and value.size > len(value.head) else shortened(text)


def number(value: float) -> str:
    """For reading: four digits, thousands apart where there are more."""
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def count(many: int, what: str) -> str:
    """``1 row``, ``2,000 rows``."""
    return f"{many:,} {what}" + ("" if many == 1 else "s")


def nbytes(size: float) -> str:
    """``312 bytes``, ``1.2 MB``."""
    for unit, power in (("GB", 9), ("MB", 6), ("kB", 3)):
        if size >= 10**power:
            return f"{size / 10**power:.3g} {unit}"
    return count(int(size), "byte")


def _text(value: Any) -> str:
    if isinstance(value, Beginning):
        return _of_beginning(value)
    if isinstance(value, (bool, np.bool_)):
        return str(value).lower()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _bytes(bytes(value[: MOST_BYTES + 1]), len(value))
    if isinstance(value, (datetime.datetime, datetime.date)):
        return value.isoformat(*([" "] if isinstance(value, datetime.datetime) else []))
    if isinstance(value, (np.floating, np.integer)):
        return str(value.item() if value.dtype == np.float64 else value)
    if isinstance(value, np.ndarray):
        return _items(value.tolist(), len(value), "[]") if value.ndim else _text(value.item())
    if hasattr(value, "toArray") and hasattr(value, "size"):  # a vector of pyspark.ml
        return _vector(value)
    if hasattr(value, "asDict"):  # a Row
        return _items(value.asDict().items(), len(value), "{}")
    if isinstance(value, Mapping):
        return _items(value.items(), len(value), "{}")
    if isinstance(value, (list, tuple)):
        return _items(value, len(value), "[]")
    return str(value)


def _of_beginning(value: Beginning) -> str:
    if isinstance(value.head, str):
        return value.head + ("…" if value.size > len(value.head) else "")
    if isinstance(value.head, (bytes, bytearray)):
        return _bytes(bytes(value.head), value.size)
    text = _items(value.head, value.size, "{}" if isinstance(value.head, tuple) else "[]")
    return text if value.dimensions is None else f"({value.dimensions}, {text})"


def _vector(value: Any) -> str:
    if hasattr(value, "indices"):
        kept = dict(zip(value.indices[:MOST_ITEMS].tolist(), value.values[:MOST_ITEMS].tolist(), strict=True))
        return f"({value.size}, {_items(kept.items(), len(value.indices), '{}')})"
    return _items(value.values[:MOST_ITEMS].tolist(), value.size, "[]")


def _items(items: Iterable[Any], size: int, brackets: str) -> str:
    shown = [
        f"{_item(one[0])}: {_item(one[1])}" if brackets == "{}" else _item(one)
        for _, one in zip(range(MOST_ITEMS), items, strict=False)
    ]
    more = [f"… {size:,} in all"] if size > len(shown) else []
    return brackets[0] + ", ".join([*shown, *more]) + brackets[1]


def _item(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "null" if value is None else shortened(_text(value), 60)


def _bytes(head: bytes, size: int) -> str:
    shown = head[:MOST_BYTES].hex(" ")
    return shown if size <= MOST_BYTES else f"{shown} … {nbytes(size)}"
