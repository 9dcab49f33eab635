"""What a job says: log lines on stderr, as text or as JSON, each with the id of the run."""

from __future__ import annotations

import contextlib
import datetime
import logging
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TextIO

FORMS = ("text", "json")


Hush = Callable[[Any], Any]


@contextlib.contextmanager
def to_stderr(form: str, job: str, run: str, hushed: Hush = lambda told: told, *, whole: bool = True) -> Iterator[None]:
    """While inside, what Python's loggers and warnings say is written to stderr, a line each: sparkdl's from INFO on,
    others' from WARNING on. form: ``text``, ``time level [run] message``, or ``json``, an object a line. hushed: takes the
    secrets out of a text, and of maps and lists of texts. whole: False leaves alone what is not sparkdl's: the program's.
    """
    ours = logging.getLogger("sparkdl")
    taken = logging.getLogger() if whole else ours
    handler = logging.StreamHandler()
    handler.setFormatter(_text(run, hushed) if form == "text" else _json(job, run, hushed))
    before, level, goes_up = taken.handlers[:], ours.level, ours.propagate
    taken.handlers = [handler]
    ours.setLevel(logging.INFO)
    ours.propagate = whole
    try:
        with warnings.catch_warnings() if whole else contextlib.nullcontext():
            if whole:
                warnings.showwarning = _warn
            yield
    finally:
        ours.propagate = goes_up
        ours.setLevel(level)
        taken.handlers = before


def _warn(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    logging.getLogger("py.warnings").warning("%s: %s (%s:%d)", category.__name__, message, filename, lineno)


def _text(run: str, hushed: Hush) -> logging.Formatter:
    class Lines(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return str(hushed(super().format(record)))

    made = Lines(f"%(asctime)s %(levelname)s [{run}] %(message)s", "%Y-%m-%dT%H:%M:%SZ")
    made.converter = time.gmtime
    return made


def _json(job: str, run: str, hushed: Hush) -> logging.Formatter:
    from pythonjsonlogger.json import JsonFormatter

    from sparkdl.stream.events import jsonable

    class Lines(JsonFormatter):  # type: ignore[misc]
        def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
            fields = jsonable(log_data.pop("fields", None) or {})
            told = {name: value for name, value in log_data.items() if value is not None}
            ordered = {name: told[name] for name in ("time", "level", "job", "run")} | told
            lines = {**ordered, **{name: value for name, value in fields.items() if name not in ordered}}
            return dict(hushed(lines))

    return Lines(
        "%(levelname)s %(event)s %(message)s %(name)s",
        rename_fields={"levelname": "level", "name": "logger", "exc_info": "error"},
        static_fields={"job": job, "run": run},
        timestamp="time",
        json_default=_as_text,
    )


def _as_text(value: object) -> str:
    return value.isoformat(timespec="milliseconds") if isinstance(value, datetime.datetime) else str(value)
