"""An ensemble predicts what its members' predictions, combined by hand, give."""

import numpy as np
import pytest
import torch
from making import signature, spec
from torch import nn

from sparkdl.bundle import Bundle
from sparkdl.decode.labels import LabelDecoder
from sparkdl.ensemble import Ensemble
from sparkdl.errors import InvalidParamError, SignatureError, UntrustedBundleError
from sparkdl.model import TorchModel
from sparkdl.signature import Signature, TensorSpec

X = {"x": np.random.default_rng(0).standard_normal((50, 4)).astype(np.float32)}
INPUTS = signature(spec(shape=(4,)))
OUTPUTS = {"regression": 1, "binary": 1, "multiclass": 3}


def member(task, seed, inputs=INPUTS):
    torch.manual_seed(seed)
    return Bundle.from_module(nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, OUTPUTS[task])), inputs, task=task)


@pytest.fixture(scope="module")
def members():
    return {task: [member(task, seed) for seed in range(3)] for task in OUTPUTS}


def predicted(model, inputs=X):
    assert isinstance(model, TorchModel)
    return Bundle.from_files(model.bundle.files).predict(inputs)  # as it would be loaded


@pytest.mark.parametrize("weights", [None, [1, 2, 0.5]])
@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_the_mean_of_probabilities(members, task, weights):
    got = predicted(Ensemble(members[task], weights=weights))
    mean = np.average([m.predict(X)["probability"] for m in members[task]], axis=0, weights=weights)
    np.testing.assert_allclose(got["probability"], mean, rtol=1e-6)
    np.testing.assert_array_equal(got["prediction"], mean.argmax(axis=1))


@pytest.mark.parametrize("weights", [None, [1, 2, 0.5]])
def test_the_mean_of_numbers(members, weights):
    got = predicted(Ensemble(members["regression"], weights=weights))
    mean = np.average([m.predict(X)["prediction"] for m in members["regression"]], axis=0, weights=weights)
    np.testing.assert_allclose(got["prediction"], mean, rtol=1e-6)


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_the_vote_of_most_and_the_lower_class_of_a_tie(members, task, count):
    chosen = members[task][:count]
    got = predicted(Ensemble(chosen, combine="vote"))
    classes = got["probability"].shape[1]
    votes = np.stack([m.predict(X)["prediction"] for m in chosen]).astype(int)
    share = np.stack([(votes == c).mean(axis=0) for c in range(classes)], axis=1)
    np.testing.assert_allclose(got["probability"], share, rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(got["prediction"], share.argmax(axis=1))
    assert count == 3 or (share == 0.5).any()  # there were ties


@pytest.mark.parametrize("task", OUTPUTS)
def test_all_predictions_side_by_side(members, task):
    model = Ensemble(members[task], combine="stack")
    got = predicted(model)["prediction"]
    each = [m.predict(X) for m in members[task]]
    expected = {
        "regression": lambda: [e["prediction"][:, None] for e in each],
        "binary": lambda: [e["probability"][:, 1:] for e in each],
        "multiclass": lambda: [e["probability"] for e in each],
    }[task]()
    assert model.bundle.task is None
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, np.concatenate(expected, axis=1), rtol=1e-5)


def test_a_module_over_all_predictions(members):
    torch.manual_seed(9)
    meta = nn.Linear(9, 3)
    got = predicted(Ensemble(members["multiclass"], combine=meta))
    stacked = predicted(Ensemble(members["multiclass"], combine="stack"))["prediction"]
    logits = meta(torch.from_numpy(stacked))
    np.testing.assert_allclose(got["probability"], logits.softmax(dim=1).detach().numpy(), rtol=1e-5)


def test_inputs_are_united(members):
    other = member("binary", 7, signature(spec("z", shape=(4,))))
    model = Ensemble([members["binary"][0], other])
    assert [s.name for s in model.signature.inputs] == ["x", "z"]
    assert model.signature.columns == ("x", "z")
    z = {"z": X["x"][::-1].copy()}
    got = predicted(model, X | z)["probability"]
    mean = (members["binary"][0].predict(X)["probability"] + other.predict(z)["probability"]) / 2
    np.testing.assert_allclose(got, mean, rtol=1e-6)


