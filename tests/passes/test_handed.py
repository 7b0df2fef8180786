"""What walks over one end of the edges hand to those over the other, and what memory that may take."""

from __future__ import annotations

import pytest

from gdsl.ir import build as b
from gdsl.ir import library
from gdsl.ir.program import Program
from gdsl.ir.types import Dim, Domain, Kind
from gdsl.passes.fuse import boundaries, fuse
from gdsl.passes.options import GraphShape, Options
from gdsl.passes.pipeline import differentiate, lower, optimise
from gdsl.passes.plan import Plan
from tests.ir.drive import LAYERS, N, load, program

NODES = 1 << 16


def options(degree: int, device: str = "cpu") -> Options:
    return Options(shape=GraphShape(NODES, NODES, NODES * degree, device))


def backward(p: Program, chosen: Options) -> Plan:
    p = optimise(p, chosen)
    wrt = [n for n in p.inputs if n.kind is Kind.FLOAT]
    return lower(differentiate(p, wrt, range(len(p.outputs)), None, chosen).program, chosen)


def attention(heads: int = 2, width: int = 16) -> Program:
    """As in a graph transformer."""
    h, d = Dim("h", heads), Dim("d", width)
    q, k, v = (load(name, N, h, d) for name in "qkv")
    score = b.contract([b.gather(q, "i"), b.gather(k, "j")], ["d"])
    return program(b.segment(library.segment_softmax(score, "i", N, True) * b.gather(v, "j"), "i", "sum", N))


def written(plan: Plan) -> list[int]:
    return [n.type.numel for k in plan.kernels for n in k.outputs if n.domain is Domain.EDGE]


def gathered(plan: Plan) -> set[tuple[str, str | None]]:
    """The loads that walks read at the other end, and the end of the walk."""
    found = set()
    for kernel in plan.kernels:
        stack, seen = [i for p in kernel.phases for n in (*p.accumulators, *p.totals) for i in n.inputs], set()
        while stack:
            node = stack.pop()
            if node in seen or node.domain is not Domain.EDGE or node in kernel.buffers:
                continue
            seen.add(node)
            if node.op == "gather" and node.attrs.end != kernel.end and node.inputs[0].op == "load":
                found.add((node.inputs[0].attrs.name, kernel.end))
            stack += node.inputs
    return found


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_values_are_gathered_for_the_gradient_of_scores_alone(device: str) -> None:
    plan = backward(attention(), options(8, device))
    plain = fuse(plan.program)
    assert (written(plain), written(plan)) == ([], [2])
    assert gathered(plain) - gathered(plan) == {("v", "i")}
    (reason,) = (why for node, _, _, why in boundaries(plan) if node.domain is Domain.EDGE)
    assert "gathered for it alone" in reason


@pytest.mark.parametrize(("degree", "handed"), [(2, True), (16, True), (32, False), (256, False)])
def test_memory_grows_as_nodes_do(degree: int, handed: bool) -> None:
    """Two numbers an edge, where rows of 32 numbers need not be gathered: up to 16 edges a node."""
    assert bool(written(backward(attention(), options(degree)))) == handed


def test_what_spares_no_row_is_computed_again() -> None:
    """GATv2 reads the same rows for all else."""
    assert written(backward(LAYERS["GATv2"](), options(2))) == []
    assert written(lower(optimise(attention()), options(2))) == []


def test_wide_values_are_not_handed_over() -> None:
    assert written(backward(attention(heads=32, width=64), options(1))) == []


def test_the_same_plan_each_time() -> None:
    first, again = (backward(attention(), options(8)) for _ in range(2))
    assert [k.outputs for k in first.kernels] == [k.outputs for k in again.kernels]


def test_walks_that_are_one_row_operation_then() -> None:
    """GAT's gradient of what the target has of a score is a sum of what is handed over."""
    plan = backward(LAYERS["GAT"](), options(1))
    plain = fuse(plan.program)
    assert (written(plain), written(plan)) == ([], [2])
    assert len([k for k in plan.kernels if k.end]) <= len([k for k in plain.kernels if k.end])
