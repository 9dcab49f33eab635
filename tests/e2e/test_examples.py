"""Each application of examples/, at its smallest: a training job, a table, a stream, beside a plain torch script."""

import sys
from contextlib import nullcontext
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from sparkdl.tasks import is_lower_better

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
sys.path.insert(0, str(EXAMPLES))
import run as examples  # noqa: E402

WORSE_BY = {"speech-recognition": 0.25}  # than the script's: of 60 words after 16 epochs of half as many updates
WORSE_MOST = 0.08  # of others: from 0 to 1
# The lane of each; its notebook runs on the other one, and both on both by `make soak`.
LANES = {
    "diagnosis": "spark35", "fraud": "spark35", "image-recognition": "latest", "log-monitoring": "latest",
    "online-education-qa": "latest", "recommendation": "latest", "regression-first-notebook": "spark35",
    "speech-recognition": "spark35",
}  # fmt: skip


def test_what_there_is():
    assert examples.NAMES == [
        "diagnosis", "fraud", "image-recognition", "log-monitoring", "online-education-qa", "recommendation",
        "regression-first-notebook", "speech-recognition",
    ]  # fmt: skip
    for name in examples.NAMES:
        assert {"README.md", "data.py", "result.png", "stream.yaml", "train.yaml"} <= {
            path.name for path in (EXAMPLES / name).iterdir()
        }
        assert len(list((EXAMPLES / name).glob(f"{name}_*.zpln"))) == 1


def result(figure="accuracy", value=0.9, bar=0.8, script=0.92, size="small"):
    counts = {"rows": 9, "rows_per_second": 1.0, "streamed": 9, "dead": 0, "rows_per_file": 1, "files": 7}
    times = {"p50": 1.0, "p99": 2.0, "seconds": 3.0}
    return examples.Result("fraud", size, {figure: value}, figure, bar, script, **counts, **times)


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (result(value=0.91), []),
        (result(script=None), []),
        (result(value=0.8), ["is worse than the script's 0.9200 by more than 0.02"]),
        (result(value=0.8, size="smallest"), []),
        (result(value=0.7, script=0.7), ["misses its bar, 0.8000"]),
        (result(value=float("nan")), ["misses its bar", "is worse than the script's"]),
        (result("wer", 0.04, 0.05, 0.03), []),
        (result("wer", 0.04, 0.05, 0.01), ["is worse than the script's"]),
        (result("wer", 0.06, 0.05, 0.06), ["misses its bar"]),
    ],
)
def test_a_figure_that_is_too_bad_is_told(one, said):
    told = examples.misses(one)
    assert len(told) == len(said)
    assert all(part in whole and whole.startswith("fraud: ") for part, whole in zip(said, told, strict=True))


@pytest.mark.parametrize(("value", "code"), [(0.9, None), (0.7, "fraud: accuracy 0.7000 misses its bar, 0.8000")])
def test_the_command_line_fails_by_a_missed_bar(value, code, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(examples, "own_session", nullcontext)
    monkeypatch.setattr(examples, "run", lambda *_, **__: result(value=value, script=None))
    ended = None
    try:
        examples.main(["fraud", "--json", str(tmp_path / "out.json")])
    except SystemExit as error:
        ended = error.code
    assert ended == code
    assert "p50 1 ms, p99 2 ms, of 7 files" in capsys.readouterr().out
    assert (tmp_path / "out.json").exists()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.lane(LANES[n])) for n in examples.NAMES])
def test_it_trains_and_scores_a_table_and_a_stream(name, spark, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = examples.run(name, spark, "smallest", script=True)
    sign = -1 if is_lower_better(done.figure) else 1
    assert sign * done.value >= sign * done.bar
    assert sign * done.value >= sign * done.script - WORSE_BY.get(name, WORSE_MOST)
    scored = pq.read_table(tmp_path / ".examples" / name / "scored")
    assert len(scored) == done.rows == done.streamed + done.dead
    assert done.dead == 0
    assert scored["prediction"].null_count == 0
    assert done.p50 > 0
