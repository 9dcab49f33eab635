"""Temporary data goes when its owner ends, or with the next run when the owner was killed; nothing else ever goes."""

import json
import os
import subprocess
import sys
import time

import pytest

from sparkdl.data import lease
from sparkdl.data.lease import FOREIGN_S, OWNER, claim, is_abandoned, is_named, sweep, temporary
from sparkdl.errors import StoreError

NAME = "sparkdl-fit-" + "0" * 32


def test_a_run_has_a_folder_of_its_own_as_long_as_it_lasts(tmp_path):
    with temporary(str(tmp_path)) as run, temporary(str(tmp_path)) as other:
        assert run != other
        assert sorted(os.listdir(tmp_path)) == sorted(os.path.basename(uri) for uri in (run, other))
        assert os.path.basename(run).startswith("sparkdl-fit-")
        assert not is_abandoned(run)
    assert os.listdir(tmp_path) == []


def test_it_goes_also_when_the_run_fails(tmp_path):
    def fail():
        with temporary(str(tmp_path), "sparkdl-search") as run:
            (tmp_path / os.path.basename(run) / "data").write_text("")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert os.listdir(tmp_path) == []


def test_a_killed_process_s_folder_goes_with_the_next_run(tmp_path):
    code = (
        "import sys; from sparkdl.data.lease import temporary\n"
        f"with temporary({str(tmp_path)!r}) as run: print(run, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        run = other.stdout.readline().strip()
        assert sweep(str(tmp_path), "sparkdl-fit") == [], "it lives"
        other.kill()
    owner = (tmp_path / os.path.basename(run) / OWNER).read_bytes()
    for mine in ("data", "sparkdl-fit-notes", "sparkdl-fit-" + "g" * 32, "sparkdl-search-" + "0" * 32):
        (tmp_path / mine).mkdir()
        (tmp_path / mine / OWNER).write_bytes(owner)
    with temporary(str(tmp_path)):
        assert not os.path.exists(run)
    assert len(os.listdir(tmp_path)) == 4, "what is not named as ours stays, whoever owns it"


def owned(tmp_path, **changed):
    folder = tmp_path / NAME
    claim(str(folder))
    told = json.loads((folder / OWNER).read_text())
    (folder / OWNER).write_text(json.dumps(told | changed))
    return str(folder)


def test_an_id_that_was_given_to_another_process_since(tmp_path):
    assert not is_abandoned(owned(tmp_path))
    assert is_abandoned(owned(tmp_path, started=1.0))


@pytest.mark.parametrize("place", [["another host", "", ""], ["", "", ""]])
def test_of_another_host_only_what_is_old(tmp_path, place):
    folder = owned(tmp_path, place=place, pid=2**22, started=1.0)
    now = time.time()
    assert not is_abandoned(folder)
    assert not is_abandoned(folder, now + FOREIGN_S - 60)
    assert is_abandoned(folder, now + FOREIGN_S + 60)
    assert sweep(str(tmp_path), "sparkdl-fit") == []


def test_anything_that_was_written_lately_keeps_it(tmp_path):
    folder = owned(tmp_path, place=["another host", "", ""])
    old = time.time() - FOREIGN_S - 60
    (tmp_path / NAME / "checkpoints").mkdir()
    (tmp_path / NAME / "checkpoints" / "latest").write_text("")
    for path in (tmp_path / NAME).rglob("*"):
        os.utime(path, (old, old))
    os.utime(folder, (old, old))
    assert is_abandoned(folder)
    os.utime(tmp_path / NAME / "checkpoints" / "latest")
    assert not is_abandoned(folder)


@pytest.mark.parametrize("content", [None, b"", b"[]", b"{}", b'{"place": 1, "pid": 2, "started": 3}'])
def test_without_an_owner_that_can_be_read_only_what_is_old(tmp_path, content):
    (tmp_path / NAME).mkdir()
    if content is not None:
        (tmp_path / NAME / OWNER).write_bytes(content)
    assert not is_abandoned(str(tmp_path / NAME))
    assert is_abandoned(str(tmp_path / NAME), time.time() + FOREIGN_S + 60)


def test_what_cannot_be_deleted_is_left_and_does_no_harm(tmp_path, monkeypatch, caplog):
    owned(tmp_path, started=1.0)

    def refuse(uri):
        raise PermissionError(f"not yours: {uri}")

    with monkeypatch.context() as patch, caplog.at_level("INFO"):
        patch.setattr(lease.store, "delete", refuse)
        assert sweep(str(tmp_path), "sparkdl-fit") == []
    assert "not yours" in caplog.text
    assert sweep(str(tmp_path), "sparkdl-fit") == [NAME]


def test_a_place_that_cannot_be_written():
    with pytest.raises(StoreError, match="cannot be written"), temporary("/proc/sparkdl"):
        pass


def test_a_place_that_does_not_exist_yet(tmp_path):
    with temporary(str(tmp_path / "new" / "place")) as run:
        assert os.path.isdir(run)


def test_names():
    assert is_named(NAME, "sparkdl-fit")
    assert not is_named(NAME + "0", "sparkdl-fit")
    assert not is_named("x" + NAME, "sparkdl-fit")
    assert not is_named("sparkdl.fit-" + "0" * 32, "sparkdl-fit")
    assert not is_named(NAME.replace("-fit", "xfit"), "sparkdl.fit")
