"""How long a record takes from its sender to the receiver of its score: Kafka, Spark, Kafka; the MLP 50-256-128-1, JSON in and out.

A process of its own (RealtimeLoad.java) sends records at an even rate and receives the answers; both moments are of its clock, and the
latency counts from when a record was to be sent. The broker, that process and Spark share the machine's cores. Each system of
realtime_systems.py runs in its turn, one query a round through all rates; ``Kafka alone`` sends to the topic that it receives.

Before a rate counts it runs for ``--warm-up`` seconds. ``p50`` … ``largest`` are of one round (n: rounds); ``lost`` must be 0; ``answered``
below the rate: the query did not keep up, and higher rates are left out. ``first answer``: from the query's start. ``fresh``: the
first query of a new session at 200 records/s, its second by second; ``to settle``: until a second's p50 was within twice the last ones'.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import harness
import numpy as np
import realtime_load as loads

KAFKA = "Kafka alone"
RATES = (100, 1_000, 5_000, 20_000)
SLOTS, PARTITIONS = 4, 1  # slots: a real-time query keeps one a partition
FRESH_RATE, FRESH_SECONDS = 200, 15
LOAD_ALONE = 2_000, 10_000
DRAIN_S = 30.0  # for what is still on its way when the load ends
KEPT_UP = 0.9
ROWS = 500  # different ones; their ids differ anyway
BROKER = ("-Xmx1g", "-Xms512m", "-XX:+UseG1GC")
Found = dict[tuple[str, str, str], list[float]]  # of a work, system, metric: values, by round


def main() -> None:
    asked = arguments()
    if asked.fresh:
        print(json.dumps(fresh(asked.fresh, asked)))
        return
    found: Found = {}
    if asked.rates:
        measure(found, asked)
    for system in asked.fresh_of:
        note(found, f"fresh session, {FRESH_RATE:,} records/s", system, apart(system, asked), "fresh")
    rows = [harness.row(work, system, metric, values) for (work, system, metric), values in found.items()]
    harness.report("realtime", harness.merged(rows + compared(found), asked.json), asked.json)


def arguments() -> argparse.Namespace:
    import realtime_systems as systems

    names = [KAFKA, *systems.SYSTEMS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="four minutes: 200 and 1,000 records/s, one round, no fresh sessions"
    )
    parser.add_argument("--json", type=Path, help="where the results are written, or added to")
    parser.add_argument("--only", nargs="+", choices=names, metavar="SYSTEM", help=f"of {names}")
    parser.add_argument("--rates", nargs="*", type=int, metavar="RATE", help="records a second; none: 'fresh' alone")
    parser.add_argument("--seconds", type=float, help="of a rate that count, in a round")
    parser.add_argument("--warm-up", type=float, default=3.0, help="seconds of a rate before them")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--partitions", type=int, default=PARTITIONS, help="of each topic")
    parser.add_argument("--slots", type=int, default=SLOTS, help="of Spark's local master")
    parser.add_argument("--conf", nargs="*", default=[], metavar="KEY=VALUE", help="of the Spark session")
    parser.add_argument("--fresh", choices=names, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    asked.fresh_of = [
        one for one in ("realtime", "realtime, no warm-up") if one in (asked.only or ([] if asked.quick else [one]))
    ]
    asked.only = asked.only or [one for one in names if one in systems.USUAL or one == KAFKA]
    asked.rates = ([200, 1_000] if asked.quick else RATES) if asked.rates is None else asked.rates
    asked.seconds = asked.seconds or (6.0 if asked.quick else 8.0)
    asked.rounds = asked.rounds or (1 if asked.quick else 2)
    asked.conf = dict(one.split("=", 1) for one in asked.conf)
    return asked


def measure(found: Found, asked: argparse.Namespace) -> None:
    """All systems at all rates, into ``found``."""
    with tempfile.TemporaryDirectory(prefix="sparkdl-bench-") as folder, Machine(Path(folder), asked) as machine:
        for number in range(asked.rounds):
            for place, system in enumerate(asked.only):
                told = f"{number + 1}/{asked.rounds} {system}"
                for work, figures in machine.measure(system, Path(folder, f"{number}-{place}")):
                    note(found, work, system, figures, told)


class Machine:
    """A broker, the load's process and a Spark session, and what runs on them."""

    def __init__(self, folder: Path, asked: argparse.Namespace) -> None:
        import streaming_kafka as topics

        os.environ["PYTHONPATH"] = str(Path(__file__).parent)  # Spark's workers import the systems' module
        self.asked = asked
        jars = topics.kafka.require_jars("kafka")
        self.broker = topics.kafka.Broker(folder / "kafka", jars, flags=BROKER).start()
        rows = folder / "rows.json"
        rows.write_text("".join(f'{{"x": {row}}}\n' for row in made_up()))
        self.load = loads.Load(self.broker.servers, rows, jars)
        self.load_alone(folder)
        self.spark = harness.session(asked.slots, **topics.jars(), **asked.conf)

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: object) -> None:
        self.spark.stop()
        self.load.end()
        self.broker.stop()

    def measure(self, system: str, folder: Path) -> Any:
        """Pairs of a work and its figures, a pair a rate; first of all ``start``."""
        folder.mkdir()
        topics = self.topics(system, folder)
        self.load.open(folder / "arrivals", topics.target)
        started = time.monotonic()
        query = self.started(system, topics)
        try:
            self.counted(topics, 1, 1)
            if query:
                yield "start", {"first answer s": time.monotonic() - started}
            for rate in self.asked.rates:
                figures = self.at(rate, topics)
                yield f"{rate:,} records/s", figures
                if figures["answered records/s"] < KEPT_UP * rate:
                    break
        finally:
            if query:
                self.spark.sparkContext.setLogLevel(
                    "OFF"
                )  # of a real-time query that is stopped Spark tells as of an error
                query.stop()
                self.spark.sparkContext.setLogLevel("ERROR")
            self.load.close()

    def load_alone(self, folder: Path) -> None:
        """So that broker and load are warm, whatever is measured first."""
        topics = self.topics(KAFKA, folder)
        self.load.open(folder / "arrivals", topics.target)
        self.counted(topics, *LOAD_ALONE)
        self.load.close()

    def topics(self, system: str, folder: Path) -> Any:
        import realtime_systems as systems

        target = self.broker.create_topic(f"{folder.name}-out", self.asked.partitions)
        source = target if system == KAFKA else self.broker.create_topic(f"{folder.name}-in", self.asked.partitions)
        return systems.Topics(self.broker, source, target, folder)

    def started(self, system: str, topics: Any) -> Any:
        import realtime_systems as systems

        return None if system == KAFKA else systems.SYSTEMS[system](self.spark, topics)

    def counted(self, topics: Any, rate: float, count: int) -> np.ndarray:
        """The arrivals of so many records, sent now."""
        first = self.load.send(topics.source, rate, count)
        return loads.await_all(topics.folder / "arrivals", first, count, DRAIN_S)

    def at(self, rate: int, topics: Any) -> dict[str, float]:
        """Figures of one rate."""
        unmeasured, count = int(rate * self.asked.warm_up), int(rate * self.asked.seconds)
        first = self.load.send(topics.source, rate, unmeasured + count) + unmeasured
        found = loads.await_all(topics.folder / "arrivals", first, count, DRAIN_S)
        return loads.figures(found, count, rate)


