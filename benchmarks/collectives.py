"""Why is DDP faster than Horovod here? Two ranks of one process and one torch thread each, on the loopback.

``all-reduce``: a buffer as long as the MLP's gradients is summed over and over, and nothing else. ``step``: the MLP is
trained on batches of 256, data in memory. A system is a backend, how it waits, and the environment it was started in:

    none           no collective: two processes that do not know of each other; what the cores can do
    ddp            DistributedDataParallel: buckets, reduced while the backward pass goes on
    torch          one flat buffer, torch.distributed's all_reduce on Gloo, after the backward pass
    distributed    Horovod's DistributedOptimizer: an all-reduce a parameter, fused by its background thread
    horovod        one flat buffer, hvd.allreduce_ after the backward pass
    horovod-poll   the same, asynchronous; the rank looks whether it is done every so many microseconds, and sleeps between
    horovod-sleep  the same, but it sleeps once, and then waits as Horovod does

Beside the speed: CPU seconds to a second of the clock, on both ranks together, of the main threads and of all others
(the cores are two), and context switches to a step, of both ranks.
"""

from __future__ import annotations

import functools
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness
import psutil
import torch
import works
from torch import Tensor, nn
from works import MLP

from sparkdl.train.collective import environment, horovod_variables, rendezvous
from sparkdl.train.gradients import Gradients
from sparkdl.train.world import World

RANKS, HOST = 2, "127.0.0.1"
BLOCKS = 5  # in which a sample's steps are timed: their median
Reduce = Callable[[Tensor], None]


@dataclass(frozen=True)
class Way:
    """variables: as in the environment of ``hvd.init()``. sleep_us: for ``horovod-poll`` and ``horovod-sleep``."""

    backend: str
    variables: tuple[tuple[str, str], ...] = ()
    sleep_us: float = 0.0
    threads: int = 1

    def __str__(self) -> str:
        told = [f"{name.removeprefix('HOROVOD_').lower()}={value}" for name, value in self.variables]
        told += [f"{self.sleep_us:g} us"] if self.sleep_us or self.backend == "horovod-poll" else []
        told += [f"{self.threads} threads"] if self.threads > 1 else []
        return ", ".join([self.backend, *told])


def horovod(backend: str = "horovod", sleep_us: float = 0.0, threads: int = 1, **variables: str) -> Way:
    named = tuple((f"HOROVOD_{name.upper()}", value) for name, value in variables.items())
    return Way(backend, named, sleep_us, threads)


# First those that stand for a way each; then one thing changed at a time.
MAIN = [Way("none"), Way("ddp"), Way("torch"), horovod("distributed"), horovod(), horovod("horovod-poll", 50)]
VARIED = [
    *(horovod(cycle_time=ms) for ms in ("0", "0.1", "0.5", "2", "5")),
    horovod(cache_capacity="0"),
    horovod("distributed", cycle_time="0.1"),
    horovod("distributed", cycle_time="5"),
    horovod("distributed", fusion_threshold="0"),
    *(horovod("horovod-poll", us) for us in (20, 200)),
    *(horovod("horovod-poll", 50, cycle_time=ms) for ms in ("0", "0.1", "0.2", "0.5")),
    *(horovod("horovod-sleep", us) for us in (200, 500, 1000)),
    *(Way(backend, threads=2) for backend in ("none", "ddp", "torch", "horovod")),
    horovod("horovod-poll", 50, threads=2),
]
WAYS = {str(way): way for way in [*MAIN, *VARIED]}
ALONE = ("torch", "horovod", "horovod-poll", "horovod-sleep")  # those that can be measured without a model


@dataclass(frozen=True)
class Usage:
    """seconds: of CPU, of the main thread and of the others. switches: voluntary and not, of all threads."""

    clock: float
    main: float
    others: float
    switches: int

    @classmethod
    def now(cls) -> Usage:
        times = {thread.id: thread.user_time + thread.system_time for thread in psutil.Process().threads()}
        main = times.pop(os.getpid())
        return cls(time.perf_counter(), main, sum(times.values()), _switches())


def _switches() -> int:
    lines = [line for path in Path("/proc/self/task").glob("*/status") for line in path.read_text().splitlines()]
    return sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)


def reducer(way: Way, buffer: Tensor) -> Reduce:
    """How ``buffer``, and each that is like it, is summed over the ranks."""
    if way.backend == "torch":
        return torch.distributed.all_reduce
    if way.backend == "none":
        return lambda tensor: None
    import horovod.torch as hvd

    if way.backend == "horovod":
        return functools.partial(hvd.allreduce_, op=hvd.Sum, name="gradients")

    def waited_for(tensor: Tensor) -> None:
        handle = hvd.allreduce_async_(tensor, op=hvd.Sum, name="gradients")
        if way.backend == "horovod-sleep":
            time.sleep(way.sleep_us * 1e-6)
        while way.backend == "horovod-poll" and not hvd.poll(handle):
            time.sleep(way.sleep_us * 1e-6)
        hvd.synchronize(handle)

    return waited_for


