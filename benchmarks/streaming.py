"""How long a micro-batch takes: rows of 50 floats through the MLP of the scoring benchmark, in a stream.

Files arrive four times a second, 1,000 to 100,000 rows a second in all (streaming_source.py), and each system of
streaming_systems.py runs for ``--seconds`` in its turn, in one warm session of two slots, the first batches left out. ``batch`` is
Spark's ``triggerExecution`` of all batches that had rows; ``batch p99`` is of the rounds together, with the smallest and the
largest of a round in brackets. ``throughput`` is rows of the batches that count over the time they took up: below the rate, the
query did not keep up. ``flood``: everything is there at the start, a batch takes FLOOD_FILES files; ``batch`` (in the system's
name) is ``transform`` of the same files without a stream. ``reload``: the alias of ``sparkdl.score_stream``'s model moves every
few seconds to a version that no worker has seen; what the longest batch around a move costs beyond the median batch.

A run may be made of several: with ``--json`` of a file that is there, rows of the same work, system and metric are replaced.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import harness
import numpy as np
import streaming_kafka as topics
import streaming_source as arrivals
import streaming_systems as systems

RATES = ("1000", "5000", "20000", "100000", "flood", "reload")
SCHEMA = "id bigint, features array<float>"
FLOOD_ROWS, FLOOD_FILES, FLOOD_BATCHES = 50_000, 4, 12
RELOAD_RATE, MOVE_EVERY_S = 5_000, 4.0
WARM_BATCHES = 3
BATCH_TRANSFORM = "sparkdl.transform (batch)"
Found = dict[tuple[str, str], list[list[float]]]  # of a system and metric: values, by round


def main() -> None:
    asked = arguments()
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)  # Spark's workers import the systems' modules
    jars = topics.jars() if "kafka" in asked.formats else {}
    harness.session(**{"spark.sql.streaming.numRecentProgressUpdates": "100000", **jars})
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="sparkdl-bench-") as folder:
        warm_up(Path(folder), 10.0 if asked.quick else 40.0)
        broker = topics.filled(Path(folder, "kafka"), topics.ROWS // (5 if asked.quick else 1)) if jars else None
        for form in asked.formats:
            for rate in asked.rates:
                found: Found = {}
                for number in range(asked.rounds):
                    for system in asked.only or of_rate(rate, form):
                        for metric, values in run(system, form, rate, asked, Path(folder), broker).items():
                            found.setdefault((system, metric), []).append(values)
                            told = f"{statistics.median(values):,.1f} (n = {len(values)}, largest {max(values):,.1f})"
                            print(
                                f"{form} {rate} {number + 1}/{asked.rounds} {system}: {metric} {told}", file=sys.stderr
                            )
                source = "Kafka" if form == "kafka" else f"{form} files"
                work = f"{source}, {named(rate)}" + ("" if rate == "flood" else f", trigger {asked.trigger}")
                rows += figures(work, found)
                harness.report(
                    "streaming", harness.merged(rows, asked.json), asked.json
                )  # a run that is cut off keeps the rest


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two minutes: 5,000 rows/s and four systems, one round")
    parser.add_argument("--json", type=Path, help="where the results are written, or added to")
    parser.add_argument("--only", nargs="+", choices=[*systems.SYSTEMS, BATCH_TRANSFORM], metavar="SYSTEM")
    parser.add_argument("--rates", nargs="+", choices=RATES, metavar="RATE", help=f"of {RATES}")
    parser.add_argument("--formats", nargs="+", choices=("parquet", "json", "kafka"), default=["parquet"])
    parser.add_argument("--seconds", type=float, help="that a system runs in a round, its start left out")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--trigger", default="1 second", help="'0 seconds': as soon as there is something")
    asked = parser.parse_args()
    asked.rates = asked.rates or (["5000"] if asked.quick else RATES)
    asked.seconds = asked.seconds or (10.0 if asked.quick else 30.0)
    asked.rounds = asked.rounds or (1 if asked.quick else 3)
    if asked.quick and not asked.only:
        asked.only = ["identity", "pandas_udf", "plain-parquet", "sparkdl.score_stream"]
    return asked


def warm_up(folder: Path, seconds: float) -> None:
    """As many batches as go into the time: the JVM compiles what all systems share."""
    with tempfile.TemporaryDirectory(dir=folder) as own:
        place = Path(own)
        (place / "arriving").mkdir()
        trigger = {"processingTime": "0 seconds"}
        query = systems.start("plain-parquet", events("parquet", place), place, trigger)
        with arrivals.arriving(arrivals.made(folder, "parquet", 1250), place / "arriving", 3600):
            measured(query, seconds)
        ended(query)


def of_rate(rate: str, form: str) -> list[str]:
    if form == "kafka":
        return [] if rate == "reload" else systems.SYSTEMS
    if rate == "reload":
        return ["sparkdl.score_stream"]
    return [*systems.SYSTEMS, BATCH_TRANSFORM] if rate == "flood" else systems.SYSTEMS


def named(rate: str) -> str:
    return {"flood": "as fast as it goes", "reload": f"hot reload at {RELOAD_RATE:,} rows/s"}.get(
        rate
    ) or f"{int(rate):,} rows/s"


def run(
    system: str, form: str, rate: str, asked: argparse.Namespace, folder: Path, broker: Any
) -> dict[str, list[float]]:
    """Values by metric, of one round of one system."""
    with tempfile.TemporaryDirectory(dir=folder) as own:
        place = Path(own)
        if form == "kafka":
            return of_topic(system, rate, asked, place, broker)
        (place / "arriving").mkdir()
        if rate == "flood":
            return flooded(system, arrivals.made(folder, form, FLOOD_ROWS), form, place)
        a_file = (RELOAD_RATE if rate == "reload" else int(rate)) // arrivals.FILES_A_SECOND
        templates = arrivals.made(folder, form, a_file)
        trigger = {"processingTime": asked.trigger}
        if rate == "reload":
            return reloaded(templates, form, place, trigger, asked.seconds)
        query = systems.start(system, events(form, place), place, trigger)
        with arrivals.arriving(templates, place / "arriving", 3600):
            measured(query, asked.seconds)
        return of_batches(ended(query))


def of_topic(system: str, rate: str, asked: argparse.Namespace, place: Path, broker: Any) -> dict[str, list[float]]:
    """Of Kafka's records; there is no reload and no batch of them."""
    flood = rate == "flood"
    trigger = {"availableNow": True} if flood else {"processingTime": asked.trigger}
    events = topics.stream(broker, FLOOD_ROWS if flood else int(rate))
    query = systems.start(system, events, place, trigger, topics.parsed)
    if flood:
        query.awaitTermination()
    else:
        measured(query, asked.seconds)
    return of_batches(ended(query))


