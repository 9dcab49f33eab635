"""Set-up: what it decides, what it refuses, and that an interrupted one is mended."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def load(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


bootstrap = load("bootstrap")
Stamp = bootstrap.Stamp


@pytest.mark.parametrize(
    ("stamp", "python", "compiler", "expected"),
    [
        (None, None, True, "anew"),  # a fresh clone
        (None, "/py311", True, "anew"),  # interrupted: what is there cannot be trusted
        (Stamp("now", "/py311", True), "/py311", True, "nothing"),
        (Stamp("now", "/py311", True), "/py311", False, "nothing"),  # the compiler went: Horovod is built already
        (Stamp("now", "/py311", True), None, True, "anew"),  # the interpreter was removed
        (Stamp("now", "/py311", True), "/py312", True, "anew"),  # python3 is another one since
        (Stamp("before", "/py311", True), "/py311", True, "update"),  # the lock changed
        (Stamp("now", "/py311", False), "/py311", False, "nothing"),  # no compiler then, none now
        (Stamp("now", "/py311", False), "/py311", True, "update"),  # a compiler came
    ],
)
def test_what_there_is_to_do(stamp, python, compiler, expected):
    assert bootstrap.to_do(stamp, "now", python=python, compiler=compiler) == expected


@pytest.fixture
def project(tmp_path):
    """A copy of what a set-up reads."""
    for name in ("locks/latest.txt", "locks/spark35.txt", "locks/tools.txt", *bootstrap.SOURCES):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def test_the_key_changes_with_everything_a_lane_is_made_from(project):
    def key(**change):
        return bootstrap.lane_key(**{"root": project, "lane": "latest", "flavour": "", **change})

    first = key()
    assert key() == first
    keys = {first, key(lane="spark35"), key(flavour="cuda|/cuda/bin/nvcc")}
    for name in ("locks/latest.txt", *bootstrap.SOURCES):
        (project / name).write_text((project / name).read_text() + "#")
        keys.add(key())
    assert len(keys) == 4 + len(bootstrap.SOURCES)
    moved = shutil.copytree(project, project.parent / "moved")
    assert key(root=moved) not in keys  # a venv's scripts name the place it was made in


def test_a_stamp_is_read_back_and_a_broken_one_is_none(tmp_path):
    assert bootstrap.read_stamp(tmp_path / "no venv") is None
    bootstrap.write_stamp(tmp_path, Stamp("key", "/py311", True))
    assert bootstrap.read_stamp(tmp_path) == Stamp("key", "/py311", True)
    assert [path.name for path in tmp_path.iterdir()] == ["sparkdl-stamp.json"]
    for text in ("", '{"key": "k', "[]", '{"key": "k"}', '{"key": "k", "python": "p", "horovod": true, "more": 1}'):
        (tmp_path / "sparkdl-stamp.json").write_text(text)
        assert bootstrap.read_stamp(tmp_path) is None


@pytest.mark.parametrize(
    ("version", "headers", "first"),
    [
        ((3, 11), True, ["--python", "/py"]),
        ((3, 12), True, ["--python", "/py"]),
        ((3, 12), False, ["--managed-python", "--python", ">=3.11,<3.13"]),  # a distribution's, without python3-dev
        ((3, 10), True, ["--managed-python", "--python", ">=3.11,<3.13"]),
        ((3, 14), True, ["--managed-python", "--python", ">=3.11,<3.13"]),
    ],
)
def test_which_python_a_lane_gets(version, headers, first):
    requests = bootstrap.python_requests(version, "/py", headers=headers)
    assert requests[0] == first
    assert requests[-1] == ["--python", ">=3.11,<3.13"]


def setup(*args, **env):
    command = [sys.executable, ROOT / "scripts/bootstrap.py", *args]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | env, stdin=subprocess.DEVNULL)


@pytest.mark.parametrize(
    ("manager", "command"),
    [
        ("apt-get", "apt-get install -y openjdk-17-jdk-headless"),
        ("dnf", "dnf install -y java-17-openjdk-devel"),
        ("apk", "apk add openjdk17-jdk"),
        ("brew", "brew install openjdk@17"),
    ],
)
@pytest.mark.parametrize("java", ["none", "8"])
def test_without_java_it_stops_with_the_command_of_this_platform(tmp_path, manager, command, java):
    write_program(tmp_path / manager, "")
    env = {"PATH": str(tmp_path), "JAVA_HOME": ""}
    if java == "8":
        write_program(tmp_path / "java", "echo 'openjdk version \"1.8.0_392\"' >&2")
    done = setup("latest", **env)
    assert done.returncode == 1
    assert command in done.stderr
    assert ("no `java` on the PATH" if java == "none" else "is Java 8, Spark 4 needs 17") in done.stderr
    assert "Traceback" not in done.stderr


def write_program(path, body):
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def test_an_unknown_lane_is_refused():
    done = setup("newest")
    assert done.returncode == 2
    assert "newest" in done.stderr


class Steps:
    """Stands for uv and the build: records the steps, does what the next one relies on, stops where told."""

    def __init__(self, venv, stop_at=None, build_status=0):
        self.venv, self.stop_at, self.build_status, self.seen = venv, stop_at, build_status, []

    def __call__(self, what, command, *, allowed=(0,), silent=False):
        self.seen.append(what)
        if what == "venv":
            (self.venv / "bin").mkdir(parents=True)
            (self.venv / "bin/python").symlink_to(sys.executable)
        if what == "sparkdl":
            (self.venv / "half-made").touch()
        if what == self.stop_at:
            raise KeyboardInterrupt
        return self.build_status if what == "Horovod" else 0


@pytest.fixture
def lane(project, monkeypatch):
    monkeypatch.setattr(bootstrap, "ROOT", project)
    monkeypatch.setattr(bootstrap, "set_up_tools", lambda run: Path("uv"))
    return project / ".venv/latest"


ALL = ["venv", "packages from the cache", "sparkdl", "Horovod"]


def test_a_second_set_up_does_nothing(lane):
    assert bootstrap.set_up_lane(first := Steps(lane), "latest").horovod
    bootstrap.set_up_lane(second := Steps(lane), "latest")
    assert (first.seen, second.seen) == (ALL, [])


@pytest.mark.parametrize("stop_at", ALL)
def test_an_interrupted_set_up_is_made_anew(lane, stop_at):
    with pytest.raises(KeyboardInterrupt):
        bootstrap.set_up_lane(Steps(lane, stop_at), "latest")
    assert bootstrap.read_stamp(lane) is None
    (lane / "left over").touch()
    bootstrap.set_up_lane(again := Steps(lane), "latest")
    assert again.seen == ALL
    assert not (lane / "left over").exists()
    assert bootstrap.read_stamp(lane)


def test_an_interpreter_that_went_is_replaced(lane):
    bootstrap.set_up_lane(Steps(lane), "latest")
    (lane / "bin/python").unlink()
    (lane / "bin/python").symlink_to("/gone/python3.11")
    bootstrap.set_up_lane(again := Steps(lane), "latest")
    assert again.seen == ALL


def test_a_changed_lock_is_followed_without_a_new_venv(lane, project):
    bootstrap.set_up_lane(Steps(lane), "latest")
    (project / "locks/latest.txt").write_text("torch==3\n")
    bootstrap.set_up_lane(again := Steps(lane), "latest")
    assert again.seen == ALL[1:]


def test_an_interrupted_update_is_made_anew(lane, project):
    bootstrap.set_up_lane(Steps(lane), "latest")
    (project / "locks/latest.txt").write_text("torch==3\n")
    with pytest.raises(KeyboardInterrupt):
        bootstrap.set_up_lane(Steps(lane, "sparkdl"), "latest")
    bootstrap.set_up_lane(again := Steps(lane), "latest")
    assert again.seen == ALL


def test_without_a_compiler_it_goes_on_and_builds_when_one_comes(lane, monkeypatch):
    monkeypatch.setattr(bootstrap.system, "find_compiler", lambda env: None)
    stamp = bootstrap.set_up_lane(Steps(lane, build_status=bootstrap.NO_COMPILER_EXIT), "latest")
    assert not stamp.horovod
    bootstrap.set_up_lane(again := Steps(lane), "latest")
    assert again.seen == []
    monkeypatch.setattr(bootstrap.system, "find_compiler", lambda env: "/usr/bin/g++")
    assert bootstrap.set_up_lane(then := Steps(lane), "latest").horovod
    assert then.seen == ALL[1:]


def test_the_two_scripts_agree_on_the_exit_status():
    from sparkdl import build_horovod

    assert bootstrap.NO_COMPILER_EXIT == build_horovod.NO_COMPILER_EXIT


def test_the_environment_of_the_steps(monkeypatch):
    monkeypatch.setenv("VIRTUAL_ENV", "/somebody/elses")
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.example/simple")
    monkeypatch.delenv("UV_DEFAULT_INDEX", raising=False)
    env = bootstrap.step_env()
    assert env["PATH"].startswith(str(ROOT / ".venv/tools/bin"))
    assert env["UV_DEFAULT_INDEX"] == "https://mirror.example/simple"
    assert not {"VIRTUAL_ENV", "PYTHONPATH"} & set(env)
