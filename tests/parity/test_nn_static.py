"""Static graphs: many signals on one graph, [*, N, F], for all layers where torch_geometric has them.

Those are its layers with ``node_dim=-2``, but for some whose message takes the first dim for the edges, and options
that take the number of signals for that of the nodes, as SimpleConv's "self_loop".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch

import gdsl.nn
from gdsl.nn import GCNConv
from tests.parity.drop_in import EDGE, IN, KINDS, NODES, TARGETS, Case, compare, floats, graph_of, mlp, pyg, single

W = {"edge_weight": "w"}
NODES_FIRST = {"node_dim": 0}

KINDS["static"] = KINDS["x3"]
KINDS["static 2 x 3"] = floats(2, 3, NODES, IN)
KINDS["nodes first"] = floats(NODES, 3, IN)
KINDS["static pair"] = lambda g, e: (floats(3, NODES, IN)(g, e), floats(3, TARGETS, 3)(g, e))
KINDS["static equal pair"] = lambda g, e: (floats(3, NODES, IN)(g, e), floats(3, TARGETS, IN)(g, e))
KINDS["static source pair"] = lambda g, e: (floats(3, NODES, IN)(g, e), floats(TARGETS, 3)(g, e))
KINDS["static source"] = lambda g, e: (floats(3, NODES, IN)(g, e), None)
KINDS["static halves"] = floats(3, NODES, 2 * IN)
KINDS["enemies"] = lambda g, e: torch.randint(NODES, (2, 12), generator=g)
KINDS["static e5"] = lambda g, e: floats(3, e, IN)(g, e)

CASES = [
    Case("GCNConv", (5, 4), x="static", call=W, options={"normalize": [False], "aggr": ["max"]}),
    Case("GCNConv", (5, 4), x="static 2 x 3"),
    Case("SAGEConv", (5, 4), x="static", options={"aggr": ["max", ["mean", "max"]], "normalize": [True]}),
    Case("SAGEConv", ((5, 3), 4), x="static pair"),
    Case("SAGEConv", ((5, 3), 4), x="static source pair"),
    Case("SAGEConv", (5, 4), x="static source"),
    Case("SAGEConv", (5, 4), NODES_FIRST, x="nodes first", options={"aggr": ["max"]}),
    Case("GraphConv", (5, 4), x="static", call=W, options={"aggr": ["mean"], "flow": ["target_to_source"]}),
    Case("GraphConv", ((5, 3), 4), x="static pair"),
    Case("GraphConv", (5, 4), NODES_FIRST, x="nodes first"),
    Case("LEConv", (5, 4), x="static", call=W),
    Case("LEConv", ((5, 3), 4), x="static pair"),
    Case("SimpleConv", (), x="static", call=W, options={"combine_root": ["sum", "cat"]}),
    Case("MFConv", (5, 4), {"max_degree": 3}, x="static"),
    Case("MFConv", ((5, 3), 4), {"max_degree": 2}, x="static pair"),
    Case("SignedConv", (5, 4, True), x="static", call={"neg_edge_index": "enemies"}),
    Case("SignedConv", (5, 4, False), x="static halves", call={"neg_edge_index": "enemies"}),
    Case("AntiSymmetricConv", (5,), x="static"),
    Case("SGConv", (5, 4, 2), x="static", call=W, options={"cached": [True]}),
    Case("SSGConv", (5, 4, 0.1, 2), x="static", call=W),
    Case("TAGConv", (5, 4), x="static", call=W, options={"normalize": [False]}),
    Case("APPNP", (3, 0.2), x="static", call=W, options={"normalize": [False]}),
    Case("LGConv", (), x="static", call=W),
    Case("ChebConv", (5, 4, 3), x="static", call=W, options={"normalization": [None, "rw"]}),
    Case("ChebConv", (5, 4, 2), x="static", call={"batch": "batch", "lambda_max": "lambdas"}),
    Case("ARMAConv", (5, 4, 2, 3), x="static", call=W, options={"shared_weights": [True]}),
    Case("ClusterGCNConv", (5, 4), {"diag_lambda": 0.5}, x="static", exact=1e-6),
    Case("MixHopConv", (5, 4), x="static", call=W),
    Case("GINConv", (mlp(5, 6, 4),), x="static", options={"train_eps": [True]}),
    Case("GINConv", (mlp(5, 4),), x="static equal pair"),
    Case("GINEConv", (mlp(5, 6, 4),), x="static", call={"edge_attr": "e5"}),
    Case("GINEConv", (mlp(5, 6, 4),), x="static", call={"edge_attr": "static e5"}),
    Case("GINEConv", (mlp(5, 4),), {"edge_dim": EDGE}, x="static equal pair", call={"edge_attr": "e"}),
    Case("EdgeConv", (mlp(10, 4),), x="static", options={"aggr": ["mean"]}),
    Case("EdgeConv", (mlp(10, 4),), x="static equal pair"),
    Case("CGConv", (5,), x="static"),
    Case("ResGatedGraphConv", (5, 4), x="static"),
    Case("ResGatedGraphConv", ((5, 3), 4), x="static pair"),
    Case("GENConv", (5, 4), {"norm": None}, x="static", options={"aggr": ["powermean", "max"], "msg_norm": [True]}),
    Case("GENConv", (5, 4), {"norm": None, "edge_dim": EDGE}, x="static", call={"edge_attr": "e"}),
    Case("GENConv", ((5, 3), 4), {"norm": "layer"}, x="static pair"),
    Case("FiLMConv", (5, 4, 3), x="static", call={"edge_type": "rel"}),
    Case("FiLMConv", ((5, 3), 4), x="static pair"),
    Case("PDNConv", (5, 4, EDGE, 6), x="static", call={"edge_attr": "e"}),
]  # fmt: skip

# The programs are those of plain calls, whose kernels have tests of their own; what is new is how they are called.
COMPILED = ("GCNConv", "SAGEConv")


@pytest.mark.parametrize(
    ("case", "options"),
    [pytest.param(case, options, id=f"{case.id} {options}") for case in CASES for options in single(case)],
)
def test_each_option(case: Case, options: Mapping[str, Any]) -> None:
    compare(case, options, "torch", (1,))


@pytest.mark.parametrize(
    "case",
    [pytest.param(c, id=c.id, marks=[] if c.layer in COMPILED else pytest.mark.slow) for c in CASES],
)
def test_generated_code(case: Case) -> None:
    compare(case, {}, "cpp", (1,))


@pytest.mark.slow
@pytest.mark.parametrize("case", [pytest.param(case, id=case.id) for case in CASES])
def test_interpreted_gpu_kernels(case: Case) -> None:
    compare(case, {}, "triton", (1,))


@pytest.mark.parametrize(("node_dim", "shape"), [(1, (2, NODES, IN)), (1, (2, NODES, 3, IN)), (-3, (NODES, 2, IN))])
@pytest.mark.parametrize("layer", ["SAGEConv", "GraphConv", "SimpleConv", "CGConv", "GCNConv"])
def test_nodes_along_any_dimension(layer: str, node_dim: int, shape: tuple[int, ...]) -> None:
    graph = graph_of("any", 1, False)
    sizes = {"SimpleConv": (), "CGConv": (IN,)}.get(layer, (IN, 4))
    ours, theirs = (getattr(lib, layer)(*sizes, node_dim=node_dim).double() for lib in (gdsl.nn, pyg))
    ours.backend = "torch"
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    if layer == "GCNConv" and shape != (2, NODES, IN):  # weights of edges and features do not fit there
        with pytest.raises(RuntimeError, match="must match the size"):
            theirs(x, graph)
        place = node_dim % len(shape)
        expected = gdsl.nn.GCNConv(IN, 4, backend="torch").double()
        expected.load_state_dict(theirs.state_dict())
        y = expected(x.movedim(place, -2), graph).movedim(-2, place)
    else:
        y = theirs(x, graph)
    found = ours(x, graph)
    assert found.shape == y.shape and torch.allclose(found, y, atol=1e-10)
    weights = torch.arange(y.numel(), dtype=torch.float64).view_as(y).sin()
    (a,), (b,) = (torch.autograd.grad((out * weights).sum(), x) for out in (found, y))
    assert torch.allclose(a, b, atol=1e-10)


def test_whole_numbers_with_nodes_in_the_middle() -> None:
    graph = graph_of("any", 1, False)
    x, weight = torch.randint(9, (2, NODES, 3, IN)), torch.randint(5, (graph.shape[1],))
    for layer in (gdsl.nn.SimpleConv, pyg.SimpleConv):
        conv = layer(node_dim=1)
        found = conv(x, graph)
        expected = torch.zeros_like(x).index_add(1, graph[1], x.index_select(1, graph[0]))
        assert torch.equal(found, expected)
    found = gdsl.nn.SimpleConv(node_dim=1)(x, graph, weight)
    messages = x.index_select(1, graph[0]) * weight[:, None, None]
    assert torch.equal(found, torch.zeros_like(x).index_add(1, graph[1], messages))


def test_where_nodes_do_not_lie() -> None:
    with pytest.raises(ValueError, match="nodes lie along a dimension before that of the features, not -1"):
        GCNConv(IN, 4, node_dim=-1)
    for node_dim in (1, -3):
        with pytest.raises(ValueError, match=f"with node_dim={node_dim} features have more dimensions than two"):
            GCNConv(IN, 4, node_dim=node_dim)(torch.randn(NODES, IN), graph_of("any", 1, False))


def test_under_torch_compile() -> None:
    graph = graph_of("any", 1, False)
    x = torch.randn(2, 3, NODES, IN)
    layer = GCNConv(IN, 4)
    traced = torch.compile(layer, backend="eager", fullgraph=True)
    assert torch.allclose(traced(x, graph), layer(x, graph), atol=1e-6)
