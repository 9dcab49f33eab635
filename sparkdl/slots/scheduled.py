"""The slots of a run: which are due, who works on them, and how the run ends."""

from __future__ import annotations

import errno
import functools
import logging
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from sparkdl import session, store
from sparkdl.errors import LeaseLostError, LedgerError, OverlapError, SparkdlError
from sparkdl.jobs import status
from sparkdl.jobs.run import Run
from sparkdl.score import written
from sparkdl.score.result import ScoredTable
from sparkdl.slots import late, lease, manifest, model, one
from sparkdl.slots.entry import Entry
from sparkdl.slots.ledger import DONE, Ledger, url_of
from sparkdl.slots.slot import Slot

if TYPE_CHECKING:
    from sparkdl.conf import ScoreBatchConf

# How a run ends if its slots ended differently: the first of these that there is.
_WORST = (status.BAD_CONF, status.FAILED, status.TRY_AGAIN, status.INPUT_MISSING, status.PARTLY, status.DONE)
_LOOK_S = 1.0  # between looks at slots that others hold, at most
logger = logging.getLogger(__name__)
HELD, LATE, MISSING, ALREADY, SCORED = "held elsewhere", "late input", "without input", "there already", "scored"


class Ended(SparkdlError):
    """A signal came; what was finished is kept."""


