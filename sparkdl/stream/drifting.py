"""Drift over the last minutes of a stream."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from typing import Any

from sparkdl.drift import Drift, Reference, compare, merge_counts

SLICES = 30  # of the window: what is kept does not grow with the number of batches
ROWS_LEAST = 500  # fewer say little: see ``sparkdl.drift`` on what chance alone does


class DriftWindow:
    """The counts of a sliding window against the reference of the model that serves. For several threads.

    seconds: how far back. Another version's reference has other edges, so its window begins anew.
    """

    def __init__(self, seconds: float = 600.0) -> None:
        self.seconds = seconds
        self.reference: Reference | None = None
        self.version: str | None = None
        self._slices: deque[tuple[float, dict[str, list[int]]]] = deque()
        self._lock = threading.Lock()

    def serves(self, version: str, reference: Reference | None) -> None:
        """From now on counts are against ``reference``, that of this version; None if its bundle has none."""
        with self._lock:
            if version != self.version:
                self.version, self.reference = version, reference
                self._slices.clear()

    def add(self, at: float, counts: Mapping[str, list[int]]) -> None:
        """The counts of a batch that was done ``at``, in seconds since 1970."""
        if not counts:
            return
        with self._lock:
            if self._slices and at < self._slices[-1][0] + self.seconds / SLICES:
                began, sum_so_far = self._slices.pop()
                self._slices.append((began, merge_counts([sum_so_far, counts])))
            else:
                self._slices.append((at, {name: list(numbers) for name, numbers in counts.items()}))
            while self._slices[0][0] < at - self.seconds:
                self._slices.popleft()

    def counts(self) -> dict[str, list[int]]:
        """Of the window."""
        with self._lock:
            return merge_counts(counts for _, counts in self._slices)

    def drift(self, most: int = 20) -> list[Drift]:
        """The features that are farthest from the reference, by falling PSI; of those with rows enough to tell."""
        reference = self.reference
        if reference is None:
            return []
        return [drift for drift in compare(reference, self.counts()) if drift.rows >= ROWS_LEAST][:most]

    def histograms(self, names: list[str]) -> dict[str, dict[str, Any]]:
        """For each feature what ``drift.Edges.histogram`` gives of the window."""
        reference, counts = self.reference, self.counts()
        found: dict[str, dict[str, Any]] = {}
        for name in names:
            one = reference.features.get(name) if reference else None
            if one is not None and len(counts.get(name, ())) == len(one.counts):
                found[name] = one.histogram(counts[name])
        return found
