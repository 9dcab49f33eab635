"""Where a table is made, hidden beside its place, until one rename makes it the table. No Spark.

::

    .NAME.sparkdl-KEY/          beside the table NAME; KEY: of all that the table is made from
        owner.json              who works on it
        plan.json               the pieces, as the first run cut them, and the plan's id
        work/                   files that are being written
        done-ID/00042.json      piece 42 of the plan is finished: its files, its counts
        failed.json             the row for which the run ended
        old/                    for a moment, the table that this one replaces
        table/                  files of finished pieces
            _sparkdl.json       what the table is, so that it is known when it is asked for again; written last
        final-…/                what table/ is called from the commit on, out of reach of late attempts; it becomes NAME

Of a run that works under a lease, which may be taken from it (see ``fence``), all but ``old`` and ``final-…`` is in
``.NAME.sparkdl.TOKEN/KEY/``, and these two are in ``.NAME.sparkdl.TOKEN/commit/``.
"""

from __future__ import annotations

import json
import logging
import posixpath
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from sparkdl import store
from sparkdl.data import lease
from sparkdl.errors import StoreError
from sparkdl.score.pieces import Piece
from sparkdl.score.written import MANIFEST, REMEDY, Told, keep_only, paths, read

FAILED, PLAN, OLD, GATE = "failed.json", "plan.json", "old", "commit"
_claimed: set[str] = set()  # folders that this process works on
_claims = threading.Lock()
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Staging:
    """Of the table at the URI ``sink``. key: 32 hex digits. plan: the id of the pieces, once they are ``planned``. token: of
    the lease, if the run works under one: a folder that was made before the lease was had, and is not made again."""

    sink: str
    key: str
    plan: str = ""
    token: str | None = None

    @property
    def folder(self) -> str:
        """The whole of it, but for the gate."""
        if self.token is not None:
            return store.join(holder(self.sink, self.token), self.key)
        parent, name = posixpath.split(self.sink.rstrip("/"))
        return store.join(parent, f"{prefix(name)}-{self.key}")

    @property
    def gate(self) -> str:
        """The folder that the table goes through on its way to the sink. Under a lease nothing here makes it."""
        return self.folder if self.token is None else store.join(holder(self.sink, self.token), GATE)

    @property
    def table(self) -> str:
        """What becomes the table."""
        return store.join(self.folder, "table")

    def claim(self) -> None:
        """Without a lease: make this call the one that works on it, and remove what runs that are gone left of other tables for this
        place, and of attempts at this one. Raises StoreError if another call or process does, or if it cannot be
        written."""
        with _claims:
            if self.folder in _claimed or lease.is_held(self.folder):
                whose = "another call" if self.folder in _claimed else "another process"
                raise StoreError(f"{whose} makes {self.sink!r} just now (in {self.folder})", uri=self.sink)
            _claimed.add(self.folder)
        try:
            lease.claim(self.folder)
            parent, name = posixpath.split(self.sink.rstrip("/"))
            lease.sweep(parent, prefix(name))
            for name in store.names(self.folder):
                if name in (FAILED, "work") or name.startswith("final-"):
                    store.delete(store.join(self.folder, name))
        except BaseException as error:
            self._disclaim()
            if not isinstance(error, OSError):
                raise
            raise StoreError(
                f"the table {self.sink!r} cannot be written ({error}); name a place that driver and executors can write",
                uri=self.sink,
            ) from error

    def _disclaim(self) -> None:
        with _claims:
            _claimed.discard(self.folder)

    def planned(self, plan: Callable[[], list[Piece]]) -> tuple[Staging, list[Piece]]:
        """The pieces, and the place in which these are finished: those of the first run, whatever the cluster is now, or
        else what ``plan`` gives."""
        found = read(store.join(self.folder, PLAN))
        if found is not None:
            return replace(self, plan=found["id"]), [Piece.from_json(piece) for piece in found["pieces"]]
        pieces, name = plan(), uuid.uuid4().hex
        told = {"id": name, "pieces": [piece.to_json() for piece in pieces]}
        store.write_bytes(store.join(self.folder, PLAN), json.dumps(told).encode())
        return replace(self, plan=name), pieces

    def work(self, attempt: str) -> str:
        """Where an attempt at a piece writes; nobody else does."""
        return store.join(self.folder, "work", attempt)

    def drop(self, attempt: str) -> None:
        """Remove what the attempt wrote; one that failed to write is no reason to fail here."""
        try:
            store.delete(self.work(attempt))
        except OSError as error:
            logger.info("%s, of an attempt that failed, cannot be deleted: %s", self.work(attempt), error)

    def finish(self, number: int, attempt: str, told: Told) -> None:
        """The attempt's files, ``told["files"]``, become those of the piece: all of them, once its marker is there.

        Raises StoreError if the run that cut this plan is over and its plan is no more.
        """
        found = read(store.join(self.folder, PLAN))
        if found is None or found["id"] != self.plan:
            raise StoreError(f"the run that made {self.sink!r} is over, and so is its piece {number}", uri=self.sink)
        store.sync(self.work(attempt))
        for file in told["files"]:
            target = store.join(self.table, file)
            filesystem, path = store.resolve(posixpath.dirname(target))
            filesystem.create_dir(path, recursive=True)
            store.move(store.join(self.work(attempt), file), target)
        store.write_bytes(self._marker(number), json.dumps(told).encode())
        store.delete(self.work(attempt))

    def finished(self, number: int) -> Told | None:
        """What ``finish`` was told of the piece; None if it is not finished, or a file of it is gone."""
        told: Told | None = read(self._marker(number))
        if told is None:
            return None
        return told if all(store.exists(store.join(self.table, file)) for file in told["files"]) else None

    def markers(self) -> list[int]:
        """The pieces that have a marker."""
        names = store.names(store.join(self.folder, f"done-{self.plan}"))
        return sorted(int(name.removesuffix(".json")) for name in names if name.endswith(".json"))

    def _marker(self, number: int) -> str:
        return store.join(self.folder, f"done-{self.plan}", f"{number:05d}.json")

    def fail(self, told: Told) -> None:
        """Tell the driver of a row for which the run is to end, before all tasks have."""
        store.write_bytes(store.join(self.folder, FAILED), json.dumps(told).encode())

    def failure(self) -> Told | None:
        """What ``fail`` was told in this run."""
        told: Told | None = read(store.join(self.folder, FAILED))
        return told

    def leave(self) -> None:
        """Without a lease: nobody works on it any more; finished pieces stay for the next run, without any nothing does."""
        try:
            if any(name.startswith("done-") or name == OLD for name in store.names(self.folder)):
                lease.release(self.folder)
            else:
                store.delete(self.folder)
        finally:
            self._disclaim()

    @property
    def _whole(self) -> str:
        return self.folder if self.token is None else holder(self.sink, self.token)

    def commit(
        self,
        told: Told,
        *,
        files: Iterable[str] | None,
        overwrite: bool,
        about: Told | None = None,
        sums: Mapping[str, str] | None = None,
    ) -> None:
        """Make it the table, with these files and no other, in one step; what was there before is deleted then.

        files: None for those that are there. told: what ``committed`` gives back. about: what else the manifest says.
        sums: the SHA-256 of files, in hex, which a manifest under a lease has; those of others are taken here.

        Raises StoreError if a file is not there, if something came to be at ``sink`` meanwhile and is not to be replaced,
        or if the lease was taken over: the gate is gone then, and with it every way to the sink.
        """
        final = store.join(self.gate, f"final-{uuid.uuid4().hex}")
        kept = set(paths(self.table) if files is None else files)
        names = sorted(name for name in kept if name.endswith(".parquet"))
        manifest = {**(about or {}), "key": self.key, "told": told, "files": names}
        if self.token is not None:
            known = sums or {}
            digests = {name: known.get(name) or store.sha256(store.join(self.table, name)) for name in names}
            sizes = {name: store.size(store.join(self.table, name)) for name in names}
            manifest |= {"token": self.token, "sha256": digests, "bytes": sizes, "time": time.time()}
        store.write_bytes(store.join(self.table, MANIFEST), json.dumps(manifest, indent=2).encode())
        store.move(self.table, final)  # a late attempt makes another table/
        try:
            keep_only(final, {*kept, MANIFEST})
            store.sync(final)  # a ledger may tell of it at once, and a machine be lost
            self._publish(final, overwrite)
            store.sync(posixpath.dirname(self.sink.rstrip("/")), below=False)
        except BaseException:
            if store.exists(final) and not store.exists(self.table):
                store.move(final, self.table)  # for the next run
            raise
        try:
            store.delete(self._whole)
        except OSError as error:  # a late attempt writes there
            logger.info("%s, of a table that is done, cannot be deleted: %s", self._whole, error)
        self._disclaim()

    def _publish(self, final: str, overwrite: bool) -> None:
        if not store.exists(self.sink):
            store.move(final, self.sink)
        elif not overwrite:
            raise StoreError(f"something was written to {self.sink!r} meanwhile; {REMEDY}", uri=self.sink)
        elif not store.exchange(final, self.sink):
            old = store.join(self.gate, OLD)
            store.move(self.sink, old)
            try:
                store.move(final, self.sink)
            except BaseException:
                if store.exists(old):  # else whoever took the lease over has put it back
                    store.move(old, self.sink)
                raise


def prefix(name: str) -> str:
    """Of the names of staging folders for a table of this name."""
    return f".{name}.sparkdl"


def holder(sink: str, token: str) -> str:
    """The folder of a run that works on this table under the lease of this token."""
    parent, name = posixpath.split(sink.rstrip("/"))
    return store.join(parent, f"{prefix(name)}.{token}")


def recover(sink: str) -> None:
    """Put back the table that a run had renamed when it died, just before its own table could take that place."""
    parent, name = posixpath.split(sink.rstrip("/"))
    for found in store.names(parent):
        folder = store.join(parent, found)
        old = store.join(folder, OLD)
        is_left = lease.is_named(found, prefix(name)) and store.exists(old) and lease.is_abandoned(folder)
        if is_left and not store.exists(sink):
            store.move(old, sink)
