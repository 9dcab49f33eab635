"""Windows of one key: the same out of a table and out of a stream, whatever the order of arrival."""

import itertools

import numpy as np
import pytest

from sparkdl.preprocess.windowing import COMBINE, FILL, FOREVER, Grid, State, advance

NONE = np.nan


def whole(grid, times, values):
    """All windows of these events at once, as {end: (series, label)}."""
    values = np.asarray(values, float)
    values = values[:, None] if values.ndim == 1 else values
    _, found = advance(grid, State.empty(values.shape[1]), np.asarray(times, np.int64), values, FOREVER)
    return told(found)


def told(found):
    return {
        int(end): (series.tolist(), label.tolist())
        for end, series, label in zip(found.ends, found.series, found.label, strict=True)
    }


def plain(grid, times, values):
    """The same, cell by cell, as the docstring has it."""
    cells, width = {}, np.asarray(values).shape[1]
    for time, row in zip(times, np.asarray(values, float).tolist(), strict=True):
        cells.setdefault(time // grid.every, []).append((time, row))
    runs, made = [], {}
    for cell in sorted(cells):
        if not runs or cell - runs[-1][1] > grid.length:
            runs.append([cell, cell])
        runs[-1][1] = cell
    combine = {"last": lambda v: v[-1], "mean": np.mean, "sum": np.sum, "min": min, "max": max}[grid.combine]

    def value(cell, j):
        there = [row[j] for _, row in sorted(cells.get(cell, []), key=lambda event: (event[0], event[1][j]))]
        there = [one for one in there if not np.isnan(one)]
        return combine(there) if there else 0.0 if grid.fill == "zero" else NONE

    for start, last in runs:
        for end in range(start + grid.length - 1, last - grid.horizon + 1):
            if (end + 1) % grid.step == 0:
                grids = [
                    [value(c, j) for j in range(width)] for c in range(end - grid.length + 1, end + grid.horizon + 1)
                ]
                label = [row[grid.target] for row in grids[grid.length :]]
                made[(end + 1) * grid.every] = (grids[: grid.length], label)
    return made


def same(a, b):
    assert list(a) == list(b)
    for end in a:
        for one, other in zip(a[end], b[end], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5)


def made_up(seed, events=60, width=2, span=300):
    rng = np.random.default_rng(seed)
    times = np.sort(rng.integers(0, span, events))
    times = times[(times < span // 3) | (times > span // 2)] + 10_000  # a hole: two runs for short windows
    values = rng.normal(size=(len(times), width)).round(2)
    values[rng.random(values.shape) < 0.1] = NONE
    return times, values


GRIDS = [
    Grid(every=10, length=4),
    Grid(every=10, length=4, step=3, combine="mean"),
    Grid(every=10, length=3, horizon=2, combine="sum", fill="zero"),
    Grid(every=7, length=5, step=5, horizon=1, combine="max", target=1),
    Grid(every=25, length=1, combine="min"),
]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("seed", range(4))
def test_a_table_gives_what_is_meant(grid, seed):
    times, values = made_up(seed)
    same(whole(grid, times, values), plain(grid, times, values))


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("seed", range(25))
def test_a_stream_gives_each_window_of_the_table_once_in_any_order_within_the_watermark(grid, seed):
    rng = np.random.default_rng(1000 + seed)
    times, values = made_up(seed)
    late = 40
    order = np.argsort(times + rng.integers(0, late, len(times)), kind="stable")
    state, seen, given, highest = State.empty(2), [], {}, 0
    batches = np.split(order, np.sort(rng.integers(0, len(order), rng.integers(1, 12))))
    for batch in [*batches, []]:
        before = grid.closed_at(max(highest - late, 0))
        assert all(times[batch] // grid.every >= before) if len(batch) else True
        state, found = advance(grid, State.from_bytes(state.to_bytes(), 2), times[batch], values[batch], before)
        seen += found.ends.tolist()
        given |= told(found)
        assert len(state.index) <= grid.length + grid.horizon + len(times)
        highest = max(highest, *times[batch]) if len(batch) else highest
    state, found = advance(grid, state, times[:0], values[:0], grid.closed_at(highest + 10 * grid.every * grid.length))
    seen += found.ends.tolist()
    given |= told(found)
    assert len(set(seen)) == len(seen), "a window came twice"
    same(dict(sorted(given.items())), whole(grid, times, values))
    assert not len(state.index), "nothing is held of a key that has gone"
    assert found.wake is None


def test_waking_when_told_loses_nothing_and_never_stands_still():
    grid = Grid(every=10, length=3, step=2)
    times, values = made_up(3)
    state, found = advance(grid, State.empty(2), times, values, 0)
    given = told(found)
    while found.wake is not None:
        closed = found.wake
        state, found = advance(grid, state, times[:0], values[:0], closed)
        assert found.wake is None or found.wake > closed
        given |= told(found)
    same(given, whole(grid, times, values))


def test_what_is_held_is_bounded_by_a_window_and_the_lateness():
    grid, state = Grid(every=10, length=6, horizon=2), State.empty(1)
    for time in range(0, 50_000, 5):
        state, _ = advance(grid, state, np.array([time]), np.array([[1.0]]), grid.closed_at(max(time - 30, 0)))
        assert len(state.index) <= 6 + 2 + 30 // 10 + 1


def test_an_event_in_a_closed_cell_is_left_out():
    grid = Grid(every=10, length=2)
    state, first = advance(grid, State.empty(1), np.array([0, 10, 20]), np.ones((3, 1)), 2)
    assert first.ends.tolist() == [20]
    state, more = advance(grid, state, np.array([5, 25]), np.array([[9.0], [3.0]]), 3)
    assert told(more) == {30: ([[1.0], [3.0]], [])}


@pytest.mark.parametrize(
    ("combine", "expected"),
    [("last", 5.0), ("mean", 3.0), ("sum", 9.0), ("min", 1.0), ("max", 5.0)],
)
def test_several_values_in_a_cell(combine, expected):
    grid = Grid(every=10, length=1, combine=combine)
    for order in itertools.permutations([(0, 1.0), (3, 3.0), (9, 5.0)]):
        times, values = zip(*order, strict=True)
        assert whole(grid, times, values) == {10: ([[expected]], [])}


def test_of_two_values_at_the_same_time_the_larger_is_the_last_whatever_came_first():
    grid = Grid(every=10, length=1)
    assert whole(grid, [4, 4], [1.0, 2.0]) == whole(grid, [4, 4], [2.0, 1.0]) == {10: ([[2.0]], [])}


@pytest.mark.parametrize(
    ("fill", "expected", "label"),
    [
        ("null", [NONE, 2.0, NONE, 4.0], [NONE, 6.0]),
        ("zero", [0.0, 2.0, 0.0, 4.0], [0.0, 6.0]),
        ("previous", [2.0, 2.0, 2.0, 4.0], [4.0, 6.0]),
    ],
)
def test_holes(fill, expected, label):
    grid = Grid(every=10, length=4, horizon=2, fill=fill)
    found = whole(grid, [0, 10, 30, 50], [[NONE], [2.0], [4.0], [6.0]])
    same(found, {40: (np.reshape(expected, (4, 1)), label)})


def test_a_hole_as_long_as_a_window_begins_anew():
    grid = Grid(every=1, length=3)
    assert list(whole(grid, [0, 1, 2, 5, 6], np.ones((5, 1)))) == [3, 4, 5, 6, 7]
    assert list(whole(grid, [0, 1, 2, 6, 7, 8], np.ones((6, 1)))) == [3, 9]


def test_an_event_far_ahead_makes_no_windows_of_nothing():
    grid = Grid(every=1, length=3)
    assert list(whole(grid, [0, 1, 2, 10**12], np.ones((4, 1)))) == [3]


def test_windows_end_on_the_hour_whatever_came_first():
    grid = Grid(every=1, length=2, step=5)
    assert list(whole(grid, range(3, 21), np.ones((18, 1)))) == [5, 10, 15, 20]


def test_nothing_gives_nothing():
    for grid in (Grid(every=1, length=2, combine=one, fill=other) for one in COMBINE for other in FILL):
        assert whole(grid, [], np.empty((0, 1))) == {}
