"""`python -m sparkdl doctor`: each verdict as a table, and the command as a user runs it."""

import json
import os
import subprocess
import sys

import pytest

from sparkdl import doctor, system
from sparkdl.doctor import FAIL, OK, WARN, Check, Options

JAVA_8 = 'openjdk version "1.8.0_392"\nOpenJDK Runtime Environment (build 1.8.0_392-b08)'
JAVA_17 = 'openjdk version "17.0.9" 2023-10-17\nOpenJDK Runtime Environment'
JAVA_21 = 'Picked up JAVA_TOOL_OPTIONS: -Xmx1g\nopenjdk version "21" 2023-09-19'


@pytest.fixture
def options(tmp_path):
    return Options(master="local[2]", store=str(tmp_path), env=dict(os.environ))


@pytest.mark.parametrize(
    ("text", "version"), [(JAVA_8, 8), (JAVA_17, 17), (JAVA_21, 21), ("", None), ("no Java runtime present", None)]
)
def test_parse_java_version(text, version):
    assert system.parse_java_version(text) == version


@pytest.fixture
def fake_java(tmp_path):
    """A JAVA_HOME whose `java -version` prints `text`, as Java does, on stderr."""

    def make(text, status=0):
        java = tmp_path / "jdk" / "bin" / "java"
        java.parent.mkdir(parents=True, exist_ok=True)
        java.write_text(f"#!/bin/sh\ncat >&2 <<'END'\n{text}\nEND\nexit {status}\n")
        java.chmod(0o755)
        return {"JAVA_HOME": str(tmp_path / "jdk"), "PATH": os.environ["PATH"]}

    return make


@pytest.mark.parametrize(
    ("text", "status", "verdict", "detail"),
    [
        (JAVA_17, 0, OK, "17"),
        (JAVA_21, 0, OK, "21"),
        (JAVA_8, 0, FAIL, "is Java 8, Spark 4 needs 17 or newer"),
        ("Unable to locate a Java Runtime.", 1, FAIL, "does not run: Unable to locate"),
    ],
)
def test_java(fake_java, options, text, status, verdict, detail):
    check = doctor.java(Options(options.master, options.store, fake_java(text, status)))
    assert (check.status, detail in check.detail) == (verdict, True), check
    assert bool(check.remedy) == (verdict == FAIL)


def test_java_missing(options, tmp_path):
    for env, detail in (
        ({"PATH": str(tmp_path)}, "no `java` on the PATH"),
        (
            {"PATH": os.environ["PATH"], "JAVA_HOME": str(tmp_path)},
            f"JAVA_HOME={tmp_path} has no bin/java (correct it or unset it)",
        ),
    ):
        check = doctor.java(Options(options.master, options.store, env))
        assert check == Check("Java", FAIL, detail, system.remedy("java"))


@pytest.mark.parametrize(
    ("programs", "verdict", "missing"), [("javac mvn", OK, ""), ("mvn", WARN, "javac"), ("javac", WARN, "mvn")]
)
def test_what_the_tests_need(options, tmp_path, programs, verdict, missing):
    for name in programs.split():
        (tmp_path / name).touch(mode=0o755)
    check = doctor.tests(Options(options.master, options.store, {"PATH": str(tmp_path)}))
    assert (check.status, f"`{missing}`" in check.detail) == (verdict, bool(missing))


@pytest.mark.parametrize(
    ("manager", "root", "command"),
    [
        ("apt-get", False, "sudo apt-get update && sudo apt-get install -y openjdk-17-jdk-headless"),
        ("apt-get", True, "apt-get update && apt-get install -y openjdk-17-jdk-headless"),
        ("dnf", False, "sudo dnf install -y java-17-openjdk-devel"),
        ("apk", True, "apk add openjdk17-jdk"),
        ("brew", False, "brew install openjdk@17"),
        (None, False, "install a JDK, 17 or 21, and put its `java` on the PATH (or set JAVA_HOME)"),
    ],
)
def test_the_command_that_installs_java(manager, root, command):
    assert system.install_command("java", manager, root=root) == command


