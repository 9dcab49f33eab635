"""Which code of a bundle may run: none, any, or what some packages hold."""

import pickle as pickles

import models
import pytest
import torch
from making import signature, spec

from sparkdl.bundle import Bundle
from sparkdl.errors import InvalidParamError, UntrustedBundleError
from sparkdl.program import Program, checked_trust


@pytest.fixture(scope="module")
def imported():
    return Bundle.from_module(
        models.choosing(), signature(spec(shape=(4,))), factory=models.choosing, trusted=["models"]
    )


@pytest.mark.parametrize(
    ("given", "kept"),
    [(True, True), (False, False), (["b", "a", "b"], ("a", "b")), ({"a"}, ("a",)), (("a",), ("a",))],
)
def test_it_is_a_plain_value(given, kept):
    assert checked_trust(given) == kept
    assert type(checked_trust(given)) in (bool, tuple)


@pytest.mark.parametrize("given", [None, 1, 0, "models", b"m", [], (), [1], ["a.b"], ["a b"], [""], object()])
def test_all_else_is_refused(imported, given):
    with pytest.raises(InvalidParamError, match=r"'trusted' must be True, False, or names of packages") as caught:
        Bundle.from_files(imported.files, trusted=given)
    assert caught.value.param == "trusted"


def test_code_by_import_path_is_loaded_from_a_package_of_the_list(imported, tmp_path):
    imported.save(str(tmp_path))
    assert imported.program.kind == "import"
    loaded = Bundle.load(str(tmp_path), trusted={"models"})
    assert loaded.trusted == ("models",)
    assert pickles.loads(pickles.dumps(loaded.trusted)) == ("models",)
    assert isinstance(Bundle.from_files(loaded.files, trusted=loaded.trusted).module(), models.Choosing)
    with pytest.raises(UntrustedBundleError, match=r"trusted=\['models'\] for what that package holds"):
        Bundle.load(str(tmp_path), trusted=["other"])


@pytest.mark.parametrize("factory", ["models:torch.hub.load", "models:torch.nn.Linear", "models:torch", "models:MODELS",
                                     "models:MODELS.clear", "models:Choosing.__init__.__globals__"])  # fmt: skip
def test_a_package_of_the_list_is_no_way_to_another(factory):
    with pytest.raises(UntrustedBundleError, match="not a function or class of the trusted packages"):
        Program("import", factory=factory, kwargs={"in_features": 4, "out_features": 2}).load({}, trusted=["models"])


def test_a_package_whose_name_begins_alike_is_another():
    with pytest.raises(UntrustedBundleError):
        Program("import", factory="models2:choosing").load({}, trusted=["models"])


@pytest.mark.parametrize("kind", ["pickle", "torchscript"])
def test_pickle_and_torchscript_need_true(kind):
    with pytest.raises(UntrustedBundleError, match="trusted=True"):
        Program(kind, b"", factory="models:choosing").load({}, trusted=["models", "torch"])


def test_exports_need_no_trust():
    bundle = Bundle.from_module(torch.nn.Linear(4, 2), signature(spec(shape=(4,))))
    Bundle.from_files(bundle.files, trusted=False).module()
