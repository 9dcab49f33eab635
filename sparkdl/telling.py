"""What the driver does with the ranks' messages while a fit runs: the bar, the loggers, and the seconds of the fit."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any

from sparkdl.train.loggers import Logger, Loggers
from sparkdl.train.progress import FitProgress


class Telling:
    """A handler of messages, and a context: the loggers begin with it, and end with it however it ends.

    bar: epochs and rows of the progress bar, None for none. materialise: seconds that it took.
    """

    def __init__(
        self, loggers: Iterable[Logger], settings: dict[str, Any], bar: tuple[int, int] | None, materialise: float
    ) -> None:
        self.loggers, self.settings, self.bar = Loggers(loggers), settings, bar
        self.progress: FitProgress | None = None
        self.materialise = materialise
        self.logged: set[int] = set()
        self.launch = 0.0

    def __enter__(self) -> Telling:
        self.loggers.on_fit_start(self.settings)
        self.progress = FitProgress(*self.bar) if self.bar else None
        self.started = self.asked = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.progress:
            self.progress.close()
        if error is not None:
            self.loggers.on_fit_end(None, error)

    def __call__(self, message: dict[str, Any]) -> None:
        """Take a message."""
        if message["kind"] == "joined":
            self.launch += time.monotonic() - self.asked
        elif message["kind"] == "retry":
            self.asked = time.monotonic()
        elif message.get("event") == "epoch":
            self._log({key: value for key, value in message.items() if key not in ("kind", "event")})
        if self.progress:
            self.progress(message)

    def end(self, model: Any, history: Sequence[dict[str, Any]]) -> None:
        """The fit is done. Epochs whose message did not arrive are logged now, those before it was resumed are not."""
        first = min(self.logged, default=0) if self.settings["resume"] else 0
        for entry in history:
            if entry["epoch"] >= first and entry["epoch"] not in self.logged:
                self._log(entry)
        self.loggers.on_fit_end(model, None)

    def phases(self) -> dict[str, float]:
        """Seconds of the fit's parts."""
        training = time.monotonic() - self.started - self.launch
        return {"materialise": self.materialise, "launch": self.launch, "training": training}

    def _log(self, entry: dict[str, Any]) -> None:
        self.logged.add(entry["epoch"])
        self.loggers.on_epoch_end(entry)
