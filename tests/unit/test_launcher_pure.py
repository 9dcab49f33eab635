"""What the launcher decides before and without Spark: slots, backend, addresses, what a rank's environment says."""

import logging
import os
import threading

import pytest
import torch

from sparkdl.errors import LaunchError
from sparkdl.session import Gate
from sparkdl.system import slots_of_master
from sparkdl.train.collective import (
    Seat,
    SingleProcess,
    choose_backend,
    environment,
    horovod_variables,
    interface_of,
)
from sparkdl.train.launcher import _backstop, _first_lines
from sparkdl.train.world import World


@pytest.mark.parametrize(
    ("master", "slots"),
    [
        ("local", 1),
        ("local[3]", 3),
        ("local[*]", 8),  # as many as cores
        ("local[3, 2]", 3),  # with retries
        ("local[*,4]", 8),
        ("local-cluster[2,1,1024]", 2),
        ("local-cluster[2, 3, 1024]", 6),
        ("spark://host:7077", None),  # a cluster does not say
        ("yarn", None),
        ("k8s://https://host", None),
        ("", None),
    ],
)
def test_slots_of_a_master(master, slots):
    assert slots_of_master(master, cores=8) == slots


@pytest.mark.parametrize(
    ("wanted", "problems", "backend"),
    [
        ("auto", [None, None], "horovod"),
        ("auto", [None, "ImportError: no horovod"], "torch"),  # all the same on all
        ("horovod", [None, None], "horovod"),
        ("torch", [None, None], "torch"),
        ("torch", ["ImportError"], "torch"),
        ("auto", ["ImportError", "ImportError"], "torch"),
    ],
)
def test_the_backend(wanted, problems, backend):
    assert choose_backend(wanted, problems) == backend


def test_horovod_that_was_asked_for_and_is_missing_is_an_error_with_rank_reason_and_remedy():
    with pytest.raises(LaunchError, match=r"rank 1: ImportError: libfoo.*build-horovod --install.*collective='torch'"):
        choose_backend("horovod", [None, "ImportError: libfoo"])


@pytest.mark.parametrize(
    ("addresses", "rank", "address"),
    [
        (["10.0.0.1"], 0, "127.0.0.1"),
        (["10.0.0.1", "10.0.0.1"], 1, "127.0.0.1"),  # one host: nobody else can listen in
        (["10.0.0.1", "10.0.0.2"], 1, "10.0.0.2"),
    ],
)
def test_where_a_rank_listens(addresses, rank, address):
    world = World(rank=rank, size=len(addresses))
    seat = Seat(world, addresses, addresses[rank], torch.device("cpu"), lambda text: [text])
    assert seat.address == address


def test_horovod_is_told_the_world_by_its_own_names():
    told = horovod_variables(World(3, 8, 1, 2, 1, 4), "127.0.0.1", ("127.0.0.1", 4321))
    assert {name: told[f"HOROVOD_{name}"] for name in ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE", "CROSS_RANK", "CROSS_SIZE")} == {
        "RANK": "3", "SIZE": "8", "LOCAL_RANK": "1", "LOCAL_SIZE": "2", "CROSS_RANK": "1", "CROSS_SIZE": "4",
    }  # fmt: skip
    assert told["HOROVOD_GLOO_RENDEZVOUS_PORT"] == "4321"
    assert all(isinstance(value, str) for value in told.values())


def test_the_interface_of_an_address():
    assert interface_of("127.0.0.1") == interface_of("127.0.1.1")  # Debian's own name for itself
    with pytest.raises(LaunchError, match=r"has the address 203\.0\.113\.9.*SPARK_LOCAL_IP"):
        interface_of("203.0.113.9")  # of an example net: nobody has it


def test_an_environment_ends_with_its_block_even_if_that_fails(monkeypatch):
    monkeypatch.setenv("SPARKDL_TEST_A", "before")
    monkeypatch.delenv("SPARKDL_TEST_B", raising=False)

    def inside():
        with environment({"SPARKDL_TEST_A": "within", "SPARKDL_TEST_B": "within"}):
            assert (os.environ["SPARKDL_TEST_A"], os.environ["SPARKDL_TEST_B"]) == ("within", "within")
            raise KeyError

    with pytest.raises(KeyError):
        inside()
    assert os.environ["SPARKDL_TEST_A"] == "before"
    assert "SPARKDL_TEST_B" not in os.environ


