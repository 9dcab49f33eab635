"""How long until the first row, and how often a large model is loaded.

``row``: of ``transform(table.limit(1))``, from a TorchModel that is made to the row in the driver, with the MLP of
scoring_works.py; in a session that is new, and in one that has scored with another model. ``first()``: of
``transform(table)``, after which Spark ends the worker, because it did not take all it had to give: each needs a new one.
``loads``: of a model of 400 MB, by the two workers
of a session, in two queries of 16 tasks; ``memory``: the largest resident set of a worker, which holds the files while it
loads them. Each sample is a process of its own.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import harness
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from pyspark.sql import DataFrame
from scoring_works import MLP, Column
from torch import nn

import sparkdl
from sparkdl.score.scoring import Scoring
from sparkdl.score.udf import scorer_of, scoring_udf
from sparkdl.signature import Signature, TensorSpec

SYSTEMS = ["sparkdl.transform"]
WARM, TASKS, ENTRIES, WIDTH = 3, 16, 1_000_000, 100
Files = dict[str, bytes]


def small() -> dict[str, float]:
    """The MLP, new to the workers each time."""
    bundles = [sparkdl.Bundle.from_module(shifted(i), MLP.signature) for i in range(1 + WARM)]
    with tempfile.TemporaryDirectory(prefix="sparkdl-bench-") as folder:
        pq.write_table(pa.table(MLP.data(10_000, np.random.default_rng(0))), f"{folder}/0.parquet")
        table = harness.session().read.parquet(folder)
        table.count()
        new, *warm = [seconds(lambda bundle=bundle: scored(bundle, table.limit(1)).collect()) for bundle in bundles]
        first = [seconds(scored(bundles[-1], table).first) for _ in range(WARM)]
    middle = statistics.median
    return {"row, new session s": new, "row, warm session s": middle(warm), "first(), warm session s": middle(first)}


def scored(bundle: sparkdl.Bundle, table: DataFrame) -> DataFrame:
    return sparkdl.TorchModel(bundle).transform(table)


def shifted(number: int) -> nn.Module:
    module = MLP.network()
    with torch.no_grad():
        module[0].bias += number
    return module


def large() -> dict[str, float]:
    """An embedding of 400 MB. Its loads are counted where a worker fetches the bundle's files."""
    spark = harness.session()
    table = spark.range(0, 10_000 * TASKS, 1, TASKS)
    module = nn.Sequential(nn.Embedding(ENTRIES, WIDTH), nn.Linear(WIDTH, 1), Column())
    bundle = sparkdl.Bundle.from_module(module, Signature((TensorSpec("id", "int64", (), ("id",), ("long",)),)))
    with tempfile.TemporaryDirectory(prefix="sparkdl-bench-") as folder, harness.Sizes() as sizes:
        scorer = scorer_of(spark, bundle, Scoring())
        score = scoring_udf(replace(scorer, fetch=Counted(scorer.fetch, folder)), "auto", ("prediction",), alone=True)
        query = table.select(score("id")).write.format("noop").mode("overwrite").save
        first, second = seconds(query), seconds(query)
        loads = sum(path.stat().st_size for path in Path(folder).iterdir())
    return {"loads 1": loads, "first query s": first, "second query s": second, "memory MiB": sizes.worker / 2**20}


@dataclass(frozen=True)
class Counted:
    """Fetches, and adds a byte to this process's file."""

    fetch: Callable[[], Files]
    folder: str

    def __call__(self) -> Files:
        with Path(self.folder, str(os.getpid())).open("ab") as file:
            file.write(b".")
        return self.fetch()


def seconds(work: Callable[[], object]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started


SAMPLES = {"a small model": small, "a model of 400 MB": large}


def main() -> None:
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)  # Spark's workers import this module's classes
    if "--sample" in sys.argv:
        print(json.dumps(SAMPLES[sys.argv[-1]]()))
        return
    asked = harness.arguments(__doc__, SYSTEMS)
    rows = []
    for name in SAMPLES:
        sample = {"sparkdl.transform": lambda name=name: harness.apart(name)}
        rows += harness.interleaved(sample, 1 if asked.quick else 5, name, warm_up=False)
    harness.report("scoring_startup", rows, asked.json)


if __name__ == "__main__":
    main()
