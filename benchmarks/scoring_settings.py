"""What of ``transform`` is Spark's and what is ours, and what its settings change: the MLP, from Parquet to nowhere.

``identity`` is Spark reading the columns; ``zeros`` an Arrow UDF that looks at nothing: what it costs more is rows becoming
Arrow, the socket, and the way back. ``transform`` beyond that is reading the column and computing. Threads are of torch in
each of two workers on two cores, in a mapInArrow by hand: sparkdl gives a worker as many as its task has cores.
"""

from __future__ import annotations

import functools
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import harness
import numpy as np
import pyarrow as pa
import torch
from pyspark.sql import DataFrame
from scoring_systems import COLUMNS, identity, model_of, pieces
from scoring_works import MLP, WORKS

BATCH_SIZES, RECORDS, THREADS = (256, 1024, 4096, 16_384), (1_000, 100_000), (1, 2)
MOST_RECORDS = "spark.sql.execution.arrow.maxRecordsPerBatch"
SYSTEMS = [
    "identity", "zeros", "sparkdl.transform", *(f"sparkdl.transform, batchSize {size}" for size in BATCH_SIZES),
    "sparkdl.transform, udfType pandas", *(f"sparkdl.transform, {rows:,} rows an Arrow batch" for rows in RECORDS),
    *(f"map_in_arrow, {threads} threads" for threads in THREADS),
]  # fmt: skip


def zeros(table: DataFrame) -> DataFrame:
    from pyspark.sql.functions import arrow_udf

    def nothing(batches: Iterator[pa.Array]) -> Iterator[pa.Array]:
        for batch in batches:
            yield pa.array(np.zeros(len(batch), np.float32))

    nothing.__annotations__ = {"batches": Iterator[pa.Array], "return": Iterator[pa.Array]}
    return table.select("id", arrow_udf(nothing, "float")(*MLP.columns))


def with_threads(table: DataFrame, threads: int) -> DataFrame:
    name = MLP.name

    def score(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            torch.set_num_threads(threads)
            scored = pieces(WORKS[name], batch, WORKS[name].batch)
            yield pa.RecordBatch.from_arrays([batch.column("id"), pa.array(scored)], COLUMNS)

    return table.mapInArrow(score, "id bigint, prediction float")


def frames(table: DataFrame) -> dict[str, DataFrame]:
    def transformed(**params: object) -> DataFrame:
        return model_of(MLP).copy().setParams(**params).transform(table).select(*COLUMNS)

    by_batch_size = {f"sparkdl.transform, batchSize {size}": transformed(batchSize=size) for size in BATCH_SIZES}
    by_records = {f"sparkdl.transform, {rows:,} rows an Arrow batch": transformed() for rows in RECORDS}
    by_threads = {f"map_in_arrow, {threads} threads": with_threads(table, threads) for threads in THREADS}
    return {
        "identity": identity(table, MLP), "zeros": zeros(table), "sparkdl.transform": transformed(), **by_batch_size,
        "sparkdl.transform, udfType pandas": transformed(udfType="pandas"), **by_records, **by_threads,
    }  # fmt: skip


def timed(frame: DataFrame, records: int, rows: int) -> dict[str, float]:
    """The second of two runs: in the first the workers load the model, as others took its place. records: of an Arrow batch."""
    frame.sparkSession.conf.set(MOST_RECORDS, records)
    for _ in range(2):
        started = time.monotonic()
        frame.write.format("noop").mode("overwrite").save()
    return {"throughput rows/s": rows / (time.monotonic() - started)}


def main() -> None:
    asked = harness.arguments(__doc__, SYSTEMS)
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)  # Spark's workers import this module's functions
    rows = MLP.rows[1 if asked.quick else 0]
    records = {f"sparkdl.transform, {rows:,} rows an Arrow batch": rows for rows in RECORDS}
    with tempfile.TemporaryDirectory(prefix="sparkdl-bench-") as folder:
        MLP.write(Path(folder), rows)
        made = frames(harness.session().read.parquet(folder))
        runs = {
            name: functools.partial(timed, made[name], records.get(name, 10_000), rows)
            for name in asked.only or SYSTEMS
        }
        found = harness.interleaved(runs, 1 if asked.quick else 5, f"mlp, {rows:,} rows, to noop")
    harness.report("scoring_settings", found, asked.json)


if __name__ == "__main__":
    main()
