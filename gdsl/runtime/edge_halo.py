"""Edges of other processes whose values are read here: those before own edges, and those that go the other way."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from gdsl.ir.types import Domain
from gdsl.runtime import order
from gdsl.runtime.answers import place
from gdsl.runtime.halo import Halo, agree_on, exchange, numbers
from gdsl.runtime.pairs import PairEnds, PairOrder
from gdsl.runtime.spans import row_numbers, spans

if TYPE_CHECKING:
    from gdsl.runtime.local import LocalGraph


def _of_edges(graph: LocalGraph, send: Tensor, send_counts: list[int], receive_counts: list[int]) -> Halo:
    """Own edges in the place of own rows."""
    own, more = graph.num_edges, sum(receive_counts)
    ids = torch.arange(own + more, device=send.device)
    return Halo(own, send, tuple(send_counts), tuple(receive_counts), ids[:own], ids[own:], graph.halo.group)


# ------------------------------------------------------------------------------------------- pairs


class LocalPairs:
    """The pairs k -> j -> i of the graph of all processes whose second edge is an own one. All make it together.

    halo  edges in the place of rows: after the own edges those of others that go into rows of the graph's halo
    ends  the numbers of both edges of each pair, of the first among own edges and those of others
    """

    def __init__(self, graph: LocalGraph, backtracking: bool):
        agree_on(graph.halo, "the first pairs of edges of a graph")
        nodes, into = graph.halo, graph.in_edges
        rowptr, edge = into.rowptr.long(), into.edge.long()
        degree = rowptr.diff()
        of_rows = exchange(nodes, [degree], [None])[0]()
        sent = degree[nodes.send]
        self.halo = _of_edges(
            graph,
            edge[spans(rowptr[nodes.send], sent)[1]],
            [int(part.sum()) for part in sent.split(nodes.send_counts)],
            [int(part.sum()) for part in of_rows[nodes.own :].split(nodes.receive_counts)],
        )
        every = torch.cat([edge, self.halo.halo_ids])
        source, target = graph.local_edge_index
        starts, at = torch.cat([of_rows.new_zeros(1), of_rows.cumsum(0)]), graph.index_dtype
        numbers = torch.arange(graph.num_edges, device=edge.device, dtype=at)
        here = source.to(at)
        self._order = PairOrder(numbers, here, here, order.Order(starts.to(at), every.to(at), every.to(at)))
        second, places = spans(starts[source], of_rows[source])
        first = every[places]
        if not backtracking:
            start = exchange(self.halo, [graph.row_ids(Domain.SOURCE)[source]], [None])[0]()
            kept = start[first] != nodes.own_ids[target[second]]
            first, second = first[kept], second[kept]
        self.ends = PairEnds(first, second)

    def order(self, end: str) -> PairOrder:
        """For kernels whose rows are own edges, which compute nothing of pairs."""
        return self._order

    def degree(self, which: str, dtype: torch.dtype) -> Tensor:
        """[E] ``in_degree``: how many pairs each own edge is the second of."""
        assert which == "in_degree"
        return torch.bincount(self.ends.second, minlength=self.halo.own).to(dtype)


# ----------------------------------------------------------------------------------------- reverses


class Reverses(NamedTuple):
    """The edges that go the other way, of own edges.

    here [E] their numbers among own edges; -1 where there is none here
    halo edges in the place of rows: an edge whose reverse is another process's gives its value to it, and gets that of
         it; so ``send`` lists the edges that have such a one
    """

    here: Tensor
    halo: Halo

    @property
    def alone(self) -> Tensor:
        """[E] whether there is no edge the other way."""
        return (self.here < 0).index_fill(0, self.halo.send, False)


def reverses(graph: LocalGraph) -> Reverses:
    """All processes ask for it together."""
    agree_on(graph.halo, "the first reversed edges of a graph")
    nodes, into = graph.halo, graph.in_edges
    # No edge goes into a row of the halo.
    rowptr = torch.cat([into.rowptr, into.rowptr[-1:].expand(nodes.rows)])
    here = order.reversed_edges(rowptr, into.index, into.edge).long()
    source, target = graph.local_edge_index
    crossing = (source >= nodes.own).nonzero().flatten()
    device, (me, world) = source.device, place(nodes.group)
    owner = row_numbers(torch.tensor(nodes.receive_counts, device=device))[source[crossing] - nodes.own]
    owner, by_owner = owner.sort(stable=True)
    crossing = crossing[by_owner]
    ids = graph.row_ids(Domain.SOURCE)
    ends = torch.stack([ids[source[crossing]], ids[target[crossing]]], dim=1)
    # Of parallel edges, in order, the first is 0, the next 1.
    kind = ends.unique(dim=0, return_inverse=True)[1]
    there, by_kind = kind.sort(stable=True)
    rank = torch.empty_like(kind)
    rank[by_kind] = torch.arange(len(kind), device=device) - torch.searchsorted(there, there)
    counts = torch.bincount(owner, minlength=world).tolist()
    received = [row[me] for row in numbers(nodes, counts)]
    every = torch.arange(len(crossing), device=device)
    listed = Halo(
        len(crossing), every, tuple(counts), tuple(received), every, every.new_zeros(sum(received)), nodes.group
    )
    theirs = exchange(listed, [torch.cat([ends.flip(1), rank[:, None]], dim=1)], [None])[0]()[len(crossing) :]
    of_whom = row_numbers(torch.tensor(received, device=device))
    keys = torch.cat([
        torch.cat([owner[:, None], ends, rank[:, None]], dim=1),
        torch.cat([of_whom[:, None], theirs], dim=1),
    ])
    # Each key is there once on each side. Both sides have them in the order of the node of the lower rank.
    _, number, times = keys.unique(dim=0, return_inverse=True, return_counts=True)
    matched = (times[number[: len(crossing)]] == 2).nonzero().flatten()
    own_first = owner[matched] > me
    a, b = ends[matched].flip(1).unbind(1)  # own node, that of the other
    sort_by = torch.stack([owner[matched], a.where(own_first, b), b.where(own_first, a), rank[matched]], dim=1)
    placed = sort_by.unique(dim=0, return_inverse=True)[1].argsort()
    sent = torch.bincount(owner[matched], minlength=world).tolist()
    return Reverses(here, _of_edges(graph, crossing[matched[placed]], sent, sent))
