"""A user's `reduce`: values and two derivatives on every backend against loops over edges, and the work counted."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import gdsl
from gdsl.codegen import cpp_writer, hubs
from gdsl.ir.ops import folds
from gdsl.runtime import cpp as bound
from gdsl.runtime import order, prepare
from gdsl.runtime import triton as runtime
from tests.programs.harness import difference, random_edges

BACKENDS = ["torch", "cpp", "triton"]
D = 3

Step = Callable[[Tensor, Tensor, Tensor], Tensor]

# The text of a step, its start, and the same in torch.
STEPS: dict[str, tuple[str, float, Step]] = {
    "decay": ("0.5 * acc + m * v", 0.25, lambda a, m, v: 0.5 * a + m * v),
    "curved": (
        "acc * tanh(v) + exp(-m) * sin(acc) + m * v",
        0.3,
        lambda a, m, v: a * v.tanh() + (-m).exp() * a.sin() + m * v,
    ),
    "choice": (
        "where(v > acc, 0.5 * (acc + v * m), acc)",
        0.0,
        lambda a, m, v: torch.where(v > a, 0.5 * (a + v * m), a),
    ),
    "last one wins": ("m * m + 0 * v", -1.0, lambda a, m, v: m * m + 0 * v),
    "product": ("acc * (1 + 0.1 * m * v)", 1.0, lambda a, m, v: a * (1 + 0.1 * m * v)),
}

GRAPHS = {
    "random": random_edges(9, 40, seed=1).tolist(),
    "no edges": [[], []],
    "self-loops": [[0, 1, 2, 2, 4], [0, 1, 2, 2, 4]],
    "parallel": [[0, 0, 0, 1, 1, 0], [1, 1, 1, 0, 2, 1]],
    "hub": [[0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 7], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8]],
}


def program(step: str, start: float) -> str:
    """Folds over the edges into and out of each node, of values of both ends, beside a sum in the same walk."""
    return f"""layer Fold(d) {{
        reduce fold(acc, m, v) = {step} init {start}
        node x[d]
        edge w
        m = sigmoid(x[j]) * w + 0.5 * x[i]
        a = fold(m, w) + sum(m)
        b = fold(x[i], w) at j
        update y = a * b + fold(a[j], w)
    }}"""


def by_loops(step: Step, start: float, x: Tensor, edges: Tensor, w: Tensor) -> Tensor:
    source, target = edges.tolist()

    def fold(m: list[Tensor], ends: list[int]) -> Tensor:
        rows = [torch.full((D,), start, dtype=x.dtype) for _ in x]
        for k, row in enumerate(ends):
            rows[row] = step(rows[row], m[k], w[k])
        return torch.stack(rows)

    m = [x[j].sigmoid() * w[k] + 0.5 * x[i] for k, (j, i) in enumerate(zip(source, target, strict=True))]
    summed = torch.zeros_like(x).index_add(0, edges[1], torch.stack(m)) if m else torch.zeros_like(x)
    a = fold(m, target) + summed
    b = fold([x[i] for i in target], source)
    return a * b + fold([a[j] for j in source], target)


def derivatives(y: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    """The value, its gradient and its second derivatives, along directions in which no mistake cancels."""

    def score(t: Tensor) -> Tensor:
        return (t * torch.cos(0.7 + torch.arange(t.numel(), dtype=t.dtype)).view_as(t)).sum()

    def gradients(t: Tensor, **options: bool) -> list[Tensor]:
        if not t.requires_grad:
            return [torch.zeros_like(x) for x in leaves]
        return list(torch.autograd.grad(t, leaves, materialize_grads=True, **options))

    first = gradients(score(y), create_graph=True)
    return [y, *first, *gradients(sum((score(g) for g in first), torch.zeros(())))]


def compare(made: Any, step: Step, start: float, edges: Tensor, nodes: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(nodes, D, generator=generator, dtype=torch.float64).requires_grad_()
    w = torch.rand(edges.shape[1], generator=generator, dtype=torch.float64).requires_grad_()
    expected = derivatives(by_loops(step, start, x, edges, w), [x, w])
    found = derivatives(made(x, gdsl.Graph(edges, nodes), w), [x, w])
    assert difference(found, expected) < 1e-9


_made: dict[tuple[str, str], Any] = {}


def layer(name: str, backend: str) -> Any:
    if backend == "triton" and not runtime.interpreted():
        pytest.skip("Triton was imported for a GPU, not to interpret")
    if (name, backend) not in _made:
        _made[name, backend] = gdsl.compile(program(*STEPS[name][:2]), d=D, backend=backend)
    return _made[name, backend]


@pytest.mark.parametrize(
    ("name", "backend"), [*((n, b) for n in STEPS for b in BACKENDS[:2]), ("curved", "triton"), ("choice", "triton")]
)
def test_as_a_loop_over_edges(name: str, backend: str) -> None:
    compare(layer(name, backend), STEPS[name][2], STEPS[name][1], torch.tensor(GRAPHS["random"]), 9, 0)


@pytest.mark.parametrize(
    ("graph", "backend"), [*((g, b) for g in GRAPHS for b in BACKENDS[:2]), ("no edges", "triton"), ("hub", "triton")]
)
def test_hard_graphs(graph: str, backend: str) -> None:
    edges = torch.tensor(GRAPHS[graph], dtype=torch.long)
    compare(layer("curved", backend), STEPS["curved"][2], STEPS["curved"][1], edges, 9, 1)


@given(
    name=st.sampled_from(list(STEPS)),
    backend=st.sampled_from(BACKENDS[:2]),
    nodes=st.integers(1, 8),
    edges=st.integers(0, 30),
    seed=st.integers(0, 10**6),
)
def test_random_graphs(name: str, backend: str, nodes: int, edges: int, seed: int) -> None:
    compare(layer(name, backend), STEPS[name][2], STEPS[name][1], random_edges(nodes, edges, seed), nodes, seed)


def big_graph(many: int) -> Tensor:
    """A hub of either end."""
    into = torch.stack([torch.arange(many) % 50, torch.full((many,), 3)])
    out = torch.stack([torch.full((many,), 7), torch.arange(many) % 50])
    edges = torch.cat([into, out, random_edges(50, 300, 0)], 1)
    return edges[:, torch.randperm(edges.shape[1], generator=torch.Generator().manual_seed(0))]


BIG = """layer Big(d) {
    reduce fold(acc, m) = 0.9 * acc + m * (1 - 0.05 * acc) init 0
    node x[d]
    update y = fold(x[j]) + sum(x[j]) + (fold(x[i]) at j)
}"""


def test_hubs_are_taken_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that other kernels cut into chunks, and leave to another function."""
    for module in (cpp_writer, hubs, order, prepare, bound):
        for name in ("HUB_EDGES", "CHUNK_EDGES"):
            monkeypatch.setattr(module, name, 100, raising=False)
    edges, found = big_graph(350), []
    assert gdsl.Graph(edges, 50).in_edges.has_hubs and gdsl.Graph(edges, 50).out_edges.has_hubs
    x = torch.rand(50, D, dtype=torch.float64, requires_grad=True)
    for backend in BACKENDS[:2]:
        made = gdsl.compile(BIG, d=D, backend=backend)
        y = made(x, gdsl.Graph(edges, 50))
        found.append([y, *torch.autograd.grad(y.sin().sum(), x)])
    assert difference(found[1], found[0]) < 1e-9


