"""One barrier stage, one rank a task: ``launch(spark, main, size)`` runs ``main`` on every rank.

A task learns its peers from BarrierTaskContext, numbers the ranks as every other task does, joins them, and runs
``main``. What it raises travels back as data, so that the driver can name the rank that failed first rather than one
that failed because of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cloudpickle
import pyarrow as pa
import torch

from sparkdl import program
from sparkdl.errors import LaunchError, NotEnoughSlotsError
from sparkdl.train import collective, messages
from sparkdl.train import failure as failures
from sparkdl.train.collective import Seat
from sparkdl.train.failure import Failure
from sparkdl.train.messages import Handler, Mailbox
from sparkdl.train.world import World, assign_worlds

if TYPE_CHECKING:
    from pyspark import BarrierTaskContext
    from pyspark.sql import SparkSession

_RESULT = "rank int, answer binary, messages string"
_SCHEMA = pa.schema([("rank", pa.int32()), ("answer", pa.binary()), ("messages", pa.string())])
REGISTRATION_S = 30.0  # executors of a cluster register within this of the application's start


def launch(
    spark: SparkSession,
    main: Callable[[Any], Any],
    size: int,
    *,
    backend: str = "auto",
    on_message: Handler | None = None,
) -> Any:
    """Run ``main(collective)`` on ``size`` ranks on the executors; returns what rank 0 returned.

    backend: ``horovod``, ``torch``, or ``auto``: Horovod unless a rank has none. ``environment``: Horovod's variables
        are set but nothing is joined, and ``main`` gets the World: for functions that call ``hvd.init()`` themselves.
    on_message: called on the driver with each message that ranks send while they run.

    Raises NotEnoughSlotsError before anything starts; the rank's own SparkdlError, or RankFailedError with its
    traceback, if ``main`` raised; LaunchError if the Spark job failed.
    """
    check_slots(spark, size)
    handler = on_message or (lambda message: None)
    with contextlib.ExitStack() as stack:
        host = driver_host(spark)
        mailbox = stack.enter_context(messages.listening(host, handler)) if on_message and host else None
        task = _Task(program.pickle(main, "the training function"), backend, mailbox)
        ranks = spark.range(0, size, 1, size)
        try:
            rows = ranks.mapInArrow(task, _RESULT, barrier=True).collect()
        except Exception as error:  # Py4J's, PySpark's and gRPC's errors share no base
            raise LaunchError(f"the Spark job that ran the {size} ranks failed: {_first_lines(error)}") from error
    for row in rows:
        for message in json.loads(row.messages):
            handler(message)
    answers = {row.rank: pickle.loads(row.answer) for row in rows}  # our own executors', as in any Spark collect
    failure = failures.first(answer for answer in answers.values() if isinstance(answer, Failure))
    if failure:
        raise failure.exception()
    return answers[0]


def _first_lines(error: Exception, limit: int = 20) -> str:
    """The useful part of Spark's message: without the JVM's stack."""
    lines = [line for line in str(error).splitlines() if not line.startswith("\tat ")]
    return "\n".join(lines[:limit])


@dataclass(frozen=True)
class _Task:
    """Runs in a barrier task: becomes a rank."""

    main: bytes
    backend: str
    mailbox: Mailbox | None

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from pyspark import BarrierTaskContext

        for _ in batches:
            pass
        context = BarrierTaskContext.get()
        with messages.sending(self.mailbox) as sender:
            seat, backend = take_seat(context, self.backend)
            torch.set_num_threads(max(1, context.cpus()))  # every rank with every core's threads is slower
            rank, host = seat.world.rank, seat.addresses[seat.world.rank]
            try:
                value = self._run(seat, backend)
                answer = cloudpickle.dumps(value if seat.world.is_chief else None)
            except Exception as error:  # whatever main raised belongs to the driver
                answer = pickle.dumps(Failure.of(error, rank, host))
        row = {"rank": rank, "answer": answer, "messages": json.dumps(sender.undelivered)}
        yield pa.RecordBatch.from_pylist([row], schema=_SCHEMA)

    def _run(self, seat: Seat, backend: str) -> Any:
        main = cloudpickle.loads(self.main)
        if seat.device.type == "cuda":
            torch.cuda.set_device(seat.device)
        if backend == "environment":
            with collective.horovod_environment(seat), _leaving_together(seat):
                return main(seat.world)
        if seat.world.is_chief:
            messages.send("joined", backend=backend, size=seat.world.size, device=seat.device.type)
        with collective.join(seat, backend) as joined:
            return main(joined)


def take_seat(context: BarrierTaskContext, wanted: str) -> tuple[Seat, str]:
    """This task's Seat among its peers, and the backend that all of them will use."""
    gpus = context.resources().get("gpu")
    told = {
        "address": socket.gethostbyname(context.getTaskInfos()[context.partitionId()].address.rsplit(":", 1)[0]),
        "gpu": gpus.addresses[0] if gpus else None,
        "problem": collective.horovod_problem() if wanted in ("auto", "horovod") else None,
    }
    peers = [json.loads(text) for text in context.allGather(json.dumps(told))]
    worlds = assign_worlds([peer["address"] for peer in peers])
    mine = context.partitionId()
    tasks = sorted(range(len(peers)), key=lambda task: worlds[task].rank)

    def exchange(text: str) -> list[str]:
        gathered = context.allGather(text)
        return [gathered[task] for task in tasks]

    seat = Seat(worlds[mine], [peers[task]["address"] for task in tasks], _device(worlds[mine], told["gpu"]), exchange)
    if wanted == "environment":
        return seat, wanted
    return seat, collective.choose_backend(wanted, [peers[task]["problem"] for task in tasks])


