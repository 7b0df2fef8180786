"""Layers with several aggregations, weights from edge features, and attention over whole graphs, as drop-ins."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import gdsl.nn
from gdsl.errors import InputError
from gdsl.nn import GPSConv, PNAConv
from gdsl.nn.attention import blocks_of_graphs, orthogonal_matrix
from gdsl.nn.conv import mixed
from gdsl.nn.conv.all_pairs import all_pairs, fits
from tests.parity.drop_in import EDGE, KINDS, NODES, Case, graph_of, make_tests, outcome, pyg
from tests.programs import harness

AGGREGATORS = ["mean", "max", "std"]
SCALERS = ["identity", "amplification", "attenuation"]
HISTOGRAM = torch.tensor([2, 3, 4, 1])

KINDS["x4"] = lambda g, e: torch.randn(NODES, 4, generator=g, dtype=torch.float64)

CASES = [
    Case(
        "PNAConv", (4, 6, AGGREGATORS, SCALERS, HISTOGRAM), x="x4", compiled={"towers": 2, "divide_input": True},
        options={
            "towers": [2, 3], "pre_layers": [2], "post_layers": [2], "divide_input": [True],
            "act": ["tanh", torch.nn.ELU], "train_norm": [True], "flow": ["target_to_source"],
        },
        exact=1e-6,  # torch_geometric counts degrees in float32
        half=0.3,  # the slope of a standard deviation is large where it is small
    ),
    Case(
        "PNAConv", (4, 6, ["sum", "min"], ["linear", "inverse_linear"], HISTOGRAM), {"edge_dim": EDGE, "towers": 2},
        x="x4", call={"edge_attr": "e"}, exact=1e-6,
    ),
    Case(
        "EGConv", (5, 8), {"num_heads": 4, "num_bases": 3}, compiled={"aggregators": ["symnorm", "max", "std"]},
        options={
            "aggregators": [["sum", "mean", "symnorm", "min", "max", "var", "std"], ["best"]],
            "num_heads": [3], "cached": [True], "add_self_loops": [False], "bias": [False],
        },
    ),
    # Without "symnorm", torch_geometric gives nodes behind the last one with an edge no loop.
    Case("EGConv", (5, 8), {"aggregators": ["max"]}, graph="knn", options={"add_self_loops": [False]}),
    Case(
        "PDNConv", (5, 4, EDGE, 6), call={"edge_attr": "e"},
        options={"add_self_loops": [False], "normalize": [False], "bias": [False], "flow": ["target_to_source"]},
    ),
    Case("PDNConv", (5, 4, EDGE, 6)),
]  # fmt: skip

globals().update(make_tests(CASES))


@pytest.mark.parametrize("norm", ["batch_norm", "layer_norm", "GraphNorm", "instance", None])
@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("local", [False, True])
def test_attention_over_whole_graphs(norm: str | None, batched: bool, local: bool) -> None:
    torch.manual_seed(0)
    made = [
        library.GPSConv(4, library.GCNConv(4, 4) if local else None, heads=2, norm=norm, act="gelu").double()
        for library in (gdsl.nn, pyg)
    ]
    ours, theirs = made
    ours.load_state_dict(theirs.state_dict())
    assert repr(ours) == repr(theirs)
    graph = graph_of("any", 1, False)
    x = torch.randn(NODES, 4, dtype=torch.float64)
    values = {"batch": torch.arange(NODES) // 5} if batched else {}
    expected = outcome(theirs, (x,), graph, values)
    for part, value in outcome(ours, (x,), graph, values).items():
        assert harness.difference([value], [expected[part]]) < 1e-9, part


@pytest.mark.parametrize("bias", [True, False])
def test_graphs_that_would_be_mostly_padding(bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention over one graph of many nodes among graphs of few: the same, and without padding."""
    torch.manual_seed(0)
    ours, theirs = (
        library.GPSConv(4, None, heads=2, norm="layer_norm", attn_kwargs={"bias": bias}).double()
        for library in (gdsl.nn, pyg)
    )
    ours.load_state_dict(theirs.state_dict())
    batch = torch.cat([torch.zeros(12), torch.arange(1, 12), torch.tensor([14, 14])]).long()
    x = torch.randn(len(batch), 4, dtype=torch.float64)
    ran: list[Tensor] = []
    monkeypatch.setattr(mixed, "blocks_of_graphs", lambda *given: ran.append(given[0]) or blocks_of_graphs(*given))
    found = []
    for layer in (theirs, ours):
        given = x.clone().requires_grad_()
        y = layer(given, torch.zeros(2, 0, dtype=torch.long), batch)
        found.append([y, *torch.autograd.grad(y.sin().sum(), [given, *layer.parameters()], materialize_grads=True)])
    assert not ran
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other)
    in_order = torch.arange(25) // 5
    ours(x, torch.zeros(2, 0, dtype=torch.long), in_order)  # of one size: torch's is quicker
    assert len(ran) == 1
    ours.attn.register_forward_hook(lambda *_: None)
    ours(x, torch.zeros(2, 0, dtype=torch.long), batch)
    assert len(ran) == 2


