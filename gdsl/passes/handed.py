"""Values of edges that a walk over one end of the edges hands to a walk over the other.

The backward pass of attention walks the edges from both ends, and each walk computes the gradient of the score again.
Often one of them has gathered all that it takes anyway, and the other gathers wide rows for it alone: then a number an
edge and head is written by the one and read by the other. That is memory by the edge, which is allowed where it is no
more than the rows are that need not be gathered, so that a plan's memory still grows as the nodes do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import permutations

from gdsl.ir.node import Node, walk_below
from gdsl.ir.ops import of
from gdsl.ir.program import Program
from gdsl.ir.types import Domain, Kind
from gdsl.passes import cost
from gdsl.passes.fuse import fuse
from gdsl.passes.one_walk import plan_on_gpu
from gdsl.passes.options import GraphShape
from gdsl.passes.plan import Kernel, Plan

# Numbers of a value that is handed over.
MOST_HANDED = 16
# Plans that are made for a program, besides the one that hands nothing over: those of attention take one to three.
MOST_TRIED = 8


def fuse_and_hand(program: Program, shape: GraphShape) -> Plan:
    """The plan of a program for a graph of this shape, with what pays handed from walk to walk."""
    listed, handed = shape.processes > 0, dict[Node, str]()
    plan = fuse(program, listed=listed)
    cost_of_plan: float | None = None
    tried: list[Mapping[Node, str]] = []
    while len(tried) < MOST_TRIED:
        choice = next((c for c in _choices(plan, shape) if c not in tried), None)
        if choice is None:
            break
        tried.append(choice)
        other = fuse(program, {**handed, **choice}, listed=listed)
        cost_of_plan = _cost(plan, shape) if cost_of_plan is None else cost_of_plan
        if (cost_of_other := _cost(other, shape)) < cost_of_plan:
            plan, handed, cost_of_plan = other, {**handed, **choice}, cost_of_other
    return plan


def _cost(plan: Plan, shape: GraphShape) -> float:
    """What the kernels take, in the time of additions."""
    count = {Domain.NODE: shape.targets, Domain.SOURCE: shape.sources, Domain.TARGET: shape.targets}
    sizes = cost.Numbers({**count, Domain.EDGE: shape.edges})
    kernels = plan.kernels if shape.device == "cpu" else plan_on_gpu(plan).kernels
    return float(sum(cost.both(k, sizes) for k in kernels))


def _choices(plan: Plan, shape: GraphShape) -> Iterator[Mapping[Node, str]]:
    """What a walk over each end could hand to walks over the other, that spares rows and is not too much memory."""
    walks = {k: _Walks.of(k) for k in plan.kernels if k.end in ("i", "j") and not k.ordered}
    for (maker, made), (_, read) in permutations(walks.items(), 2):
        if maker.end != read.kernel.end and not made.values.isdisjoint(read.values):
            handed = read.first_of(made.values)
            spared = read.gathered(frozenset()) - read.gathered(frozenset(handed))
            numbers = sum(n.type.numel for n in handed)
            if handed and shape.edges * numbers <= min(shape.sources, shape.targets) * spared:
                yield dict.fromkeys(handed, maker.end or "")


@dataclass(frozen=True)
class _Walks:
    """What the walks of a kernel compute of edges.

    roots:  what they begin with, from the results down
    values: all of it
    """

    kernel: Kernel
    roots: tuple[Node, ...]
    values: frozenset[Node]

    @classmethod
    def of(cls, kernel: Kernel) -> _Walks:
        phases = kernel.phases
        roots = [i for p in phases for n in (*p.accumulators, *p.totals) for i in n.inputs]
        roots += [n for p in phases for n in p.stores]
        roots = [n for n in roots if n.domain is Domain.EDGE]
        made = cls(kernel, tuple(roots), frozenset())
        return cls(kernel, tuple(roots), frozenset(made.below(frozenset())))

    def below(self, known: frozenset[Node]) -> Iterable[Node]:
        """The values of edges that are computed or read where some are ``known``."""
        stop = known | set(self.kernel.buffers)
        return walk_below(self.roots, lambda n: () if n in stop or n.op == "gather" else _of_edges(n))

    def first_of(self, others: frozenset[Node]) -> tuple[Node, ...]:
        """The narrow values, next to the results, that others compute, too."""
        both = frozenset(n for n in self.values & others if _may_be_handed(n) and n not in self.kernel.buffers)
        return tuple(n for n in self.below(both) if n in both)

    def gathered(self, known: frozenset[Node]) -> int:
        """Numbers that an edge reads at its other end."""
        rows = {n for n in self.below(known) if n not in known and n.op == "gather" and n.attrs.end != self.kernel.end}
        return sum(n.type.numel for n in rows)


def _of_edges(node: Node) -> tuple[Node, ...]:
    return tuple(i for i in node.inputs if i.domain is Domain.EDGE)


def _may_be_handed(node: Node) -> bool:
    return node.kind is Kind.FLOAT and of(node).computes and node.op != "gather" and node.type.numel <= MOST_HANDED
