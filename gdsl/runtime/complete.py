"""All pairs of nodes of each graph of a batch as the edges of one graph, without a list of them.

A node's edges lead to it from the nodes of its own graph, which are a range of places where nodes stand graph by graph.
So both orders of the edges are where each node's range begins, and which node stands at each place: a few numbers a
node. The list of edges is made for who asks for it: the torch backend, which is what kernels are compared with.
"""

from __future__ import annotations

import operator
from dataclasses import replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gdsl.codegen.notation import power_of_two
from gdsl.errors import GraphError
from gdsl.passes.options import GraphShape
from gdsl.runtime.extremes import extremes
from gdsl.runtime.graph import Graph, Rewired
from gdsl.runtime.order import (
    Degrees,
    EdgeEnds,
    Facts,
    Order,
    Schedule,
    index_dtype,
    mean_degree,
    no_chunks,
    no_hubs,
    shared_out,
    sort,
)
from gdsl.runtime.pairs import Pairs
from gdsl.runtime.recent import recall, retain
from gdsl.runtime.spans import spans
from gdsl.runtime.tracers import run_as_it_is
from gdsl.runtime.transforms import ordinary


class NodeRanges(NamedTuple):
    """Where the edges of each node of a complete graph lead to or come from, the same at both ends.

    rowptr  [N + 1]  as of any order: how many edges the rows before have
    begin   [N]      the place at which the range of a node's own graph begins
    node    [N]      which node stands at each place
    own     [N]      the place of each node
    skip    [N]      a place that a row leaves out, its own; the number of nodes where it leaves out none
    """

    rowptr: Tensor
    begin: Tensor
    node: Tensor
    own: Tensor
    skip: Tensor


class CompleteOrder(Order):
    """The edges of a complete graph by one of their ends. Immutable."""

    def __init__(self, ranges: NodeRanges, edges: EdgesAsked):
        self.rowptr, self.ranges, self._edges = ranges.rowptr, ranges, edges

    def __reduce__(self) -> tuple[Any, ...]:
        return CompleteOrder, (self.ranges, self._edges)

    @property
    def index(self) -> Tensor:  # type: ignore[override]
        return self._edges.by_node.index

    @property
    def edge(self) -> Tensor:  # type: ignore[override]
        return self._edges.by_node.edge

    @cached_property
    def schedule(self) -> Schedule:
        # All rows of a large graph are long: there are enough of them for all threads.
        bounds = shared_out(self.lengths.long() + 1)
        most = int(self.lengths.max()) if len(self.lengths) else 0
        return Schedule(bounds, most, *no_hubs(), len(bounds) - 1, False)

    @property
    def walk(self) -> tuple[Tensor, ...]:
        return self.ranges

    @cached_property
    def degrees(self) -> Degrees:
        by_degree = torch.sort(self.lengths, descending=True, stable=True).indices.to(self.rowptr.dtype)
        typical = power_of_two(mean_degree(int(self.rowptr[-1]), len(by_degree)))
        return Degrees(by_degree, by_degree[:0], *no_chunks(by_degree.device), typical)


class EdgesAsked:
    """The list of all edges, made when it is first asked for.

    end: by which the order is that asks for it, 0 for their sources and 1 for their targets
    """

    def __init__(self, graph: CompleteGraph, end: int):
        self.groups, self.loops, self.end = graph.groups, graph.loops, end

    @cached_property
    def by_node(self) -> Order:
        graph = CompleteGraph._of_groups(self.groups, self.loops)
        return sort(graph._list, self.end, graph.num_nodes, graph.index_dtype)


