"""Every op and every derivative of the table at corners: 0 of both signs, infinities, NaN, the largest and the smallest
numbers; on each backend as by torch. And derivatives in float32 over all magnitudes, against float64."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from gdsl.ir import build as b
from gdsl.ir import library
from gdsl.ir.node import Node
from gdsl.ir.ops import ELEMENTWISE, ElementwiseOp
from gdsl.ir.ops.adjoint import gradients
from gdsl.ir.types import Dim, Kind, Type
from gdsl.runtime import reference
from gdsl.runtime.triton import interpreted
from tests.ir.drive import PLAIN, G, N, frame, load, program, runner
from tests.ir.test_ops import BOUND, ULP, beyond_fmod, special, ulps

BACKENDS = ["cpp", *(["triton"] if interpreted() else [])]
DTYPES = [torch.float32, torch.float64]


def applied(op: ElementwiseOp, x: list[Node]) -> Node:
    """The op of two numbers; where it asks for a condition or an integer, of one that they make."""
    holds = [x[0] > x[1], x[0] < 1.0]
    if op.name in ("and", "or", "not"):
        return b.elementwise(op.name, *holds[: op.arity])
    if op.name == "where":
        return b.elementwise("where", holds[0], *x)
    if op.name == "to_int":
        return b.to_int(x[0], BOUND)
    if op.name == "to_float":
        return b.to_float(b.to_int(x[0], BOUND))
    return b.elementwise(op.name, *x[: op.arity])


def partials(node: Node) -> list[Node]:
    """The partial derivatives of an op's result."""
    rules = ELEMENTWISE[node.op].derivative
    return [rule(*node.inputs, node) for rule in rules if rule is not None]


def shown(node: Node) -> Node:
    """The value as a float of each node, which kernels can write."""
    value = b.elementwise("where", node, 1.0, 0.0) if node.kind.name == "BOOL" else b.to_float(node)
    return b.spread(value, N) if value.domain is G else value


def all_pairs(dtype: torch.dtype) -> list[Tensor]:
    pairs = torch.tensor(list(itertools.product(special(dtype), repeat=2)), dtype=dtype)
    return [pairs[:, 0].contiguous(), pairs[:, 1].contiguous()]


# Of derivatives, in which functions of rounded functions are rounded again.
SLOPE_ULP = 8
# Written with the result, as torch's own: 1 - y^2 and y (1 - y) are right to a unit in the last place of 1, which is
# not that of what is left where y is near 1.
BY_RESULT = {"tanh", "sigmoid"}
# Where torch's float32 sigmoid gives 0, kernels give the small number that it is.
LEAST = {"sigmoid": -87.0, "softplus": -87.0}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_values_and_derivatives_at_corners(backend: str, dtype: torch.dtype) -> None:
    x = [load("x0", N), load("x1", N)]
    nodes = {name: applied(op, x) for name, op in ELEMENTWISE.items()}
    rows = [(name, shown(node), ULP.get(name, 0)) for name, node in nodes.items()]
    rows += [(name, shown(slope), SLOPE_ULP) for name, node in nodes.items() for slope in partials(node)]
    values = all_pairs(dtype)
    graph = frame([[], []], len(values[0]), dtype)
    p = program(*(node for _, node, _ in rows))
    found, wanted = (runner(p, how, PLAIN, dtype)(values, graph) for how in (backend, "torch"))
    wrong = []
    for (name, node, most), a, w in zip(rows, found, wanted, strict=True):
        assert a.dtype is dtype
        gap = ulps(a, w)
        if name in BY_RESULT and node.op != name:
            gap[(a - w).abs() <= 2 * torch.finfo(dtype).eps] = 0
        if name == "mod":  # torch's vectorised fmod is NaN where the quotient overflows
            gap[beyond_fmod(*values)] = 0
        gap[values[0] < LEAST.get(name, -math.inf)] = 0
        worst = int(gap.argmax())
        if gap[worst] > most:
            at = tuple(v[worst].item() for v in values)
            wrong.append(f"{name}{at}, {node.op}: {a[worst].item()}, torch {w[worst].item()}, {gap[worst]} ulp")
    assert not wrong, "\n".join(wrong)


