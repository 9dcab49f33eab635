"""Checkpoints: each a folder of files, and a manifest written last; no manifest, no checkpoint.

::

    checkpoints/
      epoch-00002-step-000000-4f1c…/     at the start of epoch 2 (both from 0)
        shared.safetensors               weights, optimizer, scheduler, scaler, history (train/state.py)
        rank-00000.safetensors …         each rank's generators, and what it has of an epoch that is not over
        checkpoint.json                  identity, position, sha256 of every file
      best-00001-9ab3….safetensors       the best weights so far, while a checkpoint names them

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

import torch

from sparkdl import store
from sparkdl.errors import CheckpointError
from sparkdl.train import messages, tree
from sparkdl.train.collective import Collective
from sparkdl.train.state import Best, State, agree

MANIFEST = "checkpoint.json"
FORMAT = 1
_FOLDER = re.compile(r"epoch-(\d{5})-step-(\d{6})-[0-9a-f]{8}")
_BEST = re.compile(r"best-(\d{5})-[0-9a-f]{8}\.safetensors")
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
    always is, since fewer ranks can go on from there only."""

    uri: str
    every: Every
    keep: int
    identity: Mapping[str, Any]

    def save(self, state: State, collective: Collective) -> bool:
        """Save ``state``; all ranks call it. False, and a warning on the driver, if it could not be written: the
        checkpoints before it stay."""
        name = broadcast_text(collective, f"epoch-{state.epoch:05d}-step-{state.step:06d}-{uuid.uuid4().hex[:8]}")
        folder = store.join(self.uri, name)
        world = collective.world
        problem, digests = None, {}
        try:
            digests[_rank_file(world.rank)] = _write(store.join(folder, _rank_file(world.rank)), tree.dump(state.own()))
            if world.is_chief:
                digests["shared.safetensors"] = _write(
                    store.join(folder, "shared.safetensors"), tree.dump(state.shared())
                )
        except OSError as error:
            problem = f"rank {world.rank}: {error}"
        told = gather_text(collective, json.dumps({"digests": digests, "problem": problem}))
        answers = [json.loads(text) for text in told]
        problem = next((answer["problem"] for answer in answers if answer["problem"]), None)
        if world.is_chief and problem is None:
            files = {name: digest for answer in answers for name, digest in answer["digests"].items()}
            try:
                self._finish(folder, files, state, world.size)
            except OSError as error:
                problem = str(error)
        failed = agree(collective, float(problem is not None)) > 0
        if world.is_chief:
            if failed:
                text = (
                    f"the checkpoint at epoch {state.epoch}, step {state.step} could not be written to {self.uri}: "
                    f"{problem}; training goes on, and the checkpoints before it stay"
                )
                logger.warning("%s", text)
                messages.send("log", text=f"warning: {text}")
            self._prune()
        return not failed

    def _finish(self, folder: str, files: dict[str, str], state: State, ranks: int) -> None:
        best, best_digest = self._best_file(state.best) if state.best else (None, None)
        content = {
            "format": FORMAT, "epoch": state.epoch, "step": state.step, "ranks": ranks, "identity": self.identity,
            "files": files, "best": best, "best_digest": best_digest,
        }  # fmt: skip
        store.write_bytes(store.join(folder, MANIFEST), json.dumps(content).encode())

    def _best_file(self, best: Best) -> tuple[str, str]:
        """The file of the best weights and its sha256; written once."""
        if best.file is None:
            name = f"best-{best.epoch:05d}-{uuid.uuid4().hex[:8]}.safetensors"
            best.file = name, _write(store.join(self.uri, name), tree.dump(best.weights))
        return best.file

    def _prune(self) -> None:
        """Remove what is not finished, checkpoints beyond those to keep, and best weights that none of them names."""
        found = list(saved(self.uri))
        keep = found[: self.keep] + [one for one in found if one.step == 0][:1]
        wanted = {one.folder.rsplit("/", 1)[-1] for one in keep} | {one.best for one in keep}
        try:
            for name in store.names(self.uri):
                if name not in wanted and (_FOLDER.fullmatch(name) or _BEST.fullmatch(name)):
                    store.delete(store.join(self.uri, name))
        except OSError as error:
            logger.warning("old checkpoints in %s could not be removed: %s", self.uri, error)

    def restore(self, state: State, collective: Collective) -> Saved | None:
        """Make ``state`` that of the newest checkpoint that every rank can read; all ranks call it.

        With another number of ranks than saved it, the newest at an epoch's end. None if there is none.
        """
        size = collective.world.size
        found = [vars(one) for one in saved(self.uri) if one.ranks == size or one.step == 0]
        for content in json.loads(broadcast_text(collective, json.dumps(found if collective.world.is_chief else []))):
            problem, one = None, Saved(**content)
            try:
                shared = tree.load(_read(one, "shared.safetensors"))
                own = tree.load(_read(one, _rank_file(collective.world.rank))) if one.ranks == size else None
                best = None
                if one.best and collective.world.is_chief:
                    best = tree.load(_checked(store.join(self.uri, one.best), one.best_digest))
            except (OSError, ValueError, KeyError) as error:
                problem = error
            if agree(collective, float(problem is not None)):
                if problem:
                    text = f"the checkpoint {one.folder} cannot be used: {problem}"
                    logger.warning("%s", text)
                    messages.send("log", text=f"warning: {text}")
                continue
            state.take_up(shared, own)
            if state.best and one.best and one.best_digest:
                state.best.weights, state.best.file = best, (one.best, one.best_digest)
            return one
        return None


def saved(uri: str) -> Iterator[Saved]:
    """The finished checkpoints under ``uri``, the newest first."""
    folders = [name for name in store.names(uri) if _FOLDER.fullmatch(name)]
    for name in sorted(folders, key=lambda name: name.rsplit("-", 1)[0], reverse=True):
        try:
            yield read_manifest(store.join(uri, name))
        except (OSError, ValueError, KeyError, TypeError):  # not finished
            continue


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
    store.write_bytes(uri, content)
    return hashlib.sha256(content).hexdigest()


def _read(one: Saved, name: str) -> bytes:
    return _checked(store.join(one.folder, name), one.files[name])


def _checked(uri: str, digest: str | None) -> bytes:
    content = store.read_bytes(uri)
    if hashlib.sha256(content).hexdigest() != digest:
        raise ValueError(f"{uri} is not what was written: its sha256 differs")
    return content


def broadcast_text(collective: Collective, text: str) -> str:
    """Rank 0's text, on every rank."""
    return gather_text(collective, text if collective.world.is_chief else "")[0]


def gather_text(collective: Collective, text: str) -> list[str]:
    """Every rank's text, in rank order."""
    content = text.encode()
    lengths = collective.allgather(torch.tensor([len(content)]))
    padded = torch.zeros(max(int(lengths.max()), 1), dtype=torch.uint8)
    padded[: len(content)] = torch.frombuffer(bytearray(content), dtype=torch.uint8) if content else padded[:0]
    rows = collective.allgather(padded)
    return [bytes(row[: int(n)].numpy()).decode() for row, n in zip(rows, lengths.flatten(), strict=True)]
