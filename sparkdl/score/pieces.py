"""A table's files cut into pieces of work: whole row groups, large enough to be worth a task. No Spark."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

MOST_ROWS = 1 << 20
MOST_BYTES = 256 << 20
PIECES_A_SLOT = 4  # so that slots which end early find more to do
Constants = tuple[tuple[str, str | None], ...]


@dataclass(frozen=True)
class RowGroup:
    """rows; nbytes: uncompressed."""

    rows: int
    nbytes: int


@dataclass(frozen=True)
class SourceFile:
    """A Parquet file of the source. constants: the partition columns, by name, as their folder tells them."""

    path: str
    constants: Constants
    row_groups: tuple[RowGroup, ...]


@dataclass(frozen=True)
class Part:
    """Row groups of one file, in order. first_row: in the file, of the first of them."""

    path: str
    constants: Constants
    row_groups: tuple[int, ...]
    first_row: int
    rows: int
    nbytes: int


@dataclass(frozen=True)
class Piece:
    """What is scored and written at once, and not again if it is finished: parts of files, in order."""

    parts: tuple[Part, ...]

    @property
    def rows(self) -> int:
        """Rows to score."""
        return sum(part.rows for part in self.parts)

    def to_json(self) -> dict[str, Any]:
        """As JSON values; ``from_json`` takes them back."""
        return asdict(self)

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Piece:
        """The piece that ``to_json`` told."""
        return cls(
            tuple(
                Part(**{
                    **part,
                    "constants": tuple((name, value) for name, value in part["constants"]),
                    "row_groups": tuple(part["row_groups"]),
                })
                for part in told["parts"]
            )
        )  # fmt: skip

    def place(self, row: int) -> tuple[str, int]:
        """The file, and the row in it, of the piece's row ``row``."""
        for part in self.parts:
            if row < part.rows:
                return part.path, part.first_row + row
            row -= part.rows
        raise IndexError(row)


def cut(files: Sequence[SourceFile], slots: int) -> list[Piece]:
    """All row groups that have rows, each in exactly one piece, in the files' order.

    A piece has as many rows as give every slot ``PIECES_A_SLOT`` of them (small files share a piece): a few rows may be
    hours of work for a large model. It has at most ``MOST_ROWS`` or ``MOST_BYTES``, unless a single row group has more.
    """
    total = sum(group.rows for file in files for group in file.row_groups)
    most = min(-(-total // (PIECES_A_SLOT * slots)), MOST_ROWS)
    pieces: list[Piece] = []
    held: list[Part] = []
    rows = nbytes = 0
    for part in _row_groups(files):
        if held and (rows + part.rows > most or nbytes + part.nbytes > MOST_BYTES):
            pieces.append(Piece(tuple(_joined(held))))
            held, rows, nbytes = [], 0, 0
        held.append(part)
        rows, nbytes = rows + part.rows, nbytes + part.nbytes
    return [*pieces, Piece(tuple(_joined(held)))] if held else pieces


def _row_groups(files: Sequence[SourceFile]) -> Iterator[Part]:
    """A part a row group that has rows."""
    for file in files:
        first = 0
        for number, group in enumerate(file.row_groups):
            if group.rows:
                yield Part(file.path, file.constants, (number,), first, group.rows, group.nbytes)
            first += group.rows


def _joined(parts: Sequence[Part]) -> Iterator[Part]:
    """Neighbours in one file as one part."""
    last = parts[0]
    for part in parts[1:]:
        if part.path == last.path:
            groups = (*last.row_groups, *part.row_groups)
            rows, nbytes = last.rows + part.rows, last.nbytes + part.nbytes
            last = Part(last.path, last.constants, groups, last.first_row, rows, nbytes)
        else:
            yield last
            last = part
    yield last
