"""The systems of the scoring benchmark: sparkdl, and its peers as one writes them by hand today.

A system of FRAMES makes, of a table, a frame of ``id`` and ``prediction``. All run a network in two workers, on one thread
each, and load it once a worker; the peers run it eagerly, on batches of ``Work.batch`` rows in the order they come in.
"""

from __future__ import annotations

import atexit
import functools
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Tuple  # noqa: UP035  # Spark looks for this name

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from pyspark.sql import DataFrame
from pyspark.sql import functions as sf
from pyspark.sql.types import FloatType
from scoring_works import WORKS, Work
from torch import Tensor, nn

import sparkdl

COLUMNS = ["id", "prediction"]
SORTED_BATCHES = 16  # that bare reads at once, to put texts of like length together


@functools.cache
def model_of(work: Work) -> sparkdl.TorchModel:
    example = work.tensors(*(column.to_numpy(zero_copy_only=False) for column in sample(work).columns))
    return sparkdl.TorchModel(sparkdl.Bundle.from_module(work.network(), work.signature, example=example))


def sample(work: Work) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(work.data(8, np.random.default_rng(0)))


@functools.cache
def loaded(name: str) -> nn.Module:
    """The work's network, once a process."""
    torch.set_num_threads(1)
    return WORKS[name].network()


def forward(name: str, tensors: tuple[Tensor, ...]) -> np.ndarray:
    with torch.inference_mode():
        return loaded(name)(*tensors).numpy()


def in_batches(name: str, columns: list[np.ndarray]) -> np.ndarray:
    work = WORKS[name]
    starts = range(0, len(columns[0]), work.batch)
    parts = [forward(name, work.tensors(*(column[i : i + work.batch] for column in columns))) for i in starts]
    return np.concatenate(parts)


def transform(table: DataFrame, work: Work) -> DataFrame:
    return model_of(work).transform(table).select(*COLUMNS)


def by_predict_batch_udf(table: DataFrame, work: Work) -> DataFrame:
    from pyspark.ml.functions import predict_batch_udf

    name = work.name

    def make_predict() -> Callable[..., np.ndarray]:
        def of_one(column: np.ndarray) -> np.ndarray:
            return forward(name, WORKS[name].tensors(column))

        def of_two(first: np.ndarray, second: np.ndarray) -> np.ndarray:
            return forward(name, WORKS[name].tensors(first, second))

        return of_one if len(WORKS[name].fed) == 1 else of_two

    predict = predict_batch_udf(
        make_predict, return_type=FloatType(), batch_size=work.batch, input_tensor_shapes=work.shapes
    )
    return table.select("id", predict(*map(sf.expr, work.fed)).alias("prediction"))


def by_pandas_udf(table: DataFrame, work: Work) -> DataFrame:
    name = work.name

    def score(batches: Iterator[Tuple[pd.Series, ...]]) -> Iterator[pd.Series]:  # noqa: UP006
        for batch in batches:
            series = batch if isinstance(batch, tuple) else (batch,)
            yield pd.Series(in_batches(name, [column.to_numpy() for column in series]))

    return table.select("id", sf.pandas_udf(score, "float")(*work.columns).alias("prediction"))


def by_map_in_arrow(table: DataFrame, work: Work) -> DataFrame:
    name = work.name

    def score(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            scored = pieces(WORKS[name], batch, WORKS[name].batch)
            yield pa.RecordBatch.from_arrays([batch.column("id"), pa.array(scored)], COLUMNS)

    return table.mapInArrow(score, "id bigint, prediction float")


def by_mlflow(table: DataFrame, work: Work) -> DataFrame:
    import mlflow.pyfunc

    name = work.name
    logging.getLogger("mlflow").setLevel(logging.ERROR)  # it advises on environments

    class Model(mlflow.pyfunc.PythonModel):
        def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> np.ndarray:
            return in_batches(name, [model_input[column].to_numpy() for column in model_input.columns])

    folder = tempfile.mkdtemp(prefix="sparkdl-bench-")
    atexit.register(shutil.rmtree, folder)  # each task reads it
    mlflow.pyfunc.save_model(f"{folder}/model", python_model=Model(), pip_requirements=[])
    predict = mlflow.pyfunc.spark_udf(table.sparkSession, f"{folder}/model", result_type="float", env_manager="local")
    return table.select("id", predict(*work.columns).alias("prediction"))


def identity(table: DataFrame, work: Work) -> DataFrame:
    """Spark alone: reads all columns, and runs no Python."""
    return table.select("id", sf.expr(f"cast({work.touched} AS float) AS prediction"))


FRAMES: dict[str, Callable[[DataFrame, Work], DataFrame]] = {
    "sparkdl.transform": transform,
    "predict_batch_udf": by_predict_batch_udf,
    "pandas_udf": by_pandas_udf,
    "map_in_arrow": by_map_in_arrow,
    "mlflow": by_mlflow,
    "identity": identity,
}


def bare(name: str, paths: list[str], rows: int, sink: str | None) -> None:
    """One of two processes without Spark. rows: of a forward pass. sink: a directory for Parquet files, or nowhere."""
    work = WORKS[name]
    read = rows * SORTED_BATCHES if work.lengths else rows
    columns = ["id", *work.columns]
    for path in paths:
        scored = (
            pa.RecordBatch.from_arrays([batch.column("id"), pa.array(by_length(work, batch, rows))], COLUMNS)
            for batch in pq.ParquetFile(path).iter_batches(read, columns=columns, use_threads=False)
        )
        if sink is None:
            for _ in scored:
                pass
            continue
        with pq.ParquetWriter(Path(sink, Path(path).name), pa.schema([("id", "int64"), ("prediction", "float")])) as to:
            for batch in scored:
                to.write_batch(batch)


def by_length(work: Work, batch: pa.RecordBatch, rows: int) -> np.ndarray:
    if not work.lengths:
        return pieces(work, batch, rows)
    order = np.argsort(pc.list_value_length(batch.column(work.columns[0])).to_numpy(), kind="stable")
    scored = np.empty(len(order), np.float32)
    scored[order] = pieces(work, batch.take(pa.array(order)), rows)
    return scored


def pieces(work: Work, batch: pa.RecordBatch, rows: int) -> np.ndarray:
    starts = range(0, batch.num_rows, rows)
    return np.concatenate([forward(work.name, work.from_arrow(batch.slice(i, rows))) for i in starts])
