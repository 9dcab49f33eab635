"""Pieces as HTML: no scripts, nothing fetched, readable on light and dark ground. A value can never become markup."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable

from sparkdl.showing import encoding, values
from sparkdl.showing.pieces import Facts, Html, Marked, Picture, Piece, Sound, Table, Text, Tile, Tiles

_BLOCK = "margin:.4em 0;font-family:sans-serif;font-size:13px;line-height:1.45"
_CELL = "padding:.15em .7em;border-bottom:1px solid rgba(128,128,128,.35);text-align:"
_DIM = "opacity:.7"
_MARK = "background:#ffe08a;color:#1a1a1a;border-bottom:2px solid #a86b00;padding:0 .15em"
_TILE = "display:inline-block;vertical-align:top;margin:0 .5em .6em 0;width:8.5em;text-align:center;font-size:12px"
_RIGHT = {
    True: ("✓", "#0072b2", "solid"),
    False: ("✗", "#d55e00", "dashed"),
    None: ("", "rgba(128,128,128,.5)", "solid"),
}
_STYLE = re.compile(r"(<style\b.*?</style\s*>)", re.DOTALL | re.IGNORECASE)
SMALLEST = 96  # pixels: a smaller tile is enlarged, with its pixels to be seen


def page(pieces: Iterable[Piece]) -> str:
    """All of them. Without ends of lines, so that nothing in it can begin a display of Zeppelin; MathJax is told to
    leave it alone."""
    inner = "".join(part(piece) for piece in pieces)
    return f'<div class="tex2jax_ignore mathjax_ignore" style="{_BLOCK}">{inner}</div>'


def part(piece: Piece) -> str:
    """One of them."""
    if isinstance(piece, Text):
        return f'<div style="white-space:pre-wrap;font-family:monospace">{escaped(piece.text)}</div>'
    if isinstance(piece, Facts):
        rows = "".join(f"<tr>{_th(what, 'left')}{_td(text)}</tr>" for what, text in piece.lines)
        return f'<table style="border-collapse:collapse">{rows}</table>'
    if isinstance(piece, Table):
        return _table(piece)
    if isinstance(piece, Picture):
        return (
            f'<img alt="{escaped(piece.alt)}" style="max-width:100%;background:#fff;border-radius:4px" '
            f'src="{_uri(piece.media, piece.data)}"/>'
        )
    if isinstance(piece, Tiles):
        return f'<div role="list">{"".join(map(_tile, piece.tiles))}</div>' + _note(piece.note)
    if isinstance(piece, Sound):
        return _sound(piece)
    if isinstance(piece, Marked):
        return _marked(piece)
    return _one_line(piece.html) if isinstance(piece, Html) else ""


def escaped(text: str) -> str:
    """``text`` within HTML: no markup, no ends of lines, no per cent sign, by which Zeppelin would know a display."""
    text = html.escape(values.printable(text, lines=True))
    return text.replace("%", "&#37;").replace("\r", "").replace("\n", "&#10;").replace("\t", "&#9;")


def _one_line(markup: str) -> str:
    """Markup that others have made, on one line, with what is in it the same; styles know no ``&#37;``."""
    end = "&#10;" if "<pre" in markup.lower() else " "
    parts = _STYLE.split(markup.replace("\r", ""))
    parts[::2] = [part.replace("\n", end).replace("%", "&#37;") for part in parts[::2]]
    return "".join(parts).replace("\n", " ")


def _table(table: Table) -> str:
    sides = ["right" if i in table.numeric else "left" for i in range(len(table.columns))]
    head = "".join(_th(name, side) for name, side in zip(table.columns, sides, strict=True))
    body = "".join(
        "<tr>" + "".join(_td(value, side) for value, side in zip(row, sides, strict=True)) + "</tr>"
        for row in table.rows
    )
    return (
        f'<div style="overflow-x:auto"><table style="border-collapse:collapse"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>{_note(table.note)}"
    )


def _th(name: str, side: str) -> str:
    return f'<th scope="{"col" if side else "row"}" style="{_CELL}{side}">{escaped(name)}</th>'


def _td(value: str | None, side: str = "left") -> str:
    shown = f'<i style="{_DIM}">null</i>' if value is None else escaped(value)
    return f'<td style="{_CELL}{side}">{shown}</td>'


def _note(text: str) -> str:
    return f'<div style="{_DIM}">{escaped(text)}</div>' if text else ""


def _tile(tile: Tile) -> str:
    sign, colour, line = _RIGHT[tile.right]
    caption = escaped(" ".join(filter(None, [sign, tile.caption])))
    frame = f"border:2px {line} {colour};border-radius:3px;max-width:100%;box-sizing:border-box"
    if tile.pixels is None:
        inner = f'<div style="{frame};min-height:5em;padding:.3em;overflow:hidden">{escaped(tile.problem)}</div>'
    else:
        height, width = tile.pixels.shape[:2]
        grown = f";width:{SMALLEST}px;image-rendering:pixelated" if max(height, width) < SMALLEST else ""
        data, media = encoding.of_pixels(tile.pixels)
        inner = f'<img alt="{escaped(tile.caption or "image")}" style="{frame}{grown}" src="{_uri(media, data)}"/>'
    return f'<div role="listitem" style="{_TILE}">{inner}<div>{caption}</div></div>'


def _sound(sound: Sound) -> str:
    told = f"{sound.seconds:.2f} s at {sound.rate:,} Hz"
    player = (
        f'<audio controls preload="metadata" aria-label="{escaped(sound.caption or "sound")}, {told}" '
        f'src="{_uri("audio/wav", encoding.wav(sound))}"></audio>'
    )
    return f'<div style="margin:.4em 0">{player}<div>{escaped(" · ".join(filter(None, [sound.caption, told])))}</div>{_note(sound.note)}</div>'


def _marked(marked: Marked) -> str:
    text = "".join(f'<mark style="{_MARK}">{escaped(t)}</mark>' if on else escaped(t) for t, on in marked.parts)
    problem = f'<div style="color:#d55e00">✗ {escaped(marked.problem)}</div>' if marked.problem else ""
    body = f'<div style="white-space:pre-wrap">{text}</div>'
    return f'<div style="margin:.5em 0;border-left:3px solid rgba(128,128,128,.5);padding-left:.7em">{_note(marked.caption)}{body}{problem}</div>'


def _uri(media: str, data: bytes) -> str:
    return f"data:{media};base64,{base64.b64encode(data).decode()}"
