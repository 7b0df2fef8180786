"""Sums at rows, by torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def add_at(value: Tensor, where: Tensor, rows: int) -> Tensor:
    """[rows, ...]: the values [E, ...] added up at the row that each names in ``where`` [E].

    On a GPU ``index_add`` adds in the order in which its threads arrive, and rounds otherwise in each run;
    ``index_put`` sorts first, as the derivative of its derivative does.
    """
    sums = value.new_zeros((rows, *value.shape[1:]))
    if value.is_cuda and value.is_floating_point():
        return sums.index_put((where,), value, accumulate=True)
    return sums.index_add(0, where, value)
