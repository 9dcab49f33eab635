"""One barrier stage, one rank a task: ``launch(spark, main, size)`` runs ``main`` on every rank.

A task learns its peers from BarrierTaskContext, numbers the ranks as every other task does, joins them, and runs
``main``. What it raises travels back as data, so that the driver can name the rank that failed first rather than one
that failed because of it. Trying again after a rank was lost is ``supervisor``'s part.
"""

from __future__ import annotations

import contextlib
import json
import pickle
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cloudpickle
import pyarrow as pa
import torch

from sparkdl import program, session
from sparkdl.errors import LaunchError, RanksLostError, SparkdlError
from sparkdl.train import collective, messages, pulse
from sparkdl.train import failure as failures
from sparkdl.train.collective import Seat
from sparkdl.train.failure import Failure
from sparkdl.train.messages import Handler, Mailbox, Message
from sparkdl.train.pulse import Watch
from sparkdl.train.world import World, assign_worlds

if TYPE_CHECKING:
    from pyspark import BarrierTaskContext
    from pyspark.sql import SparkSession

_RESULT = "rank int, answer binary, messages string"
_SCHEMA = pa.schema([("rank", pa.int32()), ("answer", pa.binary()), ("messages", pa.string())])


def launch(
    spark: SparkSession,
    main: Callable[[Any], Any],
    size: int,
    *,
    backend: str = "auto",
    on_message: Handler | None = None,
    watch: Watch | None = None,
) -> Any:
    """Run ``main(collective)`` on ``size`` ranks on the executors; returns what rank 0 returned.

    Waits for other launches in this process whose ranks leave too few slots.

    backend: ``horovod``, ``torch``, or ``auto``: Horovod unless a rank has none. ``environment``: Horovod's variables
        are set but nothing is joined, and ``main`` gets the World: for functions that call ``hvd.init()`` themselves.
    on_message: called on the driver with each message that ranks send while they run, but not with their pulses.
    watch: hears the pulses; what its ``check`` raises ends the ranks and is raised.

    Raises NotEnoughSlotsError before anything starts; the rank's own SparkdlError, or RankFailedError with its
    traceback, if ``main`` raised; RanksLostError if a rank died; LaunchError if the Spark job failed otherwise.
    """
    session.check_worker_python(spark)
    session.check_slots(spark, size)
    session.let_jvm_end()
    handler = _handler(on_message, watch)
    with contextlib.ExitStack() as stack:
        stack.enter_context(session.slots_taken(spark, size))
        host = session.driver_host(spark)
        listens = host and (on_message or watch)
        mailbox = stack.enter_context(messages.listening(host, handler)) if host and listens else None
        task = _Task(
            program.pickle(main, "the training function"), backend, mailbox, watch.stall_timeout if watch else None
        )
        ranks = spark.range(0, size, 1, size)
        try:
            rows = session.collect(ranks.mapInArrow(task, _RESULT, barrier=True), check=_check(spark, size, watch))
        except SparkdlError:
            raise
        except Exception as error:  # Py4J's, PySpark's and gRPC's errors share no base
            raise _job_failed(error, size, watch) from error
    for row in rows:
        for message in json.loads(row.messages):
            handler(message)
    answers = {row.rank: pickle.loads(row.answer) for row in rows}  # our own executors', as in any Spark collect
    failure = failures.first(answer for answer in answers.values() if isinstance(answer, Failure))
    if failure:
        raise failure.exception()
    return answers[0]


def _handler(on_message: Handler | None, watch: Watch | None) -> Handler:
    def handle(message: Message) -> None:
        if message["kind"] == "pulse":
            if watch:
                watch.hear(message)
        elif on_message:
            on_message(message)

    return handle


def _check(spark: SparkSession, size: int, watch: Watch | None) -> Callable[[], None] | None:
    """What is checked while the ranks run: that they are alive, and until the first is heard, that they can start."""
    if watch is None:
        return None
    short_since: list[float] = []

    def check() -> None:
        watch.check()
        if watch.heard_any():
            return
        slots = session.free_slots(spark)
        if slots is None or slots >= size:
            short_since.clear()
            return
        short_since.append(time.monotonic())
        if short_since[-1] - short_since[0] >= session.REGISTRATION_S:  # Spark itself would wait for ever
            reason = f"the cluster shrank to {slots} slots before the {size} ranks began"
            raise RanksLostError(reason, reason=reason)

    return check


