"""What a rank tells of itself, and whom the driver names when one holds up the others."""

import contextlib
import os
import pickle
import subprocess
import sys
import threading

import pytest

from sparkdl.errors import RanksLostError, StalledRankError
from sparkdl.train import messages, pulse
from sparkdl.train.messages import listening, sending
from sparkdl.train.pulse import ORPHANED, Watch, beating, mark, waiting

HOST = "127.0.0.1"


def beat(rank, phase, marks, **more):
    return {
        "kind": "pulse",
        "rank": rank,
        "host": f"host{rank}",
        "task": 1 - rank,
        "phase": phase,
        "marks": marks,
    } | more


class Clock:
    """A clock that the test moves."""

    now = 1000.0

    def __call__(self):
        return self.now


def named(*seconds, size=2, timeout=10.0):
    """The error of a watch over the pulses of each second, a list of them, if one comes."""
    clock = Clock()
    watch = Watch(size, timeout, clock=clock)
    for second, heard in enumerate(seconds):
        for message in heard:
            watch.hear(message)
        clock.now += 1
        try:
            watch.check()
        except StalledRankError as error:
            return second, error
    return None


def history(second):
    return lambda *ranks: [[rank(number) for rank in ranks] for number in range(second)]


def moving(rank, phase="compute"):
    return lambda second: beat(rank, phase, second + 1)


def still(rank, phase, since=0, marks=5):
    return lambda second: beat(rank, phase if second >= since else "compute", min(second, since) + marks)


FOR_A_MINUTE = history(60)


def test_ranks_that_move_are_not_named():
    assert named(*FOR_A_MINUTE(moving(0), moving(1))) is None


@pytest.mark.parametrize("phase", ["data", "compute", "validation", "checkpoint"])
@pytest.mark.parametrize("culprit", [0, 1])
def test_who_stands_still_is_named_not_who_waits_for_it(phase, culprit):
    second, error = named(*FOR_A_MINUTE(still(culprit, phase, since=5), still(1 - culprit, "all_reduce", since=2)))
    assert (error.rank, error.host, error.phase, error.seconds) == (culprit, f"host{culprit}", phase, 10)
    assert second == 14
    assert f"rank {culprit} on host{culprit} has not moved for 10 s in phase {phase!r}" in str(error)
    assert "limit is 10 s" in str(error)


def test_who_falls_silent_is_named_whatever_it_did_last():
    def silent(second):
        return [] if second >= 5 else [beat(1, "all_reduce", second)]

    seconds = [[still(0, "all_reduce")(second), *silent(second)] for second in range(60)]
    _, error = named(*seconds)
    assert (error.rank, error.phase, error.seconds) == (1, "all_reduce", 10)
    assert "no sign of life for 10 s" in str(error)


def test_of_all_that_wait_for_each_other_the_one_furthest_behind_is_named():
    _, error = named(*FOR_A_MINUTE(still(0, "all_reduce", marks=9), still(1, "all_reduce", marks=7)))
    assert (error.rank, error.phase) == (1, "all_reduce")


def test_one_that_never_begins_while_others_have_is_named_by_its_task():
    _, error = named(*FOR_A_MINUTE(still(0, "all_reduce"), still(1, "all_reduce")), size=3)
    assert (error.rank, error.phase) == (None, "begin")
    assert "the rank of barrier task 2 has not begun for 10 s" in str(error)
    assert named(*([] for _ in range(60))) is None, "nobody was heard: Spark may not have started them yet"


def test_one_that_hangs_before_it_has_met_the_others_is_named():
    waits, hangs = (beat(rank, phase, 1) for rank, phase in enumerate(("all_reduce", "begin")))
    _, error = named(*[[waits, hangs] for _ in range(60)])
    assert "rank 1 on host1 has not moved for 10 s in phase 'begin'" in str(error)


def test_ranks_that_never_mark_are_judged_by_their_pulse_alone():
    unmarked = [lambda second, rank=rank: beat(rank, "start", 2) for rank in (0, 1)]  # two calls of a collective
    assert named(*FOR_A_MINUTE(*unmarked)) is None
    seconds = [[unmarked[0](second), *([unmarked[1](second)] if second < 3 else [])] for second in range(60)]
    assert named(*seconds)[1].rank == 1
    assert named(*FOR_A_MINUTE(unmarked[0], still(1, "all_reduce", marks=1))) is None
    assert named(*FOR_A_MINUTE(unmarked[0], moving(1)))[1].rank == 0, "the other marks, so this one should have"


def test_a_rank_that_is_done_may_be_silent():
    seconds = [[beat(0, "compute", 1, done=True)], *([beat(1, "compute", second)] for second in range(60))]
    assert named(*seconds) is None


