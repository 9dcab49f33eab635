"""What a task makes of a model's outputs, by shape; outputs that do not have it are refused."""

from collections import namedtuple

import pytest
import torch
from torch import nn

from sparkdl.errors import SignatureError
from sparkdl.tasks import DEFAULT_LOSS, TASKS, align, label_dtype, named, predictions
from sparkdl.train.named import loss_named


@pytest.mark.parametrize(
    ("task", "outputs", "prediction", "probability"),
    [
        ("regression", [1.5, -2.0], [1.5, -2.0], None),
        ("regression", [[1.5], [-2.0]], [1.5, -2.0], None),  # (B, 1) is (B,)
        ("regression", [[1.5, 2.5]], [[1.5, 2.5]], None),  # several numbers a row
        ("binary", [0.0, 100.0, -100.0], [0.0, 1.0, 0.0], [[0.5, 0.5], [0.0, 1.0], [1.0, 0.0]]),  # 0 is class 0
        ("binary", [[100.0]], [1.0], [[0.0, 1.0]]),
        ("multiclass", [[0.0, 100.0, 0.0]], [1.0], [[0.0, 1.0, 0.0]]),
        ("multiclass", [[5.0, 5.0]], [0.0], [[0.5, 0.5]]),  # a tie goes to the first
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_predictions(task, outputs, prediction, probability, dtype):
    made = predictions(task, torch.tensor(outputs, dtype=dtype))
    assert made["prediction"].tolist() == prediction
    if made["prediction"].ndim == 1:
        assert made["prediction"].dtype == torch.float64
    if probability is None:
        assert list(made) == ["prediction"]
    else:
        assert made["probability"].dtype == torch.float32
        torch.testing.assert_close(made["probability"], torch.tensor(probability))


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_probabilities_are_a_distribution_and_the_prediction_its_top(task):
    logits = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)) * 5
    made = predictions(task, logits if task == "multiclass" else logits[:, 0])
    torch.testing.assert_close(made["probability"].sum(dim=1), torch.ones(50))
    assert torch.equal(made["probability"].argmax(dim=1).double(), made["prediction"])


@pytest.mark.parametrize(
    ("task", "shape", "says"),
    [
        ("binary", (3, 2), r"needs a model that returns \(B,\) or \(B, 1\) logits; this one returned shape \(3, 2\)"),
        ("binary", (3, 1, 1), "this one returned shape"),
        ("binary", (), "this one returned shape"),
        ("multiclass", (3,), r"needs a model that returns \(B, C\) logits of C >= 2 classes"),
        ("multiclass", (3, 1), "this one returned shape"),
        ("multiclass", (3, 2, 2), "this one returned shape"),
    ],
)
def test_outputs_of_another_shape_are_refused(task, shape, says):
    with pytest.raises(SignatureError, match=says) as caught:
        predictions(task, torch.zeros(shape))
    assert caught.value.got == shape


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    "outputs", [(torch.zeros(3),), {"a": torch.zeros(3), "b": torch.zeros(3)}, None, [torch.zeros(3)]]
)
def test_a_task_needs_one_tensor(task, outputs):
    with pytest.raises(SignatureError, match=rf"returns one tensor \(got {type(outputs).__name__}\); use task=None"):
        predictions(task, outputs)


Pair = namedtuple("Pair", ["mean", "scale"])


@pytest.mark.parametrize(
    ("outputs", "names"),
    [
        (torch.zeros(2), ["prediction"]),
        ((torch.zeros(2), torch.zeros(2)), ["output_0", "output_1"]),
        ([torch.zeros(2)], ["output_0"]),
        ({"b": torch.zeros(2), "a": torch.zeros(2)}, ["b", "a"]),
        ({0: torch.zeros(2)}, ["0"]),
        (Pair(torch.zeros(2), torch.zeros(2)), ["mean", "scale"]),
    ],
)
def test_without_a_task_outputs_keep_their_names(outputs, names):
    assert list(named(outputs)) == names
    assert list(predictions(None, outputs)) == names


@pytest.mark.parametrize(
    ("outputs", "says"),
    [
        (3, "output '' is int"),
        (None, "output '' is NoneType"),
        ((torch.zeros(2), None), "output 'output_1' is NoneType"),
        ({"a": [torch.zeros(2)]}, "output 'a' is list"),
        ("text", "output 'output_0' is str"),
        ((), "no outputs"),
        ({}, "no outputs"),
    ],
)
def test_what_is_not_made_of_tensors_is_refused(outputs, says):
    with pytest.raises(SignatureError, match=says):
        named(outputs)


@pytest.mark.parametrize(
    ("task", "outputs", "label", "aligned"),
    [
        ("regression", (3, 1), (3,), (3,)),
        ("binary", (3, 1), (3,), (3,)),
        ("regression", (3,), (3,), (3,)),
        ("regression", (3, 1), (3, 1), (3, 1)),
        ("regression", (3, 2), (3,), (3, 2)),  # left to the loss to refuse
        ("multiclass", (3, 1), (3,), (3, 1)),
        (None, (3, 1), (3,), (3, 1)),
    ],
)
def test_outputs_meet_labels(task, outputs, label, aligned):
    assert align(task, torch.zeros(outputs), torch.zeros(label)).shape == aligned


def test_outputs_that_are_no_tensor_are_left_alone():
    outputs = {"a": torch.zeros(3, 1)}
    assert align("regression", outputs, torch.zeros(3)) is outputs


@pytest.mark.parametrize(
    ("task", "column", "model", "expected"),
    [
        ("multiclass", "float64", "float32", "int64"),  # class numbers, whatever the column
        ("multiclass", "int32", None, "int64"),
        ("binary", "int32", "float64", "float64"),  # compared with the model's floats
        ("binary", "bool", None, "float32"),
        ("regression", "int64", "float32", "float32"),
        ("regression", "float64", None, "float32"),
        (None, "float64", "float32", "float32"),
        (None, "int64", "float32", "int64"),  # left as it is
    ],
)
def test_the_label_s_dtype(task, column, model, expected):
    assert label_dtype(task, column, model) == expected


@pytest.mark.parametrize("task", TASKS)
def test_the_default_loss_takes_the_task_s_outputs_and_labels(task):
    outputs = nn.Linear(4, 3 if task == "multiclass" else 1)(torch.randn(5, 4))
    label = torch.zeros(5, dtype=getattr(torch, label_dtype(task, "int32", "float32")))
    loss = loss_named(DEFAULT_LOSS[task])(align(task, outputs, label), label)
    assert loss.ndim == 0


@pytest.mark.parametrize("name", ["prediction", "logits"])
def test_a_dictionary_may_hold_the_one_tensor_of_a_task(name):
    logits = torch.tensor([[1.0, 2.0], [2.0, 1.0]])
    shown = predictions("multiclass", {name: logits})
    assert {key: value.tolist() for key, value in shown.items()} == {
        key: value.tolist() for key, value in predictions("multiclass", logits).items()
    }


def test_what_stands_beside_the_prediction_is_shown_too():
    shown = predictions("regression", {"embedding": torch.ones(2, 3), "prediction": torch.zeros(2, 1)})
    assert {key: tuple(value.shape) for key, value in shown.items()} == {"prediction": (2,), "embedding": (2, 3)}
