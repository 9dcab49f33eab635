"""What is wrong with a fit and can be known on the driver, before anything is launched."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sparkdl import tasks
from sparkdl.bundle import Bundle
from sparkdl.data.petastorm import check_ranks
from sparkdl.errors import SignatureError, TooFewRowsError
from sparkdl.signature import TensorSpec
from sparkdl.train import metrics as measures
from sparkdl.train.rank import Reading
from sparkdl.train.step import Recipe
from sparkdl.train.world import World


@dataclass(frozen=True)
class WithSteps:
    """A user's function of the optimizer where one of (optimizer, steps) is called."""

    function: Callable[[torch.optim.Optimizer], Any]

    def __call__(self, optimizer: torch.optim.Optimizer, steps: int) -> Any:
        """The scheduler."""
        return self.function(optimizer)


def classes(bundle: Bundle) -> int | None:
    """How many classes a classifier tells apart; None for another task."""
    if bundle.task not in ("binary", "multiclass"):
        return None
    return {spec.name: spec for spec in bundle.signature.outputs}["probability"].size


def _outputs(module: nn.Module, example: list[Tensor]) -> Any:
    training = module.training
    try:
        with torch.no_grad():
            return module.eval()(*example)
    finally:
        module.train(training)


def _target(example: list[Tensor], label: TensorSpec) -> Tensor:
    return torch.zeros(len(example[0]), *label.shape, dtype=getattr(torch, label.dtype))


def check_loss(
    module: nn.Module, loss: Any, task: str | None, example: list[Tensor], label: TensorSpec, *, weighted: bool
) -> None:
    """Raise SignatureError if the loss does not take what the model gives for the label's shape, or does not give the
    mean over the batch, or with weights a loss a row."""
    target = _target(example, label)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.filterwarnings("error", message="Using a target size")  # torch would broadcast, which no one means
            value = loss(tasks.align(task, _outputs(module, example), target), target)
    except Exception as error:  # whatever the loss raises for these shapes is the finding
        raise SignatureError(
            f"the loss does not take the model's outputs and the label.\n  label column: {label}\n  loss says:    "
            f"{type(error).__name__}: {error}",
            column=label.name,
            expected=str(error),
            got=str(label),
        ) from error
    got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
    if weighted and not (isinstance(value, Tensor) and value.ndim and len(value) == len(target)):
        raise SignatureError(
            f"with weightCol the loss must return a loss a row, shape (B, …), which is weighted then (got {got}); "
            "give its reduction='none' form",
            column=None,
            expected="(B, …)",
            got=got,
        )
    if not weighted and (not isinstance(value, Tensor) or value.ndim):
        raise SignatureError(
            f"the loss must return one number, the mean over the batch (got {got})",
            column=None,
            expected="a scalar tensor",
            got=got,
        )


def check_metrics(
    module: nn.Module, metrics: Mapping[str, Any], task: str | None, example: list[Tensor], label: TensorSpec
) -> None:
    """Raise InvalidParamError if a metric does not take the model's outputs and the label."""
    if metrics:
        measures.check_metrics(metrics, task, _outputs(module, example), _target(example, label))


def check_rows(reading: Reading, ranks: int, module: nn.Module, recipe: Recipe, example: list[Tensor] | None) -> None:
    """Raise TooFewRowsError if a rank would have no row, no step, or one that batch norm cannot be trained on."""
    rows = reading.data.rows
    if rows < ranks:
        raise _too_few(
            f"{ranks} ranks cannot share {rows} row{'s' if rows > 1 else ''}: each needs at least one; "
            f"set numProc to {rows} or lower",
            rows,
            ranks,
        )
    if reading.reads_by_petastorm:
        check_ranks(reading.data, ranks)
    reader = reading.reader(World(rank=0, size=ranks))
    last = reader.rows_in_step(reader.steps_per_epoch - 1)
    if 1 in last and example is not None and not recipe.sync_batch_norm and not _trains_on_one_row(module, example):
        raise _too_few(
            f"the last step of an epoch has one row on rank {last.index(1)}, which the model's batch norm cannot be "
            f"trained on ({rows} rows, {ranks} ranks, batchSize {reading.batch_size}); set dropLast=True, another "
            "batchSize, or syncBatchNorm=True",
            rows,
            ranks,
        )


def _trains_on_one_row(module: nn.Module, example: list[Tensor]) -> bool:
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            copy.deepcopy(module).train()(*(tensor[:1] for tensor in example))
    except ValueError as error:  # torch: "Expected more than 1 value per channel when training"
        if "more than 1" in str(error):
            return False
    return True


def _too_few(text: str, rows: int, ranks: int) -> TooFewRowsError:
    return TooFewRowsError(text, column=None, row=None, file=None, expected=ranks, got=rows, rows=rows, ranks=ranks)
