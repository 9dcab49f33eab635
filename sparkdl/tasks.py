"""What a task means: its default loss, its metrics, how outputs meet labels, and what is predicted from outputs.

Shapes: B rows, C classes. A model returns logits, never probabilities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sparkdl.errors import SignatureError

TASKS = ("regression", "binary", "multiclass")
DEFAULT_LOSS = {
    "regression": "mse_loss",
    "binary": "binary_cross_entropy_with_logits",
    "multiclass": "cross_entropy",
}

_LOWER_IS_BETTER = ("log_loss", "rmse", "mae", "wer", "cer")


def is_lower_better(figure: str) -> bool:
    """Of a figure of an evaluation; see ``sparkdl.evaluate``."""
    return figure in _LOWER_IS_BETTER


def label_dtype(task: str | None, column_dtype: str, float_dtype: str | None) -> str:
    """The dtype labels are given to the loss in: class numbers as int64, all else as the model's floats."""
    if task == "multiclass":
        return "int64"
    if task in ("binary", "regression") or column_dtype.startswith("float"):
        return float_dtype or "float32"
    return column_dtype


def align(task: str | None, outputs: Any, label: Tensor) -> Any:
    """Outputs in the shape in which the task's loss compares them with ``label``: ``(B, 1)`` becomes ``(B,)``."""
    if not isinstance(outputs, Tensor) or task not in ("regression", "binary"):
        return outputs
    return outputs.squeeze(-1) if outputs.ndim == label.ndim + 1 and outputs.shape[-1] == 1 else outputs


def predictions(task: str | None, outputs: Any) -> dict[str, Tensor]:
    """What is shown to the user, by name.

    multiclass: ``prediction`` (B,) the class number as float64, as pyspark.ml has it; ``probability`` (B, C).
    binary: ``prediction`` 0.0 or 1.0; ``probability`` (B, 2), of class 0 and class 1.
    regression: ``prediction``, float64 if it is one number a row.
    With a task, of a dictionary it is about the tensor named ``prediction``, or the only one; others stay as they are.
    None: a tensor as ``prediction``; a dictionary by its keys; a tuple by its field names or as ``output_0``, ….

    Raises SignatureError if the outputs do not have the task's shape.
    """
    if task is None:
        return named(outputs)
    if isinstance(outputs, Mapping) and ("prediction" in outputs or len(outputs) == 1):
        others = named(outputs)
        main = others.pop("prediction" if "prediction" in others else next(iter(others)))
        return {**predictions(task, main), **others}
    if not isinstance(outputs, Tensor):
        raise SignatureError(
            f"task {task!r} needs a model that returns one tensor (got {type(outputs).__name__}); use task=None, or "
            "return a dictionary with that tensor as 'prediction'",
            column=None,
            expected="Tensor",
            got=type(outputs).__name__,
        )
    if task == "multiclass":
        if outputs.ndim != 2 or outputs.shape[1] < 2:
            raise _wrong_shape(task, "(B, C) logits of C >= 2 classes", outputs)
        probability = torch.softmax(outputs.float(), dim=1)
        return {"prediction": probability.argmax(dim=1).double(), "probability": probability}
    if outputs.ndim == 2 and outputs.shape[1] == 1:
        outputs = outputs.squeeze(1)
    if task == "binary":
        if outputs.ndim != 1:
            raise _wrong_shape(task, "(B,) or (B, 1) logits", outputs)
        positive = torch.sigmoid(outputs.float())
        return {
            "prediction": (positive > 0.5).double(),
            "probability": torch.stack([1 - positive, positive], dim=1),
        }
    return {"prediction": outputs.double() if outputs.ndim == 1 else outputs}


def named(outputs: Any) -> dict[str, Tensor]:
    """A model's outputs by name. Raises SignatureError for anything that is not made of tensors."""
    if isinstance(outputs, Tensor):
        return {"prediction": outputs}
    if isinstance(outputs, Mapping):
        result = {str(key): value for key, value in outputs.items()}
    elif isinstance(outputs, Sequence):
        names = getattr(outputs, "_fields", [f"output_{i}" for i in range(len(outputs))])
        result = dict(zip(names, outputs, strict=True))
    else:
        result = {"": outputs}
    if not result:
        raise SignatureError("the model returns no outputs", column=None, expected="tensors", got=outputs)
    for key, value in result.items():
        if not isinstance(value, Tensor):
            raise SignatureError(
                f"the model's output {key!r} is {type(value).__name__}; outputs must be tensors, alone, in a tuple "
                "or in a dictionary",
                column=None,
                expected="Tensor",
                got=type(value).__name__,
            )
    return result


def _wrong_shape(task: str, expected: str, outputs: Tensor) -> SignatureError:
    got = tuple(outputs.shape)
    return SignatureError(
        f"task {task!r} needs a model that returns {expected}; this one returned shape {got}",
        column=None,
        expected=expected,
        got=got,
    )
