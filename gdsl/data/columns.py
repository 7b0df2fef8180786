"""The arrays of a packed data set, and batches gathered from them: natively, or by torch without a compiler."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from gdsl.data.native import native
from gdsl.errors import InputError
from gdsl.runtime.dtypes import CPU
from gdsl.runtime.order import INT32_MAX

# (dtype stored, dtype of a batch) -> the kind of column whose numbers are shifted natively; see gather.cpp.
_SHIFTED = {
    (torch.uint8, torch.int32): -1,
    (torch.int16, torch.int32): -2,
    (torch.int32, torch.int32): -3,
    (torch.int32, torch.int64): -4,
    (torch.int64, torch.int64): -5,
}

# Of a column in gather.cpp, each of eight bytes.
FIELDS = 8


@dataclass(frozen=True)
class Column:
    """One attribute of all graphs: the flat values of the first graph, then those of the second, and so on.

    values  [numbers] of all graphs
    length  which of the offsets says how many items each graph has
    shape   of a batch, None for the dimension along which graphs are joined
    shifts  which of the offsets says what is added to the numbers of a graph, so that they count from the batch's
            beginning: one for each row before the joined dimension; none where numbers stay as they are
    dtype   of a batch
    closed  whether a batch has one number more, which is the total of its shifts: rows of int32 edges, which end there
    whole   whether each graph's value has no such dimension, and they are stacked along a new first one
    """

    values: Tensor
    length: int
    shape: tuple[int | None, ...]
    shifts: tuple[int, ...]
    dtype: torch.dtype
    closed: bool = False
    whole: bool = False

    @cached_property
    def joined(self) -> int:
        return self.shape.index(None)

    @cached_property
    def outer(self) -> int:
        return math.prod(_known(self.shape[: self.joined]))

    @cached_property
    def inner(self) -> int:
        return math.prod(_known(self.shape[self.joined + 1 :]))

    @cached_property
    def kind(self) -> int:
        """As gather.cpp counts kinds; a column that has shifts and is copied is shifted by torch afterwards."""
        size = self.values.itemsize
        return _SHIFTED.get((self.values.dtype, self.dtype), size) if self.shifts else size


def _known(shape: Sequence[int | None]) -> tuple[int, ...]:
    return tuple(n for n in shape if n is not None)


class ColumnGather:
    """Batches of some columns. ``offsets`` are [graphs + 1] int64 each, contiguous."""

    def __init__(self, offsets: Sequence[Tensor], columns: Sequence[Column]):
        self.offsets, self.columns = tuple(offsets), tuple(columns)
        self._offsets = (ctypes.c_void_p * len(self.offsets))(*(o.data_ptr() for o in self.offsets))
        self._shifts = [(ctypes.c_int64 * max(1, len(c.shifts)))(*c.shifts) for c in self.columns]
        fields = [
            (c.values.data_ptr(), 0, c.length, c.outer, c.inner, c.kind, ctypes.addressof(shifts), c.closed)
            for c, shifts in zip(self.columns, self._shifts, strict=True)
        ]
        self._narrow = {k for c in self.columns if c.dtype is torch.int32 for k in (c.length, *c.shifts)}
        numbers = [number for column in fields for number in column]
        self._fields = (ctypes.c_int64 * len(numbers))(*numbers)
        self._kind_of_fields = type(self._fields)
        self._kind_of_totals = ctypes.c_int64 * len(self.offsets)
        self._shifted_later = [k for k, c in enumerate(self.columns) if c.shifts and c.kind > 0]
        self._shapes = [
            (c.length, _known(c.shape[: c.joined]), c.closed, _known(c.shape[c.joined + 1 :]), c.dtype)
            for c in self.columns
        ]

    def __call__(self, graphs: Tensor) -> tuple[list[Tensor], Tensor, list[int]]:
        """The columns of a batch; where each of its graphs begins by each of the offsets [offsets, B + 1]; the totals.

        graphs: [B] int64, contiguous, each of them in range
        """
        placed, totals = self.place(graphs)
        return self.fill(graphs, placed, totals, {}), placed, totals

    def place(self, graphs: Tensor) -> tuple[Tensor, list[int]]:
        """Where each graph of a batch begins, and the totals; see :meth:`__call__`."""
        code = native("gather")
        if code is None:
            sizes = [o.diff()[graphs] for o in self.offsets]
            placed = torch.stack([torch.cat([s.new_zeros(1), s.cumsum(0)]) for s in sizes])
            totals = placed[:, -1].tolist()
        else:
            count, kinds, ends = graphs.shape[0], len(self.offsets), self._kind_of_totals()
            placed = torch.empty((kinds, count + 1), dtype=torch.int64, device=CPU)
            code.place(graphs.data_ptr(), count, kinds, self._offsets, placed.data_ptr(), ends)
            totals = list(ends)
        self._check(totals)
        return placed, totals

    def fill(self, graphs: Tensor, placed: Tensor, totals: list[int], rooms: Mapping[int, int]) -> list[Any]:
        """The columns of a batch, from what :meth:`place` gave.

        rooms: the addresses of memory that columns of int32 are written to instead, by their places; only with a
               compiler. These columns are None
        """
        code = native("gather")
        if code is None:
            return [_gathered(column, self.offsets, graphs) for column in self.columns]
        found: list[Any] = []
        fields = self._kind_of_fields.from_buffer_copy(self._fields)
        for k, (length, before, closed, after, dtype) in enumerate(self._shapes):
            out, address = None, rooms.get(k)
            if address is None:
                out = torch.empty(*before, totals[length] + closed, *after, dtype=dtype, device=CPU)
                address = out.data_ptr()
            fields[FIELDS * k + 1] = address
            found.append(out)
        code.gather(
            graphs.data_ptr(), graphs.shape[0], self.offsets[0].shape[0] - 1, len(totals), self._offsets,
            placed.data_ptr(), len(found), fields, torch.get_num_threads(),
        )  # fmt: skip
        for k in self._shifted_later:
            found[k] = _shifted(found[k], self.columns[k], self.offsets, graphs)
        return found

    def _check(self, totals: list[int]) -> None:
        if max(totals, default=0) > INT32_MAX and any(totals[k] > INT32_MAX for k in self._narrow):
            raise InputError(f"a batch of {max(totals)} nodes or edges; at most {INT32_MAX} fit: make batches smaller")


def _gathered(column: Column, offsets: Sequence[Tensor], graphs: Tensor) -> Tensor:
    starts, size = offsets[column.length][graphs], offsets[column.length].diff()[graphs]
    total = int(size.sum())
    before = size.cumsum(0) - size
    place = torch.arange(total, device=CPU)
    blocks = [
        (column.outer * starts + row * size - before).repeat_interleave(size, output_size=total) + place
        for row in range(column.outer)
    ]
    rows = column.outer * int(offsets[column.length][-1])
    values = column.values.reshape(rows, column.inner)
    out = torch.stack([values[block] for block in blocks]) if blocks else values[:0]
    out = out.reshape([total if n is None else n for n in column.shape])
    if column.shifts:
        out = _shifted(out, column, offsets, graphs)
    if column.closed:
        out = torch.cat([out, offsets[column.shifts[0]].diff()[graphs].sum(0, keepdim=True).to(out.dtype)])
    return out


def _shifted(out: Tensor, column: Column, offsets: Sequence[Tensor], graphs: Tensor) -> Tensor:
    size = offsets[column.length].diff()[graphs]
    total = int(size.sum())
    rows = []
    for shift in column.shifts:
        more = offsets[shift].diff()[graphs]
        rows.append((more.cumsum(0) - more).repeat_interleave(size, output_size=total))
    shape = [*_known(column.shape[: column.joined]), total]
    shape += [1] * (len(column.shape) - len(shape))
    return (out + torch.stack(rows).reshape(shape)).to(column.dtype)
