"""One slot, under a lease: score it, or find that it is done, and tell the ledger."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sparkdl import store
from sparkdl.errors import InvalidParamError, LeaseLostError, LedgerError, SourceNotFoundError
from sparkdl.score import batch, fence, sources, written
from sparkdl.score import job as jobs
from sparkdl.score.output import Layout
from sparkdl.score.result import ScoredTable
from sparkdl.score.staging import Staging
from sparkdl.slots import late, manifest
from sparkdl.slots.lease import Lease
from sparkdl.slots.ledger import Ledger
from sparkdl.slots.model import Model
from sparkdl.slots.slot import Slot

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from sparkdl.conf import ScoreBatchConf

Told = dict[str, Any]


@dataclass(frozen=True)
class Work:
    """What the slots of a run share. guard: raises when the run is to end."""

    conf: ScoreBatchConf
    ledger: Ledger
    run: str
    spark: SparkSession
    model: Model
    guard: Callable[[], None]

    def score(self, slot: Slot, lease: Lease) -> ScoredTable:
        """Score the slot, or find that a run whose lease is over has, and write it into the ledger.

        Raises as ``score_table``; LeaseLostError if another run took over, LedgerError if the ledger is away. What was
        finished is kept, for whoever has the lease next.
        """
        with lease.kept():
            try:
                return self._scored(slot, lease)
            except (LeaseLostError, LedgerError):
                fence.leave(sink_of(self.conf, slot), lease.token)
                raise
            except BaseException as error:
                fence.leave(sink_of(self.conf, slot), lease.token)
                if not self.ledger.failed(lease.slot, lease.token, f"{type(error).__name__}: {error}"):
                    raise lease.lost() from error
                raise

    def _scored(self, slot: Slot, lease: Lease) -> ScoredTable:
        entry = self.ledger.entry(slot.name)
        sink, rescore = sink_of(self.conf, slot), bool(entry and entry.rescore)
        since = entry.since if entry and rescore else 0
        given = late.identity(slot.source(self.conf.source))  # before the source is opened: what comes later is late
        if given is None and _committed(sink, since) is None:  # by a run that was killed before it told the ledger
            raise missing(self.conf, slot)
        job = self._job(slot, sink, given, overwrite=rescore) if given else None

        def guard() -> None:
            self.guard()
            lease.check()

        lease.check()
        fence.take_over(sink, lease.token, job.key if job else None)
        found = _committed(sink, since)
        if found is not None:
            fence.remove(sink, lease.token)
            done = ScoredTable.from_json(found["told"], uri=sink, seconds=0.0, already=True)
        elif job is None:
            raise missing(self.conf, slot)
        else:
            done = self._made(replace(job, guard=guard), Staging(sink, job.key, token=lease.token))
            found = manifest.of(sink)
        if found is None or not self.ledger.done(slot.name, lease.token, found):
            raise lease.lost()
        return done

    def _made(self, job: jobs.Job, place: Staging) -> ScoredTable:
        started = time.monotonic()
        written.committed(place.sink, place.key, overwrite=job.overwrite)  # raises if it may not be replaced
        done = batch.scored(job, place, verbose=False)
        return replace(done, seconds=time.monotonic() - started)

    def _job(self, slot: Slot, sink: str, given: Told, *, overwrite: bool) -> jobs.Job:
        conf = self.conf
        source = sources.opened(self.spark, slot.source(conf.source))
        layout = Layout.checked(conf.partitionBy, conf.rowGroupSize, conf.compression)
        made = jobs.checked(source, self.model.torch, sink, conf.columns, layout, overwrite=overwrite)
        folders = [column.lower() for column in slot.columns]
        taken = [field["name"] for field in made.told["fields"] if field["name"].lower() in folders]
        if taken:
            raise InvalidParamError(
                f"the scored table has a column {taken[0]!r}, which is also what the folders of slots are called by "
                f"({slot.folder}); leave it out: columns, in the conf",
                param="columns",
                value=taken[0],
            )
        about = {
            "slot": slot.name,
            "run": self.run,
            "model": self.model.told,
            "input": given,
            "started": time.time(),
        }
        return replace(made, about=about)


def _committed(sink: str, since: int) -> Told | None:
    """The manifest of the slot's table, if it is whole and a token made it that is not smaller than ``since``."""
    found = manifest.whole(sink)
    return found if found is not None and fence.number(found["token"]) >= since else None


def sink_of(conf: ScoreBatchConf, slot: Slot) -> str:
    """The URI of the slot's table."""
    return store.join(store.absolute(conf.output), slot.folder)


def missing(conf: ScoreBatchConf, slot: Slot) -> SourceNotFoundError:
    """The error of a slot without input."""
    uri = store.shown(store.absolute(slot.source(conf.source)))
    return SourceNotFoundError(f"slot {slot.name}: there are no files at {uri!r}", uri=uri)
