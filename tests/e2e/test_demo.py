"""`make demo`'s jobs, end to end, as a user starts them."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def environment():
    told = {"PYSPARK_PYTHON": sys.executable, "PYSPARK_DRIVER_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"}
    return {**os.environ, **told, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}


def made_ready(folder: Path) -> Path:
    """A folder to run in: what the jobs write in it is nobody else's."""
    for name in ("conf", "examples", "jobs"):
        (folder / name).symlink_to(ROOT / name)
    return folder


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    return made_ready(tmp_path_factory.mktemp("demo"))


@pytest.fixture(scope="module")
def demo(environment, here):
    """The finished demo's output."""
    ran = subprocess.run(
        [sys.executable, ROOT / "scripts/demo.py"],
        cwd=here,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-3000:]
    return ran.stdout


def test_held_out_accuracy(demo):
    assert float(re.search(r"(?m)^accuracy +([\d.]+)", demo)[1]) >= 0.95


def test_loss_and_accuracy_of_each_epoch_are_shown(demo):
    assert len(re.findall(r"epoch \d+/12  loss [\d.]+  accuracy [\d.]+  [\d,]+ rows/s", demo)) == 12


def test_trained_by_horovod_on_two_ranks(demo):
    assert "2 ranks, Horovod, cpu" in demo


def test_batch_and_stream_scored_every_held_out_row_alike(demo, here):
    batch = pq.read_table(here / ".demo/scored").sort_by("id").to_pylist()
    assert len(batch) == 359
    rows = re.findall(r"score_(?:batch|stream)\s+(\d+)\s+[\d.]+\s+accuracy ([\d.]+)", demo)
    assert rows[0] == rows[1]
    streamed = pq.read_table(here / ".demo/scored_stream").sort_by("id").to_pylist()
    assert [(row["id"], row["prediction"]) for row in streamed] == [(row["id"], row["prediction"]) for row in batch]


def test_closing_lines_run_as_printed(demo, environment, here):
    lines = [line.strip() for line in demo.splitlines() if line.startswith(("  import numpy", "  bundle"))]
    assert len(lines) == 3
    script = "\n".join([*lines[:2], f"print({lines[2]}.shape)"])
    ran = subprocess.run([sys.executable, "-c", script], cwd=here, capture_output=True, text=True, check=False)
    assert ran.stdout.strip() == "(1, 10)", ran.stderr


def submit(environment, here, job, conf):
    command = [
        BIN / "spark-submit",
        "--properties-file",
        "conf/spark/local.conf",
        f"jobs/{job}.py",
        "--conf-file",
        conf,
    ]
    return subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, check=False)


def test_bad_conf_is_exit_status_2(environment, here, tmp_path):
    conf = tmp_path / "conf.yaml"
    conf.write_text("sourc: here\nmodel: there\noutput: [1]\n")
    ran = submit(environment, here, "score_batch", conf)
    assert ran.returncode == 2
    assert "did you mean 'source'?" in ran.stdout  # to which spark-submit sends its Python's stderr too
    assert "output: should be a text (got a list, [1])" in ran.stdout


def test_the_registrys_champion_scored_and_did_not_drift(demo, here):
    assert {row["model_version"] for row in pq.read_table(here / ".demo/scored_stream").to_pylist()} == {"1"}
    told = json.loads((here / ".demo/drift.json").read_text())
    assert (told["rows"], told["above"]) == (359, [])
    assert told["digest"] == json.loads((here / ".demo/evaluation.json").read_text())["digest"]


@pytest.mark.lane("spark35")
def test_the_pages_first_example_runs_as_printed(environment, tmp_path):
    lines = re.search(r"```sh\n(.*?)```", (ROOT / "docs/jobs.md").read_text(), re.DOTALL)[1]
    ran = subprocess.run(
        ["bash", "-e", "-c", lines],
        cwd=made_ready(tmp_path),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-3000:]
    assert re.search(r"(?m)^accuracy +0\.9", ran.stdout)


@pytest.fixture
def stream(demo, environment, here, tmp_path):
    """A conf of a stream out of ``arriving``, and a function that starts it by spark-submit and waits until it scores."""
    (tmp_path / "arriving").mkdir()
    (tmp_path / "stream.yaml").write_text(
        f"source: {{format: parquet, path: {tmp_path}/arriving, columns: 'id bigint, image array<float>, label int'}}\n"
        f"model: {here}/.demo/bundle\nsink: {{kind: parquet, uri: {tmp_path}/out}}\n"
        f"checkpoint: {tmp_path}/checkpoint\ntrigger: 100 milliseconds\n"
    )
    started = []

    def start():
        command = [BIN / "spark-submit", "--properties-file", "conf/spark/local.conf", "jobs/score_stream.py"]
        command += ["--conf-file", tmp_path / "stream.yaml", "--log-format", "json"]
        query = subprocess.Popen(command, cwd=here, env=environment, stdout=subprocess.PIPE, text=True)
        started.append(query)
        assert any('"event": "scoring"' in line for line in query.stdout)
        return query

    yield start
    for query in started:
        query.kill()
        query.wait()


