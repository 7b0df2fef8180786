"""Plain weighted sums as a vendor's sparse products: where the rule fires, and that nothing else changes."""

from __future__ import annotations

import pytest
import torch

import gdsl
from gdsl.ir.printer import expression
from gdsl.ir.program import Program
from gdsl.passes.options import Options
from gdsl.passes.pipeline import lower
from gdsl.passes.plan import TorchStep
from gdsl.passes.vendor import sparse_product
from tests.programs import harness
from tests.typed import typed_of

PLAIN = {
    "sum(x[j])": "sparse_product(x)",
    "sum(w * x[j])": "sparse_product(x, w)",
    "sum(x[j] * w)": "sparse_product(x, w)",
    "sum(x[i]) at j": "sparse_product(x)",
    "sum(tanh(w) * x[j])": "sparse_product(x, tanh(w))",
    "sum(s[j])": "sparse_product(s)",
    "sum(w * s[j] * x[j])": "sparse_product(x, w * s[j])",
}
OTHERS = ["sum(w * tanh(x[j] + w))", "max(x[j])", "sum(e * x[j])", "sum(w)", "sum(x[j] * x[i])"]
HEAD = "layer C(d = 3) { node x[d] node s edge w edge e[d] aggregate a = %s update y = a }"


def program(text: str) -> Program:
    typed = typed_of(gdsl.compile(HEAD % text, backend="torch"))
    return typed.program


@pytest.mark.parametrize("text", PLAIN)
def test_plain_sums(text: str) -> None:
    made = sparse_product(program(text).nodes[0])
    assert made is not None
    assert expression(made, {}) == PLAIN[text]


@pytest.mark.parametrize("text", OTHERS)
def test_other_sums(text: str) -> None:
    assert sparse_product(program(text).nodes[0]) is None


@pytest.mark.parametrize("name", ["GCN", "SAGE_mean", "SAGE_bipartite", "GIN", "APPNP", "TAG"])
@pytest.mark.parametrize("backend", ["cpp", "triton"])
def test_numbers_are_the_same(name: str, backend: str) -> None:
    """Values and two derivatives, in which each gradient of a sum is a sum at the other end."""
    made = harness.layer(name, backend)
    values = harness.inputs(made, harness.random_edges(9, 30, seed=2), 9)
    expected = harness.oracle(harness.twin(made, "torch"), values)
    made.choose(sums="vendor")
    for a, b in zip(harness.run(made, values), expected, strict=True):
        assert harness.difference(a, b) < 1e-9


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_rows_without_edges_and_other_dtypes(dtype: torch.dtype) -> None:
    text = "layer C { node x[a, b] edge w return sum(w * x[j]) }"
    x, w = torch.randn(4, 2, 3, dtype=dtype), torch.randn(2, dtype=dtype)
    edges = torch.tensor([[0, 1], [2, 2]])
    made = gdsl.compile(text)
    expected = made(x, edges, w)
    assert torch.allclose(made.choose(sums="vendor")(x, edges, w), expected, rtol=torch.finfo(dtype).eps * 2)
    assert made(x[:0], edges[:, :0], w[:0]).shape == (0, 2, 3)


def test_the_plan_says_so() -> None:
    plan = lower(program("sum(w * x[j])"), Options().with_choice("sums", "vendor"))
    assert [type(s) for s in plan.steps] == [TorchStep] and not plan.kernels
    made = gdsl.compile(HEAD % "sum(w * x[j])")
    graph = gdsl.Graph(torch.tensor([[0, 1], [1, 1]]), 2)
    assert 'is the choice sums="vendor"' in made.explain(graph)
    assert "by the choice `sums`" in made.choose(sums="vendor").explain(graph)
    assert not [k for k in made.kernels if k.direction == "forward"]
