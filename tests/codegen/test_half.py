"""bfloat16 and float16: stored half as wide, computed in float32, rounded once."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import gdsl
from gdsl.codegen import cpp
from gdsl.passes.pipeline import lower, optimise
from gdsl.runtime.execute import CppPlan
from tests.ir.drive import LAYERS, Options
from tests.programs.sources import PROGRAMS

EPSILON = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}
SMOOTH = ["GCN", "SGC", "Transformer", "NNConv", "ResGated"]
# Rounding turns some maxima and slopes over: single gradients jump, most do not.
KINKED = ["GAT", "GATv2", "EdgeConv_text", "PNA"]


def case(name: str, dtype: torch.dtype) -> tuple[gdsl.Layer, list[Tensor], gdsl.Graph]:
    """A layer and its inputs, numbers that the format holds exactly, and a graph."""
    source, arguments = PROGRAMS[name]
    torch.manual_seed(0)
    layer = gdsl.compile(source, **arguments)
    graph = gdsl.Graph(torch.randint(60, (2, 600)), 60)
    rows = {"node": 60, "edge": 600}
    inputs = []
    for i in (*layer.signature.before_graph, *layer.signature.after_graph):
        if not i.optional:
            typed = layer._outline(frozenset())
            declared = next(d for d in typed.declarations if d.name == i.name)
            assert declared.type is not None
            inputs.append(torch.rand(rows[i.domain], *declared.type.shape).to(dtype))
    return layer.to(dtype), inputs, graph


def run(layer: gdsl.Layer, inputs: list[Tensor], graph: gdsl.Graph) -> list[Tensor]:
    """Results and gradients, of the inputs and of the parameters."""
    before = len(layer.signature.before_graph)
    given = [v.detach().clone().requires_grad_() for v in inputs]
    y = layer(*given[:before], graph, *given[before:])
    found = torch.autograd.grad(y, [*given, *layer.parameters()], torch.ones_like(y))
    return [y.detach(), *found]


@pytest.mark.parametrize("dtype", EPSILON)
@pytest.mark.parametrize("name", [*SMOOTH, *KINKED])
def test_close_to_float64(name: str, dtype: torch.dtype) -> None:
    layer, inputs, graph = case(name, dtype)
    layer.backend = "cpp"
    found = run(layer, inputs, graph)
    assert all(t.dtype == dtype for t in found)
    exact = run(layer.double(), [v.double() for v in inputs], graph)
    for k, (a, e) in enumerate(zip(found, exact, strict=True)):
        # A few values are rounded on the way: inputs of a product, its result, the result itself.
        most = 0.15 if k and name in KINKED else 8 * EPSILON[dtype]
        assert float((a.double() - e).norm()) <= most * float(e.norm()), name


def test_a_sum_is_rounded_once() -> None:
    """1 + 1000 small numbers: bfloat16 sums would stay at 1."""
    layer = gdsl.compile("layer Sum { node x[c] aggregate a = sum(x[j]) update y = a }", backend="cpp")
    count = 1001
    edges = torch.stack([torch.arange(count), torch.zeros(count, dtype=torch.long)])
    x = torch.full((count, 3), 2.0**-9, dtype=torch.bfloat16)
    x[0] = 1.0
    y = layer(x, gdsl.Graph(edges, count))
    assert y.dtype is torch.bfloat16
    assert float(y[0, 0]) == float(torch.tensor(1 + 1000 * 2.0**-9).bfloat16())


def test_statistics_stay_float32() -> None:
    plan = CppPlan(lower(optimise(LAYERS["SAGE_max"]()), Options()), torch.bfloat16, torch.int32, 1)
    assert "typedef gdsl::bf16 S;" in plan.source
    assert "const S* __restrict__ x_j = x + j" in plan.source
    packed = cpp.packed_buffers(plan.plan, "bfloat16")
    assert packed
    assert not packed & {o for k in plan.plan.kernels for o in k.outputs}


def test_mixed_dtypes_are_refused() -> None:
    layer = gdsl.compile("layer P { param w[c] ~ ones node x[c] aggregate a = sum(x[j] * w) update y = a }", c=3)
    graph = gdsl.Graph(torch.tensor([[0], [1]]), 2)
    with pytest.raises(gdsl.InputError, match="bfloat16"):
        layer(torch.rand(2, 3).bfloat16(), graph)


def test_nan_and_infinity_are_read_as_they_are() -> None:
    layer = gdsl.compile("layer Max { node x[c] aggregate a = sum(x[j]) update y = a }", backend="cpp")
    x = torch.tensor([[float("nan")], [float("inf")], [1e-40], [-0.0]], dtype=torch.bfloat16)
    y = layer(x, gdsl.Graph(torch.tensor([[0, 1, 2, 3], [0, 1, 2, 3]]), 4))
    torch.testing.assert_close(y, x, equal_nan=True)
