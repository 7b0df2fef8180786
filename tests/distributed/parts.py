"""Graphs cut into parts by an assignment of their nodes, and what they give put together again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, distributed

from gdsl.distributed import Halo, LocalGraph


def owned(owner: Tensor, rank: int) -> Tensor:
    return (owner == rank).nonzero().flatten()


def local(
    edge_index: Tensor,
    owner: Tensor,
    rank: int,
    world: int,
    group: Any,
    target_owner: Tensor | None = None,
    chunk: int | None = None,
) -> tuple[LocalGraph, Tensor]:
    """The part of a process, and which of the edges it has. ``owner`` says the process of each source; of a bipartite
    graph ``target_owner`` that of each target. ``chunk`` rows of one other process are here at a time."""
    source, target = edge_index
    at = owner if target_owner is None else target_owner
    needs = [_needs(source, at[target] == r, owner, r) for r in range(world)]
    own_ids, halo_ids = owned(owner, rank), needs[rank]
    row = torch.full((len(owner),), -1)
    row[own_ids] = torch.arange(len(own_ids))
    send = [row[n[owner[n] == rank]] for n in needs]
    row[halo_ids] = len(own_ids) + torch.arange(len(halo_ids))
    targets = owned(at, rank)
    target_row = torch.full((len(at),), -1)
    target_row[targets] = torch.arange(len(targets))
    mine = (at[target] == rank).nonzero().flatten()
    halo = Halo(
        own=len(own_ids),
        send=torch.cat(send),
        send_counts=tuple(map(len, send)),
        receive_counts=tuple(int((owner[halo_ids] == r).sum()) for r in range(world)),
        own_ids=own_ids,
        halo_ids=halo_ids,
        group=group,
        edge_ids=mine,
        target_ids=None if target_owner is None else targets,
    )
    edges = torch.stack([row[source[mine]], target_row[target[mine]]])
    return LocalGraph(edges, halo, None if target_owner is None else len(targets), chunk), mine


def _needs(source: Tensor, here: Tensor, owner: Tensor, rank: int) -> Tensor:
    """The nodes of others that a process reads, by owner."""
    wanted = source[here].unique()
    wanted = wanted[owner[wanted] != rank]
    return wanted[owner[wanted].argsort(stable=True)]


def whole(parts: Sequence[Tensor], ids: Sequence[Tensor]) -> Tensor:
    """The rows of all processes in the order of global ids."""
    return torch.cat(list(parts))[torch.cat(list(ids)).argsort()]


def summed(value: Tensor, group: Any) -> Tensor:
    total = value.clone()
    distributed.all_reduce(total, group=group)
    return total


def near(found: Tensor, wanted: Tensor, what: str) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10, msg=lambda text: f"{what}: {text}")


def number(parts: Sequence[str]) -> float:
    """The bytes that a line of the ledger tells, cut at double spaces."""
    count, unit = next(p for p in parts if p.strip().endswith("B") or "B " in p).split()[:2]
    return float(count.replace(",", "")) * {"B": 1.0, "kB": 1e3, "MB": 1e6}[unit]
