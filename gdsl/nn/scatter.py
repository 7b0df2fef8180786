"""Aggregations without parameters by torch's own functions: for what torch traces and transforms."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from gdsl.language.parts import must_run
from gdsl.nn.aggr.base import group_of_each
from gdsl.nn.aggr.basic import MaxAggregation, MeanAggregation, MinAggregation, MulAggregation, SumAggregation


def knows(module: nn.Module) -> bool:
    """Whether :func:`aggregate` has a module."""
    return type(module) in _TABLE and not must_run(module)


def aggregate(module: nn.Module, x: Tensor, index: Tensor, size: int, dim: int) -> Tensor | None:
    """The aggregate of the rows of each group along ``dim``; None for a module that is not in the table.

    x:     [..., E, ...] of any dtype that torch's ``scatter_reduce`` takes
    index: [E] the group of each row
    size:  how many groups there are
    """
    if not knows(module):
        return None
    function = _TABLE[type(module)]
    dim = dim + x.dim() if dim < 0 else dim
    shape = [*x.shape]
    shape[dim] = size
    return function(x, group_of_each(x, index, dim), shape, dim)


def _sum(x: Tensor, place: Tensor, shape: list[int], dim: int) -> Tensor:
    return x.new_zeros(shape).scatter_add(dim, place, x)


def _mean(x: Tensor, place: Tensor, shape: list[int], dim: int) -> Tensor:
    """sum / max(count, 1), with the count in the dtype of x, as torch_geometric has it."""
    return _sum(x, place, shape, dim) / _sum(torch.ones_like(x), place, shape, dim).clamp(min=1)


def _reduced(how: str, empty: int) -> Callable[[Tensor, Tensor, list[int], int], Tensor]:
    def reduce(x: Tensor, place: Tensor, shape: list[int], dim: int) -> Tensor:
        return x.new_full(shape, empty).scatter_reduce(dim, place, x, how, include_self=False)

    return reduce


_TABLE: dict[type, Callable[[Tensor, Tensor, list[int], int], Tensor]] = {
    SumAggregation: _sum,
    MeanAggregation: _mean,
    MaxAggregation: _reduced("amax", 0),
    MinAggregation: _reduced("amin", 0),
    MulAggregation: _reduced("prod", 1),
}
