"""What happens to a query as JSON lines: one event a line, ``event`` says which."""

from __future__ import annotations

import json
import logging.handlers
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from sparkdl.errors import StoreError
from sparkdl.stream.reports import BatchReport

MAX_BYTES, BACKUPS = 64 << 20, 3
_FIELDS = tuple(field.name for field in fields(BatchReport))


class Lines(logging.handlers.RotatingFileHandler):
    """A file of events. At ``max_bytes`` it becomes ``path.1``, that ``path.2``, and so on; so many are kept. about: what
    each event has beside its own.

    Raises StoreError if the file cannot be written.
    """

    def __init__(
        self, path: str, max_bytes: int = MAX_BYTES, backups: int = BACKUPS, about: Mapping[str, Any] | None = None
    ) -> None:
        self._about = dict(about or {})
        try:
            os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
            super().__init__(path, maxBytes=max_bytes, backupCount=backups, encoding="utf-8")
        except OSError as error:
            raise StoreError(f"events cannot be written to {path!r}: {error.strerror}", uri=path) from error

    def write(self, event: Mapping[str, Any]) -> None:
        """One line. Raises OSError."""
        text = json.dumps(jsonable({**event, **self._about}), separators=(",", ":"))
        self.handle(logging.LogRecord("sparkdl.events", logging.INFO, "", 0, text, None, None))

    def handleError(self, record: logging.LogRecord) -> None:  # logging's name
        """Let the caller see it, instead of a traceback on standard error."""
        raise  # what handle() is in the middle of


def jsonable(value: Any) -> Any:
    """As JSON has it: no NaN, no infinity, text for what it has nothing for."""
    if isinstance(value, Mapping):
        return {str(key): jsonable(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def batch_event(report: BatchReport, name: str) -> dict[str, Any]:
    """A micro-batch's. Without the counts for drift, of which each feature has a hundred: drift has events of its own."""
    told = report.to_json()
    told.pop("counts")
    return {"event": "batch", "name": name, **told}


def report_of(event: Mapping[str, Any]) -> BatchReport:
    """The report of a ``batch`` event."""
    return BatchReport(**{name: event[name] for name in _FIELDS if name in event})


def parsed(line: str) -> dict[str, Any] | None:
    """A line's event; None for one that is not whole, as the last may be while it is written, or when a disk was full."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None


def read(path: str) -> Iterator[dict[str, Any]]:
    """The events in ``path`` and in what was rotated away from it, oldest first. Raises StoreError."""
    number = 0
    while os.path.exists(f"{path}.{number + 1}"):
        number += 1
    for each in [*(f"{path}.{i}" for i in range(number, 0, -1)), path]:
        try:
            with open(each, encoding="utf-8", errors="replace") as file:
                yield from filter(None, map(parsed, file))
        except OSError as error:
            raise StoreError(f"the events in {each!r} cannot be read: {error.strerror}", uri=each) from error


def as_json(progress: Any) -> dict[str, Any]:
    """Spark's progress as JSON values, whichever version gives it."""
    if isinstance(progress, dict):
        return dict(progress)
    told: dict[str, Any] = json.loads(progress.json)
    return told