def events(form: str, place: Path, **options: Any) -> Any:
    return harness.session().readStream.schema(SCHEMA).options(**options).format(form).load(str(place / "arriving"))


def measured(query: Any, seconds: float) -> None:
    """Wait until the first batches are over, then for ``seconds``."""
    while len(with_rows(query.recentProgress)) < WARM_BATCHES and query.isActive:
        time.sleep(0.1)
    query.awaitTermination(seconds)


def ended(query: Any) -> list[dict[str, Any]]:
    """The progress of all batches that had rows, the first ones left out; the query is stopped between two."""
    while query.isActive and query.status["isTriggerActive"]:
        time.sleep(0.005)
    told = query.recentProgress
    query.stop()
    if query.exception():
        raise query.exception()
    return with_rows(told)[WARM_BATCHES:]


def with_rows(told: Iterable[Any]) -> list[dict[str, Any]]:
    """Spark 3.5 gives dictionaries, 4 objects that know their JSON."""
    entries = (json.loads(progress.json) if hasattr(progress, "json") else dict(progress) for progress in told)
    return [entry for entry in entries if entry["numInputRows"]]


def began(entry: dict[str, Any]) -> float:
    return datetime.datetime.fromisoformat(entry["timestamp"].replace("Z", "+00:00")).timestamp()


def took(entry: dict[str, Any]) -> float:
    return float(entry["durationMs"]["triggerExecution"])


