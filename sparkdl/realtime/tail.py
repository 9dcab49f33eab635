"""How long records take that are answered just now: read off the sink's topic, by the driver, without a task slot."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sparkdl import connectors
from sparkdl.realtime.projection import SOURCE_TIME

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from sparkdl.sinks.kafka import Kafka

MOST = 500  # records of a look: each takes some calls of the JVM
_BYTES = "org.apache.kafka.common.serialization.ByteArrayDeserializer"


@dataclass(frozen=True)
class Latency:
    """Milliseconds from the source's timestamp of a record to that of its answer in the sink; None where none came.

    records: that were looked at; seconds: within which they were answered.
    """

    records: int
    seconds: float
    p50: float | None = None
    p99: float | None = None
    largest: float | None = None

    @classmethod
    def of(cls, milliseconds: list[int], seconds: float) -> Latency:
        """Of these records."""
        if not milliseconds:
            return cls(0, seconds)
        p50, p99 = (float(q) for q in np.percentile(milliseconds, (50, 99)))
        return cls(len(milliseconds), seconds, p50, p99, float(max(milliseconds)))

    def __str__(self) -> str:
        if not self.records:
            return f"no record was answered within {self.seconds:.1f} s"
        return (
            f"p50 {self.p50:.0f} ms, p99 {self.p99:.0f} ms, largest {self.largest:.0f} ms, of {self.records} records in "
            f"{self.seconds:.1f} s"
        )


class Tail:
    """The end of a sink's topic. For several threads, one at a time; ``close`` it."""

    def __init__(self, spark: SparkSession, sink: Kafka) -> None:
        self._spark, self._sink = spark, sink
        self._consumer: Any = None
        self._lock = threading.Lock()

    def latency(self, seconds: float) -> Latency:
        """Of the records that come within so many seconds, at most MOST. Raises Py4JJavaError, NoClientError."""
        with self._lock:
            if self._consumer is None:
                self._consumer = self._opened()
            jvm: Any = self._spark._jvm
            self._consumer.seekToEnd(self._consumer.assignment())
            found: list[int] = []
            began = time.monotonic()
            while len(found) < MOST and (left := began + seconds - time.monotonic()) > 0:
                for record in self._consumer.poll(jvm.java.time.Duration.ofMillis(int(left * 1000) + 1)).iterator():
                    header = record.headers().lastHeader(SOURCE_TIME)
                    if header is not None:
                        found.append(record.timestamp() - int(bytes(header.value())))
            return Latency.of(found, time.monotonic() - began)

    def close(self) -> None:
        """Let the brokers go."""
        with self._lock:
            if self._consumer is not None:
                self._consumer.close()
                self._consumer = None

    def _opened(self) -> Any:
        from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped,import-not-found]

        jvm: Any = self._spark._jvm
        options = dict(self._sink.options or {})
        settings = connectors.kafka_settings(self._spark, self._sink.servers, options)
        for name, value in (
            ("key.deserializer", _BYTES),
            ("value.deserializer", _BYTES),
            ("max.poll.records", str(MOST)),
        ):
            settings.setProperty(name, value)
        try:
            consumer = jvm.org.apache.kafka.clients.consumer.KafkaConsumer(settings)
        except Py4JJavaError as error:
            raise connectors.NoClientError(error, options) from None
        topic = self._sink.topic
        partition = jvm.org.apache.kafka.common.TopicPartition
        consumer.assign([partition(topic, told.partition()) for told in consumer.partitionsFor(topic)])
        return consumer
