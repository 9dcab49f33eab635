"""The demo's jobs, submitted to a standalone cluster: train on digits, score them as a table, score them as a stream."""

import os
import re
import sys
import time
from pathlib import Path

import pyarrow.dataset as ds
import standalone

ROOT = standalone.ROOT
ROWS = 400
sys.path.insert(0, str(ROOT / "examples"))
import digits  # noqa: E402


def train(cluster, folder, **how):
    digits.write(folder / "digits", digits.table().slice(0, ROWS), files=4)
    return submit(
        cluster, "train", folder, data="digits", test="digits", bundle="bundle",
        settings={"estimator.epochs": "8"}, **how,
    )  # fmt: skip


def submit(cluster, job, folder, *, settings=None, options=(), conf=None, **places):
    """A job with the demo's conf, its places within the folder."""
    told = {key: str(folder / place) for key, place in places.items()} | (settings or {})
    arguments = [word for key, value in told.items() for word in ("--set", f"{key.replace('__', '.')}={value}")]
    options = [*options, "--py-files", str(ROOT / "examples/digits.py")]
    started = time.monotonic()
    done = cluster.submit(
        f"jobs/{job}.py", "--conf-file", f"conf/demo/{job}.yaml", *arguments, options=options, conf=conf
    )
    print(f"{job}: {time.monotonic() - started:.0f} s")
    return done


def check_jobs(cluster, folder, *, streams=True, **how) -> None:
    done = train(cluster, folder, **how)
    assert done.returncode == 0, done.stdout[-4000:]
    (accuracy,) = re.findall(
        r"held out: .*accuracy (\d\.\d+)", done.stdout
    )  # where spark-submit puts a Python's stderr
    assert float(accuracy) > 0.8
    assert os.listdir(cluster.folder / "store") == [], "what fit needed on the way is gone"

    done = submit(cluster, "score_batch", folder, source="digits", model="bundle", output="scored", **how)
    assert done.returncode == 0, done.stdout[-4000:]
    check_scored(folder / "scored")

    if not streams:
        return
    done = submit(
        cluster, "score_stream", folder, source__path="digits", model="bundle", sink__uri="streamed",
        deadLetter="dead", checkpoint="checkpoint", settings={"trigger": "available now"}, **how,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
    check_scored(folder / "streamed")


def check_scored(table: Path) -> None:
    rows = ds.dataset(table, partitioning="hive").to_table(["id", "label", "prediction"]).to_pandas()
    assert sorted(rows.id) == list(range(ROWS)), "each row once"
    assert (rows.label == rows.prediction).mean() > 0.8
