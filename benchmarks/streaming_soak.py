"""Whether memory stays flat while a stream is scored for hours: resident sets of the driver's Python, its JVM and the workers.

    python benchmarks/streaming_soak.py [--minutes 60] [--rate 5000] [--json PATH]

Rows of 50 floats arrive at ``--rate`` a second and go through the MLP of the scoring benchmark into a Parquet table, one in a thousand
into the dead letters; the model's alias moves every 30 seconds among four versions; files that are done with are removed, so
that the folder's listing does not grow. Every second the processes are looked at. The figures: MB at the start (median of the
minute after the first), at the end (of the last minute), and how many MB an hour a line through all but the first minute
rises. The JVM's heap is as large as it is allowed to be; what counts is that it does not go on growing.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import harness
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import streaming_systems as systems
from scoring_works import MLP

import sparkdl

FILES_A_SECOND, VERSIONS, MOVE_EVERY_S, KEPT_FILES = 2, 4, 30.0, 600
POISON_EVERY = 1_000
Sizes = dict[str, list[tuple[float, float]]]  # of a kind of process: seconds since the start, MB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--rate", type=int, default=5_000, help="rows a second")
    parser.add_argument("--json", type=Path, help="where the results are written")
    asked = parser.parse_args()
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    spark = harness.session(**{"spark.driver.memory": "1g"})
    with tempfile.TemporaryDirectory(prefix="sparkdl-soak-") as folder:
        place = Path(folder)
        sizes, status, fed = soaked(spark, place, asked.minutes * 60, asked.rate)
    work = f"{asked.minutes:g} minutes, {asked.rate:,} rows/s"
    rows = [row for kind, points in sizes.items() for row in figures(work, kind, points)]
    rows += [
        harness.row(work, "rows", "fed rows", [float(fed)]),
        harness.row(work, "rows", "scored rows", [float(status.scored)]),
        harness.row(work, "rows", "dead rows", [float(sum(status.dead.values()))]),
        harness.row(work, "batch", "p99 ms", [float(status.p99)]),
    ]
    harness.report("streaming_soak", rows, asked.json)
    if status.rows != fed or status.scored + sum(status.dead.values()) != fed:
        raise SystemExit(f"{fed} rows arrived, {status.rows} were read, {status.scored} scored, {status.dead} are dead")


def soaked(spark: Any, place: Path, seconds: float, rate: int) -> tuple[Sizes, Any, int]:
    """Sizes, the query's status at the end, rows that arrived."""
    (place / "arriving").mkdir()
    registry = sparkdl.Registry(str(place / "registry"))
    for seed in range(VERSIONS):
        registry.publish("mlp", systems.version(seed))
    registry.set_alias("mlp", "champion", 1)
    events = spark.readStream.schema("id bigint, features array<float>").parquet(str(place / "arriving"))
    told = {"model": "registry://mlp@champion", "registry": registry}
    query = systems.scored(events, place, {"processingTime": "1 second"}, **told)
    sizes: Sizes = {}
    started, pace = time.monotonic(), threading.Event()
    files, moves = 0, 0
    a_file = table(rate // FILES_A_SECOND)
    while (passed := time.monotonic() - started) < seconds and query.isActive:
        if passed * FILES_A_SECOND >= files:
            arrive(place, a_file, files)
            files += 1
        if passed > (moves + 1) * MOVE_EVERY_S:
            moves += 1
            registry.set_alias("mlp", "champion", 1 + moves % VERSIONS)
        if passed >= len(next(iter(sizes.values()), ())):
            for kind, size in measured().items():
                sizes.setdefault(kind, []).append((passed, size / 2**20))
            told_of(passed, sizes, files * len(a_file))
        pace.wait(0.05)
    query.processAllAvailable()
    status = query.status()
    query.stop()
    return sizes, status, files * len(a_file)


def table(rows: int) -> pa.Table:
    columns = MLP.data(rows, np.random.default_rng(0))
    features = columns["features"].to_pylist()
    for i in range(POISON_EVERY // 2, rows, POISON_EVERY):
        features[i] = None
    return pa.table({"id": np.arange(rows), "features": pa.array(features, pa.list_(pa.float32()))})


def arrive(place: Path, table: pa.Table, number: int) -> None:
    """A file, in one step; one that is long done with goes, and its rows' in the table too."""
    staged = place / "staged.parquet"
    pq.write_table(table, staged)
    staged.rename(place / "arriving" / f"{number:08d}.parquet")
    (place / "arriving" / f"{number - KEPT_FILES:08d}.parquet").unlink(missing_ok=True)


def measured() -> dict[str, int]:
    """Resident bytes: of this process, of the JVM, and of all workers together (shared pages counted in each)."""
    me = psutil.Process()
    found = {"driver's Python": me.memory_info().rss, "JVM": 0, "workers": 0}
    for process in me.children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has ended meanwhile
            found["JVM" if process.name() == "java" else "workers"] += process.memory_info().rss
    return found


def told_of(passed: float, sizes: Sizes, rows: int) -> None:
    if int(passed) % 60 == 0:
        line = {"s": round(passed), "rows": rows, **{kind: round(points[-1][1]) for kind, points in sizes.items()}}
        print(json.dumps(line), file=sys.stderr, flush=True)


def figures(work: str, kind: str, points: list[tuple[float, float]]) -> list[dict[str, Any]]:
    steady = [point for point in points if point[0] > 60] or points
    at, size = np.array(steady).T
    start = [size for passed, size in steady if passed < steady[0][0] + 60]
    end = [size for passed, size in steady if passed > steady[-1][0] - 60]
    slope = float(np.polyfit(at / 3600, size, 1)[0]) if len(steady) > 1 else 0.0
    return [
        harness.row(work, kind, "at the start MB", start),
        harness.row(work, kind, "at the end MB", end),
        harness.row(work, kind, "growth of the median MB", [statistics.median(end) - statistics.median(start)]),
        harness.row(work, kind, "slope MB/h", [slope]),
    ]


if __name__ == "__main__":
    main()
