"""What a fit shows on the driver: one bar over all steps, and a line an epoch."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from tqdm import tqdm

from sparkdl.train import messages

_EVERY_S = 0.1


class Report:
    """Rank 0's side: passes the loop's events on to the driver, steps at most ten times a second."""

    def __init__(self) -> None:
        self._last = 0.0

    def __call__(self, event: dict[str, Any]) -> None:
        """Pass one event on."""
        now = time.monotonic()
        if event["event"] == "epoch" or now - self._last >= _EVERY_S:
            self._last = now
            messages.send("progress", **event)


class FitProgress:
    """The driver's side: a handler of messages that draws the bar."""

    def __init__(self, epochs: int, rows: int) -> None:
        self.epochs, self.rows = epochs, rows
        self.bar = tqdm(
            total=epochs * rows,
            unit=" rows",
            unit_scale=True,
            desc="training",
            leave=False,
            dynamic_ncols=True,
            mininterval=0.5,
            disable=not _shows_a_bar(),  # a log gets the epochs' lines alone
        )

    def __call__(self, message: dict[str, Any]) -> None:
        """Show one message."""
        kind = message["kind"]
        if kind == "log":
            self._write(message["text"])
        elif kind == "joined":
            how = {"horovod": "Horovod", "torch": "torch.distributed"}[message["backend"]]
            self._write(f"{message['size']} ranks, {how}, {message['device']}")
        elif message["event"] == "epoch":
            self._move((message["epoch"] + 1) * self.rows)
            told = {key: message[key] for key in message if key not in ("kind", "event", "epoch", "seconds", "rows")}
            figures = "  ".join(f"{name} {value:.4f}" for name, value in told.items())
            speed = message["rows"] / max(message["seconds"], 1e-9)
            self._write(f"epoch {message['epoch'] + 1}/{self.epochs}  {figures}  {speed:,.0f} rows/s")
        else:
            self._move(message["epoch"] * self.rows + message["rows"])
            self.bar.set_postfix_str(f"loss {message['loss']:.4f}", refresh=False)

    def close(self) -> None:
        """End the bar."""
        self.bar.close()

    def _move(self, rows: int) -> None:
        self.bar.update(rows - self.bar.n)

    def _write(self, text: str) -> None:
        if self.bar.disable:
            print(text, flush=True)
        else:
            self.bar.write(text)


def _shows_a_bar() -> bool:
    """True if someone looks: a terminal, a notebook, or spark-submit on a terminal, which hands us a pipe."""
    if "ipykernel" in sys.modules or (hasattr(sys.stderr, "isatty") and sys.stderr.isatty()):
        return True
    if "PYSPARK_GATEWAY_PORT" not in os.environ:
        return False
    try:
        return os.readlink(f"/proc/{os.getppid()}/fd/1").startswith(("/dev/pts/", "/dev/tty"))
    except OSError:  # not Linux
        return False
