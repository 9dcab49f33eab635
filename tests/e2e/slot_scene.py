"""A backfill that is killed: its input, the schedulers that score it, who kills what, and whether the output is right.

Right is: every slot that is there is whole and holds its rows once, with the model's own predictions; its files have the
sums that its manifest tells; and the ledger says of it what the manifest says. test_slot_kills.py and
benchmarks/slot_kills.py share it.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import queue
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from torch import nn

import sparkdl
from sparkdl import Signature, TensorSpec, store
from sparkdl.columns import to_arrow
from sparkdl.slots import late, manifest
from sparkdl.slots.ledger import DONE, Ledger, url_of

ROOT = Path(__file__).parents[2]
FIRST = datetime.date(2026, 11, 1)
KILLS = ("all", "python", "jvm")
PATIENCE_S = 120.0
PROPERTIES = {
    "spark.master": "local[1]",
    "spark.ui.enabled": "false",
    "spark.driver.memory": "512m",
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -XX:-UsePerfData",
    "spark.sql.shuffle.partitions": "1",
}


class Scene:
    """A folder with a model, ``slots`` days of input in ``files`` files of ``rows`` rows each, and the output."""

    def __init__(self, folder: Path, slots: int = 20, files: int = 3, rows: int = 200, **conf: Any) -> None:
        self.folder, self.output = Path(folder), Path(folder) / "scored"
        self.days = [FIRST + datetime.timedelta(days=i) for i in range(slots)]
        self.rows = files * rows
        torch.manual_seed(0)
        signature = Signature((TensorSpec("x", "float32", (4,), ("x",), ("array<float>",)),))
        self.bundle = sparkdl.Bundle.from_module(nn.Linear(4, 1), signature, task="regression")
        self.bundle.save(str(self.folder / "bundle"))
        for number, day in enumerate(self.days):
            for i in range(files):
                self.add(day, f"{i}.parquet", number * self.rows + i * rows, rows)
        told = {
            "source": f"{self.folder}/events/day={{date}}",
            "model": f"{self.folder}/bundle",
            "output": str(self.output),
        }
        (self.folder / "conf.yaml").write_text(yaml.safe_dump({**told, "slot": "day", "lease": 3, **conf}))
        (self.folder / "spark.conf").write_text("".join(f"{name} {value}\n" for name, value in PROPERTIES.items()))

    def add(self, day: datetime.date, name: str, first: int, rows: int) -> None:
        """A file of input; nothing random."""
        folder = self.folder / f"events/day={day}"
        folder.mkdir(parents=True, exist_ok=True)
        ids = np.arange(first, first + rows)
        x = np.sin((ids[:, None] + 1) * np.array([0.7, 1.3, 2.9, 4.1])).astype(np.float32)
        pq.write_table(pa.table({"id": ids, "x": to_arrow(x)}), folder / name)

    @property
    def range(self) -> str:
        return f"{self.days[0]}..{self.days[-1]}"

    def start(self, *arguments: str, **environment: str) -> Scheduler:
        """A scheduler, as cron would start it."""
        return Scheduler(self.folder, ["--conf-file", str(self.folder / "conf.yaml"), *arguments], environment)

    @property
    def ledger(self) -> Ledger:
        told = yaml.safe_load((self.folder / "conf.yaml").read_text())
        return Ledger(url_of(told.get("ledger"), str(self.output)), str(self.output))

    def check(self, *, complete: bool = True) -> int:
        """How many slots are there. Raises AssertionError if one of them is wrong, or with ``complete`` if one is not there."""
        entries, there = self.ledger.entries(), 0
        for number, day in enumerate(self.days):
            sink = self.output / f"date={day}"
            found = manifest.of(str(sink))
            if found is None:
                assert not sink.exists(), f"{day}: a table without a manifest"
                assert not complete, f"{day}: not scored"
                continue
            there += 1
            self._check_table(sink, found, number)
            entry = entries.get(str(day))
            if entry is None or entry.state != DONE:
                assert not complete, f"{day}: the ledger says {entry and entry.state}"
                continue
            told = (entry.run, entry.digest, entry.rows, entry.written, entry.invalid, entry.input, entry.files)
            scored = found["told"]
            assert told == (
                found["run"], found["model"]["digest"], scored["rows"], scored["written"], scored["invalid"], found["input"], found["sha256"],
            ), f"{day}: the ledger and the manifest differ"  # fmt: skip
        if complete:
            left = [path.name for path in self.output.iterdir() if path.name.startswith(".")]
            assert not left, f"left over: {left}"
        return there

    def _check_table(self, sink: Path, found: dict[str, Any], number: int) -> None:
        files = sorted(str(path.relative_to(sink)) for path in sink.rglob("*.parquet"))
        assert files == sorted(found["sha256"]), f"{sink.name}: other files than the manifest tells"
        assert all(store.sha256(str(sink / name)) == digest for name, digest in found["sha256"].items())
        table = pq.read_table(str(sink), partitioning=None).sort_by("id")
        first = number * self.rows
        assert table["id"].to_pylist() == list(range(first, first + self.rows)), (
            f"{sink.name}: rows lost, or there twice"
        )
        x = np.array(table["x"].to_pylist(), np.float32)
        expected = self.bundle.predict({"x": x})["prediction"]
        np.testing.assert_allclose(table["prediction"].to_numpy(), np.ravel(expected), rtol=1e-5, atol=1e-6)
        assert found["input"] == late.identity(str(self.folder / f"events/day={self.days[number]}"))


class Scheduler:
    """A process of the job, in a process group of its own. lines: what it logs; None at its end."""

    def __init__(self, folder: Path, arguments: list[str], environment: dict[str, str]) -> None:
        told = {
            "PYSPARK_PYTHON": sys.executable,
            "PYSPARK_DRIVER_PYTHON": sys.executable,
            "SPARK_LOCAL_IP": "127.0.0.1",
            "OMP_NUM_THREADS": "1",
            "PYSPARK_SUBMIT_ARGS": f"--properties-file {folder / 'spark.conf'} pyspark-shell",
            **environment,
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "sparkdl", "score_batch", "--log-format", "json", *arguments],
            cwd=ROOT,
            env={**os.environ, **told},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.said: list[str] = []
        self.events: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line)
            with contextlib.suppress(ValueError):
                told = json.loads(line)
                if isinstance(told, dict):
                    self.events.put(told)
        self.events.put(None)

    def until(self, *events: str) -> dict[str, Any] | None:
        """The next of these events; None if it ended before."""
        until = time.monotonic() + PATIENCE_S
        while (told := self.events.get(timeout=max(until - time.monotonic(), 0.01))) is not None:
            if told.get("event") in events:
                return told
        return None

    def wait(self) -> int:
        """Its exit status."""
        status = self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        return status

    def jvm(self) -> psutil.Process | None:
        try:
            below = psutil.Process(self.process.pid).children(recursive=True)
            return next((each for each in below if each.name() == "java"), None)
        except psutil.NoSuchProcess:
            return None

    def kill(self, what: str) -> None:
        """-9 to the driver's whole group, its Python or its JVM; what is left of it ends by itself, or is ended."""
        jvm = self.jvm()
        if what == "all":
            self._kill_group()
        elif what == "python":
            self.process.kill()
        elif jvm is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                jvm.kill()

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def close(self) -> None:
        self._kill_group()
        self.process.wait()


