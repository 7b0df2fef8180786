"""Contractions of node values as plain matrix products: what a plan hands to the BLAS, without einsum's parsing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from operator import itemgetter

import torch
from torch import Tensor

from gdsl.ir.node import Node
from gdsl.ir.types import Domain
from gdsl.passes.plan import TorchStep

Product = Callable[[Sequence[Tensor]], Tensor]


def matrix_product(node: Node) -> Product | None:
    """A function of the two operands that gives the contraction as one matrix product, if it is one.

    Both operands must have their rows and dims written out.
    """
    if node.op != "contract" or len(node.inputs) != 2:
        return None
    return _sum_over_rows(node) if node.attr("total") else _rows_by_matrix(node)


def sum_of_products(step: TorchStep) -> Product:
    """A function of what the step reads that gives its node: the products added up as they are made.

    All it reads must have their rows and dims written out.
    """
    reads, node = step.buffers, step.node
    products, biases = [], []
    for term in step.computed:
        if term.op != "contract":
            biases += [reads.index(i) for i in term.inputs if i in reads]
            continue
        rows, matrix = sorted(term.inputs, key=lambda i: i.domain is Domain.GLOBAL)
        order = (*rows.type.names, *node.type.names)
        turn = tuple(matrix.type.names.index(name) for name in order)
        products.append((reads.index(rows), rows.type.numel, reads.index(matrix), turn))
    return partial(_added_up, products, biases, node.type.numel, node.type.shape)


def _added_up(
    products: Sequence[tuple[int, int, int, tuple[int, ...]]],
    biases: Sequence[int],
    width: int,
    shape: tuple[int, ...],
    args: Sequence[Tensor],
) -> Tensor:
    pairs = [
        (args[rows].view(-1, depth), args[matrix].permute(turn).reshape(depth, width))
        for rows, depth, matrix, turn in products
    ]
    if biases:
        bias = args[biases[0]] if len(biases) == 1 else torch.stack([args[k] for k in biases]).sum(0)
        made = torch.addmm(bias.view(width), *pairs[0])
    else:
        made = torch.mm(*pairs[0])
    for rows, matrix in pairs[1:]:
        made.addmm_(rows, matrix)
    return made.view(-1, *shape)


def view(node: Node) -> Product | None:
    """A function that gives the operand under other dims, which is no work: as it is where only names change."""
    if node.op != "reshape":
        return None
    if node.type.shape == node.inputs[0].type.shape:
        return itemgetter(0)
    rows = () if node.domain is Domain.GLOBAL else (-1,)
    return partial(_viewed, (*rows, *node.type.shape))


def _viewed(shape: tuple[int, ...], args: Sequence[Tensor]) -> Tensor:
    return args[0].view(shape)


def _rows_by_matrix(node: Node) -> Product | None:
    """[N, K] @ [K, M]. The matrix, which is small, is turned to fit the rows, which are many: for two dims by the BLAS,
    on the way."""
    rows = [k for k, i in enumerate(node.inputs) if i.domain is not Domain.GLOBAL]
    if len(rows) != 1:
        return None
    left, right = node.inputs[rows[0]], node.inputs[1 - rows[0]]
    order = (*left.type.names, *node.type.names)
    if not left.dims or not node.dims or set(node.attr("reduce")) != set(left.type.names):
        return None
    if len(order) != len(right.dims) or set(order) != set(right.type.names):
        return None
    if len(order) == 2:
        return partial(_rows_by_two_dims, rows[0], order != right.type.names)
    turn = tuple(right.type.names.index(name) for name in order)
    return partial(_by_matrix, rows[0], turn, left.type.numel, node.type.numel, node.type.shape)


def _rows_by_two_dims(at: int, turned: bool, args: Sequence[Tensor]) -> Tensor:
    return torch.mm(args[at], args[1 - at].t() if turned else args[1 - at])


def _by_matrix(
    at: int, turn: tuple[int, ...], depth: int, width: int, shape: tuple[int, ...], args: Sequence[Tensor]
) -> Tensor:
    return (args[at].view(-1, depth) @ args[1 - at].permute(turn).reshape(depth, width)).view(-1, *shape)


def _sum_over_rows(node: Node) -> Product | None:
    """[N, K] and [N, M] to [K, M]: the transpose of one by the other, and the result, which is small, turned."""
    left, right = node.inputs
    if node.attr("reduce") or any(i.domain is Domain.GLOBAL or not i.dims for i in node.inputs):
        return None
    if set(left.type.names) & set(right.type.names):
        return None
    if node.type.names[: len(right.dims)] == right.type.names:
        left, right = right, left
    made = (*left.type.names, *right.type.names)
    turn = tuple(made.index(name) for name in node.type.names)
    shape = (*left.type.shape, *right.type.shape)
    return partial(_transposed_by, node.inputs.index(left), left.type.numel, right.type.numel, shape, turn)


def _transposed_by(
    k: int, depth: int, width: int, shape: tuple[int, ...], turn: tuple[int, ...], args: Sequence[Tensor]
) -> Tensor:
    product = args[k].view(-1, depth).t() @ args[1 - k].view(-1, width)
    return product if len(turn) == 2 and turn[0] == 0 else product.view(shape).permute(turn).contiguous()
