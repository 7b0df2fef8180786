"""Random graphs that tests of data sets share."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch_geometric.data import Data, HeteroData

WRITES, CITES = ("author", "writes", "paper"), ("paper", "cites", "paper")


def edges(sources: int, targets: int, count: int, random: torch.Generator, order: str = "") -> Tensor:
    count = count if sources and targets else 0
    found = torch.stack([torch.randint(max(n, 1), (count,), generator=random) for n in (sources, targets)])
    if order:
        found = found[:, found[["source", "target"].index(order)].argsort(stable=True)]
    return found


def molecule(nodes: int, bonds: int, random: torch.Generator, order: str = "") -> Data:
    """A graph with attributes of all kinds."""
    edge_index = edges(nodes, nodes, bonds, random, order)
    count = edge_index.shape[1]
    return Data(
        x=torch.randn(nodes, 5, generator=random),
        edge_index=edge_index,
        edge_attr=torch.randn(count, 2, generator=random),
        y=torch.randn(1, 3, generator=random),
        pos=torch.randn(nodes, 3, generator=random, dtype=torch.float64),
        z=torch.randint(9, (nodes,), generator=random, dtype=torch.int16),
        mask=torch.rand(nodes, generator=random) < 0.5,
        face=torch.randint(max(nodes, 1), (3, 4 if nodes else 0), generator=random),
        ring_index=torch.randint(max(nodes, 1), (nodes // 2,), generator=random),
        pair_index=torch.randint(max(nodes, 1), (2, nodes // 3), generator=random),
        energy=torch.randn((), generator=random),
        count=count,
        weight=0.5 * count,
        name=f"{nodes} atoms",
        num_nodes=nodes,
    )


def academic(authors: int, papers: int, random: torch.Generator) -> HeteroData:
    data = HeteroData(year=torch.tensor([authors + papers]))
    data["author"].x = torch.randn(authors, 2, generator=random)
    data["paper"].x = torch.randn(papers, 3, generator=random)
    data["paper"].y = torch.randint(4, (papers,), generator=random)
    data["paper"].best_index = torch.randint(max(papers, 1), (papers // 2,), generator=random)
    data[WRITES].edge_index = edges(authors, papers, 3 * papers, random)
    data[CITES].edge_index = edges(papers, papers, 2 * papers, random)
    data[CITES].edge_attr = torch.randn(data[CITES].edge_index.shape[1], 2, generator=random)
    return data


def many(make: Callable[[int, int, torch.Generator], Data | HeteroData], sizes: list[tuple[int, int]], seed: int = 0):
    random = torch.Generator().manual_seed(seed)
    return [make(a, b, random) for a, b in sizes]


def sizes(count: int, seed: int = 0) -> list[tuple[int, int]]:
    random = torch.Generator().manual_seed(seed)
    return [tuple(pair) for pair in torch.randint(1, 20, (count, 2), generator=random).tolist()]
