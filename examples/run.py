"""Run examples from data to a scored stream, in one Spark session, and say what came out.

    make examples                                        # all of them, small
    make examples ARGS="fraud diagnosis"                 # some
    python examples/run.py fraud --size smallest --script --json out.json

Each folder here with a ``data.py`` is one: it writes its tables, ``train.yaml`` is the conf of the job ``train``, and
``stream.yaml`` that of the job ``score_stream``. All they write lies in ``.examples`` in the folder where this is started.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

HERE = Path(__file__).resolve().parent
SCRIPTS = HERE.parent / "tests/parity/applications"
WHERE = Path(".examples")
NAMES = sorted(path.parent.name for path in HERE.glob("*/data.py"))
SIZES = ("smallest", "small")
ARRIVALS = {"smallest": 5, "small": 40}  # files
WARM_UP = 2  # of them, whose latency does not count: workers start, the model is loaded
TRIGGER = "10 milliseconds"  # the next micro-batch as soon as the one before is done
PATIENCE_S = 120
WORSE_BY = 0.02  # at size small, of a figure from 0 to 1, at most, than the script's: what another seed may do


@dataclass(frozen=True)
class Result:
    """What an example came to.

    figures: held out. figure: the name of the one that counts; bar: what it should be at least (or at most), script: what a
    plain torch script gets, None if it was not run. rows: of the held-out table, scored: those of them without a reason why
    not. rows_per_second: of a table, warm. streamed: rows out, dead: dead letters. p50, p99: milliseconds from a file's
    arrival until its rows can be read in the sink, of so many files, of rows_per_file.
    """

    name: str
    size: str
    figures: dict[str, float]
    figure: str
    bar: float
    script: float | None
    rows: int
    rows_per_second: float
    streamed: int
    dead: int
    rows_per_file: int
    files: int
    p50: float
    p99: float
    seconds: float

    @property
    def value(self) -> float:
        """The figure that counts."""
        return self.figures[self.figure]


def module(path: Path) -> Any:
    """The Python file as a module of its own name, for several are called ``data``."""
    name = f"{path.parent.name}_{path.stem}".replace("-", "_")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[name] = made  # where pickles look for it
    spec.loader.exec_module(made)
    return made


def run(name: str, spark: SparkSession, size: str, *, script: bool = False) -> Result:
    """Data, train, score the held-out rows as a table and as a stream. Raises SystemExit if the training job fails."""
    from sparkdl import jobs

    data, folder, started = module(HERE / name / "data.py"), WHERE.resolve() / name, time.monotonic()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    data.write(folder, size)
    changes = [f"{key}={json.dumps(value)}" for key, value in data.SETTINGS.get(size, {}).items()]
    conf = ["--conf-file", absolute(name, "train.yaml"), *(word for one in changes for word in ("--set", one))]
    if jobs.main("train", conf):
        raise SystemExit(f"{name}: the job train failed; see its messages above")
    rows, speed = table(spark, folder)
    streamed, dead, per_file, latencies = stream(spark, name, size)
    manifest = json.loads((folder / "bundle/manifest.json").read_text())
    figures = {key.removeprefix("test_"): v for key, v in manifest["metrics"].items() if key.startswith("test_")}
    if hasattr(data, "AFTER"):
        figures |= data.AFTER(spark, folder) or {}
    bar = data.BARS[size]
    return Result(
        name=name, size=size, figures=figures, figure=data.FIGURE, bar=bar(folder) if callable(bar) else bar,
        script=of_script(name, folder, size) if script else None,
        rows=rows, rows_per_second=speed, streamed=streamed, dead=dead, rows_per_file=per_file,
        files=len(latencies), p50=float(np.percentile(latencies, 50)), p99=float(np.percentile(latencies, 99)),
        seconds=time.monotonic() - started,
    )  # fmt: skip


def absolute(name: str, conf: str) -> str:
    """A copy of the example's conf with its places as absolute paths: Spark's JVM may have been started elsewhere."""
    place = WHERE.resolve()
    (place / name / conf).write_text((HERE / name / conf).read_text().replace(f"{WHERE}/", f"{place}/"))
    return str(place / name / conf)


def of_script(name: str, folder: Path, size: str) -> float:
    """The figure that a plain torch script of one process gets on the same tables."""
    return float(module(SCRIPTS / f"{name.replace('-', '_')}.py").figure(folder, size))


def table(spark: SparkSession, folder: Path) -> tuple[int, float]:
    """Score the held-out table, twice; its rows, and rows a second of the second time."""
    from sparkdl import score_table

    for out_ in ("warm_up", "scored"):
        done = score_table(spark.read.parquet(str(folder / "test")), str(folder / "bundle"), str(folder / out_))
    return done.rows, done.rows / done.seconds


def stream(spark: SparkSession, name: str, size: str) -> tuple[int, int, int, list[float]]:
    """Let the held-out rows arrive in files, one after the other; rows out, dead letters, rows to a file, and milliseconds
    of each file after the first WARM_UP ones."""
    from sparkdl import conf as confs
    from sparkdl.stream import configured

    folder = WHERE.resolve() / name
    conf = confs.load(confs.ScoreStreamConf, absolute(name, "stream.yaml"), changes=[f"trigger={json.dumps(TRIGGER)}"])
    rows = pq.read_table(folder / "test")
    (folder / "arriving").mkdir()
    (folder / "staging").mkdir()
    per_file = -(-len(rows) // ARRIVALS[size])
    query = configured.start(spark, conf, False)
    latencies = []
    try:
        for number, start in enumerate(range(0, len(rows), per_file)):
            file, expected = f"part-{number:03d}.parquet", min(start + per_file, len(rows))
            pq.write_table(rows.slice(start, per_file), folder / "staging" / file)
            arrived = time.monotonic()
            (folder / "staging" / file).rename(folder / "arriving" / file)
            while out(folder / "scored_stream") + out(folder / "dead_letters") < expected:
                if not query.isActive or time.monotonic() - arrived > PATIENCE_S:
                    query.awaitTermination(1)
                    raise SystemExit(f"{name}: the stream did not score what arrived: {query.status()}")
                time.sleep(0.002)
            if number >= WARM_UP:
                latencies.append(1000 * (time.monotonic() - arrived))
    finally:
        query.stop()
    return out(folder / "scored_stream"), out(folder / "dead_letters"), per_file, latencies


def out(folder: Path) -> int:
    """Rows that can be read there."""
    return sum(pq.read_metadata(file).num_rows for file in folder.glob("batch=*/*.parquet"))


@contextmanager
def own_session() -> Iterator[SparkSession]:
    """Spark on this machine, two slots."""
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master("local[2]").appName("sparkdl examples")
    told = {"ui.enabled": "false", "ui.showConsoleProgress": "false", "log.level": "ERROR", "driver.memory": "2g"}
    for key, value in told.items():
        builder = builder.config(f"spark.{key}", value)
    session = builder.config("spark.sql.shuffle.partitions", "2").getOrCreate()
    try:
        yield session
    finally:
        session.stop()


def misses(result: Result) -> list[str]:
    """Where its figure is worse than the bar, or, at size small, than the script's by more than WORSE_BY; NaN is worse."""
    from sparkdl.tasks import is_lower_better

    sign = -1 if is_lower_better(result.figure) else 1
    told = f"{result.name}: {result.figure} {result.value:.4f}"
    found = [] if sign * (result.value - result.bar) >= 0 else [f"{told} misses its bar, {result.bar:.4f}"]
    if result.script is not None and result.size == "small" and not sign * (result.value - result.script) >= -WORSE_BY:
        found.append(f"{told} is worse than the script's {result.script:.4f} by more than {WORSE_BY}")
    return found


