"""A job's command line: its arguments, its conf, its exit status."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import logging
from collections.abc import Sequence
from typing import Any

import yaml

from sparkdl import conf as confs
from sparkdl import notebook, session
from sparkdl.errors import InvalidParamError, SparkdlError, did_you_mean
from sparkdl.jobs import JOBS, log, signals, status
from sparkdl.jobs.run import Run

logger = logging.getLogger(__name__)


def main(name: str, argv: Sequence[str] | None = None) -> int:
    """``sparkdl.jobs.main``."""
    if name not in JOBS:
        raise InvalidParamError(
            f"there is no job {name!r}{did_you_mean(name, JOBS)}; there are {list(JOBS)}", param="name", value=name
        )
    job: Any = importlib.import_module(f"sparkdl.jobs.{name}")
    args = _parser(name, job).parse_args(argv)
    if args.print_schema:
        print(json.dumps(confs.schema(job.CONF), indent=2))
        return status.DONE
    run = Run(name, form=args.log_format, allowed=args.allow)
    is_alone = notebook.place() == "terminal" and not session.is_there()  # else the process is not the job's
    with log.to_stderr(args.log_format, name, run.id, run.hushed, whole=is_alone):
        try:
            with signals.taken(run.told_to_end, run.interrupt) if is_alone else contextlib.nullcontext():
                return _done(job, run, args)
        except KeyboardInterrupt:
            logger.warning("ended by a signal; what was finished is kept, run it again to go on")
            return status.TRY_AGAIN
        except Exception as error:
            return _failed(error)
        finally:
            run.close()


def _done(job: Any, run: Run, args: argparse.Namespace) -> int:
    written = confs.load(job.CONF, args.conf_file, changes=args.set)
    run.secrets, conf = confs.secrets_of(written), confs.filled(written)
    run.name = getattr(conf, "name", None) or run.name
    if not args.dry_run:
        return int(job.start(run, conf, args))
    told = confs.printable(written)
    plan = []
    if run.form == "text":
        run.show(f"# {run.job}, conf {args.conf_file}\n{yaml.safe_dump(told, sort_keys=False)}\n# plan")
    for what, finding in job.plan(run, conf, args):
        plan.append({"what": what, "finding": finding})
        if run.form == "text":
            run.show(f"{what}: {finding}")
    if run.form == "text":
        run.show("all checks passed; nothing was done")
    else:
        run.show("", conf=told, plan=plan)
    return status.DONE


def _failed(error: Exception) -> int:
    found = status.of(error)
    extra = {"event": "failed", "fields": {"status": found, "kind": type(error).__name__}}
    where = None if isinstance(error, SparkdlError) else error  # of what nobody foresaw
    logger.error("%s: %s", type(error).__name__, error, extra=extra, exc_info=where)
    return found


def _parser(name: str, job: Any) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=name, description=JOBS.get(name))
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--conf-file", metavar="FILE", help="the job's conf, YAML")
    what.add_argument("--print-schema", action="store_true", help="print the conf's JSON Schema and end")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="replace a value of the conf: a dotted key, the value as YAML; may be repeated",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the conf and the plan, check, and do nothing")
    parser.add_argument("--log-format", choices=log.FORMS, default="text", help="of the log, on stderr")
    parser.add_argument(
        "--allow", action="append", default=[], metavar="PACKAGE", help="a package whose code the conf may name"
    )
    if hasattr(job, "add_arguments"):
        job.add_arguments(parser)
    return parser
