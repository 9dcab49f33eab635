"""A stream that is killed: what arrives, the driver that scores it, who kills what, and whether the output is right.

Right is: every row that arrived is either scored or a dead letter, once; all rows of a batch by one version of the model; each
prediction is that version's own. test_stream_faults.py and benchmarks/stream_kills.py share it.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

import sparkdl
from sparkdl import Signature, TensorSpec
from sparkdl.errors import StreamError

JOB = Path(__file__).with_name("stream_job.py")
COLUMNS = "id bigint, features array<float>, code bigint"
SCHEMA = pa.schema([("id", pa.int64()), ("features", pa.list_(pa.float32())), ("code", pa.int64())])
CODES, PATIENCE_S = 10, 120.0
POISONS = ("null", "shape", "non-finite", "failed")  # kinds of dead letters, in turn


class Net(nn.Module):
    """A number of four features and a code below CODES: another code raises, as an embedding does."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.of_code, self.of_features = nn.Embedding(CODES, 8), nn.Linear(4, 8)
        self.last = nn.Linear(8, 1)

    def forward(self, features: Tensor, code: Tensor) -> Tensor:
        """(B, 4), (B,) -> (B, 1)"""
        return self.last(torch.tanh(self.of_code(code) + self.of_features(features)))


def bundle(seed: int) -> sparkdl.Bundle:
    inputs = (
        TensorSpec("features", "float32", (4,), ("features",), ("array<float>",)),
        TensorSpec("code", "int64", (), ("code",), ("long",)),
    )
    return sparkdl.Bundle.from_module(Net(seed), Signature(inputs), task="regression")