class _Reducing:
    """What Gradients asks of a Collective."""

    device = torch.device("cpu")

    def __init__(self, reduce: Reduce) -> None:
        self.allreduce = reduce


def all_reduce(way: Way) -> Callable[[], None]:
    """One all-reduce of as many floats as the MLP has parameters."""
    buffer = torch.zeros(sum(parameter.numel() for parameter in works.mlp().parameters()))
    reduce = reducer(way, buffer)
    return lambda: reduce(buffer)


def step(way: Way, rank: int) -> Callable[[], None]:
    """One step of training."""
    model, (x, y) = MLP.network(), MLP.tensors(256 * MLP.batch, rank)
    called, gradients, optimizer = model, None, torch.optim.Adam(model.parameters())
    if way.backend == "ddp":
        called = nn.parallel.DistributedDataParallel(model)
    elif way.backend == "distributed":
        import horovod.torch as hvd

        optimizer = hvd.DistributedOptimizer(optimizer, named_parameters=model.named_parameters())
    else:
        gradients = Gradients(model, _Reducing(reducer(way, torch.empty(0))))

    def take() -> None:
        chosen = torch.randint(len(y), (MLP.batch,))
        if gradients:
            gradients.zero()
        else:
            optimizer.zero_grad()
        loss = MLP.loss(called(x[chosen]), y[chosen])
        loss.backward()
        if gradients:
            gradients.reduce(loss.detach())
        optimizer.step()

    return take


@dataclass(frozen=True)
class Sample:
    """Runs on each rank, in a process of its own."""

    way: Way
    kind: str
    count: int
    port: int
    folder: str

    def __call__(self, rank: int) -> None:
        torch.set_num_threads(self.way.threads)
        with ExitStack() as joined:
            self._join(rank, joined)
            take = all_reduce(self.way) if self.kind == "all-reduce" else step(self.way, rank)
            for _ in range(self.count // BLOCKS):
                take()
            seconds, before = [], Usage.now()
            for _ in range(BLOCKS):
                started = time.perf_counter()
                for _ in range(self.count // BLOCKS):
                    take()
                seconds.append(time.perf_counter() - started)
            after = Usage.now()
        clock = after.clock - before.clock
        rate = self.count // BLOCKS / statistics.median(seconds)
        found = [rate, (after.main - before.main) / clock, (after.others - before.others) / clock]
        torch.save([*found, (after.switches - before.switches) / self.count], f"{self.folder}/{rank}")

    def _join(self, rank: int, stack: ExitStack) -> None:
        if self.way.backend in ("torch", "ddp", "none"):
            import torch.distributed as dist

            stack.enter_context(environment({"GLOO_SOCKET_IFNAME": "lo"}))
            dist.init_process_group("gloo", init_method=f"file://{self.folder}/meet", rank=rank, world_size=RANKS)
            stack.callback(dist.destroy_process_group)
            stack.callback(dist.barrier)
            return
        import horovod.torch as hvd

        world = World(rank, RANKS, rank, RANKS, 0, 1)
        variables = horovod_variables(world, HOST, (HOST, self.port)) | dict(self.way.variables)
        stack.enter_context(environment(variables))
        hvd.init()
        stack.callback(hvd.shutdown)
        stack.callback(hvd.barrier)


def measured(way: Way, kind: str, count: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder, rendezvous() as port:
        torch.multiprocessing.spawn(Sample(way, kind, count, port, folder), nprocs=RANKS)
        ranks: list[Any] = [torch.load(f"{folder}/{rank}") for rank in range(RANKS)]
    rate, main, others, switches = (sum(values) for values in zip(*ranks, strict=True))
    return {
        "speed 1/s": rate / RANKS,
        "CPU of main threads s/s": main,
        "CPU of other threads s/s": others,
        "switches 1/step": switches,
    }


def main() -> None:
    asked = harness.arguments(__doc__, list(WAYS))
    chosen = {name: WAYS[name] for name in asked.only or ([str(way) for way in MAIN] if asked.quick else WAYS)}
    rounds = 1 if asked.quick else 3
    found = []
    for kind, count in (("all-reduce", 2_000), ("step", 1_000)):
        ways = {name: way for name, way in chosen.items() if kind == "step" or way.backend in ALONE}
        systems = {
            name: functools.partial(measured, way, kind, count // (2 if asked.quick else 1))
            for name, way in ways.items()
        }
        found += harness.interleaved(systems, rounds, f"mlp, {kind}", warm_up=False)
    harness.report("collectives", found, asked.json)


if __name__ == "__main__":
    main()
