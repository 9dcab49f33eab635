"""One fit by Horovod's own TorchEstimator, in the environment of horovod_estimator.txt; figures as JSON, the last line.

    fit_horovod_estimator.py TABLE ROWS EPOCHS

The model, optimizer, batch and ranks are those of ../training.py. All else is as the estimator has it by default.
"""

import json
import statistics
import sys
import tempfile
import time

import torch
from horovod.spark.common.backend import SparkBackend
from horovod.spark.common.store import LocalStore
from horovod.spark.torch import TorchEstimator
from pyspark.sql import SparkSession
from torch import nn

FEATURES, BATCH, RANKS = 50, 256, 2


class TimedLoss:
    """Mean squared error that notes, in a file, when each epoch's first and last steps come: the history has no times."""

    def __init__(self, path, steps):
        self.path = path
        self.steps = steps
        self.calls = 0

    def __call__(self, output, label):
        step = self.calls % self.steps
        self.calls += 1
        if step in (0, self.steps - 1):
            import horovod.torch as hvd

            if hvd.rank() == 0:
                with open(self.path, "a") as file:
                    file.write(f"{time.monotonic()}\n")
        return nn.functional.mse_loss(output, label)


def main():
    table, rows, epochs = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    spark = (
        SparkSession.builder.master(f"local[{RANKS}]")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.driver.memory", "4g")
        .config("spark.log.level", "ERROR")
        .getOrCreate()
    )
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(FEATURES, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 1))
    steps = rows // BATCH // RANKS
    with tempfile.TemporaryDirectory() as folder:
        times = f"{folder}/times"
        estimator = TorchEstimator(
            backend=SparkBackend(num_proc=RANKS),
            store=LocalStore(f"{folder}/store"),
            model=model,
            optimizer=torch.optim.Adam(model.parameters(), lr=1e-3),
            loss=TimedLoss(times, steps),
            feature_cols=["features"],
            label_cols=["label"],
            input_shapes=[[-1, FEATURES]],
            batch_size=BATCH,
            epochs=epochs,
            verbose=0,
        )
        df = spark.read.parquet(table)
        started = time.monotonic()
        estimator.fit(df)
        whole = time.monotonic() - started
        with open(times) as file:
            marks = [float(line) for line in file]
    seconds = [(marks[i + 1] - marks[i]) * steps / (steps - 1) for i in range(0, 2 * epochs, 2)]
    spark.stop()
    print(json.dumps({"throughput rows/s": rows / statistics.median(seconds[1:]), "fit s": whole}))


if __name__ == "__main__":
    main()
