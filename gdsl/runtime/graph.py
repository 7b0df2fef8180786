"""A graph that is checked once and sorted once, and then read by every kernel, layer and pass."""

from __future__ import annotations

import operator
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from gdsl.errors import GraphError
from gdsl.html import page, table
from gdsl.ir.ops.rows import add_at
from gdsl.ir.types import Domain
from gdsl.passes.options import GraphShape
from gdsl.runtime import native, prepare
from gdsl.runtime.formats import Sizes, edge_list, plain_tensor, sizes_of
from gdsl.runtime.order import EdgeEnds, Order, index_dtype, to_send
from gdsl.runtime.pairs import Pairs
from gdsl.runtime.tracers import run_as_it_is
from gdsl.runtime.transforms import concrete, ordinary

if TYPE_CHECKING:
    from gdsl.runtime.halo import Halo

T = TypeVar("T")
Size = int | tuple[int, int] | None

# Parts of a graph that are made anew elsewhere.
_OF_A_PROCESS = ("_mirror", "_small")

_NO_ORDERS: Mapping[str, Order] = {}

# One of the graphs of raw tensors, and some for the lazily made parts of graphs, so that graphs hold no lock, which
# could not be pickled.
_lock = threading.RLock()
_part_locks = [threading.RLock() for _ in range(64)]


class _Parts:
    """What has parts that are made when they are first asked for. They lie in its ``__dict__``."""

    def _make(self, name: str, make: Callable[..., Any], *args: Any) -> Any:
        """What ``make(*args)`` gives, made once."""
        parts = self.__dict__
        made = parts.get(name)
        if made is None:
            with _part_locks[(id(self) >> 6) & 63]:
                made = parts.get(name)
                if made is None:
                    made = parts[name] = ordinary(make, *args)
        return made


class _part(Generic[T]):
    """A method of no arguments as an attribute: once it is made, reading it costs no call."""

    def __init__(self, make: Callable[[Any], T]):
        self.make, self.__doc__ = make, make.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, found: _Parts | None, owner: type) -> T:
        if found is None:
            return self  # type: ignore[return-value]
        return found._make(self.name, self.make, found)


class Rewired(_Parts):
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

    @_part
    def kept(self) -> Tensor | None:
        return prepare.kept_ids(self._edges) if self._edges.drop and self._edges.facts.loops else None

    @_part
    def added(self) -> Tensor | None:
        edges = self._edges
        return torch.arange(edges.added, device=edges.listed.device) if edges.added else None

    @_part
    def loop_edge(self) -> Tensor | None:
        return prepare.last_loops(self._edges) if self._remaining and self._edges.added else None

    @_part
    def target(self) -> Tensor:
        return self._edges.listed[1].long()


class Graph(_Parts):
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
        self._read(edge_index, _check_sizes(num_nodes))

    def _read(self, edge_index: Tensor, sizes: Sizes | None) -> None:
        """The graph of edges that are yet to be checked; a size that is None is told by them."""
        _check_edge_index(edge_index)
        sizes = _agreed(sizes_of(edge_index), sizes)
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
            _agreed((obj.num_sources, obj.num_targets), _check_sizes(num_nodes))
            return obj
        edges = edge_list(obj)
        graph = cls._from(edges.edge_index, _agreed(edges.sizes, _check_sizes(num_nodes)))
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
            _check_integers(name, value, "[E]" if name == "index" else "[rows + 1]")
        if not rowptr.numel():
            raise GraphError("rowptr must have one number more than there are rows, but it has none")
        if rowptr.device != index.device:
            raise GraphError(f"rowptr is on {rowptr.device}, and index is on {index.device}: move one with .to()")
        given = [plain_tensor(concrete(value, "rowptr")) for value in (rowptr, index)]
        return cls._of(*ordinary(prepare.take_sorted, *given, end, _check_sizes(num_nodes)))

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

    @_part
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

    @_part
    def _list(self) -> EdgeEnds:
        """The edges with nothing to leave out or to add."""
        return self._edges if self._edges.is_list else prepare.written_out(self._edges)

    @_part
    def in_edges(self) -> Order:
        """The edges by target: row i lists the edges into i."""
        return self._order("in_edges", 1)

    @_part
    def out_edges(self) -> Order:
        """The edges by source: row j lists the edges out of j."""
        return self._order("out_edges", 0)

    def is_sorted(self, end: int) -> bool:
        """Whether the edges, as they are numbered, come by source (``end=0``) or by target (``end=1``)."""
        facts = self._edges.facts
        return not self._edges.added and (facts.by_target if end else facts.by_source)

    @_part
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

    @_part
    def in_degree(self) -> Tensor:
        """[num_targets] int64"""
        return prepare.degree(self.in_edges, torch.int64)

    @_part
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

    @_part
    def shape(self) -> GraphShape:
        """The sizes that the cost model sees."""
        return GraphShape.of(self.num_sources, self.num_targets, self.num_edges, self.device.type)

    @_part
    def position(self) -> Tensor:
        """[E] the rank of each edge, by its id, among the edges into its target."""
        order = self.in_edges
        first = order.rowptr[:-1].repeat_interleave(self.in_degree, output_size=self.num_edges)
        rank = torch.arange(self.num_edges, device=self.device, dtype=self.index_dtype) - first
        return torch.empty_like(rank).index_copy_(0, order.edge.long(), rank)

    @_part
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

    @_part
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
        parts = {name: part for name, part in self.__dict__.items() if name not in _OF_A_PROCESS}
        for name, part in parts.items():
            if isinstance(part, EdgeEnds):
                parts[name] = part._replace(listed=to_send(part.listed))
        return _restore, (parts,)

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


