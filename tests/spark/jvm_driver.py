"""Scores six rows by the engine onnx-jvm on a local cluster: ``jvm_driver.py FOLDER JARS``; FOLDER has the bundle."""

import json
import sys

from pyspark.sql import SparkSession
from pyspark.sql import functions as sf

from sparkdl import Bundle
from sparkdl.jvm import scorer

folder, jars = sys.argv[1:]
METRICS = "spark.metrics.conf.executor.sink.csv"
spark = (
    SparkSession.builder.master("local-cluster[1,1,1024]")
    .config("spark.jars", jars)
    .config("spark.ui.enabled", "false")
    .config("spark.executor.memory", "512m")
    .config("spark.executor.extraJavaOptions", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")
    .config(f"{METRICS}.class", "org.apache.spark.metrics.sink.CsvSink")
    .config(f"{METRICS}.period", "1")
    .config(f"{METRICS}.unit", "seconds")
    .config(f"{METRICS}.directory", f"{folder}/metrics")
    .getOrCreate()
)
rows = spark.range(6).selectExpr(
    "array(cast(0.5 * id as float), 1f, -1f, 0f) as features", "string(null) as w", "current_timestamp() as t"
)
score = scorer.of_bundle(spark, Bundle.load(f"{folder}/bundle"), scorer.Settings(record=True))
answers = [
    row.prediction for row in rows.select(score(sf.struct("features", "w", "t")).alias("s")).select("s.*").collect()
]
with open(f"{folder}/answers.json", "w") as file:
    json.dump(answers, file)
spark.stop()
