"""The job ``train``: a model on a Parquet table."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sparkdl import runs, session, store
from sparkdl.conf import TrainConf
from sparkdl.errors import BundleError, OverlapError
from sparkdl.jobs import code, models, status
from sparkdl.jobs.run import Run

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from sparkdl.estimator import TorchEstimator
    from sparkdl.model import TorchModel

CONF = TrainConf


def plan(run: Run, conf: TrainConf, args: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """What would be trained, on what, into what."""
    estimator = _estimator(run, conf)
    table = models.table(run, conf.data, "data")
    yield "data", f"{conf.data}, columns {table.columns}"
    if conf.test:
        yield "test", f"{conf.test}, columns {models.table(run, conf.test, 'test').columns}"
    yield "model", conf.application or f"{conf.model}, task {estimator.getOrDefault('task')}"
    _check_output(conf)
    yield "bundle", f"would be written to {conf.bundle}"
    ranks = estimator.getOrDefault("numProc") or session.free_slots(run.spark) or 1
    session.check_worker_python(run.spark)
    session.check_slots(run.spark, ranks)
    if conf.resume:
        before = runs.unfinished(estimator.getOrDefault("checkpointDir"))
        yield "resume", before or "no run was interrupted: a new one"
    yield "ranks", f"{ranks}, of {session.free_slots(run.spark)} task slots"


def start(run: Run, conf: TrainConf, args: argparse.Namespace) -> int:
    """Train, report held-out figures, write the bundle."""
    estimator = _estimator(run, conf)
    _check_output(conf)
    data, test = (
        models.table(run, uri, key) if uri else None for key, uri in (("data", conf.data), ("test", conf.test))
    )
    before = runs.unfinished(estimator.getOrDefault("checkpointDir")) if conf.resume else None
    if before:
        run.tell("resume", f"goes on with {before}, which was interrupted", resumed=before)
    model = estimator.fit(data, resume=before is not None)
    figures = _held_out(run, model, test, estimator.getLabelCol()) if test is not None else {}
    bundle = replace(
        model.bundle,
        metrics={**model.bundle.metrics, **figures},
        training={**model.bundle.training, "run": run.id},
    )
    bundle.save(conf.bundle, overwrite=conf.overwrite)
    if conf.graph:  # what was trained is kept, whether it can be a graph or not
        bundle = bundle.with_graph()
        bundle.save(conf.bundle, overwrite=True)
    where = store.shown(conf.bundle)
    run.show(f"bundle: {where}, {bundle.digest[:12]}", bundle=where, digest=bundle.digest, metrics=dict(bundle.metrics))
    return status.DONE


def _held_out(run: Run, model: TorchModel, test: DataFrame, label: str) -> dict[str, float]:
    """``test_accuracy`` and so on; nothing without a task."""
    from sparkdl.evaluate import evaluate

    decoder = model.signature.decoder
    if model.bundle.task is None and not (decoder and decoder.figures):
        return {}
    figures = evaluate(model, test, label).figures
    told = ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
    run.tell("held out", f"held out: {told}", **figures)
    return {f"test_{name}": value for name, value in figures.items()}


def _estimator(run: Run, conf: TrainConf) -> TorchEstimator:
    from sparkdl.estimator import TorchEstimator
    from sparkdl.ready import estimator_named

    settings: dict[str, Any] = conf.estimator
    if conf.application:
        made: TorchEstimator = estimator_named(conf.application)(**settings)
        return made
    return TorchEstimator(model=code.named(run, str(conf.model), "model"), **settings)


def _check_output(conf: TrainConf) -> None:
    """Raise OverlapError, BundleError before hours of training, not after."""
    for key, uri in (("data", conf.data), ("test", conf.test)):
        if uri and store.overlap(uri, conf.bundle):
            raise OverlapError(
                f"'bundle', {conf.bundle!r}, and {key!r}, {uri!r}, lie in one another; choose another place for the bundle",
                uri=conf.bundle,
            )
    if not conf.overwrite and store.exists(store.join(conf.bundle, "manifest.json")):
        raise BundleError(
            f"there is a bundle at {conf.bundle!r} already; say overwrite: true to replace it", uri=conf.bundle
        )