def latency(result: Result) -> str:
    """Of the stream, in words."""
    return f"latency of the stream: p50 {result.p50:.0f} ms, p99 {result.p99:.0f} ms, of {result.files} files"


def line(result: Result) -> list[Any]:
    """Of the table that is printed."""
    script = "" if result.script is None else f"{result.script:.4f}"
    return [
        result.name, f"{result.figure} {result.value:.4f}", script, f"{result.bar:.4f}", result.rows,
        f"{result.rows_per_second:,.0f}", f"{result.p50:.0f} / {result.p99:.0f} of {result.files}", f"{result.seconds:.0f}",
    ]  # fmt: skip


HEAD = ("example", "held out", "script", "bar", "rows", "rows/s", "p50 / p99 ms of files", "seconds")


def main(argv: Sequence[str] | None = None) -> None:
    """The command line. Exits by 1 if an example ``misses``."""
    from tabulate import tabulate

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; all by default")
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--script", action="store_true", help="run the plain torch script of the same model as well")
    parser.add_argument("--picture", action="store_true", help="draw examples/NAME/result.png")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the results")
    args = parser.parse_args(argv)
    for name in args.names:
        if name not in NAMES:
            parser.error(f"there is no example {name!r}; there are {', '.join(NAMES)}")
    results = []
    with own_session() as spark:
        for name in args.names or NAMES:
            print(f"\n{name}, {args.size}", flush=True)
            results.append(run(name, spark, args.size, script=args.script))
            if args.picture:
                figure = module(HERE / name / "data.py").picture(spark, WHERE / name)
                figure.savefig(HERE / name / "result.png", dpi=80, bbox_inches="tight")
            print(latency(results[-1]), flush=True)
    print("\n" + tabulate([line(one) for one in results], HEAD, disable_numparse=True))
    if args.json:
        args.json.write_text(json.dumps([asdict(one) for one in results], indent=1))
    if missed := [told for one in results for told in misses(one)]:
        raise SystemExit("\n".join(missed))


if __name__ == "__main__":
    main()
