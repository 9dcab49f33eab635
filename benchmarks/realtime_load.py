"""The other side of a real-time query: a process that sends records and notes their answers (RealtimeLoad.java), and what its
notes come to."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np

SOURCE = Path(__file__).with_name("RealtimeLoad.java")
ARRIVAL = np.dtype([("number", "<i8"), ("due", "<i8"), ("arrived", "<i8"), ("topic", "<i4"), ("version", "<i4")])
SETTLED = 2.0  # a second is settled whose median latency is at most so many times the steady one's
PERCENTILES = {"p50": 50, "p99": 99, "p99.9": 99.9, "largest": 100}


class Load:
    """A running RealtimeLoad. rows: a file of JSON objects, one a line, without ``id``. jars: a folder with Kafka's client."""

    def __init__(self, servers: str, rows: Path, jars: Path) -> None:
        java = shutil.which("java", path=f"{os.environ.get('JAVA_HOME', '')}/bin:{os.environ['PATH']}") or "java"
        quiet = "-Dorg.slf4j.simpleLogger.defaultLogLevel=error"
        command = [java, "-Xmx1g", "-XX:+UseSerialGC", quiet, "-cp", f"{jars}/*", str(SOURCE), servers, str(rows)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def open(self, file: Path, *topics: str) -> None:
        """From now on note in ``file`` what arrives in these topics."""
        self._ask("open", file, *topics)

    def begin(self, topic: str, rate: float, count: int) -> None:
        """Start to send; ``sent`` waits for the end."""
        self._say("send", topic, rate, count)

    def sent(self) -> int:
        """The number of the first record, once all are with the broker."""
        return int(self._answer().split()[1])

    def send(self, topic: str, rate: float, count: int) -> int:
        """The number of the first record, once all are with the broker."""
        self.begin(topic, rate, count)
        return self.sent()

    def close(self) -> None:
        """Note no more."""
        self._ask("close")

    def end(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.wait()

    def _ask(self, *words: Any) -> None:
        self._say(*words)
        self._answer()

    def _say(self, *words: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(" ".join(map(str, words)) + "\n")
        self._process.stdin.flush()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("the load's process ended; see its messages above")
        return line


def arrivals(file: Path, start: int = 0) -> np.ndarray:
    """What was noted, of ARRIVAL, from the so-many-th arrival on."""
    whole = (file.stat().st_size // ARRIVAL.itemsize) - start
    return np.fromfile(file, ARRIVAL, whole, offset=start * ARRIVAL.itemsize) if whole > 0 else np.empty(0, ARRIVAL)


def await_all(file: Path, first: int, count: int, seconds: float) -> np.ndarray:
    """The arrivals of the records ``first`` and up, when all are there or the time is over."""
    until = time.monotonic() + seconds
    while True:
        found = arrivals(file)
        found = found[(found["number"] >= first) & (found["number"] < first + count)]
        if len(np.unique(found["number"])) == count or time.monotonic() > until:
            return found
        time.sleep(0.1)


def milliseconds(found: np.ndarray) -> np.ndarray:
    """From when each record was to be sent until its first answer; in the order they were sent."""
    _, places = np.unique(found["number"], return_index=True)  # of the first ones: the file is in order of arrival
    return (found["arrived"][places] - found["due"][places]) / 1e6


def percentiles(latencies: np.ndarray) -> dict[str, float]:
    return {f"{name} ms": float(np.percentile(latencies, share)) for name, share in PERCENTILES.items()}


def figures(found: np.ndarray, count: int, rate: float) -> dict[str, float]:
    """Of ``count`` records that were sent at ``rate`` a second: latencies of those that arrived, and how many did.

    ``answered`` is how many answers a second arrived, from the first record's due time on, while records were sent.
    """
    numbers = np.unique(found["number"])
    in_time = found["arrived"] - found["due"].min() <= 1e9 * count / rate if len(found) else np.empty(0, bool)
    return {
        **(percentiles(milliseconds(found)) if len(found) else {}),
        "answered records/s": len(np.unique(found["number"][in_time])) * rate / count,
        "lost records": float(count - len(numbers)),
        "doubled records": float(len(found) - len(numbers)),
    }


def medians(found: np.ndarray) -> np.ndarray:
    """The median latency, in ms, of the records that were to be sent in each second since the first; NaN where none arrived."""
    _, places = np.unique(found["number"], return_index=True)
    due = found["due"][places]
    second = (due - due.min()) // 1_000_000_000
    latencies = milliseconds(found)
    return np.array(
        [np.median(latencies[second == one]) if (second == one).any() else np.nan for one in range(second.max() + 1)]
    )


def seconds_to_settle(by_second: np.ndarray, steady: float) -> int:
    """How many seconds passed before the first whose median is at most SETTLED times ``steady``."""
    settled = np.flatnonzero(by_second <= SETTLED * steady)
    return int(settled[0]) if len(settled) else len(by_second)
