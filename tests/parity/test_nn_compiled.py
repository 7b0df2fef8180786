"""Layers that ask their graph for more than its edges, under torch.compile: what they ask for is there."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gdsl.nn as ours
from gdsl.module.compiled import SymbolicGraph
from gdsl.runtime.graph import Graph

EDGES = torch.tensor([[0, 1, 2, 3, 3, 4, 5, 1, 0], [1, 1, 0, 4, 3, 2, 0, 5, 5]])

Call = Callable[[Any, Tensor], Any]

LAYERS: dict[str, tuple[Callable[[], nn.Module], Call]] = {
    "GATConv": (lambda: ours.GATConv(4, 3), lambda l, x: l(x, EDGES, return_attention_weights=True)),
    "GATConv against the edges": (
        lambda: ours.GATConv(4, 3, flow="target_to_source"), lambda l, x: l(x, EDGES, return_attention_weights=True),
    ),
    "GATv2Conv": (lambda: ours.GATv2Conv(4, 3), lambda l, x: l(x, EDGES, return_attention_weights=True)),
    "FAConv": (lambda: ours.FAConv(4), lambda l, x: l(x, x, EDGES, return_attention_weights=True)),
    "SimpleConv": (lambda: ours.SimpleConv(combine_root="self_loop"), lambda l, x: l(x, EDGES)),
    "PANConv": (lambda: ours.PANConv(4, 3, 2), lambda l, x: l(x, EDGES)[0]),
    "RGCNConv": (
        lambda: ours.RGCNConv(6, 3, 2), lambda l, x: l(None, EDGES, torch.arange(9) % 2) + x[:, :3],
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def _outcome(layer: nn.Module, function: Any, call: Call) -> list[Any]:
    torch.manual_seed(2)
    x = torch.linspace(-1, 1, 24).view(6, 4).requires_grad_()
    found = call(function, x)
    y, *more = found if isinstance(found, tuple) else (found,)
    layer.zero_grad()
    y.square().sum().backward()
    return [y, *(more[0] if more else ()), x.grad, *(p.grad for p in layer.parameters())]


def _agree(layer: nn.Module, call: Call) -> None:
    wanted = _outcome(layer, layer, call)
    found = _outcome(layer, torch.compile(layer, backend="eager"), call)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", LAYERS)
def test_under_torch_compile(name: str) -> None:
    make, call = LAYERS[name]
    _agree(make(), call)


@pytest.mark.parametrize("loops", [True, False])
def test_attention_with_a_loss_under_torch_compile(loops: bool) -> None:
    """SuperGATConv in training draws pairs without an edge, and has a term for the loss."""
    layer = ours.SuperGATConv(4, 3, add_self_loops=loops)
    absent = torch.tensor([[0, 1, 2], [2, 3, 4]])
    _agree(layer, lambda f, x: (f(x, EDGES, absent), (layer.get_attention_loss(), layer.att_x, layer.att_y)))
    _agree(layer, lambda f, x: (f(x, EDGES), (layer.get_attention_loss(), layer.att_x, layer.att_y)))


def test_a_symbolic_graph_has_what_layers_ask_for() -> None:
    """WLConv alone makes a graph of its own, and is not differentiated."""
    text = "\n".join(p.read_text() for p in (Path(ours.__file__).parent / "conv").glob("*.py"))
    graph, seen = Graph(EDGES, 6), SymbolicGraph(EDGES, 6, 6)
    asked = {name for name in re.findall(r"\bgraph\.(\w+)", text) if hasattr(graph, name)} - {"in_edges", "in_degree"}
    assert {"add_self_loops", "num_nodes", "device", "with_edges"} <= asked
    assert [name for name in asked if not hasattr(seen, name)] == []
    assert torch.equal(seen.add_self_loops().graph.edge_index, graph.add_self_loops().graph.edge_index)
