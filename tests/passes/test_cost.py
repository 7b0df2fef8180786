"""The forecast of bytes and operations against counted ones: for each layer of the benchmarks, and what they lack.

There is no tolerance. A plan is run one number at a time on a graph where the formulas are exact: each node has edges
at both ends, so that what is read once a row is read, and no two edges are equal, so that a maximum has one winner.
What hardware adds, lanes computed in vain and the rest of a cache line, is in neither, nor what a cache spares.
"""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import gdsl
from benchmarks.programs import ALL
from gdsl.ir.node import Node
from gdsl.ir.types import Domain, Kind
from gdsl.look.accounts import traffic
from gdsl.look.kernels import Inspection
from gdsl.passes import cost
from gdsl.runtime.frame import Frame
from gdsl.runtime.graph import Graph
from tests.passes.walked import Walked

NODES, FEATURES = 7, 8
RING, MORE = torch.arange(NODES), torch.tensor([[0, 3, 3, 5, 6, 6, 0, 2], [2, 1, 6, 5, 0, 3, 0, 5]])
EDGES = torch.cat([torch.stack([RING, RING.roll(1)]), MORE], 1)

TEXTS: dict[str, tuple[str, Graph]] = {
    "a fold, forwards and backwards": (
        """layer Fold(d = 3) {
            reduce fold(acc, m, v) = 0.5 * acc + m * tanh(v) init 0.25
            node x[d]
            edge w
            a = fold(sigmoid(x[j]) * w, w)
            update y = a + fold(x[i], w) at j
        }""",
        Graph(EDGES, NODES),
    ),
    "random numbers in two walks": (
        """layer Drop(d = 4) {
            node x[d]
            alpha = dropout(softmax(dot(x[i], x[j])), 0.5)
            update y = sum(alpha * tanh(x[j]))
        }""",
        Graph(EDGES, NODES),
    ),
    "a place that an edge picks": (
        "layer Pick(r = 5, c = 4) {\n node x[r, c]\n edge rel: int(r)\n update y = sum(exp(x[j][rel]))\n}",
        Graph(EDGES, NODES),
    ),
    "two sets of nodes, and a sum over all edges": (
        """layer Pair(s = 3, t = 4) {
            param w[s, t] ~ glorot
            source x[s]
            target z[t]
            update y = (z * max(relu(x[j] @ w * z[i]))) @ transpose(w; t, s) + mean(x[j])
        }""",
        Graph(torch.stack([torch.cat([EDGES[0, :-1], torch.tensor([NODES])]), EDGES[1]]), (NODES + 1, NODES)),
    ),
}


def draw(node: Node, frame: Frame, generator: torch.Generator) -> Tensor:
    shape = (*(() if node.domain is Domain.GLOBAL else (frame.rows(node.domain),)), *node.type.shape)
    if node.kind is Kind.FLOAT:
        return 0.1 + 0.8 * torch.rand(shape, generator=generator, dtype=torch.float64)
    return torch.randint(node.type.bound or 5, shape, generator=generator)


def compare(found: Inspection, graph: Graph) -> None:
    forecast = traffic(found, graph, torch.float32)
    frame = Frame(graph, torch.float64, torch.device("cpu"))
    generator = torch.Generator().manual_seed(1)
    loads: dict[str, Tensor] = {}
    for direction, plan in found.plans:
        for node in plan.program.inputs:
            if node.attrs.name not in loads:
                loads[node.attrs.name] = draw(node, frame, generator)
        counted = Walked(plan, {n: loads[n.attrs.name] for n in plan.program.inputs}, frame)
        loads |= {name: counted.values[node] for name, node in plan.program.outputs}
        assert forecast[direction] == (counted.bytes, counted.operations), direction


@pytest.mark.parametrize("name", ALL)
def test_the_forecast_is_what_is_counted(name: str) -> None:
    layer, graph = ALL[name](FEATURES), Graph(EDGES, NODES)
    conv = gdsl.compile(layer.source, **layer.arguments, backend="torch")
    conv.free_sizes.update(dict.fromkeys(conv.signature.free_dims, FEATURES))
    compare(conv._ran()[0].on(graph).inspection, graph)


@pytest.mark.parametrize("name", ["GAT", "GATv2", "AGNN", "Transformer"])
def test_a_softmax_in_one_walk(name: str) -> None:
    """As plans are on a GPU: forecasts know that walks keep nothing there, and what it costs that maxima grow."""
    layer, graph = ALL[name](FEATURES), Graph(EDGES, NODES)
    conv = gdsl.compile(layer.source, **layer.arguments, backend="torch")
    conv.free_sizes.update(dict.fromkeys(conv.signature.free_dims, FEATURES))
    found = copy(conv._ran()[0].on(graph).inspection)
    found.options = replace(found.options, shape=replace(found.options.shape, device="cuda"))
    assert any(phase.running for _, plan in found.plans for k in plan.kernels for phase in k.phases)
    compare(found, graph)


@pytest.mark.parametrize("name", TEXTS)
def test_what_no_benchmark_has(name: str) -> None:
    text, graph = TEXTS[name]
    compare(gdsl.compile(text, backend="torch")._ran()[0].on(graph).inspection, graph)


@pytest.mark.parametrize("name", ["GAT", "EdgeConv"])
def test_formulas_say_what_numbers_say(name: str) -> None:
    layer, graph = ALL[name](FEATURES), Graph(EDGES, NODES)
    found: Any = gdsl.compile(layer.source, **layer.arguments, backend="torch")
    sizes = cost.Numbers({Domain.NODE: NODES, Domain.EDGE: graph.num_edges})
    values = {"N": NODES, "E": graph.num_edges, **layer.arguments, "in_channels": FEATURES}
    for info in found.kernels:
        for formula, count in ((info.bytes, cost.bytes_moved), (info.flops, cost.operations)):
            assert formula.subs({s: values[s.name] for s in formula.free_symbols}) == count(info.kernel, sizes)


def test_a_function_is_one_operation_and_costs_the_time_of_more() -> None:
    text = "layer Exp(d = 4) {\n node x[d]\n update y = sum(exp(x[j] * x[i]))\n}"
    found = gdsl.compile(text, backend="torch").kernels
    sizes = cost.Numbers({Domain.NODE: 10, Domain.EDGE: 100})
    (kernel,) = [k.kernel for k in found if k.direction == "forward"]
    assert cost.operations(kernel, sizes) == 100 * 4 * 3
    assert cost.time(kernel, sizes) > 100 * 4 * 3
