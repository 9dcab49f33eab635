"""Late input: is what a slot was scored from still what is there? Without Spark, so that a look costs a listing."""

from __future__ import annotations

import posixpath
from typing import Any

from pyarrow import fs

from sparkdl import store
from sparkdl.errors import SparkdlError

Told = dict[str, Any]
_SHOWN = 3  # files of a kind


def identity(uri: str) -> Told | None:
    """What is another when the input is: ``{"files": {path: [bytes, ns of change]}}`` of the files that Spark would read, or
    ``{"delta": id, "version": n}``. None if there is no file."""
    if store.exists(store.join(uri, "_delta_log")):
        return _delta(uri)
    filesystem, path = store.resolve(uri)
    info = filesystem.get_file_info(path)
    if info.type == fs.FileType.File:
        return {"files": {posixpath.basename(path): [info.size, info.mtime_ns]}}
    found = filesystem.get_file_info(fs.FileSelector(path, recursive=True, allow_not_found=True))
    files = {posixpath.relpath(info.path, path): info for info in found if info.type == fs.FileType.File}
    seen = {name: [info.size, info.mtime_ns] for name, info in sorted(files.items()) if not _is_hidden(name)}
    return {"files": seen} if seen else None


def _delta(uri: str) -> Told:
    try:
        from deltalake import DeltaTable
    except ModuleNotFoundError as error:
        raise SparkdlError(
            f"{store.shown(uri)!r} is a Delta table, which takes the package deltalake: pip install 'sparkdl[delta]'"
        ) from error
    table = DeltaTable(uri)
    return {"delta": str(table.metadata().id), "version": table.version()}


def _is_hidden(path: str) -> bool:
    """As Spark has it: names that begin with a dot, or with an underscore unless they tell a partition."""
    return any(part.startswith(".") or (part.startswith("_") and "=" not in part) for part in path.split("/"))


def difference(before: Told | None, now: Told | None) -> str:
    """What changed, in words; empty if nothing did."""
    if before == now or before is None:
        return ""
    if now is None:
        return "all of its files are gone"
    if "files" not in before or "files" not in now:
        if before.get("delta") != now.get("delta"):
            return "another table is there"
        return f"version {before['version']} of the Delta table was scored, and {now['version']} is there"
    old, new = before["files"], now["files"]
    kinds = {
        "new": [name for name in new if name not in old],
        "changed": [name for name in new if name in old and new[name] != old[name]],
        "gone": [name for name in old if name not in new],
    }
    return "; ".join(f"{len(names):,} {kind} ({_some(names)})" for kind, names in kinds.items() if names)


def _some(names: list[str]) -> str:
    more = ", …" if len(names) > _SHOWN else ""
    return ", ".join(repr(name) for name in sorted(names)[:_SHOWN]) + more
