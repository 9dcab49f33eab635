"""Two ranks of one torch thread train with Adam: an MLP 50-256-128-1, and a small ConvNet on 32x32x3 images of bytes.

``sparkdl`` is a whole ``TorchEstimator.fit`` from Parquet, through a DataFrame: its epochs' speed, its seconds from call to
model, and where these go; ``sparkdl-torch`` is the same with ``collective="torch"``. The others are loops written by hand, with their data in memory already: ``horovod-loop``
(DistributedOptimizer, started by horovod.run) and ``ddp-loop`` on two processes, ``single-process`` on one with batches
twice as large. An epoch's speed is the median of all but the first, in which sparkdl reads the files.

``horovod-estimator`` is Horovod's own TorchEstimator, in an old environment that is set up for it, unless ``--quick``: its
fit is the first of a Spark session, so beside it is the first fit of a session by ``sparkdl``. A ratio is of two systems in
the same round.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import Any

import harness
import torch
import works
from torch import nn
from works import CONVNET, MLP, Work

RANKS, EPOCHS = 2, 3
ESTIMATOR = "horovod-estimator"
SYSTEMS = ["sparkdl", "sparkdl-torch", "horovod-loop", "ddp-loop", "single-process", ESTIMATOR]
RATIOS = [("sparkdl", "horovod-loop"), ("sparkdl-torch", "ddp-loop"), ("ddp-loop", "horovod-loop")]


@dataclass(frozen=True)
class Loop:
    """The loop that everyone writes; on a rank, seconds of each epoch."""

    work: Work
    epochs: int = EPOCHS

    def run(self, rank: int, ranks: int, batch: int, model: nn.Module, optimizer: Any) -> list[float]:
        torch.set_num_threads(1)
        rows, loss = self.work.rows // ranks, self.work.loss
        x, y = self.work.tensors(rows, rank)
        seconds = []
        for _ in range(self.epochs):
            started = time.monotonic()
            order = torch.randperm(rows)
            for start in range(0, rows, batch):
                chosen = order[start : start + batch]
                optimizer.zero_grad()
                loss(model(x[chosen]), y[chosen]).backward()
                optimizer.step()
            seconds.append(time.monotonic() - started)
        return seconds

    def alone(self) -> list[float]:
        model = self.work.network()
        return self.run(0, 1, self.work.batch * RANKS, model, torch.optim.Adam(model.parameters()))

    def horovod_rank(self) -> list[float]:
        import horovod.torch as hvd

        hvd.init()
        model = self.work.network()
        hvd.broadcast_parameters(model.state_dict(), root_rank=0)
        optimizer = hvd.DistributedOptimizer(
            torch.optim.Adam(model.parameters()), named_parameters=model.named_parameters()
        )
        seconds = self.run(hvd.rank(), RANKS, self.work.batch, model, optimizer)
        hvd.shutdown()
        return seconds

    def ddp_rank(self, rank: int, folder: str) -> None:
        import torch.distributed as dist

        dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=RANKS)
        model = nn.parallel.DistributedDataParallel(self.work.network())
        seconds = self.run(rank, RANKS, self.work.batch, model, torch.optim.Adam(model.parameters()))
        if rank == 0:
            torch.save(seconds, os.path.join(folder, "seconds"))
        dist.barrier()
        dist.destroy_process_group()


def by_horovod(loop: Loop) -> list[float]:
    import horovod

    return horovod.run(loop.horovod_rank, num_proc=RANKS, use_gloo=True)[0]


def by_ddp(loop: Loop) -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
        torch.multiprocessing.spawn(Ranks(loop, folder), nprocs=RANKS)
        return torch.load(os.path.join(folder, "seconds"))


@dataclass(frozen=True)
class Ranks:
    loop: Loop
    folder: str

    def __call__(self, rank: int) -> None:
        self.loop.ddp_rank(rank, self.folder)


def in_one_process(loop: Loop) -> list[float]:
    with torch.multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(loop.alone)


def figures(rows: int, seconds: list[float]) -> dict[str, float]:
    return {"throughput rows/s": rows / statistics.median(seconds[1:]), "first epoch rows/s": rows / seconds[0]}


def fitted(table: Any, work: Work, collective: str = "horovod") -> dict[str, float]:
    """A fit's figures. ``driver``: seconds of the fit that no phase has: export, checks, the bundle."""
    import sparkdl

    shapes = {"features": works.IMAGE} if work.task == "multiclass" else {}
    estimator = sparkdl.TorchEstimator(
        model=work.network, task=work.task, shapes=shapes, batchSize=work.batch, epochs=EPOCHS, numProc=RANKS,
        collective=collective, verbose=False,
    )  # fmt: skip
    started = time.monotonic()
    model = estimator.fit(table)
    whole = time.monotonic() - started
    phases = {name: seconds for name, seconds in model.summary.phases.items() if name != "validation"}
    phases["driver"] = whole - sum(phases.values())
    found = figures(work.rows, [entry["seconds"] for entry in model.history])
    return {**found, "fit s": whole, **{f"{name} s": seconds for name, seconds in phases.items()}}


