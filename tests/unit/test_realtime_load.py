"""What the notes of the real-time benchmark's load come to."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import realtime_load as loads


def noted(*rows):
    """Of number, due and arrival in ms."""
    return np.array([(number, due * 10**6, arrived * 10**6, 0, 1) for number, due, arrived in rows], loads.ARRIVAL)


def test_a_latency_is_of_the_first_of_two_answers():
    assert loads.milliseconds(noted((8, 10, 13), (7, 0, 5), (7, 0, 900))).tolist() == [5, 3]


def test_figures_tell_what_was_lost_and_what_came_twice():
    found = noted((0, 0, 5), (1, 100, 105), (1, 100, 250), (2, 200, 900))
    told = loads.figures(found, count=4, rate=10)
    assert (told["lost records"], told["doubled records"]) == (1, 1)
    assert told["answered records/s"] == pytest.approx(5)  # two of them within the 400 ms in which they were sent
    assert (told["p50 ms"], told["largest ms"]) == (5, 700)


def test_nothing_that_arrived_is_all_lost():
    assert loads.figures(noted(), count=3, rate=10) == {
        "answered records/s": 0,
        "lost records": 3,
        "doubled records": 0,
    }


@pytest.mark.parametrize(
    ("by_second", "seconds"), [([3, 2, 2], 0), ([90, 9, 4, 2], 2), ([90, np.nan, 3], 2), ([9, 9], 2)]
)
def test_a_second_within_twice_the_steady_one_is_settled(by_second, seconds):
    assert loads.seconds_to_settle(np.array(by_second, float), steady=2) == seconds


def test_medians_are_of_the_seconds_in_which_records_were_to_be_sent():
    found = noted((0, 500, 510), (1, 700, 730), (2, 1600, 1605), (3, 3500, 3507))
    assert loads.medians(found).tolist() == pytest.approx([20, 5, np.nan, 7], nan_ok=True)


def test_arrivals_are_read_from_where_one_was(tmp_path):
    noted((0, 0, 1), (1, 0, 2), (2, 0, 3)).tofile(tmp_path / "notes")
    with (tmp_path / "notes").open("ab") as file:
        file.write(b"half")  # of an arrival that is being written
    assert loads.arrivals(tmp_path / "notes", 1)["number"].tolist() == [1, 2]
    assert len(loads.arrivals(tmp_path / "notes", 3)) == 0