@pytest.mark.parametrize("what", ["java", "maven", "cxx", "python-headers", "venv"])
@pytest.mark.parametrize("manager", ["apt-get", "dnf", "apk", "brew", None])
def test_there_is_a_command_for_everything_everywhere(what, manager):
    command = system.install_command(what, manager, python="3.11", root=True)
    assert command
    assert "{" not in command


@pytest.mark.parametrize(
    ("programs", "manager"), [({"apt-get", "brew"}, "apt-get"), ({"dnf"}, "dnf"), ({"brew"}, "brew"), (set(), None)]
)
def test_package_manager(programs, manager):
    assert system.package_manager(lambda name: name if name in programs else None) == manager


@pytest.mark.parametrize(
    ("version", "verdict"), [((3, 9, 18), FAIL), ((3, 10, 0), OK), ((3, 11, 7), OK), ((3, 14, 0), OK)]
)
def test_python(version, verdict):
    assert doctor.judge_python(version).status == verdict


@pytest.mark.parametrize(
    ("found", "least", "verdict"),
    [
        ("4.3.0", "3.5", OK),
        ("3.5.9", "3.5", OK),
        ("3.4.4", "3.5", FAIL),
        ("2.15.0+cu132", "2.12", OK),
        ("2.9.1", "2.12", FAIL),  # not as text: "2.9" > "2.12"
        ("4.4.0.dev1", "3.5", OK),
        ("2.12+cu132", "2.12.1", FAIL),  # what follows the plus is no part of the version
    ],
)
def test_package(found, least, verdict):
    check = doctor.package("Spark", found, least, module="pyspark")
    assert (check.status, found in check.detail) == (verdict, True)
    assert (check.remedy == f"pip install 'pyspark>={least}'") == (verdict == FAIL)


def test_a_package_that_does_not_import():
    check = doctor.required("Spark", "no_such_spark", "3.5")
    assert check == Check(
        "Spark", FAIL, "ModuleNotFoundError: No module named 'no_such_spark'", "pip install 'no_such_spark>=3.5'"
    )


@pytest.mark.parametrize(
    ("found", "verdict", "detail"),
    [
        (("2.15.0+cu132", "2.15.0+cu132", ""), OK, "built for torch 2.15.0+cu132"),
        (("2.14.0", "2.15.0", ""), FAIL, "built for torch 2.14.0, here is torch 2.15.0"),
        (("2.15.0", "2.15.0", "undefined symbol: _ZN5torch"), FAIL, "does not load: undefined symbol"),
        ((None, "2.15.0", ""), FAIL, "built for torch None"),  # a Horovod without PyTorch
        (None, WARN, "training uses torch.distributed instead"),
    ],
)
def test_horovod(found, verdict, detail):
    check = doctor.judge_horovod(found)
    assert (check.status, detail in check.detail) == (verdict, True)
    assert (check.remedy == doctor.BUILD) == (verdict != OK)


@pytest.mark.parametrize(("torch", "nccl", "verdict"), [(True, True, OK), (True, False, WARN), (False, False, WARN)])
def test_cuda(torch, nccl, verdict):
    assert doctor.judge_cuda(torch=torch, nccl=nccl).status == verdict


@pytest.mark.parametrize(
    ("asked", "found", "prefix", "verdict"),
    [
        ("/venv/bin/python", "/venv/bin/python", "/venv", OK),
        (None, "/venv/bin/python3", "/venv", OK),  # an activated venv
        (None, "/usr/bin/python3", "/usr", FAIL),  # the classic: No module named 'pyarrow'
        ("python3", "/usr/bin/python3", "/usr", FAIL),
        ("/gone/bin/python", None, None, FAIL),
        (None, None, None, FAIL),
    ],
)
def test_worker_python(asked, found, prefix, verdict):
    check = doctor.judge_worker_python(asked, found, prefix, "/venv", "/venv/bin/python")
    assert check.status == verdict
    assert (check.remedy == "export PYSPARK_PYTHON=/venv/bin/python") == (verdict == FAIL)