def test_members_may_be_models_or_saved_and_an_ensemble_is_a_member(members, tmp_path):
    one, two, three = members["binary"]
    two.save(str(tmp_path / "two"))
    three.save(str(tmp_path / "model" / "bundle"))  # as TorchModel.save lays it out
    got = predicted(Ensemble([TorchModel(one), str(tmp_path / "two"), str(tmp_path / "model")]))
    np.testing.assert_array_equal(got["probability"], predicted(Ensemble([one, two, three]))["probability"])
    nested = predicted(Ensemble([Ensemble([one, two]), three], weights=[2, 1]))
    np.testing.assert_allclose(nested["probability"], got["probability"], rtol=1e-6)


class Branching(nn.Linear):
    """torch.export takes no branch on values."""

    def forward(self, x):
        return super().forward(x) if x.isfinite().all() else x[:, :1]


def test_members_that_are_code_are_trusted_or_refused(tmp_path):
    made = [Bundle.from_module(Branching(4, 1), INPUTS, task="binary", trusted=True) for _ in range(2)]
    made[0].save(str(tmp_path / "code"))
    pair = [str(tmp_path / "code"), made[1]]
    with pytest.raises(UntrustedBundleError, match="say trusted=True"):
        Ensemble(pair)
    model = Ensemble(pair, trusted=True)
    got = Bundle.from_files(model.bundle.files, trusted=True).predict(X)["probability"]
    mean = (made[0].predict(X)["probability"] + made[1].predict(X)["probability"]) / 2
    np.testing.assert_allclose(got, mean, rtol=1e-6)


def test_certain_members_stay_certain():
    sure = Bundle.from_module(nn.Linear(4, 3), signature(spec(shape=(4,))), task="multiclass")
    sure = sure.with_training({"weight": torch.zeros(3, 4), "bias": torch.tensor([0.0, 500.0, 0.0])}, {}, {})
    got = predicted(Ensemble([sure, sure]))
    assert got["probability"][0].tolist() == [0.0, 1.0, 0.0]


def test_the_members_weights_are_kept_apart(members):
    weights = Ensemble(members["binary"][:2]).bundle.weights
    assert {name.split(".")[1] for name in weights if name.startswith("members.")} == {"0", "1"}


@pytest.mark.parametrize(
    ("tasks", "arguments", "says"),
    [
        ([], {}, "'members' must not be empty"),
        (["binary", "multiclass"], {}, r"must be of one task \(got \['binary', 'multiclass'\]\)"),
        (["binary"], {"combine": "median"}, r"'combine' must be one of \['mean', 'vote', 'stack'\]"),
        (["regression"], {"combine": "vote"}, "no classes; take 'mean'"),
        (["binary"], {"combine": "stack", "weights": [1]}, "'weights' are for 'mean' and 'vote' only"),
        (["binary"], {"weights": [1, 2]}, "'weights' must be 1 numbers"),
        (["binary"], {"weights": [-1]}, "'weights' must be"),
        (["binary"], {"weights": [0]}, "not all 0"),
        (["binary"], {"weights": [float("nan")]}, "'weights' must be"),
    ],
)
def test_what_does_not_fit_is_refused(members, tasks, arguments, says):
    with pytest.raises(InvalidParamError, match=says):
        Ensemble([members[task][0] for task in tasks], **arguments)


def test_what_is_no_member_is_refused(members):
    with pytest.raises(InvalidParamError, match="as member 1"):
        Ensemble([members["binary"][0], nn.Linear(4, 1)])


def test_one_name_for_two_inputs_is_refused(members):
    other = member("binary", 7, signature(spec(shape=(4,), columns=("features",))))
    with pytest.raises(SignatureError, match=r"members 0 and 1 take different inputs 'x'.*'features'"):
        Ensemble([members["binary"][0], other])


def test_other_numbers_of_classes_are_refused(members):
    torch.manual_seed(0)
    five = Bundle.from_module(nn.Linear(4, 5), signature(spec(shape=(4,))), task="multiclass")
    with pytest.raises(SignatureError, match="must predict the same shapes"):
        Ensemble([members["multiclass"][0], five])


def of_labels(*values):
    x = TensorSpec("x", "float32", (2,), ("x",), ("array<float>",))
    signature = Signature((x,), decoder=LabelDecoder(values=values))
    return Bundle.from_module(torch.nn.Linear(2, len(values)), signature, task="multiclass")


def test_members_of_the_same_labels_keep_them():
    made = Ensemble([of_labels("a", "b"), of_labels("a", "b")])
    assert made.signature.decoder.values == ("a", "b")


def test_members_of_other_labels_are_refused():
    with pytest.raises(InvalidParamError, match=r"must mean the same.*labels"):
        Ensemble([of_labels("a", "b"), of_labels("b", "a")])
