"""Aggregations without parameters by torch's own functions: for what torch traces and transforms."""

from __future__ import annotations

from torch import Tensor, nn

from gdsl.language.parts import must_run
from gdsl.nn.aggr.basic import MaxAggregation, MeanAggregation, MinAggregation, MulAggregation, SumAggregation
from gdsl.nn.grouped import reduced


def knows(module: nn.Module) -> bool:
    """Whether :func:`aggregate` has a module."""
    return type(module) in _NAMES and not must_run(module)


def aggregate(module: nn.Module, x: Tensor, index: Tensor, size: int, dim: int) -> Tensor | None:
    """The aggregate of the rows of each group along ``dim`` by :func:`reduced`; None for a module that it has not."""
    return reduced(x, index, size, dim, _NAMES[type(module)]) if knows(module) else None


_NAMES: dict[type, str] = {
    SumAggregation: "sum",
    MeanAggregation: "mean",
    MaxAggregation: "max",
    MinAggregation: "min",
    MulAggregation: "mul",
}
