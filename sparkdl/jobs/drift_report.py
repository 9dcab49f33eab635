"""The job ``drift_report``: how far a table is from what a model was trained on."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

from tabulate import tabulate

from sparkdl import store
from sparkdl.conf import DriftReportConf
from sparkdl.jobs import models, status
from sparkdl.jobs.run import Run

CONF = DriftReportConf
_SHOWN = 10


def plan(run: Run, conf: DriftReportConf, args: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """What would be compared with what."""
    from sparkdl import drift_report

    table = models.table(run, conf.source, "source")
    yield "source", f"{store.shown(conf.source)}, columns {table.columns}"
    model = models.model(run, conf.model, conf.settings, conf.registry)
    reference = drift_report.reference_of(model)
    yield "model", f"{conf.model}, a reference of {reference.rows:,} rows and {len(reference.features)} features"
    scored = drift_report.is_scored(model, table)
    yield "outputs", "are in the table" if scored else "the model would be run on the table"
    if not scored:
        model.input_kinds(table)


def start(run: Run, conf: DriftReportConf, args: argparse.Namespace) -> int:
    """Count, compare, write page and figures."""
    from sparkdl.drift_report import table_drift

    table = models.table(run, conf.source, "source")
    model = models.model(run, conf.model, conf.settings, conf.registry)
    done = table_drift(model, table)
    above = done.above(conf.threshold) if conf.threshold else []
    told = {
        "run": run.id,
        "time": time.time(),
        "source": store.shown(store.absolute(conf.source)),
        "model": conf.model,
        "digest": model.bundle.digest,
        "threshold": conf.threshold,
        "above": [one.feature for one in above],
        **done.to_json(),
    }
    if conf.json_:
        models.write_json(run, conf.json_, told)
    if conf.output:
        page = done.html("Drift", store.shown(conf.source), f"{conf.model} (run {run.id})")
        store.write_bytes(conf.output, run.hushed(page).encode())
    lines = [[one.feature, one.psi, one.ks, one.p, one.rows] for one in done.features[:_SHOWN]]
    table_text = tabulate(lines, ["feature", "PSI", "KS", "p of KS", "rows"], floatfmt=("", ".3f", ".3f", ".2g", ","))
    rest = len(done.features) - len(lines)
    more = f"\n… and {rest:,} features with smaller PSI" if rest else ""
    limit = f"\n{len(above)} features have a PSI above {conf.threshold:g}" if conf.threshold else ""
    run.show(f"{done.rows:,} rows of {conf.source} against the training data\n{table_text}{more}{limit}", **told)
    return status.PARTLY if above else status.DONE
