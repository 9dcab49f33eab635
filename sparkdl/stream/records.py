"""What a query writes down beside its checkpoint, in ``CHECKPOINT/sparkdl``, so that a restart does what it had begun.

``query.json``: which query this is. ``batches/N.json``: with which version of the model batch N is scored, written before it
runs; then also the files of its rows. ``lock`` or ``owner.json``: who runs it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pyarrow import fs

from sparkdl import store
from sparkdl.data import lease
from sparkdl.errors import StreamError
from sparkdl.sinks.sink import Staged

FOLDER = "sparkdl"
KEPT = 100  # batches, as Spark keeps its own (spark.sql.streaming.minBatchesToRetain)
_FORMAT = 1
_held: set[str] = set()  # by this process, where there are no locks
_REMEDIES = {
    "offsets": "write the text kept as 'offsets' in {record} into it, and remove its .crc file, if it has one; if {record} is "
    "not there, the batch had not begun: remove {path} and its .crc",
    "commits": "remove it and its .crc file: its batch is done again, of what is written down about it, and no row twice",
    "sources": "put back a copy of the checkpoint; without one, name a new checkpoint and a new sink",
    "batches": "put back a copy of the checkpoint, or remove the file if {commit} is there, for then the batch is done",
    "query": "put back a copy of the checkpoint",
    "metadata": "put back a copy of the checkpoint",
}


@dataclass(frozen=True)
class BatchRecord:
    """batch: its number. version, other: of the model, and of the challenger if there is one. offsets: Spark's own
    record of which rows of the source these are. rows, dead: files, once they are written."""

    batch: int
    version: str
    other: str | None = None
    offsets: str | None = None
    rows: Staged | None = None
    dead: Staged | None = None
    told: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        staged = {name: made and made.to_json() for name, made in (("rows", self.rows), ("dead", self.dead))}
        return {**asdict(self), **staged}

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> BatchRecord:
        """What ``to_json`` gave."""
        staged = {name: told[name] and Staged.from_json(told[name]) for name in ("rows", "dead")}
        return cls(**{**told, **staged})


@dataclass(frozen=True)
class Records:
    """The folder of a checkpoint. query: the query's id, 32 hex digits."""

    checkpoint: str
    query: str

    def begun(self, batch: int) -> BatchRecord | None:
        """What is written down of a batch. Raises StreamError if its rows are not those it was begun with."""
        path = self._path(batch)
        try:
            record = BatchRecord.from_json(_read(self.checkpoint, path))
        except FileNotFoundError:
            return None
        if record.offsets is not None and record.offsets != self.offsets(batch):
            raise StreamError(
                f"batch {batch} of the checkpoint {self.checkpoint!r} was begun with other rows than Spark now gives: its "
                f"offsets/{batch} was changed or removed. To lose no row, {_remedy('offsets', path, batch)}",
                checkpoint=self.checkpoint,
            )
        return record

    def write(self, record: BatchRecord) -> None:
        """Write down. Raises StoreError."""
        store.write_bytes(store.join(self.checkpoint, self._path(record.batch)), json.dumps(record.to_json()).encode())

    def offsets(self, batch: int) -> str | None:
        """Spark's own record of which rows of the source a batch has."""
        try:
            return store.read_bytes(store.join(self.checkpoint, "offsets", str(batch))).decode()
        except FileNotFoundError:
            return None

    def forget(self, batch: int) -> None:
        """Remove what is written of batches long before this one."""
        for number in _numbers(store.join(self.checkpoint, FOLDER, "batches")):
            if number < batch - KEPT:
                store.delete(store.join(self.checkpoint, self._path(number)))

    @property
    def scratch(self) -> str:
        """A folder for files that are not a sink's own, in folders ``N-…`` of batch N."""
        return store.join(self.checkpoint, FOLDER, "staged")

    def sweep(self, batch: int) -> None:
        """This batch has not begun, so those before it are done: remove their files, and what attempts left."""
        for name in store.names(self.scratch):
            if int(name.split("-")[0]) <= batch:
                store.delete(store.join(self.scratch, name))

    def path(self, batch: int) -> str:
        """The URI of a batch's record."""
        return store.join(self.checkpoint, self._path(batch))

    @staticmethod
    def _path(batch: int) -> str:
        return f"{FOLDER}/batches/{batch}.json"


def last_versions(checkpoint: str) -> tuple[str | None, str | None]:
    """The versions of the model, and of the challenger, by which the last batch was begun; None if there is none."""
    for last in _last(checkpoint, f"{FOLDER}/batches"):
        told = _read(checkpoint, f"{FOLDER}/batches/{last}")
        return told["version"], told["other"]
    return None, None


def mode(checkpoint: str) -> str | None:
    """``microbatch`` or ``realtime``, as the checkpoint's query began; None if it has none. Raises StreamError for a file
    that cannot be read."""
    try:
        return _read(checkpoint, f"{FOLDER}/query.json").get("mode") or "microbatch"
    except FileNotFoundError:
        return None


