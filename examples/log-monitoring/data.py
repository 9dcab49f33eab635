"""What services tell of themselves minute by minute, and faults in it: generated, seeded, for no package carries such logs.

Each host has a load with a season of three hours and a slow drift; requests, the latency, the processor's use and the lines of
level ERROR in its log follow the load, with noise. A row is a window of 32 minutes of the four. Faults of the held-out table: a
spike of the latency (4 to 8 minutes), requests that fall to a level below (the second half), a sensor of the processor that is
frozen (24 minutes), a burst of errors (5 to 10 minutes). In the training table 1 window in 100 has one too, and nobody says which.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sparkdl.preprocess.windowing import FOREVER, Grid, State, advance

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pyspark.sql import SparkSession

FIGURE = "auroc"
LABEL = "fault"
SETTINGS: dict[str, dict[str, Any]] = {}
BARS = {"smallest": 0.9, "small": 0.95}
WINDOWS = {"smallest": (40, 20), "small": (200, 60)}  # of a host, to train on and held out
HOSTS, LENGTH, FILES = 12, 32, 4
METRICS = ("requests", "latency", "cpu", "errors")
FAULTS = ("spike", "fall", "frozen", "burst")
MINUTE = 60_000_000  # µs
START = 1_767_225_600_000_000 // (LENGTH * MINUTE) * LENGTH * MINUTE  # at the turn of 2026, where a window begins
SEASON = 180  # minutes


def write(folder: Path, size: str) -> None:
    """``train``, whose windows overlap, and ``test``, of the time after it."""
    train, test = WINDOWS[size]
    for name, first, count, step, share in (("train", 0, train, 8, 0.01), ("test", train, test, LENGTH, 0.2)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(FILES):
            hosts = range(number, HOSTS, FILES)
            tables = [windows(host, first, count, step, share) for host in hosts]
            pq.write_table(pa.concat_tables(tables), folder / name / f"part-{number}.parquet")


def windows(host: int, first: int, count: int, step: int, share: float) -> pa.Table:
    """Of one host; as ``sparkdl.windows`` makes them of its events. ``fault``: 1 where one of FAULTS, ``kind``, is within."""
    values, kinds = minutes(host, first, count, share)
    times = START + (first * LENGTH + np.arange(len(values))) * MINUTE
    _, found = advance(Grid(MINUTE, LENGTH, step), State.empty(len(METRICS)), times, values, FOREVER)
    last = (found.ends - times[0]) // MINUTE
    kind = [max(kinds[end - LENGTH : end].tolist()) for end in last]
    nested = pa.array(found.series.tolist(), pa.list_(pa.list_(pa.float32())))
    return pa.table(
        {
            "host": pa.array([f"host-{host:02d}"] * len(kind)),
            "window_end": pa.array(found.ends, pa.timestamp("us", "UTC")),
            "series": nested,
            "kind": pa.array([FAULTS[one - 1] if one else "none" for one in kind]),
            "fault": pa.array([int(one > 0) for one in kind], pa.int32()),
        }
    )


def minutes(host: int, first: int, count: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """METRICS of so many windows' minutes, ``(minutes, 4)``, and which of FAULTS, from 1, each is part of, 0 for none."""
    rng = np.random.default_rng([17, host, first])
    time = first * LENGTH + np.arange(count * LENGTH)
    drift = np.convolve(rng.normal(0, 0.05, len(time) + 40), np.ones(41) / 6.4, "valid")
    load = 1 + 0.5 * np.sin(2 * np.pi * (time / SEASON + host / HOSTS)) + drift
    requests = 100 * load + rng.normal(0, 4, len(time))
    latency = 20 + 8 * load**2 + rng.normal(0, 1, len(time))
    cpu = 0.15 + 0.3 * load + rng.normal(0, 0.01, len(time))
    values = np.stack([requests, latency, cpu, rng.poisson(1 + load)], axis=1)
    kinds: np.ndarray = np.zeros(len(time), np.int64)
    for window in np.flatnonzero(rng.random(count) < share).tolist():
        kind = 1 + int(rng.integers(len(FAULTS)))
        rows = _rows(kind, window * LENGTH, rng)
        kinds[rows] = kind
        _break(values[rows], kind, rng)
    return values, kinds


def _rows(kind: int, start: int, rng: np.random.Generator) -> slice:
    if FAULTS[kind - 1] == "fall":
        return slice(start + LENGTH // 2, start + LENGTH)
    least, most = {"spike": (4, 8), "frozen": (24, 24), "burst": (5, 10)}[FAULTS[kind - 1]]
    length = int(rng.integers(least, most + 1))
    begin = start + int(rng.integers(0, LENGTH - length + 1))
    return slice(begin, begin + length)


def _break(values: np.ndarray, kind: int, rng: np.random.Generator) -> None:
    """The minutes of a fault, in place."""
    if kind == 1:
        values[:, 1] *= rng.uniform(1.6, 3)
    elif kind == 2:
        values[:, 0] *= rng.uniform(0.3, 0.7)
    elif kind == 3:
        values[:, 2] = values[0, 2]
    else:
        values[:, 3] += rng.poisson(8, len(values))


def picture(spark: SparkSession, folder: Path) -> Figure:
    """One host's held-out hours, its faults shaded; below them the score of each window, and the threshold."""
    from matplotlib.figure import Figure

    from sparkdl import Bundle

    threshold = Bundle.load(str(folder / "bundle")).signature.decoder.threshold
    rows = spark.read.parquet(str(folder / "scored")).where("host = 'host-03'").orderBy("window_end").toPandas()
    series = np.concatenate([np.array([list(step) for step in one]) for one in rows["series"]])
    hours = np.arange(len(series)) / 60
    figure = Figure(figsize=(11, 6), layout="constrained")
    axes = figure.subplots(5, 1, sharex=True)
    for axis, name, values in zip(axes, METRICS, series.T, strict=False):
        axis.plot(hours, values, linewidth=0.6, color="#0072b2")
        axis.set_ylabel(name)
    begins = np.arange(len(rows)) * LENGTH / 60
    axes[4].stairs(rows["score"], np.append(begins, begins[-1] + LENGTH / 60), baseline=None, color="black")
    axes[4].axhline(threshold, color="#d55e00", linestyle="--", linewidth=0.9, label="threshold")
    axes[4].set_yscale("symlog")  # of well-known windows it is below 0
    axes[4].set_ylabel("score")
    axes[4].set_xlabel("hours")
    axes[4].legend(loc="upper right")
    for begin, kind in zip(begins, rows["kind"], strict=True):
        if kind != "none":
            for axis in axes:
                axis.axvspan(begin, begin + LENGTH / 60, color="#e69f00", alpha=0.35, linewidth=0)
            axes[0].text(begin, 1.02, kind, transform=axes[0].get_xaxis_transform(), fontsize=8)
    return figure
