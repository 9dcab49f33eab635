"""The ledger, in SQLite and in a real PostgreSQL: leases of which one is had, retries that end, secrets that stay secret."""

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import kafka
import postgres
import pytest
from sqlalchemy import select

from sparkdl import store
from sparkdl.errors import InvalidParamError, LeaseLostError, LedgerError
from sparkdl.slots import ledger as ledgers
from sparkdl.slots import tables
from sparkdl.slots.lease import Lease, asked_for
from sparkdl.slots.ledger import DONE, FAILED, LOST, NEW, SCORING, Ledger, url_of

pytestmark = pytest.mark.lane("spark35")

SLOT = "2026-11-20"
MANIFEST = {
    "slot": SLOT,
    "run": "r1",
    "token": "3-00000000",
    "model": {"name": "registry://m@champion", "version": 4, "digest": "d" * 64},
    "input": {"files": {"a.parquet": [10, 20]}},
    "sha256": {"part-0.parquet": "e" * 64},
    "bytes": {"part-0.parquet": 5},
    "started": 100.0,
    "time": 102.5,
    "told": {"rows": 10, "written": 9, "invalid": {"null": 1}, "pieces": 4, "resumed": 1},
}


@pytest.fixture(scope="module")
def server():
    made = postgres.Postgres(kafka.require_jars("postgres"))
    yield made.start()
    made.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.sqlite"
    return request.getfixturevalue("server").url


@pytest.fixture
def ledger(url, tmp_path):
    made = Ledger(url, str(tmp_path / "scored"))  # in one server each test has an output of its own
    made.make()
    return made


@pytest.fixture(autouse=True)
def _hurried(monkeypatch):
    monkeypatch.setattr(ledgers, "TRIES", 2)


def token(number, nonce=0):
    return f"{number}-{nonce:08x}"


def test_a_slot_from_its_lease_to_its_table(ledger):
    assert ledger.entry(SLOT) is None
    assert ledger.grant(SLOT, None, token(1), "r1", 60, rescore=False)
    seen = ledger.entry(SLOT)
    assert (seen.state, seen.number, seen.token, seen.held, seen.since, seen.rescore) == (
        SCORING,
        1,
        token(1),
        True,
        1,
        False,
    )
    assert "r1 on " in seen.owner
    assert ledger.done(SLOT, token(1), MANIFEST)
    seen = ledger.entry(SLOT)
    assert (seen.state, seen.held, seen.run, seen.model, seen.version, seen.digest) == (
        DONE, False, "r1", "registry://m@champion", 4, "d" * 64,
    )  # fmt: skip
    assert (seen.rows, seen.written, seen.invalid, seen.seconds) == (10, 9, {"null": 1}, 2.5)
    assert (seen.input, seen.files) == (MANIFEST["input"], MANIFEST["sha256"])
    (attempt,) = ledger.attempts()
    assert (attempt["state"], attempt["pieces"], attempt["resumed"]) == (DONE, 4, 1)
    assert attempt["ended"] >= attempt["started"] > time.time() - 60
    assert ledger.entries() == {SLOT: seen}
    assert ledger.output in ledger.outputs()


def test_a_lease_that_is_held_is_not_given_and_one_that_is_over_is(ledger):
    assert ledger.grant(SLOT, None, token(1), "r1", 60, rescore=False)
    seen = ledger.entry(SLOT)
    assert not ledger.grant(SLOT, seen, token(2), "r2", 60, rescore=False)
    assert ledger.renew(SLOT, token(1), -1), "it is over now"
    seen = ledger.entry(SLOT)
    assert not seen.held
    assert ledger.grant(SLOT, seen, token(2), "r2", 60, rescore=False)
    assert not ledger.renew(SLOT, token(1), 60)
    assert not ledger.failed(SLOT, token(1), "late")
    assert not ledger.done(SLOT, token(1), MANIFEST), "nothing of it counts any more"
    assert ledger.entry(SLOT).state == SCORING
    assert [(each["run"], each["state"]) for each in ledger.attempts()] == [("r1", LOST), ("r2", SCORING)]


def test_a_lease_is_not_given_by_what_was_seen_before_another_had_it(ledger):
    seen = ledger.entry(SLOT)
    assert ledger.grant(SLOT, seen, token(1), "r1", 0, rescore=False)
    assert not ledger.grant(SLOT, seen, token(2, 7), "r2", 60, rescore=False)
    assert ledger.grant(SLOT, ledger.entry(SLOT), token(2), "r2", 60, rescore=False)
    assert ledger.grant(SLOT, seen, token(2), "r2", 60, rescore=False), "asked again, for the answer was lost"


