"""Rows a second from Parquet to the batches of an epoch, 50 floats and a label a row: sparkdl's reader beside bare pyarrow.

One process and no model: each batch of 256 rows is looked at and dropped. ``bare`` is pyarrow.dataset to tensors in the
files' order, anew each epoch ("from disk"), or a table read once, whose rows each epoch deals out shuffled by indexing, as
a loop written by hand has it ("in memory"). ``sparkdl`` shuffles always; its memory budget is a quarter of the data ("from
disk") or more than it takes ("in memory": the epoch in which the data is read is not counted on either side). The files
are the same.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import harness
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import torch

from sparkdl.columns import flat
from sparkdl.data import Dataset
from sparkdl.data.manifest import LABEL, DataFile, Layout
from sparkdl.data.reader import ArrowReader
from sparkdl.data.writer import write_partition
from sparkdl.signature import Signature, TensorSpec
from sparkdl.train.world import World

FEATURES, FILES, BATCH = 50, 8, 256
SYSTEMS = ["sparkdl", "bare"]


def write(folder: str, rows: int) -> Dataset:
    inputs = Signature((TensorSpec("features", "float32", (FEATURES,), ("features",), ("array<float>",)),))
    layout = Layout(inputs, TensorSpec("label", "float32", (), ("label",), ("float",)))
    random = np.random.default_rng(0)
    files = []
    for partition in range(FILES):
        values = random.standard_normal((rows // FILES, FEATURES), dtype=np.float32)
        batch = pa.RecordBatch.from_arrays([flat(values), pa.array(values[:, 0])], names=["features", "label"])
        pieces = (batch.slice(start, 10_000) for start in range(0, len(values), 10_000))  # as Spark sends them
        files += write_partition(folder, "data", partition, layout, pieces)["files"]
    return Dataset(folder, tuple(DataFile(f["path"], tuple(f["row_groups"])) for f in files), inputs, layout.label)


def epoch(reader: ArrowReader, number: int) -> int:
    rows = 0
    for batch in reader.epoch(number):
        rows += len(batch.inputs[0])
    return rows


def bare_batches(batches) -> int:
    """Each record batch as tensors, without a copy."""
    rows = 0
    for batch in batches:
        features = torch.from_numpy(batch.column("features").flatten().to_numpy()).view(-1, FEATURES)
        label = torch.from_numpy(batch.column(LABEL).to_numpy())
        rows += len(features)
        assert len(features) == len(label)
    return rows


def shuffled(features: torch.Tensor, label: torch.Tensor) -> int:
    order = torch.randperm(len(label))
    return sum(len(features[rows]) for rows in order.split(BATCH) if len(label[rows]))


def timed(rows: int, work) -> dict[str, float]:
    started = time.monotonic()
    assert work() == rows
    return {"throughput rows/s": rows / (time.monotonic() - started)}


def systems(data: Dataset, *, in_memory: bool) -> dict[str, harness.System]:
    rows, size = data.rows, data.rows * 4 * (FEATURES + 1)
    epochs = iter(range(10**6))
    budget = 4 * size if in_memory else size // 4
    reader = ArrowReader(data, World(), batch_size=BATCH, seed=0, memory_budget=budget)
    files = ds.dataset([str(Path(data.uri) / file.path) for file in data.files], format="parquet")
    if not in_memory:
        bare = lambda: bare_batches(files.to_batches(batch_size=BATCH))  # noqa: E731
    else:
        table = files.to_table().combine_chunks()
        features = torch.from_numpy(table["features"].chunk(0).flatten().to_numpy()).view(-1, FEATURES)
        label = torch.from_numpy(table[LABEL].chunk(0).to_numpy())
        bare = lambda: shuffled(features, label)  # noqa: E731
    return {
        "sparkdl": lambda: timed(rows, lambda: epoch(reader, next(epochs))),
        "bare": lambda: timed(rows, bare),
    }


def main() -> None:
    asked = harness.arguments(__doc__, SYSTEMS)
    rows = 800_000 if asked.quick else 4_000_000
    found = []
    with tempfile.TemporaryDirectory(prefix="sparkdl-bench-") as folder:
        data = write(folder, rows)
        for in_memory in (False, True):
            made = systems(data, in_memory=in_memory)
            chosen = {name: made[name] for name in asked.only or SYSTEMS}
            where = "in memory" if in_memory else "from disk"
            work = f"{rows:,} rows x {FEATURES} floats, batches of {BATCH}, {where}"
            found += harness.interleaved(chosen, 3 if asked.quick else 7, work)
    harness.report("reader", found, asked.json)


if __name__ == "__main__":
    main()
