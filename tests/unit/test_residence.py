"""Places on a device, between real processes: a bounded number has one, and nobody waits behind one that idles."""

import os
import select
import subprocess
import sys
import tempfile
import threading

import numpy as np
import pytest
import torch
from making import signature, spec
from torch import nn

from sparkdl.bundle import Bundle
from sparkdl.score import engine, residence, worker
from sparkdl.score.scorer import Scorer
from sparkdl.score.scoring import Scoring

CHILD = """
import contextlib, logging, signal, sys, threading, time, torch
from sparkdl.score import residence

def say(*words):
    print(time.monotonic_ns(), *words, flush=True)

class Saying(logging.Handler):
    def emit(self, record):
        say(record.getMessage().split()[0])

def evict():
    say("evicted")
    if is_stubborn:
        raise RuntimeError("it stays")

looks, look = threading.Semaphore(0), residence._is_queued_for

def counted(name):
    found = look(name)
    looks.release()
    return found

residence._is_queued_for = counted
residence.PAUSE_S = 1.0
signal.alarm(100)  # so that a test which waits for what never comes ends
residence.logger.addHandler(Saying())
residence.logger.setLevel(logging.INFO)
tasks, is_stubborn = [], False
say("ready")
for line in sys.stdin:
    word, *rest = line.split()
    if word == "enter":
        device = torch.device("cpu", int(rest[0]))
        tasks.append(contextlib.ExitStack())
        tasks[-1].enter_context(residence.held(device, int(rest[1]), on_evict=evict))
    elif word == "leave":
        say("leaves")
        tasks.pop().close()
        residence.ended(device)
    elif word == "pause":
        say("pauses")
        tasks.pop().close()
    elif word == "looked":  # as often as it takes for the last look to be one that began after this was asked
        while looks.acquire(blocking=False):
            pass
        looks.acquire()
        looks.acquire()
    elif word == "stubborn":
        is_stubborn = True
    say(word)
"""


