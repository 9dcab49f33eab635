"""Arrays of labels as numbers, of any length."""

import numpy as np
import pyarrow as pa
import pytest

from sparkdl.columns import Ragged
from sparkdl.errors import InvalidParamError
from sparkdl.preprocess import LabelLists
from sparkdl.preprocess.base import from_json

TEXTS = LabelLists(values=("a", "b", "c"))
NUMBERS = LabelLists(values=(10, 20, 30))


@pytest.mark.parametrize(
    ("lists", "column", "expected"),
    [
        (TEXTS, [["a"], ["c", "b"]], [[1], [3, 2]]),
        (TEXTS, [["a", "a"]], [[1, 1]]),
        (TEXTS, [[], None, ["b"]], [[], [], [2]]),
        (TEXTS, [["z", "c"], ["z"]], [[3], []]),
        (TEXTS, [[None, "a"]], [[1]]),
        (TEXTS, [], []),
        (NUMBERS, [[10, 30], [40]], [[1, 3], []]),
        (NUMBERS, pa.array([[20.0]]), [[2]]),
        (NUMBERS, pa.array([[20.5, 30.0]]), [[3]]),
        (NUMBERS, pa.array([[20]], pa.large_list(pa.int8())), [[2]]),
        (TEXTS, pa.array([["a"], ["b"], ["c"]]).slice(1), [[2], [3]]),
    ],
)
def test_labels_by_their_numbers(lists, column, expected):
    kind = pa.list_(pa.string() if lists is TEXTS else pa.int64())
    column = column if isinstance(column, pa.Array) else pa.array(column, kind)
    made = lists.read({"seen": column})
    assert isinstance(made, Ragged)
    assert made.values.dtype == np.int64
    assert [
        made.values[start:stop].tolist() for start, stop in zip(made.offsets, made.offsets[1:], strict=False)
    ] == expected


def test_json_round_trip():
    assert from_json(TEXTS.to_json()) == TEXTS
    assert TEXTS.to_json() == {"kind": "label_lists", "values": ["a", "b", "c"]}


def test_a_setting_that_is_not_there():
    with pytest.raises(InvalidParamError, match="did you mean 'values'"):
        LabelLists(value=("a",))
