"""A module's gradients, in one flat buffer a dtype, which one all-reduce a step sums over the ranks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sparkdl.train.collective import Collective

_EXTRAS = 2  # the loss, and what it is the mean over
COMPRESSED = {"float16": torch.float16, "bfloat16": torch.bfloat16}


class Gradients:
    """Each parameter's ``grad`` is a view into a flat buffer, so nothing is copied.

    The step's loss and its weight ride along in the first buffer, in full precision. compression: the dtype in which
    gradients travel, a key of COMPRESSED, or None for their own.
    """

    def __init__(self, module: nn.Module, collective: Collective, compression: str | None = None) -> None:
        self.collective = collective
        self.wire = COMPRESSED[compression] if compression else None
        self.parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        dtypes = {parameter.dtype for parameter in self.parameters}
        extras_dtype = torch.float64 if torch.float64 in dtypes else torch.float32
        by_dtype: dict[torch.dtype, list[nn.Parameter]] = {extras_dtype: []}
        for parameter in self.parameters:
            by_dtype.setdefault(parameter.dtype, []).append(parameter)
        self.buffers: list[Tensor] = []
        self.views: list[tuple[nn.Parameter, Tensor]] = []
        for dtype, parameters in by_dtype.items():
            offset = 0 if self.buffers else _EXTRAS
            count = offset + sum(parameter.numel() for parameter in parameters)
            buffer = torch.zeros(count, dtype=dtype, device=collective.device)
            for parameter in parameters:
                self.views.append((parameter, buffer[offset : offset + parameter.numel()].view_as(parameter)))
                offset += parameter.numel()
            self.buffers.append(buffer)

    def zero(self) -> None:
        """Start a step."""
        for buffer in self.buffers:
            buffer.zero_()
        for parameter, view in self.views:
            if parameter.grad is not view:  # at first, and after a callback's optimizer.zero_grad()
                parameter.grad = view

    def reduce(self, loss: Tensor, weight: float | Tensor = 0.0) -> Tensor:
        """Sum the gradients over all ranks, and ``loss`` and ``weight`` likewise: a tensor of these two sums."""
        first = self.buffers[0]
        first[0], first[1] = loss, weight
        if self.wire is None:
            for buffer in self.buffers:
                self.collective.allreduce(buffer)
        else:
            extras = first[:_EXTRAS].clone()
            self.collective.allreduce(extras)
            for buffer in self.buffers:
                narrow = buffer.to(self.wire)
                self.collective.allreduce(narrow)
                buffer.copy_(narrow)
            first[:_EXTRAS] = extras
        return first[:_EXTRAS].clone()

    def divide(self, by: Tensor) -> None:
        """Divide all gradients by a number."""
        for buffer in self.buffers:
            buffer /= by

    def release(self) -> None:
        """Let go of the buffers."""
        for parameter, _ in self.views:
            parameter.grad = None