def opened(checkpoint: str, identity: Mapping[str, Any]) -> Records:
    """The records of a checkpoint, begun if there are none.

    identity: of the query, as JSON values: its model, sink, dead letters. Raises StreamError if the checkpoint is of another query, or cannot
    be read, StoreError if it cannot be written.
    """
    _check_whole(checkpoint)
    path = f"{FOLDER}/query.json"
    try:
        told = _read(checkpoint, path)
    except FileNotFoundError:
        if _numbers(store.join(checkpoint, "offsets")):
            raise StreamError(
                f"the checkpoint {checkpoint!r} is of a query that score_stream did not start; name another one",
                checkpoint=checkpoint,
            ) from None
        store.check_writable(checkpoint)
        told = {"format": _FORMAT, "query": uuid.uuid4().hex, "begun": time.time(), **identity}
        store.write_bytes(store.join(checkpoint, path), json.dumps(told, indent=1).encode())
    if told.get("format") != _FORMAT:
        raise StreamError(
            f"the checkpoint {checkpoint!r} was written by another sparkdl (format {told.get('format')!r}, this one reads "
            f"{_FORMAT})",
            checkpoint=checkpoint,
        )
    for name, value in json.loads(json.dumps({"mode": None, **identity})).items():
        if told.get(name) != value:
            raise StreamError(
                f"the checkpoint {checkpoint!r} belongs to a query with another {name}: {json.dumps(told.get(name))}, and "
                f"this one has {json.dumps(value)}. Name another checkpoint, or what the query had",
                checkpoint=checkpoint,
            )
    return Records(checkpoint, told["query"])


@contextlib.contextmanager
def locked(checkpoint: str) -> Iterator[None]:
    """Hold the checkpoint for this process and query. Raises StreamError if another query runs on it.

    On a local path by a lock that ends with the process; elsewhere by a file that names its owner, which protects from a
    second query on this host only.
    """
    folder = store.join(checkpoint, FOLDER)
    busy = StreamError(
        f"another query runs on the checkpoint {checkpoint!r}; stop it, or name another checkpoint",
        checkpoint=checkpoint,
    )
    filesystem, path = store.resolve(folder)
    if isinstance(filesystem, fs.LocalFileSystem):
        os.makedirs(path, exist_ok=True)
        with open(os.path.join(path, "lock"), "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise busy from None
            yield
        return
    if folder in _held or lease.is_held(folder):
        raise busy
    _held.add(folder)
    try:
        lease.claim(folder)
        yield
    finally:
        _held.discard(folder)
        lease.release(folder)


def _read(checkpoint: str, path: str) -> Any:
    content = store.read_bytes(store.join(checkpoint, path))
    try:
        return json.loads(content)
    except ValueError:
        raise _cut_short(checkpoint, path, len(content)) from None


def _check_whole(checkpoint: str) -> None:
    """Raise StreamError if the last of the files by which the query goes on is cut short."""
    folders = ["offsets", "commits"]
    sources = store.join(checkpoint, "sources")
    folders += [f"sources/{name}" for name in store.names(sources)]
    paths = [f"{folder}/{last}" for folder in folders for last in _last(checkpoint, folder)]
    for path in paths:
        content = store.read_bytes(store.join(checkpoint, path))
        lines = content.decode(errors="replace").lstrip("\0").splitlines()  # Kafka's begins with a zero
        is_sources = path.startswith("sources/")
        if is_sources and lines and not re.fullmatch(r"v\d+", lines[0]):
            continue  # of a source that has a format of its own
        least = 2 if is_sources or path.startswith("commits") else 3
        if len(lines) < least or not re.fullmatch(r"v\d+", lines[0]) or not all(map(_is_told, lines[1:])):
            raise _cut_short(checkpoint, path, len(content))
    if store.exists(store.join(checkpoint, "metadata")):
        _read(checkpoint, "metadata")
    for last in _last(checkpoint, f"{FOLDER}/batches"):
        _read(checkpoint, f"{FOLDER}/batches/{last}")


def _last(checkpoint: str, folder: str) -> list[str]:
    """The name of the last numbered file in a folder, ``N``, ``N.compact`` or ``N.json``; nothing if there is none."""
    found = [
        name for name in store.names(store.join(checkpoint, folder)) if re.fullmatch(r"\d+(\.compact|\.json)?", name)
    ]
    return sorted(found, key=lambda name: int(name.split(".")[0]))[-1:]


def _numbers(folder: str) -> list[int]:
    return [int(name.split(".")[0]) for name in store.names(folder) if re.fullmatch(r"\d+(\.json)?", name)]


def _is_told(line: str) -> bool:
    """True for a line as Spark writes them: JSON, or what stands for a source without offsets."""
    if line == "-":
        return True
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _cut_short(checkpoint: str, path: str, nbytes: int) -> StreamError:
    kind = next(part for part in _REMEDIES if part in path)
    batch = re.search(r"(\d+)(?:\.compact|\.json)?$", path)
    return StreamError(
        f"{store.join(checkpoint, path)!r} is cut short or damaged ({nbytes} bytes), and without it rows would be lost or "
        f"scored twice. Remedy: {_remedy(kind, path, int(batch[1]) if batch else None)}",
        checkpoint=checkpoint,
    )


def _remedy(kind: str, path: str, batch: int | None) -> str:
    return _REMEDIES[kind].format(path=path, record=f"{FOLDER}/batches/{batch}.json", commit=f"commits/{batch}")
