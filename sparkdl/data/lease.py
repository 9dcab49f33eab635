"""Who owns temporary data, so that what a dead process left behind can be told from what a live one works on.

An owned folder holds ``owner.json``: where its process runs (host name, boot, PID namespace), its id and start time.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from pyarrow import fs

from sparkdl import store

OWNER = "owner.json"
FOREIGN_S = 7 * 24 * 3600.0  # of a process elsewhere nobody here can tell whether it lives
logger = logging.getLogger(__name__)


@contextlib.contextmanager
def temporary(place: str, prefix: str = "sparkdl-fit") -> Iterator[str]:
    """A new folder ``PREFIX-<hex>`` under the URI ``place``, deleted at the end, however it ends; yields its URI.

    Folders of this prefix that a process which is gone left under ``place`` are deleted first (see ``sweep``).
    Raises StoreError if ``place`` cannot be written.
    """
    place = store.absolute(place)
    store.check_writable(place)
    sweep(place, prefix)
    run = store.join(place, f"{prefix}-{uuid.uuid4().hex}")
    try:
        claim(run)
        yield run
    finally:
        store.delete(run)


def claim(folder: str) -> None:
    """Make this process the owner of the folder. Raises StoreError if it cannot be written."""
    store.write_bytes(store.join(folder, OWNER), json.dumps(_this_process()).encode())


def release(folder: str) -> None:
    """Nobody owns the folder any more."""
    store.delete(store.join(folder, OWNER))


def is_abandoned(folder: str, now: float | None = None) -> bool:
    """True when the owner is gone: on this host its process is not there any more; elsewhere, or with no owner named,
    nothing in the folder was written for 7 days before ``now`` (seconds since 1970)."""
    here = _this_process()
    owner = _owner(folder)
    if owner is not None and owner["place"] == here["place"]:
        return not _is_running(owner["pid"], owner["started"])
    latest = _latest_change(folder)
    return latest is not None and (time.time() if now is None else now) - latest > FOREIGN_S


def is_forgotten(folder: str) -> bool:
    """True when nobody of this host holds the folder, and nothing in it was written for 7 days."""
    latest = _latest_change(folder)
    return not is_held(folder) and latest is not None and time.time() - latest > FOREIGN_S


def is_held(folder: str) -> bool:
    """True when another process of this host owns the folder, and lives. Of one elsewhere nobody here can tell."""
    here, owner = _this_process(), _owner(folder)
    if owner is None or owner["place"] != here["place"] or owner["pid"] == here["pid"]:
        return False
    return _is_running(owner["pid"], owner["started"])


def sweep(place: str, prefix: str) -> list[str]:
    """Delete the folders ``PREFIX-<32 hex digits>`` under ``place`` that are abandoned; the names of those deleted.

    One that cannot be deleted, another user's say, is logged and left.
    """
    swept = []
    for name in store.names(place):
        folder = store.join(place, name)
        if not is_named(name, prefix):
            continue
        try:
            if is_abandoned(folder):
                store.delete(folder)
                swept.append(name)
        except OSError as error:
            logger.info("%s, which a process that is gone left, cannot be deleted: %s", folder, error)
    return swept


def is_named(name: str, prefix: str) -> bool:
    """True for ``PREFIX-<32 hex digits>``: nothing else is ever touched."""
    return re.fullmatch(re.escape(prefix) + "-[0-9a-f]{32}", name) is not None


def _this_process() -> dict[str, Any]:
    process = psutil.Process()
    return {"place": _place(), "pid": process.pid, "started": process.create_time()}


def _place() -> list[str]:
    """Where a process id means what it means here: containers may share a host name, or ids, but not all of these."""
    boot, namespace = Path("/proc/sys/kernel/random/boot_id"), "/proc/self/ns/pid"
    return [
        socket.gethostname(),
        boot.read_text().strip() if boot.exists() else "",
        os.readlink(namespace) if os.path.exists(namespace) else "",
    ]


def _owner(folder: str) -> dict[str, Any] | None:
    try:
        owner = json.loads(store.read_bytes(store.join(folder, OWNER)))
        return {"place": list(owner["place"]), "pid": int(owner["pid"]), "started": float(owner["started"])}
    except (FileNotFoundError, ValueError, KeyError, TypeError):  # not yet written, or not by us
        return None


def _is_running(pid: int, started: float) -> bool:
    try:
        return abs(psutil.Process(pid).create_time() - started) < 1  # else the id was given to another process
    except psutil.NoSuchProcess:
        return False


def _latest_change(folder: str) -> float | None:
    """When something in the folder was last written, in seconds since 1970; None if the file system does not say."""
    filesystem, path = store.resolve(folder)
    infos = filesystem.get_file_info(fs.FileSelector(path, recursive=True, allow_not_found=True))
    infos.append(filesystem.get_file_info(path))
    return max((info.mtime_ns / 1e9 for info in infos if info.mtime_ns), default=None)
