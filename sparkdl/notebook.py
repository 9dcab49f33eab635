"""Where this Python runs, and what only a notebook has: Zeppelin's context and its progress bar.

Zeppelin runs paragraphs in a namespace of its own in one mode and in `__main__` in the other (IPython); in both it puts its
context there under `__zeppelin__`, whatever becomes of the user's `z`.
"""

from __future__ import annotations

import sys
from typing import Any, Literal

Place = Literal["zeppelin", "jupyter", "terminal"]


def place() -> Place:
    """`zeppelin` in a paragraph, `jupyter` in a kernel of IPython's, else `terminal`: a shell, a job, a worker of Spark's."""
    if zeppelin_context() is not None:
        return "zeppelin"
    return "jupyter" if _kernel() is not None else "terminal"


def zeppelin_context() -> Any | None:
    """Zeppelin's `z` (a PyZeppelinContext), or None outside Zeppelin."""
    main = sys.modules.get("__main__")
    own = getattr(main, "_zcUserQueryNameSpace", None)
    names = own if isinstance(own, dict) else getattr(main, "__dict__", {})
    found = names.get("__zeppelin__")
    return found if any(kind.__name__ == "PyZeppelinContext" for kind in type(found).__mro__) else None


def set_progress(percent: float) -> None:
    """Move the paragraph's progress bar to `percent` (0 to 100; beyond is cut); does nothing outside Zeppelin."""
    context = zeppelin_context()
    if context is not None:
        context.getInterpreterContext().setProgress(round(min(100.0, max(0.0, percent))))


def _kernel() -> Any | None:
    """The kernel that runs this Python, which IPython in a terminal has not."""
    ask = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return getattr(ask(), "kernel", None) if ask else None
