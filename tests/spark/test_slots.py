"""The job score_batch over slots, as a scheduler calls it: each slot once, and every way that it can end."""

import datetime
import json
import os
import re
import shutil
import subprocess
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from torch import nn

import sparkdl
from sparkdl import Signature, TensorSpec, session, store
from sparkdl.__main__ import main as sparkdl_main
from sparkdl.jobs.command import main
from sparkdl.jobs.run import Run
from sparkdl.score import fence, sources
from sparkdl.slots import lease, ledger, manifest, scheduled
from sparkdl.slots.ledger import DONE, FAILED, Ledger

DAYS = [datetime.date(2026, 11, day) for day in (1, 2, 3)]
RANGE = f"{DAYS[0]}..{DAYS[-1]}"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """y = x0 + x1; the other one's is twice that."""
    place = tmp_path_factory.mktemp("bundles")
    for name, weight in (("one", 1.0), ("two", 2.0)):
        module = nn.Linear(2, 1, bias=False)
        nn.init.constant_(module.weight, weight)
        inputs = Signature((TensorSpec("x", "float32", (2,), ("x",), ("array<float>",)),))
        sparkdl.Bundle.from_module(module, inputs, task="regression").save(str(place / name))
    return place


def write(folder, name="0.parquet", ids=(0, 1, 2, 3), *, bad=0, **more):
    Path(folder).mkdir(parents=True, exist_ok=True)
    x = [None if i < bad else [float(i), 1.0] for i in range(len(ids))]
    told = {"id": pa.array(ids, pa.int64()), "x": pa.array(x, pa.list_(pa.float32())), **more}
    pq.write_table(pa.table(told), Path(folder) / name)


@pytest.fixture
def lake(tmp_path, bundle, spark):
    """Three days of events, two files each, and a conf."""
    for number, day in enumerate(DAYS):
        for i in range(2):
            write(
                tmp_path / f"events/day={day}", f"{i}.parquet", range(100 * number + 10 * i, 100 * number + 10 * i + 4)
            )
    return Lake(tmp_path, bundle)


class Lake:
    def __init__(self, folder, bundle):
        self.folder, self.output = folder, folder / "scored"
        self.conf = {
            "source": f"{folder}/events/day={{date}}",
            "model": f"{bundle}/one",
            "output": str(self.output),
            "slot": "day",
        }

    def run(self, *arguments, **changes):
        """The exit status of the job."""
        told = {name: value for name, value in {**self.conf, **changes}.items() if value is not None}
        (self.folder / "conf.yaml").write_text(yaml.safe_dump(told))
        return main("score_batch", ["--conf-file", str(self.folder / "conf.yaml"), *arguments])

    def sink(self, day=DAYS[0]):
        return str(self.output / f"date={day}")

    def rows(self, day=DAYS[0]):
        return {row["id"]: row["prediction"] for row in pq.read_table(self.sink(day), partitioning=None).to_pylist()}

    @property
    def ledger(self):
        return Ledger(ledger.url_of(None, str(self.output)), str(self.output))


def test_a_backfill_and_what_spark_reads_of_it(lake, spark, capsys):
    assert lake.run("--backfill", RANGE, parallel=3) == 0
    assert capsys.readouterr().out.strip() == "slots: 3 scored"
    table = spark.read.parquet(str(lake.output))
    assert dict(table.dtypes)["date"] == "date"
    assert {row["date"]: row["count"] for row in table.groupBy("date").count().collect()} == dict.fromkeys(DAYS, 8)
    assert lake.rows() == {i: i % 10 + 1.0 for i in (0, 1, 2, 3, 10, 11, 12, 13)}
    entries = lake.ledger.entries()
    assert list(entries) == [str(day) for day in DAYS]
    for day in DAYS:
        told, entry = manifest.of(lake.sink(day)), entries[str(day)]
        assert (entry.state, entry.rows, entry.written, entry.run) == (DONE, 8, 8, told["run"])
        assert (entry.files, entry.input) == (told["sha256"], told["input"])
        assert all(store.sha256(os.path.join(lake.sink(day), name)) == told["sha256"][name] for name in told["files"])
    assert [name for name in os.listdir(lake.output) if name.startswith(".")] == []


