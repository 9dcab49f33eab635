"""make demo: the jobs one after another, from training to a report; then say what was done. All of it in `.demo`, in the folder
where it is started, which has `conf`, `examples` and `jobs`."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tabulate import tabulate

ROOT = Path(__file__).resolve().parent.parent
DEMO = Path(".demo")
ARRIVALS = 4
PATIENCE_S = 120
STEPS = 7
BEFORE = {
    "train": "train: 2 Horovod ranks on Spark's executors",
    "evaluate": "evaluate on the rows that were held out",
    "publish": "publish: the bundle becomes the champion of a registry",
}
sys.path.insert(0, str(ROOT / "examples"))
import digits  # noqa: E402


def submit(job: str) -> list[str]:
    """The command line of a job."""
    return [
        str(Path(sys.executable).parent / "spark-submit"),
        *("--properties-file", "conf/spark/local.conf", "--py-files", "examples/digits.py"),
        *(f"jobs/{job}.py", "--conf-file", f"conf/demo/{job}.yaml"),
    ]


def environment() -> dict[str, str]:
    """The environment of a job: this Python on both sides."""
    told = {"PYSPARK_PYTHON": sys.executable, "PYSPARK_DRIVER_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"}
    return {**os.environ, **told, "PYTHONWARNINGS": "ignore"}


def announce(step: int, what: str) -> None:
    """Head a step."""
    print(f"\n[{step}/{STEPS}] {what}", flush=True)


def show(command: list[str], end: str = "") -> None:
    """The command as the reader may type it, in an activated environment."""
    print("  $ " + " ".join(["spark-submit", *command[1:]]) + end, flush=True)


def run(job: str) -> float:
    """Run a job to its end; its seconds. A failed job ends the demo."""
    command = submit(job)
    show(command)
    started = time.monotonic()
    status = subprocess.run(command, env=environment(), check=False).returncode
    if status:
        raise SystemExit(f"jobs/{job}.py ended with status {status}; see its messages above")
    return time.monotonic() - started


def scored(directory: Path) -> pa.Table | None:
    """The rows that the stream has committed: a batch's folder appears whole, so any reader of Parquet sees no part of one."""
    return pq.read_table(directory) if any(directory.glob("batch=*")) else None


def start_stream() -> subprocess.Popen[str]:
    """Start the query; its Spark comes up while something else goes on."""
    (DEMO / "arriving").mkdir()
    return subprocess.Popen(submit("score_stream"), env=environment(), stdout=subprocess.PIPE, text=True)


def stream(query: subprocess.Popen[str], rows: pa.Table) -> float:
    """Let files arrive while the query runs, end it; seconds from the first arrival to the last row out."""
    arriving, staging = DEMO / "arriving", DEMO / "staging"
    digits.write(staging, rows, ARRIVALS)
    show(submit("score_stream"), " &")
    assert query.stdout is not None
    while "scoring what arrives" not in (line := query.stdout.readline()):
        if not line:
            raise SystemExit("the stream did not start; see its messages above")
    print(line.strip(), flush=True)
    started = time.monotonic()
    expected = 0
    for file in sorted(staging.iterdir()):
        expected += pq.read_metadata(file).num_rows
        file.rename(arriving / file.name)
        while len(scored(DEMO / "scored_stream") or []) < expected:
            if query.poll() is not None or time.monotonic() - started > PATIENCE_S:
                raise SystemExit("the stream did not score what arrived; see its messages above")
            time.sleep(0.05)
        print(f"  {file.name} arrived: {expected} rows scored after {time.monotonic() - started:.1f} s", flush=True)
    seconds = time.monotonic() - started
    print("  $ kill -TERM %1", flush=True)
    query.send_signal(signal.SIGTERM)  # it ends the micro-batch that runs
    for line in query.stdout:
        print(line.rstrip(), flush=True)
    if query.wait():
        raise SystemExit(f"jobs/score_stream.py ended with status {query.returncode}; see its messages above")
    return seconds


def accuracy(table: pa.Table) -> str:
    """Share of rows predicted right."""
    right = pc.equal(table["prediction"], pc.cast(table["label"], pa.float64()))
    return f"{pc.mean(pc.cast(right, pa.float64())).as_py():.4f}"


def main() -> None:
    """The steps, and a table."""
    shutil.rmtree(DEMO, ignore_errors=True)
    started = time.monotonic()
    announce(1, "data: scikit-learn's handwritten digits, as a Parquet table")
    train, test = digits.split(digits.table())
    digits.write(DEMO / "digits/train", train, files=4)
    digits.write(DEMO / "digits/test", test, files=2)
    print(f"  {len(train)} rows to train on, {len(test)} held out")
    seconds = {}
    for step, (job, what) in enumerate(BEFORE.items(), 2):
        announce(step, what)
        seconds[job] = run(job)
    query = start_stream()
    try:
        announce(5, "score the held-out rows as a table, by the registry's champion")
        seconds["score_batch"] = run("score_batch")
        announce(6, "score them as a stream, by a query that runs since step 5")
        seconds["score_stream"] = stream(query, test)
    finally:
        query.kill()
    announce(7, "compare what was scored with the training data")
    seconds["drift_report"] = run("drift_report")
    print("\n" + tabulate(summary(seconds), ["", "rows", "seconds", "", "output"], floatfmt=".1f"))
    print(
        f"\nAll in {time.monotonic() - started:.0f} s (the jobs' seconds count the start of Spark). Use the bundle:\n"
    )
    print("  import numpy, sparkdl")
    print('  bundle = sparkdl.Bundle.load(".demo/bundle")')
    print('  bundle.predict({"image": numpy.zeros((1, 1, 8, 8), "float32")})["probability"]\n')


def summary(seconds: dict[str, float]) -> list[list[Any]]:
    """A line a job."""
    evaluation = json.loads((DEMO / "evaluation.json").read_text())
    drift = json.loads((DEMO / "drift.json").read_text())
    batch, streamed = pq.read_table(DEMO / "scored"), scored(DEMO / "scored_stream")
    assert streamed is not None
    trained = sum(pq.read_metadata(file).num_rows for file in (DEMO / "digits/train").iterdir())
    told = {
        "train": [trained, "2 ranks, Horovod", DEMO / "bundle"],
        "evaluate": [evaluation["rows"], f"accuracy {evaluation['figures']['accuracy']:.4f}", DEMO / "evaluation.json"],
        "publish": [None, "digits@champion", DEMO / "registry"],
        "score_batch": [len(batch), f"accuracy {accuracy(batch)}", DEMO / "scored"],
        "score_stream": [len(streamed), f"accuracy {accuracy(streamed)}", DEMO / "scored_stream"],
        "drift_report": [drift["rows"], f"largest PSI {drift['features'][0]['psi']:.3f}", DEMO / "drift.html"],
    }
    return [[job, rows, seconds[job], figure, place] for job, (rows, figure, place) in told.items()]


if __name__ == "__main__":
    main()
