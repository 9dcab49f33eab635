"""Batch norm over ranks: statistics of the whole step (SyncBatchNorm), or each rank's own, averaged afterwards.

Shapes: N rows, C channels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sparkdl.train.collective import Collective


class SyncBatchNorm(_BatchNorm):
    """Batch norm whose statistics are over the rows of all ranks, with the parameters and buffers of ``norm``.

    The same as one process gives for the ranks' rows together, forward and backward. While ``counts`` is False this
    rank's rows are normalised but add nothing to the statistics.
    """

    def __init__(self, norm: _BatchNorm, collective: Collective) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        self.collective = collective
        self.counts = True
        self._parameters = norm._parameters
        self._buffers = norm._buffers
        self.train(norm.training)

    def _check_input_dim(self, x: Tensor) -> None:
        if x.dim() < 2:
            raise ValueError(f"batch norm takes inputs of two or more dimensions (got {x.dim()})")

    def forward(self, x: Tensor) -> Tensor:
        """As torch.nn.BatchNorm1d to 3d."""
        if not self.training:
            return super().forward(x)
        self._check_input_dim(x)
        normalised, mean, variance, count = _Normalise.apply(x, self.eps, self.counts, self.collective)
        if self.track_running_stats:
            self._track(mean, variance * count / (count - 1).clamp(min=1))
        if self.affine:
            shape = (1, -1) + (1,) * (x.dim() - 2)
            normalised = normalised * self.weight.view(shape) + self.bias.view(shape)
        return normalised.to(x.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
        count = self.num_batches_tracked
        momentum = self.momentum
        if count is not None:
            count += 1
            momentum = 1 / float(count) if momentum is None else momentum
        for running, value in ((self.running_mean, mean), (self.running_var, variance)):
            if running is not None:
                running.lerp_(value.to(running.dtype), momentum or 0.0)


class _Normalise(torch.autograd.Function):
    """``(x - mean) / sqrt(variance + eps)`` over the rows of all ranks; Ioffe and Szegedy 2015, section 3, for the
    gradient: its two sums over rows are sums over all ranks too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float, counts: bool, collective: Collective) -> tuple[Tensor, ...]:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        axes = [0, *range(2, x.dim())]
        shape = (1, -1) + (1,) * (x.dim() - 2)
        rows = wide.numel() // wide.shape[1]
        local_mean = wide.mean(axes)
        totals = torch.cat([local_mean * rows, wide.new_full((1,), rows)]) * counts
        collective.allreduce(totals)
        count = totals[-1]
        mean = totals[:-1] / count
        squares = (wide - mean.view(shape)).square().sum(axes) * counts  # about the mean of all: no cancellation
        collective.allreduce(squares)
        variance = squares / count
        inverse = (variance + eps).rsqrt()
        normalised = (wide - mean.view(shape)) * inverse.view(shape)
        ctx.save_for_backward(normalised, inverse, count)
        ctx.collective, ctx.dtype, ctx.counts = collective, x.dtype, counts
        ctx.mark_non_differentiable(mean, variance, count)
        return normalised, mean, variance, count

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        normalised, inverse, count = ctx.saved_tensors
        gradient = gradients[0].to(normalised.dtype)
        axes = [0, *range(2, normalised.dim())]
        shape = (1, -1) + (1,) * (normalised.dim() - 2)
        sums = torch.stack([gradient.sum(axes), (gradient * normalised).sum(axes)])
        ctx.collective.allreduce(sums)
        mean, along = sums / count * ctx.counts  # statistics do not depend on rows that do not count
        result = (gradient - mean.view(shape) - normalised * along.view(shape)) * inverse.view(shape)
        return result.to(ctx.dtype), None, None, None


def synchronised(module: nn.Module, collective: Collective) -> nn.Module:
    """``module`` with every batch norm in it replaced by a SyncBatchNorm; its parameters and names stay."""
    made: dict[int, SyncBatchNorm] = {}  # one that has several names stays one

    def replaced(part: nn.Module) -> nn.Module:
        if isinstance(part, _BatchNorm):
            return made.setdefault(id(part), SyncBatchNorm(part, collective))
        for name, child in part._modules.items():
            if child is not None:
                part._modules[name] = replaced(child)
        return part

    return replaced(module)


@torch.no_grad()
def agree_on_buffers(module: nn.Module, collective: Collective) -> None:
    """Make the buffers alike on all ranks: running statistics of batch norm, and what a part names in its
    ``averaged_buffers``, by their mean; all others as on rank 0."""
    if collective.world.size == 1:
        return
    averaged = {
        id(buffer)
        for part in module.modules()
        if isinstance(part, _BatchNorm) and part.track_running_stats
        for buffer in (part.running_mean, part.running_var)
    }
    averaged |= {id(buffer) for part in module.modules() for buffer in getattr(part, "averaged_buffers", ())}
    for buffer in module.buffers():
        if id(buffer) in averaged:
            collective.allreduce(buffer)
            buffer /= collective.world.size
        else:
            collective.broadcast(buffer)
