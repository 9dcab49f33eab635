"""scripts/jars.py: what it asks Maven for, what it refuses, and that an interrupted or doubled call leaves a whole set.

The Maven here is a script: what the real one brings is seen by every test that needs a jar.
"""

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time

import kafka
import pytest

jars = kafka.load_jars()
CONTENT = b"a jar"
SHA = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def lock(tmp_path):
    path = tmp_path / "some.txt"
    path.write_text(f"# about\norg.one:first_2.13:1.0 {SHA}\n\norg.two:second:2.0-rc1 {SHA}  # why\n")
    return path


def maven(tmp_path, does="cp_all"):
    """A program that leaves what Maven would, and counts its calls in `calls`."""
    path = tmp_path / "mvn"
    path.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\ncp_all() {{ for f in first_2.13-1.0 second-2.0-rc1; do '
        f"printf 'a jar' > $f.jar; done; }}\n{does}\n"
    )
    path.chmod(0o755)
    return str(path)


def calls(tmp_path):
    path = tmp_path / "calls"
    return path.read_text().splitlines() if path.exists() else []


def test_a_set_is_fetched_once(tmp_path, lock):
    program = maven(tmp_path)
    folder = jars.fetch("some", root=tmp_path / "jars", lock=lock, maven=program)
    assert sorted(path.name for path in folder.glob("*.jar")) == ["first_2.13-1.0.jar", "second-2.0-rc1.jar"]
    assert jars.fetch("some", root=tmp_path / "jars", lock=lock, maven="nothing") == folder
    assert len(calls(tmp_path)) == 1
    assert "copy-dependencies" in calls(tmp_path)[0]
    lock.write_text(lock.read_text() + "# changed\n")
    jars.fetch("some", root=tmp_path / "jars", lock=lock, maven=program)
    (folder / "first_2.13-1.0.jar").unlink()
    jars.fetch("some", root=tmp_path / "jars", lock=lock, maven=program)
    assert len(calls(tmp_path)) == 3
    assert os.listdir(tmp_path / "jars") in (["some", ".lock"], [".lock", "some"])


def test_the_project_names_each_jar_and_nothing_that_it_depends_on(lock):
    text = jars.pom(jars.read_lock(lock))
    assert text.count("<dependency>") == text.count("<artifactId>*</artifactId>") == 2
    assert "<groupId>org.two</groupId><artifactId>second</artifactId><version>2.0-rc1</version>" in text
    assert "<repositor" not in text


@pytest.mark.parametrize(
    ("does", "said"),
    [
        ("cp_all; printf other > second-2.0-rc1.jar", "org.two:second:2.0-rc1: the lock says sha256"),
        ("printf 'a jar' > first_2.13-1.0.jar", "Maven gave no such file"),
        (
            "echo '[INFO] x'; echo '[ERROR] Could not resolve'; exit 1",
            r"Maven failed \(exit status 1\): Could not resolve",
        ),
    ],
)
def test_what_is_not_the_locks_is_refused_and_nothing_is_left(tmp_path, lock, does, said):
    with pytest.raises(jars.JarsError, match=said):
        jars.fetch("some", root=tmp_path / "jars", lock=lock, maven=maven(tmp_path, does))
    assert os.listdir(tmp_path / "jars") == [".lock"]


def test_without_maven_or_with_a_lock_that_is_none(tmp_path, lock):
    with pytest.raises(jars.JarsError, match="there is no 'no-such-maven' on the PATH"):
        jars.fetch("some", root=tmp_path / "jars", lock=lock, maven="no-such-maven")
    lock.write_text("org.one:first:1.0\n")
    with pytest.raises(jars.JarsError, match="line 1: not `group:artifact:version sha256`"):
        jars.fetch("some", root=tmp_path / "jars", lock=lock)


def test_two_at_a_time_fetch_once(tmp_path, lock):
    program = maven(tmp_path, "sleep 0.3; cp_all")
    found = []
    threads = [
        threading.Thread(
            target=lambda: found.append(jars.fetch("some", root=tmp_path / "jars", lock=lock, maven=program))
        )
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [tmp_path / "jars" / "some"] * 3
    assert len(calls(tmp_path)) == 1


def test_a_killed_one_leaves_nothing_that_counts(tmp_path, lock):
    os.mkfifo(tmp_path / "wait")
    program = maven(tmp_path, f"cp_all; cat {tmp_path}/wait > /dev/null")
    code = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[1]); import jars; "
        "jars.fetch('some', root=pathlib.Path(sys.argv[2]), lock=pathlib.Path(sys.argv[3]), maven=sys.argv[4])"
    )
    arguments = [str(jars.ROOT / "scripts"), str(tmp_path / "jars"), str(lock), program]
    process = subprocess.Popen([sys.executable, "-c", code, *arguments])
    until = time.monotonic() + 30
    while not calls(tmp_path) and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "jars" / "some").exists()
    (tmp_path / "wait").write_text("")  # its Maven, which still holds the lock, ends
    folder = jars.fetch("some", root=tmp_path / "jars", lock=lock, maven=maven(tmp_path))
    assert jars.is_whole(folder, lock)
    assert sorted(os.listdir(tmp_path / "jars")) == [".lock", "some"]


@pytest.mark.parametrize(("ci", "ends"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_a_test_without_its_jars_is_skipped_but_in_ci_it_fails(monkeypatch, ci, ends):
    monkeypatch.setattr(kafka, "fetched", lambda name: (None, "no network"))
    monkeypatch.setenv("CI", ci)
    with pytest.raises(ends, match="no jars 'kafka': no network"):
        kafka.require_jars("kafka")
    assert kafka.session_jars() == ""


@pytest.mark.parametrize("name", sorted({name for names in jars.SETS.values() for name in names}))
def test_the_projects_locks_name_each_jar_once(name):
    found = jars.read_lock(jars.LOCKS / f"{name}.txt")
    assert len({(jar.group, jar.artifact) for jar in found}) == len(found) > 0