def test_the_second_run_says_so_and_asks_spark_for_nothing(lake, jobs, capsys):
    assert lake.run("--date", "2026-11-01") == 0
    before, inode = jobs(), os.stat(lake.sink()).st_ino
    assert lake.run("--date", "2026-11-01", model="/no/such/bundle") == 0
    assert "slot 2026-11-01: is there already, scored by run 2026" in capsys.readouterr().err
    assert (jobs(), os.stat(lake.sink()).st_ino) == (before, inode)


def test_a_backfill_fills_what_is_missing(lake, capsys):
    assert lake.run("--date", "2026-11-02") == 0
    inode = os.stat(lake.sink(DAYS[1])).st_ino
    capsys.readouterr()
    assert lake.run("--backfill", RANGE) == 0
    assert capsys.readouterr().out.strip() == "slots: 1 there already, 2 scored"
    assert os.stat(lake.sink(DAYS[1])).st_ino == inode


def test_rescore_replaces_a_slot_and_keeps_the_old_until_then(lake, bundle, monkeypatch):
    assert lake.run("--date", "2026-11-01") == 0
    seen = []
    whole = store.exchange

    def looking(final, sink):
        seen.append(lake.rows())
        return whole(final, sink)

    monkeypatch.setattr(store, "exchange", looking)
    assert lake.run("--date", "2026-11-01", "--rescore", model=f"{bundle}/two") == 0
    assert seen == [{i: i % 10 + 1.0 for i in (0, 1, 2, 3, 10, 11, 12, 13)}]
    assert lake.rows() == {i: 2 * (i % 10 + 1.0) for i in (0, 1, 2, 3, 10, 11, 12, 13)}
    assert lake.run("--date", "2026-11-01") == 0, "it is done, whatever the conf's model is now"
    assert [each["state"] for each in lake.ledger.attempts()] == [DONE, DONE]
    assert not fence.tokens(lake.sink())


def test_late_input_is_reported_and_scored_again_by_choice(lake, capsys):
    assert lake.run("--date", "2026-11-01") == 0
    write(lake.folder / "events/day=2026-11-01", "late.parquet", [77])
    os.utime(lake.folder / "events/day=2026-11-01/0.parquet", ns=(1, 1))
    assert lake.run("--date", "2026-11-01") == 0
    err = capsys.readouterr().err
    assert "WARNING" in err
    assert "its input changed after it was scored: 1 new ('late.parquet'); 1 changed ('0.parquet'); --rescore" in err
    assert 77 not in lake.rows()
    assert lake.run("--date", "2026-11-01", lateInput="rescore") == 0
    assert 77 in lake.rows()
    assert lake.run("--date", "2026-11-01") == 0
    assert "changed" not in capsys.readouterr().err.splitlines()[-1]
    for path in (lake.folder / "events/day=2026-11-01").iterdir():
        path.unlink()
    assert lake.run("--date", "2026-11-01", lateInput="rescore") == 0, "what is gone cannot be scored again"
    said = capsys.readouterr().err
    assert "INFO" in said
    assert "the files that it was scored from are gone" in said
    assert "WARNING" not in said
    assert 77 in lake.rows()


def test_late_input_of_a_delta_table(lake, capsys):
    deltalake = pytest.importorskip("deltalake")
    made = pq.read_table(lake.folder / "events/day=2026-11-01/0.parquet")
    place = str(lake.folder / "delta/2026-11-01")
    deltalake.write_deltalake(place, made)
    source = f"{lake.folder}/delta/{{date}}"
    assert lake.run("--date", "2026-11-01", source=source) == 0
    deltalake.write_deltalake(place, made, mode="append")
    assert lake.run("--date", "2026-11-01", source=source) == 0
    assert "version 0 of the Delta table was scored, and 1 is there" in capsys.readouterr().err


