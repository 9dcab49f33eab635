"""`__all__` is the truth: what it names is there, and is what its own module defines; nothing else is public."""

import importlib

import pytest

import sparkdl


@pytest.mark.parametrize("name", sparkdl.__all__)
def test_each_public_name_resolves_to_its_home(name):
    value = getattr(sparkdl, name)
    if name != "__version__":
        assert value is getattr(importlib.import_module(sparkdl._HOME_OF[name]), name)
        assert value.__doc__


def test_all_is_sorted_unique_and_complete():
    assert sparkdl.__all__ == sorted(set(sparkdl.__all__))
    assert set(sparkdl.__all__) == {*sparkdl._HOME_OF, "__version__"}


def test_dir_shows_the_public_names():
    assert set(sparkdl.__all__) <= set(dir(sparkdl))


def test_an_unknown_name_is_an_attribute_error_that_says_which():
    with pytest.raises(AttributeError, match="'sparkdl' has no attribute 'TorchEstimater'"):
        _ = sparkdl.TorchEstimater
    assert not hasattr(sparkdl, "nothing_of_this_name")


def test_a_module_is_there_without_an_import_of_its_own():
    assert sparkdl.errors is importlib.import_module("sparkdl.errors")


def test_the_version_is_the_distribution_s():
    from importlib.metadata import version

    assert sparkdl.__version__ == version("sparkdl")
