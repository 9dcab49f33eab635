"""Every row of a table is in exactly one piece, in order, whatever its files look like."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkdl.score import pieces
from sparkdl.score.pieces import Piece, RowGroup, SourceFile, cut


def table(*files):
    """Files of row groups of so many rows, a byte each."""
    return [
        SourceFile(f"{i}.parquet", (("day", str(i)),), tuple(RowGroup(rows, rows) for rows in groups))
        for i, groups in enumerate(files)
    ]


def row_groups(found):
    return [(part.path, group) for piece in found for part in piece.parts for group in part.row_groups]


some_files = st.lists(st.lists(st.integers(0, 3 << 19), max_size=8), max_size=8)


@given(some_files, st.integers(1, 64))
def test_every_row_group_with_rows_is_in_one_piece_in_order(files, slots):
    found = cut(table(*files), slots)
    wanted = [(f"{i}.parquet", g) for i, groups in enumerate(files) for g, rows in enumerate(groups) if rows]
    assert row_groups(found) == wanted
    assert sum(piece.rows for piece in found) == sum(map(sum, files))


@given(some_files, st.integers(1, 64))
def test_a_piece_is_larger_than_asked_for_only_by_a_row_group_of_its_own(files, slots):
    for piece in cut(table(*files), slots):
        groups = [group for part in piece.parts for group in part.row_groups]
        assert piece.rows <= pieces.MOST_ROWS or len(groups) == 1


@pytest.mark.parametrize(
    ("files", "slots", "rows"),
    [
        ([], 2, []),
        ([[0], []], 2, []),
        ([[10], [20], [30]], 2, [10, 20, 30]),
        ([[1]] * 64, 2, [8] * 8),  # small files share a piece
        ([[1 << 16] * 32], 2, [1 << 18] * 8),  # four pieces a slot
        ([[1 << 20] * 3], 64, [1 << 20] * 3),
        ([[1 << 18] * 64], 1, [1 << 20] * 16),  # nor larger than that
        ([[2 << 20], [5]], 1, [2 << 20, 5]),  # a row group is never cut
    ],
)
def test_sizes(files, slots, rows):
    assert [piece.rows for piece in cut(table(*files), slots)] == rows


def test_wide_rows_make_small_pieces(monkeypatch):
    monkeypatch.setattr(pieces, "PIECES_A_SLOT", 1)
    wide = [SourceFile("a", (), tuple(RowGroup(1000, 100 << 20) for _ in range(5)))]
    assert [piece.rows for piece in cut(wide, 1)] == [2000, 2000, 1000]


@given(some_files)
def test_a_plan_survives_json(files):
    found = cut(table(*files), 2)
    assert [Piece.from_json(json.loads(json.dumps(piece.to_json()))) for piece in found] == found


def test_the_place_of_a_row(monkeypatch):
    monkeypatch.setattr(pieces, "PIECES_A_SLOT", 1)
    (piece,) = cut(table([3, 4], [1, 2]), 1)
    assert [piece.place(row) for row in (0, 6, 7, 9)] == [
        ("0.parquet", 0), ("0.parquet", 6), ("1.parquet", 0), ("1.parquet", 2)
    ]  # fmt: skip
    _, second = cut(table([1 << 20, 4]), 1)
    assert second.place(1) == ("0.parquet", (1 << 20) + 1)
    with pytest.raises(IndexError):
        piece.place(10)