def python_of(query):
    """The child of spark-submit's JVM, which has others for moments, at first under its own name and command line."""
    for child in psutil.Process(query.pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if child.name().startswith("python"):
                return child
    raise AssertionError("spark-submit runs no Python")


def arrive(tmp_path, name, rows):
    pq.write_table(rows, tmp_path / "staged.parquet")
    (tmp_path / "staged.parquet").rename(tmp_path / f"arriving/{name}.parquet")


@pytest.mark.parametrize(
    ("to", "number"), [("jvm", signal.SIGTERM), pytest.param("python", signal.SIGINT, marks=pytest.mark.lane("latest"))]
)
def test_a_signal_ends_a_stream_between_batches_and_the_next_run_takes_up_the_rest(
    stream, environment, here, tmp_path, to, number
):
    table = pq.read_table(here / ".demo/digits/test")
    query = stream()
    python = python_of(query)
    arrive(tmp_path, "first", table.slice(0, 100))
    while not list((tmp_path / "out").glob("batch=*")):
        assert query.poll() is None
        time.sleep(0.05)
    arrive(tmp_path, "second", table.slice(100))
    (query if to == "jvm" else python).send_signal(number)
    lines = [json.loads(line) for line in query.stdout if line.startswith("{")]
    assert query.wait() == 0
    assert lines[-1]["event"] == "result"
    if to == "python":
        return
    told = subprocess.run(
        [BIN / "spark-submit", "--properties-file", "conf/spark/local.conf", "jobs/score_stream.py", "--conf-file",
         tmp_path / "stream.yaml", "--set", "trigger=available now"], cwd=here, env=environment, check=False,
    )  # fmt: skip
    assert told.returncode == 0
    assert sorted(pq.read_table(tmp_path / "out")["id"].to_pylist()) == sorted(table["id"].to_pylist())


@pytest.mark.lane("spark35")
def test_a_second_sigterm_ends_it_at_once_and_nothing_is_lost(stream, environment, here, tmp_path):
    query = stream()
    python = python_of(query)
    arrive(tmp_path, "first", pq.read_table(here / ".demo/digits/test"))
    while not list((tmp_path / "checkpoint").glob("offsets/0")):  # the first batch begins, and takes seconds
        time.sleep(0.01)
    query.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        query.wait(1.5)
    with contextlib.suppress(psutil.NoSuchProcess):
        python.send_signal(signal.SIGTERM)
    assert query.wait(20) in (0, 128 + signal.SIGTERM)  # 0: the batch was faster
    told = subprocess.run(
        [BIN / "spark-submit", "--properties-file", "conf/spark/local.conf", "jobs/score_stream.py", "--conf-file",
         tmp_path / "stream.yaml", "--set", "trigger=available now"], cwd=here, env=environment, check=False,
    )  # fmt: skip
    assert told.returncode == 0
    assert len(set(pq.read_table(tmp_path / "out")["id"].to_pylist())) == len(pq.read_table(tmp_path / "out")) == 359


def test_sigterm_to_the_jvm_ends_training_with_75_and_the_next_run_goes_on(demo, environment, here, tmp_path):
    command = [BIN / "spark-submit", "--properties-file", "conf/spark/local.conf", "--py-files", "examples/digits.py",
               "jobs/train.py", "--conf-file", "conf/demo/train.yaml", "--set", f"bundle={tmp_path}/bundle", "--set",
               f"estimator.checkpointDir={tmp_path}/checkpoints", "--set", "resume=true", "--log-format", "json"]  # fmt: skip
    epochs = ["--set", "estimator.epochs=1000"]
    job = subprocess.Popen([*command, *epochs], cwd=here, env=environment, stdout=subprocess.PIPE, text=True)
    assert any('"event": "epoch"' in line and '"epoch": 5' in line for line in job.stdout)
    job.send_signal(signal.SIGTERM)
    said = job.stdout.read()
    assert job.wait() == 75, said
    assert "told to end" in said or "ended by a signal" in said
    ran = subprocess.run(
        [*command, "--set", "estimator.epochs=8", "--dry-run"],
        cwd=here,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert "checkpoints/run-" in ran.stdout, ran.stdout + ran.stderr
