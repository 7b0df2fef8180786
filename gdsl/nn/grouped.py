"""Rows in groups: how many groups there are, and their sums, means and the like by torch's own functions, for what
torch traces and transforms."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def count_in(index: Tensor) -> int:
    """How many groups, graphs or nodes there are by the index of each row: the largest plus one, and 0 for no rows."""
    return int(index.max()) + 1 if index.numel() else 0


def group_of_each(x: Tensor, index: Tensor, dim: int = 0) -> Tensor:
    """For each number of x the group of its row, [E] to the shape of x. It is int64: torch 2.13 takes an expanded int32
    index for another one (findings/expanded-int32-index-of-gather.sh).
    """
    dim = dim + x.dim() if dim < 0 else dim
    return index.long().reshape([-1 if k == dim else 1 for k in range(x.dim())]).expand_as(x)


def reduced(x: Tensor, index: Tensor, size: int, dim: int, how: str) -> Tensor:
    """What the rows of each group along ``dim`` are together.

    x:     [..., E, ...] of any dtype that torch's ``scatter_reduce`` takes
    index: [E] the group of each row
    size:  how many groups there are
    how:   "sum" or "add", "mean", "max", "min", "mul", or "any" of them

    Raises ValueError for another word.
    """
    if how not in _WAYS:
        raise ValueError(f"Encountered invalid `reduce` argument '{how}': it is one of {', '.join(_WAYS)}")
    dim = dim + x.dim() if dim < 0 else dim
    shape = [*x.shape]
    shape[dim] = size
    return _WAYS[how](x, group_of_each(x, index, dim), shape, dim)


def _sum(x: Tensor, place: Tensor, shape: list[int], dim: int) -> Tensor:
    return x.new_zeros(shape).scatter_add(dim, place, x)


def _mean(x: Tensor, place: Tensor, shape: list[int], dim: int) -> Tensor:
    """sum / max(count, 1), with the count in the dtype of x, as torch_geometric has it."""
    return _sum(x, place, shape, dim) / _sum(torch.ones_like(x), place, shape, dim).clamp(min=1)


def _any(x: Tensor, place: Tensor, shape: list[int], dim: int) -> Tensor:
    return x.new_zeros(shape).scatter(dim, place, x)


def _by(how: str, empty: int) -> Callable[[Tensor, Tensor, list[int], int], Tensor]:
    def reduce(x: Tensor, place: Tensor, shape: list[int], dim: int) -> Tensor:
        return x.new_full(shape, empty).scatter_reduce(dim, place, x, how, include_self=False)

    return reduce


_WAYS: dict[str, Callable[[Tensor, Tensor, list[int], int], Tensor]] = {
    "sum": _sum,
    "add": _sum,
    "mean": _mean,
    "max": _by("amax", 0),
    "min": _by("amin", 0),
    "mul": _by("prod", 1),
    "any": _any,
}
