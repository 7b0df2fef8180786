"""A graph that is checked once and sorted once, and then read by every kernel, layer and pass."""

from __future__ import annotations

import operator
import os
import threading
import weakref
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from gdsl.errors import GraphError
from gdsl.passes.options import GraphShape
from gdsl.runtime.formats import Sizes, edge_list, plain_tensor, sizes_of
from gdsl.runtime.schedule import (
    BLOCK_WORK,
    CHUNK_EDGES,
    GPU_CHUNK_EDGES,
    GPU_HUB_EDGES,
    GPU_HUB_MEANS,
    HUB_EDGES,
    MAX_BLOCKS,
)
from gdsl.runtime.transforms import concrete
from gdsl.tracers import run_as_it_is

Size = int | tuple[int, int] | None

INT32_MAX = 2**31 - 1

# One lock for every lazily made part of every graph, so that graphs hold no lock, which could not be pickled.
_lock = threading.RLock()


@dataclass(frozen=True, eq=False)
class Degrees:
    """The rows of an order as GPU kernels take them.

    rows         [K]      all but hubs, most edges first: neighbours have about as many
    hubs         [H]      rows with very many edges: see :mod:`gdsl.runtime.schedule`
    first_chunk  [H + 1]  int64: hub h has chunks ``first_chunk[h]`` to ``first_chunk[h + 1]``
    owner        [C]      int64: the hub of each chunk
    typical      edges a row, about: the mean, rounded up to a power of two
    """

    rows: Tensor
    hubs: Tensor
    first_chunk: Tensor
    owner: Tensor
    typical: int

    @cached_property
    def all(self) -> Tensor:
        """All rows, most edges first."""
        return torch.cat([self.hubs, self.rows])


@dataclass(frozen=True, eq=False)
class Order:
    """The edges sorted by the node at one end, in the order of their ids within a node ("row").

    rowptr  [rows + 1]  edges ``rowptr[r]`` to ``rowptr[r + 1]`` of this order belong to row ``r``
    index   [E]         the node at the other end
    edge    [E]         the id of the edge in ``edge_index``
    blocks  [B + 1]     int64 row boundaries of B blocks of about equal work, the same on every machine
    max_degree          the most edges that any row has
    hubs    [H]         int64 rows with more than HUB_EDGES edges, which all threads walk together
    chunks  [H + 1]     int64, the edges of hub h are cut into chunks[h + 1] - chunks[h] chunks
    """

    rowptr: Tensor
    index: Tensor
    edge: Tensor
    blocks: Tensor
    max_degree: int
    hubs: Tensor
    chunks: Tensor

    @cached_property
    def num_blocks(self) -> int:
        return len(self.blocks) - 1

    @cached_property
    def has_hubs(self) -> bool:
        return len(self.hubs) > 0

    @cached_property
    def degrees(self) -> Degrees:
        return _degrees(self.rowptr)


@dataclass(frozen=True, slots=True, eq=False)
class Rewired:
    """A graph made from another by removing and adding self-loops.

    graph      the new graph: first the kept edges, then one loop for each added node
    kept       [K] ids of the original edges that were kept, in order; None when all were
    added      [L] nodes that were given a loop, in order; None when none was
    loop_edge  [L] the last original loop of each added node, or -1; only from ``add_remaining_self_loops``
    target     [E] the target of each original edge
    """

    graph: Graph
    kept: Tensor | None
    added: Tensor | None
    loop_edge: Tensor | None
    target: Tensor