class CompleteGraph(Graph):
    """All pairs of nodes of each graph of a batch, as edges j -> i: what attention to all nodes runs on.

    batch      [N] integers from 0: the graph of each node, in any order; None for one graph of ``num_nodes`` nodes
    num_nodes  needed without ``batch``
    loops      whether a node is its own neighbour
    groups     [N] int64, of an instance: the graph of each node, a private copy

    Nothing of the size of all pairs is stored: a layer with values of edges among its inputs or results, or that needs
    the edges of a node in an order, is refused when it is called. Edges are numbered by target, and for each target by
    the places of their sources, where nodes stand graph by graph.

    Raises ``GraphError`` for a ``batch`` of another shape, dtype or number of nodes, or with negative numbers.
    """

    def __init__(self, batch: Tensor | None = None, num_nodes: int | None = None, loops: bool = True):
        self._setup_groups(ordinary(_groups, batch, num_nodes), loops)

    @classmethod
    def _of_groups(cls, groups: Tensor, loops: bool) -> CompleteGraph:
        graph = cls.__new__(cls)
        graph._setup_groups(groups, loops)
        return graph

    def _setup_groups(self, groups: Tensor, loops: bool) -> None:
        self.groups, self.loops = groups, bool(loops)
        nodes = len(groups)
        self._sizes = nodes, nodes
        self.num_sources = self.num_targets = self.num_readable = nodes
        self.device, self.edge_weight = groups.device, None
        self._degrees, self._without_loops, self._mirror, self._backtracking = {}, {}, None, True
        ranges, self.num_edges = ordinary(_ranges, groups, self.loops)
        self.index_dtype = index_dtype(nodes, nodes, self.num_edges)
        self._ranges = NodeRanges(*(t.to(self.index_dtype) for t in ranges))

    # What Graph makes of its list of edges. A tracer or a native call has none to take.
    _small = None

    @property
    def _edges(self) -> EdgeEnds:  # type: ignore[override]
        return self._list

    @property
    def _list(self) -> EdgeEnds:
        return self._make("_listed", self._write_out)

    def _write_out(self) -> EdgeEnds:
        """All edges, for who needs a list."""
        rowptr, begin, node, _, skip = (t.long() for t in self._ranges)
        target, place = spans(begin, rowptr.diff(), self.num_edges)
        source = node[place + (place >= skip[target])]
        loops = self.num_nodes if self.loops else 0
        return EdgeEnds(torch.stack([source, target]).to(self.index_dtype), Facts(loops, False, True))

    def _order(self, name: str, end: int) -> Order:
        return CompleteOrder(self._ranges, EdgesAsked(self, end))

    @property
    def shape(self) -> GraphShape:
        return self._make("_shape", self._its_shape)

    def _its_shape(self) -> GraphShape:
        return replace(GraphShape.of(*self._sizes, self.num_edges, self.device.type), complete=True)

    @property
    def reversed_edges(self) -> Tensor:
        raise GraphError("the edges of a complete graph do not lie in memory, and so their reverses are not told")

    @property
    def pairs(self) -> Pairs:
        raise GraphError("pairs of edges of a complete graph are triples of nodes, which are not walked")

    def non_backtracking(self) -> Rewired:
        return _Unchanged(self)

    def remove_self_loops(self) -> Rewired:
        return _Unchanged(self._with_loops(False))

    def add_self_loops(self) -> Rewired:
        return _Unchanged(self._with_loops(True))

    add_remaining_self_loops = add_self_loops

    def _with_loops(self, loops: bool) -> CompleteGraph:
        return self if loops is self.loops else self._make("_other", CompleteGraph._of_groups, self.groups, loops)

    def reverse(self) -> Graph:
        return self

    def _repeat(self, times: int) -> Graph:
        many = int(self.groups.max() - self.groups.min()) + 1 if len(self.groups) else 0
        first = many * torch.arange(times, device=self.device).unsqueeze(1)
        return CompleteGraph._of_groups((first + self.groups).flatten(), self.loops)

    def to(self, device: torch.device | str | int) -> Graph:
        moved = self.groups.to(device)
        return self if moved is self.groups else CompleteGraph._of_groups(moved, self.loops)

    def __reduce__(self) -> tuple[Any, ...]:
        return CompleteGraph._of_groups, (self.groups, self.loops)

    def __repr__(self) -> str:
        loops = "" if self.loops else ", loops=False"
        device = "" if self.device.type == "cpu" else f", device='{self.device}'"
        return f"CompleteGraph(num_nodes={self.num_nodes}, num_edges={self.num_edges}{loops}{device})"


