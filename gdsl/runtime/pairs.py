"""Pairs of edges that follow each other, k -> j -> i, without a list of them.

The pairs of which ji is the second edge are the edges into j; those of which kj is the first, the edges out of j. So an
order of pairs is an order of edges, and for each edge the node whose row of it is meant.
"""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from gdsl.codegen.notation import power_of_two
from gdsl.runtime.order import Order, Tables, mean_degree, shared_out, tables
from gdsl.runtime.spans import spans


class PairOrder:
    """The pairs by one of their edges ("row").

    rows   [E]  the edges, those with the same other edges behind each other
    node   [E]  by the number of an edge, the node that it shares with its pairs
    far    [E]  by the number of an edge, the node at its other end, if no pair goes back there, or -1
    edges       the order whose row ``node`` has the other edges; its ``index`` is where these come from or go to
    """

    def __init__(self, rows: Tensor, node: Tensor, far: Tensor, edges: Order):
        self.rows, self.node, self.far, self.edges = rows, node, far, edges

    @property
    def max_degree(self) -> int:
        """The most pairs that an edge may have."""
        return self.edges.max_degree

    @property
    def walk(self) -> tuple[Tensor, ...]:
        """What kernels that walk pairs are passed."""
        edges = self.edges
        return self.rows, self.node, self.far, edges.rowptr, edges.index, edges.edge

    @cached_property
    def degree(self) -> Tensor:
        """[E] of each of ``rows``, how many edges its node has."""
        return self.edges.rowptr.diff()[self.node[self.rows]]

    @cached_property
    def blocks(self) -> Tensor:
        """[B + 1] int64: places in ``rows`` that share them out in B blocks of about equal work."""
        return shared_out(self.degree.long() + 1)

    @property
    def num_blocks(self) -> int:
        return len(self.blocks) - 1

    @cached_property
    def by_degree(self) -> Tensor:
        """[E] the rows, most edges first: what runs together on a GPU has about as many."""
        return self.rows[torch.sort(self.degree, descending=True, stable=True).indices]

    @cached_property
    def all_rows(self) -> Tables:
        """What kernels of a GPU are passed: the rows, how many, and what to walk."""
        return tables(self.by_degree, len(self.rows), *self.walk[1:])

    @cached_property
    def typical(self) -> int:
        """Pairs a row, about: the mean, rounded up to a power of two."""
        return power_of_two(mean_degree(int(self.degree.sum()), len(self.rows)))


class PairEnds(NamedTuple):
    """All pairs written out, for the reference: the numbers of their edges, [T] each."""

    first: Tensor
    second: Tensor


class Pairs:
    """The pairs of a graph.

    edges          [2, E]  sources and targets
    backtracking   whether edges j -> i and i -> j are a pair, too
    """

    def __init__(self, edges: Tensor, in_edges: Order, out_edges: Order, backtracking: bool):
        source, target = edges.to(in_edges.edge.dtype)
        self.source, self.target, self.in_edges, self.out_edges = source, target, in_edges, out_edges
        self.backtracking = backtracking

    def order(self, end: str) -> PairOrder:
        """By the second edge (``end`` i) or by the first (j)."""
        return self.by_second if end == "i" else self.by_first

    @cached_property
    def by_second(self) -> PairOrder:
        return PairOrder(self.out_edges.edge, self.source, self._far(self.target), self.in_edges)

    @cached_property
    def by_first(self) -> PairOrder:
        return PairOrder(self.in_edges.edge, self.target, self._far(self.source), self.out_edges)

    def _far(self, node: Tensor) -> Tensor:
        return torch.full_like(node, -1) if self.backtracking else node

    @cached_property
    def ends(self) -> PairEnds:
        order, source = self.in_edges, self.source.long()
        rowptr = order.rowptr.long()
        second, place = spans(rowptr[source], rowptr.diff()[source])
        first = order.edge.long()[place]
        if not self.backtracking:
            kept = self.source[first] != self.target[second]
            first, second = first[kept], second[kept]
        return PairEnds(first, second)

    @cached_property
    def _returns(self) -> Tensor:
        """[E] how many edges go the other way."""
        nodes = max(len(self.in_edges.rowptr), len(self.out_edges.rowptr))
        source, target = self.source.long(), self.target.long()
        there = torch.sort(target * nodes + source).values
        back = source * nodes + target
        return torch.searchsorted(there, back, right=True) - torch.searchsorted(there, back)

    def degree(self, which: str, dtype: torch.dtype) -> Tensor:
        """[E] ``in_degree``: how many pairs each edge is the second of; ``out_degree``: the first of."""
        order, node = (self.in_edges, self.source) if which == "in_degree" else (self.out_edges, self.target)
        found = order.rowptr.diff()[node].long()
        return (found if self.backtracking else found - self._returns).to(dtype)
