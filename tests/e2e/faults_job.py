"""The driver of test_faults.py: python faults_job.py MASTER FOLDER SCENARIO…

Each scenario is a fit that a process of it does not survive; what came of it is a line of JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import threading
from dataclasses import dataclass
from typing import Any

import psutil
import safetensors.torch
from pyspark.sql import SparkSession
from torch import nn

from sparkdl import TorchEstimator, session
from sparkdl.train.callbacks import Callback

ROWS, EPOCHS, STEPS = 400, 4, 13  # steps an epoch: 400 rows, 2 ranks, batches of 16
CONF = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.log.level": "OFF",
    "spark.sql.shuffle.partitions": "2",
    "spark.driver.memory": "1g",
    "spark.executor.memory": "1g",
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
    "spark.executor.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
}


@dataclass
class Fault(Callback):
    """Once in a fit, on rank 1 after step ``step`` of epoch ``epoch``: kills a process of the run, with no warning."""

    scenario: str
    folder: str
    driver: int
    epoch: int
    step: int

    def on_step_end(self, run: Any) -> None:
        if (run.world.rank, run.epoch, run.step) != (1, self.epoch, self.step):
            return
        try:
            os.close(os.open(os.path.join(self.folder, f"{self.scenario}-done"), os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
        _, executor, worker = (process.pid for process in psutil.Process().parents()[:3])
        killed = {
            "worker": [os.getpid()],
            "executor": [executor],
            "driver": [self.driver],
            "gone": [worker, executor, os.getpid()],
        }.get(self.scenario.split("-")[0], [])
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        if killed:
            threading.Event().wait()


def main(master: str, folder: str, *scenarios: str) -> None:
    os.environ["PYSPARK_PYTHON"] = sys.executable
    builder = SparkSession.builder.master(master)
    for name, value in {**CONF, "spark.sql.warehouse.dir": f"{folder}/warehouse"}.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    try:
        for scenario in scenarios:
            print("\n" + json.dumps(fit(spark, folder, scenario)), flush=True)
    finally:
        spark.stop()


def fit(spark: SparkSession, folder: str, scenario: str) -> dict[str, Any]:
    """scenario: a kind of fault, with ``-N`` at a moment drawn by the seed N; or ``resume``."""
    kind, _, seed = scenario.partition("-")
    session.REGISTRATION_S = 3.0 if kind == "gone" else 60.0  # it does not come back
    moment = random.Random(seed).randrange(EPOCHS * STEPS - 1) if seed else 2 * STEPS + 7
    store = f"{folder}/store"
    df = spark.range(0, ROWS, 1, 3).selectExpr(
        "id", "transform(array(12.9898d, 78.233d, 37.719d), f -> cast(sin((id + 1) * f) as float)) features"
    )
    df = df.selectExpr("*", "cast(2 * features[0] - features[1] > 0 as int) label")
    estimator = TorchEstimator(
        model=network, task="binary", optimizer="sgd", optimizerParams={"momentum": 0.9}, learningRate=0.05,
        batchSize=16, epochs=EPOCHS, numProc=2, minProc=1 if kind == "gone" else 0, storePath=store,
        checkpointEvery="5 steps", verbose=False, seed=3,
        callbacks=[Fault(scenario, folder, os.getpid(), moment // STEPS, moment % STEPS + 1)],
    )  # fmt: skip
    if kind in ("driver", "resume"):
        estimator.setCheckpointDir(f"{folder}/checkpoints")
    listened = listening()
    model = estimator.fit(df, resume=True) if kind == "resume" else estimator.fit(df)
    training = model.bundle.training
    return {
        "scenario": scenario,
        "weights": hashlib.sha256(safetensors.torch.save(dict(model.bundle.weights))).hexdigest(),
        "attempts": training["attempts"],
        "rows": [entry["rows"] for entry in training["history"]],
        "losses": [entry["loss"] for entry in training["history"]],
        "left": sorted(os.listdir(store)) if os.path.isdir(store) else [],
        "phases": training["phases"],
        "listens": sorted(listening() - listened),
        "fault came": os.path.exists(os.path.join(folder, f"{scenario}-done")),
    }


def listening() -> set[int]:
    """The ports on which this process listens."""
    return {found.laddr.port for found in psutil.Process().net_connections("tcp") if found.status == "LISTEN"}


def network() -> nn.Module:
    """With dropout, so that each rank's generator counts too."""
    return nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 1))


if __name__ == "__main__":
    main(*sys.argv[1:])
