"""What lies in memory, and how: buffers half as wide, partial results. The same for every code generator."""

from __future__ import annotations

from gdsl.ir.node import Node
from gdsl.ir.ops.edges import finds_winners
from gdsl.ir.types import Domain, Kind
from gdsl.passes.plan import Kernel, Plan

# Names of stored types that are computed with as float.
HALVES = frozenset({"bfloat16", "float16"})


def packed_buffers(plan: Plan, dtype: str, visible: int | None = None) -> frozenset[Node]:
    """The buffers that are stored half as wide: rows that users and products of matrices give, and results.

    What is read again of what kernels write stays float, so that a statistic or a sum is rounded once, where a user
    sees it.
    """
    if dtype not in HALVES:
        return frozenset()
    written = {o for k in plan.kernels for o in k.outputs}
    read = {b for k in plan.kernels for b in k.buffers if b not in written and b.domain is not Domain.GLOBAL}
    inner = {b for b in read if b.op == "graph_value" or (b.op == "load" and b.attrs.role == "saved")}
    outputs = plan.program.nodes
    again = {o for s in plan.steps for o in s.buffers}
    totals = {o for k in plan.kernels for o in k.all_totals}
    results = (written & set(outputs[:visible])) - again - totals
    if visible is not None:
        results -= set(outputs[visible:])
    return frozenset(b for b in (read - inner) | results if b.kind is Kind.FLOAT)


def partials(kernel: Kernel) -> list[tuple[Node, bool]]:
    """What a chunk of a hub writes down, in the order of the last parameters of its function.

    Each is an accumulator, with True for the values of its winners where it is about these.
    """
    found = []
    for phase in kernel.phases:
        for node in phase.accumulators:
            found.append((node, False))
            if finds_winners(node):
                found.append((node, True))
    return found
