"""Each application of examples/, at its smallest: a training job, a table, a stream, beside a plain torch script."""

import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from sparkdl.tasks import is_lower_better

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
sys.path.insert(0, str(EXAMPLES))
import run as examples  # noqa: E402

WORSE_BY = 0.1  # of a figure from 0 to 1, at most, than the script's: two ranks take half as many steps, on little data


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


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", examples.NAMES)
def test_it_trains_and_scores_a_table_and_a_stream(name, spark, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = examples.run(name, spark, "smallest", script=True)
    sign = -1 if is_lower_better(done.figure) else 1
    assert sign * done.value >= sign * done.bar
    assert sign * done.value >= sign * done.script - WORSE_BY
    scored = pq.read_table(tmp_path / ".examples" / name / "scored")
    assert len(scored) == done.rows == done.streamed + done.dead
    assert done.dead == 0
    assert scored["prediction"].null_count == 0
    assert done.p50 > 0
