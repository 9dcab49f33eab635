"""Checkpoints: each a folder of files, and a manifest written last; no manifest, no checkpoint.

::

    checkpoints/
      epoch-00002-step-000000-4f1c…/     at the start of epoch 2 (both from 0)
        shared.safetensors               weights, optimizer, scheduler, scaler, history (train/state.py)
        rank-00000.safetensors …         each rank's generators, and what it has of an epoch that is not over
        checkpoint.json                  identity, position, sha256 of every file
      best-00001-9ab3….safetensors       the best weights so far, while a checkpoint names them
      attempt                            a word of the ranks that the run belongs to: older ones that still live stop

Of two ranks that disagree whether a file can be read, both are right: all take the newest checkpoint that each of them
can read whole.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from sparkdl import store
from sparkdl.errors import CheckpointError, TrainingError
from sparkdl.train import messages, pulse, tree
from sparkdl.train.agree import agree, broadcast_text, gather_text
from sparkdl.train.collective import Collective
from sparkdl.train.state import Best, State

MANIFEST = "checkpoint.json"
FORMAT = 1
_FOLDER = re.compile(r"epoch-(\d{5})-step-(\d{6})-[0-9a-f]{8}")
_BEST = re.compile(r"best-(\d{5})-[0-9a-f]{8}\.safetensors(\.[0-9a-f]{32}\.tmp)?")
_SHARED = "shared.safetensors"
_FAILURES = (OSError, pa.ArrowException, MemoryError)  # of a store, or of a host that is full
ATTEMPT = "attempt"
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Every:
    """How often: after so many epochs, or so many updates of the weights and at the end of each epoch."""

    epochs: int = 1
    updates: int | None = None

    def due(self, state: State, epochs: int) -> bool:
        """True if ``state`` is to be saved; ``epochs`` is where training ends."""
        if state.step == 0:
            return self.updates is not None or state.epoch % self.epochs == 0 or state.epoch == epochs or state.stopped
        return self.updates is not None and state.updates % self.updates == 0


@dataclass(frozen=True)
class Saved:
    """A finished checkpoint, by its manifest."""

    folder: str
    epoch: int
    step: int
    ranks: int
    identity: Mapping[str, Any]
    files: Mapping[str, str]
    best: str | None
    best_digest: str | None


@dataclass(frozen=True)
class Checkpoints:
    """Where and how often a run is saved, and how many of its checkpoints are kept; at least one of an epoch's end
    always is, since fewer ranks can go on from there only. resume: there must be one to take up."""

    uri: str
    every: Every
    keep: int
    identity: Mapping[str, Any]
    resume: bool = False

    def save(self, state: State, collective: Collective) -> bool:
        """Save ``state``; all ranks call it. False, and a warning on the driver, if it could not be written: the
        checkpoints before it stay. Raises TrainingError if another attempt has taken the run over."""
        name = broadcast_text(collective, f"epoch-{state.epoch:05d}-step-{state.step:06d}-{uuid.uuid4().hex[:8]}")
        folder = store.join(self.uri, name)
        world = collective.world
        problem, digests = None, {}
        try:
            digests[_rank_file(world.rank)] = _write(store.join(folder, _rank_file(world.rank)), tree.dump(state.own()))
            if world.is_chief:
                digests[_SHARED] = _write(store.join(folder, _SHARED), tree.dump(state.shared()))
        except _FAILURES as error:
            problem = f"rank {world.rank}: {error}"
        told = [json.loads(text) for text in gather_text(collective, json.dumps([problem, digests]))]
        problem = next((one for one, _ in told if one), None)
        if world.is_chief:
            self.check_ours(state)
            if problem is None:
                try:
                    self._finish(folder, {name: digest for _, files in told for name, digest in files.items()}, state)
                except _FAILURES as error:
                    problem = str(error)
        failed = agree(collective, float(problem is not None)) > 0
        if world.is_chief:
            if failed:
                if state.best:
                    state.best.file = None  # no manifest names it: it is cleared away with the rest
                _warn(
                    f"the checkpoint at epoch {state.epoch}, step {state.step} could not be written to {self.uri}: "
                    f"{problem}; training goes on, and the checkpoints before it stay"
                )
            self._prune()
        return not failed

    def _finish(self, folder: str, files: dict[str, str], state: State) -> None:
        best, best_digest = self._best_file(state.best) if state.best else (None, None)
        content = {
            "format": FORMAT, "epoch": state.epoch, "step": state.step, "ranks": len(files) - 1,
            "identity": self.identity, "files": files, "best": best, "best_digest": best_digest,
        }  # fmt: skip
        store.write_bytes(store.join(folder, MANIFEST), json.dumps(content).encode())

    def _best_file(self, best: Best) -> tuple[str, str]:
        """The file of the best weights and its sha256; written once."""
        if best.file is None:
            name = f"best-{best.epoch:05d}-{uuid.uuid4().hex[:8]}.safetensors"
            best.file = name, _write(store.join(self.uri, name), tree.dump(best.weights))
        return best.file

    def _prune(self) -> None:
        """Remove what is not finished, checkpoints beyond those to keep, and best weights that none of them names.

        Nothing is removed while the store does not give all manifests: one that cannot be read now may be tomorrow.
        """
        try:
            found = _finished(self.uri)
            keep = found[: self.keep] + [one for one in found if one.step == 0][:1]
            wanted = {one.folder.rsplit("/", 1)[-1] for one in keep} | {one.best for one in keep}
            for name in store.names(self.uri):
                if name not in wanted and (_FOLDER.fullmatch(name) or _BEST.fullmatch(name)):
                    store.delete(store.join(self.uri, name))
        except (OSError, ValueError, KeyError, TypeError) as error:
            _warn(f"old checkpoints in {self.uri} could not be removed: {error}")

    def restore(self, state: State, collective: Collective) -> Saved | None:
        """Make ``state`` that of the newest checkpoint that every rank can read; all ranks call it.

        With another number of ranks than saved it, the newest at an epoch's end. None if there is none: training starts
        at its beginning; with ``resume`` that is a CheckpointError. Checkpoints ahead of the one that is taken up are
        removed. From now on this attempt is the run's, and an older one that still lives can save nothing.
        """
        size, chief = collective.world.size, collective.world.is_chief
        if chief:
            state.attempt = uuid.uuid4().hex
            store.write_bytes(store.join(self.uri, ATTEMPT), state.attempt.encode())
        found = [vars(one) for one in saved(self.uri) if one.ranks == size or one.step == 0] if chief else []
        for content in json.loads(broadcast_text(collective, json.dumps(found))):
            pulse.mark("checkpoint")
            problem, one = None, Saved(**content)
            try:
                shared = tree.load(_read(one, _SHARED))
                own = tree.load(_read(one, _rank_file(collective.world.rank))) if one.ranks == size else None
                best = tree.load(self._best_of(one)) if one.best and chief else None
            except (*_FAILURES, ValueError, KeyError) as error:
                problem = error
            if agree(collective, float(problem is not None)):
                if problem:
                    _warn(f"the checkpoint {one.folder} cannot be used, the one before it is tried: {problem}")
                continue
            state.take_up(shared, own)
            if state.best and one.best and one.best_digest:
                state.best.weights, state.best.file = best, (one.best, one.best_digest)
            if chief:
                self._remove_ahead_of(one)
            return one
        if self.resume:
            raise CheckpointError(
                f"there is nothing to resume: no checkpoint in {self.uri} that {size} ranks can take up; the ranks' "
                "warnings say why",
                uri=self.uri,
                what=None,
            )
        return None

    def check_ours(self, state: State) -> None:
        """Raise TrainingError if another attempt has taken the run over: the driver had given this one up."""
        try:
            latest = store.read_bytes(store.join(self.uri, ATTEMPT)).decode()
        except OSError:  # what cannot be told now is told at the next checkpoint
            return
        if latest != state.attempt:
            raise TrainingError(f"another attempt has taken over the run in {self.uri}; this one ends")

    def _best_of(self, one: Saved) -> bytes:
        if not one.best or not _BEST.fullmatch(one.best):
            raise ValueError(f"{one.best!r} is no name of a file of best weights")
        return _checked(store.join(self.uri, one.best), one.best_digest)

    def _remove_ahead_of(self, taken_up: Saved) -> None:
        """Those that could not be used, or are of another number of ranks, would pass for the newest for ever."""
        for other in saved(self.uri):
            if other.folder == taken_up.folder:
                return
            try:
                store.delete(other.folder)
            except OSError as error:
                _warn(f"the checkpoint {other.folder}, which was passed over, could not be removed: {error}")


def _warn(text: str) -> None:
    logger.warning("%s", text)
    messages.send("log", text=f"warning: {text}")


def _folders(uri: str) -> list[str]:
    """The checkpoints' folders, finished or not, the newest first."""
    names = [name for name in store.names(uri) if _FOLDER.fullmatch(name)]
    return [store.join(uri, name) for name in sorted(names, key=lambda name: name.rsplit("-", 1)[0], reverse=True)]


