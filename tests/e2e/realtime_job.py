"""A driver of test_realtime_faults.py: python realtime_job.py FOLDER TOLD

TOLD, as JSON: ``master``; ``servers``, of the Kafka broker whose topic ``in`` is scored into ``out`` and ``dead``; ``jars``, of
the connector and ONNX Runtime. It says, as lines of JSON, that it runs, and each restart of the query.
"""

from __future__ import annotations

import json
import os
import sys
import threading

from pyspark.sql import SparkSession

import sparkdl
from sparkdl.jobs import signals

COLUMNS = "id bigint, features array<float>, code bigint"
CONF = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.log.level": "WARN",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.memory": "768m",
    "spark.executor.cores": "1",
    "spark.executor.memory": "512m",
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
    "spark.executor.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
}
LOOK_S = 0.1


def say(**what: object) -> None:
    print(json.dumps(what), flush=True)


def main(folder: str, text: str) -> None:
    told = json.loads(text)
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    builder = SparkSession.builder.master(told["master"]).appName("realtime faults").config("spark.jars", told["jars"])
    for name, value in {**CONF, "spark.sql.warehouse.dir": f"{folder}/warehouse"}.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    told_to_end = threading.Event()
    reader = (
        spark.readStream.format("kafka").option("kafka.bootstrap.servers", told["servers"]).option("subscribe", "in")
    )
    query = sparkdl.score_stream(
        reader.option("startingOffsets", "earliest").load(),
        model="registry://m@champion",
        registry=sparkdl.Registry(f"{folder}/registry"),
        payload=sparkdl.payloads.JSON(COLUMNS),
        columns=["id"],
        sink=sparkdl.sinks.Kafka(told["servers"], "out", key="id"),
        deadLetter=sparkdl.sinks.Kafka(told["servers"], "dead"),
        checkpoint=f"{folder}/checkpoint",
        mode="realtime",
        trigger="10 seconds",
    )
    say(event="started", application=spark.sparkContext.applicationId)
    restarts = 0
    with signals.taken(told_to_end):
        while not told_to_end.wait(LOOK_S) and not query.awaitTermination(0):
            if query.restarts > restarts:
                restarts = query.restarts
                say(event="restarted", restarts=restarts, trouble=query.status().trouble)
    query.stop()
    spark.stop()
    say(event="ended")


if __name__ == "__main__":
    main(*sys.argv[1:])
