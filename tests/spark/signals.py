"""Events between the driver and its workers, without polling."""

from __future__ import annotations

import os
import select


class Signal:
    """An event between processes: a FIFO that both ends hold open."""

    def __init__(self, path: str) -> None:
        self.path = path

    def send(self) -> None:
        fd = os.open(self.path, os.O_RDWR | os.O_NONBLOCK)
        try:
            os.write(fd, b"x")
        finally:
            os.close(fd)

    def listen(self) -> int:
        """Hold the signal open, so that what is sent from now on is not lost; give what this returns to ``wait``."""
        return os.open(self.path, os.O_RDWR | os.O_NONBLOCK)

    def wait(self, fd: int, seconds: float = 60.0) -> bool:
        """True as soon as it was sent, False if it was not within ``seconds``."""
        try:
            return bool(select.select([fd], [], [], seconds)[0])
        finally:
            os.close(fd)