def rewire_edge_value(rewired: Rewired, value: Tensor, fill: float | Tensor | str) -> Tensor:
    """The values of the new graph's edges from the values [E, ...] of the old one's. Differentiable.

    A new loop gets ``fill``: a number, a tensor that broadcasts to one value [...], or the ``"sum"`` (also
    ``"add"``), ``"mean"``, ``"max"``, ``"min"`` or ``"mul"`` of the values that come into its node, as in
    torch_geometric (0 for a node without any, 1 for ``"mul"``). After ``add_remaining_self_loops`` a loop
    that was there keeps its value.

    Raises ``GraphError`` for a value of another number of edges, or an unknown name.
    """
    num_edges = rewired.num_edges
    if value.dim() == 0 or value.shape[0] != num_edges:
        raise GraphError(
            f"an edge value must have one row for each of the graph's {num_edges} edges, "
            f"but its shape is {list(value.shape)}"
        )
    kept = value if rewired.kept is None else value.index_select(0, rewired.kept)
    if rewired.added is None:
        return kept
    if isinstance(fill, str):
        # torch_geometric counts the loops that were there only where it keeps their values.
        edges = rewired.kept if rewired.loop_edge is None else None
        target = rewired.target if edges is None else rewired.target.index_select(0, edges)
        incoming = value if edges is None else kept
        loops = _reduce(incoming, target, rewired.graph.num_targets, fill)[: rewired.added.numel()]
    else:
        # A number is filled in on the device: a copy from the host would end the capture of a CUDA graph.
        one = fill.to(value) if isinstance(fill, Tensor) else value.new_full((), fill)
        loops = one.expand(rewired.added.numel(), *value.shape[1:])
    if rewired.loop_edge is not None and num_edges:
        existing = value.index_select(0, rewired.loop_edge.clamp(min=0))
        missing = (rewired.loop_edge < 0).view(-1, *[1] * (value.dim() - 1))
        loops = torch.where(missing, loops, existing)
    return torch.cat([kept, loops])


def _reduce(value: Tensor, target: Tensor, rows: int, how: str) -> Tensor:
    """[rows, ...] from [E, ...]"""
    shape = (rows, *value.shape[1:])
    if how in ("sum", "add"):
        return add_at(value, target, rows)
    if how == "mean":
        # Not bincount: a GPU's waits for the largest number.
        count = target.new_zeros(rows).index_add(0, target, torch.ones_like(target)).clamp(min=1).to(value.dtype)
        return add_at(value, target, rows) / count.view(-1, *[1] * (value.dim() - 1))
    index = target.view(-1, *[1] * (value.dim() - 1)).expand_as(value)
    if how in ("max", "min"):
        return value.new_zeros(shape).scatter_reduce(0, index, value, "a" + how, include_self=False)
    if how == "mul":
        return value.new_ones(shape).scatter_reduce(0, index, value, "prod")
    raise GraphError(f"a loop's value is a number or one of 'sum', 'mean', 'max', 'min', 'mul', not {how!r}")


# Checks


