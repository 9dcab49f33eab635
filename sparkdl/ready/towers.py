"""Two towers: a vector for each user, a vector for each item, and how well they go together.

Shapes: B rows, C columns of ids (the user's and those of its features), D numbers in a vector, L items to leave out, K best
items. Users and features have ids from 1: user 0 is anybody, one that training did not see, and in training any now and
then. Items have numbers from 1 where 0 is none.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Tower(nn.Module):
    """The sum of a vector for each id: Kula, Metadata Embeddings for User and Item Cold-start Recommendations, 2015.

    sizes: how many ids each column has; id 0, what is not known, adds nothing unless training has some of it. dimension: D.
    """

    starts: Tensor

    def __init__(self, sizes: Sequence[int], dimension: int) -> None:
        super().__init__()
        self.vectors = nn.Embedding(sum(sizes), dimension)
        self.register_buffer("starts", torch.tensor([0, *sizes[:-1]]).cumsum(0))
        nn.init.normal_(self.vectors.weight, std=dimension**-0.5)
        with torch.no_grad():
            self.vectors.weight[self.starts] = 0.0

    def forward(self, ids: Tensor) -> Tensor:
        """``(B, C)`` ids as ``(B, D)``."""
        summed: Tensor = self.vectors(ids + self.starts).sum(dim=1)
        return summed


class TwoTower(nn.Module):
    """A score is ``user's vector · item's vector + item's bias + level``.

    users: how many ids each of the users' columns has. items: the ids of each item, its own and those of its features; item
    0 is none. dimension: D. anybody: the share of the rows in training whose user is not told. level: of scores of which
    nothing is known; it is not trained, so that weight decay draws scores to it.
    """

    ids: Tensor
    level: Tensor

    def __init__(
        self,
        users: Sequence[int],
        items: Sequence[Sequence[int]],
        dimension: int,
        anybody: float = 0.0,
        level: float = 0.0,
    ) -> None:
        super().__init__()
        self.register_buffer("ids", torch.tensor(items))
        self.user = Tower(users, dimension)
        self.item = Tower((self.ids.amax(dim=0) + 1).tolist(), dimension)
        self.bias = nn.Embedding(len(items), 1)
        nn.init.zeros_(self.bias.weight)
        self.register_buffer("level", torch.tensor(level))
        self.anybody = anybody

    def of_users(self, user: Tensor) -> Tensor:
        """``(B, C)`` ids as ``(B, D)`` vectors."""
        if self.training and self.anybody:
            is_told = torch.rand(len(user), device=user.device) >= self.anybody
            user = torch.cat([(user[:, 0] * is_told)[:, None], user[:, 1:]], dim=1)
        vectors: Tensor = self.user(user)
        return vectors

    def of_items(self, item: Tensor) -> tuple[Tensor, Tensor]:
        """``(B,)`` numbers as ``(B, D)`` vectors and ``(B,)`` biases, with the level in them."""
        return self.item(self.ids[item]), self.bias(item).squeeze(-1) + self.level


class Vectors(nn.Module):
    """What ``in_batch_softmax`` compares. shares: of each item among the training rows, above 0."""

    log_shares: Tensor

    def __init__(self, towers: TwoTower, shares: Sequence[float]) -> None:
        super().__init__()
        self.towers = towers
        self.register_buffer("log_shares", torch.log(torch.tensor(shares)))

    def forward(self, user: Tensor, item: Tensor) -> dict[str, Tensor]:
        """``user`` and ``item``, ``(B, D)``; ``offset``, ``(B,)``, of the item's score. Items have numbers from 0 here."""
        vectors, bias = self.towers.of_items(item + 1)
        return {"user": self.towers.of_users(user), "item": vectors, "offset": bias - self.log_shares[item]}


class Pairs(nn.Module):
    """The score of a user and an item."""

    def __init__(self, towers: TwoTower) -> None:
        super().__init__()
        self.towers = towers

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        """``(B,)``. Items have numbers from 0 here."""
        vectors, bias = self.towers.of_items(item + 1)
        return (self.towers.of_users(user) * vectors).sum(dim=-1) + bias


class TopItems(nn.Module):
    """The items with the best scores, of all of them: their vectors are worked out once, here. k: at most so many."""

    def __init__(self, towers: TwoTower, k: int) -> None:
        super().__init__()
        with torch.no_grad():
            items, biases = towers.of_items(torch.arange(len(towers.ids)))
        self.user = towers.user
        self.register_buffer("items", items)
        self.register_buffer("biases", biases)
        self.k = min(k, len(items) - 1)

    def forward(self, user: Tensor, seen: Tensor | None = None) -> dict[str, Tensor]:
        """``items``, numbers from 1, and ``scores``, both ``(B, K)``, the best first; 0 and 0 where none is left.

        seen: ``(B, L)``, numbers of items to leave out; 0 is none.
        """
        scores = self.user(user) @ self.items.T + self.biases
        none = torch.zeros_like(user[:, :1])
        left_out = none if seen is None else torch.cat([none, seen], dim=1)
        scores, items = scores.scatter(1, left_out, -torch.inf).topk(self.k)
        is_none = scores.isneginf()
        return {"items": items.masked_fill(is_none, 0), "scores": scores.masked_fill(is_none, 0.0)}


def in_batch_softmax(outputs: dict[str, Tensor], label: Tensor, reduction: str = "mean") -> Tensor:
    """Cross entropy of each row's item among the items of the batch, which are there as often as they are popular, and whose
    scores are corrected for that.

    Yi et al., Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations, RecSys 2019, (3) and (5).
    outputs: of ``Vectors``. label: the items' numbers, ``(B,)``: a row's own item in another row is no other item.
    reduction: ``mean``, or ``none``: ``(B,)``.
    """
    scores = outputs["user"] @ outputs["item"].T + outputs["offset"]
    own = torch.arange(len(label), device=label.device)
    is_same = (label[:, None] == label) & (own[:, None] != own)
    return F.cross_entropy(scores.masked_fill(is_same, -torch.inf), own, reduction=reduction)
