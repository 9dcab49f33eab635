"""Two ranks with batches of B give, weight for weight, what one process gives with batches of 2 B; by Horovod and by
torch.distributed alike. Real processes, real collectives.
"""

import pytest
import torch
from ranks import DTYPES, FLOATS, SHAPES, FixedReader, alone, everything, exchanged, on_horovod, on_torch, trained

from sparkdl.train.world import World

STARTED = {"horovod": on_horovod, "torch": on_torch}
OPTIMIZERS = {"sgd": {"lr": 0.1, "momentum": 0.9}, "adamw": {"lr": 0.01, "weight_decay": 0.1}}
CASES = [
    # 42 rows: three full steps; a last one of 2 and 0 rows; a last one of 8 and 2 rows
    {"optimizer": optimizer, "arguments": arguments, "batch_size": batch_size}
    for optimizer, arguments in OPTIMIZERS.items()
    for batch_size in (7, 5, 8)
] + [{"optimizer": "sgd", "arguments": OPTIMIZERS["sgd"], "batch_size": 4, "rows": 1}]  # rank 1 never has a row


@pytest.fixture(scope="module", params=STARTED)
def ranks(request):
    """What two ranks gave: their exchanges, and a training a case."""
    return STARTED[request.param](everything, cases=CASES)


@pytest.mark.parametrize(("batch_size", "rows"), [(7, [7, 7]), (5, [2, 0]), (8, [8, 2])])
def test_the_last_steps_are_as_ragged_as_the_cases_say(batch_size, rows):
    reader = FixedReader(World(size=2), batch_size)
    assert reader.rows_in_step(reader.steps_per_epoch - 1) == rows


@pytest.mark.parametrize("case", range(len(CASES)), ids=lambda i: "{optimizer}-{batch_size}".format(**CASES[i]))
def test_two_ranks_are_one_process_with_twice_the_batch(ranks, case):
    weights, losses, accuracies = ranks[1][case]
    double = {**CASES[case], "batch_size": 2 * CASES[case]["batch_size"]}
    expected, expected_losses, expected_accuracies = alone(trained, **double)
    assert weights.keys() == expected.keys()
    for name, values in weights.items():
        ours, theirs = (torch.tensor(given, dtype=torch.float64) for given in (values, expected[name]))
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    assert losses == pytest.approx(expected_losses, abs=1e-12)
    assert accuracies == expected_accuracies


def test_the_collective_does_what_it_says(ranks):
    for dtype in DTYPES:
        for shape in SHAPES:
            mine = torch.arange(torch.Size(shape).numel()).reshape(shape)
            other = ((mine + 10) % 16).to(dtype)
            mine = mine.to(dtype)
            expected = {"broadcast": (mine, mine), "BROADCAST": (mine, mine), "allgather": (mine, other)}
            if dtype in FLOATS:
                expected["allreduce"] = (mine + other, mine + other)
            for operation, on_ranks in expected.items():
                value = torch.stack(on_ranks)
                told = (str(value.dtype), tuple(value.shape), value.tolist())
                assert ranks[0][operation, str(dtype), shape] == told, (operation, dtype, shape)


def test_one_process_and_a_world_of_one_rank_do_the_same():
    assert on_horovod(exchanged, size=1) == alone(exchanged)
