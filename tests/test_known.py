"""Calls like one before are checked as the first one was; a stream of graphs of ever new sizes is one kind of call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import gdsl
import gdsl.nn
from gdsl.kept import Kept
from gdsl.module import call as calls
from gdsl.runtime import cache

TEXT = """
layer L(d, o = 3) {
    param w[d, o] ~ glorot
    node x[d]
    node kind: int(4)
    edge e = none
    aggregate a = mean(x[j])
    if e { aggregate b = sum(e) update y = a @ w + b }
    else { update y = a @ w + kind }
}"""
PAIR = "layer P(d) { source x[d] target z[d] aggregate a = sum(x[j]) update y = a + z }"


def graph(nodes: int, edges: int, seed: int) -> Tensor:
    return torch.randint(nodes, (2, edges), generator=torch.Generator().manual_seed(seed))


def arguments(nodes: int, edges: int, seed: int = 0) -> tuple[Any, ...]:
    random = torch.Generator().manual_seed(seed)
    return (
        torch.randn(nodes, 4, generator=random).requires_grad_(),
        torch.randint(4, (nodes,), generator=random),
        graph(nodes, edges, seed),
    )


def sizes_of(text: Any) -> dict[str, int]:
    parts = (text, text.store, text.store.shared)
    return {name: len(kept) for part in parts for name, kept in vars(part).items() if isinstance(kept, Kept)}


@pytest.mark.parametrize("backend", ["torch", "cpp"])
def test_a_stream_of_new_sizes(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the first of a kind nothing is compiled or checked anew, and nothing grows."""
    layer = gdsl.compile(TEXT, d=4, backend=backend)
    for k in range(2):
        layer(*arguments(30, 60, k)).sum().backward()
    before = sizes_of(layer._text)
    monkeypatch.setattr(cache, "load", lambda *_, **__: pytest.fail("a kernel is compiled"))
    monkeypatch.setattr(calls, "checked", lambda *_: pytest.fail("a call is checked anew"))
    for k in range(20):
        x, kind, edges = arguments(26 + k, 52 + 2 * k, k)
        y = layer(x, kind, edges)
        y.sum().backward()
        sums = torch.zeros_like(x).index_add(0, edges[1], x[edges[0]])
        degree = torch.bincount(edges[1], minlength=len(x)).clamp(min=1)
        torch.testing.assert_close(y, sums / degree[:, None] @ layer.w + kind[:, None])
    assert sizes_of(layer._text) == before


@pytest.mark.parametrize("conv", [gdsl.nn.GCNConv(4, 3), gdsl.nn.SAGEConv(4, 3), gdsl.nn.GATConv(4, 3)], ids=str)
def test_a_stream_through_a_layer_of_the_library(conv: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for k in range(2):
        conv(arguments(30, 60, k)[0], graph(30, 60, k)).sum().backward()
    (text,) = conv._texts.values()
    before = sizes_of(text)
    monkeypatch.setattr(cache, "load", lambda *_, **__: pytest.fail("a kernel is compiled"))
    monkeypatch.setattr(calls, "checked", lambda *_: pytest.fail("a call is checked anew"))
    for k in range(10):
        x = arguments(26 + k, 52 + 2 * k, k)[0]
        conv(x, graph(26 + k, 52 + 2 * k, k)).sum().backward()
    assert sizes_of(text) == before


WRONG: dict[str, Callable[[], tuple[Any, ...]]] = {
    "fewer rows": lambda: (*arguments(30, 60)[:1], torch.zeros(29, dtype=torch.int64), graph(30, 60, 0)),
    "more rows": lambda: (arguments(31, 60)[0], arguments(30, 60)[1], graph(30, 60, 0)),
    "rows of another graph": lambda: (*arguments(30, 60)[:2], gdsl.Graph(graph(28, 60, 0), 28)),
    "two sets of nodes": lambda: (*arguments(30, 60)[:2], gdsl.Graph(graph(28, 60, 0), (28, 30))),
    "a node that there is not": lambda: (*arguments(30, 60)[:2], graph(40, 60, 0)),
    "a number out of range": lambda: (arguments(30, 60)[0], torch.full((30,), 4), graph(30, 60, 0)),
    "other features": lambda: (torch.randn(30, 5), *arguments(30, 60)[1:]),
    "no rows": lambda: (torch.randn(4), *arguments(30, 60)[1:]),
    "a number a graph": lambda: (arguments(30, 60)[0], torch.tensor(1), graph(30, 60, 0)),
    "another dtype": lambda: (torch.randn(30, 4).double(), *arguments(30, 60)[1:]),
    "edges by row": lambda: (*arguments(30, 60)[:2], graph(30, 60, 0).t()),
    "edges as real numbers": lambda: (*arguments(30, 60)[:2], graph(30, 60, 0).float()),
    "too few edge values": lambda: (*arguments(30, 60), torch.randn(59)),
}


@pytest.mark.parametrize("way", WRONG)
def test_the_same_errors_as_at_first(way: str) -> None:
    fresh, warm = (gdsl.compile(TEXT, d=4) for _ in range(2))
    for k in range(2):
        warm(*arguments(30, 60, k))
        warm(*arguments(30, 60, k), torch.randn(60))
    errors = []
    for layer in (fresh, warm):
        with pytest.raises(gdsl.GdslError) as raised:
            layer(*WRONG[way]())
        errors.append((type(raised.value), str(raised.value)))
    assert errors[0] == errors[1]


def test_a_pair_is_counted_by_each_of_its_own() -> None:
    layer = gdsl.compile(PAIR, d=2)
    for sources, targets in ((5, 3), (3, 5), (4, 4)):
        edges = torch.tensor([[0, sources - 1], [targets - 1, 0]])
        y = layer(torch.ones(sources, 2), torch.zeros(targets, 2), edges)
        assert y.shape == (targets, 2)
        assert y.sum() == 4
    with pytest.raises(gdsl.InputError, match="`z` has 3 rows, and the graph has 4 target nodes"):
        layer(torch.ones(5, 2), torch.zeros(3, 2), gdsl.Graph(edges, (5, 4)))
    assert len(layer._text.known) == 1


def test_a_parameter_that_became_another() -> None:
    """Its dtype, and its shape, may change in place."""
    layer = gdsl.compile(TEXT, d=4)
    for k in range(2):
        layer(*arguments(30, 60, k))
    layer.w.data = torch.randn(4, 3).double()
    with pytest.raises(gdsl.InputError, match=r"`x` is float32 and `w` is float64|`w` is float64 and `x` is float32"):
        layer(*arguments(30, 60))
    layer.w.data = torch.randn(3, 4)
    with pytest.raises(gdsl.InputError, match=r"`w` must have shape \[d = 4, o = 3\]"):
        layer(*arguments(30, 60))


def test_the_default_dtype_counts_where_there_are_only_integers() -> None:
    text = "layer B() { node x: int edge r: int update y = sum(r) * 0.5 + x }"
    warm, given = gdsl.compile(text), (torch.ones(3).long(), torch.zeros(2, 4).long(), torch.ones(4).long())
    found = [warm(*given).dtype for _ in range(3)]
    try:
        torch.set_default_dtype(torch.float64)
        found += [warm(*given).dtype, gdsl.compile(text)(*given).dtype]
    finally:
        torch.set_default_dtype(torch.float32)
    assert found == [torch.float32] * 3 + [torch.float64] * 2
