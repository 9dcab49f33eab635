"""What a fit costs as it grows: 1, 2 and 4 ranks, and tables up to a hundred times as large.

Each sample is a process of its own, with a Spark session of its own of four task slots, whatever the machine's cores: on
two cores four ranks share them, and that is no speed-up but a test that nothing worse happens. ``memory``: the largest
resident set that any rank has had. Of the tables, the largest is beyond the memory budget, and so read anew each epoch;
they are trained on for one epoch, in which all are read. A plot is written beside the JSON.
"""

from __future__ import annotations

import functools
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness
import works
from works import CONVNET, MLP, Work

import sparkdl
from sparkdl.train.callbacks import Run

RANKS, SLOTS, FILES = (1, 2, 4), 4, 100
SYSTEMS = ["sparkdl"]


@dataclass(frozen=True)
class Sample:
    """``files`` of the files in ``folder``, which have ``rows`` rows in all."""

    work: str
    folder: str
    files: int
    rows: int
    ranks: int
    epochs: int
    memory_budget: str

    def run(self) -> dict[str, float]:
        """In a process of its own."""
        return harness.apart(json.dumps(vars(self)))

    def fit(self) -> dict[str, float]:
        work = {"mlp": MLP, "convnet": CONVNET}[self.work]
        table = harness.session(SLOTS).read.parquet(*(str(path) for path in files_of(self.folder)[: self.files]))
        table.count()
        with tempfile.TemporaryDirectory() as told:
            estimator = sparkdl.TorchEstimator(
                model=work.network, task=work.task, shapes={"features": works.IMAGE} if work is CONVNET else {},
                batchSize=work.batch, epochs=self.epochs, numProc=self.ranks, memoryBudget=self.memory_budget,
                callbacks=[LargestSize(told)], verbose=False,
            )  # fmt: skip
            started = time.monotonic()
            model = estimator.fit(table)
            whole = time.monotonic() - started
            sizes = [int(path.read_text()) for path in Path(told).iterdir()]
        assert len(sizes) == self.ranks
        seconds = [entry["seconds"] for entry in model.history]
        return {
            "throughput rows/s": self.rows / statistics.median(seconds[1:] or seconds),
            "fit s": whole,
            "materialise s": model.summary.phases["materialise"],
            "memory MiB": max(sizes) / 1024,
        }


class LargestSize(sparkdl.Callback):
    """Each rank leaves its largest resident set, in KiB, in a file."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def on_fit_end(self, run: Run) -> None:
        size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        Path(self.folder, str(run.world.rank)).write_text(str(size))


def files_of(folder: str) -> list[Path]:
    return sorted(Path(folder).glob("*.parquet"))


def by_ranks(work: Work, ranks: list[int], rounds: int) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="sparkdl-bench-") as folder:
        work.write(folder, SLOTS)
        samples = {number: Sample(work.name, folder, SLOTS, work.rows, number, 3, "1g").run for number in ranks}
        found = harness.interleaved(named(samples), rounds, f"{work.name}, {work.rows:,} rows, 3 epochs", warm_up=False)
    return renamed(found, "{work}, ranks: {system}")


def by_rows(most: int, rounds: int) -> list[dict[str, Any]]:
    """Tables of a hundredth, a tenth, and all of ``most`` rows."""
    budget = f"{max(1, most * works.ROW_BYTES // 8 >> 20)}m"  # a rank's half is four times as much
    with tempfile.TemporaryDirectory(prefix="sparkdl-bench-") as folder:
        MLP.of(most).write(folder, FILES)
        samples = {
            most * files // FILES: Sample("mlp", folder, files, most * files // FILES, 2, 1, budget).run
            for files in (1, 10, 100)
        }
        found = harness.interleaved(named(samples), rounds, f"1 epoch, 2 ranks, budget {budget}", warm_up=False)
    return renamed(found, "mlp, {system} rows, {work}")


def named(samples: dict[int, Any]) -> dict[str, harness.System]:
    return {f"{number:,}": sample for number, sample in samples.items()}


def renamed(rows: list[dict[str, Any]], work: str) -> list[dict[str, Any]]:
    """Samples that ran in turn are works of one system."""
    return [{**row, "work": work.format(**row), "system": "sparkdl"} for row in rows]


def plot(ranks: list[dict[str, Any]], rows: list[dict[str, Any]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    speed, time_taken, memory = figure.subplots(1, 3)
    for name in dict.fromkeys(row["work"].partition(",")[0] for row in ranks):
        of = [row for row in ranks if row["work"].startswith(name) and row["metric"] == "throughput"]
        numbers = [int(row["work"].rpartition(": ")[2]) for row in of]
        line(speed, numbers, of, name, relative=True)
    speed.set(xlabel="ranks", ylabel="rows/s, against 1 rank", xticks=list(RANKS), title=f"{os.cpu_count()} cores")
    counts = {name: [row for row in rows if row["metric"] == name] for name in ("fit", "materialise", "memory")}
    sizes = [int(row["work"].split(", ")[1].split()[0].replace(",", "")) for row in counts["fit"]]
    for metric in ("fit", "materialise"):
        line(time_taken, sizes, counts[metric], metric)
    time_taken.set(xlabel="rows x 50 floats, 1 epoch, 2 ranks", ylabel="seconds", xscale="log", yscale="log")
    line(memory, sizes, counts["memory"], "a rank")
    memory.set(xlabel="rows x 50 floats", ylabel="largest resident set (MiB)", xscale="log")
    memory.set_ylim(bottom=0)
    for axis in (speed, time_taken, memory):
        axis.legend()
        axis.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def line(axis: Any, x: list[int], rows: list[dict[str, Any]], label: str, *, relative: bool = False) -> None:
    """Medians, with bars from the smallest to the largest."""
    unit = rows[0]["median"] if relative else 1.0
    middle = [row["median"] / unit for row in rows]
    low = [(row["median"] - row["min"]) / unit for row in rows]
    high = [(row["max"] - row["median"]) / unit for row in rows]
    axis.errorbar(x, middle, [low, high], marker=".", capsize=3, label=label)


def main() -> None:
    if "--sample" in sys.argv:
        print(json.dumps(Sample(**json.loads(sys.argv[-1])).fit()))
        return
    asked = harness.arguments(__doc__, SYSTEMS)
    quick = asked.quick
    numbers = [number for number in RANKS if number < 4 or not quick]
    measure = functools.partial(by_ranks, ranks=numbers, rounds=1 if quick else 3)
    ranks = measure(MLP.of(100_000)) if quick else measure(MLP) + measure(CONVNET.of(8_000))
    rows = by_rows(10**6 if quick else 10**7, 1 if quick else 2)
    harness.report("scaling", ranks + rows, asked.json)
    if asked.json:
        plot(ranks, rows, asked.json.with_suffix(".png"))


if __name__ == "__main__":
    main()