def test_hours_and_partitions(lake, spark):
    write(lake.folder / "h/2026/11/20/05", ids=[1, 2])
    source = f"{lake.folder}/h/{{date:%Y/%m/%d}}/{{hour}}"
    assert lake.run("--hour", "2026-11-20T05", slot="hour", source=source, output=f"{lake.folder}/hourly") == 0
    found = spark.read.parquet(f"{lake.folder}/hourly")
    assert {(row.id, row.date, row.hour) for row in found.collect()} == {
        (i, datetime.date(2026, 11, 20), 5) for i in (1, 2)
    }
    write(lake.folder / "r/eu", ids=[1])
    write(lake.folder / "r/us", ids=[2])
    told = {
        "slot": "partition",
        "partition": "region",
        "source": f"{lake.folder}/r/{{partition}}",
        "output": f"{lake.folder}/regions",
    }
    assert lake.run("--slot", "eu", "--slot", "us", **told) == 0
    assert sorted((row.id, row.region) for row in spark.read.parquet(told["output"]).collect()) == [
        (1, "eu"),
        (2, "us"),
    ]


def test_bad_rows_above_the_threshold_are_exit_4_and_the_slot_is_there(lake, capsys):
    write(lake.folder / "events/day=2026-11-01", "0.parquet", range(4), bad=1)
    keeps = {"settings": {"handleInvalid": "keep"}}
    assert lake.run("--date", "2026-11-01", maxInvalid=0.1, **keeps) == 4
    assert (
        "1 of its 8 rows are bad, more than maxInvalid 0.1 allows; its table is there all the same"
        in capsys.readouterr().err
    )
    assert lake.run("--date", "2026-11-01", maxInvalid=0.1, **keeps) == 0, "it is there, and nobody scores it again"
    assert lake.ledger.entry("2026-11-01").invalid == {"null": 1}
    assert lake.run("--date", "2026-11-02", maxInvalid=0.1, **keeps) == 0
    one = {"slot": None, "source": f"{lake.folder}/events/day=2026-11-01", "output": f"{lake.folder}/one"}
    assert lake.run(maxInvalid=0.1, **one, **keeps) == 4


def test_a_slot_that_failed_is_taken_up(lake, capsys):
    write(lake.folder / "events/day=2026-11-02", "0.parquet", range(4), bad=1)
    (lake.folder / "events/day=2026-11-02/1.parquet").unlink()
    assert lake.run("--backfill", RANGE) == 1
    said = capsys.readouterr()
    assert said.out.strip() == "slots: 2 scored, 1 failed"
    assert "slot 2026-11-02: DataError: column 'x'" in said.err
    entry = lake.ledger.entry("2026-11-02")
    assert (entry.state, entry.held) == (FAILED, False)
    assert not fence.tokens(lake.sink(DAYS[1])), "nothing of it was finished"
    assert sparkdl_main(["runs", "--conf-file", str(lake.folder / "conf.yaml"), "--failed"]) == 0
    told = capsys.readouterr().out
    assert "2026-11-02" in told
    assert "2026-11-01" not in told
    write(lake.folder / "events/day=2026-11-02", "0.parquet", range(4))
    assert lake.run("--backfill", RANGE) == 0
    assert [each["state"] for each in lake.ledger.attempts() if each["slot"] == "2026-11-02"] == [FAILED, DONE]


def test_another_run_has_the_slot(lake, capsys, monkeypatch):
    lake.ledger.make()
    other = lease.asked_for(lake.ledger, "2026-11-01", lake.sink(), "other-run", 60, seen=None, rescore=False)
    assert lake.run("--date", "2026-11-01") == 75
    assert "slot 2026-11-01: another run works on it: other-run on " in capsys.readouterr().err

    tell = Run.tell

    def telling(self, event, text, **fields):
        tell(self, event, text, **fields)
        if event == "waiting":
            assert text == "other runs work on 1 slots; waiting 60 s for them"
            lake.ledger.renew("2026-11-01", other.token, 0)

    monkeypatch.setattr(Run, "tell", telling)
    assert lake.run("--date", "2026-11-01", wait=60) == 0
    assert [each["state"] for each in lake.ledger.attempts()] == ["lost", DONE]


