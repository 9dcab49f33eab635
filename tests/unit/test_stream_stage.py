"""What a worker does with a micro-batch's rows: each is written once, scored or as a dead letter."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sparkdl.bundle import Bundle
from sparkdl.errors import DataError
from sparkdl.payloads import PARSED, UNPARSABLE
from sparkdl.score import worker
from sparkdl.score.output import Layout
from sparkdl.score.scorer import Scorer
from sparkdl.score.scoring import Scoring
from sparkdl.signature import Signature, TensorSpec
from sparkdl.stream import letters
from sparkdl.stream.rows import SHARE, Shape, compared, refuse
from sparkdl.stream.stage import SAMPLE_BYTES, SAMPLE_ROWS, Place, Stage, sample_rows, sampled

X = TensorSpec("x", "float32", (2,), ("x",), ("array<float>",))
QUERY = "0123456789abcdef" * 2
EVENT = [("id", "long"), ("x", {"type": "array", "elementType": "float", "containsNull": True})]


class Sum(nn.Module):
    """The sum of x, times a weight; raises on a row whose first value is 13."""

    def __init__(self, weight, known=13):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))
        self.table = nn.Embedding(known, 1)

    def forward(self, x):
        self.table(x[:, 0].long().clamp(0))
        return x.sum(dim=1) * self.weight + self.table(x[:, 0].long().clamp(0))[:, 0] * 0


def bundle_of(weight, known=13):
    return Bundle.from_module(Sum(weight, known), Signature((X,)), example=[torch.ones(3, 2)])


ONE, TWO, FEW = bundle_of(1.0), bundle_of(2.0), bundle_of(2.0, 5)  # FEW raises from 5 on


def scorer(bundle, invalid="keep"):
    return Scorer(bundle.digest, lambda: bundle.files, bundle.signature, Scoring(invalid=invalid), False)


def schema(fields):
    return {
        "type": "struct",
        "fields": [{"name": name, "type": kind, "nullable": True, "metadata": {}} for name, kind in fields],
    }


def stage(
    folder, *, on_bad="dead", challenger=None, share=0.0, event=EVENT, passed=("id", "x"), partition_by=(), **more
):
    outputs = {"prediction": "prediction"}
    others = {"prediction": "other_prediction"} if challenger else None
    shape = Shape(tuple(name for name, _ in event), tuple(passed), ("x",), (), outputs, others)
    fields = [(name, dict(EVENT)[name]) for name in passed]
    fields += [(name, "float") for name in (*outputs.values(), *(others or {}).values())]
    fields += [(name, "string") for name in shape.versions]
    dead = Place(f"{folder}/dead", letters.schema(schema(event)), Layout(), "4.3.0") if on_bad == "dead" else None
    rows = Place(f"{folder}/rows", schema(fields), Layout(tuple(partition_by)), "4.3.0")
    invalid = "error" if on_bad == "error" else "keep"
    other = ("2", challenger) if challenger else None
    values = {"ahead": None, "sample": False} | more
    return Stage(QUERY, 7, 0.0, shape, "1", scorer(ONE, invalid), other, share, on_bad, rows, dead, **values)


def run(stage, batches):
    (told,) = stage(iter(batches))
    return json.loads(told.column(0)[0].as_py()), told.column(1)[0].as_py()


def batch(ids, rows, **more):
    columns = {"id": pa.array(ids, pa.int64()), "x": pa.array(rows, pa.list_(pa.float32()))} | more
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


def written(folder, told, which="files"):
    place = f"{folder}/{'rows' if which == 'files' else 'dead'}"
    tables = [pq.read_table(f"{place}/{path}", partitioning=None) for path, _, _ in told[which]]
    for table, (_, rows, nbytes) in zip(tables, told[which], strict=True):
        assert len(table) == rows
        assert nbytes > 0
    return [row for table in tables for row in table.to_pylist()]


GOOD, NULL, SHORT, NAN, POISON = [1.0, 2.0], None, [1.0], [float("nan"), 1.0], [13.0, 0.0]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.lists(st.sampled_from([GOOD, NULL, SHORT, NAN, POISON]), min_size=0, max_size=30), min_size=0, max_size=4
    )
)
def test_each_row_is_scored_or_a_dead_letter_once(tmp_path_factory, batches):
    folder = tmp_path_factory.mktemp("stage")
    rows = [(number, row) for number, row in enumerate(row for rows in batches for row in rows)]
    given_rows = iter(rows)
    made = [batch(*zip(*[next(given_rows) for _ in rows], strict=True)) if rows else batch([], []) for rows in batches]
    told, _ = run(stage(folder), made)
    good, dead = written(folder, told), written(folder, told, "dead_files")
    assert sorted([row["id"] for row in good] + [letter["row"]["id"] for letter in dead]) == [n for n, _ in rows]
    assert [row["id"] for row in good] == [number for number, row in rows if row == GOOD]  # in their order
    assert all(row["prediction"] == 3.0 and row["model_version"] == "1" for row in good)
    kinds = {"null": NULL, "shape": SHORT, "failed": POISON}
    for letter in dead:
        expected = kinds.get(letter["kind"])
        assert letter["row"]["x"] == expected or letter["kind"] in ("value", "non-finite")
        assert letter["reason"].startswith(f"{letter['kind']}: ")
        assert (letter["query"], letter["batch_id"], letter["model_version"]) == (QUERY, 7, "1")
    assert told["rows"] == len(rows)
    assert sum(told["versions"].values()) == len(good)
    assert sum(told["dead"].values()) == len(dead)


def test_bad_rows_without_a_place_for_them(tmp_path):
    rows = batch([0, 1, 2], [GOOD, NULL, GOOD])
    told, _ = run(stage(tmp_path / "skip", on_bad="skip"), [rows])
    assert [row["id"] for row in written(tmp_path / "skip", told)] == [0, 2]
    assert told["skipped"] == 1
    assert told["dead"] == {}
    assert told["dead_files"] == []
    told, _ = run(stage(tmp_path / "keep", on_bad="keep"), [rows])
    assert [row["prediction"] for row in written(tmp_path / "keep", told)] == [3.0, None, 3.0]
    with pytest.raises(DataError, match="column 'x'"):
        run(stage(tmp_path / "error", on_bad="error"), [rows])


def test_what_cannot_be_parsed_is_a_dead_letter_as_it_came_and_the_rest_is_flat(tmp_path):
    texts = [b"one", b"broken", None]
    parsed = pa.StructArray.from_arrays(
        [pa.array([0, None, None], pa.int64()), pa.array([GOOD, None, None], pa.list_(pa.float32()))], ["id", "x"]
    )
    reasons = pa.array([None, "unparsable: no JSON", "unparsable: null"])
    position = {"topic": pa.array(["t"] * 3), "partition": pa.array([0] * 3, pa.int32()), "offset": pa.array([5, 6, 7])}
    columns = {"value": pa.array(texts, pa.binary()), **position, PARSED: parsed, UNPARSABLE: reasons}
    rows = pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
    event = [("value", "binary"), ("topic", "string"), ("partition", "integer"), ("offset", "long")]
    told, _ = run(stage(tmp_path, event=event), [rows])
    assert [row["id"] for row in written(tmp_path, told)] == [0]
    dead = written(tmp_path, told, "dead_files")
    assert [letter["row"]["value"] for letter in dead] == [b"broken", None]
    assert [letter["source"] for letter in dead] == ["t-0@6", "t-0@7"]
    assert [letter["kind"] for letter in dead] == ["unparsable"] * 2
    assert dead[0]["model_version"] is None
    with pytest.raises(DataError, match="deadLetter"):
        run(stage(tmp_path / "none", event=event, on_bad="error"), [rows])


def test_no_character_of_a_payload_is_in_an_error():
    reason = "unparsable: column 'value' is no JSON of bigint id, array<float> x: {secret: 1"
    with pytest.raises(
        DataError, match="unparsable: column 'value' is no JSON of bigint id, array<float> x; name"
    ) as told:
        refuse(reason)
    assert "secret" not in f"{told.value} {told.value.got}"
    with pytest.raises(DataError, match="unparsable: column 'value' is null; name"):
        refuse("unparsable: column 'value' is null")


def test_skipped_rows_are_counted_whether_or_not_they_could_be_parsed(tmp_path):
    parsed = pa.StructArray.from_arrays(
        [pa.array([0, None, 2], pa.int64()), pa.array([GOOD, None, None], pa.list_(pa.float32()))], ["id", "x"]
    )
    columns = {"value": pa.array(["one", "broken", "three"]), PARSED: parsed}
    columns[UNPARSABLE] = pa.array([None, "unparsable: no JSON", None])
    rows = pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
    told, _ = run(stage(tmp_path, event=[("value", "string")], on_bad="skip"), [rows])
    assert (told["rows"], told["skipped"], told["dead"]) == (3, 2, {})
    assert [row["id"] for row in written(tmp_path, told)] == [0]


def test_champion_and_challenger_score_each_row_and_one_serves_it(tmp_path):
    share = pa.array(np.arange(10) / 10)
    rows = batch(list(range(10)), [GOOD] * 10, **{SHARE: share})
    told, _ = run(stage(tmp_path, challenger=scorer(TWO), share=0.3), [rows])
    served = written(tmp_path, told)
    assert [row["model_version"] for row in served] == ["2"] * 3 + ["1"] * 7
    assert [row["other_version"] for row in served] == ["1"] * 3 + ["2"] * 7
    assert [row["prediction"] for row in served] == [6.0] * 3 + [3.0] * 7
    assert [row["other_prediction"] for row in served] == [3.0] * 3 + [6.0] * 7
    assert told["versions"] == {"1": 7, "2": 3}
    assert told["compared"] == {"prediction.rows": 10, "prediction.equal": 0, "prediction.distance": 30.0}
    assert set(told["warmed"]) >= {ONE.digest, TWO.digest}
    assert told["challenger_failed"] is None


def gone():
    raise OSError("the bundle is gone\nand more")


@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize(
    ("other", "why"),
    [
        (scorer(FEW), "index out of range"),
        (replace(scorer(TWO), digest="0" * 64, fetch=gone), "OSError: the bundle is gone"),
    ],
)
def test_a_challenger_that_fails_leaves_the_rows_to_the_champion(tmp_path, caplog, other, why, share):
    rows = batch(list(range(150)), [[7.0, 1.0]] * 150, **{SHARE: pa.array(np.arange(150) / 150)})
    told, _ = run(
        stage(tmp_path, challenger=other, share=share), [rows, batch([150], [NULL], **{SHARE: pa.array([0.0])})]
    )
    made = written(tmp_path, told)
    assert [row["prediction"] for row in made] == [8.0] * 150
    assert {(row["other_prediction"], row["model_version"], row["other_version"]) for row in made} == {(None, "1", "2")}
    assert why in told["challenger_failed"]
    assert "\n" not in told["challenger_failed"]
    assert (told["versions"], told["dead"]) == ({"1": 150}, {"null": 1})
    assert told["compared"].get("prediction.rows", 0) == 0
    assert "challenger 2 failed on 150 rows" in caplog.text


@pytest.mark.parametrize(
    ("kind", "one", "two", "equal", "distance"),
    [
        (pa.bool_(), [True, True, None], [True, False, True], 1, 1.0),
        (pa.uint8(), [1, 200, 3], [1, 100, None], 1, 100.0),
        (pa.uint8(), [1, 100], [2, 200], 0, 101.0),
        (pa.int64(), [-1, 2**62], [1, 2**62], 1, 2.0),
        (pa.float32(), [0.5, 1.0], [0.5, 3.0], 1, 2.0),
    ],
)
def test_outputs_of_every_type_are_compared(kind, one, two, equal, distance):
    assert compared(pa.array(one, kind), pa.array(two, kind)) == {"rows": 2, "equal": equal, "distance": distance}
    nothing = pa.nulls(2, kind)
    assert compared(nothing, nothing) == {"rows": 0, "equal": 0, "distance": 0}


def test_partition_columns_become_folders(tmp_path):
    told, _ = run(stage(tmp_path, partition_by=("id",)), [batch([0, 1, 0], [GOOD] * 3)])
    assert sorted((path.split("/")[0], rows) for path, rows, _ in told["files"]) == [("id=0", 2), ("id=1", 1)]


def test_the_next_model_is_loaded_ahead_and_rows_are_given_back_to_prove_it(tmp_path):
    _told, sample = run(stage(tmp_path, ahead=scorer(TWO), sample=True), [batch([0, 1], [NULL, GOOD])])
    assert sample_rows(sample).to_pylist() == [{"x": GOOD}]
    worker._tidying.join()
    assert TWO.digest in worker.loaded()


@pytest.mark.parametrize(("width", "rows"), [(4, SAMPLE_ROWS), (SAMPLE_BYTES // 20, 4), (SAMPLE_BYTES, 1)])
def test_what_is_given_back_is_small(width, rows):
    wide = pa.array([[float(number)] * width for number in range(80)], pa.list_(pa.float32()))
    content = sampled(pa.RecordBatch.from_arrays([wide], names=["w"]), np.arange(2, 80))
    sample = sample_rows(content)
    assert [row[0].as_py() for row in sample.column(0)] == list(range(2, 2 + rows))
    assert rows == 1 or len(content) < SAMPLE_BYTES + 1024


def test_no_rows_make_no_files(tmp_path):
    told, sample = run(stage(tmp_path, sample=True), [])
    assert (told["rows"], told["files"], told["dead_files"], sample) == (0, [], [], None)
    assert not (tmp_path / "rows").exists()
