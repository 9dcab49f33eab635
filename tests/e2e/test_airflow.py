"""deploy/airflow in a real Airflow, in an environment of its own: .venv/airflow, made of locks/airflow.txt when first needed.

On the newest lane alone: Airflow does not care which Spark it starts.
"""

import fcntl
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pyspark
import pytest
import torch
import yaml
from standalone_jobs import digits

import sparkdl

ROOT = Path(__file__).resolve().parents[2]
VENV, LOCK, UV = ROOT / ".venv/airflow", ROOT / "locks/airflow.txt", ROOT / ".venv/tools/bin/uv"
DAG, DAY = "sparkdl_nightly", "2026-11-20"

pytestmark = [
    pytest.mark.skipif(pyspark.__version__ < "4", reason="Airflow is tried on the newest lane"),
    pytest.mark.timeout(900),  # the first to run installs it
]


@pytest.fixture(scope="module")
def airflow(tmp_path_factory):
    """A function that runs Python, or `airflow` with arguments, in an Airflow whose DAGs are those of deploy/airflow."""
    set_up()
    home = tmp_path_factory.mktemp("airflow")
    here = home / "sparkdl"
    (here / "conf/schedule").mkdir(parents=True)
    (here / "jobs").symlink_to(ROOT / "jobs")
    env = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "PYTHONPATH"))} | {
        "AIRFLOW_HOME": str(home), "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "deploy/airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "false", "AIRFLOW__CORE__UNIT_TEST_MODE": "false",
        "AIRFLOW_CONN_SPARK_DEFAULT": json.dumps({"conn_type": "spark", "host": "local[2]"}),
        "SPARKDL_HOME": str(here), "SPARKDL_PROPERTIES": str(ROOT / "conf/spark/local.conf"), "SPARK_LOCAL_IP": "127.0.0.1",
        "PYSPARK_PYTHON": sys.executable, "PYSPARK_DRIVER_PYTHON": sys.executable,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }  # fmt: skip

    def run(*arguments):
        command = [str(VENV / "bin" / arguments[0]), *map(str, arguments[1:])]
        return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=280)

    migrated = run("airflow", "db", "migrate")
    assert migrated.returncode == 0, migrated.stderr[-3000:]
    run.home, run.here = home, here
    return run


def set_up() -> None:
    """.venv/airflow, if it is not there or its lock has changed."""
    stamp, key = VENV / "sha256-of-the-lock", hashlib.sha256(LOCK.read_bytes()).hexdigest()
    with (ROOT / ".venv/.airflow.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if stamp.exists() and stamp.read_text() == key:
            return
        for command in (
            ["venv", "--quiet", "--no-project", "--clear", "--python", sys.executable, VENV],
            ["pip", "sync", "--quiet", "--python", VENV / "bin/python", "--compile-bytecode", "--require-hashes", LOCK],
        ):
            subprocess.run([UV, *command], check=True, cwd=ROOT)
        stamp.write_text(key)


def test_a_night_is_scored_once(airflow, tmp_path):
    """`airflow dags test DAG DATE`: the slot of that date, by a real spark-submit; once more changes nothing."""
    rows = digits.table().slice(0, 100)
    (tmp_path / f"digits/day={DAY}").mkdir(parents=True)
    pq.write_table(rows, tmp_path / f"digits/day={DAY}/part-0.parquet")
    spec = sparkdl.TensorSpec("image", "float32", (1, 8, 8), ("image",), ("array<float>",))
    torch.manual_seed(0)
    bundle = sparkdl.Bundle.from_module(digits.Net().eval(), sparkdl.Signature((spec,)), task="multiclass")
    bundle.save(str(tmp_path / "bundle"))
    (airflow.here / "conf/schedule/nightly.yaml").write_text(yaml.safe_dump({
        "source": f"{tmp_path}/digits/day={{date}}", "model": str(tmp_path / "bundle"), "slot": "day",
        "output": str(tmp_path / "scored"), "columns": ["id"],
    }))  # fmt: skip

    def written() -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in (tmp_path / "scored").rglob("*.parquet")}

    before = {}
    for night in range(2):
        ran = airflow("airflow", "dags", "test", DAG, DAY)
        assert ran.returncode == 0, (ran.stdout + ran.stderr)[-6000:]
        assert night == 0 or written() == before, "the second run found the day scored, and left it"
        before = written()
    scored = ds.dataset([*before], partitioning="hive").to_table().to_pandas()
    assert sorted(scored.id) == list(range(100))
    assert all(f"/date={DAY}/" in path for path in before)


RETRIED = """
import os, sys
from datetime import datetime, timedelta, timezone
from airflow.dag_processing.dagbag import DagBag

bag = DagBag(sys.argv[1])
assert not bag.import_errors, bag.import_errors
dag = bag.dags["sparkdl_nightly"]
dag.get_task("score").retry_delay = timedelta(seconds=1)
path = os.environ["PATH"]
for hour, folder in enumerate(sys.argv[2:]):
    os.environ["PATH"] = folder + os.pathsep + path
    done = dag.test(logical_date=datetime(2026, 11, 20, hour, tzinfo=timezone.utc))
    print("ENDED", os.path.basename(folder), done.state.value, flush=True)
"""


def test_only_75_is_tried_again(airflow, tmp_path):
    """What a job ends with decides; in the place of spark-submit are scripts that end with these statuses, one after the
    other, and write down what they were told."""
    for name in ("75-75-0", "1-0", "2-0", "3-0"):
        submit, told = tmp_path / name / "spark-submit", tmp_path / name / "told"
        submit.parent.mkdir()
        ends = f"set -- {name.replace('-', ' ')}; shift $(($(wc -l <{told}) - 1)); exit $1"
        submit.write_text(f'#!/bin/sh\necho "$@" >>{told}\n{ends}\n')
        submit.chmod(0o755)
    (tmp_path / "retried.py").write_text(RETRIED)
    folders = sorted(path.parent for path in tmp_path.glob("*/spark-submit"))
    ran = airflow("python", tmp_path / "retried.py", ROOT / "deploy/airflow", *folders)
    assert ran.returncode == 0, (ran.stdout + ran.stderr)[-6000:]
    ended = dict(line.split()[1:] for line in ran.stdout.splitlines() if line.startswith("ENDED"))
    calls = {path.name: (path / "told").read_text().splitlines() for path in folders}
    assert ended == {"75-75-0": "success", "1-0": "failed", "2-0": "failed", "3-0": "failed"}
    assert {name: len(lines) for name, lines in calls.items()} == {"75-75-0": 3, "1-0": 1, "2-0": 1, "3-0": 1}
    assert f"--conf-file {airflow.here}/conf/schedule/nightly.yaml --date {DAY}" in calls["75-75-0"][0]