def test_a_driver_that_slept_itself_blames_nobody():
    clock = Clock()
    watch = Watch(1, 10.0, clock=clock)
    watch.hear(beat(0, "compute", 1, task=0))
    clock.now += 8 * 3600
    watch.check()
    watch.hear(beat(0, "compute", 2, task=0))
    clock.now += 5
    watch.check()


def test_the_rank_of_a_barrier_task():
    watch = Watch(2, 10.0)
    assert (watch.heard_any(), watch.who(0)) == (False, None)
    watch.hear(beat(1, "compute", 1))
    assert (watch.heard_any(), watch.who(0), watch.who(1)) == (True, "rank 1 on host1", None)


def test_the_error_travels_and_is_one_of_a_lost_rank():
    _, error = named(*FOR_A_MINUTE(still(0, "data")), size=1)
    copy = pickle.loads(pickle.dumps(error))
    assert isinstance(copy, RanksLostError)
    assert (copy.rank, copy.phase, copy.reason) == (0, "data", "rank 0 on host0 stalled in phase 'data'")


@pytest.fixture
def heard():
    """(mailbox, pulses that arrived, a function that waits for one that fulfils a condition)."""
    arrived, came = [], threading.Condition()

    def handler(message):
        with came:
            arrived.append(message)
            came.notify_all()

    def wait_for(condition):
        with came:
            assert came.wait_for(lambda: any(map(condition, arrived)), timeout=20), arrived

    with listening(HOST, handler) as mailbox:
        yield mailbox, arrived, wait_for


def test_a_rank_tells_where_it_is_and_that_it_is_done(heard):
    mailbox, arrived, wait_for = heard
    with sending(mailbox), beating(3, "host3", task=7, every=0.01):
        wait_for(lambda message: message["phase"] == "start" and message["marks"] == 0)
        mark("data")
        with waiting():
            wait_for(lambda message: message["phase"] == "all_reduce" and message["marks"] == 2)
        wait_for(lambda message: message["phase"] == "data" and message["marks"] == 3)
    wait_for(lambda message: message.get("done"))
    assert {(m["kind"], m["rank"], m["host"], m["task"]) for m in arrived} == {("pulse", 3, "host3", 7)}
    assert not any(message.get("done") for message in arrived[:-1])
    with sending(mailbox), beating(3, "host3", every=60):
        wait_for(lambda message: message["task"] == 0 and message["marks"] == 0)  # the next run starts afresh


def test_without_a_driver_to_tell_the_pulse_costs_nothing_and_is_not_kept():
    with sending(None) as sender, beating(0, HOST, every=0.01):
        mark("data")
    assert sender.undelivered == []
    with beating(0, HOST, every=0.01):  # outside a rank
        pass


def test_a_broken_connection_is_made_again(heard):
    mailbox, _, wait_for = heard
    with sending(mailbox) as sender, beating(0, HOST, every=0.01):
        wait_for(lambda message: message["phase"] == "start")
        sender._socket.shutdown(2)
        mark("data")
        wait_for(lambda message: message["phase"] == "data")
    assert sender.undelivered == []


RANK = """
import sys, threading
from sparkdl.train import messages
from sparkdl.train.messages import Mailbox, sending
from sparkdl.train.pulse import beating
mailbox = Mailbox(sys.argv[1], int(sys.argv[2]), bytes.fromhex(sys.argv[3])) if len(sys.argv) > 3 else None
parent = int(sys.argv[-1]) if len(sys.argv) == 2 else None
with sending(mailbox), beating(0, "here", parent=parent, every=0.05):
    print("up", flush=True)
    threading.Event().wait()
"""


def start_rank(*arguments):
    return subprocess.Popen([sys.executable, "-c", RANK, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_a_rank_ends_itself_when_its_parent_is_gone():
    with start_rank(str(os.getppid())) as rank:  # as if another had been its parent
        assert rank.wait(timeout=60) == ORPHANED
        assert b"its parent process is gone" in rank.stderr.read()


def test_a_rank_ends_itself_when_the_driver_listens_no_more():
    up = threading.Event()
    with contextlib.ExitStack() as stack:
        with listening(HOST, lambda message: up.set()) as mailbox:
            rank = stack.enter_context(start_rank(mailbox.host, str(mailbox.port), mailbox.secret.hex()))
            stack.callback(rank.kill)
            assert up.wait(60)
        assert rank.wait(timeout=60) == ORPHANED
        assert b"the driver no longer listens" in rank.stderr.read()


def test_marks_are_counted():
    before = pulse._here.marks
    mark("compute")
    assert (pulse._here.phase, pulse._here.marks) == ("compute", before + 1)
    with contextlib.suppress(KeyError), waiting():
        assert pulse._here.phase == "all_reduce"
        raise KeyError
    assert (pulse._here.phase, pulse._here.marks) == ("compute", before + 3)
    messages.beat(rank=0)  # outside a rank: nothing
