"""Which two walks are one on a GPU: those of a softmax, where that costs less. Its numbers: tests/triton."""

from __future__ import annotations

import pytest

from gdsl.ir import build as b
from gdsl.ir import library
from gdsl.ir.node import Node
from gdsl.ir.types import Dim
from gdsl.passes.one_walk import on_gpu, plan_on_gpu
from gdsl.passes.options import Options
from gdsl.passes.pipeline import lower, optimise
from gdsl.passes.plan import Kernel
from tests.ir.drive import LAYERS, A, E, G, H, N, load, pairs, program

x, y, e, s = load("x", N, A), load("y", N, H, A), load("e", E), load("s", E, H)
xj, yj = b.gather(x, "j"), b.gather(y, "j")


def total(value: Node) -> Node:
    return b.segment(value, "i", "sum", N)


def weights(score: Node, masked: bool = True) -> Node:
    return library.segment_softmax(score, "i", N, masked)


def raised(score: Node, masked: bool = True) -> Node:
    """What a softmax adds up."""
    return library.op("exp", score - b.gather(library.softmax_top(b.segment(score, "i", "max", N), masked), "i"))


def kernel(*outputs: Node) -> Kernel:
    (found,) = (k for k in lower(optimise(program(*outputs)), Options()).kernels if k.phases)
    return found


ONE = {
    "a value": total(weights(e) * xj),
    "a value, unmasked": total(weights(e, False) * xj),
    "heads": total(weights(s) * yj),
    "each feature by itself": total(weights(xj * b.gather(x, "i")) * xj),
    "a sum of terms": total(raised(e) * xj - (-raised(e))),
    "a quotient": total(raised(e) / (1.0 + xj * b.gather(x, "i"))),
    "a product that is added up": total(b.contract([raised(s), yj, xj], ["a"])),
    "where": total(library.where(e > 0.0, raised(e) * xj, 0.0)),
    "other values beside": total(weights(e) * xj) + total(library.op("tanh", xj * e)),
}


@pytest.mark.parametrize("name", ONE)
def test_two_walks_are_one(name: str) -> None:
    two = kernel(ONE[name])
    one = on_gpu(two)
    assert (len(two.phases), len(one.phases)) == (2, 1)
    assert {r.total for r in one.phases[0].running} == set(two.phases[1].accumulators)
    assert all(r.guarded == ("unmasked" not in name) for r in one.phases[0].running)


def test_two_softmaxes_are_one_walk() -> None:
    one = on_gpu(kernel(total(weights(e) * xj), total(weights(s) * yj)))
    assert len(one.phases) == 1
    assert len({r.top for r in one.phases[0].running}) == 2


def test_the_last_walk_stays_where_weights_are_results() -> None:
    one = on_gpu(kernel(total(weights(e) * xj), weights(e)))
    assert [len(p.running) for p in one.phases] == [2, 0]
    assert len(one.phases[1].stores) == 1


TWO = {
    "heads added up, each relative to its own maximum": total(b.contract([raised(s), yj], ["heads"])),
    "relative to the maximum of another score": total(
        library.op("exp", 2.0 * e - b.gather(b.segment(e, "i", "max", N), "i")) * xj
    ),
    "a square": total(raised(e) * raised(e) * xj),
    "a sum with what is not relative": total(raised(e) + xj),
    "a function of it": total(library.op("tanh", raised(e)) * xj),
    "a divisor": total(xj / (1.0 + raised(e))),
    "a deviation from the maximum": total((e - b.gather(b.segment(e, "i", "max", N), "i")) * xj),
    "a maximum": b.segment(raised(e) * xj, "i", "max", N),
    "something else where": total(library.where(e > 0.0, raised(e), xj)),
    "where, of what is NaN where nothing is guarded": total(library.where(e > 0.0, raised(e, False) * xj, 0.0)),
    "beside deviations from a mean": total(weights(e) * xj) + library.segment_var(xj, "i", N),
}


@pytest.mark.parametrize("name", TWO)
def test_two_walks_stay_two(name: str) -> None:
    two = kernel(TWO[name])
    assert len(two.phases) == len(on_gpu(two).phases) == 2


def test_a_maximum_with_its_winners_is_found_before() -> None:
    first = b.segment(e, "i", "argmax", N)
    assert len(on_gpu(kernel(total(weights(e) * xj), first)).phases) == 2


@pytest.mark.parametrize(("width", "walks"), [(16, 1), (4096, 2)])
def test_where_sums_shrink_at_a_higher_cost_than_a_walk_has(width: int, walks: int) -> None:
    """Of one number an edge, which the walk that is spared would read, the sum has many."""
    many = library.op("tanh", e * load("w", G, Dim("w", width)))
    assert len(on_gpu(kernel(total(raised(e) * many))).phases) == walks


def test_a_cpu_keeps_scores_for_the_second_walk() -> None:
    for name in ("GAT", "GATv2"):
        plan = lower(optimise(LAYERS[name]()), Options())
        assert [len(k.phases) for k in plan.kernels if k.phases] == [2]
        assert any(k.kept for k in plan.kernels) == (name == "GATv2")
        assert [len(k.phases) for k in plan_on_gpu(plan).kernels if k.phases] == [1]
        assert not any(k.kept for k in plan_on_gpu(plan).kernels)
        assert [k.outputs for k in plan_on_gpu(plan).kernels] == [k.outputs for k in plan.kernels]


def test_pairs_of_an_edge() -> None:
    assert any(p.running for k in plan_on_gpu(lower(optimise(pairs()), Options())).kernels for p in k.phases)
