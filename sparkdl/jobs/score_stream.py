"""The job ``score_stream``: events as they arrive.

It runs until it is told to end, and then ends the micro-batch that is running; or with ``trigger: available now`` until
nothing is left to score.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from sparkdl import store
from sparkdl.conf import ScoreStreamConf
from sparkdl.jobs import code, models, status
from sparkdl.jobs.run import Run
from sparkdl.stream import configured

CONF = ScoreStreamConf


def plan(run: Run, conf: ScoreStreamConf, args: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """Where events would come from, what would score them, and where rows would go."""
    from sparkdl.stream.start import check_apart

    events = configured.events(run.spark, conf.source)
    yield "source", f"{_where(conf)}, columns {events.columns}"
    model = models.model(run, conf.model, conf.settings, conf.registry)
    yield "model", f"{conf.model}, {model.signature}"
    if conf.challenger:
        yield "challenger", f"{conf.challenger}, {models.model(run, conf.challenger, {}, conf.registry).signature}"
    rows = configured.check(events, conf, model)
    sink, dead = configured.sink(conf.sink), configured.sink(conf.deadLetter) if conf.deadLetter else None
    check_apart(sink, dead, conf.checkpoint)
    yield "sink", f"{sink!r}, columns {[field['name'] for field in rows['fields']]}"
    yield "deadLetter", repr(dead) if dead else "none: what cannot be scored ends the query, or follows handleInvalid"
    state = "goes on" if store.exists(conf.checkpoint) else "a new one"
    yield "checkpoint", f"{store.shown(conf.checkpoint)}, {state}; mode {conf.mode}"


def start(run: Run, conf: ScoreStreamConf, args: argparse.Namespace) -> int:
    """Start the query, wait for a reason to end."""
    monitor = configured.monitor(conf.monitor, run=run.id)
    with run.patient() as told_to_end:
        query = configured.start(run.spark, conf, code.trusted(run), monitor)
        run.tell("scoring", f"scoring what arrives in {_where(conf)}", source=_where(conf), query=query.id)
        configured.run_to_end(query, told_to_end)
    done = query.status()
    run.show(
        f"scored: {done}", rows=done.rows, scored=done.scored, dead=done.dead, batches=done.batches, query=query.id
    )
    if monitor and monitor.failed:
        run.tell_error("alert", str(monitor.failed))
        return status.PARTLY
    return status.DONE


def _where(conf: ScoreStreamConf) -> str:
    return store.shown(conf.source.path) if conf.source.path else conf.source.format
