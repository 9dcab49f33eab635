"""Who may commit a table that several runs may work on, one after the other, each under a lease with a growing token.

::

    .NAME.sparkdl.7-0a1b2c3d/   the holder of token 7, beside the table NAME; made before the lease is had
        commit/                 the gate: the only way to NAME; made with the holder, by nothing else
        KEY/                    the staging folder, see ``staging``
        taken-6-…/              the holder of token 6, for a moment

Whoever has the lease takes the holders of smaller tokens over: one rename each, after which every rename through the old
gate fails, in whichever process, however long it was stopped. docs/decisions/0025-slots.md has the argument.
"""

from __future__ import annotations

import logging
import posixpath
import re
from collections.abc import Iterator

from sparkdl import store
from sparkdl.errors import StoreError
from sparkdl.score import staging, written
from sparkdl.score.staging import GATE, OLD
from sparkdl.score.written import MANIFEST

_TAKEN = "taken-"
_KEPT = re.compile(rf"(^|/)(done-[0-9a-f]+|{GATE}/{OLD})/")
logger = logging.getLogger(__name__)


def number(token: str) -> int:
    """By which tokens grow."""
    return int(token.partition("-")[0])


def tokens(sink: str) -> list[str]:
    """Of the holders that are there, the smallest first."""
    parent, name = posixpath.split(sink.rstrip("/"))
    found = re.compile(re.escape(staging.prefix(name)) + r"\.(\d+-[0-9a-f]{8})")
    told = [match[1] for match in map(found.fullmatch, store.names(parent)) if match]
    return sorted(told, key=number)


def make(sink: str, token: str) -> None:
    """The holder with its gate, before the lease of this token is asked for. Raises StoreError."""
    filesystem, path = store.resolve(store.join(staging.holder(sink, token), GATE))
    try:
        filesystem.create_dir(path, recursive=True)
    except OSError as error:
        raise StoreError(
            f"the table {store.shown(sink)!r} cannot be written ({error}); name a place that driver and executors can write",
            uri=store.shown(sink),
        ) from error


def remove(sink: str, token: str) -> None:
    """The holder, with all in it."""
    try:
        store.delete(staging.holder(sink, token))
    except OSError as error:  # a late attempt writes there
        logger.info("%s cannot be deleted: %s", staging.holder(sink, token), error)


def leave(sink: str, token: str) -> None:
    """Remove the holder of a run that failed, unless there are finished pieces in it, or a table that it had renamed."""
    try:
        paths = written.paths(staging.holder(sink, token))
    except OSError as error:  # the failure itself is to be told, not this
        logger.info("%s cannot be looked into: %s", staging.holder(sink, token), error)
        return
    if not any(_KEPT.search(path) for path in paths):
        remove(sink, token)


def take_over(sink: str, token: str, key: str | None) -> None:
    """Fence off the holders of smaller tokens, put back a table that one of them had renamed when it died, and take up what
    they had finished of the table of this key, if any. Only for whoever has the lease of this token.

    Raises StoreError if the lease was taken over meanwhile.
    """
    mine = staging.holder(sink, token)
    for other in tokens(sink):
        if number(other) < number(token):
            _take(sink, other, mine)
    left = list(_taken(mine))
    for folder in left:
        _put_back(folder, sink)
    if key is not None:
        _take_up(left, key, mine)
    for name in store.names(mine):
        if name.startswith(_TAKEN):
            store.delete(store.join(mine, name))


def _take_up(left: list[str], key: str, mine: str) -> None:
    staged = [store.join(folder, key) for folder in left if _is_planned(store.join(folder, key))]
    if staged and not store.exists(store.join(mine, key)):
        store.move(max(staged, key=_finished), store.join(mine, key))
    for name in store.names(store.join(mine, key)):
        if name in ("work", staging.FAILED):
            store.delete(store.join(mine, key, name))


def _take(sink: str, other: str, mine: str) -> None:
    folder = staging.holder(sink, other)
    try:
        store.move(folder, store.join(mine, f"{_TAKEN}{other}"))
    except StoreError:
        if store.exists(folder):  # else its own run was done with it
            raise


def _taken(holder: str) -> Iterator[str]:
    """The holders within this one, and within these: a run may have died while it took over."""
    for name in store.names(holder):
        if name.startswith(_TAKEN):
            folder = store.join(holder, name)
            yield folder
            yield from _taken(folder)


def _put_back(folder: str, sink: str) -> None:
    """What a run that died in its commit had renamed: the table that was to be replaced, and the one to take its place."""
    gate = store.join(folder, GATE)
    old = store.join(gate, OLD)
    if store.exists(old) and not store.exists(sink):
        store.move(old, sink)
    token = posixpath.basename(folder).removeprefix(_TAKEN)
    for name in store.names(gate):
        told = _manifest(store.join(gate, name)) if name != OLD else {}
        if told.get("token") == token:  # else it is what an exchange brought here: the table that was replaced
            table = store.join(folder, told["key"], "table")
            store.delete(table)
            store.move(store.join(gate, name), table)


def _manifest(folder: str) -> written.Told:
    found = written.read(store.join(folder, MANIFEST))
    return found if isinstance(found, dict) else {}


def _is_planned(folder: str) -> bool:
    return store.exists(store.join(folder, staging.PLAN))


def _finished(folder: str) -> int:
    """How many pieces are, about: of several folders the one with the most is taken up."""
    done = [name for name in store.names(folder) if name.startswith("done-")]
    return sum(len(store.names(store.join(folder, name))) for name in done)
