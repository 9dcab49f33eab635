"""Pieces within a number of bytes: what is too large becomes smaller, and says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from sparkdl.showing import encoding, values
from sparkdl.showing.pieces import Facts, Html, Marked, Picture, Piece, Sound, Table, Text, Tiles

_SCALES = (1.0, 0.75, 0.5, 0.35, 0.25)
_SIDES = (96, 64, 48, 32)
_RATES = (16_000, 8_000)
_LEAST_S = 0.5
_LEAST_BYTES = 400  # for a piece


def fitted(pieces: Sequence[Piece], room: int, size: Callable[[Piece], int]) -> list[Piece]:
    """The pieces so that their sizes add up to ``room`` at most. Small ones stay as they are; the large ones share what is
    left alike; of more than there is room for the first stay. size: of a piece as it will be written, in bytes."""
    found = list(pieces)
    sizes = [size(piece) for piece in found]
    if sum(sizes) <= room:
        return found
    out = max(0, len(found) - max(1, room // _LEAST_BYTES))
    rest = [Text(f"{out:,} more are left out: there is no room for more here")] if out else []
    found = found[: len(found) - out]
    left = room - sum(map(size, rest))
    for done, i in enumerate(sorted(range(len(found)), key=lambda i: sizes[i])):
        share = left // (len(found) - done)
        if sizes[i] > share:
            found[i] = _smaller(found[i], share, size)
        left -= min(size(found[i]), left)
    return [*found, *rest]


def _smaller(piece: Piece, room: int, size: Callable[[Piece], int]) -> Piece:
    """The first that fits of the ways to show less of it."""
    for candidate in _ways(piece, room, size):
        if size(candidate) <= room:
            return candidate
    return Text("")


def _ways(piece: Piece, room: int, size: Callable[[Piece], int]) -> Iterator[Piece]:
    if isinstance(piece, Table):
        yield piece.first(_most(len(piece.rows), lambda n: size(piece.first(n)) <= room))
    elif isinstance(piece, Tiles):
        yield from _fewer_tiles(piece, room, size)
    elif isinstance(piece, Picture) and piece.media == "image/png":
        for scale in _SCALES:
            yield replace(piece, data=encoding.with_few_colours(piece.data, scale))
    elif isinstance(piece, Sound):
        yield from _shorter(piece, room, size)
    elif isinstance(piece, Facts):
        kept = _most(len(piece.lines), lambda n: size(_first_lines(piece, n)) <= room)
        yield _first_lines(piece, kept)
    elif isinstance(piece, Html):
        yield Text(piece.text)
    text = _as_text(piece)
    kept = _most(len(text), lambda n: size(_cut(text, n)) <= room)
    yield _cut(text, kept) if kept else Text(f"too large to be shown here: {values.shortened(text, 80)}")
    yield Text("too large")


def _as_text(piece: Piece) -> str:
    if isinstance(piece, Picture):
        return f"the picture is too large to be shown here ({values.nbytes(len(piece.data))}): {piece.alt}"
    if isinstance(piece, Marked):
        return "".join(text for text, _ in piece.parts)
    return (
        piece.text if isinstance(piece, (Text, Html)) else f"too large to be shown here: {type(piece).__name__.lower()}"
    )


def _first_lines(piece: Facts, kept: int) -> Facts:
    out = len(piece.lines) - kept
    return Facts((*piece.lines[:kept], ("…", f"{values.count(out, 'more line')}"))) if out else piece


def _cut(text: str, kept: int) -> Text:
    out = len(text) - kept
    return Text(f"{text[:kept]}\n… {values.count(out, 'more letter')}" if out else text)


def _most(upper: int, fits: Callable[[int], bool]) -> int:
    """The greatest count from 0 to ``upper`` that fits, if fewer fit whenever more do."""
    low, high = 0, upper
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def _fewer_tiles(piece: Tiles, room: int, size: Callable[[Piece], int]) -> Iterator[Tiles]:
    made = piece
    for side in _SIDES:
        shown = tuple(
            t if t.pixels is None else replace(t, pixels=encoding.resized(t.pixels, side)) for t in piece.tiles
        )
        made = replace(piece, tiles=shown)
        yield made
    kept = _most(len(made.tiles), lambda n: size(_first_tiles(made, n)) <= room)
    if kept:
        yield _first_tiles(made, kept)


def _first_tiles(piece: Tiles, kept: int) -> Tiles:
    out = len(piece.tiles) - kept
    note = "; ".join(
        filter(None, [piece.note, f"{values.count(out, 'image')} left out: there is no room for more here"])
    )
    return replace(piece, tiles=piece.tiles[:kept], note=note) if out else piece


def _shorter(piece: Sound, room: int, size: Callable[[Piece], int]) -> Iterator[Sound]:
    mono = piece.samples if piece.samples.ndim == 1 else piece.samples.mean(axis=1)
    made = piece
    for rate in (piece.rate, *(rate for rate in _RATES if rate < piece.rate)):
        made = replace(piece, samples=_at_rate(mono, piece.rate, rate), rate=rate, note=_less(piece, rate))
        yield made
    kept = _most(len(made.samples), lambda n: size(_beginning(made, n)) <= room)
    if kept >= _LEAST_S * made.rate:
        yield _beginning(made, kept)


def _at_rate(samples: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    if rate == wanted:
        return samples
    resampled: np.ndarray = encoding.needed("scipy.signal").resample_poly(samples, wanted, rate)
    return resampled.astype(np.float32)


def _less(piece: Sound, rate: int) -> str:
    changes = ["mono"] if piece.samples.ndim > 1 else []
    changes += [f"{rate:,} Hz instead of {piece.rate:,}"] if rate != piece.rate else []
    return "; ".join(filter(None, [piece.note, f"here {', '.join(changes)}, to be small enough" if changes else ""]))


def _beginning(piece: Sound, kept: int) -> Sound:
    cut = replace(piece, samples=piece.samples[:kept])
    note = f"the first {cut.seconds:.1f} of {piece.seconds:.1f} s: there is no room for more here"
    return replace(cut, note="; ".join(filter(None, [piece.note, note])))
