"""What all benchmarks share: their command line, interleaved runs, and the form of their results.

A system is a function that does the work once and returns figures by name. Systems run in turn, round by round, so that
a machine whose speed drifts treats them alike.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
from tabulate import tabulate

Figures = Mapping[str, float]
System = Callable[[], Figures | None]
PACKAGES = ("pyspark", "torch", "horovod", "pyarrow", "pandas", "numpy")


def arguments(subject: str, systems: list[str], works: Sequence[str] = ()) -> argparse.Namespace:
    """works: what ``--work`` chooses from, in a benchmark of several."""
    parser = argparse.ArgumentParser(description=subject)
    parser.add_argument("--quick", action="store_true", help="a minute or two: smaller work, fewer rounds")
    parser.add_argument("--json", type=Path, help="where to write the results")
    parser.add_argument("--only", nargs="+", choices=systems, metavar="SYSTEM", help=f"of {systems}")
    if works:
        parser.add_argument("--work", nargs="+", choices=works, metavar="WORK", help=f"of {list(works)}")
        parser.add_argument("--rows", type=int, help="of every work, instead of its own")
    return parser.parse_args()


def interleaved(
    systems: Mapping[str, System],
    rounds: int,
    work: str,
    *,
    ratios: Sequence[tuple[str, str, str]] = (),
    warm_up: bool = True,
) -> list[dict[str, Any]]:
    """Run every system once a round, after a round that does not count.

    A system that gives None, having said why, is left out from then on.
    ratios: (system, peer, metric) whose ratio, of the figures of the same round, is a row too.
    """
    found: dict[tuple[str, str], list[float]] = {}
    systems = dict(systems)
    for i in range(-1 if warm_up else 0, rounds):
        for name, system in list(systems.items()):
            figures = system()
            if figures is None:
                del systems[name]
                continue
            told = ", ".join(f"{metric} {value:,.2f}" for metric, value in figures.items())
            print(f"{'warm-up' if i < 0 else f'round {i + 1}/{rounds}'}  {name}: {told}", file=sys.stderr, flush=True)
            for metric, value in figures.items():
                if i >= 0:
                    found.setdefault((name, metric), []).append(value)
    rows = [row(work, name, metric, values) for (name, metric), values in found.items()]
    for system, peer, metric in ratios:
        if (system, metric) in found and (peer, metric) in found:
            pairs = zip(found[system, metric], found[peer, metric], strict=True)
            values = [mine / theirs for mine, theirs in pairs]
            rows.append(row(work, f"{system} / {peer}", f"{metric.rpartition(' ')[0]} ratio", values))
    return rows


def row(work: str, system: str, metric: str, values: list[float]) -> dict[str, Any]:
    name, _, unit = metric.rpartition(" ")
    figures = {"n": len(values), "median": statistics.median(values), "min": min(values), "max": max(values)}
    return {"work": work, "system": system, "metric": name, "unit": unit, **figures}


def report(benchmark: str, rows: list[dict[str, Any]], path: Path | None) -> None:
    """Print a table, and write the JSON if asked to."""
    result = {
        "benchmark": benchmark,
        "date": datetime.date.today().isoformat(),
        "hardware": hardware(),
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in PACKAGES},
        "rows": rows,
    }
    print(f"\n{benchmark}, {result['date']}: {result['hardware']}")
    headers = ["work", "system", "metric", "n", "median", "min", "max"]
    table = [[*(line[key] for key in headers[:2]), f"{line['metric']} ({line['unit']})", line["n"],
              *(f"{line[key]:,.2f}" for key in ("median", "min", "max"))] for line in rows]  # fmt: skip
    print(
        tabulate(
            table, headers, tablefmt="github", disable_numparse=True, colalign=("left", "left", "left", *["right"] * 4)
        )
    )
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=1) + "\n")


def merged(rows: list[dict[str, Any]], path: Path | None) -> list[dict[str, Any]]:
    """``rows``, after what the file holds of other works, systems and metrics."""
    if path is None or not path.exists():
        return rows
    names = {(row["work"], row["system"], row["metric"]) for row in rows}
    before = json.loads(path.read_text())["rows"]
    return [row for row in before if (row["work"], row["system"], row["metric"]) not in names] + rows


def hardware() -> str:
    models = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    memory = psutil.virtual_memory().total / 2**30
    return f"{os.cpu_count()} x {models[0] if models else platform.machine()}, {memory:.0f} GiB"


def apart(sample: str) -> dict[str, float]:
    """The figures that this very script prints, in a process of its own, for ``--sample SAMPLE``."""
    done = subprocess.run(
        [sys.executable, sys.argv[0], "--sample", sample], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return json.loads(done.stdout.splitlines()[-1])


class Sizes(threading.Thread):
    """The largest resident sets, in bytes, of Spark's processes while the block runs: of a Python worker, and of the JVM."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.worker = self.jvm = 0
        self._ended = threading.Event()

    def __enter__(self) -> Sizes:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()

    def run(self) -> None:
        while not self._ended.wait(0.05):
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):  # it has ended meanwhile
                    size = process.memory_info().rss
                    if process.name() == "java":
                        self.jvm = max(self.jvm, size)
                    else:
                        self.worker = max(self.worker, size)


def session(slots: int = 2, **conf: str) -> Any:
    """The Spark session, made now if there is none."""
    os.environ["PYSPARK_PYTHON"] = sys.executable
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master(f"local[{slots}]").appName("benchmark")
    for key, value in {
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.driver.memory": "4g",
        "spark.log.level": "ERROR",
        **conf,
    }.items():
        builder = builder.config(key, value)
    return builder.getOrCreate()
