"""What a slot's table says of itself, in its ``_sparkdl.json``: enough to make the ledger again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pyarrow import fs

from sparkdl import store
from sparkdl.score import staging
from sparkdl.score.staging import MANIFEST

Told = dict[str, Any]
_OF_A_SLOT = {"slot", "run", "model", "input", "started", "time", "token", "told", "sha256", "key"}


def of(sink: str) -> Told | None:
    """Of the slot's table at ``sink``; None if there is none, or one that no slot's run made."""
    found = staging.read(store.join(sink, MANIFEST))
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
        elif _is_folder(folder):
            yield from below(folder)


def missing(sink: str, manifest: Told) -> str | None:
    """The first of its files that is not there."""
    there = staging.paths(sink)
    return next((name for name in sorted(manifest["sha256"]) if name not in there), None)


def _is_folder(uri: str) -> bool:
    filesystem, path = store.resolve(uri)
    return bool(filesystem.get_file_info(path).type == fs.FileType.Directory)
