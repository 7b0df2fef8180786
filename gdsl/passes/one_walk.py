"""A softmax in one walk: its sums are relative to the largest score so far.

Fusion makes two walks of it: exp(score - maximum) * value is added up when the maximum of all edges is known, and what
the score was made of is gathered again. On a CPU it lies in cache by then, and one walk keeps the scores for the next.
On a GPU the two are one walk, in which a maximum that grows from m to n makes what has been added up smaller by
exp(m - n), once for a block of edges: wherever that costs less than the walk that is spared.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from gdsl.ir.node import Node, walk_below
from gdsl.passes import cost
from gdsl.passes.plan import Kernel, Phase, Plan, Relative
from gdsl.passes.simplify import constant_value


def plan_on_gpu(plan: Plan) -> Plan:
    """The plan as it runs on a GPU."""
    return replace(plan, steps=tuple(on_gpu(s) if isinstance(s, Kernel) else s for s in plan.steps))


def on_gpu(kernel: Kernel) -> Kernel:
    """The kernel as it runs on a GPU: no walk keeps values of edges for the next, and two are one where that costs
    less. What it reads and writes stays in its order."""
    kernel = replace(kernel, phases=tuple(replace(p, kept=()) for p in kernel.phases))
    number = 1
    while number < len(kernel.phases):
        shorter = _joined(kernel, number)
        if shorter is None or _of_an_edge(shorter) >= _of_an_edge(kernel):
            number += 1
        else:
            kernel = shorter
    return kernel


def _joined(kernel: Kernel, number: int) -> Kernel | None:
    """The kernel with a walk as a part of the one before, where that can be."""
    phases = kernel.phases
    first, second = phases[number - 1], phases[number]
    running = _running(first, second, kernel.end)
    if kernel.ordered or not running:
        return None
    whole = replace(first, accumulators=(*first.accumulators, *second.accumulators), running=(*first.running, *running))
    return replace(kernel, phases=(*phases[: number - 1], whole, *phases[number + 1 :]))


def _of_an_edge(kernel: Kernel) -> float:
    """What an edge costs, in the time of additions."""

    def of(edges: int) -> float:
        sizes = cost.Numbers({kernel.elements: edges})
        return float(cost.both(kernel, sizes))

    return of(2) - of(1)


def _running(first: Phase, second: Phase, end: str | None) -> list[Relative]:
    """What each sum of a walk is relative to; empty where the walk does more than add such sums up."""
    tops = [n for n in first.accumulators if n.op == "segment" and n.attrs.reducer == "max" and len(n.inputs) == 1]
    # The edges that win a maximum are found with it, block by block.
    tops = [n for n in tops if not _has_winners(n, first)]
    if not tops or second.stores or second.totals or second.running:
        return []
    factors = _Factors(frozenset(first.accumulators), tops, end)
    found = [factors.total(n) for n in second.accumulators]
    return [r for r in found if r is not None] if all(found) else []


def _has_winners(top: Node, phase: Phase) -> bool:
    same = (n for n in phase.accumulators if n is not top and n.op == "segment" and n.inputs == top.inputs)
    return any(n.attrs.reducer in ("argmax", "countmax") for n in same)


class _Factors:
    """Of which edge values a factor is exp(score - maximum), for a maximum among ``tops``.

    known: what the walk before adds up
    """

    def __init__(self, known: frozenset[Node], tops: Sequence[Node], end: str | None):
        self.known, self.tops, self.end = known, tops, end
        self.found: dict[Node, Relative | None] = {}

    def total(self, node: Node) -> Relative | None:
        """What a sum over edges is relative to. Each of its numbers must be relative to one number of a maximum."""
        if node.op != "segment" or node.attrs.reducer != "sum" or len(node.inputs) != 1:
            return None
        of_edges = self.edge(node.inputs[0])
        fits = of_edges is not None and set(of_edges.top.dims) <= set(node.dims)
        return replace(of_edges, total=node) if of_edges is not None and fits else None

    def edge(self, node: Node) -> Relative | None:
        if node not in self.found:
            self.found[node] = self._edge(node)
        return self.found[node]

    def _edge(self, node: Node) -> Relative | None:
        if node.op == "exp":
            return self._raised(node)
        relative = [i for i in node.inputs if self.depends(i)]
        first = self.edge(relative[0]) if relative else None
        if first is None or any(self.edge(i) != first for i in relative):
            return None
        # Of a product one factor, of a sum all terms.
        rest = [i for i in node.inputs if i not in relative]
        match node.op:
            case "mul" | "contract":
                fits = node.inputs.count(relative[0]) == 1 == len(relative) and not _sums_over(node, first.top)
            case "div":
                fits = relative == [node.inputs[0]]
            case "where":
                fits = first.guarded and node.inputs[0] in rest and all(constant_value(i) == 0.0 for i in rest[1:])
            case _:
                fits = node.op in ("neg", "add", "sub") and not rest
        return first if fits else None

    def _raised(self, node: Node) -> Relative | None:
        """exp(score - maximum[i]), or where(maximum > -inf, maximum, 0) for the maximum, of that very score: of another
        it could overflow before the maximum has grown."""
        if (shift := node.inputs[0]).op != "sub":
            return None
        read = shift.inputs[1]
        if read.op != "gather" or read.attrs.end != self.end:
            return None
        row, guarded = read.inputs[0], False
        if row.op == "where" and constant_value(row.inputs[2]) == 0.0 and _is_finite(row.inputs[0], row.inputs[1]):
            row, guarded = row.inputs[1], True
        return Relative(row, row, guarded) if row in self.tops and row.inputs[0] is shift.inputs[0] else None

    def depends(self, node: Node) -> bool:
        """Whether a value is made of what the walk before adds up."""
        return any(n in self.known for n in walk_below([node], lambda n: () if n in self.known else n.inputs))


def _sums_over(node: Node, top: Node) -> bool:
    """Whether a product is added up along a dim of a maximum."""
    return node.op == "contract" and (node.attrs.total or any(d.name in node.attrs.reduce for d in top.dims))


def _is_finite(condition: Node, top: Node) -> bool:
    """top > -inf"""
    return condition.op == "gt" and condition.inputs[0] is top and constant_value(condition.inputs[1]) == -math.inf
