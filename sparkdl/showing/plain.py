"""Pieces as text: by rich for a terminal, or plain, for files, pipes and where rich is not installed."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparkdl.showing import encoding, values
from sparkdl.showing.pieces import Facts, Html, Marked, Picture, Piece, Sound, Table, Text, Tile, Tiles

if TYPE_CHECKING:
    from rich.console import RenderableType

_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 40  # letters of a sparkline
_SIGN = {True: "✓", False: "✗", None: ""}


def text(pieces: Iterable[Piece]) -> str:
    """All of them, one below the other. Pictures and sounds are saved, and where is told."""
    made = "\n".join(_text(part) for piece in pieces for part in _simple(piece))
    return values.printable(made, lines=True)


def renderables(pieces: Iterable[Piece]) -> list[RenderableType]:
    """The same for a console of rich."""
    return [_rich(part) for piece in pieces for part in _simple(piece)]


def sparkline(numbers: Sequence[float] | np.ndarray, width: int = _WIDTH) -> str:
    """Bars as high as the numbers, means of neighbours where they are many; a blank for what is not finite."""
    found = np.asarray(numbers, dtype=float)
    if len(found) > width:
        found = np.array([_mean(part) for part in np.array_split(found, width)])
    known = found[np.isfinite(found)]
    if not len(known):
        return ""
    low, high = float(known.min()), float(known.max())
    steps = np.zeros(len(found)) if high == low else np.nan_to_num((found - low) / (high - low))
    return "".join(
        _BARS[round(float(step) * (len(_BARS) - 1))] if np.isfinite(value) else " "
        for step, value in zip(steps, found, strict=True)
    )


def _mean(part: np.ndarray) -> float:
    known = part[np.isfinite(part)]
    return float(known.mean()) if len(known) else float("nan")


def _simple(piece: Piece) -> list[Text | Facts | Table | Marked]:
    """A piece as those that are text anyway."""
    if isinstance(piece, Picture):
        end = "svg" if "svg" in piece.media else "png"
        saved = Text(f"{piece.alt}: {_saved(piece.data, f'{piece.name}.{end}')}")
        return [part for sketch in piece.sketch for part in _simple(sketch)] + [saved]
    if isinstance(piece, Tiles):
        return _tiles(piece)
    if isinstance(piece, Sound):
        wave = sparkline(np.abs(piece.samples if piece.samples.ndim == 1 else piece.samples.mean(axis=1)))
        told = f"{piece.seconds:.2f} s at {piece.rate:,} Hz: {_saved(encoding.wav(piece), 'sound.wav')}"
        lines = [" · ".join(filter(None, [piece.caption, told])), wave, piece.note]
        return [Text("\n".join(filter(None, lines)))]
    return [Text(piece.text)] if isinstance(piece, Html) else [piece]


def _tiles(piece: Tiles) -> list[Text | Facts | Table | Marked]:
    rows = tuple(
        (str(i), _SIGN[tile.right], tile.caption, tile.problem or "{1} × {0}".format(*_shape(tile)))
        for i, tile in enumerate(piece.tiles)
    )
    columns = ("", "", "image", "pixels")
    found: list[Text | Facts | Table | Marked] = [Table(columns, rows, frozenset([0]), piece.note)]
    if any(tile.pixels is not None for tile in piece.tiles):
        from sparkdl.showing.images import sheet

        found.append(Text(f"the images: {_saved(encoding.png(sheet(piece.tiles)), 'images.png')}"))
    return found


def _shape(tile: Tile) -> tuple[int, ...]:
    return tile.pixels.shape[:2] if tile.pixels is not None else (0, 0)


def _text(piece: Text | Facts | Table | Marked) -> str:
    if isinstance(piece, Text):
        return piece.text
    if isinstance(piece, Facts):
        width = max((len(what) for what, _ in piece.lines), default=0)
        return "\n".join(f"{values.printable(what):<{width}}  {values.printable(told)}" for what, told in piece.lines)
    if isinstance(piece, Table):
        from tabulate import tabulate

        sides = ["right" if i in piece.numeric else "left" for i in range(len(piece.columns))]
        cells = [["null" if value is None else values.printable(value) for value in row] for row in piece.rows]
        names = [values.printable(name) for name in piece.columns]
        table = tabulate(cells, names, "simple", colalign=sides if cells else None, disable_numparse=True)
        return "\n".join(filter(None, [table, piece.note]))
    marked = "".join(f"[{part}]" if on else part for part, on in piece.parts)
    return "\n".join(filter(None, [piece.caption, marked, piece.problem]))


def _rich(piece: Text | Facts | Table | Marked) -> Any:
    from rich import box, table
    from rich import text as rich_text

    def styled(text: str, style: str = "") -> Any:
        return rich_text.Text(values.printable(text, lines=True), style)

    if isinstance(piece, Text):
        return styled(piece.text)
    if isinstance(piece, Marked):
        made = styled(f"{piece.caption}\n" if piece.caption else "", "dim")
        parts = [styled(part, "black on yellow" if on else "not dim") for part, on in piece.parts]
        problem = [styled(f"\n✗ {piece.problem}", "bold")] if piece.problem else []
        return rich_text.Text.assemble(made, *parts, *problem)
    if isinstance(piece, Facts):
        grid = table.Table.grid(padding=(0, 2))
        for what, told in piece.lines:
            grid.add_row(styled(what, "bold"), styled(told))
        return grid
    shown = table.Table(box=box.SIMPLE_HEAD, caption=styled(piece.note, "dim"), caption_justify="left")
    for i, name in enumerate(piece.columns):
        shown.add_column(styled(name), justify="right" if i in piece.numeric else "left")
    for row in piece.rows:
        shown.add_row(*(styled("null", "dim italic") if value is None else styled(value) for value in row))
    return shown


@cache
def _folder() -> Path:
    """Of this process, readable by its user alone; it stays, for who wants to look."""
    return Path(tempfile.mkdtemp(prefix="sparkdl-"))


def _saved(data: bytes, name: str) -> str:
    """The path of the file; names count on."""
    stem, end = re.sub(r"[^\w.-]+", "-", name).rsplit(".", 1)
    taken = sum(1 for path in _folder().glob(f"{stem}-*.{end}"))
    path = _folder() / f"{stem}-{taken + 1}.{end}"
    path.write_bytes(data)
    return str(path)
