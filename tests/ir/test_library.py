"""Composite functions against torch: values, gradients at the awkward places, and empty segments."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import gdsl

Reference = Callable[..., Tensor]

# Node 5 has no edges in; node 4 has one; nodes 0 and 1 share parallel edges and a self-loop.
EDGES = torch.tensor([[0, 0, 1, 2, 3, 3, 5, 2, 1], [1, 1, 1, 0, 0, 0, 2, 3, 4]])
NODES = 6
WIDE = torch.tensor([-1e4, -30.0, -2.0, -0.5, 0.0, 0.5, 2.0, 30.0, 1e4], dtype=torch.float64)


def run(body: str, *inputs: Tensor, edges: Tensor = EDGES) -> Tensor:
    layer = gdsl.compile(f"layer L {{ {body} }}", backend="torch")
    result: Tensor = layer(*inputs, gdsl.Graph(edges, num_nodes=inputs[0].shape[0]))
    return result


def values(rows: int = NODES, width: int = 3) -> Tensor:
    return torch.randn(rows, width, dtype=torch.float64)


ACTIVATIONS: dict[str, Reference] = {
    "elu(x, 0.7)": lambda x: functional.elu(x, 0.7),
    "selu(x)": functional.selu,
    "gelu(x)": functional.gelu,
    "silu(x)": functional.silu,
    "softplus(x)": functional.softplus,
    "log_sigmoid(x)": functional.logsigmoid,
    "clamp(x, -1, 2)": lambda x: x.clamp(-1, 2),
}


@pytest.mark.parametrize("text", ACTIVATIONS)
def test_activation(text: str) -> None:
    """Also far out, where e^x overflows: neither value nor gradient may become NaN."""
    ours, theirs = (WIDE[:, None].clone().requires_grad_() for _ in range(2))
    y, expected = run(f"node x[d] update y = {text}", ours), ACTIVATIONS[text](theirs)
    torch.testing.assert_close(y, expected, rtol=1e-8, atol=1e-8)
    y.sum().backward()
    expected.sum().backward()
    assert ours.grad is not None
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-6, atol=1e-6)


DIMS: dict[str, Reference] = {
    "mean[d](x)": lambda x: x.mean(1),
    "max[d](x)": lambda x: x.amax(1),
    "min[d](x)": lambda x: x.amin(1),
    "mul[d](x)": lambda x: x.prod(1),
    "norm[d](x)": lambda x: x.norm(dim=1),
    "norm(x)": lambda x: x.norm(dim=1),
    "var[d](x)": lambda x: x.var(1, correction=0),
    "std[d](x)": lambda x: x.std(1, correction=0),
    "softmax[d](x)": lambda x: x.softmax(1),
    "logsumexp[d](x)": lambda x: x.logsumexp(1),
}


@pytest.mark.parametrize("text", DIMS)
def test_over_a_dim(text: str) -> None:
    ours = values().requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    y, expected = run(f"node x[d] update y = {text}", ours), DIMS[text](theirs)
    torch.testing.assert_close(y, expected)
    weight = torch.randn_like(expected)
    assert ours.grad is None
    (y * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_dim_softmax_of_large_scores() -> None:
    x = torch.tensor([[1e4, -1e4, 0.0], [-math.inf, 0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(run("node x[d] update y = softmax[d](x)", x, edges=EDGES[:, :0]), x.softmax(1))


def test_vectors() -> None:
    p, q = values(), values()
    head = "node p[3] node q[3] update y ="
    torch.testing.assert_close(run(f"{head} dot(p, q)", p, q), (p * q).sum(1))
    torch.testing.assert_close(run(f"{head} cdist(p, q)", p, q), (p - q).norm(dim=1))
    torch.testing.assert_close(run(f"{head} cross(p, q)", p, q), torch.linalg.cross(p, q))


def test_norm_has_gradient_zero_at_zero() -> None:
    p = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    run("node p[3] update y = norm(p)", p, edges=EDGES[:, :0]).sum().backward()
    assert p.grad is not None
    assert p.grad.eq(0).all()


# ------------------------------------------------------------------------ over the edges of a node

SEGMENTS: dict[str, tuple[Reference, float]] = {
    # text: what it is for the rows of one node, and for a node with no edges in
    "sum(x[j])": (lambda m: m.sum(0), 0.0),
    "mean(x[j])": (lambda m: m.mean(0), 0.0),
    "max(x[j])": (lambda m: m.amax(0), 0.0),
    "min(x[j])": (lambda m: m.amin(0), 0.0),
    "mul(x[j])": (lambda m: m.prod(0), 1.0),
    "var(x[j])": (lambda m: m.var(0, correction=0), 0.0),
    "median(x[j])": (lambda m: m.median(0).values, 0.0),
    "quantile(x[j], 0.3)": (lambda m: m.quantile(0.3, 0), 0.0),
    "quantile(x[j], 1)": (lambda m: m.amax(0), 0.0),
    "logsumexp(x[j])": (lambda m: m.logsumexp(0), -math.inf),
    "sum(softmax(x[j]) * x[j])": (lambda m: (m.softmax(0) * m).sum(0), 0.0),
}


@pytest.mark.parametrize("text", SEGMENTS)
def test_over_edges(text: str) -> None:
    function, empty = SEGMENTS[text]
    ours = values().requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    y = run(f"node x[d] aggregate y = {text} return y", ours)
    rows = [theirs[EDGES[0, EDGES[1] == n]] for n in range(NODES)]
    expected = torch.stack([function(r) if len(r) else torch.full((3,), empty).double() for r in rows])
    torch.testing.assert_close(y, expected)
    # The empty row gives a constant: it must not spoil the gradient of the others.
    y[:5].sum().backward()
    expected[:5].sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_std_is_that_of_torch_geometric() -> None:
    """Below 1e-5 a variance counts as none: the gradient of a constant segment is 0, not infinite."""
    x = values()
    x[3] = x[2]  # all edges into node 0 carry the same value
    x.requires_grad_()
    y = run("node x[d] aggregate y = std(x[j]) return y", x)
    rows = [x[EDGES[0, EDGES[1] == n]] for n in range(NODES)]
    torch.testing.assert_close(y[1], rows[1].std(0, correction=0))
    assert y[[0, 2, 3, 4, 5]].eq(0).all()
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_softmax_of_large_and_infinite_scores() -> None:
    x = values()
    x[0], x[1], x[2] = 1e4, -1e4, -math.inf
    x.requires_grad_()
    y = run("node x[d] return softmax(x[j])", x)
    expected = torch.empty_like(y)
    for n in range(NODES):
        expected[EDGES[1] == n] = x.detach()[EDGES[0, EDGES[1] == n]].softmax(0)
    # Node 3 has no score but -inf.
    torch.testing.assert_close(y, expected.nan_to_num(0.0))


def test_by_relation() -> None:
    x, rel = values(), torch.tensor([0, 1, 1, 2, 2, 2, 0, 1, 0])
    source = "layer L {{ node x[d] edge rel: int(3) aggregate y = {}(x[j]) by rel return y }}"
    functions: dict[str, Reference] = {
        "sum": lambda m: m.sum(0),
        "mean": lambda m: m.mean(0),
        "max": lambda m: m.amax(0),
    }
    for name, function in functions.items():
        y = gdsl.compile(source.format(name), backend="torch")(x, gdsl.Graph(EDGES, num_nodes=NODES), rel)
        for n in range(NODES):
            for r in range(3):
                rows = x[EDGES[0, (EDGES[1] == n) & (rel == r)]]
                expected = function(rows) if len(rows) else torch.zeros(3).double()
                torch.testing.assert_close(y[n, r], expected)


def test_stack_keeps_edge_order() -> None:
    edges = torch.tensor([[1, 2, 0, 0, 2, 1], [0, 1, 0, 1, 2, 2]])
    x = values(3)
    y = run("node x[d] aggregate y = stack(x[j], 2) return y", x, edges=edges)
    expected = torch.stack([x[edges[0, edges[1] == n]] for n in range(3)])
    torch.testing.assert_close(y, expected)


def test_symmetric_norm() -> None:
    adjacency = torch.zeros(NODES, NODES, dtype=torch.float64)
    adjacency.index_put_((EDGES[1], EDGES[0]), torch.ones(EDGES.shape[1]).double(), accumulate=True)
    degree = adjacency.sum(1)
    root = torch.where(degree > 0, degree.rsqrt(), 0.0)
    x = values()
    y = run("node x[d] graph symmetric_norm aggregate y = sum(norm * x[j]) return y", x)
    torch.testing.assert_close(y, (root[:, None] * adjacency * root) @ x)


def test_one_hot() -> None:
    layer = gdsl.compile("layer L { node x[2] node kind: int(4) update y = one_hot(kind) }", backend="torch")
    kind = torch.tensor([0, 3, 1, 2, 2, 0])
    torch.testing.assert_close(layer(torch.zeros(NODES, 2), kind, EDGES), functional.one_hot(kind, 4).to(torch.float32))
