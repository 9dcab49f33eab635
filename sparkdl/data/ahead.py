"""Making items in a thread while the caller works on the one before."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")
Make = Callable[[threading.Event], Generator[T, None, None]]


def ahead(make: Make[T]) -> Generator[T, None, None]:
    """The items of ``make(stopped)`` in their order, each made in a thread while the caller has the one before.

    Item ``k + 1`` is not begun before the caller has asked for item ``k``. So at most two are alive, the caller's and
    the one being made, and what makes them may use the memory of item ``k - 1`` for item ``k + 1``.

    An error in making an item is raised to the caller in its place. The thread starts when the first item is asked
    for, and ends when this generator does: exhausted, closed or failed. ``stopped`` is then set: what takes long to make an
    item should look at it, and return; after a second it is waited for no longer. The generator that ``make`` gives is
    closed in the thread.
    """
    hands = _Hands()
    thread = threading.Thread(target=hands.work, args=(make,), name="sparkdl-ahead", daemon=True)
    thread.start()
    try:
        while True:
            hands.asked.release()
            made = hands.made.get()
            if made is _END:
                return
            if isinstance(made, _Failure):
                raise made.error
            yield made
            del made
    finally:
        hands.stopped.set()
        hands.asked.release()
        thread.join(_PATIENCE_S)


_END = object()
_PATIENCE_S = 1.0


@dataclass(frozen=True)
class _Failure:
    error: BaseException


class _Hands:
    """What the two threads share."""

    def __init__(self) -> None:
        self.asked = threading.Semaphore(1)  # the first item is begun before anyone asks for it
        self.made: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.stopped = threading.Event()

    def work(self, make: Make[Any]) -> None:
        try:
            with closing(make(self.stopped)) as items:
                while True:
                    self.asked.acquire()
                    if self.stopped.is_set():
                        break
                    item = next(items, _END)
                    self.made.put(item)
                    if item is _END:
                        break
                    del item
        except BaseException as error:  # raised again where the item is wanted
            self.made.put(_Failure(error))
