"""Products of node values with matrices, left to the BLAS, and sums that it adds up as it makes their products."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

from gdsl.ir.node import Node, walk_below
from gdsl.ir.types import Domain

# A contraction with at most this many multiplications a number read is done in the kernel, else by the BLAS.
DENSE_INTENSITY = 4

_ROWS = frozenset({Domain.NODE, Domain.SOURCE, Domain.TARGET})


def iteration_space(node: Node) -> int:
    """How many products of numbers a contraction adds up, for each row of its operands."""
    return math.prod({d.name: d.size for o in node.inputs for d in o.dims}.values())


def is_dense(node: Node) -> bool:
    """Whether a contraction of row values is a real matrix product, best left to the BLAS."""
    read = sum(o.type.numel for o in node.inputs if o.domain is not Domain.GLOBAL)
    return iteration_space(node) > DENSE_INTENSITY * max(read, node.type.numel)


def is_rows_by_matrix(node: Node) -> bool:
    """Whether it is such a product, of the rows of one value with one matrix that is the same for all of them."""
    if node.op != "contract" or node.domain not in _ROWS or len(node.inputs) != 2 or not node.dims:
        return False
    rows, matrix = sorted(node.inputs, key=lambda i: i.domain is Domain.GLOBAL)
    names = (*rows.type.names, *node.type.names)
    alone = rows.domain is not Domain.GLOBAL and matrix.domain is Domain.GLOBAL
    summed = set(node.attr("reduce")) == set(rows.type.names) and sorted(names) == sorted(matrix.type.names)
    return alone and summed and is_dense(node)


def is_sum_of_products(node: Node) -> bool:
    """Whether the BLAS makes the value alone: products of rows with matrices added up, and at most biases to them."""
    terms = [n for n in walk_below([node], _terms) if not _terms(n)]
    products = [t for t in terms if is_rows_by_matrix(t)]
    return bool(products) and all(t in products or t.domain is Domain.GLOBAL for t in terms)


def _terms(node: Node) -> tuple[Node, ...]:
    """The operands of a sum that have its rows and dims, or its dims as a bias; else none."""
    if node.op != "add" or node.domain is Domain.GLOBAL:
        return ()
    return node.inputs if all(i.dims == node.dims for i in node.inputs) else ()


def absorbed(node: Node, read_by: Mapping[Node, Sequence[Node]], outputs: Collection[Node]) -> frozenset[Node]:
    """The products and partial sums that need not exist, where the BLAS adds up a sum as it makes its products."""
    if not is_sum_of_products(node):
        return frozenset()
    below = [n for n in walk_below([node], _terms) if n is not node and n.domain is not Domain.GLOBAL]
    alone = all(len(read_by[n]) == 1 and n not in outputs for n in below)
    return frozenset(below) if alone else frozenset()
