"""A stream that is killed, starved or fed rubbish: each row scored once by one version, or a dead letter; see stream_scene.py.

Twenty rounds of each kill, at random moments, are behind ``soak``; the seed is in the test's name.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import subprocess
import threading
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import stream_scene
from kafka import own_broker  # noqa: F401  a fixture
from stream_scene import COLUMNS, KINDS, Scene

import sparkdl
from sparkdl.errors import StreamError

SEED = int(os.environ.get("SPARKDL_SEED", "7"))


@pytest.fixture
def scene(tmp_path):
    return Scene(tmp_path)


def run(scene, spark, **told):
    """To the end of what is there. Raises what the query failed of."""
    query = scene.stream(spark, **told)
    try:
        query.awaitTermination()
    finally:
        with contextlib.suppress(Exception):  # it has been raised
            query.stop()
    return query


def test_the_driver_dies_before_its_commit_after_it_and_at_any_moment(scene, spark):
    for _ in range(8):
        scene.feed()
    scene.start(kill="before", nth=2).killed()
    assert len(scene.tables("out")) == 1
    scene.check(complete=False)
    scene.registry.set_alias("m", "champion", 2)  # the batch that is open stays with version 1
    scene.start(kill="after", nth=1).killed()
    assert [table["model_version"].unique().to_pylist() for table in scene.tables("out").values()] == [["1"], ["1"]]
    scene.check(complete=False)
    job = scene.start()
    stream_scene.paced(random.Random(SEED).uniform(0, 1), scene.feed)
    job.kill("python")
    scene.check(complete=False)
    run(scene, spark)
    counts = scene.check()
    assert (counts["version 1"], counts["version 2"] > 0) == (396, True)


@pytest.mark.lane("latest")
def test_an_executor_dies(scene):
    job = scene.start(master="local-cluster[2,1,1024]")
    for _ in range(2):
        scene.feed()
        job.hear("batch")
        victim = random.Random(SEED).choice(job.processes("CoarseGrainedExecutorBackend"))
        scene.feed()
        victim.kill()
    scene.caught_up(job)
    job.end()
    scene.check()


def test_a_python_worker_dies_in_mid_batch(scene, spark):
    for _ in range(2):
        query = scene.stream(spark, trigger="0 seconds")
        while query.isActive:  # until one dies in a task: local[2] gives a task one try
            scene.feed(500)
            kill_workers()
            threading.Event().wait(0.05)
        with pytest.raises(StreamError):
            query.awaitTermination()
        scene.check(complete=False)
    run(scene, spark)
    scene.check()


def kill_workers():
    """kill -9 to the Python workers of this process' JVM that were forked for tasks; one that waits for its next is missed by
    nobody."""
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if "daemon" in " ".join(process.cmdline()) and "daemon" in " ".join(process.parent().cmdline()):
                process.kill()


@pytest.mark.lane("spark35")
def test_the_kafka_broker_dies(scene, spark, own_broker):  # noqa: F811
    own_broker.create_topic("events", 2)
    drawn = random.Random(SEED)
    for _ in range(2):
        stream_scene.a_broker_round(scene, spark, own_broker, drawn)
        scene.check()


def test_a_poison_record_every_thousand(tmp_path, spark):
    scene = Scene(tmp_path, poison_every=1_000)
    for _ in range(4):
        scene.feed(2_000)
    status = run(scene, spark).status()
    counts = scene.check()
    assert counts == {"version 1": 7_992, **{f"dead, {kind}": 2 for kind in stream_scene.POISONS}}
    assert (status.rows, status.scored, sum(status.dead.values())) == (8_000, 7_992, 8)


@pytest.mark.lane("spark35")
def test_ten_times_as_much_at_once(scene, spark):
    query = scene.stream(spark, trigger="100 milliseconds")
    try:
        for size in (100, 100, 1_000, 1_000, 100):
            for _ in range(5):
                scene.feed(size)
            query.processAllAvailable()
    finally:
        query.stop()
    scene.check()
    assert max(map(len, scene.tables("out").values())) <= 2_000  # the source's own limit holds: two files a batch


@pytest.mark.lane("latest")
def test_a_query_is_told_to_stop_at_any_moment_while_rows_arrive(scene, spark):
    drawn = random.Random(SEED)
    for _ in range(4):
        query = scene.stream(spark, trigger="0 seconds")
        arriving = threading.Thread(target=stream_scene.paced, args=(0.8, lambda: scene.feed(20), 0.05))
        arriving.start()
        threading.Event().wait(drawn.uniform(0, 0.8))
        query.stop()
        assert not query.isActive
        assert query.exception() is None
        arriving.join()
    run(scene, spark)
    scene.check()


def test_a_field_of_another_type_upstream_makes_dead_letters_until_it_is_mended(scene, spark):
    def text(row):
        return json.dumps(row if row["id"] % 2 else {**row, "code": {"now": "a struct"}})

    made = stream_scene.rows(0, 200, 0)
    (scene.folder / "arriving/0.json").write_text("\n".join(text(row) for row in made))
    events = spark.readStream.schema("value string").text(str(scene.folder / "arriving"))
    run(scene, spark, events=events, payload=sparkdl.payloads.JSON(COLUMNS))
    out, dead = (pa.concat_tables(scene.tables(name).values()).to_pylist() for name in ("out", "dead"))
    assert sorted(row["id"] for row in out) == list(range(1, 200, 2))
    assert sorted(json.loads(row["row"]["value"])["id"] for row in dead) == list(range(0, 200, 2))
    assert {row["kind"] for row in dead} == {"unparsable"}


def test_a_file_of_another_type_ends_the_query_and_loses_nothing(scene, spark):
    scene.feed()
    run(scene, spark)
    scene.feed()
    (good,) = (scene.folder / "arriving").glob("000001.parquet")
    kept = pq.read_table(good)
    other = kept.set_column(0, "id", pa.array([f"n{i}" for i in range(len(kept))]))
    replaced(good, other)
    with pytest.raises(StreamError, match="batch 1 failed, and will be done when the query starts again") as caught:
        run(scene, spark)
    assert "id" in str(caught.value)
    assert len(scene.tables("out")) == 1
    replaced(good, kept)
    run(scene, spark)
    scene.check()


def replaced(path, table):
    pq.write_table(table, path.with_name(".staged"))
    path.with_name(".staged").rename(path)
    for left in path.parent.glob(".*.crc"):
        left.unlink()


@pytest.fixture
def small_disk(tmp_path):
    """A function that gives a file system of so many bytes."""
    made = []

    def mount(name, size):
        place = tmp_path / name
        place.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.skip(f"no small file system can be mounted here: {done.stderr.strip()}")
        made.append(place)
        return place

    if shutil.which("mount") is None:
        pytest.skip("no mount here")
    yield mount
    for place in made:
        subprocess.run(["umount", "--lazy", place], check=True)


def filled(place: Path, left: int) -> Path:
    """A file that leaves so many bytes of a disk."""
    ballast = place / ".ballast"
    free = os.statvfs(place)
    ballast.write_bytes(b"\0" * max(0, free.f_bavail * free.f_frsize - left))
    return ballast


@pytest.mark.parametrize("disk", ["out", "dead", "checkpoint"])
def test_a_full_disk_ends_the_query_and_it_goes_on_when_there_is_room(scene, spark, small_disk, disk):
    place = small_disk(disk, "8m")
    scene.feed()
    run(scene, spark)
    before = len(scene.tables("out"))
    for _ in range(3):
        scene.feed(2_000)
    ballast = filled(place, left=8_192)
    with pytest.raises(Exception, match=r"(?i)no space left"):
        run(scene, spark)
    assert len(scene.tables("out")) - before in ((0, 1) if disk == "checkpoint" else (0,))
    scene.check(complete=False)
    ballast.unlink()
    run(scene, spark)
    scene.check()


@pytest.mark.parametrize("kept", [0.0, 0.5])
@pytest.mark.parametrize("folder", ["offsets", "commits", "sparkdl/batches"])
def test_a_checkpoint_whose_last_file_is_cut_short_is_refused_with_the_remedy(scene, spark, folder, kept):
    for _ in range(5):
        scene.feed()
    run(scene, spark)
    place = scene.folder / "checkpoint" / folder
    last = max((path for path in place.iterdir() if path.name[0] != "."), key=lambda path: int(path.stem))
    content = last.read_bytes()
    last.write_bytes(content[: int(len(content) * kept)])
    scene.feed()
    rows = sum(map(len, scene.tables("out").values()))
    with pytest.raises(StreamError) as caught:
        run(scene, spark)
    assert str(last.relative_to(scene.folder)) in str(caught.value)
    assert "Remedy" in str(caught.value)
    assert sum(map(len, scene.tables("out").values())) == rows, "never silently started over"
    assert last.exists()
    if folder == "commits":  # the remedy, as it is told
        last.unlink()
        last.with_name(f".{last.name}.crc").unlink(missing_ok=True)
    else:
        last.write_bytes(content)
    run(scene, spark)
    scene.check()


def test_the_clock_of_who_writes_the_files_is_moved_back(scene, spark):
    """By days, and by less than the week after which Spark's file source takes a file for one it has seen (maxFileAge)."""
    day = 86_400
    for offset in (day, -3 * day, 0, 2 * day, -4 * day):
        scene.feed()
        newest = max((scene.folder / "arriving").iterdir())
        at = newest.stat().st_mtime + offset
        os.utime(newest, (at, at))
        run(scene, spark)
    scene.check()