class Process:
    def __init__(self, folder):
        self.folder = folder
        self.popen = subprocess.Popen(
            [sys.executable, "-c", CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": folder},
        )

    def ask(self, *words):
        print(*words, file=self.popen.stdin, flush=True)

    def hears(self, *expected):
        """When it said each of these words, which are what it says next."""
        said = [self.popen.stdout.readline().split() for _ in expected]
        assert [line[1] for line in said if line] == list(expected)
        return [int(line[0]) for line in said]

    def enters(self, device, limit=1):
        self.ask("enter", device, limit)
        self.hears("enter")

    def pauses(self):
        self.ask("pause")
        return self.hears("pauses", "pause")[0]

    def leaves(self):
        self.ask("leave")
        return self.hears("leaves", "leave")[0]


@pytest.fixture(scope="module")
def start():
    started = []

    with tempfile.TemporaryDirectory() as folder:

        def another():
            started.append(Process(folder))
            return started[-1]

        yield another
        for process in started:
            process.popen.kill()
            process.popen.communicate()


@pytest.fixture(scope="module")
def processes(start):
    """Three; each test has a device of its own."""
    three = [start() for _ in range(3)]
    for process in three:
        process.hears("ready")
    return three


def test_one_that_idles_gives_its_place_to_one_that_waits(processes):
    one, two, _ = processes
    one.enters(1)
    two.ask("enter", 1, 1)
    two.hears("waiting")
    left = one.leaves()
    (evicted,) = one.hears("evicted")
    (entered,) = two.hears("enter")
    assert left < evicted < entered
    two.leaves()


def test_one_that_nobody_waits_for_keeps_its_place_between_tasks(processes):
    one, two, _ = processes
    for _ in range(3):
        one.enters(2)
        one.leaves()
        one.ask("looked")
        one.hears("looked")
    one.enters(2)
    two.ask("enter", 2, 1)
    two.hears("waiting")
    one.leaves()
    one.hears("evicted")
    two.hears("enter")
    two.leaves()


def test_tasks_of_a_process_share_its_place(processes):
    one, two, _ = processes
    one.enters(3)
    one.enters(3)
    two.ask("enter", 3, 1)
    two.hears("waiting")
    one.leaves()
    last = one.leaves()
    (evicted,) = one.hears("evicted")
    assert evicted > last
    two.hears("enter")
    two.leaves()


def test_as_many_as_the_limit_says(processes):
    one, two, three = processes
    one.enters(4, 2)
    two.enters(4, 2)
    three.ask("enter", 4, 2)
    three.hears("waiting")
    left = two.leaves()
    (evicted,) = two.hears("evicted")
    (entered,) = three.hears("enter")
    assert left < evicted < entered
    one.leaves()
    three.leaves()


def test_a_task_that_waits_for_rows_gives_way_so_that_none_waits_for_ever(processes):
    """As where two models of one query have one place, and each waits for what the other one makes."""
    one, two, _ = processes
    one.enters(11)
    two.ask("enter", 11, 1)
    two.hears("waiting")
    paused = one.pauses()
    one.hears("a")  # what it logs: a task without rows gives its place
    (evicted,) = one.hears("evicted")
    assert evicted - paused > 1.0 * 1e9
    two.hears("enter")
    two.pauses()
    one.ask("enter", 11, 1)
    one.hears("waiting")
    two.hears("a", "evicted")
    one.hears("enter")
    one.leaves()


def test_a_task_that_waits_for_rows_keeps_its_place_from_nobody_but_itself(processes):
    one, two, _ = processes
    one.enters(12)
    for _ in range(3):
        one.pauses()
        one.ask("looked")
        one.hears("looked")
        one.enters(12)
    two.ask("enter", 12, 1)
    two.hears("waiting")
    one.leaves()
    one.hears("evicted")
    two.hears("enter")
    two.leaves()


def test_devices_have_places_of_their_own(processes):
    for device, process in enumerate(processes, start=5):
        process.enters(device)
    for process in processes:
        process.leaves()


def test_all_who_wait_get_their_turn(processes):
    one, two, three = processes
    one.enters(8)
    for process in (two, three):
        process.ask("enter", 8, 1)
        process.hears("waiting")
    one.leaves()
    one.hears("evicted")
    ready, _, _ = select.select([two.popen.stdout, three.popen.stdout], [], [])
    first, second = (two, three) if two.popen.stdout in ready else (three, two)
    first.hears("enter")
    first.leaves()
    first.hears("evicted")
    second.hears("enter")
    second.leaves()


def test_one_that_is_killed_gives_its_place_up(start, processes):
    killed, _, waits = start(), *processes[1:]
    killed.hears("ready")
    killed.enters(9)
    waits.ask("enter", 9, 1)
    waits.hears("waiting")
    killed.popen.kill()
    waits.hears("enter")
    waits.leaves()


def test_a_model_that_cannot_be_dropped_does_not_keep_the_place(start, processes):
    stubborn, waits = start(), processes[0]
    stubborn.hears("ready")
    stubborn.ask("stubborn")
    stubborn.hears("stubborn")
    stubborn.enters(10)
    waits.ask("enter", 10, 1)
    waits.hears("waiting")
    stubborn.leaves()
    stubborn.hears("evicted", "the")  # what it logs: the model could not be dropped
    waits.hears("enter")
    waits.leaves()


# and a worker, which has its model on a device only as long as it has a place


@pytest.fixture
def turns(monkeypatch):
    """Predictors in turn of two bundles, on a device that is the CPU with a number, as GPUs have one."""
    device = torch.device("cpu", 0)
    monkeypatch.setattr(engine, "device_of", lambda name: device)
    monkeypatch.setattr(residence, "PAUSE_S", 0.2)
    monkeypatch.setattr(worker, "_kept", {})
    return [worker.InTurn(scorer(nn.Linear(2, 1)), Scoring(), device) for _ in range(2)]


def scorer(module):
    bundle = Bundle.from_module(module, signature(spec(shape=(2,))))
    return Scorer(bundle.digest, lambda: bundle.files, bundle.signature, Scoring(), False)


def test_a_scorer_gives_way_in_the_middle_of_its_task_and_goes_on(turns, processes, monkeypatch):
    other = processes[0]
    monkeypatch.setattr(tempfile, "tempdir", other.folder)
    x = {"x": np.ones((3, 2), np.float32)}
    first = turns[0].predict(x)["prediction"].tolist()
    assert worker._kept
    other.ask("enter", 0, 1)
    other.hears("waiting", "enter")
    assert not worker._kept
    other.pauses()
    assert turns[0].predict(x)["prediction"].tolist() == first
    other.hears("a", "evicted")
    residence.ended(turns[0].device)


def test_what_gives_way_is_the_model_on_that_device(turns):
    loaded = worker._loaded(turns[0].scorer, Scoring())
    worker._drop_from(torch.device("cuda", 0))
    assert worker._loaded(turns[0].scorer, Scoring()) is loaded
    worker._drop_from(turns[0].device)
    assert not worker._kept


def test_a_place_that_is_given_up_does_not_take_the_model_from_a_task_that_has_just_loaded_it(turns, monkeypatch):
    dropping = threading.Thread(target=worker._drop_from, args=[turns[0].device])

    def task():  # asked for before the model is loaded, and after
        if worker._kept and dropping.ident is None:
            dropping.start()
            dropping.join(0.5)  # it is to wait for the one that loads

    monkeypatch.setattr(worker, "_task", task)
    assert worker._loaded(turns[0].scorer, Scoring()) is not None
    dropping.join()
    assert not worker._kept
