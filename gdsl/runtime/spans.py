"""Rows whose places follow each other, written out place by place."""

from __future__ import annotations

import torch
from torch import Tensor


def rows_of(rowptr: Tensor, total: int | None = None) -> Tensor:
    """[total] int64 the row of each place, from where the rows begin, and the last ends.

    total: a GPU would be waited for without it
    """
    return row_numbers(rowptr.diff(), total)


def spans(start: Tensor, counts: Tensor, total: int | None = None) -> tuple[Tensor, Tensor]:
    """Rows that have ``counts`` places each, from ``start`` on, int64: the row of each place, and the place."""
    row = row_numbers(counts, total)
    return row, torch.arange(len(row), device=row.device) + (start - (counts.cumsum(0) - counts))[row]


def row_numbers(counts: Tensor, total: int | None = None) -> Tensor:
    """[total] int64 the number of each row, as often as it has places."""
    return torch.arange(len(counts), device=counts.device).repeat_interleave(counts, output_size=total)
