"""Products of node values with matrices, left to the BLAS, and sums that it adds up as it makes their products."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

from gdsl.ir.node import Node, walk_below
from gdsl.ir.types import Domain

# A contraction with at most this many multiplications a number read is done in the kernel, else by the BLAS.
DENSE_INTENSITY = 4

# A sum of more terms than this is several steps: each node of a long chain of additions is asked what it is the sum of.
MAX_TERMS = 64

ROWS = frozenset({Domain.NODE, Domain.SOURCE, Domain.TARGET})


def iteration_space(node: Node) -> int:
    """How many products of numbers a contraction adds up, for each row of its operands."""
    return math.prod({d.name: d.size for o in node.inputs for d in o.dims}.values())


def is_dense(node: Node) -> bool:
    """Whether a contraction of row values is a real matrix product, best left to the BLAS."""
    read = sum(o.type.numel for o in node.inputs if o.domain is not Domain.GLOBAL)
    return iteration_space(node) > DENSE_INTENSITY * max(read, node.type.numel)


def rows_and_matrix(node: Node) -> tuple[Node, Node] | None:
    """The operands of [N, K] @ [K, M], a product of the rows of a value with one matrix for all of them; else None."""
    if node.op != "contract" or node.domain is Domain.GLOBAL or len(node.inputs) != 2 or not node.dims:
        return None
    rows, matrix = sorted(node.inputs, key=lambda i: i.domain is Domain.GLOBAL)
    if not rows.dims or matrix.domain is not Domain.GLOBAL or set(node.attrs.reduce) != set(rows.type.names):
        return None
    names = (*rows.type.names, *node.type.names)
    return (rows, matrix) if sorted(names) == sorted(matrix.type.names) else None


def _is_term(node: Node) -> bool:
    return node.domain in ROWS and rows_and_matrix(node) is not None and is_dense(node)


def is_sum_of_products(node: Node) -> bool:
    """Whether the BLAS makes the value alone: products of rows with matrices added up, and at most biases to them."""
    stack, count, found = [node], 0, False
    while stack:
        term, count = stack.pop(), count + 1
        inner = _terms(term)
        product = not inner and _is_term(term)
        if count > MAX_TERMS or not (inner or product or term.domain is Domain.GLOBAL):
            return False
        stack.extend(inner)
        found = found or product
    return found


def _terms(node: Node) -> tuple[Node, ...]:
    """The operands of a sum that have its rows and dims, or its dims as a bias; of dims that only have other names what
    these are the dims of; else none."""
    if node.op == "reshape" and node.domain in ROWS and node.type.shape == node.inputs[0].type.shape:
        return node.inputs
    if node.op != "add" or node.domain is Domain.GLOBAL:
        return ()
    return node.inputs if all(i.dims == node.dims for i in node.inputs) else ()


def absorbed(node: Node, read_by: Mapping[Node, Sequence[Node]], outputs: Collection[Node]) -> frozenset[Node]:
    """The products and partial sums that need not exist, where the BLAS adds up a sum as it makes its products."""
    if node.op != "add" or not is_sum_of_products(node):
        return frozenset()
    below = [n for n in walk_below([node], _terms) if n is not node and n.domain is not Domain.GLOBAL]
    alone = all(len(read_by[n]) == 1 and n not in outputs for n in below)
    return frozenset(below) if alone else frozenset()