def killed_backfill(scene: Scene, drawn: random.Random, kills: int, killed: list[str], *, most_s: float = 8.0) -> None:
    """Two schedulers backfill the scene; within ``most_s`` after it began its first slot, or a fourth of that after its second
    or third, each is killed and started again, until that were so many ``kills``, or the backfill is done; then both
    run to their end. killed: gets what was killed."""
    with ThreadPoolExecutor(2) as threads:
        seeds = [drawn.random() for _ in range(2)]
        for ended in [threads.submit(_restarted, scene, random.Random(seed), kills, killed, most_s) for seed in seeds]:
            ended.result()


def _restarted(scene: Scene, drawn: random.Random, kills: int, killed: list[str], most_s: float) -> None:
    status = None
    while status != 0:
        job = scene.start("--backfill", scene.range, "--set", "wait=60")
        try:
            after = drawn.choices((1, 2, 3), (5, 3, 2))[0]
            if len(killed) < kills and all(job.until("started") for _ in range(after)):
                try:  # the random moment: nothing is waited for but the end, which may come first
                    job.process.wait(drawn.uniform(0, most_s if after == 1 else most_s / 4))
                except subprocess.TimeoutExpired:
                    what = drawn.choice(KILLS)
                    killed.append(what)
                    job.kill(what)
            status = job.wait()
            assert status in (0, 1, 75) or status < 0, f"a scheduler ended with {status}:\n{''.join(job.said[-20:])}"
            scene.check(complete=False)
        finally:
            job.close()
