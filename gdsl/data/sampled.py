"""What a sampler draws from, and what it finds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import torch
from torch import Tensor

from gdsl.data.native import native
from gdsl.runtime.dtypes import CPU

# What a sampler is told, as bits: see sample.cpp.
REPLACE, DISJOINT, LAST, INDUCED = 1, 2, 4, 8


@dataclass(frozen=True)
class EdgeKind:
    """The edges of one type, by target.

    source, target  which types of nodes
    rowptr, index, edge  as in :class:`gdsl.runtime.order.Order`, all int32 or all int64
    weight          [E] float64 by row: an edge is drawn by its weight; None for the same chance
    time            [E] int64 by row, rising within each row: none later than its seed's time is taken; or None
    """

    source: int
    target: int
    rowptr: Tensor
    index: Tensor
    edge: Tensor
    weight: Tensor | None = None
    time: Tensor | None = None

    @cached_property
    def upto(self) -> Tensor | None:
        """[E] float64: the sum of the weights of a row up to each edge, with it."""
        if self.weight is None:
            return None
        # Row by row, so that a small weight is not lost beside those of other rows.
        found, rowptr = torch.empty_like(self.weight), self.rowptr.long()
        code = native("sample")
        if code is not None:
            code.add_up(rowptr.data_ptr(), len(rowptr) - 1, self.weight.data_ptr(), found.data_ptr())
            return found
        for first, last in zip(rowptr.tolist(), rowptr[1:].tolist(), strict=False):
            row = list(accumulate(self.weight[first:last].tolist()))
            found[first:last] = torch.tensor(row, dtype=torch.float64, device=CPU)
        return found


@dataclass(frozen=True)
class Sampled:
    """What was found, by type.

    nodes    [n] int64 the numbers of the nodes, seeds first, then by hop
    trees    [n] int64 the seed whose neighbourhood each is in; None unless they are disjoint
    ends     [2, e] int32 the places of both ends of each edge, by target
    edges    [e] int64 the ids of the edges
    rowptr   [n + 1] int32 where the edges into each node begin
    num_nodes, num_edges  of each type, how many are new in each hop; the seeds are the first
    """

    nodes: list[Tensor]
    trees: list[Tensor] | None
    ends: list[Tensor]
    edges: list[Tensor]
    rowptr: list[Tensor]
    num_nodes: list[list[int]]
    num_edges: list[list[int]]