class Schedule:
    """The slots that a run is asked for, of the conf's output. rescore: also those that are done.

    Raises, before Spark is asked to do anything: InvalidParamError for a ledger that is none, StoreError for an output whose
    store cannot rename folders, OverlapError if a slot's input and the output lie in one another.
    """

    def __init__(self, run: Run, conf: ScoreBatchConf, slots: Sequence[Slot], *, rescore: bool) -> None:
        self.run, self.conf, self.slots, self.rescore = run, conf, list(slots), rescore
        output = store.absolute(conf.output)
        written.check_sink(output)
        for slot in slots:
            source = slot.source(conf.source)
            if store.overlap(source, output):
                raise OverlapError(
                    f"slot {slot.name}: its input {store.shown(source)!r} and the output {store.shown(output)!r} lie in one "
                    "another; choose another output",
                    uri=store.shown(output),
                )
        self.ledger = Ledger(url_of(conf.ledger, output), output)
        self.ended: Counter[str] = Counter()
        self.statuses: list[int] = []
        self._again = list(slots) if rescore else []
        self._unknown: dict[str, dict[str, Any]] = {}  # to the ledger; the manifests of slots that are done
        self._stop = threading.Event()
        self._work: one.Work | None = None

    def due(self) -> list[Slot]:
        """The slots that are to be scored; tells of those that are not. Raises LedgerError."""
        states = self.ledger.states() if self.ledger.is_there else {}
        return [
            slot for slot in self.slots if self._is_due(slot, states[slot.name][0] if slot.name in states else None)
        ]

    def _is_due(self, slot: Slot, state: str | None) -> bool:
        now = late.identity(slot.source(self.conf.source))
        found = self._scored(slot, state)
        if found is None or self.rescore:
            # a run may have been killed between its commit and the ledger: whoever has the lease looks at the table again
            is_due = now is not None or (not self.rescore and manifest.whole(one.sink_of(self.conf, slot)) is not None)
            if not is_due:
                self._missing(slot)
            return is_due
        changed = late.difference(found["input"], now)
        if changed and now is not None and self.conf.lateInput == "rescore":
            self._tell("late input", slot, f"its input changed after it was scored, so it is scored again: {changed}")
            self._again.append(slot)
            return True
        self._already(slot, f"is there already, scored by run {found['run']}")
        if changed and now is None:
            self._tell("input gone", slot, "the files that it was scored from are gone")
        elif changed:
            self.ended[LATE] += 1
            how = "--rescore, or lateInput: rescore, scores it again"
            self._warn("late input", slot, f"its input changed after it was scored: {changed}; {how}")
        return False

    def _scored(self, slot: Slot, state: str | None) -> dict[str, Any] | None:
        """The manifest of a slot that is done, by what is there: a ledger that was lost does not make it due. state: in the
        ledger, None if it does not know the slot."""
        if state not in (None, DONE):
            return None
        found = manifest.of(one.sink_of(self.conf, slot))
        lost = manifest.missing(one.sink_of(self.conf, slot), found) if found else None
        if found is not None and lost is None:
            if state is None:
                self._unknown[slot.name] = found
            return found
        if state is not None:
            what = f"lacks its file {lost!r}" if lost else "is gone"
            self._warn("lost", slot, f"its table {what}; it is scored again")
        if lost:
            self._again.append(slot)
        return None

    def _missing(self, slot: Slot) -> None:
        self.ended[MISSING] += 1
        self.statuses.append(status.INPUT_MISSING)
        self._warn("input missing", slot, str(one.missing(self.conf, slot)).partition(": ")[2])

    def work(self) -> int:
        """Score what is due, ``parallel`` slots at a time; the exit status."""
        with self.run.patient():
            try:
                self.ledger.make()
                self._all()
            except LedgerError as error:
                self.statuses.append(status.TRY_AGAIN)
                self.run.tell_error("ledger", str(error))
        ended = next(each for each in _WORST if each in (*self.statuses, status.DONE))
        told = ", ".join(f"{count:,} {what}" for what, count in self.ended.items()) or "nothing was done"
        self.run.show(f"slots: {told}", output=store.shown(self.conf.output), status=ended, slots=dict(self.ended))
        return ended

    def _all(self) -> None:
        """Slots that another run holds are looked at again until ``wait`` is over."""
        left, until, is_told = self.due(), time.monotonic() + self.conf.wait, False
        for name, found in self._unknown.items():
            self.ledger.put(name, found)
        while left and not self._is_over():
            held = [name for name, (_, is_held) in self.ledger.states().items() if is_held]
            free = [slot for slot in left if slot.name not in held]
            left = [slot for slot in left if slot.name in held]
            if free:
                work = self._shared()
                with ThreadPoolExecutor(self.conf.parallel, thread_name_prefix="sparkdl-slot") as threads:
                    ended = list(threads.map(functools.partial(self._one, work), free))
                left += [slot for slot, is_done in zip(free, ended, strict=True) if not is_done]
            if not left or time.monotonic() >= until or self._is_over():
                break
            if not is_told:
                is_told = True
                self.run.tell("waiting", f"other runs work on {len(left)} slots; waiting {self.conf.wait:g} s for them")
            self.run.told_to_end.wait(min(_LOOK_S, self.conf.lease / 5))
        if self.run.told_to_end.is_set():
            self.statuses.append(status.TRY_AGAIN)
            return
        for slot in () if self._stop.is_set() else left:
            entry = self.ledger.entry(slot.name)
            if not self._is_done(slot, entry):
                self.ended[HELD] += 1
                self.statuses.append(status.TRY_AGAIN)
                self._warn("held", slot, f"another run works on it: {entry.owner if entry else 'it has just begun'}")

    def _is_over(self) -> bool:
        return self._stop.is_set() or self.run.told_to_end.is_set()

    def _is_done(self, slot: Slot, entry: Entry | None) -> bool:
        """True when another run has scored it since this one looked first."""
        if self.rescore or entry is None or entry.state != DONE:
            return False
        sink = one.sink_of(self.conf, slot)
        found = manifest.whole(sink)
        if found is None:
            return False
        if slot in self._again and late.difference(found["input"], late.identity(slot.source(self.conf.source))):
            return False
        self._already(slot, f"was scored meanwhile, by run {entry.run}")
        return True

    def _already(self, slot: Slot, text: str) -> None:
        self.ended[ALREADY] += 1
        self._tell("already", slot, text)

    def _one(self, work: one.Work, slot: Slot) -> bool:
        """Try to have the slot and score it; False if another run has it."""
        if self._is_over():
            return False
        try:
            entry = self.ledger.entry(slot.name)
            if self._is_done(slot, entry):
                return True
            sink, again = one.sink_of(self.conf, slot), slot in self._again
            mine = lease.asked_for(
                self.ledger, slot.name, sink, self.run.id, self.conf.lease, seen=entry, rescore=again
            )
            if mine is None:
                return False
            self._tell("started", slot, f"is scored, under the lease {mine.token}")
            self._done(slot, work.score(slot, mine))
        except Ended:
            self._warn("ended", slot, "its run was told to end; what was finished is kept")
        except Exception as error:
            self._failed(work, slot, error)
        return True

    def _done(self, slot: Slot, done: ScoredTable) -> None:
        self.ended[ALREADY if done.already else SCORED] += 1
        self._tell("scored", slot, f"{done}", **done.to_json())
        share = self.conf.maxInvalid
        if share is not None and done.bad > share * done.rows:
            self.statuses.append(status.PARTLY)
            self._warn("partly", slot, done.too_many(share))

    def _failed(self, work: one.Work, slot: Slot, error: Exception) -> None:
        is_full, is_alive = _is_full(error), session.is_alive(work.spark)
        # of a Spark that is dead everything looks as if it were missing
        found = status.TRY_AGAIN if is_full else status.of(error) if is_alive else status.FAILED
        self.statuses.append(found)
        self.ended["failed"] += 1
        self._warn("failed", slot, f"{type(error).__name__}: {error}", status=found)
        is_ledger = isinstance(error, LedgerError) and not isinstance(error, LeaseLostError)
        if is_full or is_ledger or found == status.BAD_CONF or not is_alive:
            self._stop.set()  # the next slot would end the same way

    def _shared(self) -> one.Work:
        if self._work is None:
            spark = self.run.spark  # where the registry may be told
            self._work = one.Work(
                self.conf, self.ledger, self.run.id, spark, model.of(self.run, self.conf), self._guard
            )
        return self._work

    def _guard(self) -> None:
        if self.run.told_to_end.is_set():
            raise Ended("the run was told to end; what was finished is kept")

    def _tell(self, event: str, slot: Slot, text: str, **fields: Any) -> None:
        self.run.tell(event, f"slot {slot.name}: {text}", slot=slot.name, **fields)

    def _warn(self, event: str, slot: Slot, text: str, **fields: Any) -> None:
        extra = {"event": event, "fields": {"slot": slot.name, **fields}}
        logger.warning("slot %s: %s", slot.name, text, extra=extra)


def _is_full(error: BaseException | None) -> bool:
    """True when a disk was full, here or in a task: there may be room tomorrow."""
    while error is not None:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left on device" in str(error):
            return True
        error = error.__cause__
    return False
