"""``explain(graph)``: rules with what they saved, refusals, schedule, forecast; and one node step by step."""

from __future__ import annotations

import pytest
import torch

import gdsl
import gdsl.nn
from gdsl.codegen.schedule import HUB_EDGES
from gdsl.runtime.graph import Graph

GAT = """
layer GATConv(in_channels, out_channels, heads = 1) {
    param weight[in_channels, heads, out_channels] ~ glorot
    param att_src[heads, out_channels] ~ glorot
    param att_dst[heads, out_channels] ~ glorot
    node x[in_channels]
    h     = x @ weight
    score = leaky_relu((h @ att_src)[j] + (h @ att_dst)[i], 0.2)
    alpha = softmax(score)
    message   m = alpha * h[j]
    aggregate a = sum(m)
    update    y = merge(a, heads, out_channels)
}
"""

EDGE = """
layer EdgeConv(in_channels, hidden, out_channels) {
    param w1[2*in_channels, hidden] ~ linear
    param w2[hidden, out_channels]  ~ linear
    node x[in_channels]
    message   m = relu(cat(x[i], x[j] - x[i]; in_channels, in_channels) @ w1) @ w2
    aggregate a = max(m)
    update    y = a
}
"""


def graph(nodes: int = 300, edges: int = 4000) -> Graph:
    return Graph(torch.randint(nodes, (2, edges), generator=torch.Generator().manual_seed(0)), nodes)


def section(text: str, title: str) -> str:
    """A section of the ledger, without its title."""
    return text.partition(f"== {title} ==\n")[2].partition("\n==")[0]


def edge_conv() -> gdsl.Layer:
    return gdsl.compile(EDGE, 16, 16, 16)


def test_rules_with_the_equation_before_and_after_and_what_they_saved() -> None:
    rules = section(edge_conv().explain(graph()), "rules that fired")
    assert "split_cat" in rules
    assert "split_sum" in rules
    assert "sum[in_channels](x[j] * slice(w1; 2*in_channels from 16 as in_channels))" in rules
    assert "        --> sum[in_channels](x * slice(w1; 2*in_channels from 16 as in_channels))[j]" in rules
    # The product of x[j] on 4,000 edges, 16 x 16, less the one on 300 nodes; each takes additions too.
    assert f"one_ended: saves {(4000 - 300) * 2 * 256 / 1e6:+,.1f} Mflop" in rules
    assert rules.index("forward:") < rules.index("backward:") < rules.index("before kernels:")
    assert "sparse_rows_first" in rules


def test_what_is_not_fused_and_why() -> None:
    refused = section(gdsl.compile(GAT, 32, 16, heads=4).explain(graph()), "not fused, and why")
    assert "torch computes sum[in_channels](x * weight)\n        a product of matrices is left to the BLAS" in refused
    assert "it is read at the other end of edges, so that all rows must be complete" in refused


def test_the_schedule_comes_from_the_degrees() -> None:
    hub = torch.stack([torch.arange(HUB_EDGES + 10) % 100, torch.zeros(HUB_EDGES + 10, dtype=torch.long)])
    text = section(gdsl.compile(GAT, 8, 4).explain(Graph(hub, 100)), "the graph and its schedule")
    assert f"100 sources, 100 targets, {HUB_EDGES + 10:,} edges" in text
    assert f"in-degree: mean {(HUB_EDGES + 10) / 100:.1f}, least 0, median 0" in text
    assert f"1 hubs with more than {HUB_EDGES:,} edges hold 100% of the edges" in text
    assert text.count("hubs with more") == 1


def test_the_forecast_is_what_a_call_allocates() -> None:
    """Tensors that the plan says it makes, against the allocator's own account of a call."""
    layer, g = gdsl.compile(GAT, 32, 16, heads=4), graph(2000, 40000)
    x = torch.randn(2000, 32)
    text = section(layer.explain(g), "memory, before anything runs")
    assert "forward: " in text
    assert "saved for the backward" in text
    layer(x.requires_grad_(), g)
    with torch.profiler.profile(profile_memory=True) as profile:
        layer(x, g)
    made = sum(
        e.nbytes() for e in profile.profiler.kineto_results.events() if e.name() == "[memory]" and e.nbytes() > 0
    )
    size, unit = text.split("forward: ")[1].split(" at the peak")[0].split()
    peak = float(size) * {"kB": 1e3, "MB": 1e6}[unit]
    assert made == pytest.approx(peak, rel=0.1)


def test_saved_memory_follows_the_choice() -> None:
    def saved(layer: gdsl.Layer) -> str:
        return layer.explain(graph()).split("saved between forward and backward: ")[1].split("\n")[0]

    layer = edge_conv()
    usual = saved(layer)
    assert usual == "96.0 kB in 5 tensors"
    assert saved(layer.choose(save="nothing")) == "38.4 kB in 2 tensors"
    assert saved(layer.choose(save="auto", memory="100kB")) == usual
    assert saved(layer.choose(memory=50_000)) == "38.4 kB in 2 tensors"


