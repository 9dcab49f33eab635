"""A registry as files, in any store of ``pyarrow.fs``. ``docs/registry.md`` tells where what lies.

A record is ``<folder>/<number>/record.json``. Where folders are renamed (local, HDFS) one with the record in it is made
under another name and renamed: onto a folder that holds something no file system renames another. On HDFS it lands
*within* that one instead; and a file there, unlike a folder, would be replaced by pyarrow. So what the record says then
tells who made it. S3, GCS and ABFS have no such step, see ``_claimed``.
"""

from __future__ import annotations

import json
import os
import random
import re
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, TypeVar

from pyarrow import fs

from sparkdl import store
from sparkdl.errors import RegistryError, StoreError
from sparkdl.registry.backend import Log
from sparkdl.registry.records import RESERVED, Move, Version

FORMAT = 1
RECORD = "record.json"
STALE_S = 60.0  # a claim this old is that of a writer who was killed; its number is left out
R = TypeVar("R", Version, Move)


class Files(Log):
    """uri: a folder, made by the first ``publish``. bundles: where the bundles are; by default in it."""

    def __init__(self, uri: str, bundles: str | None = None) -> None:
        self.root = store.absolute(uri).rstrip("/")
        store.resolve(self.root)
        self.uri = store.shown(self.root)
        self.bundles = store.absolute(bundles) if bundles else store.join(self.root, "bundles")

    def names(self) -> list[str]:
        """See Backend."""
        found = (name for name in store.names(self.root) if name not in RESERVED and not name.startswith("."))
        return sorted(name for name in found if _last(self._versions(name)))

    def versions(self, name: str) -> list[Version]:
        """See Backend."""
        folder = self._versions(name)
        found = (self._read(Version, folder, number) for number in _numbers(folder))
        return [version for version in found if version is not None]

    def version(self, name: str, number: int) -> Version | None:
        """See Backend."""
        return self._read(Version, self._versions(name), number)

    def aliases(self, name: str) -> list[str]:
        """See Backend."""
        found = store.names(store.join(self.root, name, "aliases"))
        return sorted(alias for alias in found if _last(self._moves(name, alias)))

    def history(self, name: str, alias: str) -> list[Move]:
        """See Backend."""
        folder = self._moves(name, alias)
        found = (self._read(Move, folder, number) for number in _numbers(folder))
        return [move for move in found if move is not None]

    def last_version(self, name: str) -> int:
        """See Log."""
        folder = self._versions(name)
        return _last_taken(folder, _last(folder))

    def add_version(self, name: str, version: Version) -> bool:
        """See Log."""
        return _added(self._versions(name), version.number, asdict(version))

    def last_move(self, name: str, alias: str) -> tuple[int, int | None]:
        """See Log."""
        folder = self._moves(name, alias)
        last = _last(folder)
        return _last_taken(folder, last), self._version_of(folder, last)

    def current(self, name: str, alias: str) -> int | None:
        """See Backend."""
        folder = self._moves(name, alias)
        return self._version_of(folder, _last(folder))

    def add_move(self, name: str, number: int, move: Move) -> bool:
        """See Log."""
        return _added(self._moves(name, move.alias), number, asdict(move))

    def _version_of(self, folder: str, number: int) -> int | None:
        move = self._read(Move, folder, number) if number else None
        return move.version if move is not None else None

    def _versions(self, name: str) -> str:
        return store.join(self.root, name, "versions")

    def _moves(self, name: str, alias: str) -> str:
        return store.join(self.root, name, "aliases", alias)

    def _read(self, kind: type[R], folder: str, number: int) -> R | None:
        """None if there is no such record, or not yet: object stores have a folder before what is in it."""
        uri = store.join(folder, str(number), RECORD)
        try:
            told = json.loads(store.read_bytes(uri))
            if told.pop("format") != FORMAT:
                raise ValueError("it has another format: upgrade sparkdl")
            told.pop("token")
            return kind(**told)
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise RegistryError(
                f"the record {store.shown(uri)!r} cannot be understood: {error!r}; take it from a copy of the registry",
                registry=self.uri,
                name=None,
                version=None,
            ) from error


def _numbers(folder: str) -> list[int]:
    return sorted(int(name) for name in store.names(folder) if re.fullmatch(r"[1-9][0-9]{0,8}", name))


def _last(folder: str) -> int:
    """The highest number with a record, 0 if there is none."""
    there = (number for number in reversed(_numbers(folder)) if store.exists(store.join(folder, str(number), RECORD)))
    return next(there, 0)


def _last_taken(folder: str, last: int) -> int:
    """``last``, or a higher number that a writer claimed who was killed since."""
    claimed = (int(name[1:]) for name in store.names(folder) if re.fullmatch(r"\.[1-9][0-9]{0,8}", name))
    return max([last, *(number for number in claimed if number > last and _is_stale(_claims(folder, number)))])


def _claims(folder: str, number: int) -> str:
    return store.join(folder, f".{number}")


def _is_stale(claims: str) -> bool:
    filesystem, path = store.resolve(claims)
    found = filesystem.get_file_info(fs.FileSelector(path, allow_not_found=True))
    return any(info.mtime is not None and time.time() - info.mtime.timestamp() > STALE_S for info in found)


def _added(folder: str, number: int, told: Mapping[str, Any]) -> bool:
    """True if this made the record of that number, False if it is, or may become, another's. Raises StoreError."""
    token = uuid.uuid4().hex
    content = json.dumps({"format": FORMAT, **told, "token": token}, indent=2, ensure_ascii=False).encode()
    if store.renames_folders(folder):
        return _renamed(folder, store.join(folder, str(number)), content)
    return _claimed(folder, number, token, content)


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


def _claimed(folder: str, number: int, token: str, content: bytes) -> bool:
    """Where no step fails for what is there already, but who lists a folder sees all that was written before.

    Who writes first claims the number, by a file of his own, and then looks who else did. Of two, the one who claims
    later sees the other's claim, for that stays until its record is there; so never do both find themselves alone. Both
    may see each other: then neither writes, and they try again after a while of chance.
    """
    claims, record = _claims(folder, number), store.join(folder, str(number), RECORD)
    store.write_bytes(store.join(claims, token), b"{}")
    try:
        is_alone = store.names(claims) == [token]
        if is_alone and not store.exists(record):
            store.write_bytes(record, content)
            return True
    finally:
        store.delete(store.join(claims, token))
    if not is_alone:
        time.sleep(random.uniform(0.01, 0.2))
    return False


def _flush(uri: str) -> None:
    """Have a local file, or a folder's list of names, on the disk: a power cut must not leave a record without content."""
    filesystem, path = store.resolve(uri)
    if isinstance(filesystem, fs.LocalFileSystem):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
