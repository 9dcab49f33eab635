"""`python -m sparkdl runs`: what became of the slots of scheduled scoring, as their ledger tells, in a terminal or as JSON."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import TYPE_CHECKING, Any

from sparkdl.errors import InvalidParamError, SparkdlError

if TYPE_CHECKING:
    from sparkdl.slots.entry import Entry
    from sparkdl.slots.ledger import Ledger


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which ledger, and what of it."""
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--conf-file", metavar="FILE", help="a conf of score_batch, whose ledger it is")
    where.add_argument("--ledger", metavar="URL", help="sqlite:///FILE or postgresql://USER@HOST/DATABASE")
    parser.add_argument("--slot", metavar="NAME", help="this slot, and each attempt at it")
    parser.add_argument(
        "--failed", action="store_true", help="only slots that failed, or whose run is not heard of any more"
    )
    parser.add_argument("--json", action="store_true", help="one object a slot and line, instead of a table")
    parser.add_argument(
        "--rebuild", action="store_true", help="make the ledger again from what the output's tables say of themselves"
    )


def run(args: argparse.Namespace) -> int:
    """Print it; the exit status, as the jobs have them."""
    from sparkdl.jobs import status

    try:
        ledgers = _ledgers(args)
        if args.rebuild:
            _rebuild(args, ledgers[0])
        found = _chosen(args, ledgers)
    except SparkdlError as error:
        print(error, file=sys.stderr)
        return status.of(error)
    if args.json:
        for ledger, entry in found:
            print(json.dumps({"output": ledger.output, "state": _state(entry), **_told(entry)}, sort_keys=True))
    else:
        _print(args, found)
    return status.DONE


def _ledgers(args: argparse.Namespace) -> list[Ledger]:
    """Of each output. Raises ConfError, InvalidParamError."""
    from sparkdl import conf as confs
    from sparkdl import store
    from sparkdl.interop.common import needed

    for package in ("sqlalchemy", "tenacity"):
        needed(package, "sql")
    from sparkdl.slots.ledger import Ledger, url_of

    if args.conf_file:
        conf = confs.filled(confs.load(confs.ScoreBatchConf, args.conf_file))
        if conf.slot is None:
            raise InvalidParamError(
                f"{args.conf_file} is of one table; only slots have a ledger", param="--conf-file", value=args.conf_file
            )
        output = store.absolute(conf.output)
        found = [Ledger(url_of(conf.ledger, output), output)]
    elif args.rebuild:
        raise InvalidParamError(
            "--rebuild reads the output's tables, so it takes the conf that names the output: --conf-file",
            param="--rebuild",
            value=args.ledger,
        )
    else:
        found = [Ledger(args.ledger, "")]
    if not args.rebuild and not found[0].is_there:
        param, value = ("--conf-file", args.conf_file) if args.conf_file else ("--ledger", found[0].url)
        raise InvalidParamError(
            f"there is no ledger at {found[0].url} yet: score_batch makes it, or runs --rebuild",
            param=param,
            value=value,
        )
    return found if args.conf_file else [Ledger(args.ledger, output) for output in found[0].outputs()]


def _rebuild(args: argparse.Namespace, ledger: Ledger) -> None:
    from dataclasses import asdict

    from sparkdl import conf as confs
    from sparkdl import store
    from sparkdl.slots.rebuild import rebuild

    output = store.absolute(confs.filled(confs.load(confs.ScoreBatchConf, args.conf_file)).output)
    done = asdict(rebuild(ledger, output))
    told = ", ".join(f"{len(slots)} {what}" for what, slots in done.items())
    print(f"the ledger {ledger.url} was made again from {store.shown(output)!r}: {told}", file=sys.stderr)


def _chosen(args: argparse.Namespace, ledgers: list[Ledger]) -> list[tuple[Ledger, Entry]]:
    """Raises InvalidParamError for a slot that is not there."""
    from sparkdl.errors import did_you_mean

    found = [(ledger, entry) for ledger in ledgers for entry in ledger.entries().values()]
    known = sorted({entry.slot for _, entry in found})
    if args.slot and args.slot not in known:
        raise InvalidParamError(
            f"the ledger has no slot {args.slot!r}{did_you_mean(args.slot, known)}", param="--slot", value=args.slot
        )
    chosen = [(ledger, entry) for ledger, entry in found if args.slot in (None, entry.slot)]
    return [(ledger, entry) for ledger, entry in chosen if not args.failed or _state(entry) in ("failed", "died")]


def _state(entry: Entry) -> str:
    """Of a slot whose run has not renewed its lease: ``died``."""
    return "died" if entry.state == "scoring" and not entry.held else entry.state


def _told(entry: Entry) -> dict[str, Any]:
    names = (
        "slot",
        "run",
        "model",
        "version",
        "digest",
        "rows",
        "written",
        "invalid",
        "seconds",
        "finished",
        "owner",
        "problem",
    )
    return {name: getattr(entry, name) for name in names}


def _print(args: argparse.Namespace, found: list[tuple[Ledger, Entry]]) -> None:
    from rich.console import Console

    wide = None if sys.stdout.isatty() else 200
    console = Console(width=wide, highlight=False, markup=False)
    for ledger in dict.fromkeys(ledger for ledger, _ in found):
        rows = [_row(entry) for of, entry in found if of is ledger]
        console.print(_table(f"{ledger.output}, by the ledger {ledger.url}", rows))
        if args.slot:
            attempts = [told for told in ledger.attempts() if told["slot"] == args.slot]
            console.print(_table(f"attempts at {args.slot}", [_attempt(told) for told in attempts]))
    if not found:
        console.print("no slot failed" if args.failed else "the ledger has no slots yet")


def _row(entry: Entry) -> dict[str, str]:
    version = "" if entry.version is None else f", version {entry.version}"
    return {
        "slot": entry.slot,
        "state": _state(entry),
        "model": f"{entry.model}{version}" if entry.model else "",
        "rows": _number(entry.rows),
        "written": _number(entry.written),
        "bad": ", ".join(f"{count:,} {kind}" for kind, count in sorted(entry.invalid.items())),
        "s": "" if entry.seconds is None else f"{entry.seconds:.1f}",
        "finished": _when(entry.finished),
        "run": entry.owner if entry.state == "scoring" else entry.run or "",
        "problem": _first_line(entry.problem),
    }


def _attempt(told: dict[str, Any]) -> dict[str, str]:
    return {
        "run": told["owner"],
        "state": told["state"],
        "started": _when(told["started"]),
        "ended": _when(told["ended"]),
        "pieces": _number(told["pieces"]),
        "taken up": _number(told["resumed"]),
        "problem": _first_line(told["problem"]),
    }


def _table(title: str, rows: list[dict[str, str]]) -> Any:
    from rich.table import Table

    used = [name for name in rows[0] if any(row[name] for row in rows)] if rows else []
    table = Table(title=title, title_justify="left")
    for name in used:
        table.add_column(
            name, justify="right" if name in ("rows", "written", "s", "pieces", "taken up") else "left", overflow="fold"
        )
    for row in rows:
        table.add_row(*(row[name] for name in used))
    return table


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _when(seconds: float | None) -> str:
    return "" if seconds is None else time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(seconds))


def _first_line(text: str | None) -> str:
    return (text or "").partition("\n")[0]
