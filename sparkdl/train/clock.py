"""Where a rank's time goes."""

from __future__ import annotations

import time

from sparkdl.train import pulse

PHASES = ("data", "compute", "all_reduce", "validation", "checkpoint")


class Clock:
    """Seconds by phase; a rank is in one phase at a time. On a GPU, what a phase started may end in a later one."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Begin an epoch."""
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self._phase, self._since = "compute", time.perf_counter()

    def __call__(self, phase: str) -> None:
        """From now on the rank is in ``phase``."""
        now = time.perf_counter()
        self.seconds[self._phase] += now - self._since
        self._phase, self._since = phase, now
        pulse.mark(phase)