def made_up() -> list[list[float]]:
    return np.random.default_rng(0).standard_normal((ROWS, 50)).round(5).tolist()


def fresh(system: str, asked: argparse.Namespace) -> dict[str, float]:
    """Of the first query of a session."""
    with tempfile.TemporaryDirectory(prefix="sparkdl-bench-") as name, Machine(Path(name), asked) as machine:
        folder = Path(name, "fresh")
        folder.mkdir()
        topics = machine.topics(system, folder)
        machine.load.open(folder / "arrivals", topics.target)
        query = machine.started(system, topics)
        machine.counted(topics, 1, 1)
        found = machine.counted(topics, FRESH_RATE, FRESH_RATE * FRESH_SECONDS)
        query.stop()
    by_second = loads.medians(found)
    steady = float(np.median(by_second[-5:]))
    told = {f"p50 of second {n} ms": float(by_second[n - 1]) for n in (1, 2, 3, 5, 10)}
    return {**told, "steady p50 ms": steady, "to settle s": float(loads.seconds_to_settle(by_second, steady))}


def apart(system: str, asked: argparse.Namespace) -> dict[str, float]:
    """``fresh``, in a process of its own."""
    given = [
        "--slots",
        str(asked.slots),
        "--partitions",
        str(asked.partitions),
        "--conf",
        *map("=".join, asked.conf.items()),
    ]
    command = [sys.executable, __file__, "--fresh", system, *given]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return json.loads(done.stdout.splitlines()[-1])


def note(found: Found, work: str, system: str, figures: dict[str, float], told: str) -> None:
    print(
        f"{told}: {work}: " + ", ".join(f"{name} {value:,.1f}" for name, value in figures.items()),
        file=sys.stderr,
        flush=True,
    )
    for metric, value in figures.items():
        found.setdefault((work, system, metric), []).append(value)


def compared(found: Found) -> list[dict[str, Any]]:
    """What the model costs beside the same query without it, and how far micro-batches with pandas are behind."""
    rows = []
    for work, system, metric in found:
        mine = found.get((work, "realtime", metric), [])
        others = found[work, system, metric]
        if metric not in ("p50 ms", "p99 ms") or len(mine) != len(others):
            continue
        pairs = list(zip(mine, others, strict=True))
        if system == "realtime identity":
            rows.append(harness.row(work, f"realtime - {system}", metric, [one - other for one, other in pairs]))
        elif system == "microbatch pandas_udf":
            ratio = f"{metric.removesuffix(' ms')} ratio"
            rows.append(harness.row(work, f"{system} / realtime", ratio, [other / one for one, other in pairs]))
    return rows


if __name__ == "__main__":
    main()
