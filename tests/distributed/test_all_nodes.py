"""Layers and models that read more than neighbours, on several processes against one: attention between all nodes,
weights and numbers of nodes, readouts, types of nodes in one program."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch_geometric.nn import LSTMAggregation

import gdsl
import gdsl.nn as gnn
from gdsl.runtime.halo import all_reduce
from tests.distributed.parts import local, near, owned, whole
from tests.distributed.pool import Pool
from tests.distributed.work import set_backend

NODES, IN = 11, 4
Values = dict[str, Tensor]

draw = torch.Generator().manual_seed(0)
EDGES = torch.randint(NODES, (2, 30), generator=draw)
SOME_GRAPHS = torch.tensor([0] * 6 + [1] * 2 + [2] * 3)  # of which nodes lie anywhere


@dataclass(frozen=True)
class Model:
    """make:  the model
    nodes, edges: further arguments, by the number of their rows
    alike: whether each process gives all of the result
    x:     whether the features come first; without it, none
    chunk: how many rows of another process are read at a time
    """

    make: Callable[[], nn.Module]
    nodes: Mapping[str, Tensor] | None = None
    edges: Mapping[str, Tensor] | None = None
    alike: bool = False
    x: bool = True
    chunk: int | None = None


class OneType(gnn.HGTConv):
    """Of one type of nodes, called as others are."""

    def __init__(self) -> None:
        super().__init__(IN, 6, (["node"], [("node", "to", "node")]), 2)

    def forward(self, x: Tensor, graph: Any) -> Tensor:  # type: ignore[override]
        return super().forward({"node": x}, {("node", "to", "node"): graph})["node"]


class Written(gnn.MessagePassing):
    """A user's own."""

    def forward(self, x: Tensor, graph: Any, edge_weight: Tensor) -> Tensor:
        return self.propagate(graph, x=x, w=edge_weight)  # type: ignore[no-any-return]

    def message(self, x_j: Tensor, x_i: Tensor, w: Tensor) -> Tensor:
        return (x_j - x_i).tanh() * w.view(-1, 1)


class Selected(nn.Module):
    """A pooling, and a layer on the graph that it leaves: rows of nodes that it drops are 0."""

    def __init__(self, pool: nn.Module, conv: nn.Module):
        super().__init__()
        self.pool, self.conv = pool, conv

    def forward(self, x: Tensor, graph: Any, edge_weight: Tensor, batch: Tensor | None = None) -> Tensor:
        y, edges, weight, of_graph, nodes, score = self.pool(x, graph, edge_weight, batch)
        y = self.conv(y, edges, weight) * (1 + of_graph.unsqueeze(1)) + score.unsqueeze(1)
        return x.new_zeros(len(x), y.size(1)).index_put((nodes,), y)


