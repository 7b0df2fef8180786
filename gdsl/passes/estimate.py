"""What a program costs on a graph, in one number: what the optimiser compares plans by.

Operations and bytes are counted op by op, before fusion: values on edges are computed in registers and cost no bytes
but those that are gathered; node values between products and walks are written once and read once. A value that is
used twice is counted once, as hash-consing makes it one node.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from gdsl.ir.node import Node, users, walk
from gdsl.ir.ops import ELEMENTWISE
from gdsl.ir.program import Program
from gdsl.ir.types import Domain
from gdsl.passes.layout import is_sparse
from gdsl.passes.options import GraphShape

FLOAT_BYTES = 4

# Costs in the time of one multiplication of a tiled product. Elementwise work on edges reaches a fraction of that rate;
# a byte of a node value comes from memory or a shared cache, one of a table from the core's own cache.
ELEMENTWISE_COST = 4.0
BYTE_COST = 6.0
CACHED_BYTE_COST = 1.0


def rows(domain: Domain, shape: GraphShape) -> int:
    """Rows of a domain on a graph; a batch of graphs counts as one."""
    counts = {
        Domain.NODE: shape.targets,
        Domain.SOURCE: shape.sources,
        Domain.TARGET: shape.targets,
        Domain.EDGE: shape.edges,
    }
    return counts.get(domain, 1)


def estimate(program: Program, shape: GraphShape) -> float:
    """The cost of a program on a graph of this shape, in multiplications."""
    read = users(program.nodes)
    return sum(_cost(node, shape, read[node]) for node in walk(program.nodes))


def _cost(node: Node, shape: GraphShape, read_by: Sequence[Node]) -> float:
    count = rows(node.domain, shape)
    numel = node.type.numel
    if node.op in ELEMENTWISE:
        return ELEMENTWISE_COST * ELEMENTWISE[node.op].flops * count * numel
    if node.op == "contract":
        return _contraction(node, shape)
    if node.op == "gather":
        # Where one place of many is picked, only that one is read.
        if read_by and all(u.op == "index" and u.inputs[0] is node for u in read_by):
            return 0.0
        return BYTE_COST * FLOAT_BYTES * count * numel
    if node.op == "segment":
        added = rows(node.inputs[0].domain, shape) * node.inputs[0].type.numel
        return ELEMENTWISE_COST * added + 2 * BYTE_COST * FLOAT_BYTES * count * numel
    if node.op == "index":
        byte_cost = CACHED_BYTE_COST if node.inputs[0].domain is Domain.GLOBAL else BYTE_COST
        return byte_cost * FLOAT_BYTES * count * numel
    if node.op in ("scatter", "reduce"):
        return ELEMENTWISE_COST * rows(node.inputs[0].domain, shape) * node.inputs[0].type.numel
    return 0.0


def _contraction(node: Node, shape: GraphShape) -> float:
    domain = next((i.domain for i in node.inputs if i.domain is not Domain.GLOBAL), Domain.GLOBAL)
    count = rows(domain, shape)
    space = math.prod({d.name: d.size for i in node.inputs for d in i.dims}.values())
    work = float(count * space * max(1, len(node.inputs) - 1))
    if domain is Domain.EDGE:
        # A row of a sparse operand has about one number for all the edges of a node.
        return work / max(1.0, shape.in_degree) if any(is_sparse(i) for i in node.inputs) else work
    moved = sum(rows(i.domain, shape) * i.type.numel for i in node.inputs) + rows(node.domain, shape) * node.type.numel
    return work + BYTE_COST * FLOAT_BYTES * moved
