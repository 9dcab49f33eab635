"""A run of one slot without Spark, which can stop itself at a point: the real ledger, lease, fence and staging.

    python slot_driver.py FOLDER BY POINT [--rescore] [--rename]

Each of two pieces is one row: its number, and BY whom it was scored.
"""

import json
import os
import signal
import sys
import threading
import time

import pyarrow as pa
import pyarrow.parquet as pq

from sparkdl import store
from sparkdl.errors import LeaseLostError
from sparkdl.score import fence, staging, written
from sparkdl.score.pieces import RowGroup, SourceFile, cut
from sparkdl.score.staging import Staging
from sparkdl.slots import lease, manifest
from sparkdl.slots.ledger import Ledger

KEY, SLOT, LEASE_S = "a" * 32, "2026-11-20", 0.3
PIECES = cut([SourceFile("x.parquet", (), (RowGroup(5, 5), RowGroup(1 << 20, 7)))], 1)
MODEL = {"name": "models/m", "version": None, "digest": "d" * 64}


def sink_of(folder):
    return os.path.join(folder, "scored", f"date={SLOT}")


def ledger_of(folder):
    made = Ledger(f"sqlite:///{folder}/ledger.sqlite", os.path.join(folder, "scored"))
    made.make()
    return made


def attempt(place, number, by):
    """What a task does; the name of its file."""
    name = f"part-{number}-{by}.parquet"
    os.makedirs(place.work(f"{number}-{by}"), exist_ok=True)
    pq.write_table(pa.table({"piece": [number], "by": [by]}), os.path.join(place.work(f"{number}-{by}"), name))
    place.finish(number, f"{number}-{by}", {"files": [name], "rows": 1})
    return name


def run(folder, by, *, rescore=False):
    """Waits for the slot, and scores what is left of it; the token, and the pieces that it took up."""
    ledger, sink = ledger_of(folder), sink_of(folder)
    while True:
        seen = ledger.entry(SLOT)
        mine = lease.asked_for(ledger, SLOT, sink, by, LEASE_S, seen=seen, rescore=rescore)
        if mine is not None:
            break
        time.sleep(0.02)
    with mine.kept():
        try:
            return mine.token, worked(ledger, sink, mine, by)
        except LeaseLostError:
            raise
        except OSError as error:
            if not ledger.failed(SLOT, mine.token, str(error)):
                raise mine.lost() from error
            raise


def worked(ledger, sink, mine, by):
    order = ledger.entry(SLOT)
    fence.take_over(sink, mine.token, KEY)
    found = manifest.of(sink)
    taken = None
    if found is None or (order.rescore and fence.number(found["token"]) < order.since):
        taken = scored(Staging(sink, KEY, token=mine.token), mine, by, order.rescore)
        found = manifest.of(sink)
    else:
        fence.remove(sink, mine.token)
    if not ledger.done(SLOT, mine.token, found):
        raise mine.lost()
    return taken


def scored(place, mine, by, rescore):
    place, pieces = place.planned(lambda: PIECES)
    taken = [number for number in range(len(pieces)) if place.finished(number)]
    files = [place.finished(i)["files"][0] if i in taken else attempt(place, i, by) for i in range(len(pieces))]
    mine.check()
    told = {"rows": 2, "written": 2, "invalid": {}}
    about = {"slot": SLOT, "run": by, "model": MODEL, "input": {"files": {}}, "started": time.time()}
    place.commit(told, files=files, overwrite=rescore, about=about)
    return taken


beating = threading.Lock()


def beat(*args, renew=Ledger.renew):
    """A heartbeat, which no stop falls into: SQLite's file would be locked for all, until the process goes on."""
    with beating:
        return renew(*args)


def stop():
    with beating:
        os.kill(os.getpid(), signal.SIGSTOP)


def wrap(owner, name, *, when=lambda *_: True, after=False):
    """Stop, once, before or after a call."""
    whole, left = getattr(owner, name), [True]

    def stopping(*args, **more):
        hit = left and when(*args)
        if hit and not after:
            left.clear()
            stop()
        found = whole(*args, **more)
        if hit and after:
            left.clear()
            stop()
        return found

    setattr(owner, name, stopping)


def points(sink, renames):
    """name -> how to stop there."""

    def to_final(*args):
        return f"/{staging.GATE}/final-" in args[1] and args[0].endswith("/table")

    def to_sink(*args):
        return sink in args[:2] and f"/{staging.GATE}/final-" in args[0]

    def both(**more):
        wrap(store, "move", when=to_sink, **more)
        if not renames:
            wrap(store, "exchange", when=to_sink, **more)

    return {
        "before the holder": lambda: wrap(fence, "make"),
        "before the lease": lambda: wrap(fence, "make", after=True),
        "with the lease": lambda: wrap(fence, "take_over"),
        "before the plan": lambda: wrap(store, "write_bytes", when=lambda uri, _: uri.endswith("plan.json")),
        "before a piece": lambda: wrap(Staging, "finish", when=lambda _, number, *__: number == 1),
        "in a piece": lambda: wrap(store, "move", when=lambda uri, _: "work/1-" in uri),
        "before the manifest": lambda: wrap(store, "write_bytes", when=lambda uri, _: uri.endswith(written.MANIFEST)),
        "before the gate": lambda: wrap(store, "move", when=to_final),
        "in the gate": lambda: wrap(store, "move", when=to_final, after=True),
        "before the table": both,
        "old away": lambda: wrap(store, "move", when=lambda _, target: target.endswith("/old"), after=True),
        "after the table": lambda: both(after=True),
        "before the ledger": lambda: wrap(Ledger, "done"),
    }


def main():
    folder, by, point, *flags = sys.argv[1:]
    renames = "--rename" in flags
    if renames:
        store.exchange = lambda *_: False
    Ledger.renew = beat
    points(sink_of(folder), renames)[point]()
    try:
        token, taken = run(folder, by, rescore="--rescore" in flags)
    except LeaseLostError as error:
        print(error)
        raise SystemExit(75) from None
    print(json.dumps({"token": token, "taken": taken}))


if __name__ == "__main__":
    main()
