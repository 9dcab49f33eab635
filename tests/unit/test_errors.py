"""Errors travel from executor to driver by pickle: type, message and fields must arrive; hints must help."""

import builtins
import inspect
import pickle

import pytest

from sparkdl import errors
from sparkdl.errors import ColumnNotFoundError, EmptyDatasetError, SparkdlError, did_you_mean

OWN_WORDS = (ColumnNotFoundError, EmptyDatasetError)  # these make their message from their fields
ALL = [
    cls for _, cls in inspect.getmembers(errors, inspect.isclass)
    if issubclass(cls, SparkdlError) and cls not in OWN_WORDS
]  # fmt: skip


@pytest.mark.parametrize("cls", ALL)
def test_an_error_survives_pickle_with_its_fields(cls):
    error = cls("what happened", column="a", row=3, expected=(2, 3), got=None)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is cls
    assert str(copy) == str(error) == "what happened"
    assert vars(copy) == {"column": "a", "row": 3, "expected": (2, 3), "got": None}


def test_a_column_not_found_survives_pickle_with_its_fields():
    copy = pickle.loads(pickle.dumps(ColumnNotFoundError("feature", ["features", "label"], role="input column")))
    assert (copy.column, copy.available) == ("feature", ["features", "label"])
    assert str(copy) == (
        "input column 'feature' is not in the DataFrame; did you mean 'features'?; its columns are ['features', 'label']"
    )


def test_an_empty_dataset_survives_pickle_with_its_fields():
    copy = pickle.loads(pickle.dumps(EmptyDatasetError("image")))
    assert (copy.column, copy.expected, copy.got) == ("image", "rows", 0)
    assert str(copy) == (
        "the DataFrame has no rows, so the shape of column 'image' cannot be told; check its filters and joins"
    )


def test_each_error_is_in_the_tree_of_the_docstring_under_its_parent():
    for cls in [*ALL, *OWN_WORDS]:
        line = next(line for line in errors.__doc__.splitlines() if f"{cls.__name__} " in f"{line} ")
        if cls is not SparkdlError and cls.__bases__[0] is SparkdlError:
            assert f"({cls.__bases__[1].__name__})" in line
            assert issubclass(getattr(builtins, cls.__bases__[1].__name__), Exception)


@pytest.mark.parametrize(
    ("name", "options", "hint"),
    [
        ("feature", ["features", "label"], "; did you mean 'features'?"),
        ("ADAM", ["Adam", "SGD"], "; did you mean 'Adam'?"),  # the case does not count
        ("adm", ["Adam", "AdamW", "Adamax"], "; did you mean 'Adam' or 'AdamW' or 'Adamax'?"),  # nearest first
        ("zzz", ["features"], ""),
        ("", ["features"], ""),
        ("x", [], ""),
    ],
)
def test_did_you_mean(name, options, hint):
    assert did_you_mean(name, options) == hint
