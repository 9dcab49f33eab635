"""Horovod's own TorchEstimator on the work of training.py, in an old environment that this script sets up for it.

It reads through Petastorm and so needs a pyarrow of old; ``peers/horovod_estimator.txt`` pins what it runs in, and
``.venv/peer-horovod`` holds it, with the Horovod wheel that was built for the lanes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import harness
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FEATURES, RANKS, EPOCHS = 50, 2, 3  # as in training.py
ROOT = Path(__file__).resolve().parent.parent
PEERS = Path(__file__).resolve().parent / "peers"
VENV = ROOT / ".venv" / "peer-horovod"
SYSTEM = "horovod-estimator"

sys.path.insert(0, str(ROOT / "scripts"))


def figures(rows: int, table_path: str, epochs: int) -> dict[str, float] | None:
    """One fit of ``rows`` rows from the Parquet at ``table_path``, columns ``features`` (lists of 50) and ``label``.

    It must be of two files or more: the estimator coalesces, and a rank without a row group of its own fails.

    An epoch's speed is the median of all but the first, so ``epochs`` must be at least 2. None, and the reason printed,
    if the environment cannot be made. Raises RuntimeError with the end of its output if the fit fails.
    """
    import bootstrap

    try:
        python = set_up()
    except (bootstrap.SetupError, OSError) as error:
        print(f"{SYSTEM} is left out: {error}", file=sys.stderr)
        return None
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment |= {
        "PATH": os.pathsep.join([str(python.parent), environment.get("PATH", os.defpath)]),
        "PYSPARK_PYTHON": str(python),
        "PYSPARK_DRIVER_PYTHON": str(python),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "OMP_NUM_THREADS": "1",  # one torch thread a rank, as the other systems have
        "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1",  # it sends its own pickled model, as torch allowed before 2.6
    }
    command = [str(python), str(PEERS / "fit_horovod_estimator.py"), table_path, str(rows), str(epochs)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{SYSTEM} failed:\n{(done.stdout + done.stderr)[-4000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def set_up() -> Path:
    """The peer's Python, its environment made now if it is not whole. Raises bootstrap.SetupError or OSError."""
    import bootstrap

    lock = PEERS / "horovod_estimator.txt"
    python = VENV / "bin" / "python"
    made_from = [lock, *(ROOT / name for name in bootstrap.SOURCES if "horovod" in name)]
    key = hashlib.sha256(b"".join([str(ROOT).encode(), *(path.read_bytes() for path in made_from)])).hexdigest()
    with bootstrap.locked(ROOT / ".venv" / ".lock") as descriptor:
        stamp = bootstrap.read_stamp(VENV)
        if stamp and (stamp.key, stamp.python) == (key, bootstrap.interpreter(VENV)):
            return python
        bootstrap.say(f"setting up {VENV.relative_to(ROOT)}")
        run = bootstrap.Runner(descriptor)
        uv = bootstrap.set_up_tools(run)
        shutil.rmtree(VENV, ignore_errors=True)
        bootstrap.make_venv(run, uv, VENV)
        run(
            "packages",
            [uv, "pip", "sync", "--quiet", "--python", python, "--compile-bytecode", "--require-hashes", lock],
        )
        run("Horovod", [python, "-m", "sparkdl", "build-horovod", "--install"])
        bootstrap.write_stamp(VENV, bootstrap.Stamp(key, bootstrap.interpreter(VENV) or "", horovod=True))
    return python


def main() -> None:
    asked = harness.arguments(__doc__, [SYSTEM])
    rows = 20_000 if asked.quick else 400_000
    with tempfile.TemporaryDirectory(prefix="sparkdl-bench-") as folder:
        for i in range(RANKS):
            x = np.random.default_rng(i).standard_normal((rows // RANKS, FEATURES), dtype=np.float32)
            features = pa.ListArray.from_arrays(np.arange(len(x) + 1, dtype=np.int32) * FEATURES, x.ravel())
            table = pa.table({"features": features, "label": x[:, :5].sum(axis=1)})
            pq.write_table(table, Path(folder) / f"{i}.parquet")
        found = figures(rows, folder, EPOCHS)
    if found:
        work = f"mlp, {rows:,} rows x {FEATURES} floats, {EPOCHS} epochs"
        lines = [harness.row(work, SYSTEM, metric, [value]) for metric, value in found.items()]
        harness.report("horovod_estimator", lines, asked.json)


if __name__ == "__main__":
    main()
