"""What a run of a program knows besides its tensors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gdsl.ir.types import Domain
from gdsl.runtime import halo
from gdsl.runtime.graph import Graph


@dataclass(frozen=True)
class Frame:
    """What a run knows besides the tensors: the graph, the compute dtype and the batch vector of a batch of graphs."""

    graph: Graph
    dtype: torch.dtype
    device: torch.device
    batch: Tensor | None = None
    num_graphs: int = 1

    def rows(self, domain: Domain) -> int:
        """How many rows a value of this domain has."""
        if domain is Domain.GRAPH:
            return self.num_graphs
        if domain is Domain.EDGE:
            return self.graph.num_edges
        if domain is Domain.PAIR:
            return len(self.graph.pairs.ends.first)
        if domain is Domain.SOURCE:
            return self.graph.num_readable
        return self.graph.num_sources if domain is Domain.OWN else self.graph.num_targets

    def ends(self, end: str, elements: Domain = Domain.EDGE) -> Tensor:
        """For each edge its node at this end, for each pair its edge; for ``g``, for each node its graph."""
        if end == "g":
            if self.batch is None:
                return torch.zeros(self.graph.num_targets, dtype=torch.long, device=self.device)
            return self.batch.long()  # see findings/expanded-int32-index-of-gather.sh
        if elements is Domain.PAIR:
            first, second = self.graph.pairs.ends
            return second if end == "i" else first
        return self.graph.local_edge_index[1 if end == "i" else 0]

    def exchanged(self, value: Tensor) -> Tensor:
        """The rows that edges here read, from those of the own nodes."""
        return value if self.graph.halo is None else halo.exchange(self.graph.halo, value)

    def collected(self, value: Tensor, reducer: str) -> Tensor:
        """For each own node what all processes have for it together."""
        return value if self.graph.halo is None else halo.collect(self.graph.halo, value, reducer)

    def reduced(self, value: Tensor, reducer: str) -> Tensor:
        """What all processes have for a value together."""
        return value if self.graph.halo is None else halo.all_reduce(self.graph.halo, value, reducer)
