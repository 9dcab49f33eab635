"""The job ``evaluate``: how good a model is on rows that it has not seen."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

from tabulate import tabulate

from sparkdl import store
from sparkdl.conf import EvaluateConf
from sparkdl.jobs import models, status
from sparkdl.jobs.run import Run

CONF = EvaluateConf


def plan(run: Run, conf: EvaluateConf, args: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """What would be evaluated, on what."""
    from sparkdl import evaluate

    table = models.table(run, conf.data, "data")
    yield "data", f"{store.shown(conf.data)}, columns {table.columns}"
    model = models.model(run, conf.model, conf.settings, conf.registry)
    task = evaluate.judged_task(model)
    evaluate.check_columns(model, table, conf.label)
    evaluate.check_names(conf.thresholds, evaluate.FIGURES[task])
    yield "model", f"{conf.model}, task {task}, {model.signature}"
    yield "figures", ", ".join(evaluate.FIGURES[task])
    if conf.output:
        yield "output", store.shown(conf.output)


def start(run: Run, conf: EvaluateConf, args: argparse.Namespace) -> int:
    """Evaluate, write the figures, and say which are not good enough."""
    from sparkdl import evaluate

    table = models.table(run, conf.data, "data")
    model = models.model(run, conf.model, conf.settings, conf.registry)
    evaluate.check_names(conf.thresholds, evaluate.FIGURES[evaluate.judged_task(model)])
    done = evaluate.evaluate(model, table, conf.label)
    short = done.short_of(conf.thresholds)
    told = {
        "run": run.id,
        "time": time.time(),
        "model": conf.model,
        "digest": model.bundle.digest,
        "data": store.shown(store.absolute(conf.data)),
        "label": conf.label,
        **done.to_json(),
        "thresholds": dict(conf.thresholds),
        "short_of": sorted(short),
    }
    if conf.output:
        models.write_json(run, conf.output, told)
    lines = [
        [name, value, conf.thresholds.get(name), "too bad" if name in short else ""]
        for name, value in done.figures.items()
    ]
    head = f"{conf.model} on {done.rows:,} rows of {conf.data}" + (
        f", {done.invalid:,} left out" if done.invalid else ""
    )
    run.show(f"{head}\n{tabulate(lines, ['', 'figure', 'threshold', ''], floatfmt='.4f')}", **told)
    return status.PARTLY if short else status.DONE
