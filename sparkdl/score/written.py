"""What is at a table's place: may it be replaced, which files has it, what does it say of itself. No Spark."""

from __future__ import annotations

import json
import logging
import posixpath
from typing import Any

from pyarrow import fs

from sparkdl import store
from sparkdl.errors import StoreError

MANIFEST = "_sparkdl.json"  # readers of Parquet do not see names with an underscore
REMEDY = "replace it by overwrite=True, or choose another place"
_BESIDE = ("_SUCCESS", "_metadata", "_common_metadata", "_temporary", MANIFEST)
Told = dict[str, Any]
logger = logging.getLogger(__name__)


def check_sink(sink: str) -> None:
    """Raise StoreError for a store in which a folder is not renamed in one step."""
    if not store.renames_folders(sink):
        raise StoreError(
            f"the store of {store.shown(sink)!r} cannot rename a folder in one step, so a reader would see half a table; write to a "
            "local or HDFS path and copy it, or use model.transform(df).write",
            uri=store.shown(sink),
        )


def committed(sink: str, key: str, *, overwrite: bool) -> Told | None:
    """What was told of the table at ``sink`` if it is of this key; None if it is to be made.

    Raises StoreError if something else is there and is not to be replaced, or is no table.
    """
    if not store.exists(sink):
        return None
    is_folder = store.is_folder(sink)
    names = store.names(sink) if is_folder else []
    manifest = read(store.join(sink, MANIFEST)) if MANIFEST in names else None
    what = "something"
    if isinstance(manifest, dict) and {"key", "told", "files"} <= manifest.keys():
        gone = sorted(set(manifest["files"]) - paths(sink))
        if manifest["key"] == key and not gone:
            told: Told = manifest["told"]
            return told
        what = f"a table that lacks its file {gone[0]!r}" if gone else "a table of other rows, model or settings"
    if not overwrite:
        raise StoreError(f"there is {what} at {store.shown(sink)!r} already; {REMEDY}", uri=store.shown(sink))
    strange = [name for name in names if not _is_of_table(name)]
    if strange or not is_folder:
        what = f"it holds {strange[0]!r}" if strange else "it is a file"
        raise StoreError(
            f"{store.shown(sink)!r} is no folder of Parquet files, {what}; it is not overwritten", uri=store.shown(sink)
        )
    return None


def read(uri: str) -> Any:
    """The JSON value in a file; None if there is none, or no whole one: a store may show a file that is being written."""
    try:
        return json.loads(store.read_bytes(uri))
    except FileNotFoundError:
        return None
    except ValueError as error:
        logger.debug("%s is taken as not there: %s", uri, error)
        return None


def _is_of_table(name: str) -> bool:
    """Parquet files, partitions, what Spark and Hadoop put beside them; not the log of a Delta table."""
    return name.endswith((".parquet", ".crc")) or "=" in name or name in _BESIDE


def keep_only(folder: str, files: set[str]) -> None:
    """Delete all other files in the folder, and folders without any: of attempts that were lost before they were done."""
    filesystem, path = store.resolve(folder)
    there = paths(folder)
    if files - there:
        raise StoreError(
            f"{min(files - there)!r} is not in {store.shown(folder)!r} any more: who deleted it?",
            uri=store.shown(folder),
        )
    for name in there - files:
        filesystem.delete_file(posixpath.join(path, name))
    kept = {parent for name in files for parent in _parents(name)}
    empty = paths(folder, fs.FileType.Directory) - kept
    for name in sorted(empty, reverse=True):  # what is in a folder comes before it
        filesystem.delete_dir(posixpath.join(path, name))


def paths(folder: str, kind: fs.FileType = fs.FileType.File) -> set[str]:
    """Their paths under the folder."""
    return set(sizes(folder, kind))


def sizes(folder: str, kind: fs.FileType = fs.FileType.File) -> dict[str, int | None]:
    """In bytes, by their paths under the folder."""
    filesystem, path = store.resolve(folder)
    found = filesystem.get_file_info(fs.FileSelector(path, recursive=True, allow_not_found=True))
    return {posixpath.relpath(info.path, path): info.size for info in found if info.type == kind}


def _parents(name: str) -> list[str]:
    parts = name.split("/")
    return ["/".join(parts[:i]) for i in range(1, len(parts))]