def _job_failed(error: Exception, size: int, watch: Watch | None) -> LaunchError:
    loss = failures.loss_in(str(error))
    if loss is None:
        return LaunchError(f"the Spark job that ran the {size} ranks failed: {_first_lines(error)}")
    known = watch.who(loss.task) if watch and loss.task is not None else None
    who = known or (f"the barrier task {loss.task} of {size}" if loss.task is not None else f"one of the {size} ranks")
    return RanksLostError(f"{who} died: {loss.reason}", reason=f"{who} died: {loss.reason}")


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
    stall_timeout: float | None

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from pyspark import BarrierTaskContext

        for _ in batches:
            pass
        context = BarrierTaskContext.get()
        seat = take_seat(context)
        rank, host = seat.world.rank, seat.hosts[seat.world.rank]
        torch.set_num_threads(max(1, context.cpus()))  # every rank with every core's threads is slower
        with messages.sending(self.mailbox) as sender, pulse.beating(rank, host, task=context.partitionId()):
            try:
                value = self._run(seat)
                answer = cloudpickle.dumps(value if seat.world.is_chief else None)
            except Exception as error:  # whatever main raised belongs to the driver
                answer = pickle.dumps(Failure.of(error, rank, host))
        row = {"rank": rank, "answer": answer, "messages": json.dumps(sender.undelivered)}
        yield pa.RecordBatch.from_pylist([row], schema=_SCHEMA)

    def _run(self, seat: Seat) -> Any:
        def prepare() -> Any:
            if seat.device.type == "cuda":
                torch.cuda.set_device(seat.device)
            return cloudpickle.loads(self.main)

        pulse.mark(pulse.BEGIN)
        if self.backend == "environment":
            with collective.meet(seat, self.backend, prepare) as met:
                variables = collective.horovod_variables(seat.world, seat.address, met.place)
                with collective.environment(variables), _leaving_together(seat):
                    pulse.mark(pulse.START)
                    return met.prepared(seat.world)
        limit = collective.environment(_backstop(self.stall_timeout))
        with limit, collective.join(seat, self.backend, prepare) as (joined, main):
            if seat.world.is_chief:
                messages.send("joined", backend=joined.backend, size=seat.world.size, device=seat.device.type)
            pulse.mark(pulse.START)
            return main(joined)


def _backstop(stall_timeout: float | None) -> dict[str, str]:
    """Horovod's own limit for ranks that wait for one that does not come, in whole seconds, if there is to be one.

    It is for runs whose pulses do not reach the driver. It counts from when the first rank began to wait and cannot
    tell a stalled rank from a busy one, hence the factor. Below HOROVOD_STALL_CHECK_TIME_SECONDS (60 by default) Horovod
    ignores it (horovod/common/stall_inspector.cc, CheckForStalledTensors).
    """
    if stall_timeout is None:
        return {}
    return {"HOROVOD_STALL_SHUTDOWN_TIME_SECONDS": str(max(120, round(3 * stall_timeout)))}


def take_seat(context: BarrierTaskContext) -> Seat:
    """This task's Seat among its peers, from what Spark tells all of them alike."""
    hosts = [info.address.rsplit(":", 1)[0] for info in context.getTaskInfos()]
    worlds, mine = assign_worlds(hosts), context.partitionId()
    tasks = sorted(range(len(hosts)), key=lambda task: worlds[task].rank)
    gpus = context.resources().get("gpu")

    def exchange(text: str) -> list[str]:
        with pulse.waiting():
            gathered = context.allGather(text)
        return [gathered[task] for task in tasks]

    return Seat(
        worlds[mine],
        [hosts[task] for task in tasks],
        socket.gethostbyname(hosts[mine]),
        _device(worlds[mine], gpus.addresses[0] if gpus else None),
        exchange,
    )


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
