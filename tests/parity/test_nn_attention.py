"""Layers with attention as drop-ins."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn

import gdsl.nn
from gdsl.module.run import recording_runs
from tests.parity import drop_in
from tests.parity.drop_in import Case, make_tests, pyg
from tests.programs import harness

HYPEREDGES = 4


def _incidence(g: torch.Generator, edges: int) -> torch.Tensor:
    """Nodes and hyperedges; the last node is in none."""
    nodes = torch.randint(drop_in.NODES - 1, (14,), generator=g)
    return torch.stack([nodes, torch.randint(HYPEREDGES, (14,), generator=g)])


drop_in.KINDS["layers of 4"] = drop_in.floats(drop_in.NODES, 3, 4)
drop_in.KINDS["incidence"] = _incidence
drop_in.KINDS["hyperedge weights"] = lambda g, e: torch.rand(HYPEREDGES, generator=g, dtype=torch.float64) + 0.1
drop_in.KINDS["hyperedges"] = drop_in.floats(HYPEREDGES, drop_in.IN)
drop_in.KINDS["false"] = lambda g, e: False

BACK = ["target_to_source"]
GATV2 = {
    "heads": [2], "concat": [False], "negative_slope": [0.1], "add_self_loops": [False], "bias": [False],
    "share_weights": [True], "residual": [True],
}  # fmt: skip
TRANSFORMER = {
    "heads": [2], "concat": [False], "beta": [True], "bias": [False], "root_weight": [False],
}  # fmt: skip
GENERAL = {
    "aggr": ["mean", "max"], "skip_linear": [True], "directed_msg": [False], "heads": [2], "attention": [True],
    "l2_normalize": [True], "bias": [False],
}  # fmt: skip

CASES = [
    Case(
        "GATv2Conv", (5, 4), options={**GATV2, "flow": BACK, "aggr": ["mean", "max"]},
        compiled={"heads": 2, "concat": False, "residual": True},
    ),
    Case("GATv2Conv", (5, 4), {"heads": 2}, call={"return_attention_weights": "true"}, options={"flow": BACK}),
    Case("GATv2Conv", (5, 4), call={"return_attention_weights": "false"}),
    Case(
        "GATv2Conv", (5, 4), {"edge_dim": 3}, call={"edge_attr": "e"},
        options={**GATV2, "fill_value": ["max", "add", 0.5]}, compiled={"heads": 2},
    ),
    Case("GATv2Conv", (5, 4), {"edge_dim": 1}, call={"edge_attr": "w"}),
    Case("GATv2Conv", ((5, 3), 4), x="pair", options={**GATV2, "share_weights": [False]}),
    Case("GATv2Conv", (5, 4), {"share_weights": True}, x="equal pair"),
    Case("GATv2Conv", (5, 4), x="source"),
    Case("AGNNConv", options={"requires_grad": [False], "add_self_loops": [False], "flow": BACK}),
    Case(
        "TransformerConv", (5, 4), options={**TRANSFORMER, "flow": BACK, "aggr": ["max"]},
        compiled={"heads": 2, "beta": True},
    ),
    Case(
        "TransformerConv", (5, 4), {"edge_dim": 3, "heads": 2}, call={"edge_attr": "e"}, options=TRANSFORMER,
        compiled={"concat": False, "beta": True},
    ),
    Case("TransformerConv", (5, 4), {"heads": 2}, call={"return_attention_weights": "true"}, options={"flow": BACK}),
    Case("TransformerConv", (5, 4), call={"return_attention_weights": "false"}),
    Case("TransformerConv", ((5, 3), 4), x="pair", options=TRANSFORMER),
    Case(
        "SuperGATConv", (5, 4),
        options={
            "heads": [2], "concat": [False], "negative_slope": [0.1], "add_self_loops": [False], "bias": [False],
            "attention_type": ["SD", "XX"], "neg_sample_ratio": [0.0], "flow": BACK,
        },
        compiled={"heads": 2, "attention_type": "SD", "concat": False},
    ),
    Case(
        "FAConv", (5,), then=("x",),
        options={"eps": [0.0, 0.5], "cached": [True], "add_self_loops": [False], "normalize": [False], "flow": BACK},
    ),
    Case("FAConv", (5,), {"normalize": False}, then=("x",), call={"edge_weight": "w"}),
    Case("FAConv", (5,), then=("x",), call={"return_attention_weights": "true"}, options={"flow": BACK}),
    Case(
        "FAConv", (5,), {"normalize": False}, then=("x",),
        call={"edge_weight": "w", "return_attention_weights": "false"},
    ),
    Case(
        "FeaStConv", (5, 4),
        options={"heads": [3], "add_self_loops": [False], "bias": [False], "aggr": ["max", "add"], "flow": BACK},
        compiled={"heads": 3},
    ),
    Case("FeaStConv", (5, 4), {"heads": 2}, x="equal pair"),
    Case(
        "GeneralConv", (5, 4), options={**GENERAL, "attention_type": ["other"], "flow": BACK},
        compiled={"heads": 2, "attention": True, "directed_msg": False},
    ),
    Case("GeneralConv", (5, 5), options=GENERAL),
    Case(
        "GeneralConv", (5, 4, 3), {"attention": True}, call={"edge_attr": "e"},
        options={**GENERAL, "attention_type": ["dot_product", "other"]},
        compiled={"heads": 2, "attention_type": "dot_product", "directed_msg": False},
    ),
    Case("GeneralConv", ((5, 3), 4), x="pair", options={"attention": [True], "heads": [2]}),
    Case(
        "GeneralConv", (5, 4), {"attention": True, "attention_type": "dot_product", "directed_msg": False},
        x="equal pair", drawn=("lin_msg_i.weight", "lin_msg_i.bias"),
    ),
    Case(
        "HypergraphConv", (5, 4), then=("incidence",), graph=None,
        options={"bias": [False], "concat": [False], "attention_mode": ["edge", "other"], "aggr": ["mean"]},
    ),
    Case("HypergraphConv", (5, 4), then=("incidence",), call={"hyperedge_weight": "hyperedge weights"}, graph=None),
    Case(
        "HypergraphConv", (5, 4), {"use_attention": True}, then=("incidence",),
        call={"hyperedge_weight": "hyperedge weights", "hyperedge_attr": "hyperedges"}, graph=None,
        options={
            "heads": [2], "concat": [False], "attention_mode": ["edge"], "negative_slope": [0.1], "bias": [False],
        },
        compiled={"heads": 2, "attention_mode": "edge", "concat": False},
    ),
    Case(
        "DNAConv", (4,), x="layers of 4",
        options={
            "heads": [2, 3], "groups": [2, 4], "cached": [True], "normalize": [False], "add_self_loops": [False],
            "bias": [False], "aggr": ["max"], "flow": BACK,
        },
        call={"edge_weight": "w"}, compiled={"heads": 2, "groups": 4},
    ),
    Case("DNAConv", (4, 2), x="layers of 4"),
]  # fmt: skip

globals().update(make_tests(CASES))


def x_and_graph() -> tuple[torch.Tensor, torch.Tensor]:
    graph = drop_in.graph_of("any", 1, False)
    assert graph is not None
    return torch.randn(drop_in.NODES, 5, generator=torch.Generator().manual_seed(1)), graph


FRESH = [
    ("GATv2Conv", (5, 4), {"edge_dim": 3, "residual": True}),
    ("TransformerConv", (5, 4), {"edge_dim": 3, "beta": True}),
    ("SuperGATConv", (5, 4), {}),
    ("FAConv", (5,), {}),
    ("FeaStConv", (5, 4), {"heads": 2}),
    ("GeneralConv", (5, 4, 3), {"attention": True}),
    ("HypergraphConv", (5, 4), {"use_attention": True}),
    ("DNAConv", (4,), {"heads": 2, "groups": 2}),
]


@pytest.mark.parametrize(("name", "args", "kwargs"), FRESH, ids=[name for name, _, _ in FRESH])
def test_a_seed_gives_the_same_parameters(name: str, args: tuple[int, ...], kwargs: dict[str, Any]) -> None:
    states = []
    for namespace in (gdsl.nn, pyg):
        torch.manual_seed(5)
        layer = getattr(namespace, name)(*args, **kwargs)
        layer.reset_parameters()
        states.append(layer.state_dict())
    ours, theirs = states
    assert list(ours) == list(theirs)
    for key, value in theirs.items():
        assert torch.equal(ours[key], value), key


def test_lazy_sizes() -> None:
    x, graph = x_and_graph()
    attr = torch.randn(graph.shape[1], 3)
    assert gdsl.nn.GATv2Conv(-1, 4, edge_dim=-1, residual=True)(x, graph, attr).shape == (9, 4)
    assert gdsl.nn.GATv2Conv((-1, -1), 4)((x, x[:, :2]), graph).shape == (9, 4)
    assert gdsl.nn.TransformerConv(-1, 4, edge_dim=-1)(x, graph, attr).shape == (9, 4)
    assert gdsl.nn.TransformerConv((-1, -1), 4)((x, x[:, :2]), graph).shape == (9, 4)
    assert gdsl.nn.SuperGATConv(-1, 4)(x, graph).shape == (9, 4)
    assert gdsl.nn.FAConv(-1)(x, x, graph).shape == (9, 5)
    assert gdsl.nn.FeaStConv(-1, 4)(x, graph).shape == (9, 4)
    assert gdsl.nn.GeneralConv(-1, 4, -1, directed_msg=False)(x, graph, attr).shape == (9, 4)
    assert gdsl.nn.HypergraphConv(-1, 4)(x, graph).shape == (9, 4)


def test_copies_of_a_layer() -> None:
    x, graph = x_and_graph()
    shared = gdsl.nn.GATv2Conv(5, 4, share_weights=True)
    layered = gdsl.nn.DNAConv(5, bias=False)
    layers = x[:, None].repeat(1, 2, 1)
    for layer, features in ((shared, x), (layered, layers)):
        y = layer(features, graph)
        assert torch.equal(copy.deepcopy(layer)(features, graph), y)
        assert torch.equal(pickle.loads(pickle.dumps(layer))(features, graph), y)
    twin = copy.deepcopy(shared)
    assert twin.lin_r is twin.lin_l and twin.lin_l is not shared.lin_l


def test_parameters_of_dna_may_be_replaced() -> None:
    x, graph = x_and_graph()
    layers = x[:, None].repeat(1, 2, 1)
    layer, other = gdsl.nn.DNAConv(5), gdsl.nn.DNAConv(5)
    before = layer(layers, graph)
    layer.load_state_dict(other.state_dict(), assign=True)
    assert torch.equal(layer(layers, graph), other(layers, graph))
    assert not torch.equal(layer(layers, graph), before)


@pytest.mark.parametrize("kind", ["MX", "SD"])
def test_loss_of_supergat(kind: str) -> None:
    x, graph = x_and_graph()
    absent = torch.tensor([[0, 3, 5, 8], [8, 8, 8, 1]])
    found = {}
    torch.manual_seed(0)
    theirs = pyg.SuperGATConv(5, 4, heads=2, attention_type=kind).double()
    ours = gdsl.nn.SuperGATConv(5, 4, heads=2, attention_type=kind).double()
    ours.load_state_dict(theirs.state_dict())
    for name, layer in (("theirs", theirs), ("ours", ours)):
        y = layer(x.double(), graph, absent)
        loss = layer.get_attention_loss()
        assert torch.equal(layer.att_y, torch.tensor([1.0] * (layer.att_x.shape[0] - 4) + [0.0] * 4).double())
        found[name] = [y, layer.att_x, loss, *torch.autograd.grad(loss, [layer.lin.weight])]
    assert all(harness.difference([a], [b]) < 1e-9 for a, b in zip(found["ours"], found["theirs"], strict=True))
    assert torch.equal(ours.eval().get_attention_loss(), theirs.eval().get_attention_loss())


@pytest.mark.parametrize("undirected", [False, True])
def test_pairs_without_an_edge(undirected: bool) -> None:
    _, graph = x_and_graph()
    layer = gdsl.nn.SuperGATConv(5, 4, is_undirected=undirected)
    known = {(int(s), int(t)) for s, t in (graph if undirected else torch.cat([graph, graph.flip(0)], 1)).T}
    pairs = layer.negative_sampling(graph, 9)
    assert pairs.shape == (2, int(0.5 * graph.shape[1]))
    drawn = {(int(s), int(t)) for s, t in pairs.T}
    assert len(drawn) == pairs.shape[1] and not drawn & known
    assert all(s != t for s, t in drawn)


def test_all_pairs_without_an_edge() -> None:
    edges = torch.tensor([[0, 1, 2, 2], [1, 1, 0, 1]])
    layer = gdsl.nn.SuperGATConv(5, 4, neg_sample_ratio=100.0, is_undirected=True)
    assert {(int(s), int(t)) for s, t in layer.negative_sampling(edges, 3).T} == {(0, 2), (1, 0), (1, 2)}
    assert layer.negative_sampling(edges[:, :0], 1).shape == (2, 0)
    batch = torch.tensor([0, 0, 1, 1, 1])
    inside = layer.negative_sampling(torch.tensor([[0, 2], [1, 3]]), 5, batch)
    assert {(int(s), int(t)) for s, t in inside.T} == {(1, 0), (2, 4), (3, 2), (3, 4), (4, 2), (4, 3)}


def test_a_part_of_the_edges_in_the_loss() -> None:
    x, graph = x_and_graph()
    torch.manual_seed(0)
    layer = gdsl.nn.SuperGATConv(5, 4, edge_sample_ratio=0.5, add_self_loops=False)
    layer(x, graph)
    assert 0 < layer.att_y.sum() < graph.shape[1]
    assert layer.att_x.shape[0] > layer.att_y.sum()


DROPPING: list[tuple[Any, dict[str, Any]]] = [
    (gdsl.nn.GATv2Conv(5, 4, dropout=0.5), {}),
    (gdsl.nn.TransformerConv(5, 4, dropout=0.5), {}),
    (gdsl.nn.SuperGATConv(5, 4, dropout=0.5), {}),
    (gdsl.nn.FAConv(5, dropout=0.5), {"x_0": torch.zeros(9, 5)}),
    (gdsl.nn.HypergraphConv(5, 4, True, dropout=0.5), {"hyperedge_attr": torch.ones(9, 5)}),
]


@pytest.mark.parametrize(("layer", "more"), DROPPING, ids=[type(layer).__name__ for layer, _ in DROPPING])
def test_weights_are_dropped_in_training(layer: nn.Module, more: dict[str, Any]) -> None:
    x, graph = x_and_graph()
    first = (x, more["x_0"], graph) if "x_0" in more else (x, graph)
    more = {name: value for name, value in more.items() if name != "x_0"}
    layer.train()
    assert not torch.equal(layer(*first, **more), layer(*first, **more))
    layer.eval()
    assert torch.equal(layer(*first, **more), layer(*first, **more))


def test_a_cached_graph_is_kept() -> None:
    x, graph = x_and_graph()
    none = graph[:, :0]
    layer = gdsl.nn.FAConv(5, cached=True)
    y = layer(x, x, graph)
    assert torch.equal(layer(x, x, none), y)
    layer.reset_parameters()
    assert not torch.equal(layer(x, x, none), y)
    layers = x[:, None].repeat(1, 2, 1)
    dna = gdsl.nn.DNAConv(5, cached=True)
    assert torch.equal(dna(layers, graph), dna(layers, none))


def test_more_weights_than_hyperedges() -> None:
    x, graph = x_and_graph()
    weight = torch.rand(12)
    for given in ({}, {"num_edges": 10}):
        theirs = pyg.HypergraphConv(5, 4)
        ours = gdsl.nn.HypergraphConv(5, 4)
        ours.load_state_dict(theirs.state_dict())
        found, expected = ours(x, graph, weight, **given), theirs(x, graph, weight, **given)
        assert torch.allclose(found, expected, atol=1e-6)


def refused(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], *call: Any, **more: Any) -> type[Exception]:
    """The error that both layers raise in a call."""
    with pytest.raises((AssertionError, ValueError, AttributeError)) as error:
        getattr(pyg, name)(*args, **kwargs)(*call, **more)
    with pytest.raises(error.type):
        getattr(gdsl.nn, name)(*args, **kwargs)(*call, **more)
    return error.type


def test_bad_calls() -> None:
    x, graph = x_and_graph()
    w, attr = torch.rand(graph.shape[1]), torch.rand(graph.shape[1], 3)
    for name, args in (("GATv2Conv", (5, 4)), ("TransformerConv", (5, 4))):
        with pytest.raises(ValueError, match="flow"):
            getattr(gdsl.nn, name)(*args, flow="sideways")
    assert refused("GATv2Conv", (5, 4), {}, (x, None), graph) is AssertionError
    assert refused("GATv2Conv", (5, 4), {}, x[None], graph) is AssertionError
    assert refused("GATv2Conv", (5, 4), {}, x, graph, attr) is AssertionError
    assert refused("TransformerConv", (5, 4), {"edge_dim": 3}, x, graph) is AssertionError
    assert refused("FAConv", (5,), {}, x, x, graph, w) is AssertionError
    assert refused("FAConv", (5,), {"normalize": False}, x, x, graph) is AssertionError
    assert refused("HypergraphConv", (5, 4, True), {}, x, graph) is AssertionError
    assert refused("DNAConv", (5,), {}, x, graph) is ValueError
    assert refused("GeneralConv", (5, 4), {}, x, graph, attr) is AttributeError
    with pytest.raises(ValueError, match="bipartite"):
        gdsl.nn.AGNNConv()((x, x), graph)
    with pytest.raises(TypeError, match="flow"):
        gdsl.nn.HypergraphConv(5, 4, flow="target_to_source")


@pytest.mark.parametrize(
    ("layer", "more"),
    [
        (lambda: gdsl.nn.GATConv(5, 4, heads=2), {}),
        (lambda: gdsl.nn.GATv2Conv(5, 4, heads=2), {}),
        (lambda: gdsl.nn.TransformerConv(5, 4, heads=2), {}),
        (lambda: gdsl.nn.FAConv(5), {"x_0": torch.ones(4, 5)}),
        (lambda: gdsl.nn.RGATConv(5, 4, 2), {"edge_type": torch.tensor([0, 1, 0])}),
    ],
)
def test_weights_are_written_if_they_are_asked_for(layer: Any, more: dict[str, Any]) -> None:
    conv, edges = layer(), torch.tensor([[0, 1, 3], [1, 2, 2]])
    x = torch.ones(4, 5, requires_grad=True)
    for asked, results in ((None, 1), (True, 2)):
        with recording_runs() as runs:
            conv(x, edge_index=edges, return_attention_weights=asked, **more)
        assert [len(run.kind.typed.outputs) for run in runs] == [results]


@pytest.mark.parametrize("asked", [None, False, True])
@pytest.mark.parametrize("name", ["GATConv", "GATv2Conv", "TransformerConv"])
def test_what_asks_for_weights(name: str, asked: bool | None) -> None:
    x, edges = torch.rand(4, 3), torch.tensor([[0, 1, 2], [1, 2, 3]])
    ours = getattr(gdsl.nn, name)(3, 4)(x, edges, return_attention_weights=asked)
    theirs = getattr(pyg, name)(3, 4)(x, edges, return_attention_weights=asked)
    assert isinstance(ours, tuple) == isinstance(theirs, tuple)
