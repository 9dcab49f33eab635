"""Ranks that die or stall in mid-run: who is named, what is launched again, what the answer is, what is left behind."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cloudpickle
import counting as counting_module
import psutil
import pytest
from counting import counting, kill, once, sleep, stop, undisturbed

from sparkdl.errors import DataError, RanksLostError, StalledRankError
from sparkdl.train.launcher import launch
from sparkdl.train.supervisor import supervise

JOB = Path(__file__).with_name("supervised_job.py")


@pytest.fixture(scope="module", autouse=True)
def counting_by_value():
    cloudpickle.register_pickle_by_value(counting_module)
    yield
    cloudpickle.unregister_pickle_by_value(counting_module)


@pytest.fixture
def folder(tmp_path):
    return str(tmp_path)


def begun(told):
    """The step at which each attempt began, by what rank 0 said."""
    return [message["step"] for message in told if message["kind"] == "begins" and message["rank"] == 0]


@pytest.mark.parametrize(
    ("culprit", "backend"),
    [
        pytest.param(0, "horovod", marks=pytest.mark.lane("latest")),
        pytest.param(1, "torch", marks=pytest.mark.lane("latest")),
        pytest.param(0, "torch", marks=pytest.mark.lane("spark35")),
        pytest.param(1, "horovod", marks=pytest.mark.lane("spark35")),
    ],
)
def test_a_worker_killed_in_mid_run_is_launched_again_and_resumes(spark, folder, culprit, backend):
    def disturb(rank, step):
        if rank == culprit and step == 7 and once(folder, "killed"):
            kill()

    told = []
    answer, attempts = supervise(spark, counting(folder, disturb), 2, backend=backend, on_message=told.append)
    assert answer == undisturbed()
    assert [attempt["ranks"] for attempt in attempts] == [2, 2]
    assert attempts[1]["error"] is None
    assert f"rank {culprit} on localhost died: its Python worker process exited" in attempts[0]["error"]
    assert begun(told) == [0, 7]
    assert [message for message in told if message["kind"] == "retry"] == [
        {"kind": "retry", "attempt": 1, "of": 2, "ranks": 2, "reason": attempts[0]["error"]}
    ]
    assert not any(message["kind"] == "pulse" for message in told)


def test_a_stopped_process_is_named_and_ended(spark, folder):
    def disturb(rank, step):
        if rank == 1 and step == 3:
            with open(os.path.join(folder, "pid"), "w") as file:
                file.write(str(os.getpid()))
            stop()

    with pytest.raises(StalledRankError, match=r"rank 1 on localhost") as caught:
        supervise(spark, counting(folder, disturb), 2, max_retries=0, stall_timeout=3.0)
    assert (caught.value.rank, caught.value.host) == (1, "localhost")
    assert caught.value.seconds >= 3
    stopped = int(Path(folder, "pid").read_text())
    if psutil.pid_exists(stopped):
        psutil.Process(stopped).wait(60)
    assert launch(spark, lambda collective: "the next one works", 2) == "the next one works"


@pytest.mark.parametrize(
    "culprit", [pytest.param(0, marks=pytest.mark.lane("latest")), pytest.param(1, marks=pytest.mark.lane("spark35"))]
)
def test_a_rank_that_does_not_go_on_is_named_not_the_one_that_waits_for_it(spark, folder, culprit):
    def disturb(rank, step):
        if rank == culprit and step == 3 and once(folder, "slept"):
            sleep()

    answer, attempts = supervise(spark, counting(folder, disturb, at="compute"), 2, stall_timeout=3.0)
    assert answer == undisturbed()
    assert [attempt["error"] for attempt in attempts] == [
        f"rank {culprit} on localhost stalled in phase 'compute'",
        None,
    ]


@pytest.mark.parametrize("error", [ValueError("mine"), DataError("mine")], ids=repr)
def test_an_error_of_a_rank_is_not_retried(spark, folder, error, jobs):
    def disturb(rank, step):
        if rank == 1 and step == 3:
            raise error

    with pytest.raises(Exception, match="mine"):
        supervise(spark, counting(folder, disturb), 2)
    assert jobs() == 1


def test_when_it_dies_each_time_the_error_says_how_often_it_was_tried(spark, folder, jobs):
    def disturb(rank, step):
        if rank == 1:
            kill()

    with pytest.raises(RanksLostError, match="last of 2 attempts") as caught:
        supervise(spark, counting(folder, disturb), 2, max_retries=1)
    assert jobs() == len(caught.value.attempts) == 2


def test_launches_of_two_threads_share_the_slots_without_waiting_for_each_other(spark, folder, signals):
    go, path = signals(), os.path.join(folder, "busy")

    class Waits(logging.Handler):
        told = 0

        def emit(self, record):
            self.told += "waits" in record.getMessage()
            go.send()

    def main(collective):
        heard = go.listen()
        collective.barrier()
        if collective.world.rank == 0:
            started.send()
            os.close(os.open(path, os.O_CREAT | os.O_EXCL))  # fails if the other run is in
            assert collective.world.size == 2
        went = go.wait(heard) if is_first else True
        if collective.world.rank == 0:
            os.remove(path)
        return went

    logger, waits = logging.getLogger("sparkdl.session"), Waits()
    logger.addHandler(waits)
    try:
        with ThreadPoolExecutor(2) as threads:
            started, is_first = signals(), True
            up = started.listen()
            first = threads.submit(launch, spark, main, 2)
            assert started.wait(up)
            is_first = False
            second = threads.submit(launch, spark, main, 2)
            assert (first.result(), second.result()) == (True, True)
    finally:
        logger.removeHandler(waits)
    assert waits.told == 1


class Driver:
    """supervised_job.py in a process of its own, and what it says, a JSON a line."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(JOB), *arguments], text=True, start_new_session=True, stdout=subprocess.PIPE
        )

    def hear(self) -> dict:
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise AssertionError(f"the driver ended with {self.process.wait()}")

    def family(self) -> list[psutil.Process]:
        me = psutil.Process(self.process.pid)
        return [me, *me.children(recursive=True)]


