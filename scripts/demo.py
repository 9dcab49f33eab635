"""make demo: train on Spark's executors with Horovod, score a table, score a stream; then say what was done."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tabulate import tabulate

ROOT = Path(__file__).resolve().parent.parent
DEMO = Path(".demo")
ARRIVALS = 4
PATIENCE_S = 120
sys.path.insert(0, str(ROOT / "examples"))
import digits  # noqa: E402


def submit(job: str, conf: str) -> list[str]:
    """The command line of a job."""
    return [
        str(Path(sys.executable).parent / "spark-submit"),
        *("--properties-file", "conf/spark/local.conf", "--py-files", "examples/digits.py"),
        *(f"jobs/{job}.py", "--conf-file", f"conf/demo/{conf}.yaml"),
    ]


def environment() -> dict[str, str]:
    """The environment of a job: this Python on both sides."""
    told = {"PYSPARK_PYTHON": sys.executable, "PYSPARK_DRIVER_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"}
    return {**os.environ, **told, "PYTHONWARNINGS": "ignore"}


def announce(step: int, what: str) -> None:
    """Head a step."""
    print(f"\n[{step}/4] {what}", flush=True)


def run(job: str, conf: str) -> float:
    """Run a job to its end; its seconds. A failed job ends the demo."""
    command = submit(job, conf)
    print("  $ spark-submit " + " ".join(command[-3:]), flush=True)
    started = time.monotonic()
    status = subprocess.run(command, env=environment(), cwd=ROOT, check=False).returncode
    if status:
        raise SystemExit(f"{command[-3]} ended with status {status}; see its messages above")
    return time.monotonic() - started


def scored(directory: Path) -> pa.Table | None:
    """The rows that the stream has committed: a batch's folder appears whole, so any reader of Parquet sees no part of one."""
    return pq.read_table(directory) if any(directory.glob("batch=*")) else None


def end_driver(query: subprocess.Popen[str]) -> None:
    """End the job's Python, which ends its query well; at SIGTERM, spark-submit's JVM would drop everything."""
    for process in psutil.Process(query.pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):  # a worker that ended meanwhile
            if any(argument.endswith("score_stream.py") for argument in process.cmdline()):
                process.send_signal(signal.SIGTERM)
    if query.wait():
        raise SystemExit(f"jobs/score_stream.py ended with status {query.returncode}; see its messages above")


def start_stream() -> subprocess.Popen[str]:
    """Start the query; its Spark comes up while something else goes on."""
    (DEMO / "arriving").mkdir()
    command = submit("score_stream", "score_stream")
    return subprocess.Popen(command, env=environment(), cwd=ROOT, stdout=subprocess.PIPE, text=True)


def stream(query: subprocess.Popen[str], rows: pa.Table) -> float:
    """Let files arrive while the query runs, end it; seconds from the first arrival to the last row out."""
    arriving, staging = DEMO / "arriving", DEMO / "staging"
    digits.write(staging, rows, ARRIVALS)
    print("  $ spark-submit " + " ".join(submit("score_stream", "score_stream")[-3:]) + " &", flush=True)
    assert query.stdout is not None
    while "scoring what arrives" not in (line := query.stdout.readline()):
        if not line:
            raise SystemExit("the stream did not start; see its messages above")
    print("  " + line.strip(), flush=True)
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
    end_driver(query)
    return seconds


def accuracy(table: pa.Table) -> str:
    """Share of rows predicted right."""
    right = pc.equal(table["prediction"], pc.cast(table["label"], pa.float64()))
    return f"{pc.mean(pc.cast(right, pa.float64())).as_py():.4f}"


def main() -> None:
    """Four steps and a table."""
    os.chdir(ROOT)
    shutil.rmtree(DEMO, ignore_errors=True)
    started = time.monotonic()
    announce(1, "data: scikit-learn's handwritten digits, as a Parquet table")
    train, test = digits.split(digits.table())
    digits.write(DEMO / "digits/train", train, files=4)
    digits.write(DEMO / "digits/test", test, files=2)
    print(f"  {len(train)} rows to train on, {len(test)} held out")
    announce(2, "train: 2 Horovod ranks on Spark's executors")
    train_seconds = run("train", "train")
    query = start_stream()
    try:
        announce(3, "score a table")
        batch_seconds = run("score_batch", "score_batch")
        announce(4, "score a stream, with the same bundle, by a query that runs since step 3")
        stream_seconds = stream(query, test)
    finally:
        query.kill()
    metrics = json.loads((DEMO / "bundle/manifest.json").read_text())["metrics"]
    batch, streamed = pq.read_table(DEMO / "scored"), scored(DEMO / "scored_stream")
    assert streamed is not None
    lines = [
        ["train", len(train), train_seconds, f"{metrics['test_accuracy']:.4f} held out", DEMO / "bundle"],
        ["score_batch", len(batch), batch_seconds, accuracy(batch), DEMO / "scored"],
        ["score_stream", len(streamed), stream_seconds, accuracy(streamed), DEMO / "scored_stream"],
    ]
    print("\n" + tabulate(lines, ["", "rows", "seconds", "accuracy", "output"], floatfmt=".1f"))
    print(
        f"\nAll in {time.monotonic() - started:.0f} s (the jobs' seconds count the start of Spark). Use the bundle:\n"
    )
    print("  import numpy, sparkdl")
    print('  bundle = sparkdl.Bundle.load(".demo/bundle")')
    print('  bundle.predict({"image": numpy.zeros((1, 1, 8, 8), "float32")})["probability"]\n')


if __name__ == "__main__":
    main()
