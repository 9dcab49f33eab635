"""The alias moved while records are scored in real time: how long no answer comes, around each swap and in between.

    python benchmarks/realtime_swaps.py [--rate 500] [--swaps 6] [--every 6] [--markdown PATH]

The MLP 50-256-128-1 in two versions that take turns; sender and receiver are a process of its own (RealtimeLoad.java), by whose clock
an answer arrives. A gap is the time from one answer to the next of the same partition. ``swap``: from the last answer of one
version to the first of the next. ``around``: the longest within half a second of that. ``elsewhere``: the longest of all others.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import harness
import numpy as np
import realtime_load as loads
import realtime_systems as systems
import torch
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import kafka

import sparkdl

WARM_UP_S, AROUND_S, DRAIN_S = 10, 0.5, 30.0
GOAL_MS = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=int, default=500, help="records a second")
    parser.add_argument("--swaps", type=int, default=6)
    parser.add_argument("--every", type=float, default=6.0, help="seconds from one move of the alias to the next")
    parser.add_argument("--markdown", type=Path, help="where the table is written")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measured(Path(folder), asked)
    text = told(found, asked)
    print(text)
    if asked.markdown:
        asked.markdown.write_text(text)


def measured(folder: Path, asked: argparse.Namespace) -> np.ndarray:
    """What arrived after the warm-up."""
    rows = folder / "rows.json"
    rng = np.random.default_rng(0)
    rows.write_text(
        "\n".join('{"x":' + str(rng.normal(size=systems.FEATURES).round(4).tolist()) + "}" for _ in range(500))
    )
    registry = sparkdl.Registry(str(folder / "registry"))
    for seed in (0, 1):
        torch.manual_seed(seed)
        registry.publish(
            "mlp", sparkdl.Bundle.from_module(network(seed), systems.SIGNATURE, task="binary").with_graph()
        )
    registry.set_alias("mlp", "champion", 1)
    jars = kafka.require_jars("kafka")
    broker = kafka.Broker(folder / "kafka", jars).start()
    spark = harness.session(**{"spark.jars": kafka.session_jars(), "spark.driver.memory": "2g"})
    load = loads.Load(broker.servers, rows, jars)
    try:
        source, target, dead = (broker.create_topic(name) for name in ("in", "out", "dead"))
        query = sparkdl.score_stream(
            broker.stream(spark, source), model="registry://mlp@champion", registry=registry, mode="realtime",
            sink=sparkdl.sinks.Kafka(broker.servers, target), deadLetter=sparkdl.sinks.Kafka(broker.servers, dead),
            checkpoint=str(folder / "checkpoint"), payload=sparkdl.payloads.JSON(systems.SCHEMA), columns=["id"],
        )  # fmt: skip
        notes = folder / "arrivals"
        load.open(notes, target, dead)
        load.send(source, asked.rate, WARM_UP_S * asked.rate)
        seconds = asked.every * (asked.swaps + 1)
        count = int(seconds * asked.rate)
        load.begin(source, asked.rate, count)
        for swap in range(asked.swaps):
            time.sleep(asked.every)
            registry.set_alias("mlp", "champion", 2 - swap % 2)
        first = load.sent()
        found = loads.await_all(notes, first, count, DRAIN_S)
        query.stop()
        lost = count - len(np.unique(found["number"]))
        if lost or (found["topic"] != 0).any():
            raise SystemExit(
                f"{lost} of {count} records have no answer, {(found['topic'] != 0).sum()} are dead letters"
            )
        return found
    finally:
        load.end()
        spark.stop()
        broker.kill()


def network(seed: int) -> Any:
    made = systems.network()
    torch.manual_seed(seed)
    torch.nn.init.normal_(made[0].weight, std=0.1)
    return made


def gaps(found: np.ndarray) -> list[dict[str, float]]:
    """Of each swap, in ms."""
    arrived, version = found["arrived"] / 1e6, found["version"]
    gap = np.diff(arrived)
    swaps = np.flatnonzero(np.diff(version))
    near = [np.abs(arrived[1:] - arrived[place + 1]) <= AROUND_S * 1e3 for place in swaps]
    rest = gap[~np.any(near, axis=0)] if len(swaps) else gap
    told = [
        {"from": int(version[place]), "to": int(version[place + 1]), "swap": gap[place], "around": gap[close].max()}
        for place, close in zip(swaps, near, strict=True)
    ]
    return [*told, {"from": "", "to": "elsewhere", "swap": np.median(rest), "around": rest.max()}]


def told(found: np.ndarray, asked: argparse.Namespace) -> str:
    rows = gaps(found)
    longest = max(row["around"] for row in rows[:-1]) if len(rows) > 1 else float("nan")
    table = tabulate(rows, {"from": "from version", "to": "to version", "swap": "swap (ms)", "around": "longest around it (ms)"},
                     tablefmt="github", floatfmt=".1f")  # fmt: skip
    latency = ", ".join(f"{name} {value:.1f}" for name, value in loads.percentiles(loads.milliseconds(found)).items())
    return f"""# An alias moved under load, {datetime.date.today()}

`python benchmarks/realtime_swaps.py --rate {asked.rate} --swaps {asked.swaps} --every {asked.every:g}`; {harness.hardware()}.

{len(found):,} records at {asked.rate} a second, all answered, {len(rows) - 1} swaps between two versions of the MLP 50-256-128-1. The longest
time without an answer around a swap was {longest:.1f} ms (the goal: {GOAL_MS} ms). Latency: {latency}.

{table}

Of *elsewhere* the first figure is the median gap, the second the longest.
"""


if __name__ == "__main__":
    main()
