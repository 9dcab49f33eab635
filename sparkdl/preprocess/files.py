"""Files that a column holds, or tells the paths of: one array a row, read in threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa

from sparkdl import store
from sparkdl.columns import BadRows, bad_rows
from sparkdl.errors import StoreError
from sparkdl.preprocess.cells import BadCell, together


def filled(name: str, column: pa.Array, rows: np.ndarray, read: Callable[[Any], np.ndarray]) -> np.ndarray:
    """``rows`` with what ``read``, which may raise BadCell, makes of each of the column's values.

    Raises BadRows for all of those, with the other rows as its ``rest``.
    """
    problems: dict[int, BadRows] = {}

    def fill(row: int) -> None:
        try:
            rows[row] = read(column[row].as_py())
        except BadCell as bad:
            problems[row] = bad_rows(bad.kind, name, [row], bad.expected, [bad.got])

    list(_threads().map(fill, range(len(column))))
    if problems:
        error = together([problems[row] for row in sorted(problems)])
        error.rest = np.delete(rows, error.rows, axis=0)
        raise error
    return rows


def content(value: bytes | str, most_bytes: int) -> bytes:
    """The file's bytes, out of the cell or of the path or URI that it holds. Raises BadCell; for one that is larger
    before it is read."""
    try:
        size = store.size(value) if isinstance(value, str) else len(value)
        if size > most_bytes:
            raise BadCell("undecodable", f"a file of at most {most_bytes:,} bytes", f"{size:,} bytes")
        found = store.read_bytes(value) if isinstance(value, str) else value
    except (OSError, StoreError, ValueError) as error:  # ValueError: of a path that none can be, with a NUL say
        why = store.hushed(str(error), store.secrets_of(str(value)))
        raise BadCell("failed", "a file that can be read", f"{type(error).__name__}: {why}") from error
    if not found:
        raise BadCell("undecodable", "a file", "an empty one")
    return found


@cache
def _threads() -> ThreadPoolExecutor:
    """As many as torch computes with: the cores of the task. Decoding leaves Python's lock to others."""
    import torch

    return ThreadPoolExecutor(torch.get_num_threads(), thread_name_prefix="sparkdl-files")
