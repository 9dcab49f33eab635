"""make demo-realtime: a record scored in milliseconds. A Kafka broker, card transactions at an even rate, and a model that says of each
whether it is fraud, in Spark's real-time mode; a line a second tells how long the answers took. Half way the alias moves to the next
version of the model, and the query takes it over between two records. It ends by itself."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / name) for name in ("scripts", "tests", "benchmarks", "examples/fraud")]
import build_jvm  # noqa: E402
import data as fraud  # noqa: E402
import jars  # noqa: E402
import kafka  # noqa: E402
import realtime_load as loads  # noqa: E402

import sparkdl  # noqa: E402
from sparkdl.signature import Signature, TensorSpec  # noqa: E402

COLUMNS = ("amount", "in_last_hour", "hour", "abroad")
SCHEMA = "id bigint, " + ", ".join(f"{name} float" for name in COLUMNS)
SIGNATURE = Signature((TensorSpec("x", "float32", (len(COLUMNS),), COLUMNS, ("float",) * len(COLUMNS)),))
ROWS, DRAIN_S = 20_000, 15.0
LINE = "  {second:>3} s   {count:>5} scored/s   p50 {p50:6.1f} ms   p99 {p99:7.1f} ms   version {version}   {dead:>3} dead letters"


def main() -> None:
    """The steps; exits with 1 if a record was lost."""
    asked = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends what was started here
    paths = needed()
    os.environ.update(PYSPARK_PYTHON=sys.executable, SPARK_LOCAL_IP="127.0.0.1")
    with tempfile.TemporaryDirectory(prefix="sparkdl-demo-") as name:
        folder = Path(name)
        say(1, "two versions of a model that finds fraud, and 20,000 card transactions (generated)")
        registry = published(folder, transactions(folder / "rows.json"))
        say(2, "a Kafka broker, and Spark")
        with running(folder, paths) as (broker, load, spark):
            say(3, 'sparkdl.score_stream(events, model="registry://fraud@champion", sink=Kafka(…), mode="realtime")')
            query = start(spark, broker, registry, folder)
            load.open(folder / "arrivals", "scores", "dead-letters")
            first = load.send("transactions", 1, 1)
            loads.await_all(folder / "arrivals", first, 1, 60)
            say(4, f"{asked.rate} records/s for {asked.seconds} s; half way the champion becomes version 2")
            found = watched(load, folder / "arrivals", registry, asked)
            spark.sparkContext.setLogLevel("OFF")  # of a real-time query that is stopped Spark tells as of an error
            query.stop()
    if summary(found, asked):
        raise SystemExit("records were lost; see above")


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--rate", type=int, default=200, help="records a second")
    return parser.parse_args()


def say(step: int, what: str) -> None:
    """Head a step."""
    print(f"\n[{step}/4] {what}", flush=True)


def needed() -> dict[str, Path]:
    """Folders of jars: the broker's, the connector's, ONNX Runtime's. Ends the process where something is missing."""
    try:
        folders = {name: jars.fetch(name) for name in ("kafka", "latest", "onnx")}
        build_jvm.build()
    except (jars.JarsError, build_jvm.BuildError) as error:
        raise SystemExit(
            f"the demo needs Maven (`mvn`) for the broker's jars, and a JDK (`javac`) for sparkdl's: {error}"
        ) from None
    return folders


