"""The systems of the streaming benchmark: each starts a query on the same stream of ``id`` and ``features``.

All give ``id`` and ``prediction``; ``sparkdl.score_stream`` also ``model_version``. Those of NOOP go nowhere, those of PARQUET
into a table. ``plain-parquet`` is ``identity`` with Spark's own file sink, ``transform-parquet`` is ``sparkdl.transform`` with it.
``score_stream`` has Spark write a local checkpoint in a cheaper way than by default (``sparkdl.stream.start``); the systems of
CHEAPER are their namesakes with that way, so that it is seen what comes of it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import scoring_systems
import torch
from pyspark.sql import DataFrame
from scoring_works import MLP

import sparkdl
from sparkdl.stream.start import _FILE_MANAGER_CONF, _file_manager

NOOP = {
    "identity": scoring_systems.identity,
    "pandas_udf": scoring_systems.by_pandas_udf,
    "predict_batch_udf": scoring_systems.by_predict_batch_udf,
    "sparkdl.transform": scoring_systems.transform,
}
PARQUET = {"plain-parquet": scoring_systems.identity, "transform-parquet": scoring_systems.transform}
CHEAPER = {"identity, cheaper checkpoint": "identity", "plain-parquet, cheaper checkpoint": "plain-parquet"}
SYSTEMS = [*NOOP, *PARQUET, *CHEAPER, "sparkdl.score_stream"]


def start(
    system: str,
    events: DataFrame,
    folder: Path,
    trigger: dict[str, Any],
    parsed: Callable[[DataFrame], DataFrame] | None = None,
) -> Any:
    """The StreamingQuery of ``system``, started. folder: for its checkpoint and its table.

    parsed: for Kafka's records, what makes ``id`` and ``features`` of them; ``score_stream`` has its own way.
    """
    if system == "sparkdl.score_stream":
        payload = sparkdl.payloads.JSON("id bigint, features array<float>") if parsed else None
        return scored(events, folder, trigger, payload=payload).query
    if parsed:
        events = parsed(events)
    if system in CHEAPER:
        spark = events.sparkSession
        spark.conf.set(_FILE_MANAGER_CONF, _file_manager(spark))
        try:
            return start(CHEAPER[system], events, folder, trigger)
        finally:
            spark.conf.unset(_FILE_MANAGER_CONF)
    frame = (NOOP | PARQUET)[system](events, MLP)
    writer = frame.writeStream.option("checkpointLocation", str(folder / "checkpoint")).trigger(**trigger)
    if system in PARQUET:
        return writer.format("parquet").start(str(folder / "out"))
    return writer.format("noop").start()


def scored(events: DataFrame, folder: Path, trigger: dict[str, Any], **more: Any) -> Any:
    """A ScoreQuery with Parquet for rows and dead letters."""
    return sparkdl.score_stream(
        events,
        sink=sparkdl.sinks.Parquet(str(folder / "out")),
        checkpoint=str(folder / "checkpoint"),
        deadLetter=str(folder / "dead"),
        columns=["id"],
        trigger="available now" if "availableNow" in trigger else trigger["processingTime"],
        **{"model": scoring_systems.model_of(MLP), **more},
    )


@functools.cache
def version(seed: int) -> sparkdl.Bundle:
    """The network of MLP with other weights."""
    module = MLP.network()
    with torch.no_grad():
        module[4].bias += seed
    return sparkdl.Bundle.from_module(module, MLP.signature)