def _check_edge_index(edge_index: Any) -> None:
    if not isinstance(edge_index, Tensor):
        raise GraphError(f"edge_index must be a tensor, not a {type(edge_index).__name__}")
    plain = edge_index.dtype is torch.int64 and edge_index.layout is torch.strided
    if plain and edge_index.dim() == 2 and edge_index.shape[0] == 2:
        return
    shape = list(edge_index.shape)
    if edge_index.layout != torch.strided:
        raise GraphError("edge_index is a sparse tensor; make the graph with gdsl.Graph.from_any(...)")
    if edge_index.dim() != 2 or shape[0] != 2:
        hint = "; pass edge_index.t()" if edge_index.dim() == 2 and shape[1] == 2 else ""
        raise GraphError(f"edge_index must have shape [2, E], but its shape is {shape}{hint}")
    if not _is_integer(edge_index):
        raise GraphError(
            f"edge_index must hold integers, but its dtype is {edge_index.dtype}; convert it with edge_index.long()"
        )


def _is_integer(tensor: Tensor) -> bool:
    return not (tensor.dtype == torch.bool or tensor.is_floating_point() or tensor.is_complex())


def _check_integers(name: str, value: Any, shape: str) -> None:
    if not isinstance(value, Tensor):
        raise GraphError(f"{name} must be a tensor, not a {type(value).__name__}")
    if value.layout != torch.strided or value.dim() != 1:
        raise GraphError(f"{name} must have shape {shape}, but its shape is {list(value.shape)}")
    if not _is_integer(value):
        raise GraphError(f"{name} must hold integers, but its dtype is {value.dtype}; convert it with {name}.long()")


def _check_sizes(num_nodes: Size) -> tuple[int, int] | None:
    if num_nodes is None:
        return None
    if isinstance(num_nodes, tuple | list):
        if len(num_nodes) != 2:
            raise GraphError(
                f"num_nodes must be an int or a pair (num_sources, num_targets), not {len(num_nodes)} numbers"
            )
        return _check_size(num_nodes[0], "num_sources"), _check_size(num_nodes[1], "num_targets")
    size = _check_size(num_nodes, "num_nodes")
    return size, size


def _check_size(size: Any, name: str) -> int:
    if type(size) is int and size >= 0:
        return size
    try:
        if isinstance(size, bool):
            raise TypeError
        number = operator.index(size)
    except (TypeError, RuntimeError):
        raise GraphError(f"{name} must be an int, not {size!r}") from None
    if number < 0:
        raise GraphError(f"{name} must not be negative, but it is {number}")
    return number


def _agreed(told: Sizes | None, asked: Sizes | None) -> Sizes | None:
    """What is known of the sizes from two sides. Raises ``GraphError`` where they contradict each other."""
    if told is None or asked is None:
        return told or asked
    (a, b), (c, d) = told, asked
    have, wanted = (c if a is None else a, d if b is None else b), (a if c is None else c, b if d is None else d)
    if have != wanted:
        raise GraphError(_size_clash(have, wanted))
    return have


def _size_clash(have: Sizes, asked: Sizes) -> str:
    if have[0] == have[1] and asked[0] == asked[1]:
        return (
            f"the graph has {have[0]} nodes, but {asked[0]} are needed here; "
            f"if some nodes have no edges, give their number: Graph(edge_index, num_nodes={asked[0]})"
        )
    return (
        f"the graph has {have[0]} source and {have[1]} target nodes, but {asked[0]} and {asked[1]} are "
        f"needed here; give both: Graph(edge_index, num_nodes=({asked[0]}, {asked[1]}))"
    )


# The graphs of raw edge_index tensors

RECENT = 16


class _Recent(NamedTuple):
    tensor: weakref.ref[Tensor]
    state: tuple[Any, ...]
    graph: Graph


_Key = tuple[int, int | None, int | None]
_recent: OrderedDict[_Key, _Recent] = OrderedDict()


