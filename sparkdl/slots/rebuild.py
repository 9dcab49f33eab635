"""The ledger made again out of what the slots' tables say of themselves."""

from __future__ import annotations

from dataclasses import dataclass

from sparkdl.slots import manifest
from sparkdl.slots.ledger import DONE, Ledger


@dataclass(frozen=True)
class Rebuilt:
    """Slots by what was done: written; forgotten, their tables are gone; left, somebody works on them, or is to score them
    again; broken, their tables lack files."""

    written: list[str]
    forgotten: list[str]
    left: list[str]
    broken: list[str]


def rebuild(ledger: Ledger, output: str) -> Rebuilt:
    """Write an entry for each slot's table in the output, and remove those of tables that are gone. Raises LedgerError."""
    ledger.make()
    done = Rebuilt([], [], [], [])
    found = set()
    for sink, told in manifest.below(output):
        slot = told["slot"]
        found.add(slot)
        if manifest.missing(sink, told):
            done.broken.append(slot)
        else:
            (done.written if ledger.put(slot, told) else done.left).append(slot)
    for slot, entry in ledger.entries().items():
        if entry.state == DONE and (slot not in found or slot in done.broken) and ledger.forget(slot):
            done.forgotten.append(slot)
    return done
