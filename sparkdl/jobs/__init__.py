"""The jobs: what ``spark-submit jobs/X.py`` and ``python -m sparkdl X`` run. One module a job, called X.

A job module has

- ``CONF``: the model of its conf, a ``sparkdl.conf.Conf``;
- ``add_arguments(parser)``, by choice: what it takes beyond the arguments that all jobs share;
- ``plan(run, conf, args)``: yields ``(what, finding)`` pairs, what ``--dry-run`` prints; raises what is wrong;
- ``start(run, conf, args)``: does the work, and gives the exit status.
"""

from __future__ import annotations

from collections.abc import Sequence

JOBS = {  # name -> one line of help
    "train": "train a model on a table and write its bundle",
    "evaluate": "say how good a model is on rows that it has not seen",
    "publish": "make a bundle a version of a registry, and let an alias name it",
    "score_batch": "score a table",
    "score_stream": "score events as they arrive",
    "replay_dead_letters": "score dead letters once more, after a fix",
    "drift_report": "say how far a table is from what a model was trained on",
}


def main(name: str, argv: Sequence[str] | None = None) -> int:
    """Run the job of this name with these arguments, the process's by default; its exit status, see ``sparkdl.jobs.status``.

    In a notebook, or where there is a Spark session already, the job uses that session, and leaves the process's signals and
    the loggers of others alone. Raises InvalidParamError if there is no such job; bad arguments raise SystemExit(2), as
    argparse does.
    """
    from sparkdl.jobs import command  # needs what jobs need

    return command.main(name, argv)
