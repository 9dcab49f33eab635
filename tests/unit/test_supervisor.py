"""Which failures are launched again, with how many ranks, and what is told of it. Launches are stood in for."""

import logging
import pickle

import pytest

from sparkdl import session
from sparkdl.errors import (
    DataError,
    InvalidParamError,
    LaunchError,
    NonFiniteLossError,
    NotEnoughSlotsError,
    RanksLostError,
    StalledRankError,
    TrainingError,
    WorkerPythonError,
)
from sparkdl.train import supervisor
from sparkdl.train.failure import Failure
from sparkdl.train.supervisor import is_lost, one_line, supervise


class HorovodInternalError(RuntimeError):
    """As Horovod's own, known by its name."""


def lost(reason="rank 1 on b died: killed"):
    return RanksLostError(reason, reason=reason)


def failed(error):
    return Failure.of(error, 1, "b").exception()


@pytest.mark.parametrize(
    ("error", "retried"),
    [
        (lost(), True),
        (StalledRankError("stalled", rank=1, host="b", seconds=9, phase="data", reason="stalled"), True),
        (failed(HorovodInternalError("Connection closed by peer")), True),  # nobody said why
        (failed(RuntimeError("[gloo/transport/tcp/pair.cc] Connection reset by peer")), True),
        (failed(ValueError("the user's own")), False),
        (failed(MemoryError("rank")), False),
        (failed(DataError("bad row")), False),
        (failed(NonFiniteLossError("nan", epoch=0, step=1, loss=1.0)), False),
        (failed(TrainingError("a checkpoint of another model")), False),
        (LaunchError("dynamic allocation"), False),
        (WorkerPythonError("no torch", python=None, missing="torch"), False),
        (NotEnoughSlotsError("too few", needed=3, available=2), False),
        (InvalidParamError("np"), False),
        (KeyboardInterrupt(), False),
        (SystemExit(1), False),
    ],
    ids=repr,
)
def test_what_is_retried(error, retried):
    assert is_lost(error) is retried


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (lost("executor 1 is lost: code 137"), "executor 1 is lost: code 137"),
        (failed(ValueError("two\nlines")), "rank 1 on b failed: lines"),
        (failed(HorovodInternalError("closed")), "rank 1 on b lost the others: test_supervisor.HorovodInternalError: closed"),
        (LaunchError("first\nsecond"), "first"),
    ],
)  # fmt: skip
def test_an_error_in_one_line(error, line):
    assert one_line(error).replace("unit.", "").replace("tests.", "") == line


@pytest.fixture
def launches(monkeypatch):
    """Stands in for ``launch``: each call takes the next of ``outcomes``; ``slots`` is what the cluster has then."""

    class Launches(list):
        outcomes, slots = [], 8

    made = Launches()

    def launch(spark, main, size, **settings):
        made.append((size, settings))
        outcome = made.outcomes.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    monkeypatch.setattr(supervisor, "launch", launch)
    monkeypatch.setattr(session, "REGISTRATION_S", 0.0)
    monkeypatch.setattr(session, "free_slots", lambda spark: made.slots)
    return made


def test_without_a_failure_there_is_one_attempt(launches):
    launches.outcomes = ["answer"]
    told = []
    assert supervise(None, None, 2, backend="torch", on_message=told.append) == (
        "answer",
        [{"ranks": 2, "error": None}],
    )
    ((size, settings),) = launches
    assert (size, settings["backend"], settings["watch"].size, settings["watch"].stall_timeout) == (
        2,
        "torch",
        2,
        600.0,
    )
    assert told == []


def test_what_was_lost_is_launched_again_and_told(launches, caplog):
    launches.outcomes = [lost("a"), failed(HorovodInternalError("b")), "answer"]
    told = []
    with caplog.at_level(logging.WARNING):
        answer, attempts = supervise(None, None, 2, max_retries=5, on_message=told.append)
    assert answer == "answer"
    assert [attempt["ranks"] for attempt in attempts] == [2, 2, 2]
    assert (attempts[0]["error"], attempts[2]["error"]) == ("a", None)
    assert told[0] == {"kind": "retry", "attempt": 1, "of": 5, "ranks": 2, "reason": "a"}
    assert [message["attempt"] for message in told] == [1, 2]
    assert "retry 1 of 5 with 2 ranks: a" in caplog.text
    assert len({settings["watch"] for _, settings in launches}) == 3, "each attempt has a watch of its own"


@pytest.mark.parametrize("max_retries", [0, 2])
def test_when_all_attempts_fail_the_error_says_how_many(launches, max_retries):
    launches.outcomes = [lost(f"loss {number}") for number in range(9)]
    with pytest.raises(RanksLostError, match=f"loss {max_retries}") as caught:
        supervise(None, None, 2, max_retries=max_retries)
    assert len(launches) == len(caught.value.attempts) == max_retries + 1
    assert ("the last of 3 attempts; the others: loss 0; loss 1" in str(caught.value)) == (max_retries == 2)
    assert pickle.loads(pickle.dumps(caught.value)).attempts == caught.value.attempts


def test_a_rank_s_own_error_ends_it_also_after_a_retry(launches):
    launches.outcomes = [lost(), failed(DataError("bad row")), "never"]
    with pytest.raises(DataError, match="bad row"):
        supervise(None, None, 2)
    assert len(launches) == 2


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_is_not_retried(launches, interrupt):
    launches.outcomes = [interrupt(), "never"]
    with pytest.raises(interrupt):
        supervise(None, None, 2)
    assert len(launches) == 1


@pytest.mark.parametrize(
    ("slots", "min_size", "ranks"),
    [(8, None, 4), (4, 1, 4), (3, 1, 3), (3, 3, 3), (None, 1, 4), (None, None, 4)],
)
def test_with_how_many_ranks_it_goes_on(launches, slots, min_size, ranks):
    launches.outcomes, launches.slots = [lost(), "answer"], slots
    _, attempts = supervise(None, None, 4, min_size=min_size)
    assert [attempt["ranks"] for attempt in attempts] == [4, ranks]


def test_a_cluster_that_comes_back_gets_all_its_ranks_again(launches):
    launches.outcomes, launches.slots = [lost(), lost(), "answer"], 2

    def come_back(message):
        launches.slots = 4

    _, attempts = supervise(None, None, 4, min_size=1, on_message=come_back)
    assert [attempt["ranks"] for attempt in attempts] == [4, 2, 4]


@pytest.mark.parametrize(("slots", "min_size", "needed"), [(3, None, 4), (1, 2, 2), (0, 1, 1)])
def test_too_few_slots_left_is_an_error_with_both_numbers(launches, slots, min_size, needed):
    launches.outcomes, launches.slots = [lost(), "never"], slots
    with pytest.raises(NotEnoughSlotsError, match=f"has {slots} task slots.*at least {needed} ranks") as caught:
        supervise(None, None, 4, min_size=min_size)
    assert (caught.value.needed, caught.value.available) == (needed, slots)
    assert isinstance(caught.value.__cause__, RanksLostError)