def test_the_ledger_is_lost_in_the_middle_of_a_slot_and_found_again(lake, monkeypatch, capsys):
    monkeypatch.setattr(ledger, "TRIES", 1)
    file = lake.output / ledger.FILE
    whole = lease.Lease.check

    def lost(self):
        if file.is_file():
            file.rename(lake.folder / "aside")
            file.mkdir()  # no database opens a folder
            self._until = 0.0
        whole(self)

    monkeypatch.setattr(
        fence,
        "take_over",
        lambda *told, take=fence.take_over: (take(*told), monkeypatch.setattr(lease.Lease, "check", lost)),
    )
    assert lake.run("--date", "2026-11-01", lease=2) == 75
    assert "unable to open database file; nothing is lost" in capsys.readouterr().err
    assert not os.path.exists(lake.sink())
    monkeypatch.undo()
    file.rmdir()
    (lake.folder / "aside").rename(file)
    assert lake.run("--date", "2026-11-01", wait=90, lease=1) == 0
    assert len(lake.rows()) == 8


def test_an_unreachable_ledger_is_exit_75_before_spark_is_asked(lake, capsys, monkeypatch):
    monkeypatch.setattr(ledger, "TRIES", 2)
    monkeypatch.setattr("sparkdl.session.for_job", lambda name: pytest.fail("Spark was asked"))
    monkeypatch.setenv("PG_PASSWORD", "hush")
    url = "postgresql://me:${env:PG_PASSWORD}@127.0.0.1:1/x"
    assert lake.run("--date", "2026-11-01", ledger=url) == 75
    said = capsys.readouterr()
    assert "the ledger postgresql://me:***@127.0.0.1:1/x cannot be read or written" in said.err
    assert "hush" not in said.err + said.out
    assert not lake.output.exists()


def test_a_ledger_that_was_lost_is_made_again(lake, capsys):
    assert lake.run("--backfill", RANGE) == 0
    before = lake.ledger.entries()
    (lake.output / ledger.FILE).unlink()
    assert sparkdl_main(["runs", "--conf-file", str(lake.folder / "conf.yaml"), "--rebuild"]) == 0
    assert "3 written, 0 forgotten, 0 left, 0 broken" in capsys.readouterr().err
    after = lake.ledger.entries()
    same = (
        "slot",
        "state",
        "run",
        "model",
        "digest",
        "rows",
        "written",
        "invalid",
        "seconds",
        "finished",
        "input",
        "files",
    )
    assert [[getattr(each, name) for name in same] for each in after.values()] == [
        [getattr(each, name) for name in same] for each in before.values()
    ]
    (lake.output / ledger.FILE).unlink()
    assert lake.run("--backfill", RANGE) == 0, "or nobody makes it: what is there is there"
    assert "3 there already" in capsys.readouterr().out
    assert len(lake.ledger.entries()) == 3


def test_a_table_that_somebody_removed_is_scored_again(lake, capsys):
    assert lake.run("--backfill", RANGE) == 0
    shutil.rmtree(lake.sink(DAYS[0]))
    (name,) = [name for name in os.listdir(lake.sink(DAYS[1])) if name.endswith(".parquet")][:1]
    os.remove(os.path.join(lake.sink(DAYS[1]), name))
    assert lake.run("--backfill", RANGE) == 0
    said = capsys.readouterr().err
    assert "slot 2026-11-01: its table is gone; it is scored again" in said
    assert f"slot 2026-11-02: its table lacks its file {name!r}; it is scored again" in said
    assert [len(lake.rows(day)) for day in DAYS] == [8, 8, 8]


def test_a_file_that_was_cut_off_is_seen(lake, capsys):
    assert lake.run("--date", "2026-11-01") == 0
    file = next(Path(lake.sink()).glob("*.parquet"))
    os.truncate(file, file.stat().st_size - 1)
    assert lake.run("--date", "2026-11-01") == 0
    assert f"its table lacks its file {file.name!r}" in capsys.readouterr().err
    assert len(lake.rows()) == 8


