"""The calls of torch_geometric's layers that ``library.py`` measures: a constructor and the kinds of its inputs.

Most layers stand here once, as people use them; again where an option makes another program of one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

F, EDGE, HEADS, RELATIONS = 64, 16, 4, 4


@dataclass(frozen=True)
class Call:
    """A call of a layer.

    layer   the class, of gdsl.nn and of torch_geometric.nn
    args    of the constructor, as ``kwargs`` are; a callable makes a module afresh, for each of the two
    first   kinds of the inputs before the graph: see ``KINDS``
    then    kinds of the inputs after the graph, by keyword
    graph   "any", "sorted" by target, "two" of half the edges each, "mesh" (four edges into each node), "hetero"
    """

    layer: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    first: tuple[str, ...] = ("x",)
    then: Mapping[str, str] = field(default_factory=dict)
    graph: str = "any"


def mlp(*sizes: int) -> Callable[[], nn.Module]:
    """A maker of Linear layers of these sizes, with ReLU between them."""

    def make() -> nn.Module:
        parts = [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())]
        return nn.Sequential(*parts[:-1])

    return make


AGGREGATORS = ["mean", "min", "max", "std"]
PNA = (F, F, AGGREGATORS, ["identity", "amplification", "attenuation"], torch.tensor([1, 2, 3, 4]))
NODE_TYPES = ("a", "b")
EDGE_TYPES = (("a", "to", "b"), ("b", "to", "a"))
HETERO = (F, F, (list(NODE_TYPES), list(EDGE_TYPES)), HEADS)
ATTENTION = (F, F // HEADS)
ATTRIBUTES = {"heads": HEADS, "edge_dim": EDGE}
E, E4, REL, UNIT = {"edge_attr": "e"}, {"edge_attr": "e4"}, {"edge_type": "rel"}, {"edge_attr": "unit"}
POINTS = ("x", "pos")

CALLS: dict[str, Call] = {
    "GCNConv": Call("GCNConv", (F, F)),
    "GCNConv, weights": Call("GCNConv", (F, F), then={"edge_weight": "w"}),
    "SAGEConv": Call("SAGEConv", (F, F)),
    "SAGEConv, max": Call("SAGEConv", (F, F), {"aggr": "max"}),
    "SAGEConv, lstm": Call("SAGEConv", (F, F), {"aggr": "lstm"}, graph="sorted"),
    "GraphConv": Call("GraphConv", (F, F)),
    "GraphConv, weights": Call("GraphConv", (F, F), then={"edge_weight": "w"}),
    "LEConv": Call("LEConv", (F, F)),
    "SimpleConv": Call("SimpleConv"),
    "SignedConv": Call("SignedConv", (F, F, True), graph="two"),
    "MFConv": Call("MFConv", (F, F)),
    "ClusterGCNConv": Call("ClusterGCNConv", (F, F)),
    "GCN2Conv": Call("GCN2Conv", (F, 0.1, 0.5, 1), first=("x", "x")),
    "LGConv": Call("LGConv"),
    "SGConv": Call("SGConv", (F, F), {"K": 2}),
    "SSGConv": Call("SSGConv", (F, F, 0.1), {"K": 3}),
    "TAGConv": Call("TAGConv", (F, F)),
    "ChebConv": Call("ChebConv", (F, F, 3)),
    "ARMAConv": Call("ARMAConv", (F, F), {"num_stacks": 2, "num_layers": 2}),
    "MixHopConv": Call("MixHopConv", (F, F)),
    "APPNP": Call("APPNP", (10, 0.1)),
    "AntiSymmetricConv": Call("AntiSymmetricConv", (F,)),
    "GatedGraphConv": Call("GatedGraphConv", (F, 3)),
    "GATConv": Call("GATConv", ATTENTION, {"heads": HEADS}),
    "GATConv, edges": Call("GATConv", ATTENTION, ATTRIBUTES, then=E),
    "GATv2Conv": Call("GATv2Conv", ATTENTION, {"heads": HEADS}),
    "GATv2Conv, edges": Call("GATv2Conv", ATTENTION, ATTRIBUTES, then=E),
    "SuperGATConv": Call("SuperGATConv", ATTENTION, {"heads": HEADS}),
    "TransformerConv": Call("TransformerConv", ATTENTION, {"heads": HEADS}),
    "TransformerConv, edges": Call("TransformerConv", ATTENTION, ATTRIBUTES, then=E),
    "AGNNConv": Call("AGNNConv"),
    "FAConv": Call("FAConv", (F,), first=("x", "x")),
    "FeaStConv": Call("FeaStConv", (F, F), {"heads": HEADS}),
    "GeneralConv": Call("GeneralConv", (F, F)),
    "GeneralConv, attention": Call("GeneralConv", (F, F), {"attention": True, "heads": HEADS}),
    "DNAConv": Call("DNAConv", (F,), {"heads": HEADS}, first=("layers",)),
    "HypergraphConv": Call("HypergraphConv", (F, F)),
    "GINConv": Call("GINConv", (mlp(F, F, F),)),
    "GINEConv": Call("GINEConv", (mlp(F, F, F),), {"edge_dim": EDGE}, then=E),
    "EdgeConv": Call("EdgeConv", (mlp(2 * F, F, F),)),
    "NNConv": Call("NNConv", (F // 4, F // 4, mlp(4, F * F // 16)), first=("narrow",), then=E4),
    "CGConv": Call("CGConv", (F, EDGE), then=E),
    "CGConv, batch norm": Call("CGConv", (F, EDGE), {"batch_norm": True}, then=E),
    "ResGatedGraphConv": Call("ResGatedGraphConv", (F, F)),
    "ResGatedGraphConv, edges": Call("ResGatedGraphConv", (F, F), {"edge_dim": EDGE}, then=E),
    "GENConv": Call("GENConv", (F, F)),
    "GENConv, power": Call("GENConv", (F, F), {"aggr": "power", "learn_p": True}),
    "GENConv, edges": Call("GENConv", (F, F), {"edge_dim": EDGE}, then=E),
    "PNAConv": Call("PNAConv", PNA, {"towers": 4, "divide_input": True}),
    "PNAConv, edges": Call("PNAConv", PNA, {"towers": 4, "divide_input": True, "edge_dim": EDGE}, then=E),
    "EGConv": Call("EGConv", (F, F)),
    "EGConv, three": Call("EGConv", (F, F), {"aggregators": ["symnorm", "max", "std"]}),
    "PDNConv": Call("PDNConv", (F, F, EDGE, F), then=E),
    "PointNetConv": Call("PointNetConv", (mlp(F + 3, F, F), mlp(F, F)), first=POINTS),
    "PPFConv": Call("PPFConv", (mlp(F + 4, F, F), mlp(F, F)), first=(*POINTS, "normal")),
    "PointTransformerConv": Call("PointTransformerConv", (F, F), first=POINTS),
    "PointGNNConv": Call("PointGNNConv", (mlp(F, F, 3), mlp(F + 3, F, F), mlp(F, F)), first=POINTS),
    "GMMConv": Call("GMMConv", (F, F, 2, HEADS), then=UNIT),
    "MeshCNNConv": Call("MeshCNNConv", (F, F), graph="mesh"),
    "RGCNConv": Call("RGCNConv", (F, F, RELATIONS), then=REL),
    "RGCNConv, bases": Call("RGCNConv", (F, F, RELATIONS), {"num_bases": 2}, then=REL),
    "RGCNConv, blocks": Call("RGCNConv", (F, F, RELATIONS), {"num_blocks": 4}, then=REL),
    "RGATConv": Call("RGATConv", (F, F // HEADS, RELATIONS), {"heads": HEADS}, then=REL),
    "FiLMConv": Call("FiLMConv", (F, F)),
    "FiLMConv, relations": Call("FiLMConv", (F, F, RELATIONS), then=REL),
    "HEATConv": Call(
        "HEATConv",
        (F, F, 3, RELATIONS, 8, EDGE, EDGE),
        {"heads": HEADS},
        then={"node_type": "type", "edge_type": "rel", "edge_attr": "e"},
    ),
    "HGTConv": Call("HGTConv", HETERO, first=("by type",), graph="hetero"),
    "HANConv": Call("HANConv", HETERO, first=("by type",), graph="hetero"),
}


def draw(kind: str, nodes: int, edges: int, random: torch.Generator) -> Any:
    """An input of a kind."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random)

    def by_type() -> dict[str, Tensor]:
        return {name: normal(count, F) for name, count in zip(NODE_TYPES, halves(nodes), strict=True)}

    kinds: dict[str, Callable[[], Any]] = {
        "x": lambda: normal(nodes, F),
        "narrow": lambda: normal(nodes, F // 4),
        "layers": lambda: normal(nodes, 3, F),
        "by type": by_type,
        "pos": lambda: normal(nodes, 3),
        "normal": lambda: nn.functional.normalize(normal(nodes, 3), dim=1),
        "w": lambda: torch.rand(edges, generator=random) + 0.1,
        "e": lambda: normal(edges, EDGE),
        "e4": lambda: normal(edges, 4),
        "unit": lambda: torch.rand(edges, 2, generator=random),
        "rel": lambda: torch.randint(RELATIONS, (edges,), generator=random),
        "type": lambda: torch.randint(3, (nodes,), generator=random),
    }
    return kinds[kind]()


def halves(nodes: int) -> tuple[int, int]:
    """How many nodes the two types have."""
    return nodes // 2, nodes - nodes // 2


def graphs_for(kind: str, edge_index: Tensor, nodes: int, random: torch.Generator) -> tuple[Any, ...]:
    """The arguments of a call that are the graph."""
    if kind == "sorted":
        return (edge_index[:, edge_index[1].argsort(stable=True)],)
    if kind == "two":
        return edge_index[:, ::2].contiguous(), edge_index[:, 1::2].contiguous()
    if kind == "mesh":
        source = torch.randint(nodes, (4 * nodes,), generator=random)
        return (torch.stack([source, torch.arange(nodes).repeat_interleave(4)]),)
    if kind == "hetero":
        sizes = halves(nodes)
        found = {}
        for k, name in enumerate(EDGE_TYPES):
            part = edge_index[:, k::2]
            ends = [part[0] % sizes[k], part[1] % sizes[1 - k]]
            found[name] = torch.stack(ends)
        return (found,)
    return (edge_index,)
