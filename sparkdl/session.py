"""What must be known of a Spark session before anything runs on it: its slots, its workers' Python, its driver's address."""

from __future__ import annotations

import atexit
import collections
import contextlib
import functools
import importlib.util
import logging
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, TypeVar

from sparkdl.errors import LaunchError, NotEnoughSlotsError, WorkerPythonError
from sparkdl.system import slots_of_master

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, Row, SparkSession

REGISTRATION_S = 30.0  # executors of a cluster register within this of the application's start
_NEEDED = ("pyarrow", "torch", "sparkdl")
_CHECK_EVERY_S = 0.5
T = TypeVar("T")
logger = logging.getLogger(__name__)


def for_job(name: str) -> SparkSession:
    """The session of a spark-submit job; workers run the driver's Python unless PYSPARK_PYTHON says otherwise."""
    from pyspark.sql import SparkSession

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    return SparkSession.builder.appName(name).getOrCreate()


def is_there() -> bool:
    """True if this process has a Spark session already."""
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

    return SparkContext._active_spark_context is not None or SparkSession.getActiveSession() is not None


def current() -> SparkSession:
    """The session of this thread, or the one that there is."""
    from pyspark.sql import SparkSession

    return SparkSession.getActiveSession() or SparkSession.builder.getOrCreate()


@functools.cache
def let_jvm_end() -> None:
    """See to it that spark-submit's JVM ends when this Python does, although a barrier stage ran in it.

    Spark 3.5 starts a timer for barriers whose thread is no daemon, and which nothing cancels: in local mode, where
    tasks run in the driver's JVM, that JVM would live on after its program (seen on 3.5.9; Spark 4 has no such timer).
    """
    import pyspark

    if pyspark.__version__ < "4":
        atexit.register(_cancel_barrier_timer)


def _cancel_barrier_timer() -> None:
    from py4j.protocol import Py4JError  # type: ignore[import-untyped,import-not-found]
    from pyspark import SparkContext

    with contextlib.suppress(Py4JError, OSError):  # the JVM is gone, and the timer with it
        barrier = getattr(getattr(SparkContext._jvm.org.apache.spark, "BarrierTaskContext$"), "MODULE$")
        getattr(barrier, "org$apache$spark$BarrierTaskContext$$timer")().cancel()


def check_worker_python(spark: SparkSession) -> None:
    """Raise WorkerPythonError if the workers of a local master run a Python that lacks what ours has.

    Spark runs ``PYSPARK_PYTHON``, else the first ``python3`` on the PATH, whatever Python the driver is. A cluster's
    workers cannot be asked from here; there ``raise_if_worker_lacks`` explains what they say.
    """
    if is_connect(spark) or not spark.sparkContext.master.startswith("local"):
        return
    missing = _missing(spark.sparkContext.pythonExec)
    if missing:
        raise _worker_python_error(spark.sparkContext.pythonExec, missing)


