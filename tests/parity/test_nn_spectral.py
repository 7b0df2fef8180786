"""Filters of the graph's spectrum as drop-ins."""

from __future__ import annotations

import torch
from torch import nn

from gdsl.nn import APPNP, ARMAConv, ChebConv, ClusterGCNConv, GCNConv, SGConv, TAGConv
from tests.parity.drop_in import NODES, Case, graph_of, make_tests

W = {"edge_weight": "w"}
NORM = {"add_self_loops": [False], "bias": [False], "flow": ["target_to_source"], "aggr": ["max"]}
CHEB = {"normalization": [None, "rw"], "bias": [False], "flow": ["target_to_source"]}

CASES = [
    Case("SGConv", (5, 4), options={**NORM, "K": [3], "cached": [True]}, call=W, compiled={"K": 2}),
    Case("SSGConv", (5, 4, 0.1), options={**NORM, "K": [3], "cached": [True]}, call=W, compiled={"K": 2}),
    Case(
        "TAGConv", (5, 4), call=W, compiled={"normalize": False, "K": 2},
        options={"K": [0, 1], "bias": [False], "normalize": [False], "flow": ["target_to_source"], "aggr": ["mean"]},
    ),
    Case("TAGConv", (5, 4)),
    Case(
        "APPNP", (3, 0.2), call=W, compiled={"normalize": False},
        options={
            "dropout": [0.5], "cached": [True], "add_self_loops": [False], "normalize": [False], "aggr": ["mean"],
        },
    ),
    Case("APPNP", (2, 0.1)),
    Case("LGConv", (), call=W, options={"normalize": [False], "flow": ["target_to_source"]}),
    Case("ChebConv", (5, 4, 3), call=W, options=CHEB, compiled={"normalization": "rw"}),
    Case("ChebConv", (5, 4, 1), options=CHEB),
    Case("ChebConv", (5, 4, 2), call={"lambda_max": "lambda"}, options=CHEB),
    Case("ChebConv", (5, 4, 4), call={"edge_weight": "w", "batch": "batch", "lambda_max": "lambdas"}, options=CHEB),
    Case(
        "ARMAConv", (5, 4), call=W, compiled={"num_stacks": 2, "num_layers": 3},
        options={
            "num_stacks": [2], "num_layers": [3], "shared_weights": [True], "act": [None, nn.Tanh, lambda: torch.tanh],
            "dropout": [0.5], "bias": [False], "flow": ["target_to_source"],
        },
    ),
    Case("ARMAConv", (5, 4, 2, 2), options={"shared_weights": [True], "bias": [False]}),
    Case(
        "ClusterGCNConv", (5, 4), {"diag_lambda": 0.5}, compiled={"aggr": "max"},
        options={"diag_lambda": [0.0], "bias": [False], "aggr": ["max"]},
        exact=1e-6,  # torch_geometric counts degrees in float32
    ),
    Case(
        "GCN2Conv", (5, 0.3), then=("x",), call=W, compiled={"shared_weights": False, "theta": 0.5, "layer": 2},
        options={
            "theta": [0.5], "layer": [2], "shared_weights": [False], "cached": [True], "add_self_loops": [False],
            "normalize": [False],
        },
    ),
    Case("GCN2Conv", (5, 0.1, 0.5, 1), then=("x",)),
    Case(
        "MixHopConv", (5, 4), call=W, compiled={"powers": [1, 3]},
        options={"powers": [[1, 3], [2, 0], [0]], "add_self_loops": [False], "bias": [False]},
    ),
]  # fmt: skip

globals().update(make_tests(CASES))


def test_lazy_sizes() -> None:
    graph = graph_of("any", 1, False)
    x = torch.randn(NODES, 5)
    for layer in (SGConv(-1, 4), TAGConv(-1, 4), ChebConv(-1, 4, 2), ARMAConv(-1, 4, 2, 2), GCNConv(-1, 4)):
        assert layer(x, graph).shape == (NODES, 4)
        assert all(p.shape.numel() for p in layer.parameters())


def test_cached_results_are_kept_until_a_reset() -> None:
    graph = graph_of("any", 1, False)
    x = torch.randn(NODES, 5)
    other = torch.zeros(2, 0, dtype=torch.long)
    for layer in (SGConv(5, 4, cached=True), GCNConv(5, 4, cached=True), APPNP(2, 0.1, cached=True)):
        y = layer(x, graph)
        assert torch.equal(layer(x, other), y)
        layer.reset_parameters()
        assert layer(x, other).shape == y.shape
        assert not torch.equal(layer(x, other), y)


def test_edges_are_dropped_in_training() -> None:
    graph = graph_of("any", 1, False)
    layer = APPNP(3, 0.1, dropout=0.5)
    x = torch.ones(NODES, 2)
    assert not torch.equal(layer(x, graph), layer(x, graph))
    assert torch.equal(layer.eval()(x, graph), layer(x, graph))


def test_a_double_cluster_layer_divides_by_double_degrees() -> None:
    """findings/degrees-of-another-precision.sh"""
    layer = ClusterGCNConv(1, 1, diag_lambda=0.0, bias=False).double()
    with torch.no_grad():
        layer.lin_out.weight.fill_(1.0)
        layer.lin_root.weight.fill_(0.0)
        y = layer(torch.tensor([[1.0], [2.0], [4.0]], dtype=torch.float64), torch.tensor([[1, 2], [0, 0]]))
    assert abs(float(y[0]) - 7 / 3) < 1e-15


def test_the_last_of_several_loops_has_the_gradient_alone() -> None:
    edges = torch.tensor([[0, 1, 0, 0], [1, 0, 0, 0]])
    weight = torch.rand(4, dtype=torch.float64, requires_grad=True)
    x = torch.randn(2, 3, dtype=torch.float64)
    conv = GCNConv(3, 2).double()
    assert torch.autograd.gradcheck(lambda w: conv(x, edges, w), weight)
    assert torch.autograd.grad(conv(x, edges, weight).sum(), weight)[0][2] == 0
