"""What a run of a program knows besides its tensors."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from gdsl.ir.node import Node, walk
from gdsl.ir.types import Domain
from gdsl.runtime import halo
from gdsl.runtime.graph import Graph
from gdsl.runtime.local import LocalGraph


class Frame(NamedTuple):
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

    def travelled(self, node: Node, value: Tensor) -> Tensor:
        """What all processes have together for a node, from the value of its operand."""
        return self.begin(node, value)()

    def begin(self, node: Node, value: Tensor) -> halo.Begun:
        """Begin what takes values of other processes.

        What a graph alone decides, such as its degrees, is sent once, and kept with it.
        """
        graph = self.graph
        if not isinstance(graph, LocalGraph):
            return lambda: value
        if not is_of_graph(node):
            return _BEGIN[node.op](graph.halo, value, node)
        key = (node, value.dtype)
        if key not in graph.constants:
            graph.constants[key] = _BEGIN[node.op](graph.halo, value, node)()
        return lambda: graph.constants[key]


def _reduced(shared: halo.Halo, value: Tensor, node: Node) -> halo.Begun:
    found = halo.all_reduce(shared, value, node.attrs.reducer)
    return lambda: found


_WIRES = {"bfloat16": torch.bfloat16}
_BEGIN: dict[str, Callable[[halo.Halo, Tensor, Node], halo.Begun]] = {
    "exchange": lambda shared, value, node: halo.exchange(shared, value, _WIRES.get(node.attrs.wire)),
    "collect": lambda shared, value, node: halo.collect(
        shared, value, node.attrs.reducer, _WIRES.get(node.attrs.wire)
    ),
    "all_reduce": _reduced,
}

_of_graph: weakref.WeakKeyDictionary[Node, bool] = weakref.WeakKeyDictionary()


def is_of_graph(node: Node) -> bool:
    """Whether a value depends on nothing that a call gives."""
    found = _of_graph.get(node)
    if found is None:
        found = _of_graph[node] = not any(n.op in ("load", "call") for n in walk([node]))
    return found
