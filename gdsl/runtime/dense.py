"""Contractions of node values as plain matrix products: what a plan hands to the BLAS, without einsum's parsing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from operator import itemgetter

import torch
from torch import Tensor

from gdsl.ir.node import Node
from gdsl.ir.types import Domain
from gdsl.passes.dense import rows_and_matrix
from gdsl.passes.plan import TorchStep

Product = Callable[[Sequence[Tensor]], Tensor]
Pair = Callable[[Sequence[Tensor]], tuple[Tensor, Tensor]]


def matrix_product(node: Node) -> Product | None:
    """A function of the two operands that gives the contraction as one matrix product, if it is one.

    Both operands must have their rows and dims written out.
    """
    if node.op != "contract" or len(node.inputs) != 2:
        return None
    if node.attrs.total:
        return _sum_over_rows(node)
    return _added_up([node], [], node, node.inputs) if rows_and_matrix(node) else None


def sum_of_products(step: TorchStep) -> Product:
    """A function of what the step reads that gives its node: the products added up as they are made.

    All it reads must have their rows and dims written out.
    """
    products = [n for n in step.computed if n.op == "contract"]
    biases = [i for n in step.computed if n.op == "add" for i in n.inputs if i.domain is Domain.GLOBAL]
    return _added_up(products, biases, step.node, step.buffers)


def _added_up(products: Sequence[Node], biases: Sequence[Node], node: Node, reads: Sequence[Node]) -> Product:
    pairs = [_pair(p, node, reads) for p in products]
    return partial(_add_up, pairs, [reads.index(b) for b in biases], node.type.shape)


def _add_up(pairs: Sequence[Pair], biases: Sequence[int], shape: tuple[int, ...], args: Sequence[Tensor]) -> Tensor:
    if biases:
        bias = args[biases[0]] if len(biases) == 1 else torch.stack([args[k] for k in biases]).sum(0)
        made = torch.addmm(bias.flatten(), *pairs[0](args))
    else:
        made = torch.mm(*pairs[0](args))
    for pair in pairs[1:]:
        made.addmm_(*pair(args))
    return made if len(shape) == 1 else made.view(len(made), *shape)


def _pair(product: Node, node: Node, reads: Sequence[Node]) -> Pair:
    """A function of what is read that gives the operands of [N, K] @ [K, M]. The matrix, which is small, is turned to
    fit the rows, which are many: for two dims by the BLAS, on the way."""
    operands = rows_and_matrix(product)
    assert operands is not None
    rows, matrix = operands
    turn = tuple(matrix.type.names.index(name) for name in (*rows.type.names, *node.type.names))
    at, by = reads.index(rows), reads.index(matrix)
    if len(turn) == 2:
        return partial(_two_dims, at, by, turn != (0, 1))
    return partial(_flat, at, by, turn, rows.type.numel, node.type.numel)


def _two_dims(at: int, by: int, turned: bool, args: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    return args[at], args[by].t() if turned else args[by]


def _flat(
    at: int, by: int, turn: tuple[int, ...], depth: int, width: int, args: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    return args[at].view(len(args[at]), depth), args[by].permute(turn).reshape(depth, width)


def view(node: Node) -> Product | None:
    """A function that gives the operand under other dims, which is no work: as it is where only names change."""
    if node.op != "reshape":
        return None
    if node.type.shape == node.inputs[0].type.shape:
        return itemgetter(0)
    return partial(_viewed, 0 if node.domain is Domain.GLOBAL else 1, node.type.shape)


def _viewed(lead: int, shape: tuple[int, ...], args: Sequence[Tensor]) -> Tensor:
    # Not -1 for the rows: rows without a number could be any number of them.
    return args[0].view((*args[0].shape[:lead], *shape))


# What two values are both wide in is multiplied in vain that many times: up to here faster than einsum, whose products
# of one place each are thin.
MOST_SHARED = 8


def _sum_over_rows(node: Node) -> Product | None:
    """[N, K] and [N, M] to [K, M]: the transpose of one by the other, and the result, which is small, turned. Of dims
    that both have, the result has the diagonal."""
    left, right = node.inputs
    if node.attrs.reduce or any(i.domain is Domain.GLOBAL or not i.dims for i in node.inputs):
        return None
    shared = set(left.type.names) & set(right.type.names)
    if math.prod(left.type.dim(name).size for name in shared) > MOST_SHARED:
        return None
    if node.type.names[: len(right.dims)] == right.type.names:
        left, right = right, left
    places: dict[str, int] = {}
    for name in (*left.type.names, *right.type.names):
        places.setdefault(name, len(places))
    shape = (*left.type.shape, *right.type.shape)
    widths = (left.type.numel, right.type.numel)
    if shared:
        made = [places[name] for name in (*left.type.names, *right.type.names)]
        wanted = [places[name] for name in node.type.names]
        return partial(_diagonal_of, node.inputs.index(left), widths, shape, made, wanted)
    turn = tuple(places[name] for name in node.type.names)
    return partial(_transposed_by, node.inputs.index(left), widths, shape, turn)


def _by_rows(k: int, widths: tuple[int, int], args: Sequence[Tensor]) -> Tensor:
    return args[k].view(len(args[k]), widths[0]).t() @ args[1 - k].view(len(args[1 - k]), widths[1])


def _diagonal_of(
    k: int,
    widths: tuple[int, int],
    shape: tuple[int, ...],
    made: list[int],
    wanted: list[int],
    args: Sequence[Tensor],
) -> Tensor:
    return torch.einsum(_by_rows(k, widths, args).view(shape), made, wanted).contiguous()


def _transposed_by(
    k: int, widths: tuple[int, int], shape: tuple[int, ...], turn: tuple[int, ...], args: Sequence[Tensor]
) -> Tensor:
    product = _by_rows(k, widths, args)
    return product if len(turn) == 2 and turn[0] == 0 else product.view(shape).permute(turn).contiguous()
