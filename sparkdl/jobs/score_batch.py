"""The job ``score_batch``: a Parquet or Delta table; or the slots of one, by date, hour or partition."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sparkdl.conf import ScoreBatchConf
from sparkdl.errors import InvalidParamError
from sparkdl.jobs import models, status
from sparkdl.jobs.run import Run

if TYPE_CHECKING:
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
    from sparkdl.score import job, sources
    from sparkdl.score.output import Layout

    source = sources.opened(run.spark, uri)
    yield "source", f"{uri}, columns {source.df.columns}"
    model = models.model(run, conf.bundle, conf.model, conf.registry)
    yield "model", f"{conf.bundle}, {model.signature}"
    layout = Layout.checked(conf.partitionBy, conf.rowGroupSize, conf.compression)
    made = job.checked(source, model, output, conf.columns, layout, overwrite=conf.overwrite)
    yield "output", f"{output}, columns {[field['name'] for field in made.told['fields']]}"


def start(run: Run, conf: ScoreBatchConf, args: argparse.Namespace) -> int:
    """Score the table, or the slots, and say what became of the rows."""
    from sparkdl.score.batch import score_table
    from sparkdl.slots.scheduled import too_many

    schedule = _schedule(run, conf, args)
    if schedule is not None:
        return schedule.work()
    done = score_table(
        conf.source,
        models.model(run, conf.bundle, conf.model, conf.registry),
        conf.output,
        columns=conf.columns,
        partitionBy=conf.partitionBy,
        rowGroupSize=conf.rowGroupSize,
        compression=conf.compression,
        overwrite=conf.overwrite,
        spark=run.spark,
    )
    run.show(f"scored: {done}", output=conf.output, already=done.already, **done.to_json())
    bad = sum(done.invalid.values())
    if conf.maxInvalid is not None and bad > conf.maxInvalid * done.rows:
        run.tell("partly", too_many(bad, done.rows, conf.maxInvalid))
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