@pytest.mark.parametrize("attention", ["multihead", "performer"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda batch: batch - 1, "node 0 is in graph -1"),
        (lambda batch: batch[:, None], r"must have shape \[4\], and it has shape \[4, 1\]"),
        (lambda batch: batch[1:], r"must have shape \[4\], and it has shape \[3\]"),
        (lambda batch: batch.double(), "must be an int64 or int32 tensor"),
        (lambda batch: batch.tolist(), "must be an int64 or int32 tensor"),
    ],
)
def test_a_batch_that_is_none(change: Callable[[Tensor], Any], message: str, attention: str) -> None:
    """Refused before the layer on the edges runs, however the graphs' sizes are."""
    layer, ran = GPSConv(4, nn.Identity(), norm=None, attn_type=attention), []
    layer.conv.register_forward_hook(lambda *_: ran.append(1))
    for batch in (torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 0, 3])):
        with pytest.raises(InputError, match=message):
            layer(torch.randn(4, 4), torch.zeros(2, 0, dtype=torch.long), change(batch))
    assert not ran


@pytest.mark.parametrize("attention", ["multihead", "performer"])
@pytest.mark.parametrize("norm", ["batch_norm", "layer_norm", "GraphNorm", None])
def test_attention_of_no_nodes(attention: str, norm: str | None) -> None:
    layer = GPSConv(4, gdsl.nn.GCNConv(4, 4), norm=norm, attn_type=attention)
    x, edges = torch.zeros(0, 4, requires_grad=True), torch.zeros(2, 0, dtype=torch.long)
    for batch in (None, torch.zeros(0, dtype=torch.long)):
        y = layer(x, edges, batch)
        assert y.shape == (0, 4) and torch.autograd.grad(y.sum(), x)[0].shape == (0, 4)
    assert all(value.isfinite().all() for value in layer.buffers())


@pytest.mark.parametrize("attention", ["multihead", "performer"])
def test_attention_to_all_nodes_is_compiled_as_one_graph(attention: str) -> None:
    torch.manual_seed(0)
    layer = GPSConv(4, None, heads=2, norm="layer_norm", attn_type=attention).eval()
    x, edges = torch.randn(6, 4), torch.zeros(2, 0, dtype=torch.long)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    assert torch.allclose(compiled(x, edges), layer(x, edges), atol=1e-6)
    exported = torch.export.export(layer, (x, edges)).module()
    assert torch.allclose(exported(x, edges), layer(x, edges), atol=1e-6)


def test_second_derivatives_of_attention() -> None:
    """As the layer's page says: by the kernel always, by torch's attention in torch's own arithmetic."""
    torch.manual_seed(0)
    layer, edges = GPSConv(4, None, heads=2, norm=None).double(), torch.zeros(2, 0, dtype=torch.long)
    for sizes in ([3, 3], [10, 1, 1, 1, 1]):
        batch = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
        x, found = torch.randn(len(batch), 4, dtype=torch.float64, requires_grad=True), []
        for way in (layer, partial(_by_all_pairs, layer)):
            with sdpa_kernel(SDPBackend.MATH):
                y = way(x, edges, batch)
            (first,) = torch.autograd.grad(y.sin().sum(), x, create_graph=True)
            found.append(torch.autograd.grad(first.sin().sum(), x)[0])
        assert torch.allclose(*found)


