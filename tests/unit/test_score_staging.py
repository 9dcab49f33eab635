"""A table is made beside its place and becomes it in one step; what a dead run had finished is taken up."""

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from sparkdl import store
from sparkdl.data import lease
from sparkdl.errors import StoreError
from sparkdl.score import staging
from sparkdl.score.pieces import RowGroup, SourceFile, cut
from sparkdl.score.staging import Staging
from sparkdl.score.written import MANIFEST, check_sink, committed

KEY, OTHER = "a" * 32, "b" * 32
PIECES = cut([SourceFile("x.parquet", (), (RowGroup(5, 5), RowGroup(1 << 20, 7)))], 1)


@pytest.fixture(autouse=True)
def _claims_of_dead_processes(monkeypatch):
    monkeypatch.setattr(staging, "_claimed", set())


@pytest.fixture
def sink(tmp_path):
    return str(tmp_path / "table")


def attempt(place, number, value, folder=""):
    """An attempt at a piece that wrote one file of one row."""
    name = os.path.join(folder, f"part-{number}-{value}.parquet")
    path = os.path.join(place.work(f"w{value}"), name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    pq.write_table(pa.table({"x": [value]}), path)
    told = {"files": [name], "rows": 1}
    place.finish(number, f"w{value}", told)
    return told


def claimed(sink, key=KEY):
    """A place of this process, with its plan."""
    place = Staging(sink, key)
    place.claim()
    return place.planned(lambda: PIECES)[0]


def make(sink, key, *values, overwrite=False):
    place = claimed(sink, key)
    files = [attempt(place, i, value)["files"][0] for i, value in enumerate(values)]
    place.commit({"rows": len(values)}, files=files, overwrite=overwrite)


def values(sink):
    return sorted(pq.read_table(sink)["x"].to_pylist())


def test_a_table_comes_whole_and_is_known_again(sink, tmp_path):
    assert committed(sink, KEY, overwrite=False) is None
    make(sink, KEY, 1, 2)
    assert values(sink) == [1, 2]
    assert os.listdir(tmp_path) == ["table"]
    assert committed(sink, KEY, overwrite=False) == {"rows": 2}
    assert committed(sink, KEY, overwrite=True) == {"rows": 2}


def test_files_of_lost_attempts_are_not_in_it(sink):
    place = claimed(sink)
    attempt(place, 0, 1)
    again = attempt(place, 0, 2)  # a second attempt at the same piece: the last marker counts
    assert place.finished(0) == again
    os.makedirs(place.work("dead"))
    attempt(place, 0, 3, "k=1/m=2")
    place.commit({}, files=again["files"], overwrite=False)
    assert values(sink) == [2]
    assert sorted(os.listdir(sink)) == sorted([MANIFEST, *again["files"]]), "no empty folder either"


def test_a_piece_whose_file_is_gone_is_not_finished(sink):
    place = claimed(sink)
    told = attempt(place, 3, 1, "k=1")
    assert place.markers() == [3]
    assert place.finished(3) == told
    os.remove(os.path.join(place.table, told["files"][0]))
    assert place.finished(3) is None
    with pytest.raises(StoreError, match=r"is not in .* any more"):
        place.commit({}, files=told["files"], overwrite=False)
    assert not os.path.exists(sink)


def test_the_first_run_s_plan_holds(sink):
    place = Staging(sink, KEY)
    first, pieces = place.planned(lambda: PIECES)
    assert pieces == PIECES
    assert place.planned(lambda: pytest.fail("planned twice")) == (first, PIECES)


def test_a_piece_of_another_plan_is_not_finished(sink, tmp_path):
    """Run 1 is interrupted, and leaves nothing; a task of it that still runs does not finish a piece of run 2."""
    late = claimed(sink)
    late.leave()
    place = claimed(sink)
    with pytest.raises(StoreError, match=r"the run that made .* is over, and so is its piece 0"):
        attempt(late, 0, 1)
    assert (place.finished(0), late.finished(0)) == (None, None)
    place.leave()
    with pytest.raises(StoreError, match="is over"):
        attempt(late, 0, 1)


def test_a_late_attempt_does_not_reach_what_is_committed(sink, monkeypatch):
    """It finishes while the files are chosen, while the manifest is written, and right before the last rename."""
    place = claimed(sink)
    told = attempt(place, 0, 1)
    late = iter(range(2, 9))
    for name in ("keep_only", "write_bytes", "move"):
        owner = staging if name == "keep_only" else store
        whole = getattr(owner, name)

        def then_late(*args, whole=whole, name=name):
            if (name == "move" and args[1] != sink) or (name == "write_bytes" and MANIFEST not in args[0]):
                return whole(*args)
            if name == "move":
                attempt(place, 0, next(late))
                return whole(*args)
            found = whole(*args)
            attempt(place, 0, next(late))
            return found

        monkeypatch.setattr(owner, name, then_late)
    place.commit({}, files=told["files"], overwrite=False)
    assert next(late) == 5
    assert values(sink) == [1]
    assert len(list(os.scandir(sink))) == 2


@pytest.mark.parametrize("content", [b"", b'{"id": "a', b"\xff"])
def test_what_is_half_written_is_not_there(sink, content):
    place = claimed(sink)
    attempt(place, 0, 1)
    for name in ("failed.json", f"done-{place.plan}/00000.json", "plan.json"):
        store.write_bytes(store.join(place.folder, name), content)
    assert place.finished(0) is None
    assert place.failure() is None
    assert place.planned(lambda: PIECES)[0].plan != place.plan


def test_without_overwrite_nothing_is_replaced(sink):
    make(sink, KEY, 1)
    with pytest.raises(StoreError, match=r"a table of other rows, model or settings at .* overwrite=True"):
        committed(sink, OTHER, overwrite=False)
    with pytest.raises(StoreError, match=r"was written to .* meanwhile"):
        make(sink, OTHER, 2)
    assert values(sink) == [1]


@pytest.mark.parametrize("exchange", [True, False])
def test_overwrite_replaces_a_table(sink, tmp_path, monkeypatch, exchange):
    if not exchange:
        monkeypatch.setattr(store, "exchange", lambda *_: False)
    make(sink, KEY, 1)
    assert committed(sink, OTHER, overwrite=True) is None
    make(sink, OTHER, 2, overwrite=True)
    assert values(sink) == [2]
    assert os.listdir(tmp_path) == ["table"]


def test_the_old_table_comes_back_if_the_new_one_cannot_take_its_place(sink, monkeypatch):
    make(sink, KEY, 1)
    monkeypatch.setattr(store, "exchange", lambda *_: False)
    move = store.move

    def refuse(uri, target):
        if "/final-" in uri and target == sink and OTHER in uri:
            raise StoreError("no", uri=uri)
        move(uri, target)

    monkeypatch.setattr(store, "move", refuse)
    with pytest.raises(StoreError, match="no"):
        make(sink, OTHER, 2, overwrite=True)
    assert values(sink) == [1]


def test_a_reader_sees_the_old_table_or_the_new_one(sink):
    """While one table takes the place of another fifty times: never none, never files of two."""
    make(sink, KEY, 0, 0)
    stop = threading.Event()

    def read():
        seen = set()
        while not stop.is_set():
            folder = os.open(sink, os.O_RDONLY)  # there is one at any time
            seen.add(frozenset(name.split("-")[2] for name in os.listdir(folder) if name != MANIFEST))
            os.close(folder)
        return seen

    with ThreadPoolExecutor(1) as thread:
        reader = thread.submit(read)
        try:
            for i in range(1, 50):
                make(sink, f"{i:032x}", i, i, overwrite=True)
        finally:
            stop.set()
        assert all(len(of_tables) <= 1 for of_tables in reader.result())


@pytest.mark.parametrize("name", ["notes.txt", ".git", "_delta_log", "data"])
def test_what_is_no_table_is_not_overwritten(sink, name):
    os.makedirs(os.path.join(sink, name))
    with pytest.raises(StoreError, match="is no folder of Parquet files, it holds"):
        committed(sink, KEY, overwrite=True)
    with pytest.raises(StoreError, match="there is something at"):
        committed(sink, KEY, overwrite=False)


def test_a_file_is_not_overwritten(sink):
    store.write_bytes(sink, b"")
    with pytest.raises(StoreError, match="it is a file"):
        committed(sink, KEY, overwrite=True)


def test_spark_s_own_table_is_overwritten(sink):
    for name in ("part-0.snappy.parquet", ".part-0.snappy.parquet.crc", "_SUCCESS", "k=1/part-1.parquet"):
        store.write_bytes(store.join(sink, name), b"")
    assert committed(sink, KEY, overwrite=True) is None


CLAIM = "import sys; from sparkdl.score.staging import Staging; Staging({sink!r}, {key!r}).claim(); print('mine', flush=True); sys.stdin.read()"


def test_another_process_that_lives_keeps_it_and_one_that_is_gone_leaves_it(sink, tmp_path):
    code = CLAIM.format(sink=sink, key=KEY)
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "mine\n"
        with pytest.raises(StoreError, match="another process makes"):
            Staging(sink, KEY).claim()
        attempt(Staging(sink, KEY).planned(lambda: PIECES)[0], 0, 1)
        other_table = Staging(sink, OTHER)
        other_table.claim()
        assert len(os.listdir(tmp_path)) == 2
        other_table.leave()
        other.kill()
    assert claimed(sink).markers() == [0], "the same table is taken up"
    owner = os.path.join(Staging(sink, KEY).folder, lease.OWNER)
    gone = json.loads(store.read_bytes(owner)) | {"started": 1.0}
    store.write_bytes(owner, json.dumps(gone).encode())
    Staging(sink, OTHER).claim()
    assert os.listdir(tmp_path) == [os.path.basename(Staging(sink, OTHER).folder)], "another one's is removed"


def test_another_call_of_this_process_is_refused(sink):
    place = claimed(sink)
    with pytest.raises(StoreError, match="another call makes"):
        Staging(sink, KEY).claim()
    place.leave()
    make(sink, KEY, 1)
    os.rename(sink, sink + "2")
    make(sink, KEY, 1)


def test_what_a_dead_run_s_attempts_wrote_is_removed(sink):
    place = claimed(sink)
    attempt(place, 0, 1)
    for name in ("work/dead/part-0.parquet", "final-0/part-0.parquet"):
        store.write_bytes(store.join(place.folder, name), b"")
    place.leave()
    place.claim()
    assert sorted(os.listdir(place.folder)) == [f"done-{place.plan}", lease.OWNER, "plan.json", "table"]


@pytest.mark.parametrize("key", [KEY, OTHER])
def test_a_table_is_put_back_after_a_death_between_two_renames(sink, key):
    make(sink, KEY, 1)
    dead = Staging(sink, key)
    dead.claim()
    os.rename(sink, os.path.join(dead.folder, "old"))
    staging.recover(sink)
    assert not os.path.exists(sink), "of one that lives it is not touched"
    owner = os.path.join(dead.folder, lease.OWNER)
    store.write_bytes(owner, json.dumps(json.loads(store.read_bytes(owner)) | {"started": 1.0}).encode())
    staging.recover(sink)
    assert values(sink) == [1]


def test_a_run_that_failed_leaves_what_is_finished_or_nothing(sink, tmp_path):
    place = Staging(sink, KEY)
    place.claim()
    place.fail({"problem": 1})
    assert place.failure() == {"problem": 1}
    place.leave()
    assert os.listdir(tmp_path) == []
    place = claimed(sink)
    place.fail({"problem": 1})
    attempt(place, 0, 1)
    place.leave()
    place.claim()
    assert place.failure() is None
    assert place.markers() == [0]


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", f'{{"key": "{KEY}"}}', f'{{"key": "{KEY}", "told": {{}}}}'])
def test_a_manifest_of_somebody_else_is_none(sink, content):
    make(sink, KEY, 1)
    store.write_bytes(store.join(sink, MANIFEST), content.encode())
    with pytest.raises(StoreError, match="there is something at"):
        committed(sink, KEY, overwrite=False)
    assert committed(sink, KEY, overwrite=True) is None


def test_a_table_that_lacks_a_file_is_made_again(sink):
    make(sink, KEY, 1, 2)
    os.remove(os.path.join(sink, "part-1-2.parquet"))
    with pytest.raises(StoreError, match=r"a table that lacks its file 'part-1-2.parquet' at"):
        committed(sink, KEY, overwrite=False)
    assert committed(sink, KEY, overwrite=True) is None


def test_a_place_that_cannot_be_written():
    with pytest.raises(StoreError, match=r"cannot be written .* driver and executors can write"):
        Staging("/proc/sparkdl/table", KEY).claim()


def test_a_store_without_renames(monkeypatch):
    monkeypatch.setattr(store, "resolve", lambda uri: (fs._MockFileSystem(), uri))
    with pytest.raises(StoreError, match="cannot rename a folder in one step") as caught:
        check_sink("mock://me:hush@bucket/table")
    assert "hush" not in str(caught.value) + caught.value.uri


def test_the_manifest_is_hidden_from_readers(sink):
    make(sink, KEY, 1)
    assert MANIFEST in os.listdir(sink)
    assert pq.read_table(sink).num_rows == 1
