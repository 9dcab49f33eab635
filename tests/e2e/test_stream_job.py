"""jobs/score_stream.py and jobs/replay_dead_letters.py, as a user starts them: exit statuses, alerts, replay after a fix."""

import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from stream_scene import COLUMNS, Scene

ROOT = Path(__file__).parents[2]
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


def run(job, conf, place):
    (place / "conf.yaml").write_text(yaml.safe_dump(conf))
    told = {"PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1", "PATH": PATH}
    submit_args = "--properties-file conf/spark/local.conf pyspark-shell"
    return subprocess.run(
        [sys.executable, f"jobs/{job}.py", "--conf-file", place / "conf.yaml"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
        env={**os.environ, **told, "PYSPARK_SUBMIT_ARGS": submit_args},
    )  # fmt: skip


@pytest.fixture
def scene(tmp_path):
    made = Scene(tmp_path, poison_every=10)
    made.feed(100)
    return made


def conf_of(place):
    return {
        "model": "registry://m@champion",
        "registry": str(place / "registry"),
        "sink": {"kind": "parquet", "uri": str(place / "out")},
        "deadLetter": str(place / "dead"),
    }


def test_dead_letters_raise_an_alert_that_ends_the_job_and_are_replayed(scene):
    place, conf = scene.folder, conf_of(scene.folder)
    stream = {
        **conf,
        "source": {"format": "parquet", "path": str(place / "arriving"), "columns": COLUMNS},
        "checkpoint": str(place / "checkpoint"),
        "trigger": "200 milliseconds",
        "monitor": {
            "jsonl": str(place / "events.jsonl"),
            "alerts": [{"metric": "dead", "above": 0.05, "action": "stop"}],
        },
    }
    ran = run("score_stream", stream, place)
    assert ran.returncode == 4, ran.stdout[-2000:] + ran.stderr[-3000:]
    assert "alert: dead > 0.05" in ran.stderr
    scene.check()
    assert "alert" in (place / "events.jsonl").read_text()

    ran = run("replay_dead_letters", conf, place)
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert "replayed: 10 dead letters, 0 scored, 10 dead again" in ran.stdout
    assert len(pq.read_table(place / "dead")) == 20


def test_a_bad_conf_and_a_missing_source(scene):
    place = scene.folder
    conf = {**conf_of(place), "checkpoint": str(place / "checkpoint")}
    ran = run("score_stream", {**conf, "source": {"format": "parqet"}, "sinc": 1}, place)
    assert ran.returncode == 2
    assert "sinc: there is no such key; did you mean 'sink'" in ran.stderr
    source = {"format": "parquet", "path": str(place / "nowhere"), "columns": COLUMNS}
    ran = run("score_stream", {**conf, "source": source}, place)
    assert ran.returncode == 3
    assert "there is nothing at" in ran.stderr
