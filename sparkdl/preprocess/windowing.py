"""Events of one key as windows of equal steps in time: what a table's group and a stream's state have in common. No Spark.

Time is cut into cells, ``every`` µs each, from 1970 on: cell c is ``[c * every, (c + 1) * every)``. A run is a row of cells in
which no hole is as long as a window. Shapes: N cells held, E events, W windows, L cells to a window, H to a label, F values.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

COMBINE = ("last", "mean", "sum", "min", "max")
FILL = ("null", "previous", "zero")
FOREVER = int(np.iinfo(np.int64).max)


@dataclass(frozen=True)
class Grid:
    """How events become windows.

    every: µs to a cell. length, step, horizon: in cells. combine: what becomes of several values in a cell, one of COMBINE.
    fill: what stands in a cell without one, of FILL; ``previous`` at a window's beginning is the next. target: which value the
    label is of.
    """

    every: int
    length: int
    step: int = 1
    horizon: int = 0
    combine: str = "last"
    fill: str = "null"
    target: int = 0

    def closed_at(self, watermark: int) -> int:
        """The cells before this one have ended by ``watermark`` (µs)."""
        return watermark // self.every


@dataclass(frozen=True)
class State:
    """What must be known of a key's past.

    index: (N,) the cells held, ascending. value: (N, F), NaN for none. mark: (N, F), of ``last`` the value's time, of ``mean``
    how many values it is the mean of. start: where the run of the first cell held began. closed: no event comes for the cells
    before this. done: windows whose last cell, the label's too, is before this have been given.
    """

    index: np.ndarray
    value: np.ndarray
    mark: np.ndarray
    start: int = 0
    closed: int = 0
    done: int = 0

    @classmethod
    def empty(cls, values: int) -> State:
        """Of a key that nobody has seen. values: F."""
        return cls(np.empty(0, np.int64), np.empty((0, values)), np.empty((0, values), np.int64))

    def to_bytes(self) -> bytes:
        """As int64, little-endian: start, closed, done, N; index; the bits of value; mark."""
        told = [self.start, self.closed, self.done, len(self.index)]
        parts = (np.array(told, np.int64), self.index, self.value.ravel().view(np.int64), self.mark.ravel())
        return np.concatenate(parts).astype("<i8").tobytes()

    @classmethod
    def from_bytes(cls, told: bytes, values: int) -> State:
        """The state that ``to_bytes`` told of. values: F."""
        numbers = np.frombuffer(told, "<i8").astype(np.int64)
        start, closed, done, count = numbers[:4].tolist()
        index, value, mark = np.split(numbers[4:], [count, count * (1 + values)])
        shape = (count, values)
        return cls(index, value.view(np.float64).reshape(shape), mark.reshape(shape), start, closed, done)


@dataclass(frozen=True)
class Windows:
    """ends: (W,) µs at which each window's last cell ends. series: (W, L, F) float32. label: (W, H) float32, the H cells
    behind each. wake: the cell before which all must be closed for there to be more to do; None: nothing is held any more."""

    ends: np.ndarray
    series: np.ndarray
    label: np.ndarray
    wake: int | None


def advance(grid: Grid, state: State, times: np.ndarray, values: np.ndarray, closed: int) -> tuple[State, Windows]:
    """Take events in any order; give the windows that can change no more, each once.

    times: (E,) µs since 1970. values: (E, F), NaN for none. closed: the cell before which no more events come
    (``Grid.closed_at`` of a watermark; FOREVER when these are all). Events in cells that were closed before are left out.

    A window ends with a cell c where ``(c + 1) % step == 0``, whatever came first; it and its label lie within one run, between
    the run's first and its last event. What comes out of all calls depends on the events alone, not on their order or on the
    calls they came in, as long as each came before its cell was closed.
    """
    cells = times // grid.every
    fresh = cells >= state.closed
    held = _merged(grid, state, cells[fresh], times[fresh], values[fresh])
    starts, lasts = _runs(grid, held)
    last_cells = _last_cells(grid, held, starts, lasts)
    ready, waiting = last_cells[last_cells < closed], last_cells[last_cells >= closed]
    series, label = _cut(grid, held, ready - grid.horizon)
    kept = _trimmed(grid, held, starts, lasts, closed)
    wake = None
    if len(kept.index):
        wake = int(waiting[0]) + 1 if len(waiting) else int(kept.index[-1]) + grid.length + 1
    return kept, Windows((ready - grid.horizon + 1) * grid.every, series, label, wake)


def _merged(grid: Grid, state: State, cells: np.ndarray, times: np.ndarray, values: np.ndarray) -> State:
    """The state with these events in it."""
    if not len(cells):
        return state
    marks = np.broadcast_to(times[:, None] if grid.combine == "last" else np.ones((1, 1), np.int64), values.shape)
    all_cells = np.concatenate([state.index, cells])
    all_values, all_marks = np.concatenate([state.value, values]), np.concatenate([state.mark, marks])
    index, place = np.unique(all_cells, return_inverse=True)
    value = np.full((len(index), values.shape[1]), np.nan)
    mark = np.zeros(value.shape, np.int64)
    for j in range(values.shape[1]):
        there = np.flatnonzero(~np.isnan(all_values[:, j]))
        order = there[np.lexsort((all_values[there, j], all_marks[there, j], place[there]))]
        filled, first = np.unique(place[order], return_index=True)
        if len(filled):
            value[filled, j], mark[filled, j] = _combined(grid, all_values[order, j], all_marks[order, j], first)
    return replace(state, index=index, value=value, mark=mark, start=state.start if len(state.index) else int(index[0]))


def _combined(grid: Grid, value: np.ndarray, mark: np.ndarray, first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One value a cell, out of those that begin at ``first``, which are in order of their marks."""
    if grid.combine == "last":
        last = np.append(first[1:], len(value)) - 1
        return value[last], mark[last]
    counts = np.add.reduceat(mark, first)
    if grid.combine == "mean":
        return np.add.reduceat(value * mark, first) / counts, counts
    reduce = {"sum": np.add, "min": np.minimum, "max": np.maximum}[grid.combine]
    return reduce.reduceat(value, first), counts


