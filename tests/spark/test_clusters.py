"""The whole way on other masters: each a process with a JVM of its own, for a JVM holds one SparkContext."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pyspark
import pytest

JOB = Path(__file__).with_name("cluster_job.py")
SECONDS = 240


@contextlib.contextmanager
def process(command, **settings):
    """A process that is gone, with all it started, when the block ends."""
    started = subprocess.Popen(command, text=True, start_new_session=True, **settings)
    try:
        yield started
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)
        started.wait()


def run(master: str, folder: Path) -> tuple[dict, str]:
    """What cluster_job.py found on ``master``, and all it printed."""
    command = [sys.executable, str(JOB), master, str(folder)]
    with process(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as job:
        out, err = job.communicate(timeout=SECONDS)
    assert job.returncode == 0, f"{out}\n{err}"[-6000:]
    return json.loads(out.splitlines()[-1]), out


def check(found: dict, printed: str) -> None:
    assert found["losses"][-1] < found["losses"][0]
    assert found["rows"] == [400] * 4
    assert found["columns"] == ["id", "features", "label", "prediction", "probability"]
    assert found["accuracy"] > 0.9
    assert found["the same once loaded"] is True
    assert found["scoring"] == [4, 396, 396, 396, [400, 400, {"null": 4}, "scan"], 4]
    assert [rank[:2] for rank in found["runner"]] == [[100, 2], [101, 2]]
    assert sorted(rank[2] for rank in found["runner"]) == [0, 1]
    assert "rank 0 speaks" in printed.splitlines()
    assert "rank 1 on" in found["failed rank"]
    assert "ValueError: only rank 1" in found["failed rank"]
    assert "'features'" in found["bad row"]
    assert "expected 3 values, got 2 values" in found["bad row"]


def test_local_cluster(tmp_path):
    """Two executors, each a JVM."""
    found, printed = run("local-cluster[2,1,1024]", tmp_path)
    check(found, printed)
    assert len({rank[3] for rank in found["runner"]}) == 2, "a rank an executor"
    assert "7 ranks need 7 task slots" in found["too many"]
    assert "the cluster has 2" in found["too many"]


@pytest.mark.skipif(
    importlib.util.find_spec("grpc_status") is None,
    reason="Spark Connect's client needs grpcio-status, not in this lane",
)
def test_connect(tmp_path):
    """A client without a SparkContext."""
    found, printed = run("connect:local[2]", tmp_path)
    check(found, printed)
    assert ".connect." in found["session"]
    assert "7 ranks need 7 task slots" in found["too many"]


def line(started: subprocess.Popen, pattern: str) -> re.Match:
    """The first line of its log that matches; the rest is read away."""
    seen = []
    for text in started.stderr:
        seen.append(text)
        found = re.search(pattern, text)
        if found:
            threading.Thread(target=started.stderr.read, daemon=True).start()
            return found
    raise AssertionError(f"it ended before it said {pattern!r}:\n{''.join(seen[-30:])}")


def test_standalone(tmp_path):
    """A master and two workers, each a process, and a driver that is none of them."""
    home = os.path.dirname(pyspark.__file__)
    small = {"SPARK_DAEMON_MEMORY": "256m", "SPARK_DAEMON_JAVA_OPTS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"}
    daemon = {
        "stderr": subprocess.PIPE,
        "stdout": subprocess.DEVNULL,
        "cwd": tmp_path,
        "env": os.environ | {"SPARK_HOME": home} | small,
    }
    start = [os.path.join(home, "bin", "spark-class")]
    host = ["--host", "127.0.0.1", "--port", "0", "--webui-port", "0"]
    with contextlib.ExitStack() as stack:
        master = stack.enter_context(process([*start, "org.apache.spark.deploy.master.Master", *host], **daemon))
        url = line(master, r"(spark://127\.0\.0\.1:\d+)")[1]
        workers = []
        for folder in (tmp_path / "work-0", tmp_path / "work-1"):
            size = ["--cores", "1", "--memory", "1g", "--work-dir", str(folder), url]
            command = [*start, "org.apache.spark.deploy.worker.Worker", *host, *size]
            workers.append(stack.enter_context(process(command, **daemon)))
        for worker in workers:
            line(worker, "Successfully registered with master")
        found, printed = run(url, tmp_path)
    check(found, printed)
    assert len({rank[3] for rank in found["runner"]}) == 2, "a rank a worker"
    assert "storePath" in found["no store"]
    assert found["left in the store"] == []
