"""Several types of nodes and edges: a part of a graph for each type of edges."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gdsl
import gdsl.nn as gnn
from tests.distributed.parts import local, near, owned, whole
from tests.distributed.pool import Pool
from tests.distributed.work import set_backend

COUNTS = {"paper": 12, "author": 7}
EDGES = (("paper", "cites", "paper"), ("author", "writes", "paper"), ("paper", "rev_writes", "author"))
METADATA = (list(COUNTS), list(EDGES))


def convs() -> dict[Any, nn.Module]:
    loops = {"add_self_loops": False}
    return dict(zip(EDGES, (gnn.GCNConv(4, 5), gnn.SAGEConv((4, 4), 5), gnn.GATConv((4, 4), 5, **loops)), strict=True))


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "HeteroConv": lambda: gnn.HeteroConv(convs()),
    "HGTConv": lambda: gnn.HGTConv({"paper": 4, "author": 4}, 6, METADATA, heads=2),
    "HGTConv gated": lambda: gnn.HGTConv(4, 4, METADATA),
    "HANConv": lambda: gnn.HANConv(4, 6, METADATA, heads=2),
}


def outcome(layer: nn.Module, xs: dict[str, Tensor], graphs: Any, weights: dict[str, Tensor]) -> Any:
    """Outputs and gradients of inputs by type, and the gradients of parameters."""
    xs = {kind: x.clone().requires_grad_() for kind, x in xs.items()}
    y = layer(xs, graphs)
    score = sum((weights[kind] * v).sum() for kind, v in y.items())
    given = [*xs.values(), *layer.parameters()]
    grads = torch.autograd.grad(score, given, allow_unused=True)
    dense = [torch.zeros_like(p) if g is None else g for g, p in zip(grads, given, strict=True)]
    return {k: v.detach() for k, v in y.items()}, dict(zip(xs, dense, strict=False)), dense[len(xs) :]


def on_part(rank: int, world: int, group: Any, layer: nn.Module, xs: Any, edges: Any, weights: Any, owners: Any) -> Any:
    graphs = {}
    for (source, name, target), ends in edges.items():
        at = None if source == target else owners[target]
        graphs[source, name, target], _ = local(ends, owners[source], rank, world, group, at)
    own = {kind: owned(owner, rank) for kind, owner in owners.items()}
    mine = {k: v[own[k]] for k, v in xs.items()}, {k: v[own[k]] for k, v in weights.items()}
    return outcome(layer, mine[0], graphs, mine[1])


@pytest.mark.parametrize("name", LAYERS)
def test_types_on_three_processes(pool: Pool, name: str) -> None:
    torch.manual_seed(0)
    layer = LAYERS[name]().double()
    set_backend(layer, "torch")
    xs = {kind: torch.randn(n, 4, dtype=torch.float64) for kind, n in COUNTS.items()}
    weights = {kind: torch.rand(n, 1, dtype=torch.float64) for kind, n in COUNTS.items()}
    edges = {
        kind: torch.stack([torch.randint(COUNTS[kind[0]], (20,)), torch.randint(COUNTS[kind[2]], (20,))])
        for kind in EDGES
    }
    owners = {kind: torch.randint(3, (n,)) for kind, n in COUNTS.items()}
    owners["author"][:] = owners["author"].clamp(max=1)  # one process owns none of them
    got = pool.run(3, on_part, layer, xs, edges, weights, owners)
    outputs, inputs, parameters = outcome(layer, xs, edges, weights)
    for place, wanted in ((0, outputs), (1, inputs)):
        for kind, value in wanted.items():
            ids = [owned(owners[kind], r) for r in range(3)]
            near(whole([g[place][kind] for g in got], ids), value, f"{place} of {kind}")
    for k, value in enumerate(parameters):
        near(torch.stack([g[2][k] for g in got]).sum(0), value, f"gradient of parameter {k}")


def refused(rank: int, world: int, group: Any) -> list[str]:
    graph, _ = local(torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]]), torch.arange(12) % world, rank, world, group)
    x, batch = torch.zeros(graph.num_nodes, 4), torch.zeros(graph.num_nodes, dtype=torch.long)
    found = []
    for layer in (gnn.EdgePooling(4), gnn.ClusterPooling(4), gnn.ASAPooling(4), gnn.PANConv(4, 4, 2)):
        set_backend(layer, "torch")
        try:
            layer(x, graph, *[batch] * isinstance(layer, gnn.EdgePooling | gnn.ClusterPooling))
        except gdsl.GdslError as error:
            found.append(str(error))
    return found


def test_what_needs_all_nodes_in_one_process_says_so(pool: Pool) -> None:
    for texts in pool.run(2, refused):
        assert len(texts) == 4
        assert all("in one process" in text for text in texts), texts
