"""The model of tables: embeddings of categories beside numbers, then a multilayer perceptron."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


def embedding_width(values: int) -> int:
    """Numbers that stand for a category of so many different values: fastai's rule (``emb_sz_rule`` of fastai.tabular.model,
    J. Howard and S. Gugger, fastai: A Layered API for Deep Learning, 2020)."""
    return int(min(600, round(1.6 * values**0.56)))


class TableNet(nn.Module):
    """Takes tensors of B rows, each ``(B,)`` or ``(B, n)``: floating ones are numbers, the others ids of categories.

    numbers: of a row, in all floating tensors. categories: how many ids each category has, in the order in which they
    come. outputs: K. mean, scale: what an output of 0 means and of 1 above that, so that the inner layers see a
    standardised target; returns mean + scale * output, ``(B, K)``.

    Id 0 is the value that nobody knows: it starts as zeros, the middle of all, for in training it may never occur.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        numbers: int,
        categories: Sequence[int],
        outputs: int,
        *,
        hidden: Sequence[int] = (128, 64),
        dropout: float = 0.1,
        mean: float = 0.0,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        embeddings = [nn.Embedding(size, embedding_width(size)) for size in categories]
        for embedding in embeddings:
            nn.init.normal_(embedding.weight, std=0.05)
            nn.init.zeros_(embedding.weight[0])
        self.embeddings = nn.ModuleList(embeddings)
        widths = [numbers + sum(embedding.embedding_dim for embedding in embeddings), *hidden]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], outputs))
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("scale", torch.tensor(scale))

    def forward(self, *inputs: Tensor) -> Tensor:
        """See the class."""
        columns = [tensor if tensor.ndim == 2 else tensor.unsqueeze(1) for tensor in inputs]
        numbers = [tensor for tensor in columns if tensor.is_floating_point()]
        ids = [part for tensor in columns if not tensor.is_floating_point() for part in tensor.unbind(1)]
        embedded = [embedding(of_one) for embedding, of_one in zip(self.embeddings, ids, strict=True)]
        outputs: Tensor = self.layers(torch.cat([*numbers, *embedded], dim=1))
        return self.mean + self.scale * outputs