def _runs(grid: Grid, held: State) -> tuple[np.ndarray, np.ndarray]:
    """For each cell held the first and the last of its run: (N,) each."""
    if not len(held.index):
        return held.index, held.index
    begins = np.concatenate([[True], np.diff(held.index) > grid.length])
    first = np.flatnonzero(begins)
    run = np.cumsum(begins) - 1
    starts = np.where(run == 0, min(held.start, held.index[0]), held.index[first][run])
    return starts, held.index[np.append(first[1:], len(held.index)) - 1][run]


def _last_cells(grid: Grid, held: State, starts: np.ndarray, lasts: np.ndarray) -> np.ndarray:
    """(W,) the last cell, of the label if there is one, of every window that is whole and has not been given."""
    found = [np.empty(0, np.int64)]
    for first in np.flatnonzero(np.diff(starts, prepend=starts[:1] - 1)):
        low = max(int(starts[first]) + grid.length + grid.horizon - 1, held.done)
        low += -(low - grid.horizon + 1) % grid.step
        found.append(np.arange(low, lasts[first] + 1, grid.step))
    return np.concatenate(found)


def _cut(grid: Grid, held: State, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(W, L, F) and (W, H), float32: the windows that end with these cells, and what comes behind them."""
    cells = ends[:, None] + np.arange(1 - grid.length, grid.horizon + 1)
    values = held.value.shape[1]
    if not len(ends):
        return np.empty((0, grid.length, values), np.float32), np.empty((0, grid.horizon), np.float32)
    place = np.minimum(np.searchsorted(held.index, cells), len(held.index) - 1)
    whole = np.where((held.index[place] == cells)[..., None], held.value[place], np.nan)
    if grid.fill == "zero":
        whole = np.where(np.isnan(whole), 0.0, whole)
    if grid.fill == "previous":
        own = _forward(whole[:, : grid.length])
        whole[:, : grid.length] = _forward(own[:, ::-1])[:, ::-1]
        whole = _forward(whole)
    with np.errstate(over="ignore"):  # too large for float32: inf, which scoring refuses
        whole = whole.astype(np.float32)
    return whole[:, : grid.length], whole[:, grid.length :, grid.target]


def _forward(values: np.ndarray) -> np.ndarray:
    """(W, C, F) with each NaN replaced by what is before it in its window."""
    cells = np.arange(values.shape[1])[:, None]
    last = np.maximum.accumulate(np.where(np.isnan(values), 0, cells), axis=1)
    return np.take_along_axis(values, last, axis=1)


def _trimmed(grid: Grid, held: State, starts: np.ndarray, lasts: np.ndarray, closed: int) -> State:
    """What is still needed: by windows to come, and to tell where a run goes on."""
    closed = max(closed, held.closed)
    if not len(held.index) or closed - held.index[-1] > grid.length:
        return replace(State.empty(held.value.shape[1]), closed=closed)
    past = int(np.searchsorted(held.index, closed))
    if not past:
        return replace(held, start=int(starts[0]), closed=closed)
    done = max(held.done, min(closed, int(lasts[past - 1]) + 1))
    kept = slice(int(np.searchsorted(held.index, done - grid.horizon - grid.length + 1)), None)
    return State(held.index[kept], held.value[kept], held.mark[kept], int(starts[kept][0]), closed, done)