def test_a_slot_that_a_rebuild_forgot_is_scored_again(lake, capsys):
    assert lake.run("--backfill", RANGE) == 0
    shutil.rmtree(lake.sink(DAYS[0]))
    next(Path(lake.sink(DAYS[1])).glob("*.parquet")).unlink()
    assert sparkdl_main(["runs", "--conf-file", str(lake.folder / "conf.yaml"), "--rebuild"]) == 0
    assert "1 written, 2 forgotten, 0 left, 1 broken" in capsys.readouterr().err
    assert [entry.state for entry in lake.ledger.entries().values()] == ["new", "new", DONE]
    assert lake.run("--date", "2026-11-01") == 0
    assert lake.run("--date", "2026-11-02", "--rescore") == 0
    assert [len(lake.rows(day)) for day in DAYS] == [8, 8, 8]
    assert [entry.number for entry in lake.ledger.entries().values()] == [2, 2, 1]


def test_a_table_that_is_there_needs_no_input_though_the_ledger_was_not_told(lake, capsys):
    """As after a run that was killed between its commit and the ledger, and a retention that removed the input."""
    assert lake.run("--date", "2026-11-01") == 0
    assert lake.ledger.grant("2026-11-01", lake.ledger.entry("2026-11-01"), "2-00000000", "killed", 0, rescore=False)
    shutil.rmtree(lake.folder / "events/day=2026-11-01")
    inode = os.stat(lake.sink()).st_ino
    assert lake.run("--date", "2026-11-01") == 0
    assert os.stat(lake.sink()).st_ino == inode
    assert lake.ledger.entry("2026-11-01").state == DONE
    assert lake.run("--date", "2026-11-01", "--rescore") == 3, "which takes input"
    assert "there are no files at" in capsys.readouterr().err


def test_what_no_slot_s_run_made_is_not_replaced_unasked(lake, capsys):
    write(lake.sink(), ids=[5])
    assert lake.run("--date", "2026-11-01") == 1
    assert "there is something at" in capsys.readouterr().err
    assert lake.run("--date", "2026-11-01", "--rescore") == 0
    assert len(lake.rows()) == 8