def test_a_single_process_is_a_world_of_one():
    alone = SingleProcess()
    tensor = torch.arange(3.0)
    alone.allreduce(tensor)
    alone.broadcast(tensor)
    alone.barrier()
    assert tensor.tolist() == [0, 1, 2]
    assert alone.allgather(tensor).tolist() == [[0, 1, 2]]
    assert alone.world == World()


def test_spark_s_message_is_shown_without_the_jvm_s_stack():
    error = Exception("Job aborted\n\tat org.apache.spark.Foo\n\tat bar\nCaused by: x\n" + "line\n" * 100)
    lines = _first_lines(error).splitlines()
    assert lines[:2] == ["Job aborted", "Caused by: x"]
    assert len(lines) == 20


@pytest.mark.parametrize(("limit", "seconds"), [(600.0, "1800"), (3.0, "120"), (0.5, "120")])
def test_horovod_s_own_limit_is_a_backstop(limit, seconds):
    assert _backstop(limit) == {"HOROVOD_STALL_SHUTDOWN_TIME_SECONDS": seconds}
    assert _backstop(None) == {}


class Crowd:
    """Launches that stay in a gate until they are let go, each in a thread."""

    def __init__(self, slots):
        self.gate, self.slots = Gate(), slots
        self.inside, self.came = [], threading.Condition()
        self.threads, self.leave = {}, {}

    def send(self, name, ranks):
        self.leave[name] = threading.Event()

        def launch():
            with self.gate.entered(ranks, lambda: self.slots):
                with self.came:
                    self.inside.append(name)
                    self.came.notify_all()
                self.leave[name].wait()

        self.threads[name] = threading.Thread(target=launch, daemon=True)
        waiting = len(self.gate._waiting)
        self.threads[name].start()
        while self.threads[name].is_alive() and name not in self.inside and len(self.gate._waiting) == waiting:
            pass  # until it is in or stands in the queue

    def let_go(self, name):
        self.leave[name].set()
        self.threads[name].join()

    def wait_for(self, *names):
        with self.came:
            assert self.came.wait_for(lambda: self.inside == list(names), timeout=10), self.inside


def test_launches_go_in_as_long_as_all_have_slots_and_in_the_order_they_came(caplog):
    crowd = Crowd(4)
    with caplog.at_level(logging.WARNING):
        for name, ranks in [("a", 2), ("b", 2), ("c", 3), ("d", 1)]:
            crowd.send(name, ranks)
        crowd.wait_for("a", "b")
        crowd.let_go("a")
        crowd.wait_for("a", "b")  # c does not fit beside b, and d does not pass it by
        crowd.let_go("b")
        crowd.wait_for("a", "b", "c", "d")
    assert caplog.messages.count("a launch of 3 ranks waits: launches before it use 4 slots") == 1
    for name in ("c", "d"):
        crowd.let_go(name)
    assert crowd.gate._in_use == 0


@pytest.mark.parametrize("slots", [None, 0, 2])
def test_a_launch_alone_always_goes_in_and_where_slots_are_unknown_one_at_a_time(slots):
    crowd = Crowd(slots)
    crowd.send("a", 2)
    crowd.send("b", 2)
    crowd.wait_for("a")
    crowd.let_go("a")
    crowd.wait_for("a", "b")
    crowd.let_go("b")


def test_a_launch_that_fails_leaves_the_gate():
    gate = Gate()
    with pytest.raises(KeyError), gate.entered(2, lambda: 2):
        raise KeyError
    with gate.entered(2, lambda: 2):
        pass


def test_who_is_interrupted_while_it_waits_leaves_the_queue():
    gate = Gate()

    def interrupted():
        raise KeyboardInterrupt

    with gate.entered(2, lambda: 2):
        with pytest.raises(KeyboardInterrupt), gate.entered(1, interrupted):
            pass
        assert not gate._waiting
