"""The search for a batch size: on machines whose forward pass takes a known time."""

import pytest

from sparkdl.score.tuning import FIRST, LAST, LONG_S, PASSES, Tuning


def settled(cost, noise=lambda call: 1.0, most=10_000):
    """The end of the search where a pass over ``rows`` takes ``cost(rows)`` seconds, and the passes it took."""
    tuning, calls = Tuning.of(0), 0
    while tuning.trial is not None:
        tuning = tuning.after(cost(tuning.trial) * noise(calls))
        calls += 1
        assert calls < most
    return tuning, calls


@pytest.mark.parametrize(
    ("what", "cost", "best"),
    [
        (
            "each pass costs 100 µs and 1 µs a row: 2048 rows are not 5 % better than 1024",
            lambda n: 1e-4 + 1e-6 * n,
            1024,
        ),
        ("nothing but rows costs", lambda n: 1e-6 * n, FIRST),
        ("a row takes 20 ms: 16 are too long", lambda n: 0.02 * n, FIRST),
        ("a pass takes 1 s whatever it holds", lambda n: 1.0, FIRST),
        ("a pass takes 1 ms whatever it holds", lambda n: 1e-3, LAST),
        ("above 512 rows the cache is too small", lambda n: 1e-4 + 1e-6 * n * (1 if n <= 512 else 3), 512),
        ("a clock that stands still", lambda n: 0.0, LAST),
    ],
)
def test_where_the_search_ends(what, cost, best):
    assert settled(cost)[0].best == best, what


def test_warming_up_and_being_interrupted_are_not_counted():
    def cost(rows):
        return 1e-4 + 1e-6 * rows

    calm, _ = settled(cost)
    assert settled(cost, noise=lambda call: 500 if call % PASSES == 0 else 1.0)[0].best == calm.best
    assert settled(cost, noise=lambda call: 1.0 if call % PASSES == 2 else 7.0)[0].best == calm.best


def test_a_long_pass_is_looked_at_twice_at_most():
    assert settled(lambda rows: 2 * LONG_S)[1] == 2


def test_a_size_that_is_given_stays():
    tuning = Tuning.of(300)
    assert (tuning.best, tuning.trial, tuning.after(1.0)) == (300, None, tuning)


def test_a_full_memory_ends_the_search():
    tuning = Tuning.of(0)
    for _ in range(3 * PASSES):
        tuning = tuning.after(1e-3)
    assert (tuning.best, tuning.trial) == (4 * FIRST, 8 * FIRST)
    full = tuning.at_most(3)
    assert (full.best, full.trial) == (3, None)
    assert tuning.at_most(1000).best == tuning.best


def test_it_tells_what_was_tried():
    assert str(settled(lambda rows: 0.02 * rows)[0]) == "8 rows to a forward pass (rows/s by size: 8: 50)"
