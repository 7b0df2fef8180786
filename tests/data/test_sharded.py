"""Loaders of several processes: each has its share of the batches that one process has, to the bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch_geometric.data import Data

from gdsl.data import (
    ClusterData,
    ClusterLoader,
    GraphSAINTRandomWalkSampler,
    LinkNeighborLoader,
    Loader,
    NeighborLoader,
    pack,
)
from gdsl.errors import InputError

N, E = 40, 200


def graph() -> Data:
    random = torch.Generator().manual_seed(0)
    return Data(x=torch.randn(N, 3, generator=random), edge_index=torch.randint(N, (2, E), generator=random))


def small(k: int) -> Data:
    return Data(x=torch.full((k + 1, 2), float(k)), edge_index=torch.zeros(2, k, dtype=torch.long))


SETS = pack([small(k) for k in range(17)])
LOADERS: dict[str, Callable[..., Any]] = {
    "neighbors": lambda **more: NeighborLoader(graph(), [3, 2], batch_size=6, **more),
    "links": lambda **more: LinkNeighborLoader(graph(), [3], batch_size=30, neg_sampling="binary", **more),
    "clusters": lambda **more: ClusterLoader(ClusterData(graph(), 5, cluster=torch.arange(N) % 5), **more),
    "walks": lambda **more: GraphSAINTRandomWalkSampler(graph(), 4, 2, num_steps=5, **more),
    "graphs": lambda **more: Loader(SETS, batch_size=4, **more),
    "graphs by budget": lambda **more: Loader(SETS, max_nodes=40, **more),
}


def content(batch: Any) -> tuple[Any, ...]:
    return batch.x.tolist(), batch.edge_index.tolist(), getattr(batch, "e_id", torch.zeros(0)).tolist()


@pytest.mark.parametrize("workers", [0, 3])
@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("name", LOADERS)
def test_the_processes_have_the_batches_of_one(name: str, world: int, workers: int) -> None:
    make = LOADERS[name]
    one = make(shuffle=True, seed=5)
    shares = [make(shuffle=True, seed=5, rank=k, world=world, num_workers=workers) for k in range(world)]
    for _ in range(2):  # epochs
        expected = [content(b) for b in one]
        found = [[content(b) for b in share] for share in shares]
        assert [len(f) for f in found] == [len(expected[k::world]) for k in range(world)]
        assert [f for k in range(world) for f in found[k]] == [e for k in range(world) for e in expected[k::world]]


def test_what_not_all_processes_have_is_dropped() -> None:
    # Forty seeds by six: seven batches, of which the last is smaller.
    shares = [LOADERS["neighbors"](rank=k, world=4, drop_last=True) for k in range(4)]
    assert [len(share) for share in shares] == [1] * 4
    assert [len(LOADERS["neighbors"](rank=k, world=4)) for k in range(4)] == [2, 2, 2, 1]


def test_a_process_may_have_nothing() -> None:
    loader = Loader(SETS, batch_size=17, rank=1, world=2, shuffle=True)
    assert len(loader) == 0 and list(loader) == []


def test_processes_draw_one_order_without_a_seed() -> None:
    seeds = {LOADERS["neighbors"](shuffle=True, rank=k, world=2).seed for k in range(2)}
    assert len(seeds) == 1


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"rank": 2, "world": 2}, "rank 2 is not among 2 processes"),
        ({"rank": 1}, "rank 1 is not among 1 processes"),
        ({"rank": -1, "world": 2}, "rank must be an integer of at least 0"),
        ({"rank": 0, "world": 0}, "world must be an integer of at least 1"),
        ({"rank": 0.5, "world": 2}, "rank must be an integer"),
    ],
)
def test_numbers_that_are_none(settings: dict[str, Any], match: str) -> None:
    with pytest.raises(InputError, match=match):
        LOADERS["neighbors"](**settings)
