"""Contractions of node values as plain matrix products: what a plan hands to the BLAS, or to our own products, without
einsum's parsing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from gdsl.ir.node import Node
from gdsl.ir.ops.op import row_axes
from gdsl.ir.types import Domain
from gdsl.passes.dense import rows_and_matrix
from gdsl.passes.plan import TorchStep
from gdsl.runtime import products as own

Product = Callable[[Sequence[Tensor]], Tensor]


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


def _added_up(products: Sequence[Node], biases: Sequence[Node], node: Node, reads: Sequence[Node]) -> SumOfProducts:
    pairs = tuple(_pair(p, reads) for p in products)
    return SumOfProducts(pairs, tuple(reads.index(b) for b in biases), node.type.shape)


def _pair(product: Node, reads: Sequence[Node]) -> Pair:
    operands = rows_and_matrix(product)
    assert operands is not None
    rows, matrix = operands
    turn = tuple(matrix.type.names.index(name) for name in (*rows.type.names, *product.type.names))
    return Pair(reads.index(rows), reads.index(matrix), turn, rows.type.numel, product.type.numel, len(rows.dims))


@dataclass(frozen=True, slots=True)
class Pair:
    """The operands of [N, depth] @ [depth, width]. The matrix, which is small, is turned to fit the rows, which are
    many: for two dims by the BLAS, on the way.

    rows, matrix: their places among what is read
    turn:         the matrix's own dims in the order of the rows' dims, then of the result's
    rows_dims:    how many dims the rows have
    """

    rows: int
    matrix: int
    turn: tuple[int, ...]
    depth: int
    width: int
    rows_dims: int

    @property
    def lies(self) -> bool | None:
        """Whether the matrix lies in memory as [width, depth], or as [depth, width]; None for any other way."""
        dims, first = len(self.turn), len(self.turn) - self.rows_dims
        if self.turn == tuple(range(dims)):
            return False
        return True if self.turn == (*range(first, dims), *range(first)) else None

    def lying(self, args: Sequence[Tensor]) -> tuple[Tensor, Tensor, bool]:
        """The rows, the matrix, and whether that lies as [width, depth]."""
        rows, matrix = args[self.rows], args[self.matrix]
        if self.lies is None:
            matrix = matrix.permute(self.turn)
        shape = (self.width, self.depth) if self.lies else (self.depth, self.width)
        return rows.view(rows.shape[0], self.depth), matrix.reshape(shape), bool(self.lies)

    def __call__(self, args: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        rows, matrix, turned = self.lying(args)
        return rows, matrix.t() if turned else matrix


@dataclass(frozen=True, slots=True)
class SumOfProducts:
    """[N, *shape]: products added up as they are made, and biases, which have these places among what is read."""

    pairs: tuple[Pair, ...]
    biases: tuple[int, ...]
    shape: tuple[int, ...]

    def __call__(self, args: Sequence[Tensor]) -> Tensor:
        biases, pairs = self.biases, self.pairs
        bias = None
        if biases:
            bias = (args[biases[0]] if len(biases) == 1 else torch.stack([args[k] for k in biases]).sum(0)).flatten()
        code = own.code_for(*args)
        if code is not None:
            made = code.by_matrix(*pairs[0].lying(args), pairs[0].width, bias)
            for pair in pairs[1:]:
                code.add_by_matrix(made, *pair.lying(args))
        else:
            made = torch.mm(*pairs[0](args)) if bias is None else torch.addmm(bias, *pairs[0](args))
            for pair in pairs[1:]:
                made.addmm_(*pair(args))
        return made if len(self.shape) == 1 else made.view(made.shape[0], *self.shape)


def view(node: Node) -> View | None:
    """A function that gives the operand under other dims, which is no work: as it is where only names change."""
    if node.op != "reshape":
        return None
    same = node.type.shape == node.inputs[0].type.shape
    return View(row_axes(node.type), None if same else node.type.shape)


@dataclass(frozen=True, slots=True)
class View:
    """The operand with other dims after its ``lead`` rows; None for its own."""

    lead: int
    shape: tuple[int, ...] | None

    def __call__(self, args: Sequence[Tensor]) -> Tensor:
        # Not -1 for the rows: rows without a number could be any number of them.
        return args[0] if self.shape is None else args[0].view((*args[0].shape[: self.lead], *self.shape))


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
    return SumOverRows(node.inputs.index(left), widths, shape, tuple(places[name] for name in node.type.names))


def _by_rows(k: int, widths: tuple[int, int], args: Sequence[Tensor]) -> Tensor:
    left, right = (args[p].view(args[p].shape[0], widths[p != k]) for p in (k, 1 - k))
    code = own.code_for(left, right)
    return left.t() @ right if code is None else code.over_rows(left, right)


def _diagonal_of(
    k: int,
    widths: tuple[int, int],
    shape: tuple[int, ...],
    made: list[int],
    wanted: list[int],
    args: Sequence[Tensor],
) -> Tensor:
    return torch.einsum(_by_rows(k, widths, args).view(shape), made, wanted).contiguous()


@dataclass(frozen=True, slots=True)
class SumOverRows:
    """[N, *left] and [N, *right] to [*left, *right], and that turned. ``left`` is the place of the first."""

    left: int
    widths: tuple[int, int]
    shape: tuple[int, ...]
    turn: tuple[int, ...]

    @property
    def is_straight(self) -> bool:
        """Whether it is the product of matrices as it is."""
        return self.turn == tuple(range(len(self.turn)))

    def __call__(self, args: Sequence[Tensor]) -> Tensor:
        product = _by_rows(self.left, self.widths, args)
        if self.is_straight and len(self.turn) == 2:
            return product
        return product.view(self.shape).permute(self.turn).contiguous()
