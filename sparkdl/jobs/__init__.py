"""The jobs: what ``spark-submit jobs/X.py`` and ``python -m sparkdl X`` run. One module a job, called X.

A job module has

- ``CONF``: the model of its conf, a ``sparkdl.conf.Conf``;
- ``add_arguments(parser)``, by choice: what it takes beyond the arguments that all jobs share;
- ``plan(run, conf, args)``: yields ``(what, finding)`` pairs, what ``--dry-run`` prints; raises what is wrong;
- ``start(run, conf, args)``: does the work, and gives the exit status.
"""

from __future__ import annotations

JOBS = {  # name -> one line of help
    "train": "train a model on a table and write its bundle",
    "evaluate": "say how good a model is on rows that it has not seen",
    "publish": "make a bundle a version of a registry, and let an alias name it",
    "score_batch": "score a table",
    "score_stream": "score events as they arrive",
    "replay_dead_letters": "score dead letters once more, after a fix",
    "drift_report": "say how far a table is from what a model was trained on",
}
