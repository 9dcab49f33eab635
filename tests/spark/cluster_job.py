"""What test_clusters.py runs in a process of its own: python cluster_job.py MASTER FOLDER

MASTER is Spark's, or ``connect:`` and one for Spark Connect. All goes through one session: fit, transform, save, load,
HorovodRunner, a failing rank, too many ranks. Its findings are the last line it prints, as JSON.
"""

from __future__ import annotations

import json
import os
import sys

from pyspark.sql import DataFrame, SparkSession
from torch import nn

from sparkdl import HorovodRunner, TorchEstimator, TorchModel, score_table
from sparkdl.errors import DataError, NotEnoughSlotsError, RankFailedError, StoreError

CONF = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.log.level": "ERROR",
    "spark.sql.shuffle.partitions": "2",
    "spark.driver.memory": "1g",
    "spark.executor.memory": "1g",
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
    "spark.executor.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
}


def main(master: str, folder: str) -> None:
    builder = SparkSession.builder.config("spark.sql.warehouse.dir", f"{folder}/warehouse")
    for name, value in CONF.items():
        builder = builder.config(name, value)
    connect = master.startswith("connect:")
    builder = builder.remote(master.removeprefix("connect:")) if connect else builder.master(master)
    spark = builder.getOrCreate()
    try:
        print("\n" + json.dumps(findings(spark, folder, local=connect or master.startswith("local"))), flush=True)
    finally:
        spark.stop()


def findings(spark: SparkSession, folder: str, local: bool) -> dict[str, object]:
    df = spark.range(0, 400, 1, 3).selectExpr(
        "id", "transform(array(12.9898d, 78.233d, 37.719d), f -> cast(sin((id + 1) * f) as float)) features"
    )
    df = df.selectExpr("*", "cast(2 * features[0] - features[1] > 0 as int) label")
    estimator = TorchEstimator(
        model=nn.Linear(3, 1), task="binary", batchSize=16, epochs=4, numProc=2, learningRate=0.05, verbose=False
    )
    found: dict[str, object] = {"session": type(spark).__module__}
    if not local:
        found["no store"] = raised(StoreError, lambda: estimator.fit(df))
        estimator.setStorePath(f"{folder}/store")
    model = estimator.fit(df)
    scored = model.transform(df)
    found["losses"] = [entry["loss"] for entry in model.history]
    found["rows"] = [entry["rows"] for entry in model.history]
    found["columns"] = scored.columns
    found["accuracy"] = scored.selectExpr("avg(cast(prediction = label as double))").head()[0]
    if os.path.isdir(f"{folder}/store"):
        found["left in the store"] = os.listdir(f"{folder}/store")

    model.write().overwrite().save(f"{folder}/model")
    loaded = TorchModel.load(f"{folder}/model")
    ids = [(row.id, row.prediction) for row in scored.orderBy("id").collect()]
    found["the same once loaded"] = [
        (row.id, row.prediction) for row in loaded.transform(df).orderBy("id").collect()
    ] == ids

    found["scoring"] = scoring(spark, model, df, folder)
    found["runner"] = HorovodRunner(np=2).run(gather, start=100)
    found["failed rank"] = raised(RankFailedError, lambda: HorovodRunner(np=2).run(fails))
    bad = df.selectExpr("label", "if(id = 350, slice(features, 1, 2), features) features")
    found["bad row"] = raised(DataError, lambda: estimator.fit(bad))
    if local:
        found["too many"] = raised(NotEnoughSlotsError, lambda: HorovodRunner(np=7).run(gather, start=0))
    return found


def scoring(spark: SparkSession, model: TorchModel, df: DataFrame, folder: str) -> list[object]:
    """Four of 400 rows are bad: how many are told of, left, scored in an expression, in SQL, and in a whole table."""
    dirty = df.selectExpr("id", "if(id % 100 = 7, null, features) features")
    kept = model.copy().setParams(handleInvalid="keep", errorCol="why")
    skip = model.copy().setParams(handleInvalid="skip")
    dirty.write.mode("overwrite").parquet(f"{folder}/dirty")
    dirty.createOrReplaceTempView("dirty")
    kept.register(spark, "score")
    table = score_table(f"{folder}/dirty", kept, f"{folder}/scored", spark=spark, verbose=False)
    return [
        kept.transform(dirty).where("why like 'null: %' and prediction is null").count(),
        skip.transform(dirty).count(),
        dirty.select(kept.udf(spark)("features").alias("s")).where("s.prediction is not null").count(),
        spark.sql("SELECT score(features) AS s FROM dirty").where("s.prediction is not null").count(),
        [table.rows, table.written, table.invalid, table.way],
        spark.read.parquet(f"{folder}/scored").where("why like 'null: %'").count(),
    ]


def gather(start: int) -> list[list[object]]:
    """What each rank sees of the world and of its executor."""
    import horovod.torch as hvd
    from pyspark import BarrierTaskContext

    hvd.init()
    print(f"rank {hvd.rank()} speaks")
    executor = os.environ.get("SPARK_EXECUTOR_DIRS") or os.getppid()
    mine = [start + hvd.rank(), hvd.size(), BarrierTaskContext.get().partitionId(), str(executor)]
    return hvd.allgather_object(mine)


def fails() -> None:
    import horovod.torch as hvd

    hvd.init()
    if hvd.rank() == 1:
        raise ValueError("only rank 1")
    hvd.barrier()


def raised(kind: type[Exception], call: object) -> str:
    try:
        call()
    except kind as error:
        return str(error)
    return "nothing was raised"


if __name__ == "__main__":
    main(*sys.argv[1:])
