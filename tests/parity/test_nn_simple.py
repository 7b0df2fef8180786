"""Layers with plain sums, and layers made of others, as drop-ins."""

from __future__ import annotations

import pytest
import scipy.sparse
import torch
from torch import nn

import gdsl.nn
from gdsl.nn import AntiSymmetricConv, DirGNNConv, GCNConv, SAGEConv, WLConv
from tests.parity.drop_in import KINDS, NODES, Case, graph_of, make_tests, outcome, pyg
from tests.programs import harness

W = {"edge_weight": "w"}
FLOW = {"flow": ["target_to_source"]}

KINDS["halves"] = lambda g, e: torch.randn(NODES, 10, generator=g, dtype=torch.float64)
KINDS["foes"] = lambda g, e: torch.randint(NODES, (2, 12), generator=g)
KINDS["x4"] = lambda g, e: torch.randn(NODES, 4, generator=g, dtype=torch.float64)

CASES = [
    Case(
        "GraphConv", (5, 4), call=W, options={"aggr": ["mean", "max"], "bias": [False], **FLOW},
        compiled={"aggr": "max"},
    ),
    Case("GraphConv", ((5, 3), 4), x="pair"),
    Case("GraphConv", (5, 4), x="source"),
    Case("LEConv", (5, 4), call=W, options={"bias": [False], "aggr": ["max"], **FLOW}),
    Case("LEConv", ((5, 3), 4), x="pair"),
    Case(
        "SimpleConv", (), call=W, compiled={"combine_root": "cat", "aggr": "mean"},
        options={"aggr": ["mean", "max", ["mean", "min"]], "combine_root": ["sum", "cat", "self_loop", "none"]},
    ),
    Case("SimpleConv", (), x="equal pair", options={"combine_root": ["sum", "cat", "self_loop"]}),
    Case("SimpleConv", (), x="source", options={"combine_root": ["sum"]}),
    Case("GatedGraphConv", (6, 2), call=W, options={"aggr": ["mean"], "bias": [False]}),
    Case("GatedGraphConv", (5, 1)),
    Case("GatedGraphConv", (4, 1), note="refused"),
    Case("MFConv", (5, 4), {"max_degree": 3}, options={"bias": [False], "aggr": ["mean"]}),
    Case("MFConv", ((5, 3), 4), {"max_degree": 2}, x="pair"),
    Case("SignedConv", (5, 4, True), call={"neg_edge_index": "foes"}, options={"bias": [False], "aggr": ["max"]}),
    Case("SignedConv", (5, 4, False), x="halves", call={"neg_edge_index": "foes"}, options={"bias": [False]}),
    Case("WLConvContinuous", (), call=W),
    Case("WLConvContinuous", (), x="equal pair"),
    Case("WLConvContinuous", (), x="source"),
    Case(
        "AntiSymmetricConv", (5,),
        options={
            "num_iters": [3], "epsilon": [0.5], "gamma": [0.3], "act": [None, "relu", "LeakyReLU"], "bias": [False],
        },
    ),
]  # fmt: skip

globals().update(make_tests(CASES))


@pytest.mark.parametrize("name", ["GCNConv", "SAGEConv"])
def test_directions_of_edges(name: str) -> None:
    torch.manual_seed(0)
    ours = DirGNNConv(getattr(gdsl.nn, name)(5, 4), alpha=0.3).double()
    theirs = pyg.DirGNNConv(getattr(pyg, name)(5, 4), alpha=0.3).double()
    ours.load_state_dict(theirs.state_dict())
    for layer in (ours, theirs):
        torch.manual_seed(1)
        layer.reset_parameters()
    assert all(torch.equal(value, ours.state_dict()[name]) for name, value in theirs.state_dict().items())
    assert repr(ours) == repr(theirs)
    graph = graph_of("any", 1, False)
    x = torch.randn(NODES, 5, dtype=torch.float64)
    expected = outcome(theirs, (x,), graph, {})
    for part, value in outcome(ours, (x,), graph, {}).items():
        assert harness.difference([value], [expected[part]]) < 1e-9, part
    edges = graph_of("loop-free", 1, False).unique(dim=1)
    ones = torch.ones(edges.shape[1], dtype=torch.float64)
    matrix = torch.sparse_coo_tensor(edges.flip(0), ones, (NODES, NODES))
    of_scipy = scipy.sparse.coo_matrix((ones.numpy(), edges.numpy()), shape=(NODES, NODES))  # whose rows are sources
    for same in (matrix, matrix.to_sparse_csr(), of_scipy, gdsl.Graph(edges, NODES)):
        assert harness.difference([ours(x, same)], [ours(x, edges)]) < 1e-9, type(same)


def test_anti_symmetric_around_another_layer() -> None:
    layer = AntiSymmetricConv(5, SAGEConv(5, 5, bias=False))
    assert layer(torch.randn(NODES, 5), graph_of("any", 1, False)).shape == (NODES, 5)
    with pytest.raises(ValueError, match="Could not resolve"):
        AntiSymmetricConv(5, act="no such function")


def test_colours() -> None:
    ours, theirs = WLConv(), pyg.WLConv()
    graph = graph_of("any", 1, False)
    x = torch.randint(3, (NODES,), generator=torch.Generator().manual_seed(0))
    for _ in range(3):
        a, b = ours(x, graph), theirs(x, graph)
        assert torch.equal(a, b)
        batch = torch.arange(NODES) // 4
        for norm in (False, True):
            assert torch.equal(ours.histogram(a, batch, norm), theirs.histogram(b, batch, norm))
        x = a
    assert torch.equal(ours(nn.functional.one_hot(x), graph), theirs(nn.functional.one_hot(x), graph))
    ours.reset_parameters()
    assert not ours.hashmap


def test_lazy_sizes() -> None:
    graph = graph_of("any", 1, False)
    x = torch.randn(NODES, 5)
    for name in ("GraphConv", "LEConv", "MFConv"):
        assert getattr(gdsl.nn, name)(-1, 4)(x, graph).shape == (NODES, 4)
    assert GCNConv(-1, 4)(x, graph).shape == (NODES, 4)
