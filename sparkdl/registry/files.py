"""A registry as files, in any store of ``pyarrow.fs``. ``docs/registry.md`` tells where what lies.

A record is ``<folder>/<number>/record.json``. Where folders are renamed (local, HDFS) one with the record in it is made
under another name and renamed: onto a folder that holds something no file system renames another. On HDFS it lands
*within* that one instead; and a file there, unlike a folder, would be replaced by pyarrow. So what the record says then
tells who made it. S3, GCS and ABFS have no such step, see ``_written``.
"""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, TypeVar

from pyarrow import fs

from sparkdl import store
from sparkdl.errors import RegistryError, StoreError
from sparkdl.registry.backend import Log
from sparkdl.registry.records import RESERVED, Move, Version, shown

FORMAT = 1
RECORD = "record.json"
R = TypeVar("R", Version, Move)


class Files(Log):
    """uri: a folder, made by the first ``publish``. bundles: where the bundles are; by default in it."""

    def __init__(self, uri: str, bundles: str | None = None) -> None:
        self.root = store.absolute(uri).rstrip("/")
        store.resolve(self.root)
        self.uri = shown(self.root)
        self.bundles = store.absolute(bundles) if bundles else store.join(self.root, "bundles")

    def names(self) -> list[str]:
        """See Backend."""
        found = (name for name in store.names(self.root) if name not in RESERVED and not name.startswith("."))
        return sorted(name for name in found if self.last_version(name))

    def versions(self, name: str) -> list[Version]:
        """See Backend."""
        folder = self._versions(name)
        return [self._read(Version, folder, number) for number in _numbers(folder)]

    def version(self, name: str, number: int) -> Version | None:
        """See Backend."""
        folder = self._versions(name)
        there = store.exists(store.join(folder, str(number), RECORD))
        return self._read(Version, folder, number) if there else None

    def aliases(self, name: str) -> list[str]:
        """See Backend."""
        found = store.names(store.join(self.root, name, "aliases"))
        return sorted(alias for alias in found if _numbers(self._moves(name, alias)))

    def history(self, name: str, alias: str) -> list[Move]:
        """See Backend."""
        folder = self._moves(name, alias)
        return [self._read(Move, folder, number) for number in _numbers(folder)]

    def last_version(self, name: str) -> int:
        """See Log."""
        return max(_numbers(self._versions(name)), default=0)

    def add_version(self, name: str, version: Version) -> bool:
        """See Log."""
        return _added(self._versions(name), version.number, asdict(version))

    def last_move(self, name: str, alias: str) -> tuple[int, int | None]:
        """See Log."""
        folder = self._moves(name, alias)
        number = max(_numbers(folder), default=0)
        return number, self._read(Move, folder, number).version if number else None

    def add_move(self, name: str, number: int, move: Move) -> bool:
        """See Log."""
        return _added(self._moves(name, move.alias), number, asdict(move))

    def _versions(self, name: str) -> str:
        return store.join(self.root, name, "versions")

    def _moves(self, name: str, alias: str) -> str:
        return store.join(self.root, name, "aliases", alias)

    def _read(self, kind: type[R], folder: str, number: int) -> R:
        uri = store.join(folder, str(number), RECORD)
        try:
            told = json.loads(store.read_bytes(uri))
            if told.pop("format") != FORMAT:
                raise ValueError("it has another format: upgrade sparkdl")
            told.pop("token")
            return kind(**told)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise RegistryError(
                f"the record {shown(uri)!r} cannot be understood: {error!r}; take it from a copy of the registry",
                registry=self.uri,
                name=None,
                version=None,
            ) from error


def _numbers(folder: str) -> list[int]:
    return sorted(int(name) for name in store.names(folder) if re.fullmatch(r"[1-9][0-9]*", name))


def _added(folder: str, number: int, told: Mapping[str, Any]) -> bool:
    """True if this made the record of that number, False if it is another's. Raises StoreError."""
    content = json.dumps({"format": FORMAT, **told, "token": uuid.uuid4().hex}, indent=2, ensure_ascii=False).encode()
    target = store.join(folder, str(number))
    return (_renamed if store.renames_folders(folder) else _written)(folder, target, content)


def _renamed(folder: str, target: str, content: bytes) -> bool:
    made = store.join(folder, f".{uuid.uuid4().hex}")
    store.write_bytes(store.join(made, RECORD), content)
    _flush(store.join(made, RECORD))
    try:
        store.move(made, target)
        _flush(folder)
    except StoreError:
        if not store.exists(store.join(target, RECORD)):
            store.delete(made)
            raise
    ours = store.read_bytes(store.join(target, RECORD)) == content
    if not ours:
        store.delete(made)
        store.delete(store.join(target, made.rpartition("/")[2]))  # where HDFS has put it
    return ours


def _written(folder: str, target: str, content: bytes) -> bool:
    """Without a step that fails where something is: two who write at the same moment may both find it free. Who reads
    another's record than he wrote has lost; but the other may come only after he read his."""
    record = store.join(target, RECORD)
    if store.exists(record):
        return False
    store.write_bytes(record, content)
    return store.read_bytes(record) == content


def _flush(uri: str) -> None:
    """Have a local file, or a folder's list of names, on the disk: a power cut must not leave a record without content."""
    filesystem, path = store.resolve(uri)
    if isinstance(filesystem, fs.LocalFileSystem):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
