"""Rows a second from a Parquet table through a network, to nowhere and to Parquet: sparkdl beside its peers.

The works are scoring_works.py's, the systems scoring_systems.py's. Every system reads the same table and gives ``id`` and
``prediction``, with two workers and one torch thread each, in a session that is warm; the first Parquet table that each
writes is compared with plain torch. ``identity`` is Spark reading and writing without a network. ``bare`` is two processes
with pyarrow and torch and no Spark, with the batch that is fastest for it, texts of like length put together: the physical
limit, as far as a loop of a page's length reaches it.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness
import numpy as np
import pyarrow.parquet as pq
import scoring_systems
import torch
from scoring_systems import FRAMES, bare, model_of
from scoring_works import WORKS, Work

import sparkdl

SYSTEMS = ["sparkdl.transform", "sparkdl.score_table", *list(FRAMES)[1:], "bare"]
SINKS = ["Parquet", "noop"]
RATIOS = [
    (system, peer, "throughput rows/s")
    for system, peer in (
        ("sparkdl.transform", "bare"),
        ("sparkdl.transform", "predict_batch_udf"),
        ("sparkdl.score_table", "bare"),
    )
]
SAMPLE = 200  # rows compared with plain torch

Score = Callable[[str], None]  # writes Parquet to a path; to nowhere if there is none


def main() -> None:
    asked = harness.arguments(__doc__, SYSTEMS, list(WORKS))
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)  # Spark's workers import the systems' module
    rows: list[dict[str, Any]] = []
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        for name in asked.work or WORKS:
            work = WORKS[name]
            number = asked.rows or work.rows[1 if asked.quick else 0]
            sinks, rounds = (SINKS[:1], 2) if asked.quick else (SINKS, 5)
            rows += measured(work, number, asked.only or SYSTEMS, sinks, rounds, pool)
    harness.report("scoring", rows, asked.json)


def measured(
    work: Work, rows: int, systems: list[str], sinks: list[str], rounds: int, pool: Any
) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="sparkdl-bench-") as folder:
        source = Path(folder, "table")
        source.mkdir()
        work.write(source, rows)
        scores = {name: made(name, work, source, pool) for name in systems}
        found = []
        for sink in sinks:
            runs = {
                name: functools.partial(timed, name, score, sink, work, source, rows) for name, score in scores.items()
            }
            found += harness.interleaved(runs, rounds, f"{work.name}, {rows:,} rows, to {sink}", ratios=RATIOS)
        return found


def made(system: str, work: Work, source: Path, pool: Any) -> Score:
    if system == "bare":
        return made_bare(work, source, pool)
    if system == "sparkdl.score_table":
        return lambda path: sparkdl.score_table(
            str(source), model_of(work), path or None, columns=["id"], verbose=False
        )
    frame = FRAMES[system](harness.session().read.parquet(str(source)), work)

    def score(path: str) -> None:
        if path:
            frame.write.parquet(path)
        else:
            frame.write.format("noop").mode("overwrite").save()

    return score


def made_bare(work: Work, source: Path, pool: Any) -> Score:
    paths = sorted(map(str, source.iterdir()))

    def run(rows: int, paths: list[str], path: str) -> float:
        started = time.monotonic()
        if path:
            os.mkdir(path)
        pool.starmap(bare, [(work.name, paths[i::2], rows, path or None) for i in (0, 1)], chunksize=1)
        return time.monotonic() - started

    run(work.batch, paths[:2], "")
    seconds = {rows: min(run(rows, paths[:2], "") for _ in range(2)) for rows in work.tuned}
    best = min(seconds, key=seconds.__getitem__)
    print(f"bare, {work.name}: batches of {best}", file=sys.stderr)
    return lambda path: run(best, paths, path) and None


def timed(system: str, score: Score, sink: str, work: Work, source: Path, rows: int) -> dict[str, float]:
    path = str(source.with_name(system)) if sink == "Parquet" else ""
    started = time.monotonic()
    score(path)
    seconds = time.monotonic() - started
    if path:
        checked(system, path, work, source, rows)
        shutil.rmtree(path)
    return {"throughput rows/s": rows / seconds}


def checked(system: str, path: str, work: Work, source: Path, rows: int) -> None:
    """Raise AssertionError unless every row was scored once, and the first as plain torch does."""
    scored = pq.read_table(path, columns=scoring_systems.COLUMNS).sort_by("id")
    np.testing.assert_array_equal(scored["id"].to_numpy(), np.arange(rows), err_msg=system)
    if system != "identity":
        expected = plain_torch(work, source)
        found = scored["prediction"].to_numpy()[: len(expected)]
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4, err_msg=system)


@functools.cache
def plain_torch(work: Work, source: Path) -> np.ndarray:
    """The first rows' predictions, each row alone in its batch."""
    batch = next(pq.ParquetFile(source / "0.parquet").iter_batches(SAMPLE))
    module = work.network()
    with torch.inference_mode():
        return np.concatenate([module(*work.from_arrow(batch.slice(i, 1))).numpy() for i in range(batch.num_rows)])


if __name__ == "__main__":
    main()