@pytest.fixture
def driver():
    """A function that starts a Driver; what is left of its family in the end is killed."""
    started = []

    def start(*arguments: str) -> Driver:
        started.append(Driver(*arguments))
        return started[-1]

    yield start
    for one in started:
        for process in psutil.process_iter():
            if process.pid != os.getpid() and _session_of(process) == one.process.pid:
                process.kill()
        one.process.wait()


def _session_of(process: psutil.Process) -> int | None:
    try:
        return os.getsid(process.pid)
    except ProcessLookupError:
        return None


def survivors(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that live on a minute later."""
    return psutil.wait_procs(processes, timeout=60)[1]


@pytest.mark.lane("spark35")
def test_executors_and_drivers_die_and_no_rank_outlives_them(driver, folder):
    run = driver("local-cluster[2,1,1024]", folder)
    for what in ("executor", "daemon"):
        found = run.hear()
        assert found["killed"] == what
        assert found["answer"] == undisturbed()
        assert len(found["attempts"]) == 2, found
        assert ("executor" if what == "executor" else "Python worker") in found["attempts"][0]["error"]
        assert found["begun"] == [0, 5]
        assert survivors([psutil.Process(pid) for pid in found["orphans"] if psutil.pid_exists(pid)]) == []
    assert run.hear() == {"all": "up"}
    family = run.family()
    assert sum("java" in process.name() for process in family) == 3, "a driver and two executors"
    assert sum("python" in process.name() for process in family) >= 5, "the driver, two daemons, two ranks"
    run.process.kill()
    assert survivors(family) == []


def test_a_dead_driver_on_this_machine_leaves_no_process(driver, folder):
    run = driver("here", folder)
    assert run.hear() == {"all": "up"}
    family = run.family()
    assert len(family) == 3
    run.process.kill()
    assert survivors(family) == []
