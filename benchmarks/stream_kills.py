"""Rounds of kill -9 at random moments, each kind on a stream of its own, and whether each row was scored once: a dated table.

    python benchmarks/stream_kills.py [--rounds 20] [--seed 7] [--only KIND …] [--markdown PATH]

The scenes and the rules are tests/e2e/stream_scene.py's, the driver is tests/e2e/stream_job.py, the broker tests/kafka.py's. The output is
checked after every round, and the first that is wrong ends its kind. The table is written after each kind.
"""

from __future__ import annotations

import argparse
import atexit
import datetime
import importlib.metadata
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness
from tabulate import tabulate

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "e2e")]
import kafka  # noqa: E402
import stream_scene  # noqa: E402

KINDS = {
    "driver": "driver, its JVM, or both, at a random moment",
    "alias": "the same, while the alias moves at each new file",
    "commit": "driver, before, after or in a sink's commit",
    "worker": "a Python worker or Spark's Python daemon",
    "executor": "an executor's JVM, of two",
    "broker": "the Kafka broker",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument(
        "--only", nargs="+", choices=KINDS, default=list(KINDS), metavar="KIND", help=f"of {list(KINDS)}"
    )
    parser.add_argument("--markdown", type=Path, help="where the table is written")
    asked = parser.parse_args()
    lines = []
    for kind in asked.only:
        lines.append(of_kind(kind, asked.rounds, asked.seed))
        text = told(lines, asked.seed)
        print(text, flush=True)
        if asked.markdown:
            asked.markdown.write_text(text)


def of_kind(kind: str, rounds: int, seed: int) -> dict[str, Any]:
    """A line of the table."""
    drawn, done, seconds, problem = random.Random(seed), 0, [], ""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="sparkdl-kills-") as folder:
        scene = stream_scene.Scene(Path(folder), poison_every=1_000)
        a_round, finish = of_broker(scene) if kind == "broker" else of_jobs(scene, kind)
        try:
            for number in range(rounds):
                began = time.monotonic()
                said = a_round(drawn)
                scene.check(complete=False)
                seconds.append(time.monotonic() - began)
                done += 1
                print(f"{kind} {number + 1}/{rounds}: {said}", file=sys.stderr, flush=True)
            finish()
            counts = scene.check()
        except Exception as error:  # of any kind: it is what this is run for
            problem, counts = f"{type(error).__name__}: {error}".splitlines()[0], {}
            print(f"{kind}, round {done + 1}: {error}", file=sys.stderr, flush=True)
    return {
        "what is killed": KINDS[kind],
        "rounds": f"{done} of {rounds}",
        "rows": f"{len(scene.fed):,}",
        "scored by version 1, 2": " + ".join(f"{counts.get(f'version {v}', 0):,}" for v in "12"),
        "dead letters": sum(number for name, number in counts.items() if name.startswith("dead")),
        "lost, twice, mixed": problem or "none",
        "s a round": f"{statistics.median(seconds):.1f}" if seconds else "",
        "s": f"{time.monotonic() - started:.0f}",
    }


def of_jobs(scene: stream_scene.Scene, kind: str) -> tuple[Callable[[random.Random], str], Callable[[], None]]:
    return lambda drawn: stream_scene.a_round(scene, kind, drawn), scene.drain


def of_broker(scene: stream_scene.Scene) -> tuple[Callable[[random.Random], str], Callable[[], None]]:
    spark = harness.session(**{"spark.jars": kafka.session_jars(), "spark.driver.memory": "1g"})
    broker = kafka.Broker(scene.folder / "kafka", kafka.require_jars("kafka")).start()
    atexit.register(broker.stop)
    broker.create_topic("events", 2)
    return lambda drawn: stream_scene.a_broker_round(scene, spark, broker, drawn), broker.stop


def told(lines: list[dict[str, Any]], seed: int) -> str:
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in harness.PACKAGES)
    return (
        f"# Kills of a stream at random moments, {datetime.date.today().isoformat()}\n\n"
        f"`python benchmarks/stream_kills.py`, seed {seed}; {harness.hardware()}; {versions}. After each round every row that "
        "is there is there once, each batch of one version and with that version's own predictions; at the end all rows are, the "
        "dead letters among them (one row in 1,000 is bad).\n\n"
        + tabulate(lines, headers="keys", tablefmt="github")
        + "\n"
    )


if __name__ == "__main__":
    main()
