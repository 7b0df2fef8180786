"""Dims without a place: results without numbers, or what a reduction gives for nothing, the same on all backends."""

from __future__ import annotations

import math

import pytest
import torch

import gdsl
import gdsl.nn as G

EDGES = torch.tensor([[0, 1, 2, 0], [1, 2, 0, 2]])
TEXTS = {
    "max": ("max[d](x)", (3,), -math.inf),
    "min": ("min[d](x)", (3,), math.inf),
    "sum": ("sum[d](x)", (3,), 0.0),
    "norm": ("norm(x)", (3,), 0.0),
    "softmax": ("softmax[d](x)", (3, 0), 0.0),
    "log softmax": ("x - logsumexp[d](x)", (3, 0), 0.0),
    "neighbours' maximum": ("max(x[j])", (3, 0), 0.0),
    "neighbours' softmax": ("sum(softmax(x[j]) * x[j])", (3, 0), 0.0),
    "heads": ("mean[h](split(x, d, h=2, c=0))", (3, 0), 0.0),
}


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("backend", ["torch", pytest.param("cpp", marks=pytest.mark.slow)])
def test_reductions(backend: str, kind: str) -> None:
    expression, shape, value = TEXTS[kind]
    if kind == "heads":
        expression = "mean[h](split(x, d, h, c))"
        layer = gdsl.compile(f"layer L(h, c) {{ node x[d]  update y = {expression} }}", h=2, c=0, d=0, backend=backend)
    else:
        rule = "aggregate a" if "x[j]" in expression else "a"
        layer = gdsl.compile(f"layer L {{ node x[d]  {rule} = {expression}  update y = a }}", backend=backend)
    x = torch.zeros(3, 0, requires_grad=True)
    y = layer(x, EDGES)
    torch.testing.assert_close(y, torch.full(shape, value))
    if y.requires_grad:
        (grad,) = torch.autograd.grad(y.sum(), x, allow_unused=True)
        assert grad is None or grad.shape == x.shape


@pytest.mark.parametrize("backend", ["torch", "cpp"])
@pytest.mark.parametrize("inputs", [0, 2])
def test_relations_of_nodes_without_features(backend: str, inputs: int) -> None:
    """Sums by relation, and products that are grouped by it."""
    by = "aggregate a = sum(x[j]) by rel update y = a[0] + a[1]"
    layer = gdsl.compile(f"layer L(d) {{ node x[d] edge rel: int(2) {by} }}", d=inputs, backend=backend)
    rel = torch.tensor([0, 1, 1, 0])
    x = torch.ones(3, inputs, requires_grad=True)
    y = layer(x, EDGES, rel)
    y.sum().backward()
    torch.testing.assert_close(y, torch.tensor([[1.0], [1.0], [2.0]]).expand(3, inputs))
    assert x.grad is not None and x.grad.shape == (3, inputs)
    conv = G.RGCNConv(3, inputs, 2)  # as many outputs as the text has inputs
    conv.backend = backend
    y = conv(torch.ones(3, 3), EDGES, rel)
    y.sum().backward()
    assert y.shape == (3, inputs) and all(p.grad is not None for p in conv.parameters() if p.numel())


@pytest.mark.parametrize("backend", ["torch", "cpp"])
def test_layers_without_outputs(backend: str) -> None:
    layer = G.GATConv(3, 0, heads=2)
    layer.backend = backend
    assert layer(torch.randn(3, 3), EDGES).shape == (3, 0)