class Evaluated(nn.Module):
    """A model outside of training."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, *args: Any) -> Tensor:
        return self.model.eval()(*args)  # type: ignore[no-any-return]


def conv() -> nn.Module:
    return gnn.GraphConv(IN, IN)


GRAPHS, WEIGHT = {"batch": SOME_GRAPHS}, {"edge_weight": torch.rand(30, generator=draw, dtype=torch.float64)}
ATOMS = {"edge_attr": torch.randn(30, 3, generator=draw, dtype=torch.float64)}
MODELS: dict[str, Model] = {
    "GPSConv": Model(lambda: gnn.GPSConv(IN, conv(), heads=2), GRAPHS),
    "GPSConv one graph": Model(lambda: gnn.GPSConv(IN, conv(), heads=2)),
    "GPSConv torch's norm": Model(lambda: gnn.GPSConv(IN, None, norm=nn.BatchNorm1d(IN))),
    "GPSConv performer": Model(lambda: gnn.GPSConv(IN, conv(), attn_type="performer"), GRAPHS),
    "SGFormer": Model(lambda: gnn.SGFormer(IN, 6, 3, trans_dropout=0, gnn_dropout=0), {"batch": SOME_GRAPHS * 0}),
    "SGFormer graphs": Model(lambda: gnn.SGFormer(IN, 6, 3, trans_dropout=0, gnn_dropout=0, aggregate="cat"), GRAPHS),
    "LINKX": Model(lambda: gnn.LINKX(NODES, IN, 6, 3, 2, num_edge_layers=2, num_node_layers=2), edges=WEIGHT),
    "LINKX alone": Model(lambda: gnn.LINKX(NODES, IN, 6, 3, 1), x=False),
    "AttentiveFP": Model(lambda: gnn.AttentiveFP(IN, 6, 2, 3, 2, 2), GRAPHS, ATOMS, alike=True),
    "GCNConv backwards": Model(lambda: gnn.GCNConv(IN, 3, flow="target_to_source"), edges=WEIGHT),
    "GATConv backwards": Model(lambda: gnn.GATConv(IN, 3, heads=2, flow="target_to_source")),
    "GATConv backwards in chunks": Model(lambda: gnn.GATConv(IN, 3, flow="target_to_source"), chunk=1),
    "MessagePassing backwards": Model(lambda: Written("max", flow="target_to_source"), edges=WEIGHT),
    "ChebConv backwards": Model(lambda: gnn.ChebConv(IN, 3, 3, flow="target_to_source"), edges=WEIGHT),
    "HGTConv in chunks": Model(lambda: OneType(), chunk=1),
    "GATv2Conv backwards": Model(
        lambda: gnn.GATv2Conv(IN, 3, edge_dim=3, fill_value=0.5, flow="target_to_source"), edges=ATOMS
    ),
    "SAGEConv backwards": Model(lambda: gnn.SAGEConv(IN, 3, aggr="max", flow="target_to_source")),
    "PNAConv backwards": Model(
        lambda: gnn.PNAConv(
            IN,
            3,
            ["mean", "min", "max", "std"],
            ["identity", "amplification"],
            torch.tensor([1, 2, 3]),
            flow="target_to_source",
        )
    ),
    "GINEConv backwards": Model(
        lambda: gnn.GINEConv(nn.Linear(IN, 3), edge_dim=3, flow="target_to_source"), edges=ATOMS
    ),
    "DirGNNConv": Model(lambda: gnn.DirGNNConv(gnn.GCNConv(IN, 3))),
    "NeuralFingerprint": Model(lambda: gnn.NeuralFingerprint(IN, 6, 2, 2), GRAPHS, alike=True),
    "DeepGCNLayer": Model(lambda: gnn.DeepGCNLayer(conv(), gnn.GraphNorm(IN), nn.ReLU())),
    "DeepGCNLayer torch's norm": Model(lambda: gnn.DeepGCNLayer(conv(), nn.BatchNorm1d(IN), nn.Tanh(), "dense")),
    # Each pads the edges of a node to those of the node with most.
    "SAGEConv lstm": Model(lambda: gnn.SAGEConv(IN, 3, aggr="lstm")),
    "SAGEConv two": Model(lambda: gnn.SAGEConv(IN, 3, aggr=gnn.MultiAggregation(["mean", gnn.GRUAggregation(IN, IN)]))),
    "SAGEConv patches": Model(
        lambda: gnn.SAGEConv(IN, 3, aggr=gnn.PatchTransformerAggregation(IN, IN, 2, 6, heads=2, dropout=0))
    ),
    "SAGEConv LCM": Model(lambda: gnn.SAGEConv(IN, 3, aggr=gnn.LCMAggregation(IN, IN))),
    "ChebConv": Model(lambda: gnn.ChebConv(IN, 3, 3), edges=WEIGHT),
    "ChebConv rw": Model(lambda: gnn.ChebConv(IN, 3, 3, normalization="rw"), edges=WEIGHT),
    "TopKPooling": Model(lambda: Selected(gnn.TopKPooling(IN, 0.6), gnn.GCNConv(IN, 3)), GRAPHS, WEIGHT),
    "TopKPooling min_score": Model(lambda: Selected(gnn.TopKPooling(IN, min_score=0.3), conv()), GRAPHS, WEIGHT),
    "SAGPooling": Model(
        lambda: Selected(gnn.SAGPooling(IN, 7, gnn.GATConv, multiplier=2), conv()), edges=WEIGHT, chunk=1
    ),
    "PMLP": Model(lambda: gnn.PMLP(IN, 6, 3, 3)),
    "PMLP evaluation": Model(lambda: Evaluated(gnn.PMLP(IN, 6, 3, 3))),
    "SimpleConv self-loops": Model(lambda: gnn.SimpleConv("mean", "self_loop"), edges=WEIGHT, chunk=1),
    "SimpleConv self-loops backwards": Model(
        lambda: gnn.SimpleConv("max", "self_loop", flow="target_to_source"), edges=WEIGHT
    ),
    "GraphUNet": Model(lambda: gnn.GraphUNet(IN, 6, 3, 2, [0.8, 0.7]), edges=WEIGHT),
    "GraphUNet graphs": Model(lambda: gnn.GraphUNet(IN, 6, 3, 2, 0.7, sum_res=False), GRAPHS, WEIGHT, chunk=2),
    "ChebConv plain": Model(lambda: gnn.ChebConv(IN, 3, 3, normalization=None)),
}
# Cheap ones of different kinds, also by default.
SAMPLE = {
    "GPSConv", "GPSConv performer", "SGFormer graphs", "LINKX", "AttentiveFP", "ChebConv", "GATConv backwards",
    "DirGNNConv", "NeuralFingerprint", "DeepGCNLayer", "SAGEConv lstm", "SAGPooling", "GraphUNet graphs",
    "PMLP evaluation",
}  # fmt: skip


def outcome(model: Model, layer: nn.Module, x: Tensor, graph: Any, given: Values, weights: Tensor) -> Any:
    """Output, and first and second derivatives by features and parameters."""
    x = x.clone().requires_grad_(model.x)
    layer.train()
    with sdpa_kernel(SDPBackend.MATH):  # the other ones of torch have no second derivative
        y = layer(x if model.x else None, graph, **given)
    leaves = [*([x] if model.x else []), *(p for p in layer.parameters() if p.requires_grad)]
    first = torch.autograd.grad((weights * y).sum(), leaves, create_graph=True, allow_unused=True)
    dense = [torch.zeros_like(p) if g is None else g for g, p in zip(first, leaves, strict=True)]
    # A mix of the gradients of rows alone: each process has its own.
    again = (dense[0] * x.detach().cos()).sum() if model.x else dense[0].sum() * 0.0
    second = torch.autograd.grad(again, leaves, allow_unused=True) if again.requires_grad else [None] * len(leaves)
    curved = [torch.zeros_like(p) if g is None else g for g, p in zip(second, leaves, strict=True)]
    return y.detach(), [g.detach() for g in dense], [g.detach() for g in curved]


def on_part(rank: int, world: int, group: Any, name: str, layer: nn.Module, x: Tensor, owner: Tensor) -> Any:
    model = MODELS[name]
    graph, mine = local(EDGES, owner, rank, world, group, chunk=model.chunk)
    own = owned(owner, rank)
    given = {k: v[own] for k, v in (model.nodes or {}).items()} | {k: v[mine] for k, v in (model.edges or {}).items()}
    weights = weights_of(model)
    weights = weights / world if model.alike else weights[own]
    return outcome(model, layer, x[own], graph, given, weights)


def weights_of(model: Model) -> Tensor:
    return torch.linspace(-1, 1, 3 if model.alike else NODES, dtype=torch.float64).unsqueeze(1)


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in SAMPLE else pytest.mark.slow) for n in MODELS])
def test_a_model_on_several_processes(pool: Pool, name: str) -> None:
    model = MODELS[name]
    torch.manual_seed(1)
    layer = model.make().double()
    set_backend(layer, "torch")
    x = torch.randn(NODES, IN, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    given = {**(model.nodes or {}), **(model.edges or {})}
    state = {k: v.clone() for k, v in layer.state_dict().items()}
    wanted = outcome(model, layer, x, EDGES, given, weights_of(model))
    layer.load_state_dict(state)
    for world in (1, 3, 4):
        # Of four processes one owns nothing.
        owner = torch.randint(min(world, 3), (NODES,), generator=torch.Generator().manual_seed(world))
        got = pool.run(world, on_part, name, layer, x, owner)
        ids = [owned(owner, r) for r in range(world)]
        for y in [g[0] for g in got] if model.alike else [whole([g[0] for g in got], ids)]:
            near(y, wanted[0], f"output of {world}")
        for order in (1, 2):
            for k, value in enumerate(wanted[order]):
                parts = [g[order][k] for g in got]
                found = whole(parts, ids) if model.x and k == 0 else torch.stack(parts).sum(0)
                near(found, value, f"derivative {order} by {k} on {world}")


def colours(rank: int, world: int, group: Any, owner: Tensor) -> Tensor:
    graph, _ = local(EDGES, owner, rank, world, group)
    layer, x = gnn.WLConv(), (torch.arange(NODES) % 2)[owned(owner, rank)]
    return torch.stack([layer(x, graph), layer(layer(x, graph), graph)], 1)


def smoothed(rank: int, world: int, group: Any, owner: Tensor, y: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    graph, _ = local(EDGES, owner, rank, world, group)
    own = owned(owner, rank)
    return gnn.CorrectAndSmooth(2, 0.5, 2, 0.5)(y[own], labels[own][mask[own]], mask[own], graph)  # type: ignore[no-any-return]


def test_colours_and_errors_of_all_nodes(pool: Pool) -> None:
    owner = torch.randint(2, (NODES,), generator=torch.Generator().manual_seed(5))
    ids = [owned(owner, r) for r in range(3)]
    wl, x = gnn.WLConv(), torch.arange(NODES) % 2
    wanted = torch.stack([wl(x, EDGES), wl(wl(x, EDGES), EDGES)], 1)
    assert torch.equal(whole(pool.run(3, colours, owner), ids), wanted)
    y = torch.rand(NODES, 3, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    labels, mask = torch.arange(NODES) % 3, torch.arange(NODES) < 5
    model = gnn.CorrectAndSmooth(2, 0.5, 2, 0.5)
    near(whole(pool.run(3, smoothed, owner, y, labels, mask), ids), model(y, labels[mask], mask, EDGES), "smoothed")


def of_another_size(rank: int, world: int, group: Any) -> Any:
    graph, _ = local(EDGES, torch.arange(NODES) % world, rank, world, group)
    return gnn.LINKX(NODES + 1, IN, 6, 3, 1)(None, graph)


def extremes(rank: int, world: int, group: Any, values: Tensor) -> list[Tensor]:
    halo = local(EDGES, torch.arange(NODES) % world, rank, world, group)[0].halo
    return [
        all_reduce(halo, values[rank].to(t), how)
        for t in (values.dtype, torch.float32, torch.bfloat16)
        for how in ("max", "min")
    ]


def test_the_largest_of_all_processes_is_nan_whosever_it_is(pool: Pool) -> None:
    values = torch.cartesian_prod(*[torch.tensor([math.nan, -math.inf, -2.5, -0.0, 1.0, math.inf]).double()] * 3).T
    for found in pool.run(3, extremes, values):
        for one, wanted in zip(found, [values.amax(0), values.amin(0)] * 3, strict=True):
            torch.testing.assert_close(one.double(), wanted, rtol=0, atol=0, equal_nan=True)


def test_weights_for_other_nodes_are_refused(pool: Pool) -> None:
    with pytest.raises(AssertionError, match="the graph has 11 nodes on all processes, and 12 are needed") as error:
        pool.run(2, of_another_size)
    assert all(f"process {rank} of 2:" in str(error.value) for rank in range(2))


def backwards(rank: int, world: int, group: Any, owner: Tensor, text: str) -> str:
    """What cannot run on a part, or where it is turned round."""
    graph, mine = local(EDGES, owner, rank, world, group)
    x = torch.ones(graph.num_nodes, IN)
    made: dict[str, Callable[[], Any]] = {
        "another's lstm": lambda: gnn.SAGEConv(IN, 3, aggr=LSTMAggregation(IN, IN))(x, graph),
        "median": lambda: gnn.SAGEConv(IN, 3, aggr="median", flow="target_to_source")(x, graph),
        "whole numbers": lambda: gnn.LGConv(normalize=False, flow="target_to_source")(x.long(), graph),
        "types": lambda: gnn.HGTConv(IN, 6, (["a"], [("a", "a", "a")]), flow="target_to_source")(
            {"a": x}, {("a", "a", "a"): graph}
        ),
        "loops of means": lambda: gnn.GATConv(IN, 3, edge_dim=2, flow="target_to_source")(
            x, graph, torch.ones(len(mine), 2)
        ),
        "explained": lambda: explained(gnn.GATConv(IN, 3, flow="target_to_source"), x, graph),
    }
    try:
        return made[text]()  # type: ignore[no-any-return]
    except gdsl.GraphError as error:
        return str(error)


def explained(layer: Any, x: Tensor, graph: Any) -> str:
    layer.backend = "torch"
    layer(x, graph)
    return layer.explain(graph).partition("== between processes ==")[2]  # type: ignore[no-any-return]


WORDS = {
    "another's lstm": "use gdsl.nn.LSTMAggregation",
    "median": 'flow="target_to_source"',
    "whole numbers": 'is not distributed with flow="target_to_source"',
    "types": 'is not distributed with flow="target_to_source"',
    "loops of means": "give a number for it",
    "explained": "edges of several processes are aggregated at one node",
}


def test_what_cannot_be_turned_round_says_so(pool: Pool) -> None:
    for text, words in WORDS.items():
        for found in pool.run(2, backwards, torch.arange(NODES) % 2, text):
            assert words in found, f"{text}: {found}"
