"""Errors that can be read in a paragraph of Zeppelin: the error's own words and the user's frames.

Zeppelin prints `traceback.format_exc()`: every frame of PySpark, Py4J, torch and sparkdl, every cause, and the JVM's stack, which
is some 200 lines for a task that failed. `import sparkdl` shortens what comes of sparkdl, Spark and the paragraph's stop button,
and nothing else. `SPARKDL_TRACEBACK=full` in the environment turns that off; `last_error()` has the whole of the last one.
"""

from __future__ import annotations

import os
import re
import sys
import traceback
import types
from collections.abc import Iterator
from typing import Any

from sparkdl import notebook
from sparkdl.errors import SparkdlError

_OURS = os.path.dirname(os.path.abspath(__file__)) + os.sep
_FRAME = re.compile(r'(\s*)File "(.+?)", line \d+')
_LIBRARY = re.compile(
    r"(?:site-packages|dist-packages|\.zip)/(?:pyspark|py4j|sparkdl|torch|IPython|ipykernel)/|/zeppelin_python\.py$|/pyspark\.zip/|"
    r"/lib/python3\.\d+/(?!site-packages/|dist-packages/)"
)
_JVM = re.compile(r"\s*(?:at [\w.$/]+[.(<].*\(.*\)|\.\.\. \d+ more|Driver stacktrace:)\s*$")
_CAUSE = re.compile(r"\s*Caused by: ([\w.$]+)(?:: (.+))?$")
_HEAD = "Traceback (most recent call last):"
_MOST_LINES = 60
_WHOLE = "The whole of it: print(sparkdl.tracebacks.last_error()); always: SPARKDL_TRACEBACK=full in the environment."
_CANCELLED = "KeyboardInterrupt: the paragraph was cancelled"

_last = ""


def last_error() -> str:
    """The whole traceback of the last error that was shortened; empty if there was none."""
    return _last


def shortened(error: BaseException) -> str:
    """The user's frames, the error's words and those of its causes in which the user has a frame; at most 60 lines."""
    chain = list(_chain(error))
    lines = _without_libraries(traceback.format_exception(error, chain=False))
    cancelled = any(isinstance(one, KeyboardInterrupt) for one in chain)
    if isinstance(error, KeyboardInterrupt) or (cancelled and _is_stumble(error)):
        lines = [*(line for line in lines if line.startswith(("Traceback", "  "))), _CANCELLED]
    else:
        for cause in chain[1:]:
            block = _without_libraries(traceback.format_exception(cause, chain=False))
            if isinstance(cause, KeyboardInterrupt):
                lines += ["", "because of", _CANCELLED]
            elif any(_FRAME.match(line) for line in block):
                lines += ["", "because of", *block]
    if len(lines) > _MOST_LINES:
        lines = [*lines[: _MOST_LINES // 2], "…", *lines[-_MOST_LINES // 2 :]]
    return "\n".join([*lines, _WHOLE, ""])


def shorten_in_zeppelin() -> None:
    """From now on Zeppelin shows what comes of sparkdl and Spark in short; does nothing elsewhere."""
    if notebook.place() != "zeppelin":
        return
    main: Any = sys.modules["__main__"]
    if getattr(main, "traceback", None) is traceback:  # Zeppelin's own Python script
        readable = types.ModuleType("traceback")
        readable.__dict__.update(vars(traceback), format_exc=_format_exc)
        main.traceback = readable
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if shell is not None:
        _shorten_in_ipython(shell)


def _format_exc(limit: int | None = None, chain: bool = True) -> str:
    """In place of traceback.format_exc."""
    error = sys.exc_info()[1]
    whole = traceback.format_exc(limit, chain)
    return _told(error, whole) if error is not None and _is_shortened(error) else whole


def _shorten_in_ipython(shell: Any) -> None:
    """Show errors in place of IPython, or of the handler that the user has set for them, which gets the others."""
    kinds, theirs = shell.custom_exceptions, shell.CustomTB

    def show(shell: Any, kind: Any, error: BaseException, trace: Any, tb_offset: int | None = None) -> list[str]:
        if _is_shortened(error):
            lines = _told(error, "".join(traceback.format_exception(error))).splitlines()
            shell._showtraceback(kind, error, lines)
            return lines
        if isinstance(error, kinds):
            return list(theirs(kind, error, trace, tb_offset=tb_offset) or [])
        shell.showtraceback((kind, error, trace), tb_offset=tb_offset)
        return []

    shell.set_custom_exc((Exception, KeyboardInterrupt, *kinds), show)


def _told(error: BaseException, whole: str) -> str:
    global _last
    _last = whole
    return shortened(error)


def _is_shortened(error: BaseException) -> bool:
    if os.environ.get("SPARKDL_TRACEBACK", "").lower() == "full":
        return False
    return any(
        isinstance(one, (SparkdlError, KeyboardInterrupt)) or type(one).__module__.startswith(("pyspark.", "py4j."))
        for one in _chain(error)
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and what it came from, as Python would print them."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        yield error
        seen.add(id(error))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _is_stumble(error: BaseException) -> bool:
    """True for what Py4J itself fails of, as it does when it is interrupted while it waits for the JVM."""
    frames = traceback.extract_tb(error.__traceback__)
    return (
        type(error).__name__ != "Py4JJavaError"
        and bool(frames)
        and "/py4j/" in frames[-1].filename.replace(os.sep, "/")
    )


def _without_libraries(parts: list[str]) -> list[str]:
    """The lines of a traceback, without frames of libraries and of the JVM, also in what a worker said; the JVM's causes stay."""
    kept: list[str] = []
    hidden: int | None = None  # indentation of a frame that is left out, whose source lines follow
    for line in "".join(parts).splitlines():
        frame = _FRAME.match(line)
        if frame:
            library = frame[2].startswith(_OURS) or _LIBRARY.search(frame[2].replace(os.sep, "/"))
            hidden = len(frame[1]) if library else None
        elif hidden is not None and len(line) - len(line.lstrip()) <= hidden:
            hidden = None
        if hidden is None and not _JVM.match(line) and not _is_known(line, kept):
            kept.append(line)
    heads = [line.strip() == _HEAD for line in kept]
    return [
        line
        for line, is_head, after in zip(kept, heads, [*kept[1:], ""], strict=True)
        if not is_head or _FRAME.match(after)
    ]


def _is_known(line: str, before: list[str]) -> bool:
    """True for a cause in the JVM whose words were there already."""
    cause = _CAUSE.match(line)
    return cause is not None and any((cause[2] or cause[1]) in earlier for earlier in before)
