"""Networks over series. Shapes: B rows, L steps, F features, H steps ahead."""

from __future__ import annotations

import torch
from torch import Tensor, nn

CELLS = ("lstm", "gru")
AUTOENCODERS = ("dense", *CELLS)
LEAST_LOG_VARIANCE = -8.0  # of a feature that is always the same


def recurrent(cell: str, inputs: int, hidden: int, layers: int) -> nn.LSTM | nn.GRU:
    """A recurrent layer over ``(B, L, inputs)``. cell: one of CELLS."""
    return (nn.LSTM if cell == "lstm" else nn.GRU)(inputs, hidden, layers, batch_first=True)


class Forecaster(nn.Module):
    """``(B, L, F)`` -> ``(B, H, 1)``: from the recurrent layer's last state, plus a linear map of the whole series, which
    follows its level (the autoregressive part of LSTNet: Lai et al., 2018)."""

    def __init__(self, length: int, features: int, horizon: int, cell: str, hidden: int, layers: int) -> None:
        super().__init__()
        self.steps = recurrent(cell, features, hidden, layers)
        self.ahead = nn.Linear(hidden, horizon)
        self.level = nn.Linear(length * features, horizon)

    def forward(self, series: Tensor) -> Tensor:
        """(B, H, 1)."""
        states, _ = self.steps(series)
        return (self.ahead(states[:, -1]) + self.level(series.flatten(1))).unsqueeze(-1)


class DenseCoder(nn.Module):
    """``(B, L, F)`` -> the same, through ``bottleneck`` numbers."""

    def __init__(self, length: int, features: int, hidden: int, bottleneck: int) -> None:
        super().__init__()
        self.shape = (length, features)
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(length * features, hidden), nn.ReLU(), nn.Linear(hidden, bottleneck),
            nn.Linear(bottleneck, hidden), nn.ReLU(), nn.Linear(hidden, length * features),
        )  # fmt: skip

    def forward(self, series: Tensor) -> Tensor:
        """The series again."""
        return self.layers(series).unflatten(1, self.shape)


class RecurrentCoder(nn.Module):
    """``(B, L, F)`` -> the same: the last state of one recurrent layer, in ``bottleneck`` numbers, is what the next one reads at
    every step (Malhotra et al., 2016)."""

    def __init__(self, length: int, features: int, cell: str, hidden: int, layers: int, bottleneck: int) -> None:
        super().__init__()
        self.length = length
        self.encoder = recurrent(cell, features, hidden, layers)
        self.inner = nn.Linear(hidden, bottleneck)
        self.decoder = recurrent(cell, bottleneck, hidden, layers)
        self.outer = nn.Linear(hidden, features)

    def forward(self, series: Tensor) -> Tensor:
        """The series again."""
        states, _ = self.encoder(series)
        told = self.inner(states[:, -1]).unsqueeze(1).expand(-1, self.length, -1)
        again, _ = self.decoder(told)
        return self.outer(again)


class Surprise(nn.Module):
    """``(B, L, F)`` -> ``(B,)``: how unlikely a series is to an autoencoder, the mean of ``(error² / σ² + log σ²) / 2`` over
    steps and features: a Gaussian's negative log likelihood, less a constant, in nats. Each feature's σ, in which it is given
    again, is learnt too, so that an error counts more where others are small."""

    def __init__(self, coder: nn.Module, features: int) -> None:
        super().__init__()
        self.coder = coder
        self.log_variance = nn.Parameter(torch.zeros(features))

    def forward(self, series: Tensor) -> Tensor:
        """(B,)."""
        log_variance = self.log_variance.clamp(min=LEAST_LOG_VARIANCE)
        errors = torch.square(self.coder(series) - series) * torch.exp(-log_variance)
        return (errors + log_variance).mean(dim=(1, 2)) / 2


def itself(outputs: Tensor, label: Tensor) -> Tensor:
    """The loss of a model that returns its own, a row; for rows with weights."""
    return outputs


def mean(outputs: Tensor, label: Tensor) -> Tensor:
    """The loss of a model that returns its own, a row."""
    return outputs.mean()