def test_a_disk_that_is_full_is_exit_75_and_the_next_run_goes_on(lake, capsys, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if (
        os.getuid() != 0
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", disk], check=False).returncode
    ):
        pytest.skip("a small disk can be mounted by root alone")
    try:
        write(lake.folder / "events/day=2026-11-01", "big.parquet", range(200_000))
        told = {"output": f"{disk}/scored", "ledger": f"sqlite:///{tmp_path}/ledger.sqlite"}
        assert lake.run("--date", "2026-11-01", **told) == 75
        assert "No space left on device" in capsys.readouterr().err
        assert not [name for name in os.listdir(disk / "scored") if not name.startswith(".")], "nothing half-written"
        subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
        assert lake.run("--date", "2026-11-01", **told) == 0
        assert pq.read_metadata(next((disk / "scored/date=2026-11-01").glob("*.parquet"))).num_rows > 0
    finally:
        subprocess.run(["umount", disk], check=True)


def test_by_spark_s_writer_too(lake, spark, monkeypatch):
    """``model.transform`` and Spark's writer, where pyarrow may not read: under the lease as well."""
    spark.conf.set("spark.sql.parquet.int96RebaseModeInRead", "LEGACY")
    try:
        assert lake.run("--date", "2026-11-01") == 0
    finally:
        spark.conf.unset("spark.sql.parquet.int96RebaseModeInRead")
    told = manifest.of(lake.sink())
    assert told["told"]["way"] == "dataframe"
    assert len(lake.rows()) == 8
    assert all(store.sha256(os.path.join(lake.sink(), name)) == told["sha256"][name] for name in told["files"])
    assert not fence.tokens(lake.sink())


def test_spark_s_writer_is_ended_by_a_signal(lake, spark, capsys, monkeypatch):
    whole = fence.take_over

    def told_to_end(*told):
        threading.Timer(0.0, runs[0].told_to_end.set).start()
        whole(*told)

    runs = []
    monkeypatch.setattr(fence, "take_over", told_to_end)
    monkeypatch.setattr(session, "_CHECK_EVERY_S", 0.01)
    monkeypatch.setattr(sources.Source, "check_unchanged", lambda self: pytest.fail("it ran to its end"))
    monkeypatch.setattr(
        scheduled.Schedule, "due", lambda self, due=scheduled.Schedule.due: (runs.append(self.run), due(self))[1]
    )
    spark.conf.set("spark.sql.parquet.int96RebaseModeInRead", "LEGACY")
    try:
        assert lake.run("--date", "2026-11-01") == 75
    finally:
        spark.conf.unset("spark.sql.parquet.int96RebaseModeInRead")
    assert "its run was told to end; what was finished is kept" in capsys.readouterr().err
    assert not os.path.exists(lake.sink())


def test_a_signal_leaves_what_is_finished_to_the_next_run(lake, capsys, monkeypatch):
    whole = fence.take_over

    def told_to_end(*told):
        runs[0].told_to_end.set()
        whole(*told)

    runs = []
    monkeypatch.setattr(fence, "take_over", told_to_end)
    monkeypatch.setattr(
        scheduled.Schedule, "due", lambda self, due=scheduled.Schedule.due: (runs.append(self.run), due(self))[1]
    )
    assert lake.run("--backfill", RANGE) == 75
    assert "its run was told to end; what was finished is kept" in capsys.readouterr().err
    entry = lake.ledger.entry("2026-11-01")
    assert (entry.state, entry.held) == (FAILED, False), "nobody has to wait for its lease"
    monkeypatch.undo()
    assert lake.run("--backfill", RANGE) == 0


@pytest.mark.parametrize(
    ("arguments", "changes", "status", "says"),
    [
        (["--date", "2026-02-30"], {}, 2, "there is no such time as '2026-02-30'"),
        (["--backfill", "2026-11-03..2026-11-01"], {}, 2, r"write 2026-11-01..2026-11-03"),
        (["--hour", "2026-11-01T05"], {}, 2, "the conf says slot: day"),
        ([], {}, 2, "name one with --date or --backfill A..B"),
        (
            ["--date", "2026-11-01"],
            {"slot": None, "source": "EVENTS/day=2026-11-01"},
            2,
            "--date is of slots, and the conf has none",
        ),
        (["--rescore"], {"slot": None, "source": "EVENTS/day=2026-11-01"}, 2, "--rescore is of slots"),
        (["--date", "2026-11-01"], {"slot": None}, 2, "has a placeholder, so say which slots it is of"),
        (["--date", "2026-11-01"], {"slot": "dya"}, 2, "slot"),
        (["--date", "2026-11-01"], {"slot": "partition", "source": "EVENTS/{partition}"}, 2, "name of a column"),
        (["--date", "2026-11-01"], {"overwrite": True}, 2, "slots are replaced with --rescore"),
        (["--date", "2026-11-01"], {"output": "EVENTS"}, 2, "lie in one another; choose another output"),
        (["--date", "2026-11-01"], {"output": "EVENTS/day=2026-11-01/scored"}, 2, "lie in one another"),
        (["--date", "2026-11-01"], {"ledger": "oracle://h/d"}, 2, "'ledger' must be sqlite:///"),
        (["--date", "2026-11-01"], {"maxInvalid": 2}, 2, "maxInvalid"),
        (["--date", "2026-11-01"], {"parallel": 0}, 2, "parallel"),
        (["--date", "2026-11-01"], {"columns": ["nope"]}, 2, "'nope' is not in the DataFrame"),
        (["--date", "2026-12-24"], {}, 3, "slot 2026-12-24: there are no files at "),
        (["--date", "2026-11-01"], {"model": "/no/such/bundle"}, 3, "/no/such/bundle"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(lake, capsys, arguments, changes, status, says):
    changes = {
        name: value.replace("EVENTS", f"{lake.folder}/events") if isinstance(value, str) else value
        for name, value in changes.items()
    }
    assert lake.run(*arguments, **changes) == status
    assert says in capsys.readouterr().err
    assert {path.name for path in lake.output.glob("*")} <= {"_sparkdl"}


def test_a_column_that_is_called_as_the_folders_are(lake, capsys):
    write(lake.folder / "events/day=2026-11-01", date=pa.array(["x"] * 4))
    (lake.folder / "events/day=2026-11-01/1.parquet").unlink()
    assert lake.run("--date", "2026-11-01") == 2
    assert "a column 'date', which is also what the folders of slots are called by" in capsys.readouterr().err
    assert lake.run("--date", "2026-11-01", columns=["id"]) == 0


def test_a_column_that_is_called_as_the_folders_are_but_for_its_case(lake, capsys):
    write(lake.folder / "r/eu", region=pa.array(["x"] * 4))
    told = {"slot": "partition", "partition": "Region", "source": f"{lake.folder}/r/{{partition}}"}
    assert lake.run("--slot", "eu", **told) == 2
    assert "a column 'region', which is also what the folders of slots are called by" in capsys.readouterr().err


def test_one_table_tells_of_its_run(lake, bundle):
    told = {"slot": None, "source": f"{lake.folder}/events/day=2026-11-01", "output": f"{lake.folder}/one"}
    assert lake.run(**told) == 0
    found = json.loads(Path(told["output"], "_sparkdl.json").read_text())
    assert re.fullmatch(r"\d{8}T\d{6}-[0-9a-f]{8}", found["run"])
    assert found["model"] == {
        "name": f"{bundle}/one",
        "version": None,
        "digest": sparkdl.Bundle.load(f"{bundle}/one").digest,
    }


def test_some_days_without_input(lake, capsys):
    assert lake.run("--backfill", "2026-10-31..2026-11-01") == 3
    assert capsys.readouterr().out.strip() == "slots: 1 without input, 1 scored"
    assert len(lake.rows()) == 8


def test_a_dry_run_tells_what_is_due_and_writes_nothing(lake, capsys):
    assert lake.run("--backfill", RANGE, "--dry-run") == 0
    told = capsys.readouterr().out
    assert "slots: 3 of 3 are due: 2026-11-01, 2026-11-02, 2026-11-03" in told
    assert not lake.output.exists()


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["--ledger", "sqlite:////no/such/file"], 2, "there is no ledger at sqlite:////no/such/file yet"),
        (["--ledger", "nonsense"], 2, "'ledger' must be"),
        (["--ledger", "sqlite:////no/such/file", "--rebuild"], 2, "--rebuild reads the output's tables"),
        (["--conf-file", "/no/such/conf"], 2, "there is no conf at '/no/such/conf'"),
    ],
)
def test_runs_of_what_is_not_there(capsys, arguments, status, says):
    assert sparkdl_main(["runs", *arguments]) == status
    assert says in capsys.readouterr().err


def test_runs_shows_slots_and_attempts(lake, capsys):
    assert lake.run("--backfill", RANGE) == 0
    conf = ["--conf-file", str(lake.folder / "conf.yaml")]
    capsys.readouterr()
    assert sparkdl_main(["runs", *conf, "--slot", "2026-11-02"]) == 0
    told = capsys.readouterr().out
    assert "attempts at 2026-11-02" in told
    assert "2026-11-01" not in told
    assert sparkdl_main(["runs", "--ledger", f"sqlite:///{lake.output}/{ledger.FILE}", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["slot"], line["state"], line["rows"]) for line in lines] == [(str(day), "done", 8) for day in DAYS]
    ours, other = ledger.url_of(None, str(lake.output)), Ledger(ledger.url_of(None, str(lake.output)), "/a/table")
    assert other.put("2026-12-24", manifest.of(lake.sink()))
    assert sparkdl_main(["runs", "--ledger", ours, "--slot", "2026-11-02", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert (json.loads(line)["output"], json.loads(line)["slot"]) == (lake.ledger.output, "2026-11-02")
    assert sparkdl_main(["runs", *conf, "--slot", "2026-11-20"]) == 2
    assert "no slot '2026-11-20'" in capsys.readouterr().err
