"""`python -m sparkdl COMMAND`. Works with nothing installed, so that it can say what is missing."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

# name -> (module with add_arguments(parser) and run(args) -> exit status, one line of help)
COMMANDS = {
    "doctor": ("sparkdl.doctor", "check this machine and say how to mend what is wrong"),
    "build-horovod": ("sparkdl.build_horovod", "build Horovod for the torch installed here"),
    "top": ("sparkdl.stream.top", "show how streams do, live, from the files of their monitors"),
    "report": ("sparkdl.stream.reporting", "write a stream's HTML report, from the file of its monitor"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m sparkdl")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (module, text) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        tool = importlib.import_module(module)
        tool.add_arguments(command)
        command.set_defaults(run=tool.run)
    args = parser.parse_args(argv)
    status: int = args.run(args)
    return status


if __name__ == "__main__":
    sys.exit(main())
