"""A softmax by a key, its logarithm, numbers as integers, and inputs that are the same everywhere, against torch."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import gdsl
from gdsl.look.measure import most_of_tensors

EDGES = torch.tensor([[0, 1, 2, 3, 4, 0, 2, 1], [1, 2, 0, 0, 5, 5, 2, 0]])
REL = torch.tensor([0, 1, 2, 2, 0, 0, 1, 0])
HEAD = "layer L(R) { node x edge s edge rel: int(R) "


def call(text: str, s: Tensor, backend: str = "cpp", **more: Tensor) -> Tensor:
    made = gdsl.compile(HEAD + text + " }", R=3, backend=backend)
    result: Tensor = made(torch.ones(6, dtype=s.dtype), graph=EDGES, s=s, rel=REL, **more)
    return result


@pytest.mark.parametrize("backend", ["cpp", "torch"])
@pytest.mark.parametrize("end", ["i", "j"])
@pytest.mark.parametrize("masked", [False, True])
def test_softmax_by(backend: str, end: str, masked: bool) -> None:
    s = torch.linspace(-3, 900, 8, dtype=torch.float64)
    s = torch.where(torch.arange(8) % 3 == 0, -math.inf, s) if masked else s
    found = call(f"a = softmax(s) by rel at {end} return a", s, backend)
    key = EDGES[1 if end == "i" else 0] * 3 + REL
    for k in key.unique():
        own = s[key == k]
        expected = own.softmax(0) if own.isfinite().any() else torch.zeros_like(own)
        assert torch.allclose(found[key == k], expected)


@pytest.mark.parametrize("backend", ["cpp", "torch"])
def test_log_softmax(backend: str) -> None:
    """Where exp would overflow, or give 0."""
    s = torch.tensor([-1000.0, 3, 1000, -math.inf, 0.1, 0.3, -7, 2], dtype=torch.float64)
    found = call("a = log_softmax(s) return a", s, backend)
    for k in EDGES[1].unique():
        assert torch.allclose(found[EDGES[1] == k], s[EDGES[1] == k].log_softmax(0))
    made = gdsl.compile("layer L { node x[d] y = log_softmax[d](x) return y }", backend=backend)
    x = torch.stack([s, -s, 0 * s])[:, [0, 1, 2, 4]]
    assert torch.allclose(made(x, torch.empty(2, 0, dtype=torch.long)), x.log_softmax(1))


@pytest.mark.parametrize("backend", ["cpp", "torch"])
def test_int(backend: str) -> None:
    s = torch.tensor([-5.0, -0.1, 0, 0.9, 1, 1.99, 2.5, 99])
    found = call("buffer t[R] ~ arange a = t[int(s, R)] return a", s, backend)
    assert found.tolist() == [0, 0, 0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("backend", ["cpp", "torch"])
def test_a_global_input_takes_what_all_its_readers_give(backend: str) -> None:
    made = gdsl.compile("layer L(d) { node x[d] global q[d, k] update y = sum(x[j]) @ q }", d=2, backend=backend)
    x = torch.randn(6, 2, dtype=torch.float64)
    q = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    y = made(x, q, EDGES)
    expected = torch.zeros_like(x).index_add(0, EDGES[1], x[EDGES[0]]) @ q
    assert torch.allclose(y, expected)
    (g,), (h,) = (torch.autograd.grad(v.sin().sum(), q) for v in (y, expected))
    assert torch.allclose(g, h)
    with pytest.raises(gdsl.InputError, match=r"`q` must have shape \[d = 2, k = 3\]|has size"):
        made(x, torch.randn(4, 3, dtype=torch.float64), EDGES)


def test_a_global_input_with_a_default() -> None:
    made = gdsl.compile("layer L(d) { node x[d] global t = 2 update y = t * sum(x[j]) }", d=2)
    x = torch.randn(6, 2)
    expected = torch.zeros_like(x).index_add(0, EDGES[1], x[EDGES[0]])
    assert torch.allclose(made(x, EDGES), 2 * expected)
    assert torch.allclose(made(x, EDGES, torch.tensor(0.5)), 0.5 * expected)


TABLE = "layer L(R, d) { node x[d] edge rel: int(R) global r[R, d]"


@pytest.mark.parametrize("text", ["sum(x[j] * r[rel])", "sum(tanh(x[j] + r[rel]) * x[i])", "max(x[j] * r[rel])"])
@pytest.mark.parametrize("backend", ["cpp", "torch"])
def test_rows_of_a_table_of_the_call_are_read_by_edges(backend: str, text: str) -> None:
    """No table for each node, [N, R, d], and in a kernel no row for each edge, [E, d], either: forward and backward."""
    nodes, size, width, edges = 300, 200, 8, 2000
    g = torch.Generator().manual_seed(0)
    graph = gdsl.Graph(torch.randint(nodes, (2, edges), generator=g), nodes)
    rel = torch.randint(size, (edges,), generator=g)
    made = gdsl.compile(f"{TABLE} update y = {text} }}", R=size, d=width, backend=backend)
    x, r = (torch.randn(n, width, generator=g, requires_grad=True) for n in (nodes, size))

    def both() -> None:
        x.grad = r.grad = None
        made(x, r, graph, rel).sum().backward()

    both()  # compiled
    assert r.grad is not None and r.grad.norm() > 0
    row = width * r.element_size()
    assert most_of_tensors(both) < {"cpp": 1, "torch": 16}[backend] * edges * row < nodes * size * row
