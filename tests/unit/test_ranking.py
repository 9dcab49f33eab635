"""Numbers of items as items."""

import numpy as np
import pyarrow as pa
import pytest

from sparkdl.decode.base import from_json
from sparkdl.decode.ranking import Ranking
from sparkdl.errors import SignatureError
from sparkdl.signature import TensorSpec

OUTPUTS = (TensorSpec("items", "int64", (3,)), TensorSpec("scores", "float32", (3,)))


def test_items_with_their_scores():
    made = Ranking(values=("a", "b", "c")).decode(
        {"items": np.array([[3, 1, 2], [2, 0, 0], [0, 0, 0]]), "scores": np.array([[3, 2, 1], [5, 0, 0], [0, 0, 0]], np.float32)}, {}
    )  # fmt: skip
    assert made["prediction"].to_pylist() == [
        [{"item": "c", "score": 3}, {"item": "a", "score": 2}, {"item": "b", "score": 1}],
        [{"item": "b", "score": 5}],
        [],
    ]


@pytest.mark.parametrize(("values", "kind"), [(("a", "b"), pa.string()), ((7, 8), pa.int64())])
def test_the_columns_type_is_that_of_the_items(values, kind):
    ranking = Ranking(values=values)
    told = ranking.columns(OUTPUTS)
    assert told == {"prediction": pa.list_(pa.struct([("item", kind), ("score", pa.float32())]))}
    made = ranking.decode({"items": np.array([[1, 2, 0]]), "scores": np.zeros((1, 3), np.float32)}, {})
    assert made["prediction"].type == told["prediction"]


@pytest.mark.parametrize(
    "outputs",
    [
        (TensorSpec("prediction", "float32"),),
        (TensorSpec("items", "int64", (3,)),),
        (TensorSpec("items", "int64", (3,)), TensorSpec("scores", "float32", (4,))),
        (TensorSpec("items", "int64"), TensorSpec("scores", "float32")),
        (*OUTPUTS, TensorSpec("more", "float32")),
    ],
)
def test_a_model_that_ranks_nothing(outputs):
    with pytest.raises(SignatureError, match="a ranking takes the outputs 'items' and 'scores'"):
        Ranking(values=("a",)).columns(outputs)


def test_json_round_trip():
    ranking = Ranking(values=(7, 8))
    assert from_json(ranking.to_json()) == ranking
