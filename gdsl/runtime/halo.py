"""Rows of other processes that the edges of this one read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

import torch
from torch import Tensor, distributed

from gdsl.errors import GraphError
from gdsl.runtime.answers import answered

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

_TENSORS = ("send", "own_ids", "halo_ids", "edge_ids", "target_ids")


@dataclass(frozen=True, eq=False)
class Halo:
    """Rows of other processes that this one's edges read: node values hold the own rows first, then the halo's, grouped
    by owner in the order of ranks.

    own:            rows owned here
    send:           [S] int64 own rows that others read, grouped by receiver in the order of ranks
    send_counts:    rows to each rank (0 to oneself)
    receive_counts: rows from each rank; their sum is the number of halo rows
    own_ids:        [own] int64 global ids of the own rows
    halo_ids:       [H] int64 global ids of the halo's rows
    group:          the processes; None for the default group
    edge_ids:       [E] int64 global ids of the edges here, in their order; None where nothing draws by edges
    target_ids:     [num_targets] int64 of a bipartite graph: global ids of the targets here

    A process may own no rows, or read none of others, and has a halo all the same. Raises ``GraphError`` for parts that
    contradict each other.
    """

    own: int
    send: Tensor
    send_counts: tuple[int, ...]
    receive_counts: tuple[int, ...]
    own_ids: Tensor
    halo_ids: Tensor
    group: ProcessGroup | None = None
    edge_ids: Tensor | None = None
    target_ids: Tensor | None = None

    def __post_init__(self) -> None:
        for name in _TENSORS:
            value = getattr(self, name)
            if value is not None and (value.dtype is not torch.int64 or value.dim() != 1):
                raise GraphError(f"`{name}` of a halo must be int64 of one dim, not {value.dtype} {list(value.shape)}")
        for what, have, wanted in (
            ("own_ids", len(self.own_ids), self.own),
            ("halo_ids", len(self.halo_ids), sum(self.receive_counts)),
            ("send", len(self.send), sum(self.send_counts)),
            ("receive_counts", len(self.receive_counts), len(self.send_counts)),
        ):
            if have != wanted:
                raise GraphError(f"`{what}` of a halo has {have} entries, and the rest of it asks for {wanted}")
        if len(self.send) and not 0 <= int(self.send.min()) <= int(self.send.max()) < self.own:
            raise GraphError(f"`send` of a halo names rows that are not among the {self.own} own ones")

    @property
    def rows(self) -> int:
        """How many rows come from others."""
        return len(self.halo_ids)

    @property
    def world(self) -> int:
        """How many processes there are."""
        return len(self.send_counts)

    def to(self, device: torch.device | str | int) -> Halo:
        """The same halo on another device."""
        found = {name: getattr(self, name) for name in _TENSORS}
        return replace(self, **{name: value.to(device) for name, value in found.items() if value is not None})


_REDUCE = {"sum": "SUM", "max": "MAX", "min": "MIN"}


# What is on its way: called, it waits for it.
Begun = Callable[[], Tensor]


def exchange(halo: Halo, value: Tensor, wire: torch.dtype | None = None) -> Begun:
    """[own + halo, ...] from [own, ...]: each row of the halo from its owner. All processes begin it together.

    wire: as what the rows are sent; None for as they are
    """
    found = value.new_empty((halo.own + halo.rows, *value.shape[1:]))
    found[: halo.own] = value
    if halo.world == 1:
        return lambda: found
    far, given = found[halo.own :], value.index_select(0, halo.send)
    got = far if wire is None else torch.empty_like(far, dtype=wire)
    wait = _swap(got, given if wire is None else given.to(wire), halo.receive_counts, halo.send_counts, halo)

    def finish() -> Tensor:
        wait()
        if got is not far:
            far.copy_(got)
        return found

    return finish


def collect(halo: Halo, value: Tensor, reducer: str, wire: torch.dtype | None = None) -> Begun:
    """[own, ...] from [own + halo, ...]: partial results for rows of the halo go to their owners, which add them up, or
    take the largest or smallest, process by process in the order of ranks. All processes begin it together."""
    if halo.world == 1:
        return value[: halo.own].clone
    given = value[halo.own :].contiguous()
    given = given if wire is None else given.to(wire)
    partial = given.new_empty((len(halo.send), *value.shape[1:]))
    wait = _swap(partial, given, halo.send_counts, halo.receive_counts, halo)

    def finish() -> Tensor:
        found = value[: halo.own].clone()
        wait()
        # No process sends two results for a row: nothing is added atomically, and each run gives the same bits.
        sums = partial.to(value.dtype).split(halo.send_counts)
        parts = zip(halo.send.split(halo.send_counts), sums, strict=True)
        for rows, part in ((r, p) for r, p in parts if len(r)):
            if reducer == "sum":
                found.index_add_(0, rows, part)
            else:
                best = torch.maximum if reducer == "max" else torch.minimum
                found.index_copy_(0, rows, best(found.index_select(0, rows), part))
        return found

    return finish


@answered()
def _swap(
    found: Tensor, given: Tensor, receive: tuple[int, ...], send: tuple[int, ...], halo: Halo
) -> Callable[[], None]:
    """Send rows to all processes, and get theirs: begun, and what waits for it."""
    if found.dtype is torch.bool:
        found, given = found.view(torch.uint8), given.view(torch.uint8)
    work = distributed.all_to_all_single(found, given, list(receive), list(send), group=halo.group, async_op=True)

    @answered()
    def wait() -> None:
        work.wait()
        given.shape  # noqa: B018 - what is sent lives until it is

    return wait


@answered()
def all_reduce(halo: Halo, value: Tensor, reducer: str) -> Tensor:
    """The sum, the largest or the smallest of a value over all processes, which call it together."""
    found = value.clone(memory_format=torch.contiguous_format)
    if halo.world > 1:
        distributed.all_reduce(found, getattr(distributed.ReduceOp, _REDUCE[reducer]), group=halo.group)
    return found


@answered()
def broadcast(halo: Halo, value: Tensor) -> Tensor:
    """The value of the first process."""
    if halo.world > 1:
        distributed.broadcast(value, group=halo.group, group_src=0)
    return value


@answered()
def gather(halo: Halo, value: Tensor) -> Tensor:
    """The rows of all processes, one after the other, which call it together."""
    if halo.world == 1:
        return value
    rows = [count for (count,) in numbers(halo, [len(value)])]
    padded = value.new_zeros((max(rows), *value.shape[1:]))
    padded[: len(value)] = value
    found = [torch.empty_like(padded) for _ in rows]
    distributed.all_gather(found, padded, group=halo.group)
    return torch.cat([part[:count] for part, count in zip(found, rows, strict=True)])


@answered()
def numbers(halo: Halo, own: Sequence[int]) -> list[list[int]]:
    """Some numbers of each process, as many on all, which call it together."""
    given = torch.tensor(own, device=halo.send.device)
    found = [torch.empty_like(given) for _ in range(halo.world)]
    distributed.all_gather(found, given, group=halo.group)
    return [part.tolist() for part in found]


def agreed(halo: Halo, bipartite: bool, counts: tuple[int, ...]) -> tuple[int, ...]:
    """The largest of each count over all processes, which call it together.

    Raises ``GraphError``, on every process alike, where their parts are not of one graph.
    """
    if halo.world == 1:
        return counts
    rows = numbers(halo, [halo.world, bipartite, *counts, *halo.send_counts, *halo.receive_counts])
    first = 2 + len(counts)
    for a, b in product(range(halo.world), repeat=2):
        sent, expected = rows[a][first + b], rows[b][first + halo.world + a]
        if rows[a][:2] != rows[b][:2] or sent != expected:
            raise GraphError(
                f"the parts of processes {a} and {b} are not of one graph: the one sends {sent} rows, "
                f"and the other expects {expected}"
            )
    return tuple(max(row[2 + k] for row in rows) for k in range(len(counts)))
