"""Rounds whose edge values are made of those of the round before: text and work by the rounds, and right results."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import gdsl
from gdsl.codegen import cpp, cpp_writer, hubs
from gdsl.ir.types import Domain
from gdsl.module.layer import Layer
from gdsl.passes import slots
from gdsl.passes.options import Options
from gdsl.runtime import cpp as bound
from gdsl.runtime import order, prepare
from gdsl.runtime import triton as runtime
from tests.programs.harness import difference, random_edges

NODES, D = 9, 3


def layer(rounds: int, body: str, params: str = "") -> str:
    sizes = "d, h" if "h]" in params else "d"
    return f"""layer Rounds({sizes}) {{ {params}  node x[d]  edge e[d]
        s = e
        for k in 1..{rounds} {{ {body} }}
        aggregate a = sum(s * x[j])
        update y = a }}"""


PROGRAMS: dict[str, Callable[[int], str]] = {
    "Sinkhorn": lambda k: layer(k, "s = s - logsumexp(s)[i]  s = s - (logsumexp(s) at j)[j]"),
    "state of edges": lambda k: layer(k, "s = tanh(s + sum(s)[i] - (sum(s) at j)[j] + x[j])"),
    "recurrent": lambda k: layer(k, "s = tanh(s @ w + mean(s)[i]) + s", "param w[d, d'] ~ glorot").replace(
        "s @ w", "rename(s @ w, d' -> d)"
    ),
    "network of edges": lambda k: layer(
        k, "s = tanh(tanh(s @ w) @ v + sum(s)[i] + x[j])", "param w[d, h] ~ glorot  param v[h, d] ~ glorot"
    ),
    "messages along a chain": lambda k: layer(k, "s = sigmoid(s * x[j] - s * s) + 0.5 * max(s)[i]"),
}


def compiled(name: str, rounds: int, backend: str = "cpp") -> Layer:
    torch.manual_seed(0)
    sizes = {"h": 20} if name == "network of edges" else {}
    return gdsl.compile(PROGRAMS[name](rounds), d=D, backend=backend, **sizes).double()


@pytest.mark.parametrize("name", ["Sinkhorn", "recurrent", "network of edges"])
def test_text_grows_by_the_rounds(name: str) -> None:
    """Of C++, before functions that are alike are joined; forward and backward."""
    sizes: list[list[int]] = []
    for rounds in (20, 60):
        plans = [plan for _, plan in compiled(name, rounds)._ran()[0].inspection.plans]
        sizes.append([sum(len(cpp.kernel_source(k, plan)) for k in plan.kernels) for plan in plans])
    assert all(many < 4 * few for few, many in zip(*sizes, strict=True)), sizes


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Edge values are written after a few operations, so that a test needs no large program."""
    monkeypatch.setattr(slots, "MOST_AGAIN", 4)
    monkeypatch.setattr(slots, "LEAST_WRITTEN", 2)
    monkeypatch.setattr(cpp_writer, "LONG_TEXT", 3)


def written(made: Layer) -> int:
    plans = [plan for _, plan in made._ran()[0].inspection.plans]
    return len({b for p in plans for k in p.kernels for b in k.buffers if b.domain is Domain.EDGE and b.op != "load"})


def results(made: Layer, graph: gdsl.Graph) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(graph.num_targets, D, generator=generator, dtype=torch.float64, requires_grad=True)
    e = torch.randn(graph.num_edges, D, generator=generator, dtype=torch.float64, requires_grad=True)
    leaves = [x, e, *made.parameters()]
    y = made(x, graph, e)
    first = torch.autograd.grad(y.sin().sum(), leaves, create_graph=True)
    second = torch.autograd.grad(sum((g.cos() * g).sum() for g in first), leaves)
    return [y, *first, *second]


def plain(name: str, rounds: int) -> Layer:
    made = compiled(name, rounds, "torch")
    made.options = Options(optimise=False, save=False)
    return made


@pytest.mark.parametrize(
    ("name", "backend"), [*((n, "cpp") for n in PROGRAMS), ("state of edges", "triton"), ("recurrent", "triton")]
)
def test_values_and_two_derivatives(name: str, backend: str, soon: None) -> None:
    if backend == "triton" and not runtime.interpreted():
        pytest.skip("Triton was imported for a GPU, not to interpret")
    rounds = 3 if backend == "cpp" and name != "network of edges" else 2
    made = compiled(name, rounds, backend)
    graph = gdsl.Graph(random_edges(NODES, 30, 0), NODES)
    assert difference(results(made, graph), results(plain(name, rounds), graph)) < 1e-9
    if backend == "cpp" and name != "Sinkhorn":  # whose rounds collapse to sums of node values
        assert written(made)


def test_written_values_of_hubs(soon: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (cpp_writer, hubs, order, prepare, bound):
        for constant in ("HUB_EDGES", "CHUNK_EDGES"):
            monkeypatch.setattr(module, constant, 10, raising=False)
    edges = torch.cat([random_edges(NODES, 30, 0), torch.stack([torch.arange(25) % NODES, torch.full((25,), 2)])], 1)
    graph = gdsl.Graph(edges, NODES)
    assert graph.in_edges.has_hubs
    made = compiled("state of edges", 3)
    assert written(made)
    assert difference(results(made, graph), results(plain("state of edges", 3), graph)) < 1e-9


def test_few_rounds_write_no_edge_values() -> None:
    """Memory by the nodes, as long as it does not cost the square of the rounds."""
    assert not any(written(compiled(name, 3)) for name in PROGRAMS)


def test_many_rounds_on_the_default() -> None:
    """With no constant changed: the values that are written are those of some rounds, and long values are cells."""
    assert 0 < written(compiled("state of edges", 40)) < 80
    graph = gdsl.Graph(random_edges(NODES, 30, 0), NODES)
    x = torch.randn(NODES, D, dtype=torch.float64)
    e = 0.1 * torch.randn(30, D, dtype=torch.float64)
    with torch.no_grad():
        a, b = (compiled("state of edges", 24, backend)(x, graph, e) for backend in ("cpp", "torch"))
    assert difference([a], [b]) < 1e-9
