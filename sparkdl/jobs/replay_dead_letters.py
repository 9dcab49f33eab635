"""The job ``replay_dead_letters``: each dead letter is taken once, however often it runs or is killed; one that fails
again is a new dead letter."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from sparkdl.conf import ReplayConf
from sparkdl.jobs import status
from sparkdl.jobs.run import Run
from sparkdl.stream import configured

CONF = ReplayConf


def plan(run: Run, conf: ReplayConf, args: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """Which dead letters there are, and where their rows would go."""
    yield "deadLetter", conf.deadLetter
    yield "sink", repr(configured.sink(conf.sink))


def start(run: Run, conf: ReplayConf, args: argparse.Namespace) -> int:
    """Replay, and say what became of the rows."""
    counts = configured.replay(run.spark, conf, configured.monitor(conf.monitor))
    told = f"{counts['rows']} dead letters, {counts['scored']} scored, {counts['dead']} dead again"
    run.show(f"replayed: {told}", **counts)
    return status.DONE
