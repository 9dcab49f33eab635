"""A process of a fit is killed, with no warning, on a cluster of a master and two workers: the weights are those of a fit
that nothing disturbed, bit for bit, and nothing is left behind."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pyspark
import pytest

pytestmark = pytest.mark.lane("spark35")

JOB = Path(__file__).with_name("faults_job.py")
ROWS, EPOCHS = 400, 4
SMALL = {"SPARK_DAEMON_MEMORY": "256m", "SPARK_DAEMON_JAVA_OPTS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"}


class Cluster:
    """A standalone master and two workers of one core each, on the loopback."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.daemons = folder, []
        self.url = self._start("Master", r"(spark://127\.0\.0\.1:\d+)")
        self.workers: list[subprocess.Popen] = []
        self.complete()

    def complete(self) -> None:
        """Bring back the workers that are gone."""
        self.workers = [worker for worker in self.workers if worker.poll() is None]
        while len(self.workers) < 2:
            options = ["--cores", "1", "--memory", "1g", "--work-dir", str(self.folder / "work"), self.url]
            self._start("Worker", "Successfully registered with master", *options)
            self.workers.append(self.daemons[-1])

    def _start(self, kind: str, ready: str, *options: str) -> str:
        home = os.path.dirname(pyspark.__file__)
        daemon = subprocess.Popen(
            [f"{home}/bin/spark-class", f"org.apache.spark.deploy.{kind.lower()}.{kind}", "--host", "127.0.0.1",
             "--port", "0", "--webui-port", "0", *options],
            text=True, start_new_session=True, cwd=self.folder, env=os.environ | {"SPARK_HOME": home} | SMALL,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.daemons.append(daemon)
        for line in daemon.stderr:
            if found := re.search(ready, line):
                threading.Thread(target=daemon.stderr.read, daemon=True).start()
                return found[0]
        raise AssertionError(f"the {kind} ended before it said {ready!r}")

    def below(self) -> list[psutil.Process]:
        """Executors, their Python daemons and ranks, also those whose parent is gone: all in the daemons' sessions."""
        started = {daemon.pid for daemon in self.daemons}
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                is_alive = process.status() != psutil.STATUS_ZOMBIE
                if is_alive and process.pid not in started and os.getsid(process.pid) in started:
                    found.append(process)
        return found

    def run(self, *scenarios: str) -> list[dict]:
        """What faults_job.py says of each scenario, all in one driver. No process of it is left when it is over."""
        self.complete()
        job = subprocess.Popen(
            [sys.executable, str(JOB), self.url, str(self.folder), *scenarios],
            text=True, start_new_session=True, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        found: list[str] = []
        errors = threading.Thread(target=lambda: found.append(job.stderr.read()), daemon=True)
        errors.start()
        try:
            said = []
            for line in job.stdout:
                if line.startswith("{"):
                    said.append(json.loads(line))
                    assert self._listening() == []
            status = job.wait()
            errors.join()
            if "driver" not in {scenario.split("-")[0] for scenario in scenarios}:
                assert status == 0, found[0][-4000:]
            else:
                assert status == -signal.SIGKILL, found[0][-4000:]
            assert psutil.wait_procs(self.below(), timeout=60)[1] == [], "a process of the run lives on"
            return said
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(job.pid, signal.SIGKILL)

    def _listening(self) -> list[tuple[str, int]]:
        """The executors' Python processes that listen; but for Spark's daemons, whose parent is an executor."""
        found = []
        for process in self.below():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                if "python" in process.name() and "java" not in process.parent().name():
                    listening = [c for c in process.net_connections("tcp") if c.status == "LISTEN"]
                    found += [(" ".join(process.cmdline()), c.laddr.port) for c in listening]
        return found

    def close(self) -> None:
        for daemon in self.daemons:
            daemon.kill()
            daemon.wait()
        for process in self.below():
            process.kill()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def fits(cluster):
    """What came of the fits of one driver, by scenario; of the last one nothing, for the driver is killed in it."""
    return {found["scenario"]: found for found in cluster.run("undisturbed", "worker", "executor", "driver")}


@pytest.fixture(scope="module")
def later(fits, cluster):
    """What came of the fits of the driver after that one."""
    (run,) = (cluster.folder / "checkpoints").iterdir()
    assert {"checkpoints", "data", "owner.json"} <= {path.name for path in run.iterdir()}
    return {found["scenario"]: found for found in cluster.run("resume", "gone")}


def check(found, undisturbed, ranks):
    assert found["rows"] == [ROWS] * EPOCHS, "each row once an epoch"
    assert [attempt["ranks"] for attempt in found["attempts"]] == ranks
    assert found["attempts"][-1]["error"] is None
    assert (found["left"], found["listens"]) == ([], []), "what is left in the store, the driver's ports"
    if ranks == [2] * len(ranks):
        assert (found["weights"], found["losses"]) == (undisturbed["weights"], undisturbed["losses"])


def test_nothing_happens(fits):
    check(fits["undisturbed"], fits["undisturbed"], [2])
    assert fits["undisturbed"]["losses"][-1] < fits["undisturbed"]["losses"][0]


@pytest.mark.parametrize(
    ("scenario", "told"), [("worker", "Python worker process"), ("executor", "executor .* is lost")]
)
def test_a_process_of_the_run_is_killed(fits, scenario, told):
    assert fits[scenario]["fault came"]
    check(fits[scenario], fits["undisturbed"], [2, 2])
    assert re.search(f"rank 1 on 127.0.0.1 died: .*{told}", fits[scenario]["attempts"][0]["error"])


def test_the_driver_is_killed_and_another_one_resumes(fits, later, cluster):
    assert set(fits) == {"undisturbed", "worker", "executor"}
    check(later["resume"], fits["undisturbed"], [2])
    (run,) = (cluster.folder / "checkpoints").iterdir()
    assert sorted(path.name for path in run.iterdir()) == ["checkpoints", "finished"]


def test_a_machine_is_gone_for_good_and_one_rank_goes_on(fits, later):
    found = later["gone"]
    assert found["fault came"]
    check(found, fits["undisturbed"], [2, 1])
    assert found["losses"][:2] == fits["undisturbed"]["losses"][:2]
    assert found["losses"][-1] < found["losses"][0]


@pytest.mark.soak
@pytest.mark.parametrize("driver", range(4))
def test_twenty_kills_at_any_moment(fits, cluster, driver):
    kinds = ("worker", "executor", "worker", "executor", "gone")  # the cluster is complete again for the next driver
    found = cluster.run(*(f"{kind}-{driver * len(kinds) + number}" for number, kind in enumerate(kinds)))
    assert len(found) == len(kinds)
    for kind, fit in zip(kinds, found, strict=True):
        check(fit, fits["undisturbed"], [2, 1] if kind == "gone" else [2, 2])
