"""The driver's side of a scan: what it sees while tasks run, and what it makes of a job that failed."""

import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sparkdl import bars
from sparkdl.errors import DataError, ScoringError, StoreError, WorkerPythonError
from sparkdl.score import scan
from sparkdl.score.pieces import RowGroup, SourceFile, cut
from sparkdl.score.result import ScoredTable
from sparkdl.score.staging import Staging

PIECES = dict(enumerate(cut([SourceFile("x.parquet", (), (RowGroup(1 << 16, 1), RowGroup(5, 1)))], 1)))


@pytest.fixture
def place(tmp_path):
    place = Staging(str(tmp_path / "table"), "a" * 32)
    place.claim()
    return place.planned(lambda: list(PIECES.values()))[0]


def finish(place, number):
    os.makedirs(place.work(f"w{number}"))
    pq.write_table(pa.table({"x": [1]}), f"{place.work(f'w{number}')}/{number}.parquet")
    place.finish(number, f"w{number}", {"files": [f"{number}.parquet"]})


def test_the_bar_moves_with_the_pieces_that_are_finished(place, monkeypatch):
    monkeypatch.setattr(bars, "is_seen", lambda: True)
    bar = bars.of_rows((1 << 16) + 5, "scoring")
    check = scan._watch(place, PIECES, bar)
    seen = []
    for number in (None, 1, None, 0):
        if number is not None:
            finish(place, number)
        check()
        seen.append(bar.n)
    bar.close()
    assert seen == [0, 5, 5, (1 << 16) + 5]


def test_a_bad_row_ends_the_job_at_once_and_what_is_kept_is_told(place):
    check = scan._watch(place, PIECES, None)
    check()
    place.fail(
        {"problem": {"message": "row 3 is bad", "column": "x", "row": 3, "file": "f", "expected": 1, "got": None}}
    )
    with pytest.raises(DataError, match=r"^row 3 is bad$") as caught:
        check()
    assert (caught.value.column, caught.value.row, caught.value.file) == ("x", 3, "f")
    finish(place, 1)
    with pytest.raises(
        DataError, match=r"row 3 is bad; 1 finished pieces are kept in '.*', and the same call takes up"
    ):
        check()


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("Traceback\n  File\nsparkdl.errors.DataError: column 'x' is bad\n\n\tat java", DataError, "^column 'x' is bad$"),
        ("Traceback\nsparkdl.columns.BadRows: column 'x', row 3: no\n", DataError, "^column 'x', row 3: no$"),
        ("ModuleNotFoundError: No module named 'torch'", WorkerPythonError, "no package 'torch'"),
        ("\n".join([*"abc", "RuntimeError: no more", "\tat java.lang"]), ScoringError, r"failed:\na\nb\nc\nRuntimeError: no more$"),
    ],
)  # fmt: skip
def test_what_ended_a_job_is_told_as_an_error_of_ours(place, text, error, message):
    with pytest.raises(error, match=message):
        scan.raise_explained(RuntimeError(text), place)


def test_what_a_table_s_score_looks_like():
    told = ScoredTable("/t", 1000, 990, {"null": 10}, 2.0, "scan", pieces=4, resumed=1)
    assert repr(told) == (
        "ScoredTable(990 of 1,000 rows in '/t', 10 null; scan, 2.0 s, 500 rows/s, 1 of 4 pieces finished before)"
    )
    assert repr(ScoredTable(None, 7, 0, {}, 1.0, "dataframe")) == "ScoredTable(7 rows; dataframe, 1.0 s, 7 rows/s)"


def test_what_is_told_of_a_table_comes_back():
    told = ScoredTable("/t", 1000, 990, {"null": 10}, 2.0, "scan", pieces=4)
    assert ScoredTable.from_json(told.to_json() | {"later": 1}, uri="/t", seconds=2.0) == told
    for strange in ({}, {"rows": 1}, None, []):
        with pytest.raises(StoreError, match="'/t' was not written by this version"):
            ScoredTable.from_json(strange, uri="/t", seconds=2.0)