def transactions(rows: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Features and labels of those whose amount is known. All go into ``rows``, as JSON; those without an amount are for the dead letters."""
    table = fraud.transactions(ROWS)
    at = table["at"].to_pandas()
    columns = {
        "amount": table["amount"].to_numpy(),
        "in_last_hour": table["in_last_hour"].to_numpy(),
        "hour": at.dt.hour.to_numpy(),
        "abroad": (table["country"].to_pandas() != table["home"].to_pandas()).to_numpy(),
    }
    x = np.stack([columns[name].astype("float32") for name in COLUMNS], axis=1)
    lines = (
        dict(zip(COLUMNS, (None if np.isnan(value) else round(float(value), 2) for value in row), strict=True))
        for row in x
    )
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    known = ~np.isnan(x).any(axis=1)
    return torch.from_numpy(x[known]), torch.from_numpy(table["fraud"].to_numpy()[known].astype("float32"))


def published(folder: Path, data: tuple[torch.Tensor, torch.Tensor]) -> sparkdl.Registry:
    """A registry whose model ``fraud`` has versions 1 and 2, of which 2 was trained for longer."""
    registry = sparkdl.Registry(str(folder / "registry"))
    for epochs in (5, 20):
        module = trained(*data, epochs)
        version = registry.publish("fraud", sparkdl.Bundle.from_module(module, SIGNATURE, task="binary").with_graph())
        print(f"  version {version}: {epochs} epochs", flush=True)
    registry.set_alias("fraud", "champion", 1)
    return registry


class Scaled(nn.Module):
    """Euros by their logarithm, hours as shares of a day."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: rows of COLUMNS."""
        amount, often, hour, abroad = x.unbind(1)
        return torch.stack([amount.clamp(min=0).log1p() / 4, often / 3, hour / 24, abroad], 1)


def trained(x: torch.Tensor, y: torch.Tensor, epochs: int) -> nn.Module:
    """A small network, trained here."""
    torch.manual_seed(0)
    module = nn.Sequential(
        Scaled(), nn.Linear(len(COLUMNS), 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1)
    )
    optimizer = torch.optim.Adam(module.parameters(), lr=0.003)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(256):
            optimizer.zero_grad()
            nn.functional.binary_cross_entropy_with_logits(module(x[rows])[:, 0], y[rows]).backward()
            optimizer.step()
    return module


@contextmanager
def running(folder: Path, paths: dict[str, Path]) -> Iterator[tuple[Any, loads.Load, Any]]:
    """A broker with three topics, the process that sends and receives, and a Spark session."""
    from pyspark.sql import SparkSession

    broker = kafka.Broker(folder / "kafka", paths["kafka"], flags=("-Xmx512m",)).start()
    for topic in ("transactions", "scores", "dead-letters"):
        broker.create_topic(topic)
    load = loads.Load(broker.servers, folder / "rows.json", paths["kafka"])
    found = [str(path) for name in ("latest", "onnx") for path in paths[name].glob("*.jar")]
    builder = SparkSession.builder.master("local[2]").config("spark.jars", ",".join(found))
    spark = (
        builder.config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.log.level", "ERROR")
        .getOrCreate()
    )
    try:
        yield broker, load, spark
    finally:
        spark.stop()
        load.end()
        broker.stop()


def start(spark: Any, broker: Any, registry: sparkdl.Registry, folder: Path) -> Any:
    """The query, as anyone would start it."""
    return sparkdl.score_stream(
        broker.stream(spark, "transactions"),
        model="registry://fraud@champion",
        registry=registry,
        payload=sparkdl.payloads.JSON(SCHEMA),
        columns=["id"],
        sink=sparkdl.sinks.Kafka(broker.servers, "scores"),
        deadLetter=sparkdl.sinks.Kafka(broker.servers, "dead-letters"),
        checkpoint=str(folder / "checkpoint"),
        mode="realtime",
    )


def watched(load: loads.Load, file: Path, registry: sparkdl.Registry, asked: argparse.Namespace) -> np.ndarray:
    """Send, show how it goes, and move the alias half way; all arrivals."""
    known = len(loads.arrivals(file))
    count, dead = asked.rate * asked.seconds, 0
    load.begin("transactions", asked.rate, count)
    started = time.monotonic()
    with line() as show:
        for second in range(1, asked.seconds + 1):
            time.sleep(max(0.0, started + second - time.monotonic()))
            news = loads.arrivals(file, known)
            known += len(news)
            scored = news[news["topic"] == 0]
            dead += len(news) - len(scored)
            if len(scored):
                told = loads.percentiles(loads.milliseconds(scored))
                show(
                    LINE.format(
                        second=second, count=len(scored), p50=told["p50 ms"], p99=told["p99 ms"], dead=dead,
                        version=" and ".join(map(str, np.unique(scored["version"]))),
                    )
                )  # fmt: skip
            if second == asked.seconds // 2:
                registry.set_alias("fraud", "champion", 2)
    return loads.await_all(file, load.sent(), count, DRAIN_S)


@contextmanager
def line() -> Iterator[Callable[[str], None]]:
    """Shows a line: in a terminal in place of the one before."""
    from rich.console import Console
    from rich.live import Live

    console = Console()
    if not console.is_terminal:
        yield lambda text: print(text, flush=True)
        return
    with Live(console=console) as live:
        yield live.update


def summary(found: np.ndarray, asked: argparse.Namespace) -> int:
    """How many were lost, after saying how it went."""
    scored = found[found["topic"] == 0]
    told = loads.percentiles(loads.milliseconds(scored))
    lost = asked.rate * asked.seconds - len(np.unique(found["number"]))
    by_version = ", ".join(
        f"{(scored['version'] == one).sum():,} by version {one}" for one in np.unique(scored["version"])
    )
    gap = np.diff(np.sort(scored["arrived"])).max() / 1e6
    print(f"\n{len(scored):,} scored ({by_version}), {len(found) - len(scored):,} dead letters, {lost} lost")
    print(
        f"from sender to receiver: p50 {told['p50 ms']:.1f} ms, p99 {told['p99 ms']:.1f} ms; no answer for {gap:.0f} ms at most\n"
    )
    return lost


if __name__ == "__main__":
    main()
