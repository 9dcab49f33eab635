"""A standalone Spark cluster on the loopback: a master and workers, each a process of its own, and jobs submitted to it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyspark

ROOT = Path(__file__).resolve().parents[1]
HOME = Path(pyspark.__file__).parent
SECONDS = 240
SMALL = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"


def bare() -> dict[str, str]:
    """An environment with the system's programs and Java, and nothing of the lane's."""
    java = shutil.which("java", path=f"{os.environ.get('JAVA_HOME', '')}/bin:{os.environ['PATH']}")
    path = os.pathsep.join([os.path.dirname(java), "/usr/local/bin", "/usr/bin", "/bin"])
    return {"PATH": path, "HOME": "/nonexistent", "LANG": "C.UTF-8", "SPARK_LOCAL_IP": "127.0.0.1"}


@contextlib.contextmanager
def process(command, **settings):
    """A process that is gone, with all it started, when the block ends."""
    started = subprocess.Popen(command, text=True, start_new_session=True, stdin=subprocess.DEVNULL, **settings)
    try:
        yield started
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)
        started.wait()


@dataclass
class Cluster:
    """url: of its master. conf: what every job is submitted with. said: what its daemons have written so far. patience: seconds
    that a job may take."""

    url: str
    folder: Path
    conf: Mapping[str, str]
    said: list[str] = field(default_factory=list)
    patience: float = SECONDS

    @property
    def logs(self) -> str:
        """All that daemons and executors wrote."""
        executors = [path.read_text(errors="replace") for path in sorted(self.folder.glob("work-*/*/*/std*"))]
        return "".join([*self.said, *executors])

    def submit(self, script: str | Path, *arguments: str, **how) -> subprocess.CompletedProcess[str]:
        """spark-submit to the cluster, from the lane's Python; waits for its end. A Python's stderr is in its stdout."""
        with self.submitted(script, *arguments, **how) as job:
            out, err = job.communicate(timeout=self.patience)
        for left in self.folder.glob("work-*/app-*/*/*"):
            if left.is_dir():  # an environment, say; the logs stay
                shutil.rmtree(left, ignore_errors=True)
        return subprocess.CompletedProcess(job.args, job.returncode, out, err)

    def submitted(self, script: str | Path, *arguments: str, conf: Mapping[str, str] | None = None, options=()):
        """The same, a process that is ended with the block."""
        settings = {
            "spark.ui.enabled": "false", "spark.ui.showConsoleProgress": "false", "spark.driver.host": "127.0.0.1",
            "spark.driver.memory": "1g", "spark.executor.memory": "1g", "spark.executor.cores": "1",
            "spark.sql.shuffle.partitions": "2", "spark.driver.extraJavaOptions": SMALL,
            "spark.executor.extraJavaOptions": SMALL, "spark.pyspark.driver.python": sys.executable,
            "spark.sparkdl.storePath": str(self.folder / "store"), **self.conf, **(conf or {}),
        }  # fmt: skip
        properties = self.folder / f"submit-{len(list(self.folder.glob('submit-*')))}.conf"
        write_private(properties, settings)
        command = [str(HOME / "bin/spark-submit"), "--master", self.url, "--properties-file", str(properties)]
        return process(
            [*command, *options, str(script), *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, "SPARK_LOCAL_IP": "127.0.0.1", "PYTHONWARNINGS": "ignore"},
        )  # fmt: skip


def write_private(path: Path, settings: Mapping[str, str]) -> None:
    """A properties file that its owner alone can read."""
    path.touch(mode=0o600)
    path.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))


@contextlib.contextmanager
def cluster(
    folder: Path, *, workers: int = 2, cores: int = 1, conf: Mapping[str, str] | None = None
) -> Iterator[Cluster]:
    """A running one, whose daemons have a bare environment. conf: of master, workers and jobs."""
    conf = dict(conf or {})
    folder.mkdir(parents=True, exist_ok=True)
    daemons = folder / "daemons.conf"
    write_private(daemons, conf)
    env = {**bare(), "SPARK_HOME": str(HOME), "SPARK_DAEMON_MEMORY": "256m", "SPARK_DAEMON_JAVA_OPTS": SMALL}
    settings = {"stderr": subprocess.PIPE, "stdout": subprocess.DEVNULL, "cwd": folder, "env": env}
    made = Cluster("", folder, conf)
    start = [str(HOME / "bin/spark-class")]
    host = ["--host", "127.0.0.1", "--port", "0", "--webui-port", "0", "--properties-file", str(daemons)]
    with contextlib.ExitStack() as stack:
        master = stack.enter_context(process([*start, "org.apache.spark.deploy.master.Master", *host], **settings))
        made.url = line(master, r"(spark://127\.0\.0\.1:\d+)", made.said)[1]
        started = []
        for number in range(workers):
            size = ["--cores", str(cores), "--memory", "2g", "--work-dir", str(folder / f"work-{number}"), made.url]
            command = [*start, "org.apache.spark.deploy.worker.Worker", *host, *size]
            started.append(stack.enter_context(process(command, **settings)))
        for worker in started:
            line(worker, "Successfully registered with master", made.said)
        yield made


def line(started: subprocess.Popen, pattern: str, said: list[str]) -> re.Match:
    """The first line of its log that matches; this and what follows is added to `said`."""
    seen = []
    for text in started.stderr:
        seen.append(text)
        said.append(text)
        found = re.search(pattern, text)
        if found:
            threading.Thread(target=lambda: said.extend(started.stderr), daemon=True).start()
            return found
    raise AssertionError(f"it ended before it said {pattern!r}:\n{''.join(seen[-30:])}")