class Graph:
    """A directed graph, or a bipartite one. Immutable.

    ``edge_index`` is an integer tensor [2, E]: row 0 the source j, row 1 the target i of each edge j -> i.
    It is copied, so that writing to the original later cannot make the graph wrong. ``num_nodes`` is a
    number, a pair (num_sources, num_targets) for a bipartite graph, or None for what a torch_geometric ``EdgeIndex``
    tells, or else the largest index plus one.

    edge_index   [2, E] int64, a private copy: not to be written to
    num_sources, num_targets, num_edges, device
    edge_weight  [E, ...] the values of the sparse matrix that the graph was made from, or None

    Raises ``GraphError`` for a wrong dtype or shape and for indices out of range, with the first bad edge.
    """

    def __init__(self, edge_index: Tensor, num_nodes: Size = None):
        self._read(edge_index, _check_sizes(num_nodes))

    def _read(self, edge_index: Tensor, sizes: Sizes | None) -> None:
        """The graph of edges that are yet to be checked; a size that is None is told by them."""
        _check_edge_index(edge_index)
        sizes = _agreed(sizes_of(edge_index), sizes)
        edge_index = concrete(edge_index, "edge_index")
        # A tensor made in inference mode cannot be saved for a backward pass, and this one will be.
        with torch.inference_mode(False), torch.no_grad():
            plain = plain_tensor(edge_index)
            copy = plain.to(torch.int64, copy=True, memory_format=torch.contiguous_format)
            self._setup(copy, _check_range(copy, sizes), None)

    @classmethod
    def _of(cls, edge_index: Tensor, sizes: tuple[int, int], weight: Tensor | None = None) -> Graph:
        """From parts that are known to be right."""
        graph = cls.__new__(cls)
        graph._setup(edge_index, sizes, weight)
        return graph

    @classmethod
    def _from(cls, edge_index: Tensor, sizes: Sizes | None) -> Graph:
        """From edges that are yet to be checked."""
        graph = cls.__new__(cls)
        graph._read(edge_index, sizes)
        return graph

    def _setup(self, edge_index: Tensor, sizes: tuple[int, int], weight: Tensor | None) -> None:
        self.edge_index = edge_index
        self.num_sources, self.num_targets = sizes
        self.num_edges: int = edge_index.shape[1]
        self.edge_weight = weight
        self._made: dict[str, Any] = {}

    @classmethod
    def from_any(cls, obj: Any, num_nodes: Size = None) -> Graph:
        """The graph that ``obj`` holds: a Graph (returned as it is), a tensor [2, E], a torch_geometric
        Data, or one of the sparse matrices and graphs of ``gdsl.runtime.formats.edge_list``, whose values
        become ``edge_weight``.

        Raises ``GraphError`` for what no graph can be made from, or whose size is not ``num_nodes``.
        """
        if isinstance(obj, Graph):
            _agreed(obj._sizes, _check_sizes(num_nodes))
            return obj
        edges = edge_list(obj)
        graph = cls._from(edges.edge_index, _agreed(edges.sizes, _check_sizes(num_nodes)))
        graph.edge_weight = edges.weight
        return graph

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

    @property
    def device(self) -> torch.device:
        return self.edge_index.device

    @cached_property
    def index_dtype(self) -> torch.dtype:
        """int32 when every count fits in it, else int64: the dtype of ``Order`` and ``position``."""
        return _index_dtype(self.num_sources, self.num_targets, self.num_edges)

    @property
    def in_edges(self) -> Order:
        """The edges by target: row i lists the edges into i."""
        return self._make("in_edges", lambda: _sort(self, end=1))

    @property
    def out_edges(self) -> Order:
        """The edges by source: row j lists the edges out of j."""
        return self._make("out_edges", lambda: _sort(self, end=0))

    @property
    def in_degree(self) -> Tensor:
        """[num_targets] int64"""
        return self._make("in_degree", lambda: self.in_edges.rowptr.diff().long())

    @property
    def out_degree(self) -> Tensor:
        """[num_sources] int64"""
        return self._make("out_degree", lambda: self.out_edges.rowptr.diff().long())

    def degree(self, which: str, dtype: torch.dtype) -> Tensor:
        """The ``in_degree`` or ``out_degree`` as numbers of a dtype, made once."""
        return self._make(f"{which} {dtype}", lambda: getattr(self, which).to(dtype))

    @cached_property
    def shape(self) -> GraphShape:
        """The sizes that the cost model sees."""
        return GraphShape.of(self.num_sources, self.num_targets, self.num_edges, self.device.type)

    @property
    def position(self) -> Tensor:
        """[E] the rank of each edge, by its id, among the edges into its target."""
        return self._make("position", self._position)

    def _position(self) -> Tensor:
        order = self.in_edges
        first = order.rowptr[:-1].repeat_interleave(self.in_degree, output_size=self.num_edges)
        rank = torch.arange(self.num_edges, device=self.device, dtype=self.index_dtype) - first
        return torch.empty_like(rank).index_copy_(0, order.edge.long(), rank)

    def remove_self_loops(self) -> Rewired:
        """Without the edges j -> j."""
        return self._make("remove_self_loops", lambda: self._rewire(loops=False))

    def add_self_loops(self) -> Rewired:
        """With exactly one loop at each node: those that exist are removed, and one a node is appended in
        order.

        A bipartite graph has a loop for each of its first min(num_sources, num_targets) nodes.
        """
        return self._make("add_self_loops", lambda: self._rewire(loops=True))

    def add_remaining_self_loops(self) -> Rewired:
        """The same edges as ``add_self_loops``; ``loop_edge`` says which original loop each of them
        replaces."""
        return self._make("add_remaining_self_loops", lambda: self._rewire(loops=True, remaining=True))

    def _rewire(self, *, loops: bool, remaining: bool = False) -> Rewired:
        source, target = self.edge_index
        is_loop = source == target
        kept = (~is_loop).nonzero().squeeze(1) if bool(is_loop.any()) else None
        count = min(self._sizes) if loops else 0
        added = torch.arange(count, device=self.device) if count else None

        loop_edge = None
        if remaining and added is not None:
            ids = is_loop.nonzero().squeeze(1)
            # The largest id, not the last write, which is a matter of chance where nodes have several loops.
            loop_edge = torch.full_like(added, -1).scatter_reduce_(0, target[ids], ids, "amax")

        edge_index = self.edge_index if kept is None else self.edge_index.index_select(1, kept)
        if added is not None:
            edge_index = torch.cat([edge_index, added.expand(2, -1)], dim=1)
        graph = Graph._of(edge_index, self._sizes)
        return Rewired(graph, kept, added, loop_edge, target)

    def reverse(self) -> Graph:
        """The graph with every edge turned round, in the same order. Turning it twice gives the first one back."""
        return self._make("reverse", self._reverse)

    def _reverse(self) -> Graph:
        graph = Graph._of(self.edge_index.flip(0), (self.num_targets, self.num_sources), self.edge_weight)
        graph._made["reverse"] = self
        return graph

    def repeat(self, times: int) -> Graph:
        """So many copies of the graph side by side, as one graph. Edge values are not carried over."""
        return self._make(f"repeat {times}", lambda: self._repeat(times))

    def _repeat(self, times: int) -> Graph:
        first = torch.arange(times, device=self.device) * torch.tensor(self._sizes, device=self.device).view(2, 1)
        edge_index = (self.edge_index.unsqueeze(1) + first.unsqueeze(2)).flatten(1)
        return Graph._of(edge_index, (times * self.num_sources, times * self.num_targets))

    def to(self, device: torch.device | str | int) -> Graph:
        """The same graph on another device; itself if it is there."""
        moved = self.edge_index.to(device)
        if moved is self.edge_index:
            return self
        weight = None if self.edge_weight is None else self.edge_weight.to(device)
        return Graph._of(moved, self._sizes, weight)

    @property
    def _sizes(self) -> tuple[int, int]:
        return self.num_sources, self.num_targets

    def _make(self, name: str, make: Any) -> Any:
        """What ``make()`` gives, made once."""
        made = self._made.get(name)
        if made is None:
            with _lock, torch.inference_mode(False), torch.no_grad():
                made = self._made.get(name)
                if made is None:
                    made = self._made[name] = make()
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        # The sorted orders are made again where they are needed: they are larger than the edges.
        return _restore, (self.edge_index, self._sizes, self.edge_weight)

    def __repr__(self) -> str:
        if self.is_bipartite:
            size = f"num_sources={self.num_sources}, num_targets={self.num_targets}"
        else:
            size = f"num_nodes={self.num_targets}"
        device = "" if self.device.type == "cpu" else f", device='{self.device}'"
        return f"Graph({size}, num_edges={self.num_edges}{device})"


