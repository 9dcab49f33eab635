"""What there is to see, as data: each piece can be written as HTML (``page``) and as text (``plain``)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import numpy as np

Cell: TypeAlias = str | None  # None is a null


@dataclass(frozen=True)
class Text:
    """Lines of text."""

    text: str


@dataclass(frozen=True)
class Facts:
    """What, and how it is."""

    lines: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Table:
    """Rows of cells. numeric: the places of columns that are numbers. note: a line below. chart: Zeppelin may sort and
    plot it itself; else it is only to be read."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    numeric: frozenset[int] = frozenset()
    note: str = ""
    chart: bool = False

    def first(self, count: int) -> Table:
        """The first ``count`` rows, and a note of those that are left out."""
        out = len(self.rows) - count
        left = f"{out:,} of these {len(self.rows):,} rows are left out: there is no room for more here"
        return replace(self, rows=self.rows[:count], note="; ".join(filter(None, [self.note, left]))) if out else self


@dataclass(frozen=True)
class Picture:
    """An image file. alt: what it shows, in words. name: of the file, if it is saved. sketch: what a terminal shows."""

    data: bytes
    alt: str
    name: str = "picture"
    sketch: tuple[Piece, ...] = ()
    media: str = "image/png"


@dataclass(frozen=True)
class Tile:
    """One image of a grid: its pixels ``(H, W, 3)`` uint8, or None and why there are none. right: as it was predicted."""

    caption: str
    pixels: np.ndarray | None = field(default=None, compare=False)
    right: bool | None = None
    problem: str = ""


@dataclass(frozen=True)
class Tiles:
    """A grid of images."""

    tiles: tuple[Tile, ...]
    note: str = ""


@dataclass(frozen=True)
class Sound:
    """Samples ``(samples,)`` or ``(samples, channels)`` float32 in [-1, 1], ``rate`` of them a second."""

    samples: np.ndarray = field(compare=False)
    rate: int
    caption: str = ""
    note: str = ""

    @property
    def seconds(self) -> float:
        """How long it is."""
        return len(self.samples) / self.rate


@dataclass(frozen=True)
class Marked:
    """Text in parts, some of them marked."""

    parts: tuple[tuple[str, bool], ...]
    caption: str = ""
    problem: str = ""


@dataclass(frozen=True)
class Html:
    """What an object says of itself in HTML, and in text."""

    html: str
    text: str


Piece: TypeAlias = Text | Facts | Table | Picture | Tiles | Sound | Marked | Html
