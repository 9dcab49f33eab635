"""How many rows go to a forward pass: as told, or as many as keep its largest tensor near the processor's cache.

The rule looks at shapes and never at a clock, so a task that runs again cuts its rows alike and gives the same numbers to
the last bit; a search by timing does not, and picks badly where other tasks share the cores.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

TENSOR_BYTES = {"cpu": 2 << 20, "cuda": 256 << 20}  # figures in docs/decisions/0018-batch-size.md
MOST = {"cpu": 4096, "cuda": 1 << 16}
LEAST = 8
PROBE_ROWS = 8


@dataclass(frozen=True)
class Sizing:
    """most: rows to a forward pass, never more. tensor_bytes: what its largest tensor may take; 0: ``most`` it is.

    unit_bytes: of the largest tensor, for a row or, where lengths vary, for one step of a row; None: not measured yet.
    """

    most: int
    tensor_bytes: int = 0
    unit_bytes: float | None = None

    @classmethod
    def of(cls, batch_size: int, device: str) -> Sizing:
        """As many rows as ``batch_size`` says; for 0 what suits the model on a ``cpu`` or ``cuda``."""
        return cls(batch_size) if batch_size else cls(MOST[device], TENSOR_BYTES[device])

    def rows(self, length: int = 1) -> int:
        """Rows to a forward pass whose rows are padded to ``length``."""
        if not self.tensor_bytes or self.unit_bytes is None:
            return self.most
        fitting = int(self.tensor_bytes / max(self.unit_bytes * max(length, 1), 1))
        return min(self.most, max(LEAST, fitting // LEAST * LEAST))

    def wants_measure(self, rows: int) -> bool:
        """True if it matters for so many rows, and is not known."""
        return bool(self.tensor_bytes) and self.unit_bytes is None and rows > PROBE_ROWS

    def measured(self, nbytes: int, length: int = 1) -> Sizing:
        """PROBE_ROWS rows, padded to ``length``, have their largest tensor of so many bytes."""
        return replace(self, unit_bytes=nbytes / PROBE_ROWS / length)

    def at_most(self, rows: int) -> Sizing:
        """More rows than these do not fit the memory."""
        return replace(self, most=min(self.most, rows))


class Sizes(TorchDispatchMode):
    """Within this context: how often an operator gave a tensor of so many bytes, as ``nbytes``."""

    def __init__(self) -> None:
        super().__init__()
        self.nbytes: Counter[int] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        for value in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(value, Tensor) and value.layout == torch.strided:
                self.nbytes[value.nbytes] += 1
        return made
