"""`python -m sparkdl COMMAND`, and `python -m sparkdl JOB`. Works with nothing installed, so that it can say what is missing."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from sparkdl import jobs

# name -> (module with add_arguments(parser) and run(args) -> exit status, one line of help)
COMMANDS = {
    "doctor": ("sparkdl.doctor", "check this machine and say how to mend what is wrong"),
    "build-horovod": ("sparkdl.build_horovod", "build Horovod for the torch installed here"),
    "pack": ("sparkdl.pack", "write this environment to an archive for a cluster's executors"),
    "runs": ("sparkdl.jobs.runs", "show the ledger of scheduled scoring, or make it again from the output"),
    "top": ("sparkdl.stream.top", "show how streams do, live, from the files of their monitors"),
    "report": ("sparkdl.stream.reporting", "write a stream's HTML report, from the file of its monitor"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command, or a job; returns its exit status."""
    told = list(sys.argv[1:] if argv is None else argv)
    if told and told[0] in jobs.JOBS:
        return jobs.main(told[0], told[1:])
    parser = argparse.ArgumentParser(prog="python -m sparkdl")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (module, text) in COMMANDS.items():
        added = commands.add_parser(name, help=text, description=text)
        tool = importlib.import_module(module)
        tool.add_arguments(added)
        added.set_defaults(run=tool.run)
    for name, text in jobs.JOBS.items():
        commands.add_parser(name, help=text, add_help=False)
    args = parser.parse_args(told)
    status: int = args.run(args)
    return status


if __name__ == "__main__":
    sys.exit(main())
