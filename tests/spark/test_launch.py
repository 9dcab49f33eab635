"""One barrier stage, one rank a task: what comes back, what goes wrong, what is left behind."""

from __future__ import annotations

import logging
import os
import socket
import threading

import psutil
import pytest
import torch

import sparkdl
from sparkdl.errors import (
    DataError,
    LaunchError,
    ModelNotPicklableError,
    NotEnoughSlotsError,
    RankFailedError,
    SparkdlError,
)
from sparkdl.session import free_slots
from sparkdl.train.launcher import launch
from sparkdl.train.pulse import Watch
from sparkdl.train.world import World

BACKENDS = ("horovod", "torch")


@pytest.mark.parametrize("backend", [*BACKENDS, "auto"])
def test_ranks_meet_and_rank_0_answers(spark, backend):
    def main(collective):
        world = collective.world
        summed = torch.tensor([1.0, 10.0], dtype=torch.float64) * (world.rank + 1)
        collective.allreduce(summed)
        first = torch.tensor([world.rank + 7])
        collective.broadcast(first)
        gathered = collective.allgather(torch.tensor([[world.rank, world.size]]))
        collective.barrier()
        return world, type(collective).__name__, summed.tolist(), first.tolist(), gathered.tolist()

    world, kind, summed, first, gathered = launch(spark, main, 2, backend=backend)
    assert world == World(rank=0, size=2, local_rank=0, local_size=2, cross_rank=0, cross_size=1)
    assert kind == {"torch": "TorchCollective"}.get(backend, "HorovodCollective")
    assert (summed, first, gathered) == ([3.0, 30.0], [7], [[[0, 2]], [[1, 2]]])


@pytest.mark.parametrize("size", [1, 2])
def test_environment_backend_gives_the_world_alone(spark, size):
    assert launch(spark, lambda world: (world.rank, world.size), size, backend="environment") == (0, size)


def test_horovod_has_a_limit_of_its_own_if_there_is_a_watch_and_only_then(spark):
    def main(collective):
        return os.environ.get("HOROVOD_STALL_SHUTDOWN_TIME_SECONDS")

    assert launch(spark, main, 1, watch=Watch(1, 600.0)) == "1800"
    assert launch(spark, main, 1) is None


def test_more_ranks_than_slots_fail_at_once_with_both_numbers(spark, jobs):
    assert free_slots(spark) == 2
    with pytest.raises(NotEnoughSlotsError, match=r"5 ranks.*cluster has 2") as caught:
        launch(spark, lambda collective: None, 5)
    assert (caught.value.needed, caught.value.available) == (5, 2)
    assert jobs() == 0
    launch(spark, lambda collective: None, 2)
    assert jobs() == 1


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("culprit", [0, 1])
def test_the_rank_that_failed_is_named_not_its_echo(spark, backend, culprit):
    def breaks_here(collective):
        if collective.world.rank == culprit:
            raise ValueError("the real reason")
        collective.allreduce(torch.ones(2))

    with pytest.raises(RankFailedError, match="the real reason") as caught:
        launch(spark, breaks_here, 2, backend=backend)
    assert (caught.value.rank, caught.value.host) == (culprit, "localhost")
    assert "breaks_here" in caught.value.traceback
    assert "HorovodInternalError" not in caught.value.traceback
    assert launch(spark, lambda collective: "the next one works", 2, backend=backend) == "the next one works"


def test_an_error_of_ours_arrives_as_itself(spark):
    def main(collective):
        if collective.world.rank == 1:
            raise DataError("no such thing", column="x", row=3, file="f", expected="1", got="2")
        collective.barrier()

    with pytest.raises(DataError, match="no such thing") as caught:
        launch(spark, main, 2)
    assert (caught.value.column, caught.value.row, caught.value.file) == ("x", 3, "f")
    assert isinstance(caught.value.__cause__, RankFailedError)
    assert caught.value.__cause__.rank == 1


class NotebookError(SparkdlError):
    """Defined where the workers cannot import it."""


@pytest.mark.parametrize(
    ("make", "arrives_as"), [(str, NotebookError), (threading.Lock, RankFailedError)], ids=["own class", "with a lock"]
)
def test_an_error_that_travels_badly_still_tells_its_reason(spark, make, arrives_as):
    def main(collective):
        raise NotebookError("from a notebook", field=make())

    with pytest.raises(arrives_as, match="from a notebook"):
        launch(spark, main, 2)


def test_messages_arrive_while_the_ranks_run(spark, signals):
    answer = signals()
    told = []

    def handler(message):
        told.append(message)
        if message["kind"] == "log":
            answer.send()

    def main(collective):
        heard = answer.listen()
        collective.barrier()
        if collective.world.rank == 1:
            sparkdl.log_to_driver("rank 1 is up")
        return answer.wait(heard)

    assert launch(spark, main, 2, on_message=handler) is True
    assert [m["text"] for m in told if m["kind"] == "log"] == ["rank 1 is up"]
    assert {"kind": "joined", "backend": "horovod", "size": 2, "device": told[0]["device"]} in told


