"""Lease: the right to work on a slot, for a time, prolonged by a heartbeat; and its token, by which it is fenced."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from sparkdl.errors import LeaseLostError, SparkdlError
from sparkdl.score import fence
from sparkdl.slots import manifest
from sparkdl.slots.entry import Entry
from sparkdl.slots.ledger import Ledger

BEATS = 3  # in the time of a lease
logger = logging.getLogger(__name__)


class Lease:
    """On ``slot``, of ``token``, for ``seconds`` from its last heartbeat on."""

    def __init__(self, ledger: Ledger, slot: str, token: str, seconds: float) -> None:
        self.ledger, self.slot, self.token, self.seconds = ledger, slot, token, seconds
        self._until = time.monotonic() + seconds
        self._lost = False
        self._over = threading.Event()

    def check(self) -> None:
        """Raise LeaseLostError if another run has taken the slot over, LedgerError if nobody can say whether one has."""
        if not self._lost and time.monotonic() >= self._until:  # this process stood still, or the ledger is away
            self._beat()
        if self._lost:
            raise self.lost()

    def lost(self) -> LeaseLostError:
        """The error of a run whose lease was taken over."""
        return LeaseLostError(
            f"slot {self.slot}: this run stood still for longer than its lease of {self.seconds:g} s, and another has taken "
            "the slot over; nothing more of this run comes to be in its table",
            ledger=self.ledger.url,
            slot=self.slot,
            token=self.token,
        )

    @contextmanager
    def kept(self) -> Iterator[None]:
        """While inside, a thread prolongs it."""
        thread = threading.Thread(target=self._run, name=f"sparkdl-lease-{self.slot}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def _run(self) -> None:
        while not self._over.wait(self.seconds / BEATS) and not self._lost:
            try:
                self._beat()
            except SparkdlError as error:
                logger.warning("slot %s: its lease could not be prolonged, and is tried again: %s", self.slot, error)

    def _beat(self) -> None:
        asked = time.monotonic()
        if self.ledger.renew(self.slot, self.token, self.seconds):
            self._until = asked + self.seconds
        else:
            self._lost = True


def asked_for(
    ledger: Ledger, slot: str, sink: str, run: str, seconds: float, *, seen: Entry | None, rescore: bool
) -> Lease | None:
    """The lease on a slot whose table is ``sink``, or None if another run has it. seen: the slot's entry.

    The holder is made first: whoever has a later lease finds it. Raises StoreError, LedgerError.
    """
    found = manifest.of(sink)
    known = [fence.number(token) for token in (*fence.tokens(sink), *([found["token"]] if found else []))]
    token = f"{max([seen.number if seen else 0, *known]) + 1}-{uuid.uuid4().hex[:8]}"
    fence.make(sink, token)
    # If the ledger is lost here nobody knows whether it was given; if it was it runs out, and the next run finds the holder.
    granted = ledger.grant(slot, seen, token, run, seconds, rescore=rescore)
    if not granted:
        fence.remove(sink, token)
        return None
    return Lease(ledger, slot, token, seconds)
