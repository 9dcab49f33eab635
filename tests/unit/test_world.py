"""Ranks are numbered host by host, so that local ranks are contiguous, from the hosts alone."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkdl.train.world import World, assign_worlds


@pytest.mark.parametrize(
    ("hosts", "worlds"),
    [
        # one task: alone everywhere
        (["a"], [World(0, 1, 0, 1, 0, 1)]),
        # one host: local ranks are ranks; at each of them there is one host
        (["a", "a"], [World(0, 2, 0, 2, 0, 1), World(1, 2, 1, 2, 0, 1)]),
        # two hosts: across, each task has a peer
        (["a", "b"], [World(0, 2, 0, 1, 0, 2), World(1, 2, 0, 1, 1, 2)]),
        # in any order of tasks, the hosts count in alphabetical order
        (["b", "a"], [World(1, 2, 0, 1, 1, 2), World(0, 2, 0, 1, 0, 2)]),
        # interleaved: still contiguous on each host
        (
            ["b", "a", "b", "a"],
            [World(2, 4, 0, 2, 1, 2), World(0, 4, 0, 2, 0, 2), World(3, 4, 1, 2, 1, 2), World(1, 4, 1, 2, 0, 2)],
        ),
        # uneven: the second task of b has no peer on a
        (["a", "b", "b"], [World(0, 3, 0, 1, 0, 2), World(1, 3, 0, 2, 1, 2), World(2, 3, 1, 2, 0, 1)]),
        ([], []),
    ],
)
def test_worlds(hosts, worlds):
    assert assign_worlds(hosts) == worlds


@given(st.lists(st.sampled_from("abcde"), min_size=1, max_size=24))
def test_any_placement(hosts):
    worlds = assign_worlds(hosts)
    assert sorted(world.rank for world in worlds) == list(range(len(hosts)))
    per_host = Counter(hosts)
    for host, world in zip(hosts, worlds, strict=True):
        assert (world.size, world.local_size) == (len(hosts), per_host[host])
        assert 0 <= world.cross_rank < world.cross_size <= len(per_host)
    for host in per_host:
        here = sorted((w for h, w in zip(hosts, worlds, strict=True) if h == host), key=lambda world: world.rank)
        assert [world.local_rank for world in here] == list(range(per_host[host]))
        assert [world.rank for world in here] == list(range(here[0].rank, here[0].rank + len(here)))
    for local_rank in {world.local_rank for world in worlds}:
        across = sorted((w for w in worlds if w.local_rank == local_rank), key=lambda world: world.rank)
        assert [world.cross_rank for world in across] == list(range(across[0].cross_size))


def test_rank_0_alone_is_the_chief():
    assert [world.is_chief for world in assign_worlds(["a", "b", "a"])] == [True, False, False]
    assert World().is_chief
