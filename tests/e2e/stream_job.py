"""A driver of test_stream_faults.py and of benchmarks/stream_kills.py: python stream_job.py FOLDER TOLD

FOLDER is a Scene's (stream_scene.py). TOLD, as JSON: ``master``; ``trigger``; ``servers``, of the Kafka broker whose topic
``events`` is read instead of files; ``kill``: ``before``, ``after`` or ``in`` the commit of the sink's ``nth`` batch of this
run, kill -9 to this process and its JVM. It says, as lines of JSON, that it runs and what it committed.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
from typing import Any

from pyspark.sql import DataFrame, SparkSession

import sparkdl
from sparkdl.jobs import signals
from sparkdl.stream import configured

COLUMNS = "id bigint, features array<float>, code bigint"
CONF = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.log.level": "ERROR",
    "spark.sql.shuffle.partitions": "2",
    "spark.driver.memory": "768m",
    "spark.executor.memory": "512m",
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
    "spark.executor.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
}


class Dying(sparkdl.sinks.Parquet):
    """Parquet that ends its process where it was told to."""

    kill: str | None = None
    nth = 0
    seed = 0

    def commit(self, spark: SparkSession, staged: Any) -> None:
        self.nth -= 1
        if self.kill == "in" and not self.nth:
            delay = random.Random(self.seed).uniform(0, 0.004)
            threading.Timer(delay, die).start()
        if self.kill == "before" and not self.nth:
            die()
        super().commit(spark, staged)
        if self.kill == "after" and not self.nth:
            die()


class Buried(sparkdl.sinks.Parquet):
    """The dead letters' table, committed last: says so of each batch."""

    def commit(self, spark: SparkSession, staged: Any) -> None:
        super().commit(spark, staged)
        say(event="batch", batch=staged.batch)


def die() -> None:
    """The whole process group: Python, JVM, workers."""
    os.killpg(0, signal.SIGKILL)


def say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


def main(folder: str, text: str) -> None:
    told = json.loads(text)
    os.environ["PYSPARK_PYTHON"] = sys.executable
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    builder = SparkSession.builder.master(told["master"]).appName("stream faults")
    for name, value in {**CONF, **told.get("conf", {}), "spark.sql.warehouse.dir": f"{folder}/warehouse"}.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    told_to_end = threading.Event()
    sink = Dying(f"{folder}/out")
    sink.kill, sink.nth, sink.seed = told.get("kill"), told.get("nth", 0), told.get("seed", 0)
    payload = sparkdl.payloads.JSON(COLUMNS) if "servers" in told else None
    query = sparkdl.score_stream(
        files(spark, folder) if "servers" not in told else records(spark, told["servers"]),
        model="registry://m@champion",
        registry=sparkdl.Registry(f"{folder}/registry"),
        sink=sink,
        checkpoint=f"{folder}/checkpoint",
        deadLetter=Buried(f"{folder}/dead"),
        trigger=told["trigger"],
        payload=payload,
    )
    say(event="started", query=query.id)
    with signals.taken(told_to_end):
        configured.run_to_end(query, told_to_end)
    spark.stop()
    say(event="ended")


def files(spark: SparkSession, folder: str) -> DataFrame:
    return spark.readStream.schema(COLUMNS).option("maxFilesPerTrigger", 2).parquet(f"{folder}/arriving")


def records(spark: SparkSession, servers: str) -> DataFrame:
    reader = spark.readStream.format("kafka").option("kafka.bootstrap.servers", servers).option("subscribe", "events")
    return reader.option("startingOffsets", "earliest").option("maxOffsetsPerTrigger", 400).load()


if __name__ == "__main__":
    main(*sys.argv[1:])
