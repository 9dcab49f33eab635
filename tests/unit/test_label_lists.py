"""Arrays of labels as numbers, of any length."""

from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from sparkdl.columns import BadRows, Ragged
from sparkdl.decode.labels import LabelDecoder
from sparkdl.errors import InvalidParamError, SignatureError
from sparkdl.preprocess import LabelLists, Labels
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


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((Decimal(0), Decimal(1), Decimal(2)), "valid"),
        ((0.0, 1.0), "valid"),
        ((True, 2), "of one kind, and these are bool and int"),
        ((1, "a"), "of one kind, and these are int and str"),
        (("a", "b", "a"), "each label once, 'a' is there twice"),
        ((1 << 63,), "64 bits"),
    ],
)
@pytest.mark.parametrize("kind", [Labels, LabelLists, LabelDecoder])
def test_values_are_of_one_kind_and_each_once(kind, values, message):
    with pytest.raises(InvalidParamError, match=message):
        kind(values=values)


@pytest.mark.parametrize(
    ("column", "wrong"),
    [
        (pa.array([Decimal("2.0"), Decimal("2.5"), Decimal("0.0")]), [1]),
        (pa.array([Decimal("1" + "0" * 30), Decimal(1)], pa.decimal128(38, 2)), [0]),
        (pa.array([2.5, 1.0, float("nan"), float("inf")]), [0, 2, 3]),
        (pa.array([0, 3, None, 1]), [1, 2]),
    ],
)
def test_numbers_that_are_no_label_are_bad_rows(column, wrong):
    with pytest.raises(BadRows) as error:
        Labels(values=(0, 1, 2)).read({"kind": column})
    assert error.value.rows == wrong


def test_booleans_are_no_numbers_above_one():
    labels = Labels(values=(False, True))
    assert labels.read({"kind": pa.array([True, False])}).tolist() == [1, 0]
    with pytest.raises(BadRows):
        labels.read({"kind": pa.array([2])})


@pytest.mark.parametrize(
    ("values", "column"), [((1, 2), pa.array(["a"])), (("1", "2"), pa.array([1])), (("true",), pa.array([True]))]
)
def test_a_column_of_another_kind_than_the_labels_is_told(values, column):
    with pytest.raises(SignatureError, match=r"column 'kind' is .*, and the labels are"):
        Labels(values=values).read({"kind": column})


def test_labels_that_are_not_learnt_yet():
    with pytest.raises(InvalidParamError, match="no values yet: fit learns them"):
        Labels().read({"kind": pa.array(["a"])})