def test_the_drivers_clock_is_moved_back(scene, spark, monkeypatch):
    """Python's: a batch is written down an hour before the one that it follows. (The JVM's clock stays.)"""
    import time

    scene.feed()
    run(scene, spark)
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() - 3_600)
    scene.feed()
    status = run(scene, spark).status()
    assert (status.rows, status.batches) == (100, 1)
    scene.check()


@pytest.mark.soak
@pytest.mark.parametrize("kind", KINDS)
def test_twenty_kills_at_random_moments(tmp_path, kind):
    scene, drawn = Scene(tmp_path, poison_every=1_000), random.Random(SEED)
    for number in range(20):
        print(f"{kind}, seed {SEED}, round {number + 1}: {stream_scene.a_round(scene, kind, drawn)}", flush=True)
        scene.check(complete=False)
    scene.drain()
    print(kind, dict(scene.check()))


@pytest.mark.soak
def test_twenty_kills_of_the_broker_at_random_moments(scene, spark, own_broker):  # noqa: F811
    own_broker.create_topic("events", 2)
    drawn = random.Random(SEED)
    for number in range(20):
        print(
            f"seed {SEED}, round {number + 1}: {stream_scene.a_broker_round(scene, spark, own_broker, drawn)}",
            flush=True,
        )
        scene.check()
