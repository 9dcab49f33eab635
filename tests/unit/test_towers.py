"""The modules behind Recommender, against what their formulas say."""

import math

import pytest
import torch

from sparkdl import Bundle
from sparkdl.decode.ranking import Ranking
from sparkdl.preprocess.categories import Categories
from sparkdl.preprocess.label_lists import LabelLists
from sparkdl.ready.towers import Pairs, TopItems, TwoTower, Vectors, in_batch_softmax
from sparkdl.signature import Signature, TensorSpec

ITEMS = ("a", "b", "c", "d")
IDS = [(0, 0), (1, 1), (2, 1), (3, 2), (4, 2)]  # of no item, and of the four


@pytest.fixture
def towers():
    torch.manual_seed(0)
    made = TwoTower([4, 3], IDS, 8).eval()
    torch.nn.init.normal_(made.bias.weight)
    return made


def test_a_vector_is_the_sum_of_those_of_an_items_ids(towers):
    vectors, biases = towers.of_items(torch.tensor([2, 4]))
    table = towers.item.vectors.weight  # 5 of the items, 3 of the feature
    assert torch.allclose(vectors, torch.stack([table[2] + table[5 + 1], table[4] + table[5 + 2]]))
    assert torch.equal(biases, towers.bias.weight[[2, 4], 0])


def test_what_is_not_known_adds_nothing(towers):
    user = torch.tensor([[0, 0], [1, 0], [1, 2]])
    none, own, both = towers.of_users(user)
    table = towers.user.vectors.weight
    assert not none.any()
    assert torch.equal(own, table[1])
    assert torch.allclose(both, table[1] + table[4 + 2])


def test_weight_decay_draws_scores_to_the_level():
    torch.manual_seed(0)
    pairs = Pairs(TwoTower([4, 3], IDS, 8, level=3.5))
    optimizer = torch.optim.AdamW(pairs.parameters(), lr=0.1, weight_decay=1.0)
    user, item = torch.tensor([[1, 1], [2, 2]]), torch.tensor([0, 1])
    for _ in range(100):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(pairs(user, item), torch.tensor([3.0, 4.0])).backward()
        optimizer.step()
    assert pairs(torch.tensor([[0, 0]]), torch.tensor([3])).item() == pytest.approx(3.5, abs=0.01)
    top = TopItems(pairs.towers, 2)(torch.tensor([[0, 0]]))
    assert top["scores"][0].tolist() == pytest.approx([3.5, 3.5], abs=0.5)


def test_a_pairs_score(towers):
    user = torch.tensor([[1, 2], [3, 0]])
    vectors, biases = towers.of_items(torch.tensor([1, 4]))
    expected = [(towers.of_users(user)[row] @ vectors[row] + biases[row]).item() for row in range(2)]
    assert Pairs(towers)(user, torch.tensor([0, 3])).tolist() == pytest.approx(expected)


def test_the_top_items_are_those_of_the_best_pairs(towers):
    user = torch.tensor([[1, 2], [3, 0], [0, 0]])
    pairs = torch.stack([Pairs(towers)(user, torch.full((3,), item)) for item in range(4)], dim=1)
    found = TopItems(towers, 3)(user)
    scores, items = pairs.topk(3)
    assert torch.equal(found["items"], items + 1)
    assert torch.allclose(found["scores"], scores)


@pytest.mark.parametrize(
    ("seen", "left"),
    [
        ([0, 0, 0, 0], {1, 2, 3, 4}),
        ([2, 0, 0, 0], {1, 3, 4}),
        ([2, 2, 0, 0], {1, 3, 4}),
        ([4, 1, 3, 0], {2}),
        ([1, 2, 3, 4], set()),
    ],
)
def test_items_that_are_left_out(towers, seen, left):
    found = TopItems(towers, 10)(torch.tensor([[1, 1]]), torch.tensor([seen]))
    items = found["items"][0].tolist()
    assert set(items) - {0} == left
    assert items == [*items[: len(left)], *[0] * (4 - len(left))]
    assert found["scores"][0].isfinite().all()


def test_the_loss_is_the_cross_entropy_of_corrected_scores():
    outputs = {
        "user": torch.tensor([[1.0], [2.0], [0.5]]),
        "item": torch.tensor([[1.0], [3.0], [1.0]]),
        "offset": torch.tensor([0.5, -1.0, 0.5]),
    }
    first = -(1.5 - math.log(math.exp(1.5) + math.exp(2.0)))  # row 2 has the same item, and is no other one
    second = -(5.0 - math.log(math.exp(2.5) + math.exp(5.0) + math.exp(2.5)))
    third = -(1.0 - math.log(math.exp(1.0) + math.exp(0.5)))
    label = torch.tensor([7, 8, 7])
    assert in_batch_softmax(outputs, label, reduction="none").tolist() == pytest.approx([first, second, third])
    assert in_batch_softmax(outputs, label).item() == pytest.approx((first + second + third) / 3)


def test_what_is_popular_is_corrected_for(towers):
    made = Vectors(towers, [0.1, 0.2, 0.3, 0.4])(torch.tensor([[1, 1]]), torch.tensor([3]))
    assert made["offset"].item() == pytest.approx(towers.bias.weight[4, 0].item() - math.log(0.4))


def test_training_does_not_tell_some_users(towers):
    user = torch.tensor([[2, 1]]).expand(4000, 2)
    own, anybody = towers.of_users(torch.tensor([[2, 1], [0, 1]]))
    towers.anybody = 0.25
    assert torch.equal(towers.of_users(user), own.expand(4000, 8))
    torch.manual_seed(1)
    vectors = towers.train().of_users(user)
    share = torch.isclose(vectors, anybody).all(dim=1).float().mean().item()
    assert share == pytest.approx(0.25, abs=0.03)


def test_the_bundle_recommends_without_spark_and_after_a_load(towers, tmp_path):
    values = tuple(ITEMS)
    users = Categories(vocabularies=(("ann", "bob", "cas"), ("x", "y")))
    seen = LabelLists(values=values)
    signature = Signature(
        (
            TensorSpec("user", "int64", (2,), ("user", "kind"), ("string", "string"), preprocess=users),
            TensorSpec("seen", "int64", (-1,), ("seen",), ("array<string>",), preprocess=seen),
        ),
        decoder=Ranking(values=values),
    )
    Bundle.from_module(TopItems(towers, 3), signature).save(str(tmp_path / "bundle"))
    bundle = Bundle.load(str(tmp_path / "bundle"))
    assert bundle.signature.decoder == signature.decoder
    assert bundle.signature.inputs == signature.inputs
    user = torch.tensor([[1, 2], [0, 0]])
    left_out = torch.tensor([[1, 0], [2, 3]])
    expected = TopItems(towers, 3)(user, left_out)
    got = bundle.module()(user, left_out)
    assert torch.equal(got["items"], expected["items"])
    assert torch.allclose(got["scores"], expected["scores"])
