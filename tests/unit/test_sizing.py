"""The rows to a forward pass follow from shapes alone."""

import pytest
import torch
from torch import nn

from sparkdl.probe import LENGTH
from sparkdl.score.sizing import LEAST, MOST, PROBE_ROWS, TENSOR_BYTES, Sizes, Sizing

KB, MB = 1 << 10, 1 << 20


@pytest.mark.parametrize(
    ("bytes_a_row", "device", "rows"),
    [
        (1 * KB, "cpu", 2048),  # an MLP 50-256-128-1: its 256 hidden units
        (1, "cpu", MOST["cpu"]),
        (3.1 * MB, "cpu", LEAST),  # a ResNet-18 of 224 x 224
        (100 * KB, "cpu", 16),
        (100 * KB, "cuda", 2616),
        (1 << 40, "cpu", LEAST),
        (1, "cuda", MOST["cuda"]),
    ],
)
def test_the_largest_tensor_stays_small(bytes_a_row, device, rows):
    sizing = Sizing.of(0, device).measured(int(bytes_a_row * PROBE_ROWS))
    assert sizing.rows() == rows
    assert rows <= LEAST or rows * bytes_a_row <= TENSOR_BYTES[device]


def test_long_rows_go_fewer_at_a_time():
    sizing = Sizing.of(0, "cpu").measured(2 * KB * LENGTH * PROBE_ROWS, LENGTH)
    assert [sizing.rows(length) for length in (0, 1, 8, 64, 200, 10_000)] == [1024, 1024, 128, 16, LEAST, LEAST]


def test_what_is_asked_for_is_done_and_needs_no_measure():
    sizing = Sizing.of(300, "cpu")
    assert [sizing.rows(), sizing.rows(1000)] == [300, 300]
    assert not sizing.wants_measure(10**6)


def test_a_few_rows_are_not_worth_a_measure():
    sizing = Sizing.of(0, "cpu")
    assert [sizing.wants_measure(rows) for rows in (1, PROBE_ROWS, PROBE_ROWS + 1)] == [False, False, True]
    assert not sizing.measured(1).wants_measure(10**6)


def test_memory_that_is_full_bounds_what_follows():
    sizing = Sizing.of(0, "cpu").measured(KB * PROBE_ROWS).at_most(3)
    assert sizing.rows() == 3
    assert sizing.at_most(100).rows() == 3


def test_the_tensors_of_all_layers_are_seen():
    module = nn.Sequential(nn.Linear(4, 100), nn.ReLU(), nn.Linear(100, 2))
    with torch.inference_mode(), Sizes() as sizes:
        module(torch.zeros(8, 4))
    assert max(sizes.nbytes) == 8 * 100 * 4
