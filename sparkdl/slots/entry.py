"""Entry: what the ledger says of a slot; and what of it a table's manifest tells."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

Told = dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """Of a slot: the ledger's columns, see ``tables.SLOTS``; JSON read. held: somebody's lease on it is not over."""

    slot: str
    state: str
    number: int
    token: str
    since: int
    rescore: bool
    owner: str
    held: bool
    expires: float
    run: str | None
    model: str | None
    version: int | None
    digest: str | None
    rows: int | None
    written: int | None
    invalid: dict[str, int]
    seconds: float | None
    finished: float | None
    input: Told | None
    files: dict[str, str]
    problem: str | None


def of_row(row: Any, now: float) -> Entry:
    """Of a row of ``tables.SLOTS``, at a time of the database's."""
    told = {name: value for name, value in row._mapping.items() if name != "output"}
    for name, empty in (("invalid", {}), ("input", None), ("files", {})):
        told[name] = json.loads(told[name]) if told[name] else empty
    return Entry(**told, held=row.expires > now)


def of_table(manifest: Told) -> Told:
    """The columns that tell of a slot's table, out of its manifest."""
    told, model = manifest["told"], manifest["model"]
    return {
        "run": manifest["run"],
        "model": model["name"],
        "version": model["version"],
        "digest": model["digest"],
        "rows": told["rows"],
        "written": told["written"],
        "invalid": json.dumps(told["invalid"], sort_keys=True),
        "seconds": manifest["time"] - manifest["started"],
        "finished": manifest["time"],
        "input": json.dumps(manifest["input"], sort_keys=True),
        "files": json.dumps(manifest["sha256"], sort_keys=True),
    }
