"""Bad calls: the same exceptions as torch_geometric's, with its words where they are its own and not torch's.

Not here: what torch_geometric refuses and gdsl takes, such as unsorted edges for an LSTM, CSC matrices with degree
norms and other kinds of graphs; and where an attribute of a wrong type is missed somewhere in its code, as with a pair
of inputs for a layer of one set of nodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gdsl
import gdsl.nn
from tests.parity.drop_in import EDGE, IN, NODES, RELATIONS, graph_of, mlp, pyg

EDGES: Any = graph_of("any", 1, False)
X, PAIR, SOURCE = torch.randn(NODES, IN), (torch.randn(NODES, IN), torch.randn(6, 3)), (torch.randn(NODES, IN), None)
STATIC = torch.randn(2, NODES, IN)
W, E = torch.rand(EDGES.shape[1]), torch.randn(EDGES.shape[1], EDGE)
KIND = torch.randint(RELATIONS, (EDGES.shape[1],))
DEG = torch.tensor([1, 2, 3])


def changed(row: int, value: int) -> Tensor:
    """The edges with one end somewhere else."""
    edges = EDGES.clone()
    edges[row, 3] = value
    return edges


@dataclass(frozen=True)
class Bad:
    """A constructor's arguments that are refused, or a call's that are, if there are some."""

    layer: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    call: tuple[Any, ...] | None = None
    given: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""

    @property
    def id(self) -> str:
        return " ".join(p for p in (self.layer, *self.kwargs, *self.given, self.note) if p)

    def outcome(self, library: Any) -> Exception | None:
        """What is raised."""
        torch.manual_seed(0)
        args = [a() if callable(a) else a for a in self.args]
        try:
            layer = getattr(library, self.layer)(*args, **self.kwargs)
            if self.call is not None:
                layer(*self.call, **self.given)
        except Exception as error:  # the test says which
            return error
        return None


CONSTRUCTORS = [
    *(Bad(name, args, {"aggr": "best"}) for name, args in {
        "GCNConv": (5, 4), "SAGEConv": (5, 4), "GINConv": (mlp(5, 4),), "EdgeConv": (mlp(10, 4),), "GATConv": (5, 4),
        "ChebConv": (5, 4, 2), "SimpleConv": (), "CGConv": (5,), "RGCNConv": (5, 4, 3),
    }.items()),
    *(Bad(name, args, {"flow": "backwards"}) for name, args in {
        "GCNConv": (5, 4), "SAGEConv": (5, 4), "TransformerConv": (5, 4), "LGConv": (), "PDNConv": (5, 4, 3, 6),
    }.items()),
    *(Bad(name, args, {"nothing": 1}) for name, args in {
        "GCNConv": (5, 4), "GATv2Conv": (5, 4), "GENConv": (5, 4), "HGTConv": (5, 4, (["a"], [("a", "b", "a")])),
    }.items()),
    Bad("GCNConv", (5,)),
    Bad("GCNConv", (5, 4), {"add_self_loops": True, "normalize": False}),
    Bad("SAGEConv", (-1, 4), {"project": True}),
    Bad("SAGEConv", (5, 4), {"aggr": "softmax", "aggr_kwargs": {"nothing": 1}}),
    Bad("SAGEConv", (5, 4), {"aggr": ["mean", "best"]}),
    Bad("SAGEConv", (5, 4), {"aggr": "softmax", "aggr_kwargs": {"learn": True, "semi_grad": True}}),
    Bad("SAGEConv", (5, 4), {"aggr": "quantile", "aggr_kwargs": {"q": 2.0}}),
    Bad("SAGEConv", (5, 4), {"aggr": "quantile", "aggr_kwargs": {"q": 0.5, "interpolation": "best"}}),
    Bad("SAGEConv", (5, 4), {"aggr": ["mean", "max"], "aggr_kwargs": {"mode": "proj"}}),
    Bad("SimpleConv", (), {"combine_root": "twice"}),
    Bad("ChebConv", (5, 4, 0)),
    Bad("ChebConv", (5, 4, -1)),
    Bad("ChebConv", (5, 4, 2), {"normalization": "left"}),
    Bad("AntiSymmetricConv", (5,), {"act": "no such"}),
    Bad("DNAConv", (6,), {"heads": 4}),
    Bad("DNAConv", (6,), {"groups": 4}),
    Bad("DNAConv", (12,), {"heads": 3, "groups": 2}),
    Bad("HypergraphConv", (5, 4), {"attention_mode": "both"}),
    Bad("GeneralConv", (5, 4), {"attention": True, "attention_type": "both"}),
    Bad("SuperGATConv", (5, 4), {"attention_type": "XX"}),
    Bad("SuperGATConv", (5, 4), {"neg_sample_ratio": 0.0}),
    Bad("SuperGATConv", (5, 4), {"edge_sample_ratio": 1.5}),
    Bad("GINEConv", (nn.ReLU,), {"edge_dim": 3}),
    Bad("GENConv", (5, 4), {"norm": "best"}),
    Bad("GENConv", (5, 4), {"aggr": "best"}),
    Bad("RGCNConv", (5, 4, 3), {"num_bases": 2, "num_blocks": 2}),
    Bad("RGCNConv", (5, 4, 3), {"num_blocks": 2}),
    Bad("RGATConv", (5, 4, 3), {"attention_mechanism": "both"}),
    Bad("RGATConv", (5, 4, 3), {"attention_mode": "both"}),
    Bad("RGATConv", (5, 4, 3), {"dim": 2, "attention_mode": "additive-self-attention"}),
    Bad("RGATConv", (5, 4, 3), {"mod": "additive", "dropout": 0.5}),
    Bad("RGATConv", (5, 4, 3), {"num_bases": 2, "num_blocks": 2}),
    Bad("RGATConv", (5, 4, 3), {"num_blocks": 2}),
    Bad("HGTConv", (5, 5, (["a"], [("a", "b", "a")])), {"heads": 2}),
    Bad("EGConv", (5, 9)),
    Bad("EGConv", (5, 8), {"aggregators": ["best"]}),
    Bad("PNAConv", (5, 4, ["mean"], ["identity"], DEG), {"towers": 3}),
    Bad("PNAConv", (5, 4, ["mean"], ["identity"], DEG), {"towers": 2, "divide_input": True}),
    Bad("PNAConv", (5, 4, ["best"], ["identity"], DEG)),
    Bad("PNAConv", (5, 4, ["mean"], ["identity"], DEG), {"act": "no such", "pre_layers": 2}),
    Bad("GPSConv", (4, None), {"attn_type": "no such"}),
    Bad("GPSConv", (4, None), {"act": "no such"}),
    Bad("GPSConv", (4, None), {"norm": "no such"}),
    Bad("GPSConv", (4, None), {"heads": 3}),
    Bad("Linear", (5, 4), {"weight_initializer": "best"}),
    Bad("Linear", (5, 4), {"bias_initializer": "best"}),
]  # fmt: skip

CALLS = [
    *(Bad(name, (5, 4), {}, (X, edges), note=note) for name in ("SAGEConv", "GraphConv", "GATv2Conv")
      for note, edges in {"source too large": changed(0, 50), "negative source": changed(0, -1)}.items()),
    *(Bad(name, args, {}, (X, edges), note=note) for name, args in {
        "SAGEConv": (5, 4), "GraphConv": (5, 4), "GINConv": (mlp(5, 4),),
    }.items() for note, edges in {
        "real edges": EDGES.float(), "one row": EDGES[0], "three rows": EDGES[[0, 1, 1]],
    }.items()),
    *(Bad(name, args, {}, (PAIR, EDGES), note="pair") for name, args in {
        "GCNConv": (5, 4), "AntiSymmetricConv": (5,),
    }.items()),
    *(Bad(name, args, {}, (STATIC, EDGES), note="static") for name, args in {
        "GATConv": (5, 4), "GATv2Conv": (5, 4),
    }.items()),
    *(Bad(name, args, {}, (torch.randn(NODES, IN + 1), EDGES), note="too many features") for name, args in {
        "GCNConv": (5, 4), "SAGEConv": (5, 4), "GATConv": (5, 4), "GINConv": (mlp(5, 4),), "TransformerConv": (5, 4),
        "EdgeConv": (mlp(10, 4),), "ARMAConv": (5, 4), "GENConv": (5, 4),
    }.items()),
    Bad("GCNConv", (5, 4), {}, (X,), note="no graph"),
    Bad("GCNConv", (5, 4), {}, (X, EDGES), {"edge_attr": E}),
    Bad("GraphConv", (5, 4), {}, (X, EDGES, W[:-2]), note="too few weights"),
    Bad("SAGEConv", (5, 4), {}, (X, EDGES, (NODES + 1, NODES)), note="size"),
    Bad("SAGEConv", ((5, 3), 4), {}, (PAIR, EDGES % 6, (NODES, 7)), note="size"),
    Bad("SAGEConv", (5, 4), {"aggr": ["mean", "max"], "aggr_kwargs": {"mode": "best"}}, (X, EDGES)),
    Bad("SimpleConv", (), {"combine_root": "self_loop"}, (PAIR, EDGES % 6)),
    Bad("GatedGraphConv", (4, 1), {}, (X, EDGES), note="too narrow"),
    Bad("GINEConv", (mlp(5, 4),), {}, (X, EDGES, E), note="other features of edges"),
    Bad("GENConv", (5, 4), {}, (X, EDGES, E), note="other features of edges"),
    Bad("ResGatedGraphConv", (5, 4), {"edge_dim": 3}, (X, EDGES)),
    Bad("ResGatedGraphConv", (5, 4), {}, (X, EDGES, E)),
    Bad("TransformerConv", (5, 4), {"edge_dim": 3}, (X, EDGES)),
    Bad("FAConv", (5,), {"normalize": False}, (X, X, EDGES)),
    Bad("HypergraphConv", (5, 4), {"use_attention": True}, (X, EDGES)),
    Bad("RGCNConv", (5, 4, 3), {}, (X, EDGES)),
    Bad("RGCNConv", (None, 4, 3), {"num_blocks": 1}, (None, EDGES, KIND)),
    Bad("RGCNConv", (6, 4, 3), {"num_blocks": 2}, (torch.arange(NODES) % 6, EDGES % 6, KIND)),
    Bad("FastRGCNConv", (5, 4, 3), {"aggr": "max"}, (X, EDGES, KIND)),
    Bad("RGATConv", (5, 4, 3), {}, (X, EDGES, KIND, E)),
    Bad("FiLMConv", (5, 4, 3), {}, (X, EDGES)),
    Bad("HEATConv", (5, 4, 2, 3, 2, 3, 2), {}, (X, EDGES)),
    Bad("WLConv", (), {}, (torch.rand(NODES, 2), EDGES)),
    Bad("WLConv", (), {}, (torch.rand(NODES), EDGES)),
    Bad("HeteroConv", ({("a", "to", "a"): gdsl.nn.SAGEConv(5, 4)},), {}, ({"a": X},), {"edge_index": EDGES}),
]  # fmt: skip

# Whatever is raised by torch, or by Python, in a line of torch_geometric: other lines here, and other words.
NOT_ITS_OWN = (
    "mat1 and mat2", "size of tensor", "shape '", "index_select", "unsupported operand", "must be Tensor",
    "Sizes of tensors", "NoneType", "subscriptable", "must match", "Expected size", "unexpected keyword",
)  # fmt: skip


def same(bad: Bad) -> None:
    """Fails where ours raises something else."""
    theirs, ours = bad.outcome(pyg), bad.outcome(gdsl.nn)
    assert theirs is not None, "torch_geometric takes it"
    assert isinstance(ours, type(theirs)), f"{ours!r}, not {theirs!r}"
    words = str(theirs).partition(" among choices")[0]  # a set, in any order
    if not any(part in words for part in NOT_ITS_OWN):
        assert words in str(ours), f"{str(ours)[:300]}\nnot\n{words[:300]}"


@pytest.mark.parametrize("bad", CONSTRUCTORS, ids=[b.id for b in CONSTRUCTORS])
def test_constructors(bad: Bad) -> None:
    same(bad)


@pytest.mark.parametrize("bad", CALLS, ids=[b.id for b in CALLS])
def test_calls(bad: Bad) -> None:
    same(bad)


def test_what_torch_geometric_misses() -> None:
    with pytest.raises(ValueError, match="a name, a list of names or a module, not a int"):
        gdsl.nn.GCNConv(5, 4, aggr=3)
    with pytest.raises(ValueError, match="does not support bipartite message passing"):
        gdsl.nn.SGConv(5, 4)(PAIR, EDGES)
    with pytest.raises(ValueError, match="must be an integer tensor"):
        gdsl.nn.SAGEConv(5, 4)(X, "edges")
    for kind in (ValueError, RuntimeError):
        with pytest.raises(kind, match="`edge_weight` has 21 rows, and the graph has 23 edges"):
            gdsl.nn.GCNConv(5, 4)(X, EDGES, W[:-2])


@pytest.mark.parametrize("name", ["GCNConv", "GATConv", "SAGEConv", "GATv2Conv", "GraphConv", "TAGConv"])
def test_arrays_are_no_tensors(name: str) -> None:
    layer = getattr(gdsl.nn, name)(IN, 4)
    for given, said in ((X.numpy(), "x"), ([X.numpy(), X.numpy()], "x"), ((X, X.numpy()), "x")):
        if isinstance(given, tuple | list) and name in ("GCNConv", "TAGConv"):
            continue
        with pytest.raises(gdsl.InputError, match=f"`{said}` must be a tensor, not an array: pass torch.from_numpy"):
            layer(given, EDGES)
    with pytest.raises(gdsl.InputError, match=r"`x` must be a tensor, not an array"):
        layer(x=X.numpy(), edge_index=EDGES)
    with pytest.raises(gdsl.GraphError, match=r"not a ndarray; pass torch\.from_numpy"):
        layer(X, EDGES.numpy())
    if name in ("GCNConv", "GraphConv", "TAGConv"):
        with pytest.raises(gdsl.InputError, match=r"`edge_weight` must be a tensor, not an array"):
            layer(X, EDGES, W.numpy())


@pytest.mark.filterwarnings("ignore:Sparse")
def test_hyperedges_are_no_graph() -> None:
    layer = gdsl.nn.HypergraphConv(IN, 4)
    square = torch.sparse_coo_tensor(EDGES, torch.ones(EDGES.shape[1]), (NODES, NODES), check_invariants=False)
    kinds = {"Graph": gdsl.Graph(EDGES, num_nodes=NODES), "sparse tensor": square, "ndarray": EDGES.numpy()}
    for kind, given in kinds.items():
        with pytest.raises(gdsl.GraphError, match=rf"'hyperedge_index' must be .* tensor \[2, I\] .* not a {kind}"):
            layer(X, given)
    assert layer(X, EDGES).shape == (NODES, 4)
