"""Aggregations without parameters."""

from __future__ import annotations

import torch
from torch import Tensor

from gdsl.ir import build, library
from gdsl.ir.library import op, where
from gdsl.ir.node import Node
from gdsl.ir.types import Domain
from gdsl.language.modules import Reader, read_aggregation
from gdsl.nn.aggr.base import Aggregation
from gdsl.nn.grouped import group_of_each


class SumAggregation(Aggregation):
    """The sum; 0 for no rows."""

    def read_aggregation(self, reader: Reader, path: str, m: Node, end: str, rows: Domain) -> Node:
        return library.segment_sum(m, end, rows)

    def plain(self, rows: Tensor, index: Tensor, size: int) -> Tensor:
        return _sum(rows, index, size).to(rows.dtype)


class MeanAggregation(Aggregation):
    """The mean; 0 for no rows."""

    def read_aggregation(self, reader: Reader, path: str, m: Node, end: str, rows: Domain) -> Node:
        return library.segment_mean(m, end, rows)

    def plain(self, rows: Tensor, index: Tensor, size: int) -> Tensor:
        return _sum(rows, index, size) / _count(rows, index, size)


class MaxAggregation(Aggregation):
    """The largest of each feature; 0 for no rows."""

    def read_aggregation(self, reader: Reader, path: str, m: Node, end: str, rows: Domain) -> Node:
        return build.segment(m, end, "max", rows)

    def plain(self, rows: Tensor, index: Tensor, size: int) -> Tensor | None:
        return _extreme(rows, index, size, "amax")


class MinAggregation(Aggregation):
    """The smallest of each feature; 0 for no rows."""

    def read_aggregation(self, reader: Reader, path: str, m: Node, end: str, rows: Domain) -> Node:
        return build.segment(m, end, "min", rows)

    def plain(self, rows: Tensor, index: Tensor, size: int) -> Tensor | None:
        return _extreme(rows, index, size, "amin")


class MulAggregation(Aggregation):
    """The product; 1 for no rows."""

    def read_aggregation(self, reader: Reader, path: str, m: Node, end: str, rows: Domain) -> Node:
        return build.segment(m, end, "mul", rows)

    def plain(self, rows: Tensor, index: Tensor, size: int) -> Tensor:
        whole = _whole(rows)
        product = whole.new_ones(size, *rows.shape[1:])
        return product.scatter_reduce(0, group_of_each(rows, index), whole, "prod").to(rows.dtype)


class VarAggregation(Aggregation):
    """mean((x - mean(x))^2). torch_geometric's mean(x^2) - mean(x)^2 loses its digits where the mean is large.

    semi_grad: take no gradient through mean(x^2), of the variance as mean(x^2) - mean(x)^2
    """

    def __init__(self, semi_grad: bool = False):
        super().__init__()
        self.semi_grad = semi_grad

    def read_aggregation(self, reader: Reader, path: str, m: Node, end: str, rows: Domain) -> Node:
        var = library.segment_var(m, end, rows)
        if not self.semi_grad:
            return var
        square = library.square(library.segment_mean(m, end, rows))
        return build.stop_gradient(var) - (square - build.stop_gradient(square))


class StdAggregation(Aggregation):
    """The square root of the variance, 0 where that is at most 1e-5, as in torch_geometric.

    semi_grad: as in :class:`VarAggregation`
    """

    def __init__(self, semi_grad: bool = False):
        super().__init__()
        self.var_aggr = VarAggregation(semi_grad)

    def read_aggregation(self, reader: Reader, path: str, m: Node, end: str, rows: Domain) -> Node:
        var = read_aggregation(reader, f"{path}.var_aggr", self.var_aggr, m, end, rows)
        return library.clamped_std(var)

    def run_parts(self, x: Tensor, index: Tensor, size: int) -> Tensor:
        var = self.var_aggr(x, index, dim_size=size)
        none = var <= 1e-5
        return torch.where(none, 0.0, torch.where(none, 1.0, var).sqrt())


class VariancePreservingAggregation(Aggregation):
    """The sum over the square root of the number of rows. Schneckenreiter et al., "GNN-VPA", 2024."""

    def read_aggregation(self, reader: Reader, path: str, m: Node, end: str, rows: Domain) -> Node:
        count = library.segment_count(end, rows)
        return library.segment_sum(m, end, rows) / op("sqrt", where(count < 1.0, 1.0, count))

    def plain(self, rows: Tensor, index: Tensor, size: int) -> Tensor:
        return _sum(rows, index, size) / _count(rows, index, size).to(torch.get_default_dtype()).sqrt()


def _whole(rows: Tensor) -> Tensor:
    """Truth values as numbers."""
    return rows.long() if rows.dtype == torch.bool else rows


def _sum(rows: Tensor, index: Tensor, size: int) -> Tensor:
    """[size, ...]; of whole numbers in 64 bits."""
    wide = rows if rows.is_complex() else rows.long()
    return wide.new_zeros(size, *rows.shape[1:]).index_add(0, index, wide)


def _count(rows: Tensor, index: Tensor, size: int) -> Tensor:
    """[size, 1, ...] the rows of each group, or 1 for none."""
    return torch.bincount(index, minlength=size).clamp(min=1).view(-1, *[1] * (rows.dim() - 1))


def _extreme(rows: Tensor, index: Tensor, size: int, how: str) -> Tensor | None:
    """Complex numbers have no order."""
    if rows.is_complex():
        return None
    whole = _whole(rows)
    zeros = whole.new_zeros(size, *rows.shape[1:])
    return zeros.scatter_reduce(0, group_of_each(rows, index), whole, how, include_self=False).to(rows.dtype)
