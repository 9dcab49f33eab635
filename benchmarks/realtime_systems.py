"""The systems of the real-time benchmark: each starts a query from one topic of Kafka to another.

In: ``{"id": …, "x": [50 floats]}``; out: JSON with ``id`` and ``prediction``. ``realtime`` is real-time mode, ``microbatch`` micro-batches one after
the other without a pause. ``identity`` parses and writes the same JSON, with no model between.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd
import torch
from pyspark.sql import DataFrame
from pyspark.sql import functions as sf
from torch import nn

import sparkdl
from sparkdl.signature import Signature, TensorSpec

FEATURES = 50
SCHEMA = "id bigint, x array<float>"
SIGNATURE = Signature((TensorSpec("x", "float32", (FEATURES,), ("x",), ("array<float>",)),))
LONG_BATCH = "5 minutes"


@dataclass(frozen=True)
class Topics:
    """Where a query reads and writes; folder: for its checkpoint."""

    broker: Any
    source: str
    target: str
    folder: Path

    def events(self, spark: Any) -> DataFrame:
        return self.broker.stream(spark, self.source)

    def sink(self) -> sparkdl.sinks.Kafka:
        return sparkdl.sinks.Kafka(self.broker.servers, self.target)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(FEATURES, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 1))


@functools.cache
def bundle() -> sparkdl.Bundle:
    return sparkdl.Bundle.from_module(network(), SIGNATURE, task="binary")


@functools.cache
def loaded() -> nn.Module:
    """The network, once a worker."""
    torch.set_num_threads(1)
    return network()


def score_stream(spark: Any, topics: Topics, mode: str, trigger: str) -> Any:
    return sparkdl.score_stream(
        topics.events(spark),
        model=bundle(),
        sink=topics.sink(),
        checkpoint=str(topics.folder / "checkpoint"),
        deadLetter=sparkdl.sinks.Kafka(topics.broker.servers, topics.broker.create_topic(f"{topics.target}-dead"))
        if mode == "realtime"
        else str(topics.folder / "dead"),
        payload=sparkdl.payloads.JSON(SCHEMA),
        columns=["id"],
        mode=mode,
        trigger=trigger,
    )


def unwarmed(spark: Any, topics: Topics) -> Any:
    """The executors see the first record with nothing compiled."""
    with mock.patch("sparkdl.realtime.start.WARM_UP", 1):
        return score_stream(spark, topics, "realtime", LONG_BATCH)


def plain(spark: Any, topics: Topics, trigger: dict[str, str], scored: Callable[[DataFrame], DataFrame]) -> Any:
    """As one writes it by hand. scored: of ``id`` and ``x``, ``id`` and ``prediction``."""
    parsed = (
        topics.events(spark).select(sf.from_json(sf.col("value").cast("string"), SCHEMA).alias("row")).select("row.*")
    )
    writer = scored(parsed).select(sf.to_json(sf.struct("id", "prediction")).alias("value")).writeStream.format("kafka")
    writer = writer.option("kafka.bootstrap.servers", topics.broker.servers).option("topic", topics.target)
    writer = writer.option("kafka.linger.ms", "0").option("checkpointLocation", str(topics.folder / "checkpoint"))
    return writer.outputMode("update").trigger(**trigger).start()


def identity(parsed: DataFrame) -> DataFrame:
    return parsed.select("id", sf.col("x")[0].alias("prediction"))


def by_onnx(parsed: DataFrame) -> DataFrame:
    model = sparkdl.TorchModel(bundle())
    model.set(model.engine, "onnx-jvm")
    return model.transform(parsed).select("id", "prediction")


def by_pandas_udf(parsed: DataFrame) -> DataFrame:
    def score(batches: Iterator[pd.Series]) -> Iterator[pd.Series]:
        import numpy as np

        for batch in batches:
            if not len(batch):
                yield pd.Series([], dtype="float32")
                continue
            with torch.inference_mode():
                logits = loaded()(torch.from_numpy(np.stack(batch.to_numpy())))
            yield pd.Series(torch.sigmoid(logits)[:, 0].numpy())

    return parsed.select("id", sf.pandas_udf(score, "float")("x").alias("prediction"))


_REALTIME, _MICROBATCH = {"realTime": LONG_BATCH}, {"processingTime": "0 seconds"}
SYSTEMS: dict[str, Callable[[Any, Topics], Any]] = {
    "realtime": lambda spark, topics: score_stream(spark, topics, "realtime", LONG_BATCH),
    "realtime, 10 s batches": lambda spark, topics: score_stream(spark, topics, "realtime", "10 seconds"),
    "realtime, no warm-up": lambda spark, topics: unwarmed(spark, topics),
    "realtime identity": lambda spark, topics: plain(spark, topics, _REALTIME, identity),
    "microbatch engine=onnx-jvm": lambda spark, topics: plain(spark, topics, _MICROBATCH, by_onnx),
    "microbatch identity": lambda spark, topics: plain(spark, topics, _MICROBATCH, identity),
    "microbatch pandas_udf": lambda spark, topics: plain(spark, topics, _MICROBATCH, by_pandas_udf),
    "microbatch score_stream": lambda spark, topics: score_stream(spark, topics, "microbatch", "0 seconds"),
}
USUAL = [
    name for name in SYSTEMS if "," not in name and name != "microbatch score_stream"
]  # what a run has unless asked