def rows(first: int, count: int, poison_every: int) -> list[dict[str, Any]]:
    """Nothing random. Every ``poison_every``-th row cannot be scored, for a reason of POISONS in turn."""
    found = []
    for i in range(first, first + count):
        row = {"id": i, "features": [float(np.sin((i + 1) * k)) for k in (0.7, 1.3, 2.9, 4.1)], "code": i % CODES}
        if poison_every and i % poison_every == poison_every // 2:
            poisoned(row, POISONS[i // poison_every % len(POISONS)])
        found.append(row)
    return found


def poisoned(row: dict[str, Any], kind: str) -> None:
    if kind == "null":
        row["features"] = None
    elif kind == "shape":
        row["features"] = row["features"][:3]
    elif kind == "non-finite":
        row["features"][2] = float("nan")
    else:
        row["code"] = CODES + 7


class Scene:
    """A folder with a registry of two versions, a place where files arrive, and what the stream makes of them."""

    def __init__(self, folder: Path, poison_every: int = 100) -> None:
        self.folder, self.poison_every = Path(folder), poison_every
        self.fed: dict[int, dict[str, Any]] = {}
        self.files = 0
        self.registry = sparkdl.Registry(str(self.folder / "registry"))
        self.bundles = {str(self.registry.publish("m", made)): made for made in (bundle(1), bundle(2))}
        self.registry.set_alias("m", "champion", 1)
        (self.folder / "arriving").mkdir()
        (self.folder / "staging").mkdir()

    def feed(self, count: int = 100) -> list[dict[str, Any]]:
        """A file arrives."""
        made = self.new_rows(count)
        staged = self.folder / "staging" / f"{self.files:06d}.parquet"
        pq.write_table(pa.Table.from_pylist(made, SCHEMA), staged)
        staged.rename(self.folder / "arriving" / staged.name)
        self.files += 1
        return made

    def new_rows(self, count: int) -> list[dict[str, Any]]:
        """The next ones; whoever calls it lets them arrive."""
        made = rows(len(self.fed), count, self.poison_every)
        self.fed |= {row["id"]: row for row in made}
        return made

    def move_alias(self, random: random.Random) -> None:
        self.registry.set_alias("m", "champion", random.choice((1, 2)))

    def start(self, **told: Any) -> Job:
        """A driver, which has said that it runs."""
        return Job(self.folder, {"master": "local[2]", "trigger": "100 milliseconds", **told})

    def drain(self, **told: Any) -> None:
        """A driver that scores what is there, and ends well."""
        Job(self.folder, {"master": "local[2]", **told, "trigger": "available now"}).ended()

    def stream(self, spark: Any, events: Any = None, **told: Any) -> Any:
        """The query in this process; raises as ``score_stream``."""
        if events is None:
            reader = spark.readStream.schema(COLUMNS).option("maxFilesPerTrigger", 2)
            events = reader.parquet(str(self.folder / "arriving"))
        paths = {"checkpoint": str(self.folder / "checkpoint"), "deadLetter": str(self.folder / "dead")}
        sink = sparkdl.sinks.Parquet(str(self.folder / "out"))
        query = {"model": "registry://m@champion", "registry": self.registry, "sink": sink, "trigger": "available now"}
        return sparkdl.score_stream(events, **{**paths, **query, **told})

    def caught_up(self, job: Job) -> None:
        """Wait until all that has arrived is committed."""
        while sum(len(table) for name in ("out", "dead") for table in self.tables(name).values()) < len(self.fed):
            job.hear("batch")

    def tables(self, name: str) -> dict[str, pa.Table]:
        """Of ``out`` or ``dead``: by batch folder."""
        place = self.folder / name
        found = sorted(place.iterdir()) if place.exists() else []
        return {
            path.name: pa.concat_tables([pq.ParquetFile(file).read() for file in sorted(path.rglob("*.parquet"))])
            for path in found
            if path.name.startswith("batch=") and any(path.rglob("*.parquet"))
        }

    def check(self, *, complete: bool = True) -> Counter[str]:
        """Raise AssertionError unless all is right; rows by version and by kind of dead letter. complete: all that
        arrived must be there."""
        out, dead = self.tables("out"), self.tables("dead")
        counts: Counter[str] = Counter()
        ids: list[int] = []
        for name, table in out.items():
            versions = set(table["model_version"].to_pylist())
            letters = set(dead[name]["model_version"].to_pylist()) - {None} if name in dead else set()
            assert len(versions | letters) == 1, f"{name} was scored by {versions | letters}"
            (version,) = versions
            counts[f"version {version}"] += len(table)
            ids += table["id"].to_pylist()
            self._check_predictions(name, table, version)
        for name, table in dead.items():
            for letter in table.to_pylist():
                row = letter["row"] if "id" in letter["row"] else json.loads(letter["row"]["value"])
                ids.append(row["id"])
                counts[f"dead, {letter['kind']}"] += 1
                assert self._poison(row["id"]) == letter["kind"], (name, letter)
        twice = [id for id, number in Counter(ids).items() if number > 1]
        assert not twice, f"{len(twice)} rows more than once, such as {twice[:5]}"
        strange = set(ids) - set(self.fed)
        assert not strange, f"rows that never arrived: {sorted(strange)[:5]}"
        lost = set(self.fed) - set(ids)
        assert not (complete and lost), f"{len(lost)} of {len(self.fed)} rows lost, such as {sorted(lost)[:5]}"
        return counts

    def _check_predictions(self, name: str, table: pa.Table, version: str) -> None:
        inputs = {
            "features": np.array(table["features"].to_pylist(), np.float32),
            "code": np.array(table["code"].to_pylist(), np.int64),
        }
        expected = self.bundles[version].predict(inputs)["prediction"]
        np.testing.assert_allclose(table["prediction"].to_numpy(), expected, rtol=1e-4, atol=1e-5, err_msg=name)

    def _poison(self, id: int) -> str | None:
        every = self.poison_every
        return POISONS[id // every % len(POISONS)] if every and id % every == every // 2 else None


class Job:
    """A driver process with its JVM and workers, a process group of its own. Made, it has said that it runs.

    started: what it said then.
    """

    def __init__(self, folder: Path, told: dict[str, Any], script: Path = JOB) -> None:
        self.log = folder / "log.txt"
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(script), str(folder), json.dumps(told)],
                text=True, start_new_session=True, stdout=subprocess.PIPE, stderr=log, cwd=folder,
            )  # fmt: skip
        self.said: queue.Queue[dict[str, Any]] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()
        if not told.get("kill"):
            self.started = self.hear("started")

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                self.said.put(json.loads(line))
        self.said.put({"event": "silent"})

    def hear(self, event: str) -> dict[str, Any]:
        """What it says of an event, waited for. Raises AssertionError if it ends before."""
        until = time.monotonic() + PATIENCE_S
        while True:
            with contextlib.suppress(queue.Empty):
                said = self.said.get(timeout=max(0.0, until - time.monotonic()))
                if said["event"] == event:
                    return said
                if said["event"] != "silent":
                    continue
            self.kill()
            raise AssertionError(f"the driver never said {event!r}:\n{self.log.read_text()[-4000:]}")

    def processes(self, name: str) -> list[psutil.Process]:
        """Those of this driver whose command line has this in it, and no child that has it too."""
        found = []
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in psutil.Process(self.process.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                    if name in " ".join(process.cmdline()):
                        found.append(process)
        return found

    def kill(self, what: str = "group") -> None:
        """kill -9, and wait: the whole ``group``, ``python`` alone, or its ``jvm`` alone (after which Python ends too)."""
        if what == "jvm":
            for process in self.processes("org.apache.spark.deploy.SparkSubmit"):
                process.kill()
        elif what == "python":
            self.process.kill()
        if what == "group" or not self._ends(30):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def _ends(self, seconds: float) -> bool:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
            return True
        return False

    def end(self) -> None:
        """SIGTERM, after which it ends at the end of a batch."""
        self.process.send_signal(signal.SIGTERM)
        self.ended()

    def ended(self) -> None:
        """Wait for its end, which is a good one."""
        status = self.process.wait(PATIENCE_S)
        assert status == 0, f"the driver ended with {status}:\n{self.log.read_text()[-4000:]}"

    def killed(self) -> None:
        """Wait until it has killed itself."""
        status = self.process.wait(PATIENCE_S)
        assert status == -signal.SIGKILL, f"the driver ended with {status}:\n{self.log.read_text()[-4000:]}"


def paced(seconds: float, step: Callable[[], None], every: float = 0.1) -> None:
    """Call ``step`` every so often, for so long."""
    until = time.monotonic() + seconds
    while True:
        step()
        left = until - time.monotonic()
        if left <= 0:
            return
        threading.Event().wait(min(every, left))


def a_round(scene: Scene, kind: str, random: random.Random) -> str:
    """One fault at a random moment, while rows arrive and the alias moves; what was done, in words. A Scene of this
    kind, with Spark or with Kafka, goes on with the next round."""

    def arrive() -> None:
        scene.feed()
        if random.random() < (0.9 if kind == "alias" else 0.3):
            scene.move_alias(random)

    if kind == "commit":
        when, nth = random.choice(("before", "after", "in")), random.randrange(1, 4)
        job = scene.start(kill=when, nth=nth, seed=random.randrange(1_000_000))
        while job.process.poll() is None:
            paced(0.0, arrive)
            threading.Event().wait(0.2)
        job.killed()
        return f"driver, {when} its commit number {nth}"
    job = scene.start(**MASTERS.get(kind, {}))
    if random.random() < 0.8:  # after the first batch, which takes longer than the rest of a round
        arrive()
        job.hear("batch")
    moment = random.uniform(0, 2.5)
    paced(moment, arrive, 0.03 if kind == "alias" else 0.1)
    if kind in ("driver", "alias"):
        what = random.choice(("group", "python", "jvm"))
        job.kill(what)
        return f"{what} after {moment:.2f} s"
    name = {"worker": r"pyspark.daemon|warm_daemon", "executor": "CoarseGrainedExecutorBackend"}[kind]
    victim = random.choice(victims(job, name))
    with contextlib.suppress(psutil.NoSuchProcess):  # it has ended meanwhile
        victim.kill()
    paced(0.5, arrive)
    batches = [job.hear("batch") for _ in range(2)]
    job.end()
    return f"{kind} {victim.pid} after {moment:.2f} s, then batch {batches[-1]['batch']}"


def victims(job: Job, name: str) -> list[psutil.Process]:
    """The processes of a driver with this in their command line, as soon as there is one."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        found = [process for process in job.processes("") if matches(process, name)]
        if found:
            return found
        threading.Event().wait(0.02)
    raise AssertionError(f"the driver has no process {name!r}")


def a_broker_round(scene: Scene, spark: Any, broker: Any, random: random.Random) -> str:
    """kill -9 to the Kafka broker of topic ``events`` at a random moment while a query reads it; it comes back, and if the
    query did not survive that, the query too."""

    def arrive(count: int) -> None:
        broker.produce(spark, "events", [json.dumps(row) for row in scene.new_rows(count)])

    def start() -> Any:
        events = broker.stream(spark, "events", maxOffsetsPerTrigger=200)
        return scene.stream(spark, events, payload=sparkdl.payloads.JSON(COLUMNS), trigger="50 milliseconds")

    arrive(600)
    query, survived = start(), True
    try:
        moment, down = random.uniform(0, 1.5), random.uniform(0, 1.5)
        paced(moment, lambda: scene.move_alias(random))
        broker.kill()
        threading.Event().wait(down)
        broker.start()
        arrive(300)
        try:
            query.processAllAvailable()
        except StreamError:
            survived = False
            query = start()
            query.processAllAvailable()
    finally:
        query.stop()
    return f"broker after {moment:.2f} s, the query {'went on' if survived else 'was started again'}"


def matches(process: psutil.Process, name: str) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        return re.search(name, " ".join(process.cmdline())) is not None
    return False


MASTERS = {"worker": {"master": "local[2,4]"}, "executor": {"master": "local-cluster[2,1,1024]"}}
KINDS = ("driver", "alias", "commit", "worker", "executor")