def of_batches(batches: list[dict[str, Any]]) -> dict[str, list[float]]:
    if len(batches) < 2:
        raise SystemExit("fewer than two batches ended in time: give more --seconds")
    seconds = began(batches[-1]) - began(batches[0])
    rows = sum(entry["numInputRows"] for entry in batches[:-1])
    return {"batch ms": [took(entry) for entry in batches], "throughput rows/s": [rows / seconds]}


def flooded(system: str, templates: Path, form: str, place: Path) -> dict[str, list[float]]:
    arrivals.flood(templates, place / "arriving", FLOOD_FILES * FLOOD_BATCHES)
    if system == BATCH_TRANSFORM:
        table = harness.session().read.schema(SCHEMA).format(form).load(str(place / "arriving"))
        frame = systems.NOOP["sparkdl.transform"](table, systems.MLP)
        started = time.monotonic()
        frame.write.format("noop").mode("overwrite").save()
        return {"throughput rows/s": [FLOOD_ROWS * FLOOD_FILES * FLOOD_BATCHES / (time.monotonic() - started)]}
    query = systems.start(system, events(form, place, maxFilesPerTrigger=FLOOD_FILES), place, {"availableNow": True})
    query.awaitTermination()
    return of_batches(ended(query))


def reloaded(
    templates: Path, form: str, place: Path, trigger: dict[str, Any], seconds: float
) -> dict[str, list[float]]:
    """An alias that moves; what each move costs: the longest batch until the next move, beyond the median batch."""
    import sparkdl

    registry = sparkdl.Registry(str(place / "registry"))
    versions = [registry.publish("mlp", systems.version(seed)) for seed in range(1 + int(seconds / MOVE_EVERY_S))]
    registry.set_alias("mlp", "champion", versions[0])
    told = {"model": "registry://mlp@champion", "registry": registry}
    query = systems.scored(events(form, place), place, trigger, **told).query
    moves: list[float] = []
    with arrivals.arriving(templates, place / "arriving", 3600):
        measured(query, MOVE_EVERY_S)
        for version in versions[1:]:
            moves.append(time.time())
            registry.set_alias("mlp", "champion", version)
            threading.Event().wait(MOVE_EVERY_S)
    batches = ended(query)
    usual = statistics.median(map(took, batches))
    ends = [*moves[1:], float("inf")]
    longest = [
        max(
            (took(entry) for entry in batches if start <= began(entry) + took(entry) / 1000 and began(entry) < end),
            default=usual,
        )
        for start, end in zip(moves, ends, strict=True)
    ]
    return {
        "batch ms": [took(entry) for entry in batches],
        "reload beyond the median ms": [one - usual for one in longest],
    }


def figures(work: str, found: Found) -> list[dict[str, Any]]:
    """Rows of the results, with what a system costs beyond its peer."""
    rows, of = [], {}
    for (system, metric), rounds in found.items():
        values = [value for values in rounds for value in values]
        rows.append(harness.row(work, system, metric, values))
        if metric == "batch ms":
            p99 = float(np.percentile(values, 99))
            by_round = [float(np.percentile(values, 99)) for values in rounds]
            rows.append({**harness.row(work, system, "batch p99 ms", by_round), "n": len(values), "median": p99})
            of[system] = statistics.median(values), p99
    for system, peer in PAIRS:
        if system in of and peer in of:
            for metric, mine, other in zip(("batch ms", "batch p99 ms"), of[system], of[peer], strict=True):
                rows.append(harness.row(work, f"{system} - {peer}", metric, [mine - other]))
    for peer in (BATCH_TRANSFORM, "plain-parquet"):
        mine, other = ((found.get((system, "throughput rows/s")) or []) for system in ("sparkdl.score_stream", peer))
        if "as fast" in work and mine and len(mine) == len(other):
            values = [one[0] / two[0] for one, two in zip(mine, other, strict=True)]
            rows.append(harness.row(work, f"sparkdl.score_stream / {peer}", "throughput ratio", values))
    return rows


PAIRS = [
    ("sparkdl.transform", "identity"), ("pandas_udf", "identity"), ("sparkdl.score_stream", "identity"),
    ("sparkdl.score_stream", "plain-parquet"), ("sparkdl.score_stream", "identity, cheaper checkpoint"),
    ("sparkdl.score_stream", "plain-parquet, cheaper checkpoint"),
]  # fmt: skip


if __name__ == "__main__":
    main()
