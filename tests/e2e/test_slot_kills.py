"""Two schedulers backfill the same days while they are killed, or stand still: each slot is scored once, and whole."""

import os
import random
import signal
import time

import pytest
import slot_scene


@pytest.mark.parametrize(
    ("slots", "kills"),
    [(4, 4), pytest.param(20, 50, marks=pytest.mark.soak)],
)
def test_kills_of_two_schedulers(tmp_path, slots, kills):
    is_long = kills > 10
    scene = slot_scene.Scene(tmp_path, slots, files=3, rows=4000 if is_long else 200, settings={"batchSize": 1})
    killed = []
    slot_scene.killed_backfill(scene, random.Random(7), kills, killed, most_s=8.0 if is_long else 4.0)
    assert len(killed) >= min(kills, 2)
    assert scene.check() == slots
    again = scene.start("--backfill", scene.range)
    assert again.wait() == 0
    assert f'"slots": {{"there already": {slots}}}' in again.said[-1]


@pytest.mark.lane("latest")
def test_a_driver_that_stands_still_ends_when_another_has_its_slot(tmp_path):
    """All of its processes are stopped in the middle of a slot, for longer than its lease."""
    scene = slot_scene.Scene(tmp_path, slots=1, files=2, lease=2)
    day = str(scene.days[0])
    late = scene.start("--date", day)
    try:
        assert late.until("started")
        until = time.monotonic() + slot_scene.PATIENCE_S
        while not list(
            scene.output.glob(f".date={day}.sparkdl.*/*/plan.json")
        ):  # it scores, and is not within the ledger
            assert time.monotonic() < until
            assert late.process.poll() is None
            time.sleep(0.001)
        os.killpg(late.process.pid, signal.SIGSTOP)
        other = scene.start("--date", day, "--set", "wait=60")
        assert other.wait() == 0, "".join(other.said[-20:])
        before = scene.ledger.entry(day)
        assert scene.check() == 1
        os.killpg(late.process.pid, signal.SIGCONT)
        assert late.wait() == 75
    finally:
        late.close()
    assert any("another has taken the slot over" in line for line in late.said)
    assert scene.check() == 1
    assert scene.ledger.entry(day) == before
    assert [each["state"] for each in scene.ledger.attempts()] == ["lost", "done"]
