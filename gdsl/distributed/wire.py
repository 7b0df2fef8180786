"""Rows that go from process to process: copied as bytes, so that any dtype arrives as it was."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

from gdsl.runtime.answers import answered, place


def exchange_rows(rows: Tensor, send: Sequence[int], receive: Sequence[int], group: ProcessGroup | None) -> Tensor:
    """[sum of receive, ...] from ``rows`` [sum of send, ...]: so many to and from each process, by their ranks."""
    if place(group)[1] == 1:
        return rows
    shape = (sum(receive), *rows.shape[1:])
    flat, width = _bytes(rows)
    out = torch.empty(shape[0] * width, dtype=torch.uint8, device=rows.device)
    with answered("rows of all processes"):
        dist.all_to_all_single(out, flat, [n * width for n in receive], [n * width for n in send], group=group)
    return out.view(rows.dtype).view(shape) if out.numel() else rows.new_empty(shape)


def exchange_counts(send: Tensor, group: ProcessGroup | None) -> list[int]:
    """How many rows come from each process, from how many go to each."""
    return [int(n) for n in exchange_rows(send.long(), [1] * len(send), [1] * len(send), group)]


def broadcast_rows(rows: Tensor, source: int, count: int, group: ProcessGroup | None) -> Tensor:
    """[count, ...] the rows of one process on all of them; others give an empty tensor of the same shape otherwise."""
    if place(group)[1] == 1 or not count:
        return rows
    mine = place(group)[0] == source
    width = _width(rows)
    flat = _bytes(rows)[0] if mine else torch.empty(count * width, dtype=torch.uint8, device=rows.device)
    if flat.numel():
        with answered("rows of all processes"):
            dist.broadcast(flat, group=group, group_src=source)
    shape = (count, *rows.shape[1:])
    return rows if mine else flat.view(rows.dtype).view(shape) if flat.numel() else rows.new_empty(shape)


def send_rows(rows: Tensor, to: int, group: ProcessGroup | None) -> None:
    """To one process, which calls ``receive_rows``."""
    flat, _ = _bytes(rows)
    if flat.numel():
        with answered("rows of all processes"):
            dist.send(flat, group=group, group_dst=to)


def receive_rows(
    count: int, shape: Sequence[int], dtype: torch.dtype, source: int, group: ProcessGroup | None
) -> Tensor:
    """[count, *shape] from one process, which calls ``send_rows``."""
    found = torch.empty((count, *shape), dtype=dtype)
    flat, _ = _bytes(found)
    if flat.numel():
        with answered("rows of all processes"):
            dist.recv(flat, group=group, group_src=source)
    return found


def _width(rows: Tensor) -> int:
    """The bytes of a row."""
    return rows.new_empty((1, *rows.shape[1:])).nbytes


def _bytes(rows: Tensor) -> tuple[Tensor, int]:
    """The memory of rows as bytes, and how many a row has."""
    return rows.detach().contiguous().view(-1).view(torch.uint8), _width(rows)
