"""Kafka as the source of the streaming benchmark: a broker, and a topic that is filled before anything is measured.

A batch takes ``maxOffsetsPerTrigger`` records: with a trigger of 1 second what a source of that rate brings in one, without a producer that
would need the cores of the query. Rows are JSON, ``{"id": …, "features": […]}``.
"""

from __future__ import annotations

import atexit
import sys
from pathlib import Path
from typing import Any

import harness

ROWS, PARTITIONS, TOPIC = 1_000_000, 2, "events"
sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
import kafka  # noqa: E402

SCHEMA = "id bigint, features array<float>"


def jars() -> dict[str, str]:
    """What the session needs. Ends the process where the jars cannot be had."""
    found = kafka.session_jars()
    if not found:
        raise SystemExit(f"no jars for Kafka: {kafka.fetched(kafka.lane())[1]}")
    return {"spark.jars": found}


def filled(folder: Path, rows: int) -> kafka.Broker:
    """A broker that runs, with ``rows`` records in the topic."""
    path, reason = kafka.fetched("kafka")
    if path is None:
        raise SystemExit(f"no jars for the broker: {reason}")
    broker = kafka.Broker(folder, path).start()
    atexit.register(broker.stop)
    broker.create_topic(TOPIC, PARTITIONS)
    values = "transform(sequence(1, 50), k -> cast(round(sin(id * 0.7 + k), 5) as float)) features"
    frame = harness.session().range(0, rows, 1, PARTITIONS).selectExpr("id", values)
    broker.write(frame.selectExpr("to_json(struct(*)) value", f"cast(id % {PARTITIONS} as int) partition"), TOPIC)
    return broker


def stream(broker: kafka.Broker, rows_a_batch: int) -> Any:
    """The topic from its start, as Spark's connector gives it."""
    return broker.stream(harness.session(), TOPIC, maxOffsetsPerTrigger=rows_a_batch)


def parsed(events: Any) -> Any:
    """id, features: as one writes it by hand."""
    from pyspark.sql import functions as sf

    return events.select(sf.from_json(sf.col("value").cast("string"), SCHEMA).alias("row")).select("row.*")