def first_fit(folder: str, rows: int) -> dict[str, float]:
    """The first fit of a session that this process starts, as a user's job has it."""
    table = harness.session().read.parquet(folder)
    table.count()
    return fitted(table, MLP.of(rows))


def in_new_session(folder: str, rows: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--first-fit", folder, str(rows)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return json.loads(done.stdout.splitlines()[-1])


def measured(work: Work, rounds: int, only: list[str]) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="sparkdl-bench-") as folder:
        work.write(folder, RANKS)
        loop = Loop(work)
        systems = {
            "sparkdl": lambda: fitted(harness.session().read.parquet(folder), work),
            "sparkdl-torch": lambda: fitted(harness.session().read.parquet(folder), work, "torch"),
            "horovod-loop": lambda: figures(work.rows, by_horovod(loop)),
            "ddp-loop": lambda: figures(work.rows, by_ddp(loop)),
            "single-process": lambda: figures(work.rows, in_one_process(loop)),
        }
        chosen = {name: system for name, system in systems.items() if name in only}
        ratios = [(*pair, "throughput rows/s") for pair in RATIOS]
        return harness.interleaved(chosen, rounds, title(work), ratios=ratios)


def first_fits(work: Work, rounds: int) -> list[dict[str, Any]]:
    """sparkdl beside Horovod's TorchEstimator, each in a Spark session of its own."""
    import horovod_estimator

    with tempfile.TemporaryDirectory(prefix="sparkdl-bench-") as folder:
        work.write(folder, RANKS)
        systems = {
            ESTIMATOR: lambda: horovod_estimator.figures(work.rows, folder, EPOCHS),
            "sparkdl": lambda: in_new_session(folder, work.rows),
        }
        ratios = [("sparkdl", ESTIMATOR, "fit s"), ("sparkdl", ESTIMATOR, "throughput rows/s")]
        name = f"{title(work)}, a session's first fit"
        return harness.interleaved(systems, rounds, name, ratios=ratios, warm_up=False)


def title(work: Work) -> str:
    of = "32x32x3 bytes" if work.name == "convnet" else f"{works.FEATURES} floats"
    return f"{work.name}, {work.rows:,} rows x {of}, {EPOCHS} epochs"


def main() -> None:
    if "--first-fit" in sys.argv:
        print(json.dumps(first_fit(sys.argv[-2], int(sys.argv[-1]))))
        return
    asked = harness.arguments(__doc__, SYSTEMS)
    only = asked.only or (SYSTEMS[:-1] if asked.quick else SYSTEMS)
    mlp, convnet = (MLP.of(100_000), CONVNET.of(4_000)) if asked.quick else (MLP, CONVNET)
    found = []
    if set(only) - {ESTIMATOR}:
        found += measured(mlp, 2 if asked.quick else 3, only)
        found += measured(convnet, 1 if asked.quick else 3, only)
    if ESTIMATOR in only:
        found += first_fits(mlp, 1 if asked.quick else 3)
    harness.report("training", found, asked.json)


if __name__ == "__main__":
    main()