def test_two_venvs_of_one_python_are_two_pythons(options, tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "other"], check=True)
    for python, verdict in ((tmp_path / "other/bin/python", FAIL), (sys.executable, OK)):
        env = options.env | {"PYSPARK_PYTHON": str(python)}
        assert doctor.worker_python(Options(options.master, options.store, env)).status == verdict


@pytest.mark.parametrize(
    ("master", "slots"),
    [
        ("local", 1),
        ("local[1]", 1),
        ("local[4]", 4),
        ("local[*]", 8),
        ("local[2, 3]", 2),  # 3 is the failures a task is allowed
        ("local-cluster[2,1,1024]", 2),
        ("local-cluster[2, 4, 1024]", 8),
        ("spark://host:7077", None),
        ("yarn", None),
    ],
)
def test_slots_of_master(master, slots):
    assert system.slots_of_master(master, cores=8) == slots


@pytest.mark.parametrize(("slots", "verdict"), [(1, FAIL), (2, OK), (8, OK), (None, OK)])
def test_slots(slots, verdict):
    assert doctor.judge_slots("local[n]", slots).status == verdict


def test_store(options, tmp_path):
    assert doctor.store(options).status == OK
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("in the way")
    check = doctor.store(Options(options.master, str(tmp_path / "file"), options.env))
    assert check.status == FAIL
    assert str(tmp_path / "file") in check.detail
    assert check.remedy


def test_a_check_that_blows_up_is_a_finding(options):
    def worker_moon(_):
        raise ZeroDivisionError("so unforeseen")

    check = doctor.run_check(worker_moon, options)
    assert check == Check("worker moon", FAIL, "ZeroDivisionError: so unforeseen", check.remedy)


def test_a_launch_is_not_tried_on_broken_ground(options, monkeypatch):
    monkeypatch.setattr(doctor, "CHECKS", (lambda _: Check("Java", FAIL, "none", "install it"),))
    assert [c.status for c in doctor.diagnose(options, with_launch=True)] == [FAIL, FAIL]
    assert "Java" in doctor.diagnose(options, with_launch=True)[1].detail


def test_one_line_a_check():
    text = doctor.line(Check("Java", FAIL, "two\nlines", "mend it"))
    assert text == "fail  Java           two lines  →  mend it"


def run_doctor(*args, python=(sys.executable,), **env):
    command = [*python, "-m", "sparkdl", "doctor", *args]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | env)


def test_the_command(tmp_path):
    done = run_doctor("--json", "--store", str(tmp_path), "--master", "local[1]", PYSPARK_PYTHON=sys.executable)
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert list(checks) == [
        "Python", "Java", "Spark", "pyarrow", "torch", "Horovod", "CUDA", "petastorm",
        "worker Python", "host name", "slots", "store", "tests",
    ]  # fmt: skip
    assert checks["Spark"]["status"] == checks["torch"]["status"] == checks["worker Python"]["status"] == OK
    assert checks["slots"]["status"] == FAIL
    assert checks["slots"]["remedy"] == "--master 'local[2]'"
    assert done.returncode == 1


def test_it_runs_where_nothing_is_installed(tmp_path):
    """Without site-packages: no pyspark, torch, pyarrow. It must say so, line by line."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(doctor.__file__)))
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    done = run_doctor(python=(str(tmp_path / "bare/bin/python"),), PYTHONPATH=root)
    assert done.returncode == 1
    assert not done.stderr
    lines = {line.split()[1]: line for line in done.stdout.splitlines()}
    for name in ("Spark", "pyarrow", "torch"):
        assert lines[name].startswith("fail")
        assert f"pip install '{'pyspark' if name == 'Spark' else name}>=" in lines[name]
    assert lines["Horovod"].startswith("warn")
