"""`python -m sparkdl top EVENTS…`: how queries do, live in a terminal, out of the files that their monitors write."""

from __future__ import annotations

import argparse
import os
import sys
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sparkdl.errors import StoreError
from sparkdl.stream.events import parsed, read, report_of

if TYPE_CHECKING:
    from rich.console import RenderableType

    from sparkdl.stream.status import Status, StreamStatus

_STATES = {"running": "green", "starting": "yellow", "stopped": "bright_black", "failed": "red"}
_LAST = 5  # things that happened


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `python -m sparkdl top`."""
    parser.add_argument("events", nargs="+", metavar="EVENTS", help="what a Monitor(jsonl=…) writes")
    parser.add_argument("--once", action="store_true", help="print it once and end")
    parser.add_argument(
        "--window", type=float, default=60.0, help="seconds that speed and latency are of (default: 60)"
    )


def run(args: argparse.Namespace) -> int:
    """Show it, until Ctrl-C; where standard output is no terminal, as with ``--once``. 1 if a file cannot be read."""
    try:
        import rich  # noqa: F401
    except ModuleNotFoundError:
        print("top needs rich, which this Python does not have: pip install 'sparkdl[monitor]'", file=sys.stderr)
        return 1
    from rich.console import Console

    console = Console()
    views = [View(path, args.window) for path in args.events]
    try:
        for view in views:
            view.begin()
        if args.once or not console.is_terminal:
            console.print(picture(views, plain=not console.is_terminal), soft_wrap=not console.is_terminal)
        else:
            _live(console, views)
    except StoreError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        pass  # how one leaves it
    return 0


class View:
    """The queries of one file, followed while it grows, also over its rotation."""

    def __init__(self, path: str, window: float = 60.0) -> None:
        self.path, self.window = path, window
        self.queries: dict[str, Seen] = {}
        self._inode, self._place, self._rest = -1, 0, b""
        self._last = ""

    def begin(self) -> None:
        """Read what is there. Raises StoreError."""
        for event in read(self.path):
            self.take(event)
        told = os.stat(self.path)
        self._inode, self._place = told.st_ino, told.st_size

    def follow(self) -> None:
        """Read what has come since."""
        try:
            told = os.stat(self.path)
            if told.st_ino != self._inode or told.st_size < self._place:  # rotated
                if os.path.exists(f"{self.path}.1"):
                    self._read(f"{self.path}.1", self._inode)  # its end
                self._inode, self._place, self._rest = told.st_ino, 0, b""
            self._read(self.path, self._inode)
        except FileNotFoundError:
            return  # between two files

    def _read(self, path: str, inode: int) -> None:
        """The rest of the file, if it is that one."""
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_ino != inode:
                return
            file.seek(self._place)
            content = file.read()
        self._place += len(content)
        *lines, self._rest = (self._rest + content).split(b"\n")
        for line in lines:
            event = parsed(line.decode(errors="replace"))
            if event is not None:
                self.take(event)

    def take(self, event: dict[str, Any]) -> None:
        """An event of one of the file's queries."""
        self._last = str(event.get("query") or self._last)
        if self._last not in self.queries:
            self.queries[self._last] = Seen(self._last, self.window)
        self.queries[self._last].take(event)


class Seen:
    """One query, as far as its events tell."""

    def __init__(self, id: str, window: float) -> None:
        from sparkdl.stream.status import Status

        self.id, self.window = id, window
        self.status: Status = Status(id, window=window)
        self.drift: list[dict[str, Any]] = []
        self.happened: list[str] = []

    def take(self, event: dict[str, Any]) -> None:
        """An event."""
        from sparkdl.stream.status import Status

        kind, status = event["event"], self.status
        status.name = str(event.get("name") or status.name)
        if kind == "started":
            self.status = Status(self.id, status.name, trigger=event.get("trigger"), window=self.window)
            self.status.since = float(event["time"])
        elif kind == "batch":
            status.batch(report_of(event))
        elif kind == "progress":
            status.progress(event.get("progress") or event)
        elif kind == "refused":
            status.refused(str(event["version"]), str(event["reason"]))
        elif kind == "drift":
            self.drift = event["features"]
        elif kind == "alert":
            self.happened.append(f"{event['alert']}: {float(event['value']):.4g} {event.get('detail') or ''}".strip())
        elif kind == "alert over":
            self.happened.append(f"over: {event['alert']}")
        elif kind == "ended":
            status.ended(RuntimeError(event["error"]) if event.get("error") else None)

    def now(self) -> StreamStatus:
        """How it is."""
        from sparkdl.drift import Drift

        drift = tuple(Drift(**one) for one in self.drift[:10])
        return replace(self.status.now(drift=False), drift=drift)


def picture(views: list[View], *, plain: bool = False) -> RenderableType:
    """All queries: a table, and what there is to say of each. plain: as text without a frame, for files and pipes."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    seen = [(query, query.now()) for view in views for query in view.queries.values()]
    if plain:
        return Text("\n\n".join("\n".join([str(now), *_said(query)]) for query, now in seen) or "no queries yet")
    table = Table(expand=True, header_style="bold", title="sparkdl top", title_justify="left")
    for name, right in (("query", False), ("state", False), ("rows/s", True), ("rows", True), ("dead", True), ("p50", True),
                        ("p99", True), ("lag", True), ("last", True), ("model", False), ("PSI", True)):  # fmt: skip
        table.add_column(name, justify="right" if right else "left", no_wrap=name != "query", overflow="ellipsis")
    for _, now in seen:
        table.add_row(*_row(now))
    notes = [line for query, now in seen for line in _notes(query, now)]
    return Group(table, *notes)


def _row(now: StreamStatus) -> list[RenderableType]:
    from rich.text import Text

    from sparkdl.stream.status import ago

    dead = sum(now.dead.values())
    psi = now.drift[0].psi if now.drift else None
    return [
        Text(now.name or now.id[:8]),
        Text(now.state, style=_STATES[now.state]),
        Text("–" if now.rows_per_second is None else f"{now.rows_per_second:,.0f}"),
        Text(f"{now.rows:,}"),
        Text(f"{dead:,}", style="red" if now.dead_share else ""),
        Text("–" if now.p50 is None else f"{now.p50:,.0f} ms"),
        Text("–" if now.p99 is None else f"{now.p99:,.0f} ms"),
        Text("–" if now.lag is None else f"{now.lag:,}"),
        Text("–" if now.last is None else ago(now.last)),
        Text(now.version or "–"),
        Text("–" if psi is None else f"{psi:.3f}", style="red" if psi and psi > 0.25 else ""),
    ]


def _notes(query: Seen, now: StreamStatus) -> list[RenderableType]:
    from rich.text import Text

    shown = [(what, text) for what, text in now.lines() if what in ("of it", "drift", "refused", "challenger", "error")]
    lines = [f"{what}: {text}" for what, text in shown] + _said(query)
    name = now.name or now.id[:8]
    return [
        Text(f"{name}  {line}", style="red" if line.startswith(("error", "refused", "alert")) else "dim")
        for line in lines
    ]


def _said(query: Seen) -> list[str]:
    return [f"{'alert':<10}  {text}" for text in query.happened[-_LAST:]]


def _live(console: Any, views: list[View]) -> None:
    from rich.live import Live

    never = threading.Event()
    with Live(picture(views), console=console, screen=True, auto_refresh=False) as live:
        while not never.wait(1.0):
            for view in views:
                view.follow()
            live.update(picture(views), refresh=True)
