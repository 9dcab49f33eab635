"""The job ``score_batch``: a Parquet or Delta table; or the slots of one, by date, hour or partition."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from sparkdl import store
from sparkdl.conf import ScoreBatchConf
from sparkdl.errors import InvalidParamError
from sparkdl.jobs import models, status
from sparkdl.jobs.run import Run

if TYPE_CHECKING:
    from sparkdl.model import TorchModel
    from sparkdl.score.job import Job
    from sparkdl.slots.scheduled import Schedule

CONF = ScoreBatchConf


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which slots."""
    slots = parser.add_argument_group("slots, of a conf that has slot")
    slots.add_argument("--date", metavar="YYYY-MM-DD", help="the day to score")
    slots.add_argument("--hour", metavar="YYYY-MM-DDTHH", help="the hour to score")
    slots.add_argument("--slot", action="append", default=[], metavar="NAME", help="a slot to score; may be repeated")
    slots.add_argument("--backfill", metavar="A..B", help="score what is missing of these days or hours, both included")
    slots.add_argument("--rescore", action="store_true", help="score them again; each is replaced in one step")


def plan(run: Run, conf: ScoreBatchConf, args: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """What would be scored, with what, into what."""
    source, output = conf.source, conf.output
    schedule = _schedule(run, conf, args)
    if schedule is not None:
        from sparkdl.slots.one import sink_of

        yield "ledger", schedule.ledger.url
        due = schedule.due()
        yield "slots", f"{len(due)} of {len(schedule.slots)} are due: {', '.join(slot.name for slot in due) or 'none'}"
        if not due:
            return
        source, output = due[0].source(source), sink_of(conf, due[0])
    yield from _table(run, conf, source, output)


def _table(run: Run, conf: ScoreBatchConf, uri: str, output: str) -> Iterator[tuple[str, str]]:
    checked = _checked(run, conf, models.model(run, conf.model, conf.settings, conf.registry), uri, output)
    yield "source", f"{store.shown(uri)}, columns {checked.source.df.columns}"
    yield "model", f"{store.shown(conf.model)}, {checked.model.signature}"
    yield "output", f"{store.shown(output)}, columns {[field['name'] for field in checked.told['fields']]}"


def _checked(run: Run, conf: ScoreBatchConf, model: TorchModel, uri: str, output: str) -> Job:
    from sparkdl.score import job, sources
    from sparkdl.score.output import Layout

    layout = Layout.checked(conf.partitionBy, conf.rowGroupSize, conf.compression)
    source = sources.opened(run.spark, uri)
    return job.checked(source, model, output, conf.columns, layout, overwrite=conf.overwrite)


def start(run: Run, conf: ScoreBatchConf, args: argparse.Namespace) -> int:
    """Score the table, or the slots, and say what became of the rows."""
    from sparkdl.score import batch
    from sparkdl.slots import model

    schedule = _schedule(run, conf, args)
    if schedule is not None:
        return schedule.work()
    about = {"run": run.id, "started": time.time()}
    scores = model.of(run, conf)
    job = _checked(run, conf, scores.torch, conf.source, conf.output)
    done = batch.made(replace(job, about={**about, "model": scores.told}))
    run.show(f"scored: {done}", output=store.shown(conf.output), already=done.already, **done.to_json())
    if conf.maxInvalid is not None and done.bad > conf.maxInvalid * done.rows:
        run.tell("partly", done.too_many(conf.maxInvalid))
        return status.PARTLY
    return status.DONE


def _schedule(run: Run, conf: ScoreBatchConf, args: argparse.Namespace) -> Schedule | None:
    """Of the slots that are asked for; None if the conf is of one table. Raises InvalidParamError."""
    given = {name: value for name in ("date", "hour", "slot", "backfill") if (value := getattr(args, name))}
    if conf.slot is None:
        if given or args.rescore:
            name = next(iter(given), "rescore")
            raise InvalidParamError(
                f"--{name} is of slots, and the conf has none: say slot: day, hour or partition in it",
                param=f"--{name}",
                value=given.get(name),
            )
        return None
    from sparkdl.interop.common import needed
    from sparkdl.slots.slot import asked

    slots = asked(conf.slot, conf.partition, **given)
    for package in ("sqlalchemy", "tenacity"):
        needed(package, "sql")
    from sparkdl.slots.scheduled import Schedule

    return Schedule(run, conf, slots, rescore=args.rescore)