def _device(world: World, gpu: str | None) -> torch.device:
    """The GPU that Spark assigned, else one by local rank if there are enough, else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    if gpu is not None:
        return torch.device("cuda", int(gpu) if int(gpu) < torch.cuda.device_count() else 0)
    if world.local_size <= torch.cuda.device_count():
        return torch.device("cuda", world.local_rank)
    return torch.device("cpu")


@contextlib.contextmanager
def _leaving_together(seat: Seat) -> Iterator[None]:
    """Horovod, if ``main`` started it, is shut down when all ranks are done, or at once on an error."""
    import horovod.torch as hvd

    try:
        yield
        if hvd.is_initialized():
            hvd.barrier()
    finally:
        hvd.shutdown()


def check_slots(spark: SparkSession, size: int) -> None:
    """Raise NotEnoughSlotsError if fewer tasks than ``size`` can run at a time, after waiting for a young cluster's
    executors to register."""
    if is_connect(spark):
        available = slots_of_master(spark.conf.get("spark.master", ""), os.cpu_count() or 1)
    else:
        dynamic = spark.sparkContext.getConf().get("spark.dynamicAllocation.enabled", "false")
        if dynamic == "true":
            raise LaunchError(
                "ranks start together in a barrier stage, which Spark does not run with dynamic allocation; "
                "set spark.dynamicAllocation.enabled=false and spark.executor.instances (SPARK-24942)"
            )
        available = _registered_slots(spark, size)
    if available is not None and available < size:
        raise NotEnoughSlotsError(
            f"{size} ranks need {size} task slots at the same time, and the cluster has {available}; "
            "set numProc (np) lower, or give the application more executors or cores",
            needed=size, available=available,
        )


def free_slots(spark: SparkSession) -> int | None:
    """How many tasks can run at a time; None if that cannot be told (Spark Connect to a cluster)."""
    if is_connect(spark):
        return slots_of_master(spark.conf.get("spark.master", ""), os.cpu_count() or 1)
    context = spark.sparkContext._jsc.sc()  # the number that Spark's own barrier check uses (SPARK-24819)
    return int(context.maxNumConcurrentTasks(context.resourceProfileManager().defaultResourceProfile()))


def _registered_slots(spark: SparkSession, size: int) -> int:
    slots = free_slots(spark) or 0
    is_local = spark.sparkContext.master.startswith("local[") or spark.sparkContext.master == "local"
    deadline = spark.sparkContext.startTime / 1000 + REGISTRATION_S
    while slots < size and not is_local and time.time() < deadline:
        time.sleep(0.1)
        slots = free_slots(spark) or 0
    return slots


def slots_of_master(master: str, cores: int) -> int | None:
    """Task slots that a local master's URL promises, on a machine of ``cores``; None for a cluster's."""
    if master == "local":
        return 1
    if master.startswith("local-cluster["):
        workers, per_worker, _ = master[len("local-cluster[") : -1].split(",")
        return int(workers) * int(per_worker)
    if master.startswith("local["):
        threads = master[len("local[") : -1].split(",")[0].strip()
        return cores if threads == "*" else int(threads)
    return None


def is_connect(spark: SparkSession) -> bool:
    """True for a Spark Connect session, which has no SparkContext."""
    return ".connect." in type(spark).__module__


def driver_host(spark: SparkSession) -> str | None:
    """The address at which executors reach this process; None if it cannot be told."""
    if not is_connect(spark):
        if spark.sparkContext.master.startswith("local"):
            return "127.0.0.1"
        return str(spark.sparkContext.getConf().get("spark.driver.host", "127.0.0.1"))
    server = str(spark.client.host).rsplit(":", 1)[0]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:  # connecting a datagram socket sends nothing
        try:
            probe.connect((server, 9))
        except OSError:
            return None
        return str(probe.getsockname()[0])
