"""What a slot's table says of itself, in its ``_sparkdl.json``: enough to make the ledger again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sparkdl import store
from sparkdl.score import written
from sparkdl.score.written import MANIFEST

Told = dict[str, Any]
_OF_A_SLOT = {"slot", "run", "model", "input", "started", "time", "token", "told", "sha256", "bytes", "key"}


def of(sink: str) -> Told | None:
    """Of the slot's table at ``sink``; None if there is none, or one that no slot's run made."""
    found = written.read(store.join(sink, MANIFEST))
    return found if isinstance(found, dict) and found.keys() >= _OF_A_SLOT else None


def whole(sink: str) -> Told | None:
    """As ``of``; None also if the table lacks a file."""
    found = of(sink)
    return None if found is None or missing(sink, found) else found


def below(output: str) -> Iterator[tuple[str, Told]]:
    """Of all slots' tables in the output: the URI of each, and what it says."""
    for name in sorted(store.names(output)):
        folder = store.join(output, name)
        if "=" not in name or name.startswith((".", "_")):
            continue
        found = of(folder)
        if found is not None:
            yield folder, found
        elif store.is_folder(folder):
            yield from below(folder)


def missing(sink: str, manifest: Told) -> str | None:
    """The first of its files that is not there, or not of its size."""
    there = written.sizes(sink)
    return next((name for name, size in sorted(manifest["bytes"].items()) if there.get(name) != size), None)
