"""Ten epochs of a data set six times the memory budget: the budget is kept, and no epoch takes more than the first."""

import json
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

MIB = 1 << 20
DATA, BUDGET, ROW_GROUP, EPOCHS = 96 * MIB, 16 * MIB, 2 * MIB, 10
DECODING = 8 * ROW_GROUP  # compressed, decoded, and pages in between
NOISE = 32 * MIB  # of the allocators, each of which keeps something for each thread

SCRIPT = """
import json, sys
from unittest.mock import patch
import numpy as np, psutil, pyarrow as pa
from making import signature, spec
from sparkdl.columns import flat
from sparkdl.data import writer
from sparkdl.data.manifest import DataFile, Dataset, Layout
from sparkdl.data.reader import ArrowReader
from sparkdl.train.world import World

folder, size, budget, row_group, epochs = sys.argv[1], *map(int, sys.argv[2:])
layout = Layout(signature(spec("x", shape=(61,))), spec("y", type="float"))  # with its place in the order 256 bytes a row
rows = size // 256

def batches():
    for first in range(0, rows, 1024):
        number = np.arange(first, first + 1024, dtype=np.float32)
        yield pa.RecordBatch.from_arrays([flat(np.tile(number[:, None], 61)), pa.array(number)], names=["x", "y"])

with patch.object(writer, "ROW_GROUP_BYTES", row_group):
    (file,) = writer.write_partition(folder, "data", 0, layout, batches())["files"]
data = Dataset(folder, (DataFile(file["path"], tuple(file["row_groups"])),), layout.signature, layout.label)
process = psutil.Process()
first = ArrowReader(data, World(size=100), batch_size=256, seed=0)  # what torch and pyarrow take for themselves
list(first.epoch(0))
del first
before, peaks, arrow = process.memory_info().rss, [], 0
reader = ArrowReader(data, World(), batch_size=256, seed=0, memory_budget=budget)
for epoch in range(epochs):
    peak = total = 0
    for step, batch in enumerate(reader.epoch(epoch)):
        total += batch.rows
        arrow = max(arrow, pa.total_allocated_bytes())
        if step % 8 == 0:
            peak = max(peak, process.memory_info().rss)
    assert total == rows
    peaks.append(peak - before)
print(json.dumps({"peaks": peaks, "arrow": arrow}))
"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    sizes = map(str, (DATA, BUDGET, ROW_GROUP, EPOCHS))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path_factory.mktemp("data")), *sizes],
        capture_output=True, text=True, cwd=Path(__file__).parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_what_is_held_stays_within_the_budget(measured):
    assert max(measured["peaks"]) < BUDGET + DECODING + NOISE < DATA
    assert measured["arrow"] < DECODING  # a row group at a time, of 48


def test_later_epochs_take_no_more_than_the_first(measured):
    peaks = measured["peaks"]
    # less than a row group an epoch; the median, since one epoch may meet a busy machine
    assert statistics.median(peaks[5:]) < max(peaks[:5]) + 4 * ROW_GROUP
