"""What the training loop reads: batches of tensors, and who gives them. No Spark, no Horovod.

Shapes: B rows of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """The rows of one step on one rank.

    inputs: the model's arguments, each ``(B, ...)``. label: ``(B, ...)``. weight: ``(B,)``, or None: all alike.
    rows: how many rows count: B; or 0 if the rank has run out of rows before the others, and takes the step, as a
        collective needs, with rows that weigh nothing.
    """

    inputs: list[Tensor]
    label: Tensor
    rows: int
    weight: Tensor | None = None


class Reader(Protocol):
    """Where a rank's batches come from."""

    steps_per_epoch: int

    def rows_in_step(self, step: int) -> list[int]:
        """How many rows count in ``step`` on each rank; this rank's batch of that step has as many in ``rows``."""
        ...

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """The batches of steps ``first_step`` to ``steps_per_epoch``, one a step.

        Every row of the shard counts once an epoch (those of a last batch that is dropped by choice do not); the order
        depends on (seed, epoch) alone.
        """
        ...

    def scan(self) -> Iterator[Batch]:
        """The rank's rows once, in an order that does not change, nothing padded or dropped; nothing if it has none."""
        ...
