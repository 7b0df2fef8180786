"""A graph that is checked once and sorted once, and then read by every kernel, layer and pass."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gdsl.errors import GraphError
from gdsl.html import page, table
from gdsl.ir.types import Domain
from gdsl.passes.options import GraphShape
from gdsl.runtime import native, prepare
from gdsl.runtime.formats import Sizes, edge_list, plain_tensor, sizes_of
from gdsl.runtime.given import Size, agreed, check_edge_index, check_integers, check_sizes
from gdsl.runtime.order import EdgeEnds, Order, index_dtype, to_send
from gdsl.runtime.pairs import Pairs
from gdsl.runtime.parts import Parts, part
from gdsl.runtime.transforms import concrete, ordinary

if TYPE_CHECKING:
    from gdsl.runtime.halo import Halo

# Parts of a graph that are made anew elsewhere.
_OF_A_PROCESS = ("_mirror", "_small")

_NO_ORDERS: Mapping[str, Order] = {}


class Rewired(Parts):
    """A graph made from another by removing and adding self-loops.

    graph      the new graph: first the kept edges, then one loop for each added node
    num_edges  of the original graph
    kept       [K] int64 ids of the original edges that were kept, in order; None when all were
    added      [L] int64 nodes that were given a loop, in order; None when none was
    loop_edge  [L] int64 the last original loop of each added node, or -1; only from ``add_remaining_self_loops``
    target     [E] int64 the target of each original edge
    """

    def __init__(self, graph: Graph, remaining: bool):
        self.graph = graph
        self._edges, self._remaining = graph._edges, remaining

    @property
    def num_edges(self) -> int:
        return self._edges.listed.shape[1]

    @part
    def kept(self) -> Tensor | None:
        return prepare.kept_ids(self._edges) if self._edges.drop and self._edges.facts.loops else None

    @part
    def added(self) -> Tensor | None:
        edges = self._edges
        return torch.arange(edges.added, device=edges.listed.device) if edges.added else None

    @part
    def loop_edge(self) -> Tensor | None:
        return prepare.last_loops(self._edges) if self._remaining and self._edges.added else None

    @part
    def target(self) -> Tensor:
        return self._edges.listed[1].long()


class Graph(Parts):
    """A directed graph, or a bipartite one. Immutable.

    ``edge_index`` is an integer tensor [2, E]: row 0 the source j, row 1 the target i of each edge j -> i.
    It is copied, so that writing to the original later cannot make the graph wrong. ``num_nodes`` is a
    number, a pair (num_sources, num_targets) for a bipartite graph, or None for what a torch_geometric ``EdgeIndex``
    tells, or else the largest index plus one.

    edge_index   [2, E] int64, a private copy: not to be written to. Held in fewer bytes until it is asked for
    num_sources, num_targets, num_edges, device
    index_dtype  int32 when every count fits in it, else int64: the dtype of ``Order`` and ``position``
    edge_weight  [E, ...] the values of the sparse matrix that the graph was made from, or None
    halo         of the part of a distributed graph, which rows of other processes its edges read; else None

    Raises ``GraphError`` for a wrong dtype or shape and for indices out of range, with the first bad edge.
    """

    halo: Halo | None = None

    def __init__(self, edge_index: Tensor, num_nodes: Size = None):
        self._read(edge_index, check_sizes(num_nodes))

    def _read(self, edge_index: Tensor, sizes: Sizes | None) -> None:
        """The graph of edges that are yet to be checked; a size that is None is told by them."""
        check_edge_index(edge_index)
        sizes = agreed(sizes_of(edge_index), sizes)
        plain = plain_tensor(concrete(edge_index, "edge_index"))
        self._setup(*ordinary(prepare.take, plain, sizes))

    @classmethod
    def _of(cls, edges: EdgeEnds, sizes: tuple[int, int], weight: Tensor | None = None) -> Graph:
        """From parts that are known to be right."""
        graph = cls.__new__(cls)
        graph._setup(edges, sizes, weight)
        return graph

    @classmethod
    def _from(cls, edge_index: Tensor, sizes: Sizes | None) -> Graph:
        """From edges that are yet to be checked."""
        graph = cls.__new__(cls)
        graph._read(edge_index, sizes)
        return graph

    def _setup(self, edges: EdgeEnds, sizes: tuple[int, int], weight: Tensor | None = None) -> None:
        self._edges, self._sizes = edges, sizes
        self.num_sources, self.num_targets = sizes
        self.num_readable = self.num_sources
        self.num_edges: int = edges.num_edges
        self.device: torch.device = edges.listed.device
        self.index_dtype = index_dtype(*sizes, self.num_edges)
        self.edge_weight = weight
        self._degrees: dict[tuple[str, torch.dtype], Tensor] = {}
        # The orders, as far as they are known, of the graph without the loops that were added to it.
        self._without_loops: Mapping[str, Order] = _NO_ORDERS
        self._mirror: weakref.ref[Graph] | None = None
        self._backtracking = True

    @classmethod
    def from_any(cls, obj: Any, num_nodes: Size = None) -> Graph:
        """The graph that ``obj`` holds: a Graph (returned as it is), a tensor [2, E], a torch_geometric
        Data, or one of the sparse matrices and graphs of ``gdsl.runtime.formats.edge_list``, whose values
        become ``edge_weight``.

        Raises ``GraphError`` for what no graph can be made from, or whose size is not ``num_nodes``.
        """
        if isinstance(obj, Graph):
            agreed((obj.num_sources, obj.num_targets), check_sizes(num_nodes))
            return obj
        edges = edge_list(obj)
        graph = cls._from(edges.edge_index, agreed(edges.sizes, check_sizes(num_nodes)))
        graph.edge_weight = edges.weight
        return graph

    @classmethod
    def from_csc(cls, rowptr: Tensor, index: Tensor, num_nodes: Size = None) -> Graph:
        """From edges sorted by target: those into target i come from the nodes ``index[rowptr[i]:rowptr[i + 1]]``.

        rowptr     [num_targets + 1] integers
        index      [E] integers: the source of each edge
        num_nodes  as in ``Graph(...)``; None for as many sources as targets

        Edge values go by the order of ``index``. Both are checked and copied, in time that grows with E, not sorted.

        Raises ``GraphError`` as ``Graph(...)`` does, and where the rows do not follow each other.
        """
        return cls._from_rows(rowptr, index, 1, num_nodes)

    @classmethod
    def from_csr(cls, rowptr: Tensor, index: Tensor, num_nodes: Size = None) -> Graph:
        """As ``from_csc``, from edges that are sorted by source: ``index`` holds the targets."""
        return cls._from_rows(rowptr, index, 0, num_nodes)

    @classmethod
    def _from_rows(cls, rowptr: Tensor, index: Tensor, end: int, num_nodes: Size) -> Graph:
        for name, value in (("rowptr", rowptr), ("index", index)):
            check_integers(name, value, "[E]" if name == "index" else "[rows + 1]")
        if not rowptr.numel():
            raise GraphError("rowptr must have one number more than there are rows, but it has none")
        if rowptr.device != index.device:
            raise GraphError(f"rowptr is on {rowptr.device}, and index is on {index.device}: move one with .to()")
        given = [plain_tensor(concrete(value, "rowptr")) for value in (rowptr, index)]
        return cls._of(*ordinary(prepare.take_sorted, *given, end, check_sizes(num_nodes)))

    @property
    def num_nodes(self) -> int:
        """Raises ``GraphError`` for a bipartite graph, which has two sizes."""
        if self.is_bipartite:
            raise GraphError(
                f"a bipartite graph has no single number of nodes: it has {self.num_sources} sources and "
                f"{self.num_targets} targets"
            )
        return self.num_targets

    @property
    def is_bipartite(self) -> bool:
        """True when sources and targets differ in number."""
        return self.num_sources != self.num_targets

    @part
    def edge_index(self) -> Tensor:
        return self._list.listed.long()

    @property
    def local_edge_index(self) -> Tensor:
        """The edges that this process has; of a graph that is whole, all."""
        return self.edge_index

    def row_ids(self, domain: Domain) -> Tensor:
        """The number of each row of a domain among those of all processes, int64."""
        counts = {Domain.SOURCE: self.num_sources, Domain.EDGE: self.num_edges}
        return torch.arange(counts.get(domain, self.num_targets), device=self.device)

    @part
    def _list(self) -> EdgeEnds:
        """The edges with nothing to leave out or to add."""
        return self._edges if self._edges.is_list else prepare.written_out(self._edges)

    @part
    def in_edges(self) -> Order:
        """The edges by target: row i lists the edges into i."""
        return self._order("in_edges", 1)

    @part
    def out_edges(self) -> Order:
        """The edges by source: row j lists the edges out of j."""
        return self._order("out_edges", 0)

    def is_sorted(self, end: int) -> bool:
        """Whether the edges, as they are numbered, come by source (``end=0``) or by target (``end=1``)."""
        facts = self._edges.facts
        return not self._edges.added and (facts.by_target if end else facts.by_source)

    @part
    def _small(self) -> Any | None:
        """What native calls take it for; None where they do not."""
        parts = self.__dict__
        known = {end: parts[name] for end, name in enumerate(("out_edges", "in_edges")) if name in parts}
        return native.small(self._edges, self._sizes, known)

    def _order(self, name: str, end: int) -> Order:
        plain = self._without_loops.get(name)
        if plain is not None:
            return prepare.looped(plain, self._edges.added) if self._edges.added else plain
        return prepare.sort(self._edges, end, self._sizes)

    @part
    def in_degree(self) -> Tensor:
        """[num_targets] int64"""
        return prepare.degree(self.in_edges, torch.int64)

    @part
    def out_degree(self) -> Tensor:
        """[num_sources] int64"""
        return prepare.degree(self.out_edges, torch.int64)

    def degree(self, which: str, dtype: torch.dtype) -> Tensor:
        """The ``in_degree`` or ``out_degree`` as numbers of a dtype, made once."""
        made = self._degrees.get((which, dtype))
        if made is None:
            order = self.in_edges if which == "in_degree" else self.out_edges
            made = self._degrees.setdefault((which, dtype), ordinary(prepare.degree, order, dtype))
        return made

    @part
    def shape(self) -> GraphShape:
        """The sizes that the cost model sees."""
        return GraphShape.of(self.num_sources, self.num_targets, self.num_edges, self.device.type)

    @part
    def position(self) -> Tensor:
        """[E] the rank of each edge, by its id, among the edges into its target."""
        order = self.in_edges
        first = order.rowptr[:-1].repeat_interleave(self.in_degree, output_size=self.num_edges)
        rank = torch.arange(self.num_edges, device=self.device, dtype=self.index_dtype) - first
        return torch.empty_like(rank).index_copy_(0, order.edge.long(), rank)

    @part
    def reversed_edges(self) -> Tensor:
        """[E] for each edge j -> i the id of the edge i -> j, or -1; of parallel edges the k-th has the k-th.

        Raises ``GraphError`` for a bipartite graph.
        """
        if self.is_bipartite:
            raise GraphError("the edges of a bipartite graph have no reverse: they all go from sources to targets")
        return prepare.reversed_edges(self.in_edges, self.out_edges)

    @property
    def alone(self) -> Tensor:
        """[E] whether there is no edge the other way. Raises as ``reversed_edges`` does."""
        return self.reversed_edges < 0

    @part
    def pairs(self) -> Pairs:
        """The pairs of edges k -> j -> i.

        Raises ``GraphError`` for a bipartite graph.
        """
        if self.is_bipartite:
            raise GraphError("no edge of a bipartite graph begins where another ends: all go from sources to targets")
        return Pairs(self._list.listed, self.in_edges, self.out_edges, self._backtracking)

    def non_backtracking(self) -> Rewired:
        """The same edges, of which j -> i and i -> j are no pair."""
        return self._make("_non_backtracking", self._without_returns)

    def _without_returns(self) -> Rewired:
        graph = Graph._of(self._list, self._sizes, self.edge_weight)
        graph._without_loops = {"in_edges": self.in_edges, "out_edges": self.out_edges}
        graph._backtracking = False
        return Rewired(graph, False)

    def remove_self_loops(self) -> Rewired:
        """Without the edges j -> j."""
        return self._make("_removed", self._rewire, False)

    def with_edges(self, edge_index: Tensor) -> Graph:
        """Other edges between the same nodes."""
        return Graph(edge_index, self._sizes if self.is_bipartite else self.num_targets)

    def with_more_loops(self) -> Graph:
        """With a loop at each node, after the edges that there are. Raises ``GraphError`` for a bipartite graph."""
        loops = torch.arange(self.num_nodes, device=self.device).expand(2, -1)
        return self.with_edges(torch.cat([self.edge_index, loops], dim=1))

    def add_self_loops(self) -> Rewired:
        """With exactly one loop at each node: those that exist are removed, and one a node is appended in
        order.

        A bipartite graph has a loop for each of its first min(num_sources, num_targets) nodes.
        """
        return self._make("_added", self._rewire, True)

    def add_remaining_self_loops(self) -> Rewired:
        """The same edges as ``add_self_loops``; ``loop_edge`` says which original loop each of them
        replaces."""
        return self._make("_remaining", self._rewire, True, True)

    def _rewire(self, loops: bool, remaining: bool = False) -> Rewired:
        listed, facts, _, _ = self._list
        edges = EdgeEnds(listed, facts, True, min(self._sizes) if loops else 0)
        graph = self._between(edges)
        graph._backtracking = self._backtracking
        if not facts.loops and index_dtype(*self._sizes, edges.num_edges) is self.index_dtype:
            # The orders themselves, not this graph: a cycle would keep both until the garbage collector looks for it.
            graph._without_loops = {n: self.__dict__[n] for n in ("in_edges", "out_edges") if n in self.__dict__}
        return Rewired(graph, remaining)

    def _between(self, edges: EdgeEnds) -> Graph:
        """The graph of other edges between the same nodes."""
        return Graph._of(edges, self._sizes)

    def reverse(self) -> Graph:
        """The graph with every edge turned round, in the same order. Turning it twice gives the first one back."""
        first = None if self._mirror is None else self._mirror()
        return self._make("_reversed", self._reverse) if first is None else first

    def _reverse(self) -> Graph:
        edges = self._edges._replace(listed=self._edges.listed.flip(0), facts=self._edges.facts.reversed())
        graph = Graph._of(edges, (self.num_targets, self.num_sources), self.edge_weight)
        # No more than a weak reference: a cycle would keep both until the garbage collector looks for it.
        graph._mirror, graph._backtracking = weakref.ref(self), self._backtracking
        return graph

    def repeat(self, times: int) -> Graph:
        """So many copies of the graph side by side, as one graph. Edge values are not carried over."""
        return self._make(f"_repeated {times}", self._repeat, times)

    def _repeat(self, times: int) -> Graph:
        first = torch.arange(times, device=self.device) * torch.tensor(self._sizes, device=self.device).view(2, 1)
        edge_index = (self.edge_index.unsqueeze(1) + first.unsqueeze(2)).flatten(1)
        graph = Graph(edge_index, (times * self.num_sources, times * self.num_targets))
        graph._backtracking = self._backtracking
        return graph

    def to(self, device: torch.device | str | int) -> Graph:
        """The same graph on another device; itself if it is there."""
        moved = self._edges.listed.to(device)
        if moved is self._edges.listed:
            return self
        weight = None if self.edge_weight is None else self.edge_weight.to(device)
        graph = Graph._of(self._edges._replace(listed=moved), self._sizes, weight)
        graph._backtracking = self._backtracking
        for name in ("in_edges", "out_edges"):
            if name in self.__dict__:
                order: Order = self.__dict__[name]
                graph.__dict__[name] = Order(order.rowptr.to(device), order.index.to(device), order.edge.to(device))
        return graph

    def __reduce__(self) -> tuple[Any, ...]:
        # With all that has been made of it: a graph from a loader's worker is not sorted again.
        made = {name: value for name, value in self.__dict__.items() if name not in _OF_A_PROCESS}
        for name, value in made.items():
            if isinstance(value, EdgeEnds):
                made[name] = value._replace(listed=to_send(value.listed))
        return _restore, (made,)

    def __repr__(self) -> str:
        if self.is_bipartite:
            size = f"num_sources={self.num_sources}, num_targets={self.num_targets}"
        else:
            size = f"num_nodes={self.num_targets}"
        device = "" if self.device.type == "cpu" else f", device='{self.device}'"
        return f"Graph({size}, num_edges={self.num_edges}{device})"

    def _repr_html_(self) -> str:
        ends = [("sources", self.num_sources), ("targets", self.num_targets)]
        counts = [*(ends if self.is_bipartite else [("nodes", self.num_targets)]), ("edges", self.num_edges)]
        rows = [*((name, f"{count:,}") for name, count in counts), ("device", str(self.device))]
        return page("graph", table(("", ""), rows))


def _restore(parts: dict[str, Any]) -> Graph:
    graph = Graph.__new__(Graph)
    graph.__dict__.update(parts, _mirror=None)
    if "_reversed" in parts and parts["_reversed"]._mirror is None:
        parts["_reversed"]._mirror = weakref.ref(graph)
    return graph
