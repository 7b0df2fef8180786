"""Contractions of node values as plain matrix products: what a plan hands to the BLAS, without einsum's parsing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor

from gdsl.ir.node import Node
from gdsl.ir.types import Domain

Product = Callable[[Sequence[Tensor]], Tensor]


def matrix_product(node: Node) -> Product | None:
    """A function of the two operands that gives the contraction as one matrix product, if it is one.

    Both operands must have their rows and dims written out.
    """
    if node.op != "contract" or len(node.inputs) != 2:
        return None
    return _sum_over_rows(node) if node.attr("total") else _rows_by_matrix(node)


def _rows_by_matrix(node: Node) -> Product | None:
    """[N, K] @ [K, M], the matrix perhaps stored as [M, K]."""
    rows = [k for k, i in enumerate(node.inputs) if i.domain is not Domain.GLOBAL]
    if len(rows) != 1:
        return None
    at, (left, right) = rows[0], (node.inputs[rows[0]], node.inputs[1 - rows[0]])
    if not left.dims or not node.dims or set(node.attr("reduce")) != set(left.type.names):
        return None
    depth, width, shape = left.type.numel, node.type.numel, node.type.shape
    if right.type.names == (*left.type.names, *node.type.names):

        def straight(args: Sequence[Tensor]) -> Tensor:
            return (args[at].view(-1, depth) @ args[1 - at].view(depth, width)).view(-1, *shape)

        return straight
    if right.type.names == (*node.type.names, *left.type.names):

        def turned(args: Sequence[Tensor]) -> Tensor:
            return (args[at].view(-1, depth) @ args[1 - at].view(width, depth).t()).view(-1, *shape)

        return turned
    return None


def _sum_over_rows(node: Node) -> Product | None:
    """[N, K] and [N, M] to [K, M]: the transpose of one by the other."""
    if node.attr("reduce") or any(i.domain is Domain.GLOBAL or not i.dims for i in node.inputs):
        return None
    for k, (left, right) in enumerate((node.inputs, node.inputs[::-1])):
        if node.type.names == (*left.type.names, *right.type.names):
            return partial(_transposed_by, k, left.type.numel, right.type.numel, node.type.shape)
    return None


def _transposed_by(k: int, depth: int, width: int, shape: tuple[int, ...], args: Sequence[Tensor]) -> Tensor:
    return (args[k].view(-1, depth).t() @ args[1 - k].view(-1, width)).view(shape)
