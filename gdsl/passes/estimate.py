"""What a program costs on a graph, in one number: what the optimiser compares plans by.

Operations and bytes are counted op by op, before fusion: values on edges are computed in registers, once in each walk
that needs them, and cost no bytes but those that are gathered from the other end; node values between products and
walks are written once and read once. A value that is used twice in a walk is counted once, as hash-consing makes it
one node.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass

from gdsl.ir.node import Node, users
from gdsl.ir.ops import of
from gdsl.ir.program import Program
from gdsl.ir.types import Domain
from gdsl.passes.cost import Numbers, skips_zeros
from gdsl.passes.layout import is_picked
from gdsl.passes.options import GraphShape
from gdsl.passes.tiles import streamed

FLOAT_BYTES = 4

# Costs in the time of one multiplication of a tiled product. Elementwise work on edges reaches a fraction of that rate;
# a byte of a node value comes from memory or a shared cache, one of a table, which counts less, from the core's own.
ELEMENTWISE_COST = 4.0
BYTE_COST = 6.0
CACHED_BYTES = 1.0 / 24.0


@dataclass(frozen=True)
class Work:
    """What something takes: operations, the time of all of them in multiplications of a tiled product, and bytes, each
    as many as it takes from memory."""

    operations: float = 0.0
    time: float = 0.0
    bytes: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(self.operations + other.operations, self.time + other.time, self.bytes + other.bytes)

    def __sub__(self, other: Work) -> Work:
        return self + other.times(-1)

    def times(self, count: int) -> Work:
        return Work(self.operations * count, self.time * count, self.bytes * count)

    @property
    def cost(self) -> float:
        return self.time + BYTE_COST * self.bytes


def estimate(program: Program, shape: GraphShape) -> float:
    """The cost of a program on a graph of this shape, in multiplications."""
    return work(program.nodes, shape).cost


def work(outputs: Sequence[Node], shape: GraphShape) -> Work:
    """What computing the outputs takes, each value once."""
    read = users(outputs)
    ends = _walks(outputs, read)
    passing = streamed(outputs, read) if shape.device == "cpu" else frozenset()
    count = _Counter(shape, passing)
    parts = [count.work(node, read[node], ends.get(node, {"i"})) for node in read if node.inputs]
    return Work(sum(p.operations for p in parts), sum(p.time for p in parts), sum(p.bytes for p in parts))


def _walks(outputs: Sequence[Node], read: dict[Node, list[Node]]) -> dict[Node, set[str]]:
    """The ends whose edges are walked to compute a value on edges."""
    found: dict[Node, set[str]] = {n: {"i"} for n in outputs if n.domain is Domain.EDGE}
    for node in reversed(read):
        for operand in (o for o in node.inputs if o.domain is Domain.EDGE):
            over = {node.attrs.end} if of(node).aggregates else {"i"}
            found.setdefault(operand, set()).update(found[node] if node.domain is Domain.EDGE else over)
    return found


class _Counter:
    """Counts what a value takes on a graph; ``passing`` values need not be whole."""

    def __init__(self, shape: GraphShape, passing: Set[Node]):
        sides = {Domain.NODE: shape.targets, Domain.SOURCE: shape.sources, Domain.TARGET: shape.targets}
        sides[Domain.PAIR] = int(shape.edges * shape.in_degree)
        self.sizes = Numbers({**sides, Domain.EDGE: shape.edges})
        # About one edge of a target has a number at each place of a sparse operand.
        self.few = Numbers({**sides, Domain.EDGE: min(shape.edges, shape.targets)})
        self.passing = passing

    def work(self, node: Node, read_by: Sequence[Node], ends: set[str]) -> Work:
        """Of a value on edges in each walk that needs it; a row at whose edges a walk is lies at hand."""
        moved = self.bytes(node, read_by)
        if node.op == "gather":
            return Work(bytes=moved * len(ends - {node.attrs.end}))
        operations = of(node).work(node, self.few if skips_zeros(node) else self.sizes)
        found = Work(operations, _time(node, operations), moved)
        return found.times(len(ends)) if node.domain is Domain.EDGE else found

    def bytes(self, node: Node, read_by: Sequence[Node]) -> float:
        """What a value moves through memory, when it is read or written."""
        own = float(FLOAT_BYTES * self.sizes.rows(node.domain) * node.type.numel)
        if node.op == "gather":
            # Where one place of many is picked, only that one is read.
            picked = bool(read_by) and all(u.op == "index" and u.inputs[0] is node for u in read_by)
            return 0.0 if picked else own
        if node.op == "segment":
            return 0.0 if node in self.passing else 2 * own
        if node.op == "index":
            return CACHED_BYTES * own if node.inputs[0].domain is Domain.GLOBAL else own
        if node.op != "contract" or any(i.domain is Domain.EDGE for i in node.inputs):
            return 0.0
        # What a row picks of a table counts where it is picked.
        read = (i for i in node.inputs if i not in self.passing and not is_picked(i))
        return own + sum(FLOAT_BYTES * self.sizes.rows(i.domain) * i.type.numel for i in read)


def _time(node: Node, operations: float) -> float:
    if node.op != "contract":
        return ELEMENTWISE_COST * of(node).cost * operations
    # The addition to a sum is done with the last multiplication.
    factors = len(node.inputs)
    summed = factors > 1 and (node.attrs.reduce or node.attrs.total)
    return operations * (factors - 1) / factors if summed else operations
