"""Who a rank is: its place among all ranks, on its host, and across hosts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class World:
    """A rank's place. The names are Horovod's.

    ``rank`` of ``size``: among all. ``local_rank`` of ``local_size``: among the ranks on this host.
    ``cross_rank`` of ``cross_size``: among the ranks with this ``local_rank``, one a host.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    cross_rank: int = 0
    cross_size: int = 1

    @property
    def is_chief(self) -> bool:
        """True on rank 0, which alone writes and reports."""
        return self.rank == 0


def assign_worlds(hosts: Sequence[str]) -> list[World]:
    """The World of each task, in the order given, from the host each task runs on.

    Ranks are numbered host by host, hosts in alphabetical order and tasks of a host in the order given, so that
    local ranks are contiguous; the answer depends on ``hosts`` alone, so every task computes the same one.
    """
    tasks_of = {host: [i for i, h in enumerate(hosts) if h == host] for host in sorted(set(hosts))}
    worlds: dict[int, World] = {}
    for tasks in tasks_of.values():
        for local_rank, task in enumerate(tasks):
            peers = [host for host, others in tasks_of.items() if len(others) > local_rank]
            worlds[task] = World(
                rank=len(worlds),
                size=len(hosts),
                local_rank=local_rank,
                local_size=len(tasks),
                cross_rank=peers.index(hosts[task]),
                cross_size=len(peers),
            )
    return [worlds[task] for task in range(len(hosts))]
