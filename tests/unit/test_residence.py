"""Places on a device, between real processes: a bounded number has one, and nobody waits behind one that idles."""

import os
import select
import subprocess
import sys
import tempfile

import pytest

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
signal.alarm(100)  # so that a test which waits for what never comes ends
residence.logger.addHandler(Saying())
residence.logger.setLevel(logging.INFO)
tasks, is_stubborn = [], False
say("ready")
for line in sys.stdin:
    word, *rest = line.split()
    if word == "enter":
        tasks.append(contextlib.ExitStack())
        tasks[-1].enter_context(residence.held(torch.device("cpu", int(rest[0])), int(rest[1]), on_evict=evict))
    elif word == "leave":
        say("leaves")
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
