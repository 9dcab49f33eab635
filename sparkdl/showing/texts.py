"""Texts with the answers in them marked."""

from __future__ import annotations

from typing import Any

from sparkdl.errors import InvalidParamError, SignatureError
from sparkdl.showing import values
from sparkdl.showing.pieces import Marked, Piece, Text
from sparkdl.showing.tables import check_columns, checked_count, types_of
from sparkdl.signature import quoted

MOST_TEXTS = 400
_AROUND = 400  # letters kept before and behind an answer
_WHOLE = ("byte", "short", "integer", "long")


def marked(
    df: Any, text: str, start: str | None, end: str | None, answer: str | None, caption: str | None, n: int
) -> list[Piece]:
    """The first ``n`` rows. Raises as ``sparkdl.zeppelin.answers``."""
    checked_count(n, most=MOST_TEXTS)
    if (start is None) != (end is None) or (start is None) == (answer is None):
        raise InvalidParamError(
            "say where an answer is, by startCol and endCol, or what it is, by answerCol "
            f"(got startCol={start!r}, endCol={end!r}, answerCol={answer!r})",
            param="answerCol",
            value=answer,
        )
    check_columns(df, text, start, end, answer, caption)
    wanted = {text: ("string",), start: _WHOLE, end: _WHOLE, answer: ("string",)}
    kinds = types_of(df)
    for name, allowed in wanted.items():
        if name is not None and kinds[name] not in allowed:
            raise SignatureError(
                f"column {name!r} must be {' or '.join(allowed)} (got {kinds[name]})",
                column=name,
                expected=allowed,
                got=kinds[name],
            )
    from pyspark.sql import functions as sf

    names = [text, *((answer,) if answer else (start, end)), *((caption,) if caption else ())]
    rows = df.select(*(sf.col(quoted(str(name))).alias(f"c{i}") for i, name in enumerate(names))).head(n)
    found: list[Piece] = []
    for row in rows:
        told = (values.cell(row[-1]) or "null") if caption else ""
        found.append(by_text(row[0], row[1], told) if answer else by_place(row[0], row[1], row[2], told))
    return found or [Text("no rows")]


def by_text(text: str | None, answer: str | None, caption: str = "") -> Marked:
    """Every place where the answer is."""
    if text is None or not answer:
        return Marked((("null" if text is None else text, False),), caption, "no answer" if text is not None else "")
    parts = text.split(answer)
    if len(parts) == 1:
        problem = f"the answer {values.shortened(values.printable(answer), 60)!r} is not in the text"
        return Marked(((text, False),), caption, problem)
    found = [(parts[0], False)]
    for part in parts[1:]:
        found += [(answer, True), (part, False)]
    return Marked(_short(found), caption)


def by_place(text: str | None, start: int | None, end: int | None, caption: str = "") -> Marked:
    """From ``start`` up to, and without, ``end``: letters from 0."""
    if text is None:
        return Marked((("null", False),), caption)
    if start is None or end is None:
        return Marked(((text, False),), caption, "no answer")
    if not 0 <= start < end <= len(text):
        problem = f"the answer from {start} to {end} is not within the text's {values.count(len(text), 'letter')}"
        return Marked(((text, False),), caption, problem)
    return Marked(_short([(text[:start], False), (text[start:end], True), (text[end:], False)]), caption)


def _short(parts: list[tuple[str, bool]]) -> tuple[tuple[str, bool], ...]:
    """Without what is far from any answer."""
    found = []
    for i, (text, on) in enumerate(parts):
        if not on and len(text) > 2 * _AROUND:
            before = "" if not i else text[:_AROUND]
            behind = "" if i == len(parts) - 1 else text[-_AROUND:]
            text = f"{before} … {behind}"
        if text:
            found.append((text, on))
    return tuple(found)
