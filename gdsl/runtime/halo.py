"""Rows of other processes that the edges of this one read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gdsl.errors import GraphError

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
