"""What a job says: log lines on stderr, as text or as JSON, each with the id of the run."""

from __future__ import annotations

import contextlib
import datetime
import logging
import time
import warnings
from collections.abc import Iterator
from typing import Any, TextIO

FORMS = ("text", "json")


@contextlib.contextmanager
def to_stderr(form: str, job: str, run: str) -> Iterator[None]:
    """While inside, what Python's loggers and warnings say is written to stderr, a line each: sparkdl's from INFO on,
    others' from WARNING on. form: ``text``, ``time level [run] message``, or ``json``, an object a line."""
    root, ours = logging.getLogger(), logging.getLogger("sparkdl")
    handler = logging.StreamHandler()
    handler.setFormatter(_text(run) if form == "text" else _json(job, run))
    before, level = root.handlers[:], ours.level
    root.handlers = [handler]
    ours.setLevel(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            yield
    finally:
        ours.setLevel(level)
        root.handlers = before


def _warn(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    logging.getLogger("py.warnings").warning("%s: %s (%s:%d)", category.__name__, message, filename, lineno)


def _text(run: str) -> logging.Formatter:
    made = logging.Formatter(f"%(asctime)s %(levelname)s [{run}] %(message)s", "%Y-%m-%dT%H:%M:%SZ")
    made.converter = time.gmtime
    return made


def _json(job: str, run: str) -> logging.Formatter:
    from pythonjsonlogger.json import JsonFormatter

    from sparkdl.stream.events import jsonable

    class Lines(JsonFormatter):  # type: ignore[misc]
        def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
            fields = jsonable(log_data.pop("fields", None) or {})
            told = {name: value for name, value in log_data.items() if value is not None}
            ordered = {name: told[name] for name in ("time", "level", "job", "run")} | told
            return {**ordered, **{name: value for name, value in fields.items() if name not in ordered}}

    return Lines(
        "%(levelname)s %(event)s %(message)s %(name)s",
        rename_fields={"levelname": "level", "name": "logger", "exc_info": "error"},
        static_fields={"job": job, "run": run},
        timestamp="time",
        json_default=_as_text,
    )


def _as_text(value: object) -> str:
    return value.isoformat(timespec="milliseconds") if isinstance(value, datetime.datetime) else str(value)