def test_an_order_to_score_again_stands_until_it_is_carried_out(ledger):
    assert ledger.put(SLOT, MANIFEST)
    assert ledger.grant(SLOT, ledger.entry(SLOT), token(4), "r4", 60, rescore=True)
    assert ledger.failed(SLOT, token(4), "no")
    seen = ledger.entry(SLOT)
    assert (seen.state, seen.rescore, seen.since, seen.problem, seen.run) == (FAILED, True, 4, "no", "r1")
    assert ledger.grant(SLOT, seen, token(5), "r5", 60, rescore=False)
    seen = ledger.entry(SLOT)
    assert (seen.rescore, seen.since) == (True, 4), "whoever carries it out"
    assert ledger.renew(SLOT, token(5), 0)
    assert not ledger.put(SLOT, MANIFEST), "the old table does not make it done"
    assert ledger.done(SLOT, token(5), MANIFEST | {"token": token(5)})
    assert not ledger.entry(SLOT).rescore


def test_the_entry_of_a_slot_that_is_held_is_neither_written_nor_forgotten(ledger):
    assert ledger.grant(SLOT, None, token(1), "r1", 60, rescore=False)
    assert not ledger.put(SLOT, MANIFEST)
    assert not ledger.forget(SLOT)
    assert ledger.failed(SLOT, token(1), "no")
    assert ledger.put(SLOT, MANIFEST)
    assert (ledger.entry(SLOT).number, ledger.entry(SLOT).token) == (3, MANIFEST["token"]), (
        "a token does not come twice"
    )
    assert ledger.put(SLOT, MANIFEST | {"token": token(2)})
    assert ledger.entry(SLOT).number == 3
    assert ledger.forget(SLOT)
    seen = ledger.entry(SLOT)
    assert (seen.state, seen.number, seen.run, seen.files, seen.held) == (NEW, 3, None, {}, False)
    assert ledger.grant(SLOT, seen, token(4), "r4", 60, rescore=False)
    assert [(each["number"], each["state"]) for each in ledger.attempts()] == [(1, FAILED), (4, SCORING)]


def test_a_token_grows_beyond_that_of_the_table_though_the_ledger_is_older(ledger, tmp_path):
    """As when it was restored from a backup."""
    sink = tmp_path / "scored/date=2026-11-20"
    told = MANIFEST | {"key": "0" * 32, "token": token(5), "files": []}
    store.write_bytes(str(sink / "_sparkdl.json"), json.dumps(told).encode())
    assert ledger.put(SLOT, MANIFEST | {"token": token(2)})
    lease = asked_for(ledger, SLOT, str(sink), "r6", 60, seen=ledger.entry(SLOT), rescore=True)
    assert lease.token.startswith("6-")
    assert ledger.entry(SLOT).since == 6


def test_a_row_that_another_holds_is_not_waited_for_without_end(server, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "LOCK_S", 0.2)
    ledger = Ledger(server.url, str(tmp_path))
    ledger.make()
    assert ledger.grant(SLOT, None, token(1), "r1", 60, rescore=False)
    with ledger._writing() as other:
        other.execute(select(tables.SLOTS).where(*ledger._is(SLOT)).with_for_update())
        with pytest.raises(LedgerError, match=r"lock timeout .*; nothing is lost"):
            ledger.renew(SLOT, token(1), 60)
    assert ledger.renew(SLOT, token(1), 60)


def test_what_trying_again_does_not_mend(server, tmp_path):
    for url, says in (
        (server.url.replace(server.password, "wrong-secret"), "password authentication failed"),
        (server.url.replace("/postgres", "/nonesuch"), 'database "nonesuch" does not exist'),
    ):
        begun = time.monotonic()
        with pytest.raises(InvalidParamError, match=f"cannot be used: .*{says}") as caught:
            Ledger(url, str(tmp_path)).make()
        assert time.monotonic() - begun < 0.5, "and it is not tried again"
        assert "wrong-secret" not in str(caught.value)
        assert caught.value.__cause__ is None
    ledger = Ledger(server.url, str(tmp_path))
    ledger.make()
    with pytest.raises(InvalidParamError, match="duplicate key value"):
        ledger._tried(lambda: _twice(ledger))


def _twice(ledger):
    row = {"output": ledger.output, "slot": SLOT, "number": 1, "run": "r", "owner": "o", "state": DONE, "started": 0.0}
    with ledger._writing() as connection:
        for _ in range(2):
            connection.execute(tables.ATTEMPTS.insert().values(**row))


RIVAL = """
import json, sys
from sparkdl.slots.ledger import Ledger
url, output, me, slots = sys.argv[1:]
ledger, mine = Ledger(url, output), []
ledger.make()
sys.stdin.read(1)  # all at once
for i in range(int(slots)):
    seen = ledger.entry(f"s{i}")
    if ledger.grant(f"s{i}", seen, f"{seen.number + 1 if seen else 1}-{int(me):08x}", me, 60, rescore=False):
        mine.append(i)
print(json.dumps(mine))
"""