@run_as_it_is
def graph_of(edge_index: Tensor, num_sources: int | None, num_targets: int | None) -> Graph:
    """The graph of a raw ``edge_index`` [2, E]; the same object while the tensor is the same and unchanged.

    What counts as unchanged: the same tensor object with the same memory and the same version counter,
    which every in-place operation of torch raises. Memory that something else can write to (a NumPy array
    made from the tensor or the other way round, memory shared between processes) has no such counter, so
    there the values are compared. Writes through ``edge_index.data``, a DLPack view or a raw pointer go
    unnoticed, here as in autograd: after such a write, pass ``Graph(edge_index)``.
    """
    sizes = None if num_sources is None and num_targets is None else (num_sources, num_targets)
    if isinstance(edge_index, Tensor):
        edge_index = concrete(edge_index, "edge_index")
    if not isinstance(edge_index, Tensor) or edge_index.is_inference():
        # An inference tensor has no version counter: nothing would tell that it was changed.
        return Graph._from(edge_index, sizes)
    key = (id(edge_index), num_sources, num_targets)
    plain = plain_tensor(edge_index)
    state = _state(plain)
    with _lock:
        entry = _recent.get(key)
        graph = None if entry is None else _same(entry, key, edge_index, plain, state)
    if graph is not None:
        return graph
    # Outside the lock: threads that load graphs do not wait for each other.
    graph = Graph._from(edge_index, sizes)
    with _lock:
        other = _recent.get(key)
        if other is not None and other is not entry:
            found = _same(other, key, edge_index, plain, state)
            if found is not None:
                return found
        _remember(key, edge_index, state, graph)
    return graph


def is_recent(edge_index: Tensor, graph: Graph) -> bool:
    """Whether ``graph_of`` has lately given this graph for the tensor."""
    entry = _recent.get((id(edge_index), graph.num_sources, graph.num_targets))
    return entry is not None and entry.graph is graph and entry.tensor() is edge_index


@run_as_it_is
def remember(edge_index: Tensor, graph: Graph) -> None:
    """Have ``graph_of`` give this graph for the tensor, whose edges are known to be the graph's."""
    _remember((id(edge_index), graph.num_sources, graph.num_targets), edge_index, _state(edge_index), graph)


@run_as_it_is
def grouped(index: Tensor, size: int) -> Graph:
    """The graph of the rows of some groups, which an aggregation takes: row n is an edge into node ``index[n]``.

    The one of ``remember_groups`` while the tensor is the same and unchanged.
    """
    return recall(index, _GROUPS, size) or Graph(torch.stack([index, index]), size)


@run_as_it_is
def remember_groups(index: Tensor, graph: Graph) -> None:
    """Have ``grouped`` give this graph for the tensor."""
    retain(index, _GROUPS, graph)


def recall(tensor: Tensor, mark: int, size: int) -> Graph | None:
    """The graph that was retained for a tensor, while this is the same and unchanged."""
    entry = _recent.get((id(tensor), mark, size))
    if entry is None or entry.tensor() is not tensor or entry.state != _state(tensor) or _written_elsewhere(tensor):
        return None
    return entry.graph


def retain(tensor: Tensor, mark: int, graph: Graph) -> None:
    """Have ``recall`` give this graph for the tensor. ``mark`` says what is made of it, by a number below 0."""
    _remember((id(tensor), mark, graph.num_targets), tensor, _state(tensor), graph)


# In place of a number of source nodes, in the key of a graph of groups.
_GROUPS = -1


def _remember(key: _Key, tensor: Tensor, state: tuple[Any, ...], graph: Graph) -> None:
    entry = _Recent(weakref.ref(tensor, lambda _: _recent.pop(key, None)), state, graph)
    with _lock:
        _recent[key] = entry
        _recent.move_to_end(key)
        while len(_recent) > RECENT:
            _recent.popitem(last=False)


def _same(entry: _Recent, key: _Key, edge_index: Tensor, plain: Tensor, state: tuple[Any, ...]) -> Graph | None:
    """The graph that was made of the tensor, if it was and still is right."""
    if entry.tensor() is not edge_index or entry.state != state:
        return None
    if _written_elsewhere(plain) and not torch.equal(plain.long(), entry.graph.edge_index):
        return None
    _recent.move_to_end(key)
    return entry.graph


def _state(tensor: Tensor) -> tuple[Any, ...]:
    return tensor._version, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype


def _written_elsewhere(tensor: Tensor) -> bool:
    # torch marks a storage as not resizable when NumPy, a file mapping or a buffer shares its memory.
    return tensor.is_cpu and (tensor.is_shared() or not tensor.untyped_storage().resizable())


def _after_fork() -> None:
    global _lock, _part_locks
    # Another thread may have held a lock when the process was forked: it does not live on in the child.
    _lock = threading.RLock()
    _part_locks = [threading.RLock() for _ in _part_locks]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
