"""What training asks for besides gradients: the masks of dropout, several rounds in a module, a user's own messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gdsl.nn as gnn
from gdsl.distributed import together
from tests.distributed.parts import local, near, owned, whole
from tests.distributed.pool import Pool
from tests.distributed.work import set_backend

NODES, IN = 13, 5
SEED = 7


class Weighed(gnn.MessagePassing):
    """A user's layer: two values of the source in one message, weights of edges, and a softmax of them."""

    def __init__(self) -> None:
        super().__init__(aggr="add")
        self.lin = nn.Linear(IN, 4)

    def forward(self, x: Tensor, graph: Any) -> Tensor:
        return self.propagate(graph, x=self.lin(x), z=x[:, :1])

    def message(self, x_i: Tensor, x_j: Tensor, z_j: Tensor) -> Tensor:
        return torch.tanh(x_i * x_j) * z_j


class Largest(gnn.MessagePassing):
    def __init__(self) -> None:
        super().__init__(aggr="max")
        self.lin = nn.Linear(IN, 4)

    def forward(self, x: Tensor, graph: Any) -> Tensor:
        return self.propagate(graph, x=self.lin(x))

    def message(self, x_i: Tensor, x_j: Tensor) -> Tensor:
        return torch.relu(x_j - x_i)


class Rounds(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = gnn.GATConv(IN, 3, heads=2, dropout=0.4), gnn.SAGEConv(6, 4)

    def forward(self, x: Tensor, graph: Any) -> Tensor:
        return self.second(torch.relu(self.first(x, graph)), graph)


class Normed(nn.Module):
    """Norms of nodes between layers, which are not given the graph."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.first, self.norm, self.second = gnn.GCNConv(IN, 6), norm, gnn.GCNConv(6, 4)

    def forward(self, x: Tensor, graph: Any) -> Tensor:
        with together(graph):
            x = self.norm(self.first(x, graph))
        return self.second(torch.relu(x), graph)


class Pooled(nn.Module):
    """What is pooled over all nodes, put beside each."""

    def __init__(self, pool: Callable[..., Tensor]) -> None:
        super().__init__()
        self.conv, self.pool = gnn.GCNConv(IN, 4), pool

    def forward(self, x: Tensor, graph: Any) -> Tensor:
        x = torch.relu(self.conv(x, graph))
        batch = torch.zeros(len(x), dtype=torch.long)
        with together(graph):
            return x * self.pool(x, batch)[batch]


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "GATConv, edges": lambda: gnn.GATConv(IN, 4, dropout=0.5),
    "GATConv without loops": lambda: gnn.GATConv(IN, 4, dropout=0.5, add_self_loops=False),
    "ARMAConv, nodes": lambda: gnn.ARMAConv(IN, 4, dropout=0.5),
    "TransformerConv": lambda: gnn.TransformerConv(IN, 2, heads=2, dropout=0.3),
    "rounds": Rounds,
    "message": Weighed,
    "largest": Largest,
    "GCN": lambda: gnn.GCN(IN, 6, 2, 4),
    "GCN, batch norm": lambda: gnn.GCN(IN, 6, 2, 4, norm="batch_norm"),
    "GIN, batch norm in its networks": lambda: gnn.GIN(IN, 6, 2, 4, norm="batch_norm"),
    "GCN, graph norm": lambda: gnn.GCN(IN, 6, 2, 4, norm="graph_norm"),
    "batch norm": lambda: Normed(gnn.BatchNorm(6)),
    "layer norm": lambda: Normed(gnn.LayerNorm(6)),
    "instance norm": lambda: Normed(gnn.InstanceNorm(6, track_running_stats=True)),
    "pair norm": lambda: Normed(gnn.PairNorm()),
    "groups": lambda: Normed(gnn.DiffGroupNorm(6, 3)),
    "sizes": lambda: Normed(gnn.GraphSizeNorm()),
    "mean taken away": lambda: Normed(gnn.MeanSubtractionNorm()),
    "sums": lambda: Pooled(gnn.global_add_pool),
    "means": lambda: Pooled(gnn.global_mean_pool),
    "maxima, among zeros": lambda: Pooled(gnn.global_max_pool),
    "a module of torch on rows": lambda: gnn.GINConv(
        nn.Sequential(nn.Linear(IN, 6), nn.BatchNorm1d(6), nn.Linear(6, 4))
    ),
    "sorted": lambda: gnn.SAGEConv(IN, 4, aggr="median"),
}


def outcome(layer: nn.Module, x: Tensor, graph: Any, weights: Tensor) -> tuple[list[Tensor], ...]:
    """The output and the gradient of x; the gradients of parameters; the buffers."""
    torch.manual_seed(SEED)
    x = x.clone().requires_grad_()
    y = layer(x, graph)
    given = [x, *layer.parameters()]
    grads = torch.autograd.grad((weights * y).sum(), given, allow_unused=True)
    zeros = [torch.zeros_like(p) if g is None else g for g, p in zip(grads, given, strict=True)]
    return [y.detach(), zeros[0]], zeros[1:], [b.clone() for b in layer.buffers() if b.is_floating_point()]


def on_part(
    rank: int, world: int, group: Any, layer: nn.Module, x: Tensor, edges: Tensor, weights: Tensor, owner: Tensor
) -> tuple[list[Tensor], ...]:
    graph, _ = local(edges, owner, rank, world, group)
    own = owned(owner, rank)
    torch.rand(rank)  # generators that are not in step
    return outcome(layer, x[own], graph, weights[own])


def compare(pool: Pool, layer: nn.Module, world: int) -> None:
    draw = torch.Generator().manual_seed(1)
    edges = torch.randint(NODES - 1, (2, 40), generator=draw)
    x = torch.randn(NODES, IN, generator=draw, dtype=torch.float64)
    owner = torch.randint(world, (NODES,), generator=draw)
    weights = torch.rand(NODES, 4, generator=draw, dtype=torch.float64)
    got = pool.run(world, on_part, layer, x, edges, weights, owner)
    rows, parameters, buffers = outcome(layer, x, edges, weights)
    ids = [owned(owner, r) for r in range(world)]
    for k, wanted in enumerate(rows):
        near(whole([g[0][k] for g in got], ids), wanted, f"rows {k}")
    for k, wanted in enumerate(parameters):
        near(torch.stack([g[1][k] for g in got]).sum(0), wanted, f"gradient of parameter {k}")
    for k, wanted in enumerate(buffers):
        for g in got:
            near(g[2][k], wanted, f"buffer {k}")


@pytest.mark.parametrize("name", LAYERS)
def test_training_on_three_processes(pool: Pool, name: str) -> None:
    torch.manual_seed(0)
    layer = LAYERS[name]().double()
    set_backend(layer, "torch")
    compare(pool, layer, 3)


@pytest.mark.parametrize("backend", ["cpp", pytest.param("triton", marks=pytest.mark.slow)])
def test_generated_code_draws_the_numbers_of_one_process(pool: Pool, backend: str) -> None:
    torch.manual_seed(0)
    layer = LAYERS["GATConv, edges"]().double()
    set_backend(layer, backend)
    compare(pool, layer, 2)