def test_of_several_processes_one_has_each_slot(ledger, url):
    rivals = [
        subprocess.Popen(
            [sys.executable, "-c", RIVAL, url, ledger.output, str(i), "15"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for i in range(3)
    ]  # fmt: skip
    with ThreadPoolExecutor(3) as threads:
        answers = list(threads.map(lambda rival: json.loads(rival.communicate("x")[0]), rivals))
    assert sorted(slot for mine in answers for slot in mine) == list(range(15))
    entries = ledger.entries()
    assert all(int(entries[f"s{slot}"].token[2:], 16) == i for i, mine in enumerate(answers) for slot in mine)


def test_a_lease_that_another_took_says_so(ledger):
    assert ledger.grant(SLOT, None, token(1), "r1", 0, rescore=False)
    mine = Lease(ledger, SLOT, token(1), 0)
    mine.check()
    assert ledger.renew(SLOT, token(1), 0)
    assert ledger.grant(SLOT, ledger.entry(SLOT), token(2), "r2", 60, rescore=False)
    with pytest.raises(LeaseLostError, match=r"slot 2026-11-20: this run stood still .* another has taken") as caught:
        mine.check()
    assert (caught.value.slot, caught.value.token) == (SLOT, token(1))


def test_a_heartbeat_keeps_a_lease(ledger):
    assert ledger.grant(SLOT, None, token(1), "r1", 5, rescore=False)
    first = ledger.entry(SLOT).expires
    until = time.monotonic() + 30
    with Lease(ledger, SLOT, token(1), 5).kept():
        while ledger.entry(SLOT).expires == first:
            assert time.monotonic() < until
    assert ledger.entry(SLOT).expires > first


def test_a_server_that_is_away_for_a_moment_is_asked_again(server, tmp_path, monkeypatch):
    monkeypatch.setattr(ledgers, "TRIES", 8)
    ledger = Ledger(server.url, str(tmp_path))
    ledger.make()
    server.stop()
    with ThreadPoolExecutor(1) as thread:
        asked = thread.submit(ledger.grant, SLOT, None, token(1), "r1", 60, rescore=False)
        server.start()
        assert asked.result()


def test_a_server_that_stays_away_is_an_error_without_the_password(server, tmp_path):
    server.stop()
    try:
        with pytest.raises(
            LedgerError, match=r"postgresql://sparkdl:\*\*\*@127.0.0.1:\d+/postgres cannot be read"
        ) as caught:
            Ledger(server.url, str(tmp_path)).make()
    finally:
        server.start()
    assert server.password not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_file_that_is_locked_for_too_long_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "BUSY_S", 0.1)
    ledger = Ledger(f"sqlite:///{tmp_path}/l.sqlite", str(tmp_path))
    ledger.make()
    with ledger._writing(), pytest.raises(LedgerError, match="database is locked; nothing is lost"):
        ledger.grant(SLOT, None, token(1), "r1", 60, rescore=False)
    assert ledger.grant(SLOT, None, token(1), "r1", 60, rescore=False)


def test_a_file_that_is_no_ledger(tmp_path):
    (tmp_path / "l.sqlite").write_text("what is this?" * 100)
    with pytest.raises(InvalidParamError, match="file is not a database"):
        Ledger(f"sqlite:///{tmp_path}/l.sqlite", str(tmp_path)).make()
    with pytest.raises(InvalidParamError, match=r"there is no folder '.*/no/such/folder'"):
        Ledger(f"sqlite:///{tmp_path}/no/such/folder/l.sqlite", str(tmp_path)).make()


def test_to_look_makes_no_file(tmp_path):
    assert not Ledger(f"sqlite:///{tmp_path}/l.sqlite", str(tmp_path)).is_there
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url",
    ["ledger.sqlite", "sqlite://", "sqlite:///:memory:", "mysql://u:hidden@h/d", "postgresql://u:hidden@h", "x" * 9],
)
def test_a_url_that_is_none(url):
    with pytest.raises(
        InvalidParamError, match=r"'ledger' must be sqlite:///<path of a file> or postgresql://"
    ) as caught:
        Ledger(url, "/tmp/scored")
    assert "hidden" not in str(caught.value)


def test_a_driver_that_is_not_installed():
    with pytest.raises(InvalidParamError, match="needs the package 'pg8000'"):
        Ledger("postgresql+pg8000://u:hidden@h/d", "/tmp/scored")


def test_where_the_ledger_is_if_nobody_says(tmp_path):
    assert url_of(None, str(tmp_path)) == f"sqlite:///{tmp_path}/_sparkdl/ledger.sqlite"
    assert url_of("sqlite:///x", "hdfs://nn/scored") == "sqlite:///x"
    with pytest.raises(InvalidParamError, match="is not on this machine, so say where the ledger is"):
        url_of(None, "hdfs://nn/scored")
