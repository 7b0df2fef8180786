"""Dot products between the nodes of a complete graph, for a block of nodes at a time by ``dots.h``."""

from __future__ import annotations

from dataclasses import dataclass

from gdsl.ir.node import Node, walk_below
from gdsl.ir.types import Domain, Kind
from gdsl.passes.plan import Kernel

# The header's function, the most numbers that it reads beyond the last place, and nodes in a block.
FUNCTION = "row_dots"
BEYOND = 64
BLOCK = 32
# Shorter vectors are left to plain loops.
LEAST_LENGTH = 4


@dataclass(frozen=True)
class Dots:
    """The node as dot products over the last dim of a node's own value with that at the other end, which lies in
    memory."""

    node: Node
    own: Node
    other: Node

    @property
    def edge_operands(self) -> tuple[Node, ...]:
        return ()

    @property
    def sizes(self) -> tuple[int, int]:
        """How many vectors a node has, and their length."""
        return self.node.type.numel, self.own.dims[-1].size


def dots_of(node: Node, kernel: Kernel, packed: frozenset[Node]) -> Dots | None:
    """The node as dot products, if it is what they are."""
    if node.op != "contract" or node.domain is not Domain.EDGE or len(node.inputs) != 2:
        return None
    ends = {i.attrs.end: i.inputs[0] for i in node.inputs if i.op == "gather" and i.kind is Kind.FLOAT}
    own, other = ends.get(kernel.end or ""), ends.get("j" if kernel.end == "i" else "i")
    if own is None or other is None or other not in kernel.buffers or own in packed:
        return None
    alike = own.dims == other.dims and bool(own.dims) and own.dims[:-1] == node.dims
    return Dots(node, own, other) if alike and own.dims[-1].size >= LEAST_LENGTH else None


def turned(kernel: Kernel, packed: frozenset[Node]) -> tuple[Node, ...]:
    """The values that a kernel turns first, so that their numbers lie behind each other place by place."""
    if not kernel.complete:
        return ()
    buffers = set(kernel.buffers)
    roots = [*(n for p in kernel.phases for n in (*p.roots, *p.kept)), *kernel.stores, *kernel.totals]
    below = walk_below(roots, lambda n: () if n in buffers else n.inputs)
    found = (dots_of(n, kernel, packed) for n in below if n not in buffers)
    return tuple(dict.fromkeys(dots.other for dots in found if dots is not None))
