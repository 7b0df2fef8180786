"""Aggregations without parameters."""

from __future__ import annotations

from gdsl.ir import build, library
from gdsl.ir.library import op, where
from gdsl.ir.node import Node
from gdsl.ir.types import Domain
from gdsl.language.modules import Reader
from gdsl.nn.aggr.base import Aggregation


class SumAggregation(Aggregation):
    """The sum; 0 for no rows."""

    def read_aggregation(self, reader: Reader, path: str, m: Node, end: str, rows: Domain) -> Node:
        return library.segment_sum(m, end, rows)


class MeanAggregation(Aggregation):
    """The mean; 0 for no rows."""

    def read_aggregation(self, reader: Reader, path: str, m: Node, end: str, rows: Domain) -> Node:
        return library.segment_mean(m, end, rows)


class MaxAggregation(Aggregation):
    """The largest of each feature; 0 for no rows."""

    def read_aggregation(self, reader: Reader, path: str, m: Node, end: str, rows: Domain) -> Node:
        return build.segment(m, end, "max", rows)


class MinAggregation(Aggregation):
    """The smallest of each feature; 0 for no rows."""

    def read_aggregation(self, reader: Reader, path: str, m: Node, end: str, rows: Domain) -> Node:
        return build.segment(m, end, "min", rows)


class MulAggregation(Aggregation):
    """The product; 1 for no rows."""

    def read_aggregation(self, reader: Reader, path: str, m: Node, end: str, rows: Domain) -> Node:
        return build.segment(m, end, "mul", rows)


class VarAggregation(Aggregation):
    """mean(x^2) - mean(x)^2, as torch_geometric computes it.

    semi_grad: take no gradient through mean(x^2)
    """

    def __init__(self, semi_grad: bool = False):
        super().__init__()
        self.semi_grad = semi_grad

    def read_aggregation(self, reader: Reader, path: str, m: Node, end: str, rows: Domain) -> Node:
        square = library.segment_mean(library.square(m), end, rows)
        square = build.stop_gradient(square) if self.semi_grad else square
        return square - library.square(library.segment_mean(m, end, rows))


class StdAggregation(Aggregation):
    """The square root of the variance, 0 where that is at most 1e-5, as in torch_geometric.

    semi_grad: as in :class:`VarAggregation`
    """

    def __init__(self, semi_grad: bool = False):
        super().__init__()
        self.var_aggr = VarAggregation(semi_grad)

    def read_aggregation(self, reader: Reader, path: str, m: Node, end: str, rows: Domain) -> Node:
        var = self.var_aggr.read_aggregation(reader, f"{path}.var_aggr", m, end, rows)
        spread = var > 1e-5
        return where(spread, op("sqrt", where(spread, var, 1.0)), 0.0)


class VariancePreservingAggregation(Aggregation):
    """The sum over the square root of the number of rows. Schneckenreiter et al., "GNN-VPA", 2024."""

    def read_aggregation(self, reader: Reader, path: str, m: Node, end: str, rows: Domain) -> Node:
        count = build.graph_value("in_degree" if end == "i" else "out_degree", rows)
        return library.segment_sum(m, end, rows) / op("sqrt", where(count < 1.0, 1.0, count))
