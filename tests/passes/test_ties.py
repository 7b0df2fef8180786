"""Equal maxima and minima: the gradient is split evenly, as by torch's scatter_reduce and amax, whoever computes it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import gdsl
from gdsl.codegen.schedule import HUB_EDGES
from gdsl.passes.options import Options
from gdsl.runtime.triton import interpreted
from tests.programs import harness
from tests.triton.orders import other_orders

BACKENDS = ["torch", "cpp", *(["triton"] if interpreted() else [])]
NODES = 7

MESSAGES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "x[j]": lambda xi, xj: xj,
    "relu(x[j])": lambda xi, xj: xj.relu(),
    "sin(x)[j]": lambda xi, xj: xj.sin(),
    "0.5 * x[j] + 0.25 * x[i]": lambda xi, xj: 0.5 * xj + 0.25 * xi,
    "relu(x[j] - x[i])": lambda xi, xj: (xj - xi).relu(),
    "(x @ w)[j]": lambda xi, xj: xj @ WEIGHT,
    "x[j] @ w": lambda xi, xj: xj @ WEIGHT,
}
# Products of these and of whole numbers are exact in any order.
WEIGHT = torch.tensor([[1.0, 0.5, 0.0], [0.25, 0.5, 1.0], [0.0, -0.5, 0.75]], dtype=torch.float64)


def extreme(m: Tensor, ends: Tensor, rows: int, sign: str) -> Tensor:
    """By torch, from NaN: it counts zeros to start from among winners that are zero."""
    start = m.new_full((rows, m.shape[1]), torch.nan)
    found = start.scatter_reduce(0, ends[:, None].expand_as(m), m, f"a{sign}", include_self=False)
    return found.where(torch.bincount(ends, minlength=rows)[:, None] > 0, 0.0)


def derivatives(y: Tensor, x: Tensor) -> list[Tensor]:
    weights = torch.arange(y.numel(), dtype=x.dtype).view_as(y).cos()
    (first,) = torch.autograd.grad((y * y * weights + y).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad((first * x.detach().sin()).sum(), x, retain_graph=True)
    return [y.detach(), first.detach(), second]


def numbers(rows: int) -> Tensor:
    return (torch.randn(rows, 3, dtype=torch.float64) * 1.5).round().requires_grad_()


def assert_same(found: list[Tensor], wanted: list[Tensor]) -> None:
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("sign", ["max", "min"])
@pytest.mark.parametrize("message", MESSAGES)
def test_edges_of_equal_messages(message: str, sign: str, backend: str) -> None:
    """In the order in which they are given, of which some are parallel and some loops; node 6 has none."""
    edges, x = torch.randint(0, NODES - 1, (2, 40)), numbers(NODES)
    param = "param w[d, e] ~ glorot" if "@" in message else ""
    text = f"layer M(d = 3, e = 3) {{ node x[d] {param} return {sign}({message}) }}"
    made = gdsl.compile(text, backend=backend).double()
    for w in made.parameters():
        w.data.copy_(WEIGHT)
    m = MESSAGES[message](x[edges[1]], x[edges[0]])
    wanted = derivatives(extreme(m, edges[1], NODES, sign), x)
    for choice in ("auto", "nothing"):
        assert_same(derivatives(made.choose(save=choice)(x, gdsl.Graph(edges, NODES)), x), wanted)


def test_a_hub() -> None:
    """Its edges are walked in chunks, whose winners are counted together."""
    edges = torch.randint(0, NODES - 1, (2, HUB_EDGES + 5000))
    edges[1, 300:] = 2
    x = numbers(NODES)
    for sign in ("max", "min"):
        made = gdsl.compile(f"layer M(d = 3) {{ node x[d] return {sign}(x[j]) }}", backend="cpp")
        wanted = derivatives(extreme(x[edges[0]], edges[1], NODES, sign), x)
        assert_same(derivatives(made(x, gdsl.Graph(edges, NODES)), x), wanted)


@pytest.mark.parametrize("backend", BACKENDS[1:])
@pytest.mark.parametrize("hub", [0, HUB_EDGES + 500])
def test_winners_are_counted_in_the_walk_that_shares_among_them(hub: int, backend: str) -> None:
    """Where what else the gradients of edges are made of is known later: two walks of one kernel."""
    if hub and backend == "triton":
        pytest.skip("the interpreter takes long for so many edges")
    text = """layer M(d = 8) {
        node x[d]  param w[2*d, 64] ~ glorot
        message m = tanh(x[i] + 1) * x[j]
        return tanh(cat(max(m), std(m); d) @ w)
    }"""
    edges = torch.randint(0, NODES - 1, (2, 40 + hub))
    edges[1, 40:] = 2
    x = (torch.randn(NODES, 8, dtype=torch.float64) * 1.5).round().requires_grad_()
    made = gdsl.compile(text, backend=backend).double()
    graph = gdsl.Graph(edges, NODES)
    other = gdsl.compile(text, backend="torch").double()
    other.load_state_dict(made.state_dict())
    assert_same(derivatives(made(x, graph), x), derivatives(other(x, graph), x))
    kernels = str(made.explain(graph)).split("kernel M_backward_")
    assert any("walk 1: reduce sum@i(where(" in k and "walk 2: " in k for k in kernels)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("sign", ["max", "min"])
def test_graphs_relations_and_dims(sign: str, backend: str) -> None:
    text = f"""layer M(d = 3) {{
        node x[d]  edge r: int(2)
        pool q = {sign}(x)
        k = {sign}(x[j]) by r
        return q, k, {sign}[d](x)
    }}"""
    made = gdsl.compile(text, backend=backend)
    edges, kinds = torch.randint(0, NODES - 1, (2, 30)), torch.randint(0, 2, (30,))
    batch, x = torch.arange(NODES) // 4, numbers(NODES)
    pooled, by_kind, over_dim = made(x, gdsl.Graph(edges, NODES), kinds, batch=batch, num_graphs=2)
    assert_same(derivatives(pooled, x), derivatives(extreme(x, batch, 2, sign), x))
    wanted = extreme(x[edges[0]], edges[1] * 2 + kinds, 2 * NODES, sign)
    assert_same(derivatives(by_kind.reshape(2 * NODES, 3), x), derivatives(wanted, x))
    assert_same(derivatives(over_dim[:, None], x), derivatives(getattr(x, f"a{sign}")(1)[:, None], x))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_the_whole_gradient_arrives(dtype: torch.dtype, backend: str) -> None:
    """Also where messages are computed on edges, and rounded: what goes to all winners of a node adds up to 1."""
    text = "layer M(d = 8, o = 5) { node x[d] edge b[o] param w[d, o] ~ glorot return max(tanh(x[j] @ w) + b) }"
    edges = torch.randint(0, 50, (2, 400))
    x = (torch.randn(50, 8) * 2).round().to(dtype)
    b = torch.zeros(400, 5, dtype=dtype).requires_grad_()
    y = gdsl.compile(text, backend=backend).to(dtype)(x, gdsl.Graph(edges, 50), b)
    (g,) = torch.autograd.grad(y.sum(), b)
    arrived = torch.zeros(50, 5).index_add(0, edges[1], g.float())
    filled = torch.bincount(edges[1], minlength=50) > 0
    torch.testing.assert_close(arrived, filled.float()[:, None].expand(50, 5), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_whole_gradient_arrives_once_where_others_come_near(dtype: torch.dtype, backend: str) -> None:
    """Beside two edges that tie, some that are within what rounding may do: shares are of those that get one."""
    text = "layer M(d = 8, o = 5) { node x[d] edge b[o] param w[d, o] ~ glorot return max(tanh(x[j] @ w) + b) }"
    edges = torch.randint(0, 50, (2, 400))
    x = torch.ones(50, 8, dtype=dtype)
    b = (-(2.0 ** torch.randint(-24, -10, (400, 1))) * torch.randint(0, 2, (400, 5))).to(dtype).requires_grad_()
    y = gdsl.compile(text, backend=backend).to(dtype)(x, gdsl.Graph(edges, 50), b)
    (g,) = torch.autograd.grad(y.sum(), b)
    arrived = torch.zeros(50, 5, dtype=dtype).index_add(0, edges[1], g)
    filled = torch.bincount(edges[1], minlength=50) > 0
    torch.testing.assert_close(arrived, filled.to(dtype)[:, None].expand(50, 5))


def test_the_whole_gradient_arrives_where_a_product_rounds_its_rows_otherwise() -> None:
    """Parallel edges have equal messages but for that: a BLAS takes the last rows, and others, in another way."""
    text = """layer M(d = 9, o = 5) {
        node x[d]  edge b[o]  param w[2*d, o] ~ glorot
        return max(cat(x[i], x[j]; d) @ w + b)
    }"""
    edges = torch.randint(0, 20, (2, 150)).repeat(1, 10)
    x, b = torch.randn(20, 9), torch.zeros(1500, 5, requires_grad=True)
    plain = gdsl.compile(text, backend="torch")
    plain.options = Options(optimise=False, save=False)
    (g,) = torch.autograd.grad(plain(x, gdsl.Graph(edges, 20), b).sum(), b)
    filled = torch.bincount(edges[1], minlength=20) > 0
    arrived = torch.zeros(20, 5).index_add(0, edges[1], g)
    torch.testing.assert_close(arrived, filled.float()[:, None].expand(20, 5))


COMPUTED = {
    "a network": "max(relu(x[j] @ w - x[i] @ v) @ u)",
    "the least": "min(tanh((x[j] - x[i]) @ w) @ u)",
    "by a kind": "sum[2](max(sin(x[j] @ w) @ u) by r)",
    "a network, then its mean": "mean(max(tanh(x[j] @ w + x[i] @ v) @ u)[j])",
}


@pytest.mark.skipif(not interpreted(), reason="Triton was imported for a GPU, not to interpret")
@pytest.mark.parametrize("messages", COMPUTED)
def test_messages_that_each_kernel_rounds_otherwise(messages: str) -> None:
    """Parallel edges tie, and which do is asked by kernels that add up in other orders, as on a GPU."""
    kind = "edge r: int(2)" if " by r" in COMPUTED[messages] else ""
    text = f"""layer M(d = 9, h = 7, o = 3) {{
        param w[d, h] ~ glorot  param v[d, h] ~ glorot  param u[h, o] ~ glorot
        node x[d] {kind}
        return {COMPUTED[messages]}
    }}"""
    made = gdsl.compile(text, backend="triton").double()
    edges = torch.randint(0, NODES, (2, 60))
    given = [gdsl.Graph(edges, NODES), *([torch.randint(0, 2, (60,))] if kind else [])]
    x = torch.randn(NODES, 9, dtype=torch.float64, requires_grad=True)
    plain = harness.twin(made, "torch")
    with other_orders():
        found = derivatives(made(x, *given), x)
    wanted = derivatives(plain(x, *given), x)
    assert_same(found, wanted)


LOST: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "sqrt(max(x, 0))": lambda x, zero: torch.maximum(x, zero).sqrt(),
    "sqrt(1 - min(1, x))": lambda x, zero: (1 - torch.minimum(1 + zero, x)).sqrt(),
    "log(max(-1, x, 0))": lambda x, zero: torch.maximum(torch.maximum(zero - 1, x), zero).log(),
    "max(x, 0.5)**-0.5 + 1 / min(0, x)": lambda x, zero: (
        torch.maximum(x, zero + 0.5) ** -0.5 + 1 / torch.minimum(zero, x)
    ),
}


@pytest.mark.filterwarnings("ignore:(invalid|divide):RuntimeWarning")  # of NumPy, in Triton's interpreter
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("text", LOST)
def test_a_number_that_lost_hears_nothing(text: str, backend: str) -> None:
    """Its gradient is 0, also where an infinite one reaches the other number."""
    x = torch.tensor([[-0.5, 0.25], [1.75, 0.75]], dtype=torch.float64, requires_grad=True)
    made = gdsl.compile(f"layer L {{ node x[d] update y = {text} }}", backend=backend)
    slopes = []
    for y in (made(x, torch.zeros(2, 0, dtype=torch.long)), LOST[text](x, torch.zeros_like(x))):
        (first,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        slopes.append([first, *torch.autograd.grad(first.square().sum(), x)])
    assert_same(*slopes)
