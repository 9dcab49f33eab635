"""What scoring costs as the table grows: 10^4 to 10^8 rows of 50 floats through the MLP, with one worker and with two.

Each sample is a process of its own, with a session of its own, which has scored the smallest table before the clock starts.
It reads Parquet and writes ``id`` and ``prediction`` as Parquet. ``memory``: the largest resident set of a Python worker.
The largest table has files of 10^6 rows (200 MB), of which ten are distinct and the others copies; it is a tenth as large if
the disk does not hold it. A plot is written beside the JSON.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness
from scaling import line
from scoring_systems import COLUMNS, model_of
from scoring_works import FEATURES, MLP

import sparkdl

SYSTEMS = ["sparkdl.score_table", "sparkdl.transform"]
SMALLEST, FILE_ROWS, FILES = 10_000, 1_000_000, 10
ROW_BYTES = 4 * FEATURES + 30  # of a table, and of what is written
BY_SPARK = 10_000_000  # rows of the largest table that goes through transform


@dataclass(frozen=True)
class Sample:
    system: str
    folder: str
    rows: int
    workers: int

    def run(self) -> dict[str, float]:
        """In a process of its own."""
        return harness.apart(json.dumps(vars(self)))

    def score(self) -> dict[str, float]:
        spark = harness.session(self.workers)
        model = model_of(MLP)

        def written(rows: int) -> None:
            source, sink = (str(Path(self.folder, f"{rows}{suffix}")) for suffix in ("", f"-{os.getpid()}"))
            if self.system == "sparkdl.score_table":
                sparkdl.score_table(source, model, sink, columns=["id"], verbose=False)
            else:
                model.transform(spark.read.parquet(source)).select(*COLUMNS).write.parquet(sink)
            shutil.rmtree(sink)

        written(SMALLEST)
        with harness.Sizes() as sizes:
            started = time.monotonic()
            written(self.rows)
            seconds = time.monotonic() - started
        return {"throughput rows/s": self.rows / seconds, "time s": seconds, "memory MiB": sizes.worker / 2**20}


def write(folder: Path, rows: int) -> None:
    """A table of ``rows``. Its files beyond the tenth are copies of the first ten."""
    table = folder / str(rows)
    table.mkdir()
    if rows <= FILES * FILE_ROWS:
        MLP.write(table, rows, FILES)
        return
    smaller = folder / str(FILES * FILE_ROWS)
    for i in range(rows // FILE_ROWS):
        copy = os.link if i < FILES else shutil.copyfile
        copy(smaller / f"{i % FILES}.parquet", table / f"{i:03}.parquet")


def sizes_up_to(most: int, folder: str) -> list[int]:
    free = shutil.disk_usage(folder).free
    powers = [SMALLEST * 10**i for i in range(len(str(most // SMALLEST)))]
    return [rows for rows in powers if rows * ROW_BYTES < 0.9 * free or rows == SMALLEST]


def measured(folder: str, sizes: list[int], systems: list[str], rounds: int) -> list[dict[str, Any]]:
    found = []
    for rows in sizes:
        write(Path(folder), rows)
        often = rounds if rows <= BY_SPARK else 1
        for workers in (1, 2):
            samples = {
                system: Sample(system, folder, rows, workers).run
                for system in systems
                if system == "sparkdl.score_table" or rows <= BY_SPARK
            }
            name = f"{rows:,} rows, {workers} worker{'s' * (workers > 1)}"
            found += harness.interleaved(samples, often, name, warm_up=False)
    return found


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    axes = dict(zip(("throughput", "time", "memory"), figure.subplots(1, 3), strict=True))
    for system in dict.fromkeys(row["system"] for row in rows):
        for workers in ("1 worker", "2 workers"):
            for metric, axis in axes.items():
                of = [r for r in rows if (r["system"], r["metric"]) == (system, metric) and r["work"].endswith(workers)]
                sizes = [int(row["work"].split()[0].replace(",", "")) for row in of]
                line(axis, sizes, of, f"{system.removeprefix('sparkdl.')}, {workers}")
    for metric, unit in (
        ("throughput", "rows/s"),
        ("time", "seconds"),
        ("memory", "a worker's largest resident set (MiB)"),
    ):
        axes[metric].set(xlabel="rows x 50 floats", ylabel=unit, xscale="log")
        axes[metric].grid(alpha=0.3)
    axes["time"].set_yscale("log")
    for metric in ("throughput", "memory"):
        axes[metric].set_ylim(bottom=0)
    axes["throughput"].legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> None:
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    if "--sample" in sys.argv:
        print(json.dumps(Sample(**json.loads(sys.argv[-1])).score()))
        return
    asked = harness.arguments(__doc__, SYSTEMS)
    with tempfile.TemporaryDirectory(prefix="sparkdl-bench-") as folder:
        sizes = sizes_up_to(1_000_000 if asked.quick else 100_000_000, folder)
        rows = measured(folder, sizes, asked.only or SYSTEMS, 1 if asked.quick else 3)
    harness.report("scoring_growth", rows, asked.json)
    if asked.json:
        plot(rows, asked.json.with_suffix(".png"))


if __name__ == "__main__":
    main()
