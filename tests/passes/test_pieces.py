"""Programs of many rounds: each round is optimised as it would be alone, and the work grows by the rounds."""

from __future__ import annotations

import pytest
import torch

import gdsl
from gdsl.ir.node import walk
from gdsl.ir.ops import of
from gdsl.ir.program import Program
from gdsl.module.layer import Layer
from gdsl.passes import estimate, pieces, rewrite
from gdsl.passes.options import Options
from tests.programs.harness import difference, random_edges


def gat(rounds: int) -> str:
    params = "\n".join(
        f"param w{k}[d, c] ~ glorot  param q{k}[c] ~ glorot  param v{k}[c, d] ~ glorot" for k in range(rounds)
    )
    steps = "\n".join(
        f"""z{k} = h{k} @ w{k}
        s{k} = leaky_relu((z{k} @ q{k})[i] + (z{k} @ q{k})[j], 0.2)
        h{k + 1} = relu(sum(softmax(s{k}) * z{k}[j])) @ v{k}"""
        for k in range(rounds)
    )
    return f"layer Rounds(d, c) {{ {params}  node x[d]  h0 = x\n{steps}\nupdate y = h{rounds} }}"


def sums(rounds: int) -> str:
    """A sum of narrow values before a wide product, which is cheaper before it, and the other way round."""
    params = "\n".join(f"param w{k}[d, c] ~ glorot  param v{k}[c, d] ~ glorot" for k in range(rounds))
    steps = "\n".join(f"h{k + 1} = relu(sum(relu(sum((h{k} @ w{k})[j]))[j]) @ v{k})" for k in range(rounds))
    return f"layer Sums(d, c) {{ {params}  node x[d]  h0 = x\n{steps}\nupdate y = h{rounds} }}"


def compiled(text: str, d: int = 4, c: int = 8, backend: str = "cpp") -> Layer:
    return gdsl.compile(text, d=d, c=c, backend=backend).double()


def test_a_change_of_nothing_gives_the_program() -> None:
    typed = compiled(gat(30)).program
    whole = typed.program
    seen: list[int] = []

    def change(piece: Program) -> Program:
        seen.append(sum(not of(n).leaf for n in walk(piece.nodes)))
        return piece

    found = pieces.by_pieces(whole, change)
    assert found.nodes == whole.nodes
    assert dict(found.names) == dict(whole.names)
    assert len(seen) > 1
    assert max(seen) < 2 * pieces.PIECE + 100


def test_a_program_of_few_operations_is_one_piece() -> None:
    typed = compiled(gat(2)).program
    whole = typed.program
    assert pieces.by_pieces(whole, lambda piece: piece) is whole


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of a few rounds, so that a test needs no large program."""
    monkeypatch.setattr(pieces, "MOST_WHOLE", 64)
    monkeypatch.setattr(pieces, "PIECE", 48)


@pytest.mark.parametrize("text", [gat, sums])
def test_work_grows_by_the_rounds(text, small_pieces: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is counted: estimates of the cost of an operation, and operations that rules look at."""
    counts: dict[str, int] = {}

    def counted(module: object, name: str) -> None:
        real = getattr(module, name)

        def count(*args: object) -> object:
            counts[name] = counts.get(name, 0) + 1
            return real(*args)

        monkeypatch.setattr(module, name, count)

    counted(estimate, "_time")
    counted(rewrite, "_first")
    found = []
    for rounds in (10, 40):
        counts.clear()
        assert len(compiled(text(rounds))._ran()[0].inspection.plans) == 2
        found.append(dict(counts))
    few, many = found
    assert all(many[name] < 5 * few[name] for name in many), found


@pytest.mark.parametrize("text", [gat, sums])
def test_rounds_are_alike(text, small_pieces: None) -> None:
    """Twice the rounds, twice the kernels and steps of torch: no choice of a round depends on how many there are."""
    few, many = ([len(plan.steps) for _, plan in compiled(text(k))._ran()[0].inspection.plans] for k in (12, 24))
    assert all(abs(b - 2 * a) <= 4 for a, b in zip(few, many, strict=True)), (few, many)


def test_values_and_two_derivatives_of_many_rounds(small_pieces: None) -> None:
    graph = gdsl.Graph(random_edges(9, 30, 0), 9)
    found = []
    for backend in ("torch", "cpp"):
        torch.manual_seed(0)
        made = compiled(gat(4), backend=backend)
        if backend == "torch":
            made.options = Options(optimise=False, save=False)
        x = torch.randn(9, 4, dtype=torch.float64, requires_grad=True)
        y = made(x, graph)
        first = torch.autograd.grad(y.sum(), [x, *made.parameters()], create_graph=True)
        second = torch.autograd.grad(sum(g.sin().sum() for g in first), [x, *made.parameters()])
        found.append([y, *first, *second])
    assert difference(found[1], found[0]) < 1e-9
    assert "kernels" in made.explain(graph)
