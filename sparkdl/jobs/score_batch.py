"""The job ``score_batch``: a Parquet or Delta table."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sparkdl.conf import ScoreBatchConf
from sparkdl.jobs import status
from sparkdl.jobs.run import Run

if TYPE_CHECKING:
    from sparkdl.model import TorchModel

CONF = ScoreBatchConf


def plan(run: Run, conf: ScoreBatchConf, args: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """What would be scored, with what, into what."""
    from sparkdl.score import job, sources
    from sparkdl.score.output import Layout

    source = sources.opened(run.spark, conf.source)
    yield "source", f"{conf.source}, columns {source.df.columns}"
    model = _model(conf)
    yield "model", f"{conf.bundle}, {model.signature}"
    layout = Layout.checked(conf.partitionBy, conf.rowGroupSize, conf.compression)
    made = job.checked(source, model, conf.output, conf.columns, layout, overwrite=conf.overwrite)
    yield "output", f"{conf.output}, columns {[field['name'] for field in made.told['fields']]}"


def start(run: Run, conf: ScoreBatchConf, args: argparse.Namespace) -> int:
    """Score the table and say what became of its rows."""
    from sparkdl.score.batch import score_table

    done = score_table(
        conf.source,
        _model(conf),
        conf.output,
        columns=conf.columns,
        partitionBy=conf.partitionBy,
        rowGroupSize=conf.rowGroupSize,
        compression=conf.compression,
        overwrite=conf.overwrite,
        spark=run.spark,
    )
    run.show(f"scored: {done}", output=conf.output, already=done.already, **done.to_json())
    return status.DONE


def _model(conf: ScoreBatchConf) -> TorchModel:
    from sparkdl.bundle import Bundle
    from sparkdl.model import TorchModel

    return TorchModel(Bundle.load(conf.bundle)).setParams(**conf.model)