def test_a_budget_changes_memory_and_no_number() -> None:
    layer, g, x = edge_conv(), graph(), torch.randn(300, 16, requires_grad=True)
    results = []
    for memory in (None, 1000):
        y = layer.choose(memory=memory)(x, g)
        results.append((y, *torch.autograd.grad(y.sum(), [x, *layer.parameters()])))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("memory", ["64", "MB", "-1MB", "1.5MB", -3, True])
def test_a_wrong_budget_is_refused(memory: object) -> None:
    with pytest.raises(gdsl.InputError, match="`memory` is a number of bytes"):
        edge_conv().choose(memory=memory)  # type: ignore[arg-type]


def test_each_kernel_with_what_bounds_it() -> None:
    text = section(edge_conv().explain(graph()), "kernels on this graph")
    line = next(line for line in text.splitlines() if "forward EdgeConv_0" in line)
    assert "flops a byte: bound by" in line
    assert line.endswith(("memory", "arithmetic"))


def test_without_a_graph_there_is_no_ledger() -> None:
    assert "rules that fired" not in edge_conv().explain()


# ---------------------------------------------------------------------------------------- one node


def test_a_node_step_by_step() -> None:
    layer, g, x = gdsl.compile(GAT, 8, 4, heads=2), graph(), torch.randn(300, 8)
    text = layer.explain(g, node=17, inputs=(x,))
    mine = (g.edge_index[1] == 17).nonzero().flatten()
    assert text.startswith(f"GATConv, node 17 of 300: {len(mine)} in-edges")
    steps = [block.split(" = ")[0].split()[-1] for block in text.split("\n\n")[1:]]
    assert steps == ["h", "score", "alpha", "m", "a", "y"]
    y = layer(x, g)[17]
    assert " ".join(f"{v:.4g}" for v in y[:6].tolist()) in text
    for edge in mine[:8].tolist():
        assert f"edge {edge}, from {int(g.edge_index[0, edge])}: " in text
    assert "largest difference between reference and kernel here: " in text


def test_a_node_without_inputs_draws_some() -> None:
    text = gdsl.compile(GAT, 8, 4).explain(graph(), node=0)
    assert "inputs drawn at random, seed 0" in text


@pytest.mark.parametrize("statement", ["add_self_loops()", "add_remaining_self_loops(w = 1)"])
@pytest.mark.parametrize("backend", ["cpp", "torch"])
def test_a_node_of_a_layer_that_adds_loops(backend: str, statement: str) -> None:
    """An edge has the number that the user knows, a loop that was there too; the result is that of a call."""
    weight = "edge w" if "w" in statement[8:] else ""
    message = "w * h[j]" if weight else "h[j]"
    head = f"node x[c] {weight} param p[c, o] ~ glorot graph {statement}"
    text = f"layer L(c, o) {{ {head} h = x @ p m = {message} aggregate a = sum(m) update y = tanh(a) }}"
    layer = gdsl.compile(text, 4, 3, backend=backend).double()
    edges = torch.tensor([[0, 1, 2, 2], [2, 2, 2, 0]])
    g, x, w = gdsl.Graph(edges, 3), torch.randn(3, 4, dtype=torch.float64), torch.rand(4, dtype=torch.float64)
    given = (x, w) if weight else (x,)
    y = layer(x, w=w, graph=g) if weight else layer(x, g)
    for node, count in ((2, 3), (0, 2), (1, 1)):
        shown = layer.explain(g, node=node, inputs=given)
        assert shown.startswith(f"L, node {node} of 3: {count} in-edges")
        assert " ".join(f"{v:.4g}" for v in y[node].tolist()) in shown
        assert ("self-loop: " in shown) == (not weight or node != 2)
        assert ("edge 2, from 2: " in shown) == (bool(weight) and node == 2)
        assert ("the layer runs on torch" in shown) == (backend == "torch")
    assert "self-loop: " in layer.explain(g, node=1)


@pytest.mark.parametrize("name", ["GCNConv", "GATConv"])
def test_a_node_of_a_layer_of_the_library(name: str) -> None:
    layer, g = getattr(gdsl.nn, name)(8, 4), gdsl.Graph(torch.tensor([[0, 1, 3], [2, 2, 0]]), 4)
    layer(torch.randn(4, 8), g)
    shown = layer.explain(g, node=2)
    assert "node 2 of 4: 3 in-edges" in shown and "self-loop: " in shown and "edge 1, from 1: " in shown
    assert "largest difference between reference and kernel here: " in shown


def test_a_wrong_node_or_inputs() -> None:
    layer = gdsl.compile(GAT, 8, 4)
    with pytest.raises(gdsl.InputError, match="targets 0 to 299, and no node 300"):
        layer.explain(graph(), node=300)
    with pytest.raises(gdsl.InputError, match="needs the graph"):
        layer.explain(node=3)
    x = torch.rand(300, 8)
    for inputs, what in (
        ((x, x), "inputs are 1 tensors, x, and there are 2"),
        ((x[:200],), "`x` has 200 rows, and the graph has 300 nodes"),
        ((x[:, :7],), "`x` must have shape"),
        ((x.long(),), "`x` must hold floating-point numbers, and it is int64"),
        ((x.tolist(),), "`x` must be a tensor, not list"),
    ):
        with pytest.raises(gdsl.InputError, match=what):
            layer.explain(graph(), node=3, inputs=inputs)
