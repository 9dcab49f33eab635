"""The job ``replay_dead_letters``: each dead letter is taken once, however often it runs or is killed; one that fails
again is a new dead letter."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from sparkdl import store
from sparkdl.conf import ReplayConf
from sparkdl.jobs import code, models, status
from sparkdl.jobs.run import Run
from sparkdl.stream import configured

CONF = ReplayConf


def plan(run: Run, conf: ReplayConf, args: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """Which dead letters there are, and where their rows would go."""
    from sparkdl.stream.replay import opened

    model = models.model(run, conf.model, conf.settings, conf.registry)
    yield "model", f"{conf.model}, {model.signature}"
    letters = opened(run.spark, conf.deadLetter)
    if letters is None:
        yield "deadLetter", f"{store.shown(conf.deadLetter)}, none there"
        return
    yield "deadLetter", f"{store.shown(conf.deadLetter)}, of events with columns {letters.columns}"
    configured.check(letters, conf, model)
    yield "sink", repr(configured.sink(conf.sink))


def start(run: Run, conf: ReplayConf, args: argparse.Namespace) -> int:
    """Replay, and say what became of the rows."""
    monitor = configured.monitor(conf.monitor, run=run.id)
    counts = configured.replay(run.spark, conf, code.trusted(run), monitor)
    told = f"{counts['rows']} dead letters, {counts['scored']} scored, {counts['dead']} dead again"
    run.show(f"replayed: {told}", **counts)
    return status.DONE
