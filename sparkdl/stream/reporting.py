"""`python -m sparkdl report EVENTS -o REPORT.html`."""

from __future__ import annotations

import argparse
import sys

from sparkdl.errors import SparkdlError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `python -m sparkdl report`."""
    parser.add_argument("events", metavar="EVENTS", help="what a Monitor(jsonl=…) writes")
    parser.add_argument("-o", "--output", default="report.html", metavar="URI", help="where to (default: report.html)")
    parser.add_argument("--query", metavar="NAME", help="which one, where there are several; the last by default")


def run(args: argparse.Namespace) -> int:
    """Write it; 1 if that cannot be done."""
    try:
        from sparkdl.stream import report

        report.write(args.output, args.events, args.query)
    except SparkdlError as error:
        print(error, file=sys.stderr)
        return 1
    print(args.output)
    return 0
