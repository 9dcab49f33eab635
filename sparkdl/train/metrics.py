"""What a fit measures beside the loss: torchmetrics' metrics over all rows of all ranks, and the one that is watched.

torchmetrics takes a second to import, so only functions do. Shapes: B rows, C classes.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from sparkdl import tasks
from sparkdl.errors import InvalidParamError, did_you_mean
from sparkdl.train.collective import Collective
from sparkdl.train.named import metric_named

if TYPE_CHECKING:
    from torchmetrics import Metric

_RESERVED = ("epoch", "loss", "lr", "rows", "seconds", "phases")
_DTYPES = (
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint8, torch.bool, torch.complex64, torch.complex128,
)  # fmt: skip
_DIMENSIONS = 8


def metrics_given(given: Any, task: str | None, classes: int | None) -> dict[str, Metric]:
    """What a user gave as ``metrics``, by name: a mapping of name to metric, or a sequence.

    A metric is a name (see metric_named), a torchmetrics object, or a MetricCollection, whose metrics are taken. In a
    sequence an object goes by its class's name, such as ``f1_score``.
    Raises InvalidParamError for anything else, for a name twice and for one that the history has for something else.
    """
    from torchmetrics import Metric, MetricCollection

    if isinstance(given, (str, Metric, MetricCollection)):
        given = [given]
    pairs = list(given.items()) if isinstance(given, Mapping) else [(None, metric) for metric in given]
    found: dict[str, Metric] = {}
    for key, metric in pairs:
        if isinstance(metric, MetricCollection):
            named = {f"{key}_{name}" if key else name: value for name, value in metric.items()}
        elif isinstance(metric, str):
            named = {key or metric: metric_named(metric, task, classes)}
        elif isinstance(metric, Metric):
            named = {key or _snake(type(metric).__name__): metric}
        else:
            raise InvalidParamError(
                f"'metrics' must be names or torchmetrics objects (got {metric!r})", param="metrics", value=metric
            )
        for name, value in named.items():
            if name in found or name in _RESERVED or name.startswith("val_"):
                why = "is given twice" if name in found else "is what the history calls something else"
                raise InvalidParamError(
                    f"metric name {name!r} {why}; give metrics as a dictionary, each with a name of its own",
                    param="metrics",
                    value=name,
                )
            found[name] = value
    return found


def check_metrics(metrics: Mapping[str, Metric], task: str | None, outputs: Any, label: Tensor) -> list[str]:
    """The names that Metrics will give, found by trying it on these outputs and labels.

    Raises InvalidParamError with what the metric says if it does not take them.
    """
    from sparkdl.train.collective import SingleProcess

    names: list[str] = []
    for name, metric in metrics.items():
        trial = Metrics({name: metric}, task, SingleProcess())
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a few rows often lack a class
                trial.add(outputs, label)
                names += trial.over_ranks()
        except Exception as error:  # whatever the metric raises for these shapes is the finding
            raise InvalidParamError(
                f"metric {name!r} ({type(metric).__name__}) does not take the model's outputs and the label: "
                f"{type(error).__name__}: {error}",
                param="metrics",
                value=name,
            ) from error
    return names


class Metrics:
    """Metrics over all rows that all ranks have added; the ranks' states meet in ``over_ranks``, never their values."""

    def __init__(self, metrics: Mapping[str, Metric], task: str | None, collective: Collective) -> None:
        self.metrics = {name: metric.clone().to(collective.device) for name, metric in metrics.items()}
        self.task, self.collective = task, collective
        self.batches = 0
        self._absent: list[Tensor] = []
        for metric in self._parts():
            metric.reset()
            metric.dist_sync_fn = self._gather
            metric.distributed_available_fn = lambda: collective.world.size > 1

    @torch.no_grad()
    def add(self, outputs: Any, label: Tensor) -> None:
        """Take a batch: ``outputs`` as the model gave them, logits, and its label; both without rows that do not count.

        A binary metric gets the probability of class 1 ``(B,)`` and int64 ``(B,)``, a multiclass one probabilities
        ``(B, C)`` and int64 ``(B,)``, one of regression outputs in the label's shape, at least float32, ``(B, 1)`` as
        ``(B,)``; without a task it gets both as they are.
        """
        if not self.metrics or not len(label):
            return
        arguments = _arguments(self.task, outputs, label)
        for metric in self.metrics.values():
            metric.update(*arguments)
        self.batches += 1

    def over_ranks(self) -> dict[str, float]:
        """The values since the last call; all ranks call it, and get the same. Ranks may have any number of rows.

        A value that is no single number gives several: ``name_0``, ``name_1``, … or by its keys; NaN if no rank has
        a row.
        """
        if not self.metrics:
            return {}
        if not self._make_lists_equal():
            return dict.fromkeys(self.metrics, math.nan)
        told: dict[str, float] = {}
        for name, metric in self.metrics.items():
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*was called before the ``update`` method.*")
                told.update(_flat(name, metric.compute()))
            metric.reset()
        self._absent.clear()
        self.batches = 0
        return told

    def state(self) -> dict[str, Any]:
        """What this rank has added so far, for ``load_state``: numbers, and tensors or lists of tensors by name."""
        return {
            "batches": self.batches,
            "states": [
                {key: list(value) if isinstance(value, list) else value.clone() for key, value in states.items()}
                for states in (metric.metric_state for metric in self._parts())
            ],
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state`` gave for the same metrics."""
        self.batches = int(state["batches"])
        for metric, states in zip(self._parts(), state["states"], strict=True):
            metric.reset()
            for key, value in states.items():
                moved = [one.to(metric.device) for one in value] if isinstance(value, list) else value.to(metric.device)
                setattr(metric, key, moved)

    def _parts(self) -> Iterator[Metric]:
        """All metrics, also those that a metric is made of."""
        from torchmetrics import Metric

        return (part for one in self.metrics.values() for part in one.modules() if isinstance(part, Metric))

    def _make_lists_equal(self) -> bool:
        """Give states that are lists one length on all ranks, since torchmetrics gathers them one by one; False if no
        rank has rows."""
        lists = [value for part in self._parts() for value in part.metric_state.values() if isinstance(value, list)]
        lengths = torch.tensor([self.batches, *map(len, lists)], device=self.collective.device)
        batches, *longest = self.collective.allgather(lengths).amax(dim=0).tolist()
        for values, length in zip(lists, longest, strict=True):
            blank = values[-1].new_empty(0) if values else torch.empty(0, device=self.collective.device)
            missing = [blank.clone() for _ in range(length - len(values))]
            self._absent += missing
            values += missing
        return bool(batches)

    def _gather(self, tensor: Tensor, group: Any = None) -> list[Tensor]:
        """All ranks' tensors, of any shapes: torchmetrics' ``dist_sync_fn``. Those that stand for nothing are left out."""
        absent = any(tensor is other for other in self._absent)
        shape = [*tensor.shape, *[0] * (_DIMENSIONS - tensor.ndim)]
        told = torch.tensor([_DTYPES.index(tensor.dtype), -1 if absent else tensor.ndim, *shape])
        headers = self.collective.allgather(told.to(self.collective.device)).tolist()
        shapes = [header[2 : 2 + max(header[1], 0)] for header in headers]
        sizes = [math.prod(shape) * _DTYPES[header[0]].itemsize for header, shape in zip(headers, shapes, strict=True)]
        data = torch.zeros(max(sizes), dtype=torch.uint8, device=self.collective.device)
        mine = tensor.detach().to(self.collective.device).contiguous().reshape(-1).view(torch.uint8)
        data[: len(mine)] = mine
        gathered = self.collective.allgather(data).to(tensor.device)
        found = [
            row[:size].clone().view(_DTYPES[header[0]]).reshape(shape)
            for row, size, header, shape in zip(gathered, sizes, headers, shapes, strict=True)
            if header[1] >= 0
        ]
        full = next((one for one in found if one.numel()), None)
        if full is None:
            return found
        # a rank without rows says (0,) and float32 whatever the others have, and would not concatenate with them
        return [one if one.numel() else full.new_empty(0, *full.shape[1:]) for one in found]


@dataclass(frozen=True)
class Monitor:
    """The figure of the history that tells which epoch is best, and after how many worse ones to stop (0: never)."""

    name: str
    mode: Literal["min", "max"]
    patience: int = 0
    min_delta: float = 0.0

    def better(self, value: float, best: float | None) -> bool:
        """True if ``value`` beats ``best`` by more than ``min_delta``. NaN beats nothing, and is beaten by all else."""
        if math.isnan(value):
            return False
        if best is None or math.isnan(best):
            return True
        return value < best - self.min_delta if self.mode == "min" else value > best + self.min_delta


def monitor_for(
    name: str | None,
    has_validation: bool,
    metrics: Mapping[str, Metric],
    task: str | None = None,
    *,
    patience: int = 0,
    min_delta: float = 0.0,
) -> Monitor | None:
    """The Monitor of that name; by default ``val_loss``, or None without validation.

    The loss is better when lower, accuracy (which a task with classes always has) when higher, a metric as torchmetrics
    says by ``higher_is_better``. With validation, metrics are measured on its rows only: ``val_f1``, not ``f1``.
    Raises InvalidParamError for a name that the history will not have.
    """
    if name is None:
        return Monitor("val_loss", "min", patience, min_delta) if has_validation else None
    higher: dict[str, bool | None] = {"loss": False}
    if task in ("binary", "multiclass"):
        higher["accuracy"] = True
    measured = {key: metric.higher_is_better for key, metric in metrics.items()}
    if has_validation:
        higher |= {f"val_{key}": value for key, value in (higher | measured).items()}
    else:
        higher |= measured
    base = name if name in higher else re.sub(r"(_\d+)+$", "", name)  # one of several values of a metric
    if base not in higher:
        lacking = "; this fit has no validation rows" if name.startswith("val_") and not has_validation else ""
        raise InvalidParamError(
            f"'monitor' must be one of {list(higher)} (got {name!r}){lacking}{did_you_mean(name, higher)}",
            param="monitor",
            value=name,
        )
    if higher[base] is None:
        raise InvalidParamError(
            f"{name!r} cannot be monitored: its metric does not say whether higher is better",
            param="monitor",
            value=name,
        )
    return Monitor(name, "max" if higher[base] else "min", patience, min_delta)


def _snake(name: str) -> str:
    """``BinaryF1Score`` as ``f1_score``, ``MulticlassAUROC`` as ``auroc``."""
    name = re.sub("^(Binary|Multiclass|Multilabel)(?=.)", "", name)
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _arguments(task: str | None, outputs: Any, label: Tensor) -> tuple[Any, Tensor]:
    if task in ("binary", "multiclass"):
        probability = tasks.predictions(task, outputs)["probability"]
        return (probability[:, 1] if task == "binary" else probability), label.reshape(len(probability)).long()
    outputs = tasks.align(task, outputs, label)
    if task == "regression" and isinstance(outputs, Tensor):
        outputs = outputs.to(torch.promote_types(outputs.dtype, torch.float32)).reshape(label.shape)
        if label.ndim == 2 and label.shape[1] == 1:  # one number a row, which some metrics take for rows of one column
            return outputs.squeeze(1), label.squeeze(1)
    return outputs, label


def _flat(name: str, value: Any) -> dict[str, float]:
    if isinstance(value, Mapping):
        parts: Iterable[tuple[Any, Any]] = value.items()
    elif isinstance(value, (tuple, list)) or (isinstance(value, Tensor) and value.ndim):
        parts = enumerate(value)
    else:
        return {name: float(value)}
    return {key: figure for suffix, part in parts for key, figure in _flat(f"{name}_{suffix}", part).items()}
