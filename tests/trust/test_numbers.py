"""Floating-point numbers: infinities and NaN as in torch, long sums, the same bits again.

C++ adds float32 numbers in float32: the edges of a row one after the other, a hub's in chunks of 4,096 edges whose sums
are added in order, a weight's gradient in groups of rows likewise. The torch backend adds in double precision.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import gdsl
from gdsl import nn
from gdsl.nn import scatter
from gdsl.nn.softmax import softmax
from gdsl.runtime.triton import interpreted

BACKENDS = ["torch", "cpp", *(["triton"] if interpreted() else [])]
EDGES = 1_000_000
NODES = {"a hub": 3, "rows of ten": 100_000, "rows of a thousand": 1000}
DRAWN = {
    "positive": lambda *shape: torch.rand(*shape, dtype=torch.float64),
    "of both signs": lambda *shape: torch.randn(*shape, dtype=torch.float64) + 0.5,
    "of many sizes": lambda *shape: torch.exp(4 * torch.randn(*shape, dtype=torch.float64)),
}

SUM = """
layer Sum(d = 4) {
    param weight[d, d'] ~ glorot
    node x[d]
    edge w
    aggregate a = sum(w * x[j])
    aggregate b = mean(w * (x @ weight)[j])
    return a, b
}
"""


def case(nodes: int, draw: Any) -> tuple[Tensor, Tensor, Tensor]:
    """A graph, features and weights. A hub takes all edges but few."""
    source, target = torch.randint(nodes, (2, EDGES))
    if nodes == 3:
        target[1000:] = 1
    return torch.stack([source, target]), draw(nodes, 4), draw(EDGES)


def results(made: gdsl.Layer, edges: Any, x: Tensor, w: Tensor) -> list[Tensor]:
    """Outputs, and gradients by x, w and the weight."""
    x, w = x.clone().requires_grad_(), w.clone().requires_grad_()
    outputs = made(x, edges, w)
    loss = sum((o * (1.1 + torch.cos(torch.arange(o.numel(), dtype=o.dtype))).view_as(o)).sum() for o in outputs)
    return [o.detach() for o in outputs] + list(torch.autograd.grad(loss, [x, w, made.weight]))


@pytest.mark.parametrize("backend", ["torch", "cpp", pytest.param("triton", marks=pytest.mark.slow)])
@pytest.mark.parametrize("numbers", DRAWN)
@pytest.mark.parametrize("rows", NODES)
def test_sums_over_a_million_edges(rows: str, numbers: str, backend: str) -> None:
    """In float32 within 1e-5 of float64, of the sum of magnitudes where terms cancel."""
    edges, x, w = case(NODES[rows], DRAWN[numbers])
    exact = gdsl.compile(SUM, backend="torch").double()
    single = gdsl.compile(SUM, backend=backend)
    single.load_state_dict(exact.state_dict())
    exact.load_state_dict(single.state_dict())
    x, w = x.float().double(), w.float().double()  # so that only sums are rounded
    expected, found = results(exact, edges, x, w), results(single, edges, x.float(), w.float())
    with torch.no_grad():
        exact.weight.abs_()
    scale = results(exact, edges, x.abs(), w.abs())
    if backend == "torch":
        found[-1] = expected[-1]  # a dense product, which is torch's own: 9e-5 was seen
    for a, b, s in zip(found, expected, scale, strict=True):
        assert (a.double() - b).norm() <= 1e-5 * s.norm()


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_same_bits_again(backend: str) -> None:
    """On repeat, on copies of the inputs, and whether the graph is a Graph or a list of edges."""
    edges, x, w = case(50, DRAWN["of many sizes"])
    count = 500 if backend == "triton" else 20_000
    edges, w = edges[:, :count], w[:count]
    made = gdsl.compile(SUM, backend=backend)
    first = results(made, edges, x.float(), w.float())
    for graph in (edges, edges.clone(), gdsl.Graph(edges, 50), edges.to(torch.int32)):
        for a, b in zip(first, results(made, graph, x.float().clone(), w.float().clone()), strict=True):
            assert torch.equal(a, b)


REDUCED = """
layer Reduced(d = 2) {
    node x[d]
    edge s
    total    = sum(s * x[j])
    average  = mean(x[j])
    highest  = max(x[j])
    lowest   = min(x[j])
    weighted = sum(softmax(s) * x[j])
    return total, average, highest, lowest, weighted
}
"""


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 1e38, -1e38, 1e-40], ids=str)
def test_numbers_flow_as_in_torch(value: float, backend: str) -> None:
    """Sums, maxima and softmaxes of a row are those of torch on the row's values, NaN for NaN."""
    edges = torch.tensor([[0, 1, 2, 3, 1, 2, 3, 3, 1], [0, 0, 0, 1, 1, 2, 2, 3, 4]])
    x = torch.randn(5, 2)
    x[1, 0] = value
    s = torch.randn(9)
    with torch.no_grad():
        found = gdsl.compile(REDUCED, backend=backend)(x, edges, s)
    for node in range(5):
        into = edges[1] == node
        rows, scores = x[edges[0, into]], s[into, None]
        expected = [(scores * rows).sum(0), rows.mean(0), rows.amax(0), rows.amin(0), (scores.softmax(0) * rows).sum(0)]
        for a, b in zip(found, expected, strict=True):
            assert torch.allclose(a[node], b, rtol=1e-5, atol=1e-38, equal_nan=True)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_softmax_of_extreme_scores(dtype: torch.dtype, backend: str) -> None:
    """±1e4, and rows with one -inf, as torch.softmax on each row, and nothing but -inf, which is 0; gradients too."""
    inf = torch.inf
    rows = [[1e4, -1e4, 9999.0], [1e4, 1e4], [-1e4, -1e4, -1e4], [-inf, 0.0], [-inf, -inf], [3.0], [-1e4]]
    edges = torch.tensor([[n % 3 for n, r in enumerate(rows) for _ in r], [n for n, r in enumerate(rows) for _ in r]])
    s = torch.tensor([v for r in rows for v in r], dtype=dtype, requires_grad=True)
    x = torch.randn(len(rows), 2, dtype=dtype)
    text = "layer S(d = 2) { node x[d] edge s alpha = softmax(s) return alpha, sum(alpha * x[j]) }"
    made = gdsl.compile(text, backend=backend)
    alpha, y = made(x, edges, s)
    scores = s.split([len(r) for r in rows])
    parts = [p.softmax(0) if p.isfinite().any() else torch.zeros_like(p) for p in scores]
    sums = torch.stack([(p[:, None] * x[edges[0, edges[1] == n]]).sum(0) for n, p in enumerate(parts)])
    expected = torch.cat(parts)
    assert torch.allclose(alpha, expected, equal_nan=True) and torch.allclose(y, sums, equal_nan=True)
    usable = y.isfinite()
    (found,) = torch.autograd.grad(y[usable].square().sum(), s, retain_graph=True)
    (wanted,) = torch.autograd.grad(sums[usable].square().sum(), s)
    assert torch.allclose(found, wanted, equal_nan=True, atol=1e-6)


@pytest.mark.parametrize("op", ["x / z", "mod(x, z)", "mod(z, x)", "log(z) + x", "sqrt(z) * x", "pow(z, x) + x"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_node_that_no_edge_reads_has_no_gradient(backend: str, op: str) -> None:
    """Also where a function of its value has no derivative there: node 3 holds 0, and node 2 a negative number."""
    text = f"layer L(d = 2) {{ node x[d] node z[d] return sum({op.replace('x', 'x[j]').replace('z', 'z[j]')}) }}"
    edges = torch.tensor([[0, 1, 1], [1, 2, 3]])
    x, z = torch.rand(2, 4, 2, dtype=torch.float64) + 1.3
    z[2], z[3], x[3] = -1.0, 0.0, 0.0
    leaves = [x.requires_grad_(), z.requires_grad_()]
    found = torch.autograd.grad(gdsl.compile(text, backend=backend)(x, z, gdsl.Graph(edges, 4)).sum(), leaves)
    for g in found:
        assert g.isfinite().all()
        assert not g[2:].any()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("offset", [0.0, 1e2, 1e4, -1e6])
@pytest.mark.parametrize("end", ["i", "j"])
def test_deviations_of_large_numbers(end: str, offset: float, backend: str) -> None:
    """In float32 the values and two derivatives that float64 has for the same numbers, though the mean is up to 1e5
    times the spread: by two walks, and not E[x^2] - E[x]^2, of which all digits cancel."""
    edges = torch.randint(0, 6, (2, 40))
    x = (torch.rand(6, 3) * 8 + offset).requires_grad_()
    m = f"(x[{'j' if end == 'i' else 'i'}]) at {end}"
    made = gdsl.compile(f"layer S(d) {{ node x[d] v = var{m} s = std{m} return v, s }}", d=3, backend=backend)

    def derivatives(function: Any, x: Tensor) -> list[Tensor]:
        outputs = function(x)
        pitch = torch.arange(18, dtype=x.dtype).view(6, 3)
        score = sum((o * (pitch + k).cos()).sum() for k, o in enumerate(outputs))
        (first,) = torch.autograd.grad(score, x, create_graph=True)
        (second,) = torch.autograd.grad((first * pitch.sin()).sum(), x)
        return [*(o.detach() for o in outputs), first.detach(), second]

    def truth(x: Tensor) -> list[Tensor]:
        rows, others = (edges[1], edges[0]) if end == "i" else (edges[0], edges[1])
        parts = [x[others[rows == n]] for n in range(6)]
        var = torch.stack([p.var(0, unbiased=False) if len(p) else x.new_zeros(3) for p in parts])
        return [var, var.where(var > 0, 1.0).sqrt().where(var > 0, 0.0)]

    exact = x.detach().double().requires_grad_()
    found = derivatives(lambda x: made(x, gdsl.Graph(edges, 6)), x)
    for a, b in zip(found, derivatives(truth, exact), strict=True):
        assert (a.double() - b).abs().max() <= 1e-4 * b.abs().max()


@pytest.mark.parametrize("backend", BACKENDS)
def test_deviations_of_equal_numbers_are_zero_with_their_gradient(backend: str) -> None:
    """Where torch's gradient of a deviation is NaN: of equal numbers, of one, and of none. By relation too."""
    text = """layer S(d = 2) { node x[d] edge r: int(2)
        return var(x[j]), std(x[j]), std(x[j]) by r, var(x[j]) by r }"""
    edges, kinds = torch.tensor([[0, 1, 2, 3, 3], [0, 0, 0, 1, 2]]), torch.tensor([0, 0, 1, 1, 0])
    x = torch.full((5, 2), 0.1).requires_grad_()
    outputs = gdsl.compile(text, backend=backend)(x, edges, kinds)
    (gradient,) = torch.autograd.grad(sum(o.sum() for o in outputs), x)
    for value in (*outputs, gradient):
        assert value.abs().max() < 1e-3


AGGREGATORS = ["sum", "mean", "max", "min", "mul", "var", "std", "logsumexp", "median", "quantile"]


def by_torch(name: str, rows: Tensor) -> Tensor:
    """An aggregator of the rows of one group."""
    if not len(rows):
        return rows.new_full(rows.shape[1:], {"mul": 1.0, "logsumexp": -torch.inf}.get(name, 0.0))
    return {
        "sum": lambda: rows.sum(0),
        "mean": lambda: rows.mean(0),
        "max": lambda: rows.amax(0),
        "min": lambda: rows.amin(0),
        "mul": lambda: rows.prod(0),
        "var": lambda: rows.var(0, unbiased=False),
        "std": lambda: rows.std(0, unbiased=False),
        "logsumexp": lambda: rows.logsumexp(0),
        "median": lambda: rows.median(0).values,
        "quantile": lambda: rows.quantile(0.3, 0),
    }[name]()


def aggregator(name: str, value: str) -> str:
    return f"{name}({value}, 0.3)" if name == "quantile" else f"{name}({value})"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf], ids=str)
@pytest.mark.parametrize("name", AGGREGATORS)
def test_no_aggregator_swallows_nan_or_infinity(name: str, value: float, backend: str) -> None:
    edges = torch.tensor([[0, 1, 2, 3, 1, 2, 3, 3, 1], [0, 0, 0, 1, 1, 2, 2, 3, 4]])
    x = torch.rand(6, 2) + 0.5
    x[1, 0] = x[3, 1] = value
    text = f"layer A(d = 2) {{ node x[d] return {aggregator(name, 'x[j]')} }}"
    with torch.no_grad():
        found = gdsl.compile(text, backend=backend)(x, gdsl.Graph(edges, 6))
    wanted = torch.stack([by_torch(name, x[edges[0, edges[1] == n]]) for n in range(6)])
    assert torch.allclose(found, wanted, equal_nan=True, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", AGGREGATORS)
def test_every_aggregator_pools(name: str, backend: str) -> None:
    """Over the nodes of each graph, of which one has none, with two derivatives."""
    text = f"layer P(d = 2) {{ node x[d] pool q = {aggregator(name, 'x')} return q }}"
    made = gdsl.compile(text, backend=backend)
    batch = torch.tensor([0, 0, 0, 1, 1, 1, 1, 3])
    x = torch.rand(8, 2, dtype=torch.float64).requires_grad_()
    none = torch.zeros(2, 0, dtype=torch.long)

    def derivatives(y: Tensor) -> list[Tensor]:
        score = (y[[0, 1, 3]].square() * torch.arange(1.0, 7.0).view(3, 2).double()).sum()
        (first,) = torch.autograd.grad(score, x, create_graph=True)
        (second,) = torch.autograd.grad((first * x.detach().cos()).sum(), x)
        return [y, first, second]

    parts = [by_torch("var" if name == "std" else name, x[batch == g]) for g in range(4)]
    wanted = torch.stack(parts)
    if name == "std":
        wanted = wanted.where(wanted > 0, 1.0).sqrt().where(wanted > 0, 0.0)
    for a, b in zip(derivatives(made(x, none, batch=batch, num_graphs=4)), derivatives(wanted), strict=True):
        assert torch.allclose(a, b, atol=1e-10)


OVER_NOTHING = {
    "max": -torch.inf, "min": torch.inf, "logsumexp": -torch.inf, "sum": 0.0, "mean": 0.0, "var": 0.0, "std": 0.0,
    "norm": 0.0, "mul": 1.0,
}  # fmt: skip


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", [*OVER_NOTHING, "softmax"])
def test_a_dim_of_size_zero(name: str, backend: str) -> None:
    made = gdsl.compile(f"layer Z(d) {{ node x[d] h = {name}[d](x) return h, sum(h[j]) }}", d=0, backend=backend)
    x = torch.zeros(4, 0).requires_grad_()
    edges = torch.tensor([[0, 1, 2], [1, 2, 2]])
    y, summed = made(x, gdsl.Graph(edges, 4))
    if name == "softmax":
        assert y.shape == summed.shape == (4, 0)
    else:
        value = OVER_NOTHING[name]
        assert torch.equal(y, torch.full((4,), value))
        assert torch.equal(summed, torch.tensor([0.0, value, 2 * value, 0.0]))
    (g,) = torch.autograd.grad(y.sum() + summed.sum(), x, create_graph=True)
    assert g.shape == (4, 0)


HUB = """
layer Hub(d = 2) {
    node x[d]
    edge w = 1
    graph symmetric_norm(w)
    return sum(w * x[j])
}
layer Hub2(d = 2) {
    node x[d]
    return mean(x[j]), var(x[j]), std(x[j]), sum(softmax(x[j]) * x[j]), quantile(x[j], 0.3), mean(x[j] * 1.01171875)
}
"""


@pytest.mark.parametrize("backend", ["torch", "cpp"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_numbers_of_16_bits_on_a_hub_of_many_edges(dtype: torch.dtype, backend: str) -> None:
    """70,000 edges, more than float16 counts to: values and gradients are those of float32, rounded once."""
    edges = torch.stack([torch.arange(70_000) % 50, torch.zeros(70_000, dtype=torch.long)])
    x = (torch.rand(50, 2) + 0.5).to(dtype)
    weights = torch.randn(50, 2).to(dtype)

    def results(text: str, x: Tensor, backend: str) -> list[Tensor]:
        leaf = x.clone().requires_grad_()
        outputs = gdsl.compile(text, backend=backend)(leaf, gdsl.Graph(edges, 50))
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        loss = sum((o * weights.to(o.dtype)).sum() for o in outputs)
        return [*(o.detach() for o in outputs), torch.autograd.grad(loss, leaf)[0]]

    for text in HUB.split("layer ")[1:]:
        found, wanted = results("layer " + text, x, backend), results("layer " + text, x.float(), "torch")
        for a, b in zip(found, wanted, strict=True):
            assert a.dtype is dtype
            torch.testing.assert_close(a.float(), b, rtol=2 * torch.finfo(dtype).eps, atol=2e-2 * float(b.abs().max()))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_constant_is_not_rounded_before_it_is_used(backend: str) -> None:
    made = gdsl.compile("layer C(d = 1) { node x[d] return sum(x[j] * 1.01171875) }", backend=backend)
    y = made(torch.full((1, 1), 3.0, dtype=torch.bfloat16), torch.tensor([[0], [0]]))
    assert y.item() == 3.03125


@pytest.mark.parametrize(
    "function",
    [
        lambda x, index: softmax(x, index, num_nodes=9),
        lambda x, index: scatter.aggregate(nn.aggr.SumAggregation(), x, index, 9, 0),
        lambda x, index: scatter.aggregate(nn.aggr.MaxAggregation(), x, index, 9, 0),
        lambda x, index: nn.aggr.MulAggregation()(x, index, dim_size=9),
        lambda x, index: nn.aggr.AttentionalAggregation(torch.nn.Identity())(x, index, dim_size=9),
    ],
    ids=["softmax", "sum", "max", "mul", "attention"],
)
def test_an_int32_index_in_torch(function: Any) -> None:
    """torch 2.13 reads other rows than an expanded int32 index names, in gather and in the gradient of scatter_add."""
    index = torch.randint(9, (14,))
    found = []
    for dtype in (torch.int64, torch.int32):
        x = torch.linspace(0.1, 3, 14 * 8).view(14, 8).requires_grad_()
        y = function(x, index.to(dtype))
        found.append((y, *torch.autograd.grad((y * torch.arange(y.numel()).view_as(y)).sum(), x)))
    for wanted, here in zip(*found, strict=True):
        torch.testing.assert_close(here, wanted)
