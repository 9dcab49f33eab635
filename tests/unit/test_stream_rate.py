"""How many rows a micro-batch may have."""

import pytest

from sparkdl.stream.rate import FIRST, LEAST, MOST, Bound, better_bound
from sparkdl.stream.reports import BatchReport


def batches(*of):
    return [
        BatchReport("q", number, 0.0, rows, {"1": rows}, seconds={"total": seconds})
        for number, (rows, seconds) in enumerate(of)
    ]


@pytest.mark.parametrize(
    ("bound", "done", "trigger", "better"),
    [
        (1000, [], 1.0, None),
        (1000, [(1000, 0.1)] * 2, 1.0, None),  # too few to tell
        (1000, [(1000, 0.1)] * 3, 1.0, 50_000),  # 10,000 rows/s, 5 s
        (1000, [(1000, 0.1)] * 3, 60.0, 600_000),  # the trigger is longer
        (1000, [(100, 0.1)] * 9, 1.0, None),  # the source has no more: the bound did not cut them
        (1000, [(1000, 0.1), (50, 0.1)] * 3, 1.0, 50_000),
        (50_000, [(50_000, 5.0)] * 3, 1.0, None),
        (50_000, [(50_000, 3.0)] * 3, 1.0, None),  # near enough
        (50_000, [(50_000, 20.0)] * 3, 1.0, 12_500),
        (50_000, [(50_000, 1.0)] + [(50_000, 20.0)] * 2, None, 12_500),  # the median
        (5_000, [(5_000, 1e4)] * 3, 1.0, LEAST),
        (LEAST, [(LEAST, 1e4)] * 3, 1.0, None),
        (1_000_000, [(1_000_000, 0.01)] * 3, 1.0, MOST),
    ],
)
def test_a_full_batch_takes_some_seconds(bound, done, trigger, better):
    assert better_bound(bound, batches(*done), trigger) == better


def test_a_bound_is_kept_for_the_next_run(tmp_path):
    bound = Bound(str(tmp_path), 1.0)
    assert bound.rows == FIRST
    for report in batches(*[(FIRST, 0.5)] * 3):
        assert not bound.is_poor.is_set()
        bound.batch(report)
    assert bound.is_poor.is_set()
    assert bound.take() == bound.rows == Bound(str(tmp_path), 1.0).rows == FIRST * 10
    assert not bound.is_poor.is_set()
