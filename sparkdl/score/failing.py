"""Rows on which the model itself raises: they are found by halving, so that all others get their predictions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sparkdl.columns import Ragged
from sparkdl.errors import SparkdlError
from sparkdl.score import engine
from sparkdl.score.inputs import Inputs
from sparkdl.score.transfer import Arrays

MOST = 100  # rows: where it raises on more of some that are read together, the model is what is wrong
MOST_CHARACTERS = 500  # of an error, in a row's reason


def may_be_a_rows(error: Exception) -> bool:
    """False for errors that no single row is the cause of."""
    return not isinstance(error, SparkdlError) and not engine.is_out_of_memory(error)


def predict_rest(
    predict: Callable[[Inputs], Arrays], inputs: Inputs, rows: int
) -> tuple[np.ndarray, Arrays, dict[int, str]]:
    """The rows that the model takes, their outputs, and of the others, by row, ``failed: `` and what it raised.

    predict: raised on all ``rows`` together. Raises what it raises if it does so on more than ``MOST`` rows.
    """
    reasons: dict[int, str] = {}
    parts: list[tuple[np.ndarray, Arrays]] = []

    def descend(which: np.ndarray) -> None:
        try:
            parts.append((which, predict(taken(inputs, which))))
        except Exception as error:  # whatever a model's operators raise
            if not may_be_a_rows(error) or (len(which) == 1 and len(reasons) >= MOST):
                raise
            if len(which) == 1:
                text = f"{type(error).__name__}: {error}".splitlines()[0]
                reasons[int(which[0])] = f"failed: the model raised {text[:MOST_CHARACTERS]}"
            else:
                halves(which)

    def halves(which: np.ndarray) -> None:
        middle = len(which) // 2
        descend(which[:middle])
        descend(which[middle:])

    everything = np.arange(rows)
    halves(everything) if rows > 1 else descend(everything)
    if not parts:
        parts = [(everything[:0], predict(taken(inputs, everything[:0])))]
    names = parts[0][1]
    outputs = {name: np.concatenate([part[name] for _, part in parts]) for name in names}
    return np.concatenate([which for which, _ in parts]), outputs, reasons


def taken(inputs: Inputs, rows: np.ndarray) -> Inputs:
    """These rows of the inputs, in this order."""
    return {name: value.take(rows) if isinstance(value, Ragged) else value[rows] for name, value in inputs.items()}
