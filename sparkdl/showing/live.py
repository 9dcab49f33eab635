"""A view of a running query that is drawn anew in its place."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from typing import Any

from sparkdl import notebook
from sparkdl.errors import InvalidParamError, SparkdlError
from sparkdl.showing import display, plain, streams


def watch(query: Any, seconds: float | None, every: float) -> None:
    """As ``sparkdl.zeppelin.live``."""
    streams.checked(query)
    for name, value in (("seconds", seconds), ("every", every)):
        if value is not None and not (isinstance(value, (int, float)) and math.isfinite(value) and value > 0):
            raise InvalidParamError(
                f"'{name}' must be a number of seconds above 0 (got {value!r})", param=name, value=value
            )
    ends = math.inf if seconds is None else time.monotonic() + seconds
    if notebook.place() == "terminal":
        _in_terminal(query, ends, every)
        return
    view = display.View()
    _until(query, ends, every, lambda: view.draw(streams.with_pictures(query)))


def _until(query: Any, ends: float, every: float, draw: Callable[[], None]) -> None:
    """Draw now, and each ``every`` seconds until the query or the time has ended, and then once more."""
    from pyspark.errors import StreamingQueryException

    while True:
        over = not query.isActive or time.monotonic() >= ends
        draw()
        if over:
            return
        with contextlib.suppress(SparkdlError, StreamingQueryException):  # what it failed of is drawn
            query.awaitTermination(max(0.01, min(every, ends - time.monotonic())))


def _in_terminal(query: Any, ends: float, every: float) -> None:
    console = display.console()
    if console is None:  # a file or a pipe: how it is now, and how it is at the end
        print(plain.text(streams.pieces_of(query)), flush=True)
        _until(query, ends, every, lambda: None)
        print(plain.text(streams.pieces_of(query)), flush=True)
        return
    from rich.console import Group
    from rich.live import Live

    with Live(console=console, auto_refresh=False) as shown:
        _until(
            query, ends, every, lambda: shown.update(Group(*plain.renderables(streams.pieces_of(query))), refresh=True)
        )
