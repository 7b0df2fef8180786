"""What a program costs on a graph, in one number: what the optimiser compares plans by.

Operations and bytes are counted op by op, before fusion: values on edges are computed in registers, once in each walk
that needs them, and cost no bytes but those that are gathered from the other end; node values between products and
walks are written once and read once. A value that is used twice in a walk is counted once, as hash-consing makes it
one node.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from gdsl.ir.node import Node, users, walk
from gdsl.ir.ops import ELEMENTWISE
from gdsl.ir.program import Program
from gdsl.ir.types import Domain
from gdsl.passes.dense import iteration_space
from gdsl.passes.layout import is_picked, is_sparse
from gdsl.passes.options import GraphShape
from gdsl.passes.tiles import streamed

FLOAT_BYTES = 4

# Costs in the time of one multiplication of a tiled product. Elementwise work on edges reaches a fraction of that rate;
# a byte of a node value comes from memory or a shared cache, one of a table, which counts less, from the core's own.
ELEMENTWISE_COST = 4.0
BYTE_COST = 6.0
CACHED_BYTES = 1.0 / 24.0


def rows(domain: Domain, shape: GraphShape) -> int:
    """Rows of a domain on a graph; a batch of graphs counts as one."""
    counts = {
        Domain.NODE: shape.targets,
        Domain.SOURCE: shape.sources,
        Domain.TARGET: shape.targets,
        Domain.EDGE: shape.edges,
    }
    return counts.get(domain, 1)


@dataclass(frozen=True)
class Work:
    """Operations, each as many multiplications as it costs, and bytes, each as many as it takes from memory."""

    flops: float
    bytes: float

    def __add__(self, other: Work) -> Work:
        return Work(self.flops + other.flops, self.bytes + other.bytes)

    def __sub__(self, other: Work) -> Work:
        return Work(self.flops - other.flops, self.bytes - other.bytes)

    @property
    def cost(self) -> float:
        return self.flops + BYTE_COST * self.bytes


def estimate(program: Program, shape: GraphShape) -> float:
    """The cost of a program on a graph of this shape, in multiplications."""
    return work(program.nodes, shape).cost


def work(outputs: Sequence[Node], shape: GraphShape) -> Work:
    """What computing the outputs takes, each value once."""
    read = users(outputs)
    ends = _walks(outputs, read)
    passing = streamed(outputs, read) if shape.device == "cpu" else frozenset()
    return sum((_work(node, shape, read[node], ends.get(node, {"i"}), passing) for node in read), Work(0.0, 0.0))


def _walks(outputs: Sequence[Node], read: Mapping[Node, Sequence[Node]]) -> dict[Node, set[str]]:
    """The ends whose edges are walked to compute a value on edges."""
    found: dict[Node, set[str]] = {n: {"i"} for n in outputs if n.domain is Domain.EDGE}
    for node in reversed(list(walk(outputs))):
        for operand in (o for o in node.inputs if o.domain is Domain.EDGE):
            over = {node.attrs.end} if node.op == "segment" else {"i"}
            found.setdefault(operand, set()).update(found[node] if node.domain is Domain.EDGE else over)
    return found


def _work(node: Node, shape: GraphShape, read_by: Sequence[Node], ends: set[str], passing: Set[Node]) -> Work:
    found = _work_once(node, shape, read_by, passing)
    if node.op == "gather":
        return Work(0.0, found.bytes * len(ends - {node.attrs.end}))
    return Work(found.flops * len(ends), found.bytes * len(ends)) if node.domain is Domain.EDGE else found


def _work_once(node: Node, shape: GraphShape, read_by: Sequence[Node], passing: Set[Node]) -> Work:
    count = rows(node.domain, shape)
    numel = node.type.numel
    if node.op in ELEMENTWISE:
        return Work(ELEMENTWISE_COST * ELEMENTWISE[node.op].flops * count * numel, 0.0)
    if node.op == "contract":
        return _contraction(node, shape, passing)
    if node.op == "gather":
        # Where one place of many is picked, only that one is read.
        picked = bool(read_by) and all(u.op == "index" and u.inputs[0] is node for u in read_by)
        return Work(0.0, 0.0 if picked else FLOAT_BYTES * count * numel)
    if node.op == "segment":
        added = rows(node.inputs[0].domain, shape) * node.inputs[0].type.numel
        return Work(ELEMENTWISE_COST * added, 0.0 if node in passing else 2 * FLOAT_BYTES * count * numel)
    if node.op == "index":
        part = CACHED_BYTES if node.inputs[0].domain is Domain.GLOBAL else 1.0
        return Work(0.0, part * FLOAT_BYTES * count * numel)
    if node.op in ("scatter", "reduce"):
        return Work(ELEMENTWISE_COST * rows(node.inputs[0].domain, shape) * node.inputs[0].type.numel, 0.0)
    return Work(0.0, 0.0)


def _contraction(node: Node, shape: GraphShape, passing: Set[Node]) -> Work:
    domain = next((i.domain for i in node.inputs if i.domain is not Domain.GLOBAL), Domain.GLOBAL)
    count = rows(domain, shape)
    flops = float(count * iteration_space(node) * max(1, len(node.inputs) - 1))
    if domain is Domain.EDGE:
        # A row of a sparse operand has about one number for all the edges of a node.
        return Work(flops / max(1.0, shape.in_degree) if any(is_sparse(i) for i in node.inputs) else flops, 0.0)
    # What a row picks of a table counts where it is picked.
    read = (i for i in node.inputs if i not in passing and not is_picked(i))
    moved = sum(rows(i.domain, shape) * i.type.numel for i in read) + rows(node.domain, shape) * node.type.numel
    return Work(flops, FLOAT_BYTES * moved)
