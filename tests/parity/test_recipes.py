"""Two Horovod ranks with any recipe are one process with twice the batch; and go on, interrupted, to the same weights."""

import pytest
import torch
from ranks import alone, on_horovod, on_torch
from recipes import COMPRESSED, RECIPES, all_of, interrupted

BATCH = 6


@pytest.fixture(scope="module")
def ranks():
    return on_horovod(all_of, cases=RECIPES | COMPRESSED, batch_size=BATCH)


@pytest.fixture(scope="module")
def one():
    cases = {name: dict(case) for name, case in (RECIPES | COMPRESSED).items()}
    for name in ("sync batch norm", *COMPRESSED):
        del cases[name]["recipe"]  # torch's own batch norm
    cases["linear scaling"] = {"rate": 0.2}
    return alone(all_of, cases=cases, batch_size=2 * BATCH)


@pytest.mark.parametrize("name", RECIPES)
def test_two_ranks_give_what_one_process_gives(name, ranks, one):
    weights, history = ranks[name]
    expected, told = one[name]
    for key, value in expected.items():
        torch.testing.assert_close(weights[key], value, rtol=0, atol=1e-12, msg=lambda text, key=key: f"{key}: {text}")
    for entry, other in zip(history, told, strict=True):
        assert entry == pytest.approx(other, abs=1e-12)


@pytest.mark.parametrize(("name", "tolerance"), [("float16", 2e-3), ("bfloat16", 2e-2)])
def test_compressed_gradients_are_near(name, tolerance, ranks, one):
    weights, history = ranks[name]
    expected, told = one[name]
    for key, value in expected.items():
        torch.testing.assert_close(weights[key], value, rtol=0, atol=tolerance)
        assert not torch.equal(weights[key], value)
    assert [entry["loss"] for entry in history] == pytest.approx([entry["loss"] for entry in told], abs=tolerance)


@pytest.mark.parametrize("backend", [on_horovod, on_torch])
def test_an_interrupted_run_goes_on_to_the_same_weights(backend, tmp_path):
    answers = backend(interrupted, folder=str(tmp_path), moments=[1, 3, 5, 6, 14])
    undisturbed = answers.pop("undisturbed")
    assert list(answers) == [1, 3, 5, 6, 14]
    for moment, weights in answers.items():
        for key, value in undisturbed.items():
            assert (weights[key] == value).all(), (moment, key)


def test_one_rank_takes_up_what_two_left_at_the_end_of_an_epoch(tmp_path):
    """The same rows an epoch: those of the epoch that was not over are seen again, from its start."""
    on_horovod(interrupted, folder=str(tmp_path), moments=[8])
    from recipes import Reader
    from torch import nn

    from sparkdl.train.checkpoint import Checkpoints, Every, saved
    from sparkdl.train.collective import SingleProcess
    from sparkdl.train.loop import Training, train
    from sparkdl.train.named import named_optimizer

    places = Checkpoints(f"{tmp_path}/8", Every(), 9, {})
    made = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.4), nn.Linear(8, 2)).double()
    training = Training(made, nn.functional.cross_entropy, named_optimizer("adam", {}), "multiclass", 4, 0)
    ended = {(one.epoch, one.step) for one in saved(places.uri) if one.ranks == 2}
    assert (3, 0) in ended
    result = train(training, Reader(SingleProcess().world, 5), SingleProcess(), checkpoints=places)
    assert [entry["rows"] for entry in result.history] == [42] * 4
