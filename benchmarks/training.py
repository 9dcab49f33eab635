"""Training an MLP 50-256-128-1 with Adam, batch 256 a rank, two ranks of one torch thread: rows a second of an epoch.

``sparkdl`` is a whole ``TorchEstimator.fit`` from a DataFrame: its epochs' speed, and its seconds from call to model.
The others are hand-written loops with their data in memory already: ``horovod-loop`` and ``ddp-loop`` on two processes,
``single-process`` on one with a batch of 512. An epoch's speed is the median of all but the first.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path

import harness
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import nn

FEATURES, BATCH, RANKS, EPOCHS = 50, 256, 2, 3
SYSTEMS = ["sparkdl", "horovod-loop", "ddp-loop", "single-process"]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(FEATURES, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 1))


def data(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    x = random.standard_normal((rows, FEATURES), dtype=np.float32)
    return x, x[:, :5].sum(axis=1) + 0.1 * random.standard_normal(rows, dtype=np.float32)


def epochs(rows: int, seed: int, batch: int, model: nn.Module, optimizer) -> list[float]:
    """The loop that everyone writes; seconds of each epoch."""
    torch.set_num_threads(1)
    x, y = (torch.from_numpy(array) for array in data(rows, seed))
    seconds = []
    for _ in range(EPOCHS):
        started = time.monotonic()
        order = torch.randperm(rows)
        for start in range(0, rows, batch):
            chosen = order[start : start + batch]
            optimizer.zero_grad()
            nn.functional.mse_loss(model(x[chosen]).squeeze(1), y[chosen]).backward()
            optimizer.step()
        seconds.append(time.monotonic() - started)
    return seconds


def single(rows: int) -> list[float]:
    model = network()
    return epochs(rows, 0, BATCH * RANKS, model, torch.optim.Adam(model.parameters()))


def horovod_rank(rows: int) -> list[float]:
    import horovod.torch as hvd

    hvd.init()
    model = network()
    hvd.broadcast_parameters(model.state_dict(), root_rank=0)
    optimizer = hvd.DistributedOptimizer(
        torch.optim.Adam(model.parameters()), named_parameters=model.named_parameters()
    )
    return epochs(rows // RANKS, hvd.rank(), BATCH, model, optimizer)


def ddp_rank(rank: int, rows: int, folder: str) -> None:
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=RANKS)
    model = nn.parallel.DistributedDataParallel(network())
    seconds = epochs(rows // RANKS, rank, BATCH, model, torch.optim.Adam(model.parameters()))
    if rank == 0:
        torch.save(seconds, os.path.join(folder, "seconds"))
    dist.barrier()
    dist.destroy_process_group()


def ddp(rows: int) -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
        torch.multiprocessing.spawn(ddp_rank, (rows, folder), nprocs=RANKS)
        return torch.load(os.path.join(folder, "seconds"))


def horovod(rows: int) -> list[float]:
    from sparkdl import HorovodRunner

    return HorovodRunner(np=-RANKS).run(horovod_rank, rows=rows)


def alone(rows: int) -> list[float]:
    with torch.multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(single, (rows,))


def figures(rows: int, seconds: list[float]) -> dict[str, float]:
    return {"throughput rows/s": rows / statistics.median(seconds[1:])}


def fitted(table, rows: int) -> dict[str, float]:
    import sparkdl

    estimator = sparkdl.TorchEstimator(
        model=network, task="regression", batchSize=BATCH, epochs=EPOCHS, numProc=RANKS, verbose=False
    )
    started = time.monotonic()
    model = estimator.fit(table)
    whole = time.monotonic() - started
    return figures(rows, [entry["seconds"] for entry in model.history]) | {"fit s": whole}


def main() -> None:
    asked = harness.arguments(__doc__, SYSTEMS)
    rows = 100_000 if asked.quick else 400_000
    with tempfile.TemporaryDirectory(prefix="sparkdl-bench-") as folder:
        for i in range(RANKS):
            x, y = data(rows // RANKS, i)
            features = pa.ListArray.from_arrays(np.arange(len(x) + 1, dtype=np.int32) * FEATURES, x.ravel())
            pq.write_table(pa.table({"features": features, "label": y}), Path(folder) / f"{i}.parquet")
        table = harness.session().read.parquet(folder)
        systems = {
            "sparkdl": lambda: fitted(table, rows),
            "horovod-loop": lambda: figures(rows, horovod(rows)),
            "ddp-loop": lambda: figures(rows, ddp(rows)),
            "single-process": lambda: figures(rows, alone(rows)),
        }
        chosen = {name: systems[name] for name in asked.only or SYSTEMS}
        found = harness.interleaved(
            chosen, 1 if asked.quick else 5, f"mlp, {rows:,} rows x {FEATURES} floats, {EPOCHS} epochs"
        )
    harness.report("training", found, asked.json)


if __name__ == "__main__":
    main()
