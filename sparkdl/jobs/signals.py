"""SIGTERM and SIGINT to a job: the first tells it to end, a second ends it at once.

Under spark-submit Python is the child of a JVM, and whoever ends a job (systemd, Kubernetes, YARN) signals the JVM, which
by itself would end with all that runs in it. So the JVM is asked to hand on what it gets: ``handed_on``.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

NUMBERS = (signal.SIGTERM, signal.SIGINT)
SAME_S = 1.0  # signals that are as near to each other are one: a terminal, and systemd, send it to JVM and Python
HANDED_ON_S = 5.0  # what the JVM hands on so soon after the first signal is the first once more: a busy JVM is slow
_first: float | None = None  # when, of the signals that are taken


@contextlib.contextmanager
def taken(told: threading.Event, interrupt: Callable[[], None] = lambda: None) -> Iterator[None]:
    """While inside, the first of the signals sets ``told``, in a thread: the main thread may be about to wait for it, with its
    lock in hand. Then ``interrupt`` is called in the main thread. At a second the process ends, with status 128 + its
    number, whatever the main thread does.

    Outside the main thread, where Python takes no signals, this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ours, theirs = socket.socketpair()  # Python writes each signal's number into it at once, also while C code runs
    theirs.setblocking(False)
    is_told = False

    def take(*_: Any) -> None:
        nonlocal is_told
        if not is_told:
            is_told = True
            interrupt()

    before = {number: signal.signal(number, take) for number in NUMBERS}
    wakeup = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    watcher = threading.Thread(target=_watch, args=(ours, told), name="sparkdl-signals", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        theirs.close()
        watcher.join()
        ours.close()


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Put the handlers back at the end: a SparkContext sets one of its own for SIGINT."""
    before = {number: signal.getsignal(number) for number in NUMBERS}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


def _watch(numbers: socket.socket, told: threading.Event) -> None:
    """Tell of the first signal, end the process at the second."""
    global _first
    while found := numbers.recv(1):
        if found[0] not in NUMBERS:
            continue
        if _first is None:
            _first = time.monotonic()
            told.set()
        elif time.monotonic() - _first > SAME_S:
            os._exit(128 + found[0])
    _first = None


class _HandOn:
    """A sun.misc.SignalHandler: the JVM's signal becomes this process's."""

    def handle(self, received: Any) -> None:
        if _first is None or time.monotonic() - _first > HANDED_ON_S:
            os.kill(os.getpid(), received.getNumber())

    class Java:
        implements: ClassVar = ["sun.misc.SignalHandler"]


@contextlib.contextmanager
def handed_on(spark: SparkSession) -> Iterator[None]:
    """While inside, what the JVM of a classic session is sent comes to this process, and the JVM goes on."""
    from pyspark.java_gateway import ensure_callback_server_started

    gateway = spark.sparkContext._gateway
    ensure_callback_server_started(gateway)
    signals = gateway.jvm.sun.misc.Signal
    before = [(name, signals.handle(signals(name), _HandOn())) for name in ("TERM", "INT")]
    try:
        yield
    finally:
        for name, handler in before:
            signals.handle(signals(name), handler)
