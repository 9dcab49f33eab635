"""Many processes at one registry, some killed at any moment: no version and no move is lost, mixed or told twice."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest
from making import signature, spec
from torch import nn

from sparkdl import store
from sparkdl.bundle import Bundle
from sparkdl.errors import RegistryError
from sparkdl.registry import files as files_backend
from sparkdl.registry.registry import Registry

pytestmark = pytest.mark.lane("latest")

PROCESSES = 4
ROUNDS = 20  # each kills one process
OBJECTS = "objects:"  # a folder in which nothing is renamed, as in an object store
_spawning = multiprocessing.get_context("forkserver")  # forked off a process without threads of torch or Arrow
_spawning.set_forkserver_preload(["sparkdl.registry.registry", "torch"])


def registry_at(uri, folder):
    if uri.startswith(OBJECTS):  # in whichever process this is
        store.renames_folders, files_backend.STALE_S = (lambda _: False), 1.0
        return Registry(uri.removeprefix(OBJECTS))
    return Registry(uri, bundles=None if uri.startswith("/") else f"{folder}/bundles")


def publish(uri, folder, place, who, log):
    """Publish bundles that nobody else does, and write down each number that was given."""
    registry, first = registry_at(uri, folder), Bundle.load(place)
    with open(log, "a") as told:
        for n in range(10_000):
            bundle = first.with_training(first.weights, {"who": who, "n": n}, {})
            number = registry.publish("fraud", bundle, by=who)
            told.write(f"{number} {bundle.digest}\n")
            told.flush()


def move(uri, folder, log, most):
    """Move the alias from where it is to the next version, and write down each move that was made."""
    registry = registry_at(uri, folder)
    with open(log, "a") as told:
        for _ in range(most):
            now = registry.resolve("fraud")
            try:
                registry.set_alias("fraud", "champion", now % 3 + 1, expected=now, by=log)
            except RegistryError as error:
                if f"not {now} as expected" not in str(error):
                    raise
                continue
            told.write(f"{now} {now % 3 + 1}\n")
            told.flush()


@pytest.fixture(params=["files", "objects", "sqlite", "postgresql"])
def uri(request, tmp_path, monkeypatch):
    if request.param == "files":
        return f"{tmp_path}/registry"
    if request.param == "objects":
        monkeypatch.setattr(store, "renames_folders", store.renames_folders)  # to be put back
        monkeypatch.setattr(files_backend, "STALE_S", files_backend.STALE_S)
        return f"{OBJECTS}{tmp_path}/registry"
    pytest.importorskip("sqlalchemy")
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/catalogue.db"
    uri = os.environ.get("SPARKDL_TEST_POSTGRES")
    if not uri:
        pytest.skip("SPARKDL_TEST_POSTGRES names no database whose tables may be dropped")
    from sparkdl.registry.sql import MOVES, VERSIONS

    for table in (MOVES, VERSIONS):
        table.drop(registry_at(uri, tmp_path)._backend.engine, checkfirst=True)
    return uri


@pytest.fixture(scope="module")
def bundle():
    return Bundle.from_module(nn.Linear(2, 1), signature(spec("x", shape=(2,))), task="regression")


def lines(paths):
    """What was written down, whole lines only: a killed process may have left half of one."""
    texts = [Path(path).read_text() for path in paths if os.path.exists(path)]
    return [line.split() for text in texts for line in text[: text.rfind("\n") + 1].splitlines()]


def test_publishers_that_are_killed_lose_and_mix_nothing(uri, tmp_path, bundle):
    bundle.save(str(tmp_path / "bundle"))
    logs = [str(tmp_path / f"log-{n}") for n in range(PROCESSES + ROUNDS)]
    arguments = [(uri, str(tmp_path), str(tmp_path / "bundle"), f"p{n}", log) for n, log in enumerate(logs)]
    running = [started(publish, arguments.pop()) for _ in range(PROCESSES)]
    chance = random.Random(0)
    registry = registry_at(uri, tmp_path)
    try:
        for _ in range(ROUNDS):
            before = len(lines(logs))
            wait_until(lambda before=before: len(lines(logs)) >= before + PROCESSES)
            time.sleep(chance.random() * 0.02)  # at any moment
            os.kill(running[0].pid, signal.SIGKILL)
            running.pop(0).join()
            running.append(started(publish, arguments.pop()))
    finally:
        for process in running:
            process.kill()
            process.join()
    versions = registry.versions("fraud")
    acknowledged = {int(number): digest for number, digest in lines(logs)}
    assert len(acknowledged) == len(lines(logs)), "a number was given twice"
    numbers = [version.number for version in versions]
    if uri.startswith(OBJECTS):  # who was killed between claim and record leaves a number out
        assert len(versions) <= numbers[-1] <= len(versions) + PROCESSES + ROUNDS
        assert numbers == sorted(set(numbers))
    else:
        assert numbers == list(range(1, len(versions) + 1))
    assert len({version.digest for version in versions}) == len(versions)
    assert acknowledged.items() <= {version.number: version.digest for version in versions}.items()
    assert len(versions) - len(acknowledged) <= PROCESSES + ROUNDS  # at most one a process was not told any more
    for version in versions:
        assert registry.load("fraud", version.number).digest == version.digest


def test_moves_that_are_expected_are_each_made_once(uri, tmp_path, bundle):
    registry = registry_at(uri, tmp_path)
    for _ in range(3):
        registry.publish("fraud", bundle)
    registry.set_alias("fraud", "champion", 1)
    logs = [str(tmp_path / f"log-{n}") for n in range(PROCESSES)]
    running = [started(move, (uri, str(tmp_path), log, 50)) for log in logs]
    for process in running:
        process.join(120)
        assert process.exitcode == 0
    first, *moves = registry.history("fraud", "champion")
    assert (first.before, first.version) == (None, 1)
    assert [move.before for move in moves] == [1, *(move.version for move in moves[:-1])]
    told = lines(logs)
    assert len(told) == len(moves) > 0
    assert sorted(told) == sorted([str(move.before), str(move.version)] for move in moves)
    assert registry.resolve("fraud") == moves[-1].version


def test_an_alias_names_a_version_at_every_moment(uri, tmp_path, bundle):
    """Whoever looks while it is moved sees one of those it is moved between, and sees it go forward."""
    registry = registry_at(uri, tmp_path)
    for _ in range(3):
        registry.publish("fraud", bundle)
    registry.set_alias("fraud", "champion", 1)
    mover = started(move, (uri, str(tmp_path), str(tmp_path / "log"), 60))
    seen = []
    while mover.is_alive():
        seen.append((registry.resolve("fraud"), len(registry.history("fraud", "champion"))))
    mover.join()
    assert mover.exitcode == 0
    assert {version for version, _ in seen} <= {1, 2, 3}
    assert [moves for _, moves in seen] == sorted(moves for _, moves in seen)
    assert len(registry.history("fraud", "champion")) == 61


def started(target, arguments):
    process = _spawning.Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


def wait_until(is_so, seconds=60.0):
    """Processes tell of what they did in files, which nobody wakes us for."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.005)
