"""What each layer reads of a batch of sampled neighbours, so that no layer computes what the seeds do not depend on."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gdsl.data.topology import counted
from gdsl.errors import InputError
from gdsl.runtime import prepare
from gdsl.runtime.graph import Graph
from gdsl.runtime.order import EdgeEnds, Facts
from gdsl.runtime.transforms import ordinary

if TYPE_CHECKING:
    from gdsl.data.batch import Batch, Type


def blocks_of(batch: Batch) -> list[Any]:
    """See :meth:`gdsl.data.Batch.blocks`."""
    node_types: list[Type] = [*batch.node_types] or [""]
    edge_types: list[Type] = [*batch.edge_types] or [""]
    nodes = {type: _upto(batch, type, "num_sampled_nodes") for type in node_types}
    edges = {type: _upto(batch, type, "num_sampled_edges") for type in edge_types}
    hops = min(map(len, edges.values()), default=0)

    def block(type: Type, hop: int) -> Graph:
        first, last = (type[0], type[2]) if isinstance(type, tuple) else ("", "")
        store = batch[type] if type else batch
        graph = store.graph
        if graph is not store._graph:
            raise InputError("the edges of this batch are no longer those that were sampled, and have no blocks")
        return ordinary(leading, graph, edges[type][hop], (nodes[first][hop + 1], nodes[last][hop]))

    made = [{type: block(type, hop) for type in edges} for hop in reversed(range(hops))]
    return made if batch.edge_types else [found[""] for found in made]


def _upto(batch: Batch, type: Type, name: str) -> list[int]:
    store = batch[type] if type else batch
    if name not in store:
        raise InputError(
            "only batches of sampled neighbours have blocks, with subgraph_type='directional': "
            f"this one has no {name!r}"
        )
    counts: Sequence[int] = store[name]
    return list(accumulate(counts))


def leading(graph: Graph, edges: int, sizes: tuple[int, int]) -> Graph:
    """The first edges of a graph that is sorted by target, between its first nodes: no other leads to its targets."""
    whole, order = graph._edges, graph.in_edges
    all_of_them = edges == graph.num_edges
    listed = whole.listed if all_of_them else whole.listed[:, :edges].contiguous()
    loops = whole.facts.loops if all_of_them else int((listed[0] == listed[1]).sum())
    found = Graph._of(EdgeEnds(listed, Facts(loops, False, True)), sizes)
    index: Tensor = listed[0]
    numbers = counted(edges) if listed.is_cpu else torch.arange(edges, dtype=torch.int32, device=listed.device)
    found.__dict__["in_edges"] = prepare.given_order(order.rowptr[: sizes[1] + 1], index, numbers)
    if all_of_them and sizes[0] == graph.num_sources and "out_edges" in graph.__dict__:
        found.__dict__["out_edges"] = graph.out_edges
    return found