@pytest.mark.skipif(not runtime.interpreted(), reason="Triton was imported for a GPU, not to interpret")
def test_hubs_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order, "GPU_HUB_EDGES", 4)
    monkeypatch.setattr(order, "GPU_HUB_MEANS", 1)
    edges = torch.tensor(GRAPHS["hub"])
    x = torch.rand(9, D, dtype=torch.float64, requires_grad=True)
    assert len(gdsl.Graph(edges, 9).in_edges.degrees.hubs)
    found = []
    for backend in ("torch", "triton"):
        y = gdsl.compile(BIG, d=D, backend=backend)(x, gdsl.Graph(edges, 9))
        found.append([y, *torch.autograd.grad(y.sin().sum(), x)])
    assert difference(found[1], found[0]) < 1e-9


@pytest.mark.parametrize("degree", [100, 200])
def test_the_reference_takes_each_edge_once(degree: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps are counted in numbers: a row more for each edge, whatever the degrees."""
    counted: list[int] = []
    real = folds._step

    def counting(step: Any, frame: Any) -> Any:
        run = real(step, frame)

        def one(acc: Tensor, *now: Tensor) -> Tensor:
            counted.append(len(acc))
            assert all(len(v) == len(acc) for v in now)
            return run(acc, *now)

        return one

    monkeypatch.setattr(folds, "_step", counting)
    edges = torch.stack([torch.arange(degree) % 5, torch.zeros(degree, dtype=torch.long)])
    edges = torch.cat([edges, random_edges(5, 20, 0)], 1)
    text = "layer L(d) { reduce r(acc, m) = acc * 0.5 + m init 0  node x[d]  aggregate a = r(x[j])  update y = a }"
    gdsl.compile(text, d=D, backend="torch")(torch.rand(5, D), gdsl.Graph(edges, 5))
    assert sum(counted) == edges.shape[1]
    assert len(counted) == int(torch.bincount(edges[1]).max())


def test_generated_code_walks_each_row_once() -> None:
    """One loop over the edges for each direction of a fold, and no other; nothing but torch's leaves is left to it."""
    made = gdsl.compile(program(*STEPS["curved"][:2]), d=D)
    loops = {k.name: len(re.findall(r"for \(int64_t e = ", k.source)) for k in made.kernels}
    assert all(count == len(k.kernel.phases) for k, count in zip(made.kernels, loops.values(), strict=True))
    assert max(loops.values()) <= 2
    for _, plan in made._ran()[0].inspection.plans:
        assert len(plan.kernels) == len(plan.steps)
    assert "for (int64_t e = end - 1; e >= begin; --e)" in "".join(k.source for k in made.kernels)
    assert "before@i(acc = " in made.explain()


def test_one_number_and_half_precision() -> None:
    text = """layer L() { reduce r(acc, m) = 0.5 * acc + m init 1
        node x  aggregate a = r(x[j])  update y = a + x }"""
    edges = gdsl.Graph(random_edges(9, 40, 2), 9)
    x = torch.rand(9, dtype=torch.float64, requires_grad=True)
    found = []
    for backend, dtype in (("torch", torch.float64), ("cpp", torch.float64), ("cpp", torch.bfloat16)):
        given_x = x.detach().to(dtype).requires_grad_()
        y = gdsl.compile(text, backend=backend)(given_x, edges)
        y.sum().backward()
        found.append([y.double(), given_x.grad.double()])
    assert difference(found[1], found[0]) < 1e-12
    assert difference(found[2], found[0]) < 0.05
