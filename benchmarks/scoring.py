"""Rows a second from a Parquet table through an MLP 50-256-128-1 to nowhere: sparkdl.transform beside its peers.

Every system reads the same table with two workers and one torch thread each, in a session that is warm. ``bare`` is two
processes with pyarrow and torch and no Spark: the physical limit, as far as reading and computing go.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from pathlib import Path

import harness
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from pyspark.sql import functions as sf
from torch import nn

FEATURES, FILES, BATCH = 50, 8, 4096
SYSTEMS = ["sparkdl.transform", "predict_batch_udf", "pandas_udf", "map_in_arrow", "identity", "bare"]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(FEATURES, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 1)).eval()


def write_table(folder: Path, rows: int) -> None:
    random = np.random.default_rng(0)
    for i in range(FILES):
        values = random.standard_normal((rows // FILES, FEATURES), dtype=np.float32)
        offsets = np.arange(len(values) + 1, dtype=np.int32) * FEATURES
        features = pa.ListArray.from_arrays(offsets, values.ravel())
        ids = np.arange(len(values)) + i * len(values)
        pq.write_table(pa.table({"id": ids, "features": features}), folder / f"{i}.parquet", row_group_size=65536)


def timed(rows: int, work) -> dict[str, float]:
    started = time.monotonic()
    work()
    return {"throughput rows/s": rows / (time.monotonic() - started)}


def to_nowhere(df) -> None:
    df.write.format("noop").mode("overwrite").save()


def score_files(paths: list[str]) -> float:
    """One bare worker: its files through the network; the sum of predictions, so that nothing is left out."""
    torch.set_num_threads(1)
    model, total = network(), 0.0
    with torch.inference_mode():
        for path in paths:
            for batch in pq.ParquetFile(path).iter_batches(BATCH, columns=["features"], use_threads=False):
                values = batch.column(0).flatten().to_numpy().reshape(-1, FEATURES)
                total += float(model(torch.from_numpy(values.copy())).sum())
    return total


def main() -> None:
    asked = harness.arguments(__doc__, SYSTEMS)
    rows = 400_000 if asked.quick else 2_000_000
    with (
        tempfile.TemporaryDirectory(prefix="sparkdl-bench-") as folder,
        multiprocessing.get_context("spawn").Pool(2) as pool,
    ):
        write_table(Path(folder), rows)
        systems = made(folder, rows, pool)
        chosen = {name: systems[name] for name in asked.only or SYSTEMS}
        found = harness.interleaved(chosen, 2 if asked.quick else 5, f"mlp, {rows:,} rows x {FEATURES} floats, noop")
    harness.report("scoring", found, asked.json)


def made(folder: str, rows: int, pool) -> dict[str, harness.System]:
    from pyspark.ml.functions import predict_batch_udf
    from pyspark.sql.types import FloatType

    import sparkdl

    spark = harness.session()
    table = spark.read.parquet(folder)
    module = network()
    bundle = sparkdl.Bundle.from_module(
        module, sparkdl.Signature.from_dataframe(table, ["features"]), task="regression"
    )
    model = sparkdl.TorchModel(bundle)
    state = spark.sparkContext.broadcast(module.state_dict())

    def loaded() -> nn.Module:
        torch.set_num_threads(1)
        made = nn.Sequential(
            nn.Linear(FEATURES, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 1)
        ).eval()
        made.load_state_dict(state.value)
        return made

    def make_predict():
        ready = loaded()

        def predict(values: np.ndarray) -> np.ndarray:
            with torch.inference_mode():
                return ready(torch.from_numpy(values)).numpy()[:, 0]

        return predict

    by_predict_batch = predict_batch_udf(
        make_predict, return_type=FloatType(), batch_size=BATCH, input_tensor_shapes=[[FEATURES]]
    )

    def score_series(batches):
        ready = loaded()
        with torch.inference_mode():
            for series in batches:
                yield pd.Series(ready(torch.from_numpy(np.stack(series.to_numpy()))).numpy()[:, 0])

    score_series.__annotations__ = {
        "batches": __import__("typing").Iterator[pd.Series], "return": __import__("typing").Iterator[pd.Series]
    }  # fmt: skip
    by_pandas = sf.pandas_udf(score_series, "float")

    def score_batches(batches):
        ready = loaded()
        with torch.inference_mode():
            for batch in batches:
                values = batch.column("features").flatten().to_numpy().reshape(-1, FEATURES)
                scored = ready(torch.from_numpy(values.copy())).numpy()[:, 0]
                yield pa.RecordBatch.from_arrays(
                    [*batch.columns, pa.array(scored)], [*batch.schema.names, "prediction"]
                )

    schema = "id bigint, features array<float>, prediction float"
    paths = sorted(os.path.join(folder, name) for name in os.listdir(folder))
    return {
        "sparkdl.transform": lambda: timed(rows, lambda: to_nowhere(model.transform(table))),
        "predict_batch_udf": lambda: timed(
            rows, lambda: to_nowhere(table.withColumn("prediction", by_predict_batch("features")))
        ),
        "pandas_udf": lambda: timed(rows, lambda: to_nowhere(table.withColumn("prediction", by_pandas("features")))),
        "map_in_arrow": lambda: timed(rows, lambda: to_nowhere(table.mapInArrow(score_batches, schema))),
        "identity": lambda: timed(rows, lambda: to_nowhere(table)),
        "bare": lambda: timed(rows, lambda: pool.map(score_files, [paths[0::2], paths[1::2]], chunksize=1)),
    }


if __name__ == "__main__":
    main()