def _by_all_pairs(layer: GPSConv, x: Tensor, _: Tensor, batch: Tensor) -> Tensor:
    h = all_pairs(layer.attn, x, batch) + x
    return h + layer.mlp(h)


def test_dropout_of_attention_keeps_no_weight_of_large_graphs() -> None:
    """In training torch's attention keeps some of each pair of places."""
    layer = GPSConv(4, None, norm=None, attn_kwargs={"dropout": 0.5})
    large, small = torch.tensor([1500, 1]), torch.tensor([500, 1])
    assert fits(layer.attn, large) and fits(layer.attn, large[:1]) and not fits(layer.attn, small[:1])
    layer.eval()
    assert not fits(layer.attn, large) and not fits(layer.attn, large[:1])
    layer = GPSConv(4, None, norm=None)
    assert not fits(layer.attn, large)


def test_weights_that_are_dropped() -> None:
    """In training as much as torch's: on average nothing changes."""
    torch.manual_seed(0)
    layer = GPSConv(4, None, norm=None, attn_kwargs={"dropout": 0.5}).double()
    batch = torch.cat([torch.zeros(8), torch.arange(1, 30)]).long()
    x, count = torch.randn(len(batch), 4, dtype=torch.float64), torch.bincount(batch)
    assert fits(layer.attn, count)
    mean = torch.stack([all_pairs(layer.attn, x, batch) for _ in range(400)]).mean(0)
    expected = all_pairs(layer.attn.eval(), x, batch)
    assert (mean - expected).abs().max() < 0.2 and (mean - expected).abs().max() > 0


@pytest.mark.parametrize(
    "options",
    [{}, {"head_channels": None}, {"head_channels": 8, "qkv_bias": True, "attn_out_bias": False, "kernel": torch.exp}],
    ids=["plain", "narrow", "all"],
)
@pytest.mark.parametrize("batched", [False, True])
def test_attention_in_linear_time(options: dict[str, Any], batched: bool) -> None:
    torch.manual_seed(0)
    made = [
        library.GPSConv(8, library.SAGEConv(8, 8), heads=2, attn_type="performer", attn_kwargs=options).double()
        for library in (gdsl.nn, pyg)
    ]
    ours, theirs = made
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    assert repr(ours) == repr(theirs)
    assert repr(ours.attn) == repr(theirs.attn)
    graph = graph_of("any", 1, False)
    x = torch.randn(NODES, 8, dtype=torch.float64)
    values = {"batch": torch.arange(NODES) // 5} if batched else {}
    expected = outcome(theirs, (x,), graph, values)
    for part, value in outcome(ours, (x,), graph, values).items():
        assert harness.difference([value], [expected[part]]) < 1e-9, part


def test_projections_have_orthonormal_blocks() -> None:
    for rows in (3, 4, 11):
        matrix = orthogonal_matrix(rows, 4)
        assert matrix.shape == (rows, 4)
        for block in matrix.split(4):
            assert torch.allclose(block @ block.t(), torch.eye(len(block)), atol=1e-6)
    layer = GPSConv(8, None, attn_type="performer")
    before = {name: value.clone() for name, value in layer.attn.state_dict().items()}
    layer.reset_parameters()
    assert all(not torch.equal(value, before[name]) for name, value in layer.attn.state_dict().items())


def test_gps_refuses_and_resets() -> None:
    with pytest.raises(ValueError, match="is not supported"):
        GPSConv(4, None, attn_type="none")
    with pytest.raises(ValueError, match="Could not resolve"):
        GPSConv(4, None, norm="no norm")
    layer = GPSConv(4, gdsl.nn.GCNConv(4, 4))
    before = layer.mlp[0].weight.clone()
    layer.reset_parameters()
    assert not torch.equal(layer.mlp[0].weight, before)


def test_degree_histogram() -> None:
    graphs = [SimpleNamespace(edge_index=torch.tensor([[0, 1, 2], [1, 1, 0]]), num_nodes=n) for n in (3, 5)]
    assert torch.equal(PNAConv.get_degree_histogram(graphs), pyg.PNAConv.get_degree_histogram(graphs))
