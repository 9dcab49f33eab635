"""The job ``train``: a model on a Parquet table."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sparkdl import program, session, store
from sparkdl.conf import TrainConf
from sparkdl.errors import BundleError, OverlapError, SourceNotFoundError
from sparkdl.jobs import status
from sparkdl.jobs.run import Run

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from sparkdl.estimator import TorchEstimator

CONF = TrainConf


def plan(run: Run, conf: TrainConf, args: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """What would be trained, on what, into what."""
    estimator = _estimator(conf)
    table = _table(run, conf.data, "data")
    yield "data", f"{conf.data}, columns {table.columns}"
    if conf.test:
        yield "test", f"{conf.test}, columns {_table(run, conf.test, 'test').columns}"
    yield "model", f"{conf.model}, task {estimator.getOrDefault('task')}"
    _check_output(conf)
    yield "bundle", f"would be written to {conf.bundle}"
    ranks = estimator.getOrDefault("numProc") or session.free_slots(run.spark) or 1
    session.check_worker_python(run.spark)
    session.check_slots(run.spark, ranks)
    yield "ranks", f"{ranks}, of {session.free_slots(run.spark)} task slots"


def start(run: Run, conf: TrainConf, args: argparse.Namespace) -> int:
    """Train, report held-out figures, write the bundle."""
    from sparkdl.evaluate import held_out

    estimator = _estimator(conf)
    _check_output(conf)
    model = estimator.fit(_table(run, conf.data, "data"))
    bundle = model.bundle
    if conf.test:
        figures = held_out(model, _table(run, conf.test, "test"), estimator.getLabelCol())
        bundle = replace(bundle, metrics={**bundle.metrics, **figures})
        told = ", ".join(f"{name.removeprefix('test_')} {value:.4f}" for name, value in figures.items())
        run.tell("held out", f"held out: {told}", **figures)
    bundle.save(conf.bundle, overwrite=conf.overwrite)
    run.show(f"bundle: {conf.bundle}", bundle=conf.bundle, digest=bundle.digest, metrics=dict(bundle.metrics))
    return status.DONE


def _estimator(conf: TrainConf) -> TorchEstimator:
    from sparkdl.estimator import TorchEstimator

    settings: dict[str, Any] = conf.estimator
    return TorchEstimator(model=program.import_object(conf.model), **settings)


def _table(run: Run, uri: str, key: str) -> DataFrame:
    if not store.exists(uri):
        raise SourceNotFoundError(f"there is nothing at {store.shown(uri)!r}, the conf's {key!r}", uri=store.shown(uri))
    return run.spark.read.parquet(store.hadoop_uri(uri))


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
