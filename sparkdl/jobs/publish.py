"""The job ``publish``: a bundle becomes a version of a registry, and what an alias names, if it is better than what that
names now."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sparkdl import store
from sparkdl.bundle import Bundle
from sparkdl.conf import BeatsConf, PublishConf
from sparkdl.jobs import models, status
from sparkdl.jobs.run import Run
from sparkdl.registry.promote import Judged, check_of, current, digest_of, promote

if TYPE_CHECKING:
    from sparkdl.registry.registry import Registry

CONF = PublishConf


def plan(run: Run, conf: PublishConf, args: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """What would be published as what."""
    digest = Bundle.verify(conf.bundle)
    yield "bundle", f"{store.shown(conf.bundle)}, all digests right, {digest[:12]}"
    registry = models.registry(run, conf.registry, conf.bundles)
    yield "registry", f"{registry.uri}, models {registry.names()}"
    now = current(registry, conf.name, conf.alias) if conf.alias else None
    if conf.alias:
        yield "alias", f"{conf.alias} of {conf.name} names {f'version {now}' if now else 'nothing'} now"
    if conf.beats:
        beats, why = _compared(conf, conf.beats, now, registry)
        yield "beats", why if beats else f"would not be published: {why}"


def start(run: Run, conf: PublishConf, args: argparse.Namespace) -> int:
    """Compare, publish, move the alias."""
    registry = models.registry(run, conf.registry, conf.bundles)
    now = current(registry, conf.name, conf.alias) if conf.alias else None
    if conf.beats:
        beats, why = _compared(conf, conf.beats, now, registry)
        run.tell("compared", why)
        if not beats:
            run.show(f"not published: {why}", published=False, why=why)
            return status.PARTLY
    expected = {"expected": now} if conf.beats else {}
    done = promote(registry, conf.name, conf.bundle, alias=conf.alias, note=conf.note, **expected)
    again = "" if done.is_new else ", as it was before"
    named = "" if not done.alias else f", {done.alias}" + (f" (before: version {done.before})" if done.before else "")
    run.show(
        f"published: {conf.name} version {done.version}{again}{named}, in {registry.uri}",
        published=True,
        name=conf.name,
        version=done.version,
        alias=done.alias,
        before=done.before,
        registry=registry.uri,
    )
    return status.DONE


def _compared(conf: PublishConf, beats: BeatsConf, now: int | None, registry: Registry) -> tuple[bool, str]:
    """Whether the bundle is better than version ``now``, which the alias names, and in which words."""
    digest = Bundle.verify(conf.bundle)
    mine = Judged.read(beats.evaluation)
    check_of(mine, digest, f"the one at {store.shown(conf.bundle)}")
    if now is None:
        return True, f"{conf.alias} names nothing yet"
    champion = digest_of(registry, conf.name, now)
    if champion == digest:
        return True, f"{conf.alias} names this bundle already"
    other = Judged.read(beats.champion)
    check_of(other, champion, f"what {conf.alias} names, version {now},")
    gain = mine.better_by(other, beats.figure)
    told = f"{beats.figure} {mine.figures[beats.figure]:.6g}, version {now} has {other.figures[beats.figure]:.6g}"
    is_better = not math.isnan(gain) and (gain >= beats.by if beats.by else gain > 0)
    return is_better, told if is_better or not beats.by else f"{told}; it must be better by {beats.by:g}"
