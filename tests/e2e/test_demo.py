"""`make demo`'s jobs, end to end, as a user starts them."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def environment():
    told = {"PYSPARK_PYTHON": sys.executable, "PYSPARK_DRIVER_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"}
    return {**os.environ, **told, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}


@pytest.fixture(scope="module")
def demo(environment):
    """The finished demo's output."""
    ran = subprocess.run(
        [sys.executable, "scripts/demo.py"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-3000:]
    return ran.stdout


def test_held_out_accuracy(demo):
    assert float(re.search(r"held out: accuracy ([\d.]+)", demo)[1]) >= 0.95


def test_loss_and_accuracy_of_each_epoch_are_shown(demo):
    assert len(re.findall(r"epoch \d+/12  loss [\d.]+  accuracy [\d.]+  [\d,]+ rows/s", demo)) == 12


def test_trained_by_horovod_on_two_ranks(demo):
    assert "2 ranks, Horovod, cpu" in demo


def test_batch_and_stream_scored_every_held_out_row_alike(demo):
    batch = pq.read_table(ROOT / ".demo/scored").sort_by("id").to_pylist()
    assert len(batch) == 359
    rows = re.findall(r"score_(?:batch|stream)\s+(\d+)\s+[\d.]+\s+([\d.]+)", demo)
    assert rows[0] == rows[1]
    streamed = pq.read_table(ROOT / ".demo/scored_stream").sort_by("id").to_pylist()
    assert [(row["id"], row["prediction"]) for row in streamed] == [(row["id"], row["prediction"]) for row in batch]


def test_closing_lines_run_as_printed(demo, environment):
    lines = [line.strip() for line in demo.splitlines() if line.startswith(("  import numpy", "  bundle"))]
    assert len(lines) == 3
    script = "\n".join([*lines[:2], f"print({lines[2]}.shape)"])
    ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.stdout.strip() == "(1, 10)", ran.stderr


def submit(environment, job, conf):
    command = [
        BIN / "spark-submit",
        "--properties-file",
        "conf/spark/local.conf",
        f"jobs/{job}.py",
        "--conf-file",
        conf,
    ]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_bad_conf_is_exit_status_2(environment, tmp_path):
    conf = tmp_path / "conf.yaml"
    conf.write_text("sourc: here\nbundle: there\noutput: [1]\n")
    ran = submit(environment, "score_batch", conf)
    assert ran.returncode == 2
    assert "did you mean 'source'?" in ran.stdout  # to which spark-submit sends its Python's stderr too
    assert "output: should be a text (got a list, [1])" in ran.stdout


def test_sigterm_ends_a_stream_between_batches_and_the_next_run_takes_up_the_rest(demo, environment, tmp_path):
    (tmp_path / "arriving").mkdir()
    conf = tmp_path / "stream.yaml"
    text = (
        f"source: {{format: parquet, path: {tmp_path}/arriving, columns: 'id bigint, image array<float>, label int'}}\n"
        f"model: {ROOT}/.demo/bundle\nsink: {{kind: parquet, uri: {tmp_path}/out}}\n"
        f"checkpoint: {tmp_path}/checkpoint\n"
    )
    conf.write_text(text + "trigger: 100 milliseconds\n")
    submit_args = "--properties-file conf/spark/local.conf pyspark-shell"
    query = subprocess.Popen(
        [sys.executable, "jobs/score_stream.py", "--conf-file", conf],
        cwd=ROOT,
        env={**environment, "PYSPARK_SUBMIT_ARGS": submit_args},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert any("scoring what arrives" in line for line in query.stderr)
    table = pq.read_table(ROOT / ".demo/digits/test")
    pq.write_table(table, tmp_path / "staged.parquet")
    (tmp_path / "staged.parquet").rename(tmp_path / "arriving/late.parquet")
    query.send_signal(signal.SIGTERM)
    assert query.wait() == 0
    conf.write_text(text + "trigger: available now\n")
    assert submit(environment, "score_stream", conf).returncode == 0
    assert sorted(pq.read_table(tmp_path / "out")["id"].to_pylist()) == sorted(table["id"].to_pylist())