@functools.cache
def _missing(python: str) -> str | None:
    """Which needed package this Python lacks, if any."""
    path = shutil.which(python)
    if path and os.path.abspath(path) == os.path.abspath(sys.executable):
        return None
    packages = [name for name in _NEEDED if importlib.util.find_spec(name)]
    script = f"import importlib.util as u; print(*[n for n in {packages!r} if u.find_spec(n) is None][:1], end='')"
    try:
        found = subprocess.run([python, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return f"cannot be run: {error}"
    return found.stdout or None


def raise_if_worker_lacks(error: Exception) -> None:
    """Raise WorkerPythonError from ``error`` if a worker failed because a package is not installed there."""
    found = re.search(r"ModuleNotFoundError: No module named '([\w.]+)'", str(error))
    if found:
        raise _worker_python_error(None, found[1]) from error


def _worker_python_error(python: str | None, missing: str) -> WorkerPythonError:
    return WorkerPythonError(
        f"the Spark workers' Python ({python or 'on the executors'}) has no package {missing!r}. Spark runs "
        "PYSPARK_PYTHON there, or else the first python3 on the PATH. Before the session is made, set it to a Python "
        f"that has sparkdl and the packages of the model: export PYSPARK_PYTHON={sys.executable}; send modules of your "
        "own with --py-files, and to a cluster the whole environment, as python -m sparkdl pack makes it",
        python=python,
        missing=missing,
    )


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
            needed=size,
            available=available,
        )


def free_slots(spark: SparkSession) -> int | None:
    """How many tasks can run at a time; None if that cannot be told (Spark Connect to a cluster)."""
    if is_connect(spark):
        return slots_of_master(spark.conf.get("spark.master", ""), os.cpu_count() or 1)
    context = spark.sparkContext._jsc.sc()  # the number that Spark's own barrier check uses (SPARK-24819)
    return int(context.maxNumConcurrentTasks(context.resourceProfileManager().defaultResourceProfile()))


def _registered_slots(spark: SparkSession, size: int) -> int:
    if spark.sparkContext.master.startswith("local[") or spark.sparkContext.master == "local":
        return free_slots(spark) or 0
    left = spark.sparkContext.startTime / 1000 + REGISTRATION_S - time.time()
    return await_slots(spark, size, left) or 0


def await_slots(spark: SparkSession, size: int, seconds: float) -> int | None:
    """How many tasks can run at a time, as soon as that are ``size`` or more, or after ``seconds``: a lost executor may
    be replaced. None if it cannot be told."""
    deadline = time.monotonic() + seconds
    while True:
        slots = free_slots(spark)
        if slots is None or slots >= size or time.monotonic() >= deadline:
            return slots
        time.sleep(0.2)


class Gate:
    """Lets launches in, first come first served, as long as all that are in have a slot a rank.

    A barrier stage starts all its tasks or none. Several of them at once, as CrossValidator(parallelism=2) asks for,
    must not wait for each other's slots.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: collections.deque[object] = collections.deque()
        self._in_use = 0

    @contextlib.contextmanager
    def entered(self, ranks: int, slots: Callable[[], int | None]) -> Iterator[None]:
        """Wait until ``ranks`` more fit into what ``slots`` says there is (None, unknown: one launch at a time)."""
        me = object()
        with self._changed:
            self._waiting.append(me)
            try:
                is_told = False
                while not (self._waiting[0] is me and self._fits(ranks, slots)):
                    if not is_told:
                        logger.warning(
                            "a launch of %d ranks waits: launches before it use %d slots", ranks, self._in_use
                        )
                        is_told = True
                    self._changed.wait()
                self._in_use += ranks
            finally:
                self._waiting.remove(me)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._in_use -= ranks
                self._changed.notify_all()

    def _fits(self, ranks: int, slots: Callable[[], int | None]) -> bool:
        return not self._in_use or self._in_use + ranks <= (slots() or 0)


_gates: collections.defaultdict[str, Gate] = collections.defaultdict(Gate)


def slots_taken(spark: SparkSession, size: int) -> contextlib.AbstractContextManager[None]:
    """Hold ``size`` slots until the block ends; waits for other launches of this process in the same application."""
    application = str(spark.client.host) if is_connect(spark) else str(spark.sparkContext.applicationId)
    return _gates[application].entered(size, lambda: free_slots(spark))


def collect(df: DataFrame, check: Callable[[], None] | None = None) -> list[Row]:
    """``df.collect()``, its tasks ended if the caller is interrupted; ``check`` as in ``stoppable``.

    Raises WorkerPythonError if a worker lacks a package.
    """
    return stoppable(df.sparkSession, lambda: list(df.collect()), check)


def stoppable(spark: SparkSession, work: Callable[[], T], check: Callable[[], None] | None = None) -> T:
    """What ``work`` returns, which runs Spark jobs; they end, also those that it starts later, if the caller is interrupted,
    by Ctrl-C say, and so does this call when ``work`` has ended.

    check: called twice a second meanwhile; what it raises ends the jobs and is raised.

    Raises WorkerPythonError if a worker lacks a package.

    Spark would let them run on: on the connection on which the main thread waits for a job, PySpark's handler of Ctrl-C
    cannot cancel it (Spark 3.5 raises Py4JError for it), and Spark Connect does not try. So another thread waits.
    """
    import pyspark
    from py4j.protocol import Py4JError  # type: ignore[import-untyped,import-not-found]
    from pyspark import inheritable_thread_target

    tag = f"sparkdl-{uuid.uuid4().hex}"
    tags = spark if is_connect(spark) else spark.sparkContext
    add, remove, cancel = (
        (tags.addTag, tags.removeTag, tags.interruptTag)
        if tags is spark
        else (tags.addJobTag, tags.removeJobTag, tags.cancelJobsWithTag)
    )

    if pyspark.__version__ >= "4":
        inherit = inheritable_thread_target(spark)
    else:  # 3.5 takes the function alone, and only a classic session has local properties to inherit
        inherit = (lambda function: function) if tags is spark else inheritable_thread_target

    def run() -> T:
        add(tag)
        try:
            return work()
        finally:  # the JVM's thread serves others too where threads are not pinned, as in Zeppelin
            with contextlib.suppress(Py4JError, OSError):  # the JVM is gone, and the tag with it
                remove(tag)

    with ThreadPoolExecutor(1, thread_name_prefix="sparkdl-work") as thread:
        job = thread.submit(inherit(run))
        try:
            while check and not wait([job], timeout=_CHECK_EVERY_S).done:
                check()
            return job.result()
        except Exception as error:  # Py4J's, PySpark's and gRPC's errors share no base
            raise_if_worker_lacks(error)
            raise
        finally:
            while not job.done():  # between two of its jobs there is none to cancel: the next one will be
                cancel(tag)
                wait([job], timeout=_CHECK_EVERY_S)


def is_alive(spark: SparkSession) -> bool:
    """False when the session's JVM is gone, or its application has ended."""
    from py4j.protocol import Py4JError  # type: ignore[import-untyped,import-not-found]

    if is_connect(spark):
        return not spark.is_stopped
    try:
        return not spark.sparkContext._jsc.sc().isStopped()
    except (AttributeError, OSError, Py4JError):
        return False


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
