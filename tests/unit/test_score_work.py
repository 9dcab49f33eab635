"""What a task does with a piece: the rows of plain torch, in their order, finished once."""

import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from making import one_piece
from torch import nn

from sparkdl.bundle import Bundle
from sparkdl.columns import to_arrow
from sparkdl.errors import StoreError
from sparkdl.score import parquet, work
from sparkdl.score.output import Layout
from sparkdl.score.parquet import footer
from sparkdl.score.pieces import Piece, SourceFile
from sparkdl.score.scorer import Scorer
from sparkdl.score.scoring import Scoring
from sparkdl.score.staging import Staging
from sparkdl.score.work import Work
from sparkdl.signature import Signature, TensorSpec

FEATURES = TensorSpec("features", "float32", (4,), ("features",), ("array<float>",))
READ = pa.schema([("id", pa.int64()), ("features", pa.list_(pa.float32()))])


@pytest.fixture(scope="module")
def bundle():
    torch.manual_seed(0)
    return Bundle.from_module(nn.Linear(4, 1), Signature((FEATURES,)), task="regression")


@pytest.fixture
def source(tmp_path):
    """Two files of 50 rows in row groups of 20; the values, (100, 4)."""
    values = np.random.default_rng(0).standard_normal((100, 4), dtype=np.float32)
    for i in range(2):
        rows = slice(50 * i, 50 * i + 50)
        table = pa.table({"features": to_arrow(values[rows]), "id": np.arange(100)[rows]})
        pq.write_table(table, tmp_path / f"{i}.parquet", row_group_size=20)
    return values


def piece_of(tmp_path) -> Piece:
    paths = [str(tmp_path / f"{i}.parquet") for i in range(2)]
    return one_piece([SourceFile(path, (), footer(path, READ)) for path in paths])


def task(bundle, tmp_path, *, invalid="error", error_column=None, writes=True, row_group_size=None):
    more = [(error_column, pa.string())] if error_column else []
    table = pa.schema([("id", pa.int64()), ("p", pa.float64()), *more])
    scorer = Scorer(bundle.digest, lambda: bundle.files, bundle.signature, Scoring(invalid=invalid), False)
    place = Staging(str(tmp_path / "out"), "a" * 32).planned(list)[0] if writes else None
    return Work(
        scorer, READ, table, {"prediction": "p"}, error_column, table, Layout(row_group_size=row_group_size), place
    )


def open_files(folder):
    paths = (f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd"))
    return [path for path in paths if os.path.exists(path) and os.readlink(path).startswith(folder)]


def in_torch(bundle, values):
    with torch.inference_mode():
        return bundle.module()(torch.from_numpy(values)).numpy()[:, 0]


def replace_row(tmp_path, file, row, value):
    path = tmp_path / f"{file}.parquet"
    table = pq.read_table(path)
    rows = table["features"].to_pylist()
    rows[row] = value
    table = table.set_column(0, "features", pa.array(rows, pa.list_(pa.float32())))
    pq.write_table(table, path, row_group_size=20)


@pytest.mark.parametrize("batch_rows", [1, 7, 1000])
def test_rows_are_those_of_plain_torch_in_their_order(tmp_path, bundle, source, monkeypatch, batch_rows):
    monkeypatch.setattr(parquet, "BATCH_ROWS", batch_rows)
    scoring = task(bundle, tmp_path)
    told = scoring.do(0, piece_of(tmp_path))
    (file,) = told.pop("files")
    assert told == {"rows": 100, "written": 100, "invalid": {}}
    found = pq.read_table(os.path.join(scoring.staging.table, file))
    assert found["id"].to_pylist() == list(range(100))
    np.testing.assert_allclose(found["p"].to_numpy(), in_torch(bundle, source), rtol=1e-5, atol=1e-6)


def test_a_piece_is_scored_once(tmp_path, bundle, source, monkeypatch):
    scoring, piece = task(bundle, tmp_path), piece_of(tmp_path)
    told = scoring.do(4, piece)
    monkeypatch.setattr(work, "read", lambda *_: pytest.fail("read again"))
    assert scoring.do(4, piece) == told


@pytest.mark.parametrize(
    ("invalid", "error_column", "ids"), [("keep", "why", 100), ("keep", None, 100), ("skip", None, 97)]
)
def test_bad_rows_are_kept_or_left_out_and_counted(tmp_path, bundle, source, invalid, error_column, ids):
    replace_row(tmp_path, 0, 3, None)
    replace_row(tmp_path, 0, 49, [1.0])
    replace_row(tmp_path, 1, 0, [float("inf")] * 4)
    scoring = task(bundle, tmp_path, invalid=invalid, error_column=error_column)
    told = scoring.do(0, piece_of(tmp_path))
    assert (told["rows"], told["written"]) == (100, ids)
    assert told["invalid"] == {"null": 1, "shape": 1, "non-finite": 1}
    found = pq.read_table(os.path.join(scoring.staging.table, told["files"][0])).to_pylist()
    bad = [3, 49, 50]
    assert [row["id"] for row in found] == [i for i in range(100) if invalid == "keep" or i not in bad]
    assert [row["id"] for row in found if row["p"] is None] == (bad if invalid == "keep" else [])
    good = [row for row in found if row["id"] not in bad]
    wanted = in_torch(bundle, source)[[row["id"] for row in good]]
    np.testing.assert_allclose([row["p"] for row in good], wanted, rtol=1e-5, atol=1e-6)
    if error_column:
        assert [row["why"].split(":")[0] for row in found if row["why"]] == ["null", "shape", "non-finite"]


@pytest.mark.parametrize("value", [None, [1.0], [float("inf")] * 4])
@pytest.mark.parametrize("row", [0, 27])
def test_a_bad_row_is_named_with_its_file(tmp_path, bundle, source, monkeypatch, value, row):
    replace_row(tmp_path, 1, row, value)
    monkeypatch.setattr(parquet, "BATCH_ROWS", 7)
    scoring = task(bundle, tmp_path, row_group_size=7)  # files are open when it is met
    problem = scoring.do(0, piece_of(tmp_path))["problem"]
    assert (problem["file"], problem["row"]) == (str(tmp_path / "1.parquet"), row)
    assert f"row {row} of {tmp_path}/1.parquet" in problem["message"]
    assert scoring.staging.failure()["problem"]["message"] == problem["message"]
    assert scoring.staging.markers() == []
    assert os.listdir(os.path.join(scoring.staging.folder, "work")) == []
    assert open_files(scoring.staging.folder) == []


def test_nothing_is_written_without_a_place(tmp_path, bundle, source):
    replace_row(tmp_path, 0, 3, None)
    before = sorted(os.listdir(tmp_path))
    told = task(bundle, tmp_path, invalid="keep", writes=False).do(0, piece_of(tmp_path))
    assert told == {"files": [], "rows": 100, "written": 0, "invalid": {"null": 1}}
    assert sorted(os.listdir(tmp_path)) == before


def test_what_the_writer_meets_ends_the_task(tmp_path, bundle, source):
    scoring = task(bundle, tmp_path, row_group_size=1)
    (tmp_path / os.path.basename(scoring.staging.folder) / "work").write_text("in the way")
    with pytest.raises(StoreError, match="cannot write"):
        scoring.do(0, piece_of(tmp_path))