def _finished(uri: str) -> list[Saved]:
    """As ``saved``, but raises what reading a manifest raises."""
    return [read_manifest(folder) for folder in _folders(uri) if store.exists(store.join(folder, MANIFEST))]


def saved(uri: str) -> Iterator[Saved]:
    """The finished checkpoints under ``uri``, the newest first; those whose manifest cannot be read are left out."""
    for folder in _folders(uri):
        try:
            yield read_manifest(folder)
        except (OSError, ValueError, KeyError, TypeError) as error:
            if store.exists(store.join(folder, MANIFEST)):
                _warn(f"the checkpoint {folder} cannot be used: {error}")


def read_manifest(folder: str) -> Saved:
    """The checkpoint in ``folder``. Raises OSError, ValueError or KeyError if there is no finished one."""
    content = json.loads(store.read_bytes(store.join(folder, MANIFEST)))
    if content.pop("format") != FORMAT:
        raise ValueError(f"written by another version of sparkdl: {folder}")
    return Saved(folder, **content)


def check_identity(found: Mapping[str, Any], ours: Mapping[str, Any], uri: str) -> None:
    """Raise CheckpointError naming the first thing in which a checkpoint is not of the run that wants to take it up."""
    for what, then, now in _differences(found, ours):
        raise CheckpointError(
            f"the checkpoints at {uri} are of another run: {what} was {then!r}, and is {now!r} now; fit with what it "
            "was, or without resume to start anew",
            uri=uri,
            what=what,
            expected=then,
            got=now,
        )


def _differences(found: Mapping[str, Any], ours: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, Any, Any]]:
    for key in [*ours, *(key for key in found if key not in ours)]:
        then, now = found.get(key), ours.get(key)
        if isinstance(then, Mapping) and isinstance(now, Mapping):
            yield from _differences(then, now, f"{within}{key} ")
        elif then != now:
            yield f"{within}{key}", then, now


def _rank_file(rank: int) -> str:
    return f"rank-{rank:05d}.safetensors"


def _write(uri: str, content: bytes) -> str:
    pulse.mark("checkpoint")
    store.write_bytes(uri, content)
    return hashlib.sha256(content).hexdigest()


def _read(one: Saved, name: str) -> bytes:
    return _checked(store.join(one.folder, name), one.files[name])


def _checked(uri: str, digest: str | None) -> bytes:
    content = store.read_bytes(uri)
    if hashlib.sha256(content).hexdigest() != digest:
        raise ValueError(f"{uri} is not what was written: its sha256 differs")
    return content
