"""What the operands of several modules have in common is computed once."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gdsl
from gdsl.ir.node import walk

N, D = 6, 3
SOURCES, TARGETS = torch.tensor([0, 1, 2, 3, 4, 0, 2]), torch.tensor([1, 2, 3, 4, 5, 5, 0])
EDGES = torch.stack([SOURCES, TARGETS])

GATED = """
layer Gated(d) {
    node x[d]
    edge e[d]
    module of_nodes
    module of_edges
    linear A(d -> d, bias = false)
    linear B(d -> d, bias = false)
    linear C(d -> d, bias = false)
    s = C(e) + A(x)[i] + B(x)[j]
    gate = sigmoid(s)
    aggregate num = sum(gate * A(x)[j])
    aggregate den = sum(gate)
    y = x + of_nodes(num / (den + 1e-6))
    f = e + of_edges(s)
    return y, f
}
"""

SAME = """
layer Same(d) {
    node x[d]
    edge e[d]
    module of_nodes
    module of_edges
    linear A(d -> d, bias = false)
    linear B(d -> d, bias = false)
    linear C(d -> d, bias = false)
    aggregate h = sum(x[j] * e)
    t = A(B(C(h)))
    y = of_nodes(t; d) + t
    z = of_edges(t; d) * h
    return y, z
}
"""


def _summed(m: Tensor) -> Tensor:
    return m.new_zeros(N, D).index_add(0, TARGETS, m)


def gated(layer: Any, x: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
    s = layer.C(e) + layer.A(x)[TARGETS] + layer.B(x)[SOURCES]
    gate = s.sigmoid()
    h = _summed(gate * layer.A(x)[SOURCES]) / (_summed(gate) + 1e-6)
    return x + layer.of_nodes(h), e + layer.of_edges(s)


def same(layer: Any, x: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
    h = _summed(x[SOURCES] * e)
    t = layer.A(layer.B(layer.C(h)))
    return layer.of_nodes(t) + t, layer.of_edges(t) * h


PROGRAMS = {"gated": (GATED, gated, {"contract": 3, "segment": 2}), "same": (SAME, same, {"contract": 3, "segment": 1})}


def make(text: str, backend: str, part: type[nn.BatchNorm1d] = nn.BatchNorm1d) -> Any:
    torch.manual_seed(0)
    return gdsl.compile(text, d=D, backend=backend, of_nodes=part(D), of_edges=part(D)).double()


def inputs() -> list[Tensor]:
    g = torch.Generator().manual_seed(1)
    return [torch.randn(n, D, generator=g, dtype=torch.float64).requires_grad_() for n in (N, len(SOURCES))]


def gradients(results: Any, wrt: list[Tensor]) -> list[Tensor]:
    return [*results, *torch.autograd.grad(sum((k + 1.0) * r.square().sum() for k, r in enumerate(results)), wrt)]


@pytest.mark.parametrize("backend", ["torch", "cpp"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_products_and_sums_are_computed_once(name: str, backend: str) -> None:
    text, plain, counts = PROGRAMS[name]
    layer = make(text, backend)
    twin = copy.deepcopy(layer)
    x, e = inputs()
    weights = [[lin.weight for lin in (m.A, m.B, m.C)] for m in (layer, twin)]
    found = gradients(layer(x, EDGES, e), [x, e, *weights[0]])
    for a, b in zip(found, gradients(plain(twin, x, e), [x, e, *weights[1]]), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    for a, b in zip(layer.buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(a, b)
    stages = layer._ran()[0].compiled.stages
    assert len(stages) == 3
    ops = Counter(n.op for stage in stages for n in walk(stage.program.nodes))
    assert {op: ops[op] for op in counts} == counts


def test_under_torch_compile() -> None:
    for text, plain in ((GATED, gated),):
        layer = make(text, "torch")
        twin = copy.deepcopy(layer)
        x, e = inputs()
        found = gradients(torch.compile(layer, backend="eager", fullgraph=True)(x, EDGES, e), [x, e, layer.A.weight])
        for a, b in zip(found, gradients(plain(twin, x, e), [x, e, twin.A.weight]), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
        torch._dynamo.reset()


class Writing(nn.BatchNorm1d):
    """A module that nobody expects to write to its argument."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.add_(1.0))


@pytest.mark.parametrize("backend", ["torch", "cpp"])
@pytest.mark.parametrize("operand", ["h", "t"])
def test_what_is_kept_is_no_variable_of_a_module_s(operand: str, backend: str) -> None:
    text = SAME.replace("of_nodes(t; d)", f"of_nodes({operand}; d)")
    layer = make(text, backend, Writing)
    twin = copy.deepcopy(layer)
    for grad in (True, False):
        x, e = (t.requires_grad_(grad) for t in inputs())
        h = _summed(x[SOURCES] * e)
        t = twin.A(twin.B(twin.C(h)))
        wanted = twin.of_nodes((h if operand == "h" else t).clone()) + t, twin.of_edges(t.clone()) * h
        for a, b in zip(layer(x, EDGES, e), wanted, strict=True):
            torch.testing.assert_close(a, b)


def test_turns_of_a_loop() -> None:
    text = """layer Turns(d, K = 4) {
        node x[d]
        module f
        linear w(d -> d)
        h = x
        for k in 1..K { h = f(w(h)) + h }
        return h
    }"""
    layer = gdsl.compile(text, d=D, f=nn.BatchNorm1d(D), backend="torch").double()
    x = inputs()[0]
    h = x
    for _ in range(4):
        h = layer.f(layer.w(h)) + h
    torch.testing.assert_close(layer(x, EDGES), h)
