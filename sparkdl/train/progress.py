"""What a fit shows on the driver: one bar over all steps, and a line an epoch."""

from __future__ import annotations

import logging
import time
from typing import Any

from sparkdl import bars, notebook
from sparkdl.train import messages

_EVERY_S = 0.1
_NO_FIGURES = ("kind", "event", "epoch", "lr", "rows", "seconds", "phases")
_MOST_FIGURES = 8
_MOST_LINES = 20  # in a paragraph
logger = logging.getLogger(__name__)


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
    """The driver's side: a handler of messages that draws one bar over all epochs, and writes a line an epoch.

    In a notebook it is tqdm's widget, or text where ipywidgets is not installed; in a log there are the lines alone. In
    Zeppelin the bar is the paragraph's, and the lines are of some twenty epochs, all of which stay to be read.
    """

    def __init__(self, epochs: int, rows: int) -> None:
        self.epochs, self.rows = epochs, rows
        self.is_paragraph = notebook.place() == "zeppelin"
        self.begins = True  # a launch, with what is now its first message
        self.bar = bars.of_rows(epochs * rows, "training")  # a log gets the epochs' lines alone

    def __call__(self, message: dict[str, Any]) -> None:
        """Show one message; kinds it does not know are for others."""
        kind = message["kind"]
        if kind == "log":
            self._write(message["text"], message)
        elif kind == "joined":
            how = {"horovod": "Horovod", "torch": "torch.distributed"}[message["backend"]]
            self._write(f"{message['size']} ranks, {how}, {message['device']}", message)
        elif kind == "retry":
            self.begins = True
            self._write("retry {attempt} of {of} with {ranks} ranks: {reason}".format(**message), message)
        elif kind == "progress" and message["event"] == "epoch":
            self._move((message["epoch"] + 1) * self.rows)
            if self._is_told(message["epoch"]):
                self._write(_epoch_line(message, self.epochs), message)
        elif kind == "progress":
            self._move(message["epoch"] * self.rows + message["rows"])
            self.bar.set_description_str(f"epoch {message['epoch'] + 1}/{self.epochs}", refresh=False)
            self.bar.set_postfix_str(f"loss {message['loss']:.4f}", refresh=False)

    def close(self) -> None:
        """End the bar."""
        self.bar.close()

    def _is_told(self, epoch: int) -> bool:
        """True of every epoch, in Zeppelin of the first, the last and every n-th."""
        step = -(-self.epochs // _MOST_LINES) if self.is_paragraph else 1
        return epoch == 0 or epoch == self.epochs - 1 or (epoch + 1) % step == 0

    def _move(self, rows: int) -> None:
        if self.begins and not self.bar.disable:
            self.bar.reset()  # a fit that resumes, or ranks started again: the rate is that of the rows from here on
            self.bar.initial = self.bar.n = self.bar.last_print_n = rows
        self.begins = False
        self.bar.update(rows - self.bar.n)

    def _write(self, text: str, message: dict[str, Any]) -> None:
        if not self.bar.disable:
            self.bar.write(text)
        elif logger.isEnabledFor(logging.INFO):  # a job's log, which has what the message holds as fields
            event = message.get("event", message["kind"])
            fields = {name: value for name, value in message.items() if name not in ("kind", "event", "text")}
            logger.info(text, extra={"event": event, "fields": fields})
        else:
            print(text, flush=True)


def _epoch_line(entry: dict[str, Any], epochs: int) -> str:
    """``epoch 1/5  loss 0.3012  accuracy 0.9010  val_loss 0.3144  52,000 rows/s``; of many figures the first."""
    figures = [
        f"{name} {value:.4f}"
        for name, value in entry.items()
        if name not in _NO_FIGURES and isinstance(value, (int, float))
    ]
    more = ["…"] if len(figures) > _MOST_FIGURES else []
    speed = entry["rows"] / max(entry["seconds"], 1e-9)
    told = [f"epoch {entry['epoch'] + 1}/{epochs}", *figures[:_MOST_FIGURES], *more, f"{speed:,.0f} rows/s"]
    return "  ".join(told)
