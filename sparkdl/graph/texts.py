"""Texts as ONNX Runtime gets them."""

from __future__ import annotations


def as_given(text: str) -> list[str | bytes]:
    """The forms in which a text may reach a graph: as UTF-8, and from Java as JNI's modified UTF-8, if that differs: a character
    beyond U+FFFF as two surrogates of three bytes each, U+0000 as two bytes (Java Native Interface Specification, chapter 3,
    modified UTF-8 strings)."""
    units = text.encode("utf-16-be", "surrogatepass")
    each = (int.from_bytes(units[place : place + 2], "big") for place in range(0, len(units), 2))
    modified = b"".join(chr(unit).encode("utf-8", "surrogatepass") if unit else b"\xc0\x80" for unit in each)
    return [text] if modified == text.encode("utf-8", "surrogatepass") else [text, modified]
