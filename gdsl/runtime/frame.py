"""What a run of a program knows besides its tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from gdsl.ir.node import Node
from gdsl.ir.ops.exchange import is_of_graph
from gdsl.ir.ops.reversal import at_reverse
from gdsl.ir.ops.rows import add_at
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
        return self.begin([node], [value])[0]()

    def begin(self, nodes: Sequence[Node], values: Sequence[Tensor]) -> list[halo.Begun]:
        """Begin what takes values of other processes: nodes of one op, in one message.

        What a graph alone decides, such as its degrees, is sent once, and kept with it.
        """
        graph = self.graph
        if not isinstance(graph, LocalGraph):
            found = map(_ALONE.get(nodes[0].op, _itself), [graph] * len(nodes), nodes, values)
            return [partial(halo.itself, value) for value in found]
        known = graph.constants
        keys = [(n, v.dtype) if is_of_graph(n) else None for n, v in zip(nodes, values, strict=True)]
        new = [k for k, key in enumerate(keys) if key not in known]
        begin = _BEGIN[nodes[0].op]
        begun = dict(zip(new, begin(graph, [nodes[k] for k in new], [values[k] for k in new]), strict=True))
        for k in new:
            if (key := keys[k]) is not None:
                known[key] = begun[k]()
        return [begun[k] if key is None else partial(known.__getitem__, key) for k, key in enumerate(keys)]


# As what rows travel; None for as they are.
WIRES: dict[str, torch.dtype | None] = {"exact": None, "bfloat16": torch.bfloat16}


def _exchange(graph: LocalGraph, nodes: Sequence[Node], values: Sequence[Tensor]) -> list[halo.Begun]:
    return halo.exchange(graph.halo, values, [WIRES[n.attrs.wire] for n in nodes]) if nodes else []


def _collect(graph: LocalGraph, nodes: Sequence[Node], values: Sequence[Tensor]) -> list[halo.Begun]:
    reducers, wires = [n.attrs.reducer for n in nodes], [WIRES[n.attrs.wire] for n in nodes]
    return halo.collect(graph.halo, values, reducers, wires) if nodes else []


def _all_reduce(graph: LocalGraph, nodes: Sequence[Node], values: Sequence[Tensor]) -> list[halo.Begun]:
    found = [halo.all_reduce(graph.halo, v, n.attrs.reducer) for n, v in zip(nodes, values, strict=True)]
    return [partial(halo.itself, value) for value in found]


def _exchange_reverse(graph: LocalGraph, nodes: Sequence[Node], values: Sequence[Tensor]) -> list[halo.Begun]:
    if not nodes:
        return []
    here, shared = graph.reverses

    def found(begun: halo.Begun, value: Tensor, default: float) -> Tensor:
        return at_reverse(value, here, default).index_copy(0, shared.send, begun()[shared.own :])

    every = zip(halo.exchange(shared, values, [None] * len(values)), values, nodes, strict=True)
    return [partial(found, begun, value, n.attrs.default) for begun, value, n in every]


def _exchange_pairs(graph: LocalGraph, nodes: Sequence[Node], values: Sequence[Tensor]) -> list[halo.Begun]:
    if not nodes:
        return []
    shared, first = graph.pairs.halo, graph.pairs.ends.first

    def found(begun: halo.Begun) -> Tensor:
        return begun().index_select(0, first)

    return [partial(found, begun) for begun in halo.exchange(shared, values, [None] * len(values))]


def _collect_pairs(graph: LocalGraph, nodes: Sequence[Node], values: Sequence[Tensor]) -> list[halo.Begun]:
    if not nodes:
        return []
    shared, first = graph.pairs.halo, graph.pairs.ends.first
    rows = shared.own + shared.rows
    sums = [add_at(v.double(), first, rows).to(v.dtype) for v in values]
    return halo.collect(shared, sums, ["sum"] * len(sums), [None] * len(sums))


_Begin = Callable[[LocalGraph, Sequence[Node], Sequence[Tensor]], list[halo.Begun]]
_BEGIN: dict[str, _Begin] = {
    "exchange": _exchange,
    "collect": _collect,
    "all_reduce": _all_reduce,
    "exchange_reverse": _exchange_reverse,
    "exchange_pairs": _exchange_pairs,
    "collect_pairs": _collect_pairs,
}


def _itself(graph: Graph, node: Node, value: Tensor) -> Tensor:
    return value


# The same where there are no other processes, for what is not the value itself there.
_ALONE: dict[str, Callable[[Graph, Node, Tensor], Tensor]] = {
    "exchange_reverse": lambda graph, node, value: at_reverse(value, graph.reversed_edges, node.attrs.default),
    "exchange_pairs": lambda graph, node, value: value.index_select(0, graph.pairs.ends.first),
    "collect_pairs": lambda graph, node, value: add_at(value, graph.pairs.ends.first, graph.num_edges),
}
