"""Dot products between the nodes of a complete graph, and sums of what others have, for a block of nodes at a time by
``dots.h``."""

from __future__ import annotations

from dataclasses import dataclass

from gdsl.ir.node import Node, walk_below
from gdsl.ir.types import Domain, Kind
from gdsl.passes.plan import Kernel

# The header's functions, the most numbers that are read beyond the last place, and nodes in a block.
FUNCTIONS = ("row_dots", "row_sums")
BEYOND = 64
# From one number of all nodes to the next: an odd number of lines of 64 bytes, which do not share a place in the cache.
STRIDE = "(({0} + 15) / 16 | 1) * 16"
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


@dataclass(frozen=True)
class WeightedSum:
    """The node as the sum of vectors at the other end, which lie in memory, each times a number of the edge's."""

    node: Node
    weight: Node
    other: Node

    @property
    def edge_operands(self) -> tuple[Node, ...]:
        return (self.weight,)

    @property
    def sizes(self) -> tuple[int, int]:
        """How many vectors a node has, and their length."""
        return self.weight.type.numel, self.other.dims[-1].size


def weighted_sum_of(node: Node, kernel: Kernel, packed: frozenset[Node]) -> WeightedSum | None:
    """The node as a weighted sum, if it is one."""
    if node.op != "segment" or node.attrs.reducer != "sum" or len(node.inputs) != 1:
        return None
    product = node.inputs[0]
    plain = product.op == "mul" or (product.op == "contract" and not product.attrs.reduce)
    if not plain or len(product.inputs) != 2:
        return None
    for weight, read in (product.inputs, product.inputs[::-1]):
        if read.op != "gather" or read.attrs.end == kernel.end or read.kind is not Kind.FLOAT:
            continue
        other = read.inputs[0]
        fits = other in kernel.buffers and other not in packed and other.dims == node.dims and bool(other.dims)
        of_edges = weight.domain is Domain.EDGE and weight.kind is Kind.FLOAT and weight.dims == node.dims[:-1]
        if fits and of_edges and other.dims[-1].size >= LEAST_LENGTH:
            return WeightedSum(node, weight, other)
    return None


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


def stride(nodes: int) -> int:
    """What ``STRIDE`` says in C."""
    return ((nodes + 15) // 16 | 1) * 16


def turned(kernel: Kernel, packed: frozenset[Node]) -> tuple[Node, ...]:
    """The values that a kernel turns first, so that their numbers lie behind each other place by place."""
    if not kernel.complete:
        return ()
    buffers = set(kernel.buffers)
    roots = [*(n for p in kernel.phases for n in (*p.roots, *p.kept)), *kernel.stores, *kernel.totals]
    below = walk_below(roots, lambda n: () if n in buffers else n.inputs)
    found = (dots_of(n, kernel, packed) for n in below if n not in buffers)
    return tuple(dict.fromkeys(dots.other for dots in found if dots is not None))