class _Unchanged(Rewired):
    """A complete graph after loops were added or left out: there are no edge values that would follow."""

    def __init__(self, graph: CompleteGraph):
        self.graph, self._remaining = graph, False

    num_edges = property(lambda self: self.graph.num_edges)
    kept = added = loop_edge = None
    target = property(lambda self: self.graph.edge_index[1])


def _groups(batch: Tensor | None, num_nodes: int | None) -> Tensor:
    """[N] int64: the graph of each node."""
    if batch is None:
        if num_nodes is None:
            raise GraphError("a complete graph needs `batch`, the graph of each node, or `num_nodes`")
        try:
            count = operator.index(num_nodes)
        except TypeError:
            raise GraphError(f"num_nodes must be an int, not {num_nodes!r}") from None
        if count < 0:
            raise GraphError(f"num_nodes must not be negative, but it is {count}")
        return torch.zeros(count, dtype=torch.int64)
    if not isinstance(batch, Tensor):
        raise GraphError(f"batch must be a tensor [N], the graph of each node, not a {type(batch).__name__}")
    whole = not (batch.dtype == torch.bool or batch.is_floating_point() or batch.is_complex())
    if batch.layout != torch.strided or batch.dim() != 1 or not whole:
        raise GraphError(f"batch must hold integers [N], and it is {batch.dtype} {list(batch.shape)}")
    if num_nodes is not None and len(batch) != num_nodes:
        raise GraphError(f"batch has {len(batch)} entries, and there are {num_nodes} nodes")
    if len(batch) and extremes(batch)[0] < 0:
        node = int((batch < 0).nonzero()[0])
        raise GraphError(f"node {node} is in graph {int(batch[node])}, and graphs are numbered from 0")
    return batch.detach().long().clone()


def _ranges(groups: Tensor, loops: bool) -> tuple[NodeRanges, int]:
    """The ranges of a complete graph in 64 bits, and how many edges there are."""
    nodes, device = len(groups), groups.device
    node = place = torch.arange(nodes, device=device)
    if bool((groups.diff() < 0).any()):
        groups, node = torch.sort(groups, stable=True)
        place = torch.empty_like(node).index_copy_(0, node, place)
    _, of, count = torch.unique_consecutive(groups, return_inverse=True, return_counts=True)
    # By place, then by node.
    begin, degree = (t[of][place] for t in (count.cumsum(0) - count, count if loops else count - 1))
    rowptr = torch.cat([degree.new_zeros(1), degree.cumsum(0)])
    skip = torch.full_like(place, nodes) if loops else place
    return NodeRanges(rowptr, begin, node, place, skip), int(rowptr[-1])


@run_as_it_is
def complete_graph(batch: Tensor | None, num_nodes: int, loops: bool, device: torch.device) -> CompleteGraph:
    """The complete graph of a batch; the same object while the tensor is the same and unchanged."""
    if batch is None:
        return CompleteGraph._of_groups(torch.zeros(num_nodes, dtype=torch.int64, device=device), loops)
    if batch.is_inference():  # nothing would tell that it was changed
        return CompleteGraph(batch, num_nodes, loops)
    found = recall(batch, _MARKS[loops], num_nodes)
    if not isinstance(found, CompleteGraph):
        found = CompleteGraph(batch, num_nodes, loops)
        retain(batch, _MARKS[loops], found)
    return found


# In place of a number of source nodes, among the graphs of raw tensors.
_MARKS = {True: -2, False: -3}