def test_messages_of_a_rank_come_complete_and_in_order(spark):
    def main(collective):
        for i in range(500):
            sparkdl.log_to_driver(f"{collective.world.rank} {i} {'x' * i}")

    told = []
    launch(spark, main, 2, on_message=told.append)
    texts = [message["text"] for message in told if message["kind"] == "log"]
    for rank in "01":
        assert [t for t in texts if t.startswith(rank)] == [f"{rank} {i} {'x' * i}" for i in range(500)]


def test_what_cannot_be_pickled_is_named(spark, jobs):
    lock = threading.Lock()
    with pytest.raises(ModelNotPicklableError, match="the training function"):
        launch(spark, lambda collective: lock, 2)
    assert jobs() == 0
    with pytest.raises(RankFailedError, match="cannot pickle '_thread") as caught:
        launch(spark, lambda collective: threading.Lock(), 2)
    assert caught.value.rank == 0


def test_the_answer_may_be_anything_that_cloudpickle_takes(spark):
    class Answer:
        def __init__(self, value):
            self.value = value

    answer = launch(spark, lambda collective: (Answer(3), lambda x: x + 1, None), 2)
    assert (answer[0].value, answer[1](1), answer[2]) == (3, 2, None)


def test_a_rank_that_dies_is_a_launch_error_and_no_hang(spark):
    def main(collective):
        collective.barrier()
        if collective.world.rank == 1:
            os._exit(3)
        collective.allreduce(torch.ones(1))

    with pytest.raises(LaunchError):
        launch(spark, main, 2)
    assert launch(spark, lambda collective: 1, 2) == 1


def test_a_rank_that_calls_exit_says_so(spark):
    def main(collective):
        if collective.world.rank == 0:
            raise SystemExit("enough")
        collective.barrier()

    with pytest.raises(LaunchError, match="enough"):
        launch(spark, main, 2)


def listeners(driver: int) -> set[tuple[int, str, int]]:
    """(process, address, port) of each socket that Python processes of the driver's family listen on."""
    found = set()
    for process in [psutil.Process(driver), *psutil.Process(driver).children(recursive=True)]:
        try:
            if "python" in process.name():
                connections = process.net_connections("tcp")
                found |= {(process.pid, c.laddr.ip, c.laddr.port) for c in connections if c.status == "LISTEN"}
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return found


@pytest.mark.parametrize("backend", [*BACKENDS, "environment"])
def test_listens_on_the_loopback_alone_and_not_after(spark, backend):
    driver = os.getpid()

    def main(collective):
        if backend == "environment":
            import horovod.torch as hvd

            hvd.init()
            barrier = hvd.barrier
        else:
            barrier = collective.barrier
        barrier()
        found = listeners(driver)
        barrier()
        return found

    launch(spark, lambda collective: None, 2)  # workers are up
    before = listeners(driver)
    during = launch(spark, main, 2, backend=backend, on_message=lambda message: None)
    listening = {pid for pid, *_ in during - before}
    assert driver in listening
    assert (listening == {driver}) == (backend == "horovod"), "Horovod's rendezvous ends when all have met"
    assert {address for _, address, _ in during} <= {"127.0.0.1", "::1"}
    assert listeners(driver) <= before


def test_a_failed_run_leaves_no_listener(spark):
    driver = os.getpid()

    def main(collective):
        if collective.world.rank == 1:
            raise ValueError("no")
        collective.barrier()

    launch(spark, lambda collective: None, 2)
    before = listeners(driver)
    for backend in BACKENDS:
        with pytest.raises(RankFailedError):
            launch(spark, main, 2, backend=backend, on_message=lambda message: None)
    assert listeners(driver) <= before


def test_a_stranger_gets_no_message_through(spark, caplog):
    driver, told = os.getpid(), []

    def main(collective):
        for port in {port for pid, _, port in listeners(driver) if pid == driver} - known:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as stranger:
                stranger.sendall(b"guess\n" + b'{"kind": "log", "text": "forged"}\n')
                stranger.shutdown(socket.SHUT_WR)
                stranger.makefile("rb").read()  # until the driver hangs up
        sparkdl.log_to_driver("real")

    known = {port for pid, _, port in listeners(driver) if pid == driver}
    with caplog.at_level(logging.WARNING):
        launch(spark, main, 1, on_message=told.append)
    assert [message["text"] for message in told if message["kind"] == "log"] == ["real"]
    assert "does not know the secret" in caplog.text


class OnOneRankOnly:
    """What cannot be unpickled in the process of one task, as where a package is missing."""

    def __call__(self, collective):
        return "never"

    def __reduce__(self):
        return _unpickled, ()


def _unpickled():
    from pyspark import BarrierTaskContext

    context = BarrierTaskContext.get()
    if context is not None and context.partitionId() == 1:
        raise ModuleNotFoundError("No module named 'only_there'")
    return OnOneRankOnly()


@pytest.mark.parametrize("backend", ["horovod", "torch"])
def test_a_rank_that_cannot_begin_does_not_leave_the_others_waiting(spark, backend):
    with pytest.raises(RankFailedError, match=r"(?s)rank 1 on .*No module named 'only_there'"):
        launch(spark, OnOneRankOnly(), 2, backend=backend)
