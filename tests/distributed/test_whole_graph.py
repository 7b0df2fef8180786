"""Training on a whole graph in parts: the same parameters as one process has, whoever owns the nodes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch_geometric.data import HeteroData

import gdsl
from gdsl.distributed import average_gradients, partition
from gdsl.nn import GATConv, GCNConv, HeteroConv, SAGEConv
from tests.distributed.pool import Pool

NODES = 30


def data() -> tuple[gdsl.Graph, Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    edges = torch.randint(NODES, (2, 140), generator=random)
    x = torch.randn(NODES, 6, generator=random, dtype=torch.float64)
    return gdsl.Graph(edges, NODES), x, torch.arange(NODES) % 3, torch.rand(NODES, generator=random) < 0.6


LAYERS: dict[str, list[Any]] = {
    "GCN": [lambda: GCNConv(6, 8), lambda: GCNConv(8, 3)],
    "GAT": [lambda: GATConv(6, 4, heads=2), lambda: GATConv(8, 3)],
    "SAGE": [lambda: SAGEConv(6, 8), lambda: SAGEConv(8, 3, aggr="max")],
}


class Network(nn.Module):
    def __init__(self, kind: str):
        super().__init__()
        torch.manual_seed(1)
        self.first, self.second = (make().double() for make in LAYERS[kind])

    def forward(self, x: Tensor, graph: Any) -> Tensor:
        return self.second(self.first(x, graph).relu(), graph)  # type: ignore[no-any-return]


def trained(group: Any, kind: str, how: Any, ddp: bool) -> Any:
    graph, x, y, train = data()
    part = partition(graph, how=how, group=group)
    local = part.local()
    x, y, train = part.scatter(x), part.scatter(y), part.scatter(train)
    model: nn.Module = Network(kind)
    model = DistributedDataParallel(model, process_group=group) if ddp else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = part.mean(F.cross_entropy(model(x, local)[train], y[train], reduction="none"))
        loss.backward()
        if not ddp:
            average_gradients(model, group=group)
        optimizer.step()
        losses.append(loss.item())
    with torch.no_grad():
        return losses, part.gather(model(x, local))


def by_one(kind: str) -> Any:
    graph, x, y, train = data()
    model = Network(kind)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x, graph)[train], y[train])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    with torch.no_grad():
        return losses, model(x, graph)


@pytest.mark.parametrize("kind", LAYERS)
def test_processes_train_as_one_does(pool: Pool, kind: str) -> None:
    expected = by_one(kind)
    empty = torch.arange(NODES) % 2 * 2  # a part is
    for world, how, ddp in ((1, "hash", False), (2, "hash", False), (3, empty, False), (3, empty, True)):
        for found in pool.together(trained, kind, how, ddp, world=world):
            torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


# -- several types ----------------------------------------------------------------------------------


def papers() -> tuple[HeteroData, dict[str, Tensor]]:
    random = torch.Generator().manual_seed(3)

    def edges(sources: int, targets: int, count: int) -> Tensor:
        return torch.stack([torch.randint(n, (count,), generator=random) for n in (sources, targets)])

    data = HeteroData()
    data["paper"].num_nodes, data["author"].num_nodes = 20, 13
    data["author", "writes", "paper"].edge_index = edges(13, 20, 50)
    data["paper", "by", "author"].edge_index = edges(20, 13, 50)
    data["paper", "cites", "paper"].edge_index = edges(20, 20, 40)
    x = {t: torch.randn(data[t].num_nodes, 4, generator=random, dtype=torch.float64) for t in data.node_types}
    return data, x


def of_types(graphs: dict[Any, Any], x: dict[str, Tensor]) -> dict[str, Tensor]:
    torch.manual_seed(5)
    convs = HeteroConv({type: SAGEConv((4, 4), 3) for type in graphs}).double()
    return convs(x, graphs)  # type: ignore[no-any-return]


def on_parts_of_types(group: Any) -> dict[str, Tensor]:
    data, x = papers()
    part = partition(data, how="hash", group=group)
    found = of_types(part.local(), {type: part.scatter(value, type) for type, value in x.items()})
    return {type: part.gather(value, type).detach() for type, value in found.items()}


def test_several_types_of_nodes_and_edges(pool: Pool) -> None:
    data, x = papers()
    graphs = {t: gdsl.Graph(data[t].edge_index, (len(x[t[0]]), len(x[t[2]]))) for t in data.edge_types}
    expected = {type: value.detach() for type, value in of_types(graphs, x).items()}
    for found in pool.together(on_parts_of_types, world=3):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