def magnitudes() -> Tensor:
    """Float32 numbers of all exponents and both signs, and more of them where functions bend."""
    bits = torch.arange(-(2**31), 2**31, 99_991, dtype=torch.int64).to(torch.int32).view(torch.float32)
    found = torch.cat([bits, torch.linspace(-30, 30, 20_001), torch.linspace(-1, 1, 10_001)])
    return found[found.isfinite()]


# Units in the last place by which a derivative in float32 may differ from float64's, where it is not 2: sums of squares
# lose digits below 1e-18 and above 1e18 (atan2), a power's exponent is rounded before it counts (pow), and so is the
# argument of exp(-x^2), which is up to 100 (erf).
SLOPES = {
    "pow": 400, "erf": 128, "acos": 3, "atan2": 4, "exp": 3, "expm1": 3, "softplus": 3, "log_sigmoid": 3, "elu": 3,
    "selu": 3,
}  # fmt: skip


@pytest.mark.parametrize("backend", ["torch", *BACKENDS])
def test_derivatives_in_float32_over_all_magnitudes(backend: str) -> None:
    """elu's at -20 is 2e-9, which y + 1 does not know."""
    first = magnitudes()
    second = first[torch.randperm(len(first))]
    ordinary = (first.abs() > 1e-9) & (first.abs() < 1e9) & (second.abs() > 1e-9) & (second.abs() < 1e9)
    x = [load("x0", N), load("x1", N)]
    nodes = {n: applied(op, x) for n, op in ELEMENTWISE.items()}
    nodes |= {"elu": library.elu(x[0], 1.5), "selu": library.selu(x[0])}
    nodes |= {"log_sigmoid": library.log_sigmoid(x[0])}
    one = b.spread(b.const(1.0), N)
    rows = [(n, g) for n, y in nodes.items() if y.kind is Kind.FLOAT for g in gradients({y: one}, x) if g is not None]
    p, graph = program(*(shown(g) for _, g in rows)), frame([[], []], len(first), torch.float32)
    values = [{"x0": first, "x1": second}[node.attrs.name] for node in p.inputs]
    found = runner(p, backend, PLAIN, torch.float32)(values, graph)
    exact = runner(p, "torch", PLAIN, torch.float64)([v.double() for v in values], graph)
    wrong = []
    for (name, _), a, w in zip(rows, found, exact, strict=True):
        keep = w.isfinite() & (w.abs() < 3e38) & (w.abs() > 1.2e-38)
        keep &= ordinary if ELEMENTWISE.get(name, ELEMENTWISE["add"]).arity == 2 else first.abs() < 1e30
        gap = (a.double() - w).abs()
        gap /= 2.0**-23 if name in BY_RESULT else 2.0 ** (w.abs().log2().floor() - 23)
        gap[~keep] = 0
        worst = int(gap.argmax())
        if not gap[worst] <= SLOPES.get(name, 2):
            at = (first[worst].item(), second[worst].item())
            wrong.append(f"{name}{at}: {a[worst].item()}, in float64 {w[worst].item()}, {gap[worst]} ulp")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("op", [op for op in ELEMENTWISE.values() if None not in op.derivative], ids=lambda op: op.name)
def test_an_op_says_where_it_is_singular(op: ElementwiseOp) -> None:
    """The value and two derivatives are finite at all finite corners; or only where the last argument is 0 or of the
    wrong sign; or, where the table says so, at others too."""
    dims = (Dim("n", 0),)
    corners = torch.tensor([0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -3.0, 1e-3, 1e3, -1e3, -1e-3], dtype=torch.float64)
    points = torch.cartesian_prod(*[corners] * op.arity).reshape(-1, op.arity)
    dims = (Dim("n", len(points)),)
    x = [b.load(f"x{k}", Type(G, dims), "input") for k in range(op.arity)]
    y = b.elementwise(op.name, *x)
    slopes = [g for g in gradients({y: b.const(1.0, dims)}, x) if g is not None]
    curves = [g for slope in slopes for g in gradients({slope: b.const(1.0, dims)}, x) if g is not None]
    given = {node: points[:, k].contiguous() for k, node in enumerate(x)}
    found = reference.run([y, *slopes, *curves], given, frame([[], []], 0))
    bad = ~torch.stack([v.isfinite() for v in found]).all(0)
    elsewhere = bad & (points[:, -1] > 0)
    assert bool(op.singular) == bool(bad.any()), points[bad][:5]
    assert op.singular == "somewhere" or not elsewhere.any(), points[elsewhere][:5]
