"""Rows of own nodes as rows of a range of all nodes, the same on any number of processes, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from gdsl.distributed.wire import exchange_counts, exchange_rows
from gdsl.runtime.answers import place


@dataclass(frozen=True, eq=False)
class Ranges:
    """Process r has the nodes from ``r * step`` on, as ``torch.distributed.tensor.Shard(0)`` divides them.

    total         nodes of all processes
    first, count  those of this process
    send, receive  how many own rows go to the range of each process, and come from each
    places        where in this range those that come go
    """

    total: int
    first: int
    count: int
    send: Sequence[int]
    receive: Sequence[int]
    places: Tensor
    group: ProcessGroup | None

    def to_range(self, rows: Tensor) -> Tensor:
        """[count, ...] from the rows [n, ...] of own nodes."""
        found = rows.new_empty((self.count, *rows.shape[1:]))
        return found.index_copy_(0, self.places, exchange_rows(rows.detach(), self.send, self.receive, self.group))

    def from_range(self, rows: Tensor) -> Tensor:
        """[n, ...] the rows of own nodes, from [count, ...]."""
        return exchange_rows(rows.detach().index_select(0, self.places), self.receive, self.send, self.group)


def ranges_of(own: Tensor, total: int, group: ProcessGroup | None) -> Ranges:
    """For own nodes [n], whose numbers rise; every process must call it."""
    rank, size = place(group)
    step = max(1, -(-total // size))
    first, last = min(rank * step, total), min((rank + 1) * step, total)
    send = torch.bincount(own // step, minlength=size)
    receive = exchange_counts(send, group)
    places = exchange_rows(own, send.tolist(), receive, group) - first
    return Ranges(total, first, last - first, send.tolist(), receive, places, group)
