"""How many rows a micro-batch may have, chosen from how fast the last ones were.

After a pause or a burst a source may hold hours of rows. Taken at once they make a batch during which nothing is committed, no
new model comes in and no stop is heard; taken too few at a time, most of the time goes into what a batch costs by itself.
"""

from __future__ import annotations

import json
import logging
import statistics
import threading
from collections import deque
from collections.abc import Iterable
from typing import Any

from sparkdl import store
from sparkdl.stream.records import FOLDER
from sparkdl.stream.reports import BatchReport

logger = logging.getLogger(__name__)
FIRST = 20_000  # rows, before anything is measured
LEAST, MOST = 500, 10_000_000
BATCH_S = 5.0  # that a full batch should take; longer if the trigger is
_FULL = 0.8  # of the bound: a batch of so many rows was cut by it
_ENOUGH = 3  # full batches, to tell by
_FACTOR = 2.0  # a bound nearer than this to what suits is left as it is: another one means a restart of the query


def better_bound(bound: int, batches: Iterable[BatchReport], trigger: float | None) -> int | None:
    """Rows a batch that suit better than ``bound``, or None. batches: the last ones under this bound, oldest first.

    trigger: seconds between micro-batches. A batch is to take ``BATCH_S``, or the trigger if that is more.
    """
    full = [batch for batch in batches if batch.rows >= _FULL * bound and batch.seconds.get("total")][-_ENOUGH:]
    if len(full) < _ENOUGH:
        return None
    speed = statistics.median(batch.rows / batch.seconds["total"] for batch in full)
    wanted = min(max(int(speed * max(BATCH_S, trigger or 0.0)), LEAST), MOST)
    return wanted if wanted >= _FACTOR * bound or wanted * _FACTOR <= bound else None


class Bound:
    """The bound of a query, and whether a better one is known. trigger: see ``better_bound``."""

    def __init__(self, checkpoint: str, trigger: float | None) -> None:
        self.path, self.trigger = store.join(checkpoint, FOLDER, "bound.json"), trigger
        self.rows = self._read()
        self.is_poor = threading.Event()
        self._better = self.rows
        self._batches: deque[BatchReport] = deque(maxlen=_ENOUGH)

    def batch(self, report: BatchReport) -> None:
        """A batch is done."""
        if not report.replayed:  # its number of rows may be of an earlier bound
            self._batches.append(report)
        better = better_bound(self.rows, self._batches, self.trigger)
        if better is not None:
            self._better = better
            self.is_poor.set()

    def take(self) -> int:
        """The better bound, from now on, and in the next run."""
        logger.info("%d rows a batch suit better than %d", self._better, self.rows)
        self.rows = self._better
        store.write_bytes(self.path, json.dumps({"rows": self.rows}).encode())
        self._batches.clear()
        self.is_poor.clear()
        return self.rows

    def _read(self) -> int:
        try:
            return int(json.loads(store.read_bytes(self.path))["rows"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):  # it is measured anew
            return FIRST


def seconds_of(trigger: Any) -> float:
    """Of a trigger's text, such as ``500 milliseconds``. Raises ValueError."""
    import pandas as pd

    if not isinstance(trigger, str) or not trigger.strip():
        raise ValueError(trigger)
    seconds = float(pd.Timedelta(trigger).total_seconds())
    if not seconds >= 0:
        raise ValueError(trigger)
    return seconds
