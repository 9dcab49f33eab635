"""What ranks tell each other beside tensors: texts, and whether something holds on any of them."""

from __future__ import annotations

import torch

from sparkdl.train.collective import Collective


def agree(collective: Collective, value: float) -> float:
    """The sum of ``value`` over all ranks, the same on all."""
    total = torch.tensor([value], dtype=torch.float64, device=collective.device)
    collective.allreduce(total)
    return float(total[0])


def broadcast_text(collective: Collective, text: str) -> str:
    """Rank 0's text, on every rank."""
    return gather_text(collective, text if collective.world.is_chief else "")[0]


def gather_text(collective: Collective, text: str) -> list[str]:
    """Every rank's text, in rank order."""
    content = text.encode()
    lengths = collective.allgather(torch.tensor([len(content)]))
    padded = torch.zeros(max(int(lengths.max()), 1), dtype=torch.uint8)
    padded[: len(content)] = torch.frombuffer(bytearray(content), dtype=torch.uint8) if content else padded[:0]
    rows = collective.allgather(padded)
    return [bytes(row[: int(n)].numpy()).decode() for row, n in zip(rows, lengths.flatten(), strict=True)]
