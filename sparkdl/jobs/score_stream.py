"""The job ``score_stream``: events as they arrive.

It runs until it is told to end, and then ends the micro-batch that is running; or with ``trigger: available now`` until
nothing is left to score.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator

from sparkdl.conf import ScoreStreamConf
from sparkdl.jobs import status
from sparkdl.jobs.run import Run
from sparkdl.stream import configured

CONF = ScoreStreamConf
logger = logging.getLogger(__name__)


def plan(run: Run, conf: ScoreStreamConf, args: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """Where events would come from, what would score them, and where rows would go."""
    events = configured.events(run.spark, conf.source)
    yield "source", f"{conf.source.path or conf.source.format}, columns {events.columns}"
    yield "sink", repr(configured.sink(conf.sink))
    if conf.deadLetter:
        yield "deadLetter", repr(configured.sink(conf.deadLetter))
    yield "checkpoint", conf.checkpoint


def start(run: Run, conf: ScoreStreamConf, args: argparse.Namespace) -> int:
    """Start the query, wait for a reason to end."""
    monitor = configured.monitor(conf.monitor)
    with run.patient() as told_to_end:
        query = configured.start(run.spark, conf, monitor)
        where = conf.source.path or conf.source.format
        run.tell("scoring", f"scoring what arrives in {where}", source=where, query=query.id)
        configured.run_to_end(query, told_to_end)
    done = query.status()
    run.show(f"scored: {done}", rows=done.rows, scored=done.scored, dead=done.dead, batches=done.batches)
    if monitor and monitor.failed:
        logger.error(monitor.failed)
        return status.PARTLY
    return status.DONE
