"""Layers that are texts, one behind the other: on the trimmed parts of a sample, and in torch_geometric's summary."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.parity.drop_in import pyg
from tests.parity.test_host_texts import GRAPH, X, same, text

utils = pytest.importorskip("torch_geometric.utils")

WEIGHTED = """
layer Weighted(out) {
    linear lin(features -> out)
    node x[features]
    edge w = 1
    message m = w * lin(x)[j]
    aggregate y = sum(m)
    return y
}
"""


class Weighted(pyg.MessagePassing):  # type: ignore[name-defined,misc]
    def __init__(self, features: int, out: int):
        super().__init__(aggr="sum")
        self.lin = pyg.Linear(features, out)

    def forward(self, x: Tensor, edge_index: Tensor, w: Tensor | None = None) -> Any:
        return self.propagate(edge_index, x=self.lin(x), w=w)

    def message(self, x_j: Tensor, w: Tensor | None) -> Tensor:
        return x_j if w is None else w[:, None] * x_j


class Stack(nn.Module):
    """Two layers on the part of a sampled graph that each of them needs, and torch_geometric's the same."""

    def __init__(self, written: bool):
        super().__init__()
        made = (lambda f, out: text(WEIGHTED, out, features=f)) if written else Weighted
        self.layers = nn.ModuleList([made(4, 6), made(6, 3)]).double()

    def forward(self, x: Tensor, graph: Tensor, w: Tensor | None = None, sampled: Any = None) -> Tensor:
        for k, layer in enumerate(self.layers):
            if sampled is not None:
                x, graph, w = utils.trim_to_layer(k, *sampled, x, graph, w)
            x = layer(x, graph, w)
        return x


def _slopes(y: Tensor, *of: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(y.sin().sum(), of))


def test_layers_on_what_they_need_of_a_sample() -> None:
    ours, theirs = Stack(True), Stack(False)
    theirs.load_state_dict(ours.state_dict())
    graph = torch.tensor([[1, 2, 3, 4, 4], [0, 0, 1, 2, 1]])  # one node, two neighbours, two of theirs
    x, w = X[:5].clone().requires_grad_(), torch.rand(5, dtype=torch.float64, requires_grad=True)
    whole = ours(x, graph, w)
    found, expected = (layers(x, graph, w, ([1, 2, 2], [2, 3])) for layers in (ours, theirs))
    assert len(found) == 3 and torch.allclose(found[:1], whole[:1], atol=1e-10)
    same([found, *_slopes(found, x, w)], [expected, *_slopes(expected, x, w)])


@pytest.mark.parametrize("leaf", ["MessagePassing", None])
def test_a_summary(leaf: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """By torch_geometric, which puts hooks on the modules."""
    table = types.ModuleType("tabulate")  # what prints the table is another package
    table.tabulate = lambda rows, **kwargs: "\n".join(str(row) for row in rows)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tabulate", table)
    ours, theirs = Stack(True), Stack(False)
    before = ours(X, GRAPH)
    found, expected = (pyg.summary(made, X, GRAPH, leaf_module=leaf, max_depth=3) for made in (ours, theirs))
    assert found.split("\n") == [row for row in expected.split("\n") if "aggr_module" not in row]
    assert ("(lin)Linear" in found) == (leaf is None) and "(0)Weighted" in found
    assert torch.equal(ours(X, GRAPH), before)
