"""Run: one execution of a job, with its id, its Spark, its log, and whether it was told to end."""

from __future__ import annotations

import contextlib
import json
import logging
import secrets
import threading
import time
from collections.abc import Collection, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sparkdl import conf as confs
from sparkdl import session
from sparkdl.jobs import signals

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

logger = logging.getLogger(__name__)


def new_id() -> str:
    """``YYYYMMDDTHHMMSS-xxxxxxxx``: when, in UTC, and eight random hex digits."""
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(4)}"


class Run:
    """job: its name. name: of Spark's application. form: of the log, ``text`` or ``json``. allowed: packages whose code the
    conf may name. id: see ``new_id``; it is in each line of the log and in each output.

    told_to_end: set at the first SIGTERM or SIGINT, at which the main thread also gets a KeyboardInterrupt, unless it
    is ``patient``.
    """

    def __init__(self, job: str, *, name: str | None = None, form: str = "text", allowed: Collection[str] = ()) -> None:
        self.id = new_id()
        self.job, self.name, self.form, self.allowed = job, name or f"sparkdl {job}", form, tuple(allowed)
        self.told_to_end = threading.Event()
        self.secrets: list[str] = []
        self._is_patient = False
        self._held = contextlib.ExitStack()

    @cached_property
    def spark(self) -> SparkSession:
        """The session, made when first asked for; it ends with the run, unless it was there before."""
        is_ours = not session.is_there()
        with signals.kept():
            made = session.for_job(self.name)
        if is_ours:
            self._held.callback(made.stop)
            if not session.is_connect(made):
                self._held.enter_context(signals.handed_on(made))
        return made

    def hushed(self, value: Any) -> Any:
        """``value``, of maps, lists and texts, without the secrets that the conf brought in."""
        return confs.hushed(value, self.secrets)

    def tell(self, event: str, text: str, **fields: Any) -> None:
        """A line of the log; as JSON it has ``event`` and the fields too."""
        logger.info("%s", text, extra={"event": event, "fields": fields})

    def tell_error(self, event: str, text: str, **fields: Any) -> None:
        """As ``tell``, of what makes the run end badly."""
        logger.error("%s", text, extra={"event": event, "fields": fields})

    def show(self, text: str, **fields: Any) -> None:
        """What the job is for, on stdout: the text, or as JSON one object with the fields and the run's id."""
        from sparkdl.stream.events import jsonable

        about = {"event": "result", "job": self.job, "run": self.id}
        told = self.hushed(text if self.form == "text" else jsonable({**about, **fields, **about}))
        print(told if self.form == "text" else json.dumps(told), flush=True)

    @contextlib.contextmanager
    def patient(self) -> Iterator[threading.Event]:
        """While inside, a signal sets ``told_to_end`` and no more: the work looks at it, and ends where it may."""
        self._is_patient = True
        try:
            yield self.told_to_end
        finally:
            self._is_patient = False

    def interrupt(self) -> None:
        """What a signal does to the main thread. Raises KeyboardInterrupt if the work does not look at ``told_to_end``."""
        if not self._is_patient:
            raise KeyboardInterrupt

    def close(self) -> None:
        """Stop the session that was made here."""
        self._held.close()
