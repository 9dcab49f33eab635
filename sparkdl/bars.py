"""Progress bars over rows, where someone looks: a terminal, a notebook."""

from __future__ import annotations

import io
import os
import sys
import warnings
from typing import Any

from sparkdl import notebook


def of_rows(total: int, what: str) -> Any:
    """A tqdm bar with rows a second and the time left; disabled where nobody looks. In Zeppelin it is the paragraph's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that ipywidgets is missing, where text will do
        from tqdm.auto import tqdm
    if notebook.place() == "zeppelin":
        return _zeppelin_bar(total)
    return tqdm(
        total=total,
        unit=" rows",
        unit_scale=True,
        desc=what,
        leave=False,
        dynamic_ncols=True,
        mininterval=0.5,
        disable=not is_seen(),
    )


def _zeppelin_bar(total: int) -> Any:
    """A tqdm bar that moves the paragraph's: what is drawn in text would stay in the paragraph, a line a step."""
    from tqdm import tqdm

    class Bar(tqdm):  # type: ignore[type-arg]
        def display(self, *args: Any, **kwargs: Any) -> None:
            notebook.set_progress(100 * self.n / self.total if self.total else 100)

        def clear(self, *args: Any, **kwargs: Any) -> None:
            """There is nothing to clear."""

        @classmethod
        def write(cls, s: str, *args: Any, **kwargs: Any) -> None:
            print(s)

    return Bar(total=total, leave=True, mininterval=0.5, file=io.StringIO())


def is_seen() -> bool:
    """True if someone looks: a terminal, a notebook, or spark-submit on a terminal, which hands us a pipe."""
    if notebook.place() == "jupyter" or (hasattr(sys.stderr, "isatty") and sys.stderr.isatty()):
        return True
    if "PYSPARK_GATEWAY_PORT" not in os.environ:
        return False
    try:
        return os.readlink(f"/proc/{os.getppid()}/fd/1").startswith(("/dev/pts/", "/dev/tty"))
    except OSError:  # not Linux
        return False
