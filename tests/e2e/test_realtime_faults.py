"""Real time, and something is killed by -9: executor, broker, driver. Every record is answered at least once, and what came
twice is the same twice.

A driver of its own (realtime_job.py) on a standalone cluster, records all the while. Ten kills at random moments are
behind ``soak``; the seed is in SPARKDL_SEED.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import threading
import time
from pathlib import Path

import kafka
import psutil
import pytest
import standalone
import stream_scene

import sparkdl

if kafka.lane() != "latest":
    pytest.skip("Spark's real-time mode reads Kafka since 4.3", allow_module_level=True)

SEED = int(os.environ.get("SPARKDL_SEED", "7"))
EVERY_S, PATIENCE_S, PARTITIONS = 0.02, 120, 2
JOB = Path(__file__).with_name("realtime_job.py")


class Scene:
    """A cluster of two slots, a broker, a driver, and records that never stop arriving."""

    def __init__(self, folder, spark, stack):
        self.folder, self.spark, self.stack = folder, spark, stack
        self.broker = kafka.Broker(folder / "kafka", kafka.require_jars("kafka")).start()
        stack.callback(self.broker.kill)
        for topic in ("in", "out", "dead"):
            self.broker.create_topic(topic, PARTITIONS)
        registry = sparkdl.Registry(str(folder / "registry"))
        registry.publish("m", stream_scene.bundle(1).with_graph())
        registry.set_alias("m", "champion", 1)
        self.cluster = stack.enter_context(standalone.cluster(folder / "cluster", workers=1, cores=2))
        self.told_to_end = threading.Event()
        self.sending = threading.Thread(target=self._send)
        self.sent = 0
        self.job = self.start()
        self.sending.start()
        stack.callback(self.end)

    def start(self):
        told = {"master": self.cluster.url, "servers": self.broker.servers, "jars": kafka.session_jars()}
        job = stream_scene.Job(self.folder, told, JOB)
        self.stack.callback(job.kill)
        return job

    def _send(self):
        with self.broker.sender(self.spark) as send:
            while not self.told_to_end.wait(EVERY_S):
                (row,) = stream_scene.rows(self.sent, 1, poison_every=100)
                send("in", json.dumps(row), partition=self.sent % PARTITIONS)
                self.sent += 1

    def end(self):
        self.told_to_end.set()
        self.sending.join()

    def flowing(self, more=100):
        """Wait until all that were sent, and so many more, are answered."""
        sent, deadline = self.sent + more, time.monotonic() + PATIENCE_S
        while lost := set(range(sent)) - self.answers().keys():
            assert self.job.process.poll() is None, f"the driver ended:\n{self.job.log.read_text()[-4000:]}"
            assert time.monotonic() < deadline, (
                f"{len(lost)} of {sent} records are not answered, such as {sorted(lost)[:5]}:\n"
                f"{self.job.log.read_text()[-4000:]}"
            )
            threading.Event().wait(0.5)

    def executors(self):
        """Of the running driver, the processes."""
        found = [process for process in psutil.process_iter() if "CoarseGrainedExecutorBackend" in said(process)]
        return [process for process in found if self.job.started["application"] in said(process)]

    def check(self):
        """No more records arrive; all that have must be answered, the same way each time. How many were answered again."""
        self.end()
        self.flowing(0)
        answers = self.answers()
        unlike = [number for number, same in answers.items() if len(set(same)) > 1]
        assert not unlike, f"records answered in two ways, such as {answers[unlike[0]]}"
        places = {number: {place for place, _ in same} for number, same in answers.items()}
        assert all(len(one) == 1 for one in places.values())
        assert len(set.union(*places.values())) == len(places), "two records have one sparkdl-id"
        return sum(map(len, answers.values())) - len(answers)

    def answers(self):
        """By a record's number: for each of its answers ``sparkdl-id``, and the value."""
        found = {}
        for topic in ("out", "dead"):
            for row in self.broker.read(self.spark, topic).select("value", "headers").collect():
                headers = {header.key: header.value.decode() for header in row.headers}
                found.setdefault(json.loads(row.value)["id"], []).append((headers["sparkdl-id"], bytes(row.value)))
        return found


def said(process):
    with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied):
        return " ".join(process.cmdline())
    return ""


@pytest.fixture
def scene(tmp_path, spark):
    with contextlib.ExitStack() as stack:
        yield Scene(tmp_path, spark, stack)


def kill_executor(scene, drawn):
    drawn.choice(scene.executors()).kill()


def kill_broker(scene, drawn):
    scene.broker.kill()
    threading.Event().wait(drawn.uniform(0, 2))  # a fault has a length
    scene.broker.start()


def kill_driver(scene, drawn):
    scene.job.kill()
    scene.job = scene.start()


KILLS = (kill_executor, kill_broker, kill_driver)


def test_an_executor_the_broker_and_the_driver_die_and_every_record_is_answered(scene):
    drawn = random.Random(SEED)
    scene.flowing()
    for kill in KILLS:
        kill(scene, drawn)
        scene.flowing()
    scene.check()


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_ten_kills_at_random_moments(scene):
    drawn = random.Random(SEED)
    scene.flowing()
    for _ in range(10):
        threading.Event().wait(drawn.uniform(0, 5))
        drawn.choice(KILLS)(scene, drawn)
        scene.flowing()
    scene.check()
