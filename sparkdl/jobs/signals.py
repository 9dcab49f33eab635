"""SIGTERM and SIGINT to a job: the first tells it to end, the second ends it at once."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

_NUMBERS = (signal.SIGTERM, signal.SIGINT)


@contextlib.contextmanager
def taken(told: Callable[[], None]) -> Iterator[None]:
    """While inside, call ``told`` at the first of the signals; at the second the process ends by it.

    Outside the main thread, where Python takes no signals, this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def take(number: int, _: FrameType | None) -> None:
        for each in _NUMBERS:
            signal.signal(each, _end_at_once)
        told()

    before = {number: signal.signal(number, take) for number in _NUMBERS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_at_once(number: int, _: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
