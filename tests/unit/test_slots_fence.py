"""A run that stands still at any point, and comes back when another has taken its slot over, does not commit."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import slot_driver
from slot_driver import KEY, SLOT, ledger_of, run, sink_of

from sparkdl import store
from sparkdl.score import fence, staging
from sparkdl.score.staging import Staging
from sparkdl.slots import lease, manifest
from sparkdl.slots.ledger import DONE, SCORING

pytestmark = pytest.mark.lane("spark35")

HERE = Path(slot_driver.__file__)
EARLY = ("before the holder", "before the lease")  # of a run that has not begun
FIRST = ("with the lease", "before the plan", "before a piece", "in a piece")
COMMIT = ("before the manifest", "before the gate", "in the gate", "before the table")
LATE = ("after the table", "before the ledger")
CASES = [
    *((point, ()) for point in (*EARLY, *FIRST, *COMMIT, *LATE)),
    *((point, ("--rescore",)) for point in (*COMMIT, *LATE)),
    *(
        (point, ("--rescore", "--rename"))
        for point in ("in the gate", "before the table", "old away", "after the table")
    ),
]


def rows(folder):
    """Who scored each piece of the table; each must be there once."""
    found = pq.read_table(sink_of(folder), partitioning=None).to_pylist()
    assert sorted(row["piece"] for row in found) == [0, 1]
    return {row["piece"]: row["by"] for row in found}


def stopped(folder, point, flags=()):
    """A run that stands at the point."""
    process = subprocess.Popen(
        [sys.executable, HERE, folder, "late", point, *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status), process.stdout.read()
    return process


def go_on(process):
    """Its exit status and what it said."""
    process.send_signal(signal.SIGCONT)
    _, status = os.waitpid(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    said = process.stdout.read()
    process.stdout.close()
    return process.returncode, said


@pytest.mark.parametrize(("point", "flags"), CASES)
def test_a_run_that_stood_still_does_not_commit_late(tmp_path, monkeypatch, point, flags):
    folder, rescore = str(tmp_path), "--rescore" in flags
    if "--rename" in flags:
        monkeypatch.setattr(store, "exchange", lambda *_: False)
    if rescore:
        run(folder, "old")
    late = stopped(folder, point, flags)
    try:
        _, taken = run(folder, "next", rescore=rescore and point in EARLY)
        before, found = rows(folder), manifest.of(sink_of(folder))
        status, said = go_on(late)
    finally:
        late.kill()
    assert rows(folder) == before, "the table is what it was before the late one went on"
    assert manifest.of(sink_of(folder)) == found
    entry = ledger_of(folder).entry(SLOT)
    assert (entry.state, entry.run, entry.files) == (DONE, found["run"], found["sha256"])
    if point in EARLY:  # it had no lease yet: it gets one now, and finds the slot done
        assert (status, before) == (0, {0: "next", 1: "next"})
        return
    assert status == 75, said
    assert "another has taken the slot over" in said
    if point in LATE:
        assert before == {0: "late", 1: "late"}, "what it had committed is found"
        assert taken is None
    else:
        expected = {"with the lease": [], "before the plan": [], "before a piece": [0], "in a piece": [0]}.get(
            point, [0, 1]
        )
        assert taken == expected, "what it had finished is taken up"
        assert found["run"] == "next"
    attempts = ledger_of(folder).attempts()
    assert [(each["run"], each["state"]) for each in attempts][-2:] == [("late", "lost"), ("next", "done")]


def test_what_late_tasks_write_is_never_a_table_nor_in_the_way(tmp_path):
    """Tasks that outlive their driver make their folders anew; the driver that comes back has no gate to go through."""
    folder, sink = str(tmp_path), sink_of(str(tmp_path))
    ledger = ledger_of(folder)
    late = lease.asked_for(ledger, SLOT, sink, "late", 0.01, seen=None, rescore=False)
    place, _ = Staging(sink, KEY, token=late.token).planned(lambda: slot_driver.PIECES)
    run(folder, "next")
    before = rows(folder)
    again, pieces = place.planned(lambda: slot_driver.PIECES)  # the folder is made anew, with a plan of its own
    files = [slot_driver.attempt(again, number, "late") for number in range(len(pieces))]
    with pytest.raises(OSError, match=r"cannot rename .* No such file or directory"):
        again.commit({}, files=files, overwrite=True)
    assert rows(folder) == before
    assert fence.tokens(sink) == [late.token]
    token, _ = run(folder, "third", rescore=True)
    assert fence.number(token) > fence.number(late.token)
    assert os.listdir(os.path.dirname(sink)) == [os.path.basename(sink)], "the next run clears it away"


def test_a_run_that_died_while_it_took_over_loses_nothing(tmp_path):
    folder, sink = str(tmp_path), sink_of(str(tmp_path))
    ledger = ledger_of(folder)
    first = lease.asked_for(ledger, SLOT, sink, "first", 0.01, seen=None, rescore=False)
    place, _ = Staging(sink, KEY, token=first.token).planned(lambda: slot_driver.PIECES)
    slot_driver.attempt(place, 0, "first")
    second = f"{fence.number(first.token) + 1}-{'0' * 8}"
    fence.make(sink, second)  # it had fenced the first, and taken nothing up, when it died
    store.move(staging.holder(sink, first.token), os.path.join(staging.holder(sink, second), f"taken-{first.token}"))
    _, taken = run(folder, "third")
    assert taken == [0]
    assert rows(folder) == {0: "first", 1: "third"}


def test_pieces_of_another_key_are_not_taken_up(tmp_path):
    folder, sink = str(tmp_path), sink_of(str(tmp_path))
    first = lease.asked_for(ledger_of(folder), SLOT, sink, "first", 0.01, seen=None, rescore=False)
    place, _ = Staging(sink, "b" * 32, token=first.token).planned(lambda: slot_driver.PIECES)
    slot_driver.attempt(place, 0, "first")
    assert run(folder, "second")[1] == []
    assert rows(folder) == {0: "second", 1: "second"}
    assert os.listdir(os.path.dirname(sink)) == [os.path.basename(sink)]


def test_tokens_grow_past_those_of_a_ledger_that_was_lost(tmp_path):
    """A run of the old ledger stands still; by the new one another works: its token is greater, so it fences."""
    folder, sink = str(tmp_path), sink_of(str(tmp_path))
    for _ in range(3):
        old = lease.asked_for(
            ledger_of(folder), SLOT, sink, "old", 0.0, seen=ledger_of(folder).entry(SLOT), rescore=False
        )
    assert ledger_of(folder).entry(SLOT).state == SCORING
    os.remove(os.path.join(folder, "ledger.sqlite"))
    token, _ = run(folder, "new")
    assert fence.number(token) > fence.number(old.token)
    assert fence.tokens(sink) == []


def test_a_table_that_was_renamed_away_is_back_as_soon_as_the_slot_is_taken_over(tmp_path):
    """Not when the next run is done: it may fail."""
    folder, sink = str(tmp_path), sink_of(str(tmp_path))
    run(folder, "old")
    late = stopped(folder, "old away", ("--rescore", "--rename"))
    try:
        assert not os.path.exists(sink)
        ledger, mine = ledger_of(folder), None
        while mine is None:
            mine = lease.asked_for(ledger, SLOT, sink, "next", 60, seen=ledger.entry(SLOT), rescore=False)
        fence.take_over(sink, mine.token, KEY)
        assert rows(folder) == {0: "old", 1: "old"}
        status, said = go_on(late)
    finally:
        late.kill()
    assert (status, "another has taken the slot over" in said) == (75, True), said
    assert rows(folder) == {0: "old", 1: "old"}