def _restore(edge_index: Tensor, sizes: tuple[int, int], weight: Tensor | None) -> Graph:
    graph = Graph(edge_index, sizes)
    graph.edge_weight = weight
    return graph


def _index_dtype(*counts: int) -> torch.dtype:
    return torch.int32 if max(counts) <= INT32_MAX else torch.int64


def _sort(graph: Graph, end: int) -> Order:
    """The edges by source (``end=0``) or by target (``end=1``)."""
    dtype = graph.index_dtype
    rows = graph._sizes[end]
    row, permutation = torch.sort(graph.edge_index[end].to(dtype), stable=True)
    rowptr = torch.zeros(rows + 1, dtype=dtype, device=graph.device)
    torch.cumsum(torch.bincount(row, minlength=rows), 0, dtype=dtype, out=rowptr[1:])
    index = graph.edge_index[1 - end].to(dtype).index_select(0, permutation)
    degree = rowptr.diff()
    max_degree = int(degree.max()) if rows else 0
    hubs, chunks = _hubs(degree)
    return Order(rowptr, index, permutation.to(dtype), _blocks(rowptr), max_degree, hubs, chunks)


def _hubs(degree: Tensor) -> tuple[Tensor, Tensor]:
    """The rows with too many edges for one thread, and where the chunks of each begin."""
    hubs = (degree > HUB_EDGES).nonzero().flatten()
    counts = (degree[hubs].long() + CHUNK_EDGES - 1) // CHUNK_EDGES
    return hubs, torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def _degrees(rowptr: Tensor) -> Degrees:
    degree = rowptr.diff()
    by_degree = torch.sort(degree, descending=True, stable=True).indices
    mean = -(-int(rowptr[-1]) // max(1, degree.numel()))
    num_hubs = int((degree > max(GPU_HUB_EDGES, GPU_HUB_MEANS * mean)).sum())
    hubs = by_degree[:num_hubs]
    counts = (degree[hubs].long() + GPU_CHUNK_EDGES - 1) // GPU_CHUNK_EDGES
    first = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    owner = torch.repeat_interleave(torch.arange(num_hubs, device=rowptr.device), counts)
    typical = 1 << max(0, mean - 1).bit_length()
    return Degrees(by_degree[num_hubs:].to(rowptr.dtype), hubs.to(rowptr.dtype), first, owner, typical)


def _blocks(rowptr: Tensor) -> Tensor:
    """[B + 1] row boundaries such that each block has about as many edges and rows as any other.

    A row is never split, and a hub is no work here: where a row has more of it than a block's share, there are fewer
    blocks.
    """
    rows = rowptr.numel() - 1
    degree = rowptr.diff()
    work = torch.arange(rows + 1, device=rowptr.device)
    work[1:] += torch.where(degree > HUB_EDGES, 0, degree).long().cumsum(0)
    total = int(work[-1])
    count = max(1, min(MAX_BLOCKS, total // BLOCK_WORK, rows))
    shares = torch.arange(count + 1, device=rowptr.device) * total // count
    return torch.searchsorted(work, shares).unique_consecutive()


def rewire_edge_value(rewired: Rewired, value: Tensor, fill: float | Tensor | str) -> Tensor:
    """The values of the new graph's edges from the values [E, ...] of the old one's. Differentiable.

    A new loop gets ``fill``: a number, a tensor that broadcasts to one value [...], or the ``"sum"`` (also
    ``"add"``), ``"mean"``, ``"max"``, ``"min"`` or ``"mul"`` of the values that come into its node, as in
    torch_geometric (0 for a node without any, 1 for ``"mul"``). After ``add_remaining_self_loops`` a loop
    that was there keeps its value.

    Raises ``GraphError`` for a value of another number of edges, or an unknown name.
    """
    num_edges = rewired.target.numel()
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
        fill = torch.as_tensor(fill, dtype=value.dtype, device=value.device)
        loops = fill.expand(rewired.added.numel(), *value.shape[1:])
    if rewired.loop_edge is not None and num_edges:
        existing = value.index_select(0, rewired.loop_edge.clamp(min=0))
        missing = (rewired.loop_edge < 0).view(-1, *[1] * (value.dim() - 1))
        loops = torch.where(missing, loops, existing)
    return torch.cat([kept, loops])


def _reduce(value: Tensor, target: Tensor, rows: int, how: str) -> Tensor:
    """[rows, ...] from [E, ...]"""
    shape = (rows, *value.shape[1:])
    if how in ("sum", "add"):
        return value.new_zeros(shape).index_add(0, target, value)
    if how == "mean":
        count = torch.bincount(target, minlength=rows).clamp(min=1).to(value.dtype)
        return value.new_zeros(shape).index_add(0, target, value) / count.view(-1, *[1] * (value.dim() - 1))
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
    shape = list(edge_index.shape)
    if edge_index.layout != torch.strided:
        raise GraphError("edge_index is a sparse tensor; make the graph with gdsl.Graph.from_any(...)")
    if edge_index.dim() != 2 or shape[0] != 2:
        hint = "; pass edge_index.t()" if edge_index.dim() == 2 and shape[1] == 2 else ""
        raise GraphError(f"edge_index must have shape [2, E], but its shape is {shape}{hint}")
    if edge_index.dtype == torch.bool or edge_index.is_floating_point() or edge_index.is_complex():
        raise GraphError(
            f"edge_index must hold integers, but its dtype is {edge_index.dtype}; convert it with edge_index.long()"
        )


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


def _check_range(edge_index: Tensor, sizes: Sizes | None) -> tuple[int, int]:
    """The sizes. Without any, the largest index plus one is both; where one is known, that of the other row is the
    other. Only a bad graph is looked at again, for its first bad edge."""
    if edge_index.shape[1] == 0:
        known = sizes or (0, 0)
        return known[0] or 0, known[1] or 0
    extremes = [torch.stack(torch.aminmax(row)) for row in edge_index]
    (low_source, high_source), (low_target, high_target) = torch.stack(extremes).tolist()
    inferred = max(high_source, high_target) + 1
    told = sizes or (inferred, inferred)
    num_sources = high_source + 1 if told[0] is None else told[0]
    num_targets = high_target + 1 if told[1] is None else told[1]
    if low_source < 0 or low_target < 0 or high_source >= num_sources or high_target >= num_targets:
        raise GraphError(_bad_edge(edge_index, (num_sources, num_targets)))
    return num_sources, num_targets


def _bad_edge(edge_index: Tensor, sizes: tuple[int, int]) -> str:
    limit = torch.tensor(sizes, device=edge_index.device).unsqueeze(1)
    bad = (edge_index < 0) | (edge_index >= limit)
    edge = int(bad.any(dim=0).nonzero()[0])
    end = 0 if bool(bad[0, edge]) else 1
    node = int(edge_index[end, edge])
    start = f"edge {edge} {('comes from', 'goes to')[end]} node {node}"
    if node < 0:
        return f"{start}, but nodes are numbered from 0"
    kind = "nodes" if sizes[0] == sizes[1] else ("source nodes", "target nodes")[end]
    size = sizes[end]
    have = f"{size} {kind} (0 to {size - 1})" if size else f"no {kind}"
    return f"{start}, but the graph has {have}"


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


@dataclass(frozen=True, slots=True, eq=False)
class _Recent:
    tensor: weakref.ref[Tensor]
    state: tuple[Any, ...]
    graph: Graph


_recent: OrderedDict[tuple[int, int | None, int | None], _Recent] = OrderedDict()


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
        if (
            entry is not None
            and entry.tensor() is edge_index
            and entry.state == state
            and (not _written_elsewhere(plain) or torch.equal(plain.long(), entry.graph.edge_index))
        ):
            _recent.move_to_end(key)
            return entry.graph
        graph = Graph._from(edge_index, sizes)
        _recent[key] = _Recent(weakref.ref(edge_index, lambda _: _recent.pop(key, None)), state, graph)
        _recent.move_to_end(key)
        while len(_recent) > RECENT:
            _recent.popitem(last=False)
        return graph


def _state(tensor: Tensor) -> tuple[Any, ...]:
    return tensor._version, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype


def _written_elsewhere(tensor: Tensor) -> bool:
    # torch marks a storage as not resizable when NumPy, a file mapping or a buffer shares its memory.
    return tensor.is_cpu and (tensor.is_shared() or not tensor.untyped_storage().resizable())


def _after_fork() -> None:
    global _lock
    # Another thread may have held the lock when the process was forked: it does not live on in the child.
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
