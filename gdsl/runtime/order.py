"""The edges of a graph by the node at one end, and how their rows are shared out; made by torch.

:mod:`gdsl.runtime.prepare` makes the same in native code for graphs on a CPU; this is what it is compared with, what
serves where there is no compiler, and what runs on other devices, where nothing here waits for a result.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gdsl.codegen.notation import power_of_two
from gdsl.codegen.schedule import (
    BLOCK_WORK,
    CHUNK_EDGES,
    GPU_CHUNK_EDGES,
    GPU_HUB_EDGES,
    GPU_HUB_MEANS,
    HUB_EDGES,
    MAX_BLOCKS,
)
from gdsl.runtime.dtypes import CPU
from gdsl.runtime.spans import row_numbers, rows_of
from gdsl.runtime.transforms import ordinary

INT32_MAX = 2**31 - 1


@dataclass(frozen=True, eq=False)
class Degrees:
    """The rows of an order as GPU kernels take them.

    rows         [K]      all but hubs, most edges first: neighbours have about as many
    hubs         [H]      rows with very many edges: see :mod:`gdsl.codegen.schedule`
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

    @cached_property
    def num_hubs(self) -> int:
        return self.hubs.numel()

    @cached_property
    def num_chunks(self) -> int:
        return self.owner.numel()


class Tables(NamedTuple):
    """What a kernel of a GPU is passed of a graph: tensors and numbers, and as ``numbers`` the addresses of tensors."""

    values: tuple[Tensor | int, ...]
    numbers: tuple[int, ...]


def tables(*values: Tensor | int) -> Tables:
    return Tables(values, tuple([v if isinstance(v, int) else v.data_ptr() for v in values]))


class Schedule(NamedTuple):
    """How the threads of a CPU share the rows of an order: see :class:`Order`."""

    blocks: Tensor
    max_degree: int
    hubs: Tensor
    chunks: Tensor
    num_blocks: int
    has_hubs: bool


def to_send(value: Tensor) -> Tensor:
    """A copy for another process. What multiprocessing sends it moves into memory that both share, and native code
    knows the address of what stays here."""
    return value.clone() if value.is_cpu and not value.is_shared() else value


class Order:
    """The edges sorted by the node at one end, in the order of their ids within a node ("row"). Immutable.

    rowptr  [rows + 1]  edges ``rowptr[r]`` to ``rowptr[r + 1]`` of this order belong to row ``r``
    index   [E]         the node at the other end
    edge    [E]         the id of the edge in ``edge_index``

    What kernels of a CPU read besides is made when it is first asked for, if it was not ``given``:

    blocks  [B + 1]     int64 row boundaries of B blocks of about equal work, the same on every machine
    max_degree          the most edges that any row has
    hubs    [H]         int64 rows with more than HUB_EDGES edges, which all threads walk together
    chunks  [H + 1]     int64, the edges of hub h are cut into chunks[h + 1] - chunks[h] chunks
    """

    def __init__(self, rowptr: Tensor, index: Tensor, edge: Tensor, given: Schedule | None = None):
        self.rowptr, self.index, self.edge = rowptr, index, edge
        if given is not None:
            self.schedule = given
            self.blocks, self.max_degree, self.hubs, self.chunks, self.num_blocks, self.has_hubs = given

    @cached_property
    def schedule(self) -> Schedule:
        return _schedule(self.rowptr)

    @cached_property
    def blocks(self) -> Tensor:
        return self.schedule.blocks

    @cached_property
    def max_degree(self) -> int:
        return self.schedule.max_degree

    @cached_property
    def hubs(self) -> Tensor:
        return self.schedule.hubs

    @cached_property
    def chunks(self) -> Tensor:
        return self.schedule.chunks

    @cached_property
    def num_blocks(self) -> int:
        return self.schedule.num_blocks

    @cached_property
    def has_hubs(self) -> bool:
        return self.schedule.has_hubs

    @cached_property
    def addresses(self) -> tuple[int, ...]:
        """What native code is told of the order: ``EdgeOrder`` in layout.cpp."""
        found = (self.rowptr, self.index, self.edge, self.blocks)
        return (*(t.data_ptr() for t in found), self.num_blocks, self.max_degree)

    @property
    def memory(self) -> tuple[Tensor, ...]:
        """What the addresses lie in."""
        return self.rowptr, self.index, self.edge, self.blocks

    @property
    def walk(self) -> tuple[Tensor, ...]:
        """What kernels that walk edges are passed."""
        return self.rowptr, self.index, self.edge

    @cached_property
    def lengths(self) -> Tensor:
        """[rows] how many edges each row has."""
        return self.rowptr.diff()

    @cached_property
    def degrees(self) -> Degrees:
        return _degrees(self.lengths, self.edge.numel())

    @cached_property
    def short_rows(self) -> Tables:
        """All rows but hubs, how many, and the edges."""
        rows = self.degrees.rows
        return tables(rows, rows.numel(), *self.walk)

    @cached_property
    def all_rows(self) -> Tables:
        """All rows, how many, and the edges."""
        rows = self.degrees.all
        return tables(rows, rows.numel(), *self.walk)

    @cached_property
    def hub_rows(self) -> Tables:
        """The hubs, their chunks, how many, and the edges."""
        degrees = self.degrees
        return tables(degrees.hubs, degrees.first_chunk, degrees.owner, degrees.num_chunks, *self.walk)

    def __reduce__(self) -> tuple[Any, ...]:
        given = self.__dict__.get("schedule")
        if given is not None:
            given = given._replace(blocks=to_send(given.blocks))
        return Order, (to_send(self.rowptr), to_send(self.index), to_send(self.edge), given)


class PackedOrder(Order):
    """The order of a small graph in one piece of memory: kernels take addresses, tensors are made for who else asks.

    memory  int64: room for ``bounds`` of blocks, then rowptr, index and edge in an index ``dtype``
    listed  the nodes at the other end, where they need not be sorted, and are not in memory
    """

    def __init__(self, dtype: torch.dtype, bounds: int, rows: int, count: int, listed: Tensor | None):
        # Each part begins where a GPU reads 16 bytes at once: such an order may be copied there.
        size, wide = dtype.itemsize, 16 // dtype.itemsize
        bounds += bounds % 2
        index = _rounded_up(rows + 1, wide)
        edge = index + (0 if listed is not None else _rounded_up(count, wide))
        self._memory = torch.empty(bounds + (size * (edge + count) + 7) // 8, dtype=torch.int64, device=CPU)
        self._index, self._edge = index, edge
        self._dtype, self._bounds, self._rows, self._count, self._listed = dtype, bounds, rows, count, listed
        self.has_hubs = False
        blocks = self._memory.data_ptr()
        rowptr = blocks + 8 * bounds
        at_index = rowptr + size * index if listed is None else listed.data_ptr()
        self.places = rowptr, at_index, rowptr + size * edge, blocks

    def fill(self, num_blocks: int, max_degree: int) -> None:
        """Note what the order has, once it lies in memory."""
        self.num_blocks, self.max_degree = num_blocks, max_degree
        self.addresses = (*self.places, num_blocks, max_degree)

    @property
    def memory(self) -> tuple[Tensor, ...]:
        return (self._memory,) if self._listed is None else (self._memory, self._listed)

    def _part(self, first: int, count: int) -> Tensor:
        return ordinary(lambda: self._memory[self._bounds :].view(self._dtype)[first : first + count])

    @cached_property
    def rowptr(self) -> Tensor:  # type: ignore[override]
        return self._part(0, self._rows + 1)

    @cached_property
    def index(self) -> Tensor:  # type: ignore[override]
        return self._part(self._index, self._count) if self._listed is None else self._listed

    @cached_property
    def edge(self) -> Tensor:  # type: ignore[override]
        return self._part(self._edge, self._count)

    @cached_property
    def schedule(self) -> Schedule:
        blocks = self._memory[: self.num_blocks + 1]
        return Schedule(blocks, self.max_degree, *no_hubs(), self.num_blocks, False)

    def __reduce__(self) -> tuple[Any, ...]:
        given = self.schedule._replace(blocks=to_send(self.schedule.blocks))
        return Order, (to_send(self.rowptr), to_send(self.index), to_send(self.edge), given)


def _rounded_up(count: int, unit: int) -> int:
    return -(-count // unit) * unit


@cache
def no_hubs() -> tuple[Tensor, Tensor]:
    """Shared by all orders without hubs. Nothing writes to the tensors of an order."""
    return torch.empty(0, dtype=torch.int64, device=CPU), torch.zeros(1, dtype=torch.int64, device=CPU)


class Facts(NamedTuple):
    """What a look at a list of edges finds out: edges j -> j, and whether it is sorted by source and by target."""

    loops: int
    by_source: bool
    by_target: bool

    def reversed(self) -> Facts:
        return Facts(self.loops, self.by_target, self.by_source)


class EdgeEnds(NamedTuple):
    """The edges of a graph as they are sorted: those of a list, without its loops or with a loop a node, or both.

    listed  [2, L] int32 or int64
    facts   of the list
    drop    whether loops are left out
    added   how many of the first nodes are given a loop each, which come after all others
    """

    listed: Tensor
    facts: Facts
    drop: bool = False
    added: int = 0

    @property
    def kept(self) -> int:
        """Edges of the list that are not left out."""
        return self.listed.shape[1] - (self.facts.loops if self.drop else 0)

    @property
    def num_edges(self) -> int:
        return self.kept + self.added

    @property
    def is_list(self) -> bool:
        """Whether the edges are just those of the list."""
        return not self.added and not (self.drop and self.facts.loops)


def index_dtype(sources: int, targets: int, edges: int) -> torch.dtype:
    """int32 when every count fits in it, else int64."""
    return torch.int32 if sources <= INT32_MAX and targets <= INT32_MAX and edges <= INT32_MAX else torch.int64


def is_loop(edges: EdgeEnds) -> Tensor:
    """[L] bool"""
    return edges.listed[0] == edges.listed[1]


def kept_ids(edges: EdgeEnds) -> Tensor:
    """[K] int64: the ids of the edges of the list that are not left out."""
    return torch.nonzero_static(~is_loop(edges), size=edges.kept).squeeze(1)


def last_loops(edges: EdgeEnds) -> Tensor:
    """[added] int64: the last loop of the list at each node that is given one, or -1."""
    listed, found = edges.listed, edges.listed.new_full((edges.added,), -1, dtype=torch.int64)
    ids = torch.nonzero_static(is_loop(edges), size=edges.facts.loops).squeeze(1)
    # The largest id, not the last write, which is a matter of chance where nodes have several loops.
    return found.scatter_reduce_(0, listed[1].index_select(0, ids).long(), ids, "amax")


def listed(edges: EdgeEnds) -> Tensor:
    """[2, E] int32 or int64: the edges written out."""
    found = edges.listed
    if edges.drop and edges.facts.loops:
        found = found.index_select(1, kept_ids(edges))
    if edges.added:
        own = torch.arange(edges.added, device=found.device, dtype=found.dtype)
        found = torch.cat([found, own.expand(2, -1)], dim=1)
    return found


def sort(edges: EdgeEnds, end: int, rows: int, dtype: torch.dtype) -> Order:
    """The edges by source (``end=0``) or by target (``end=1``)."""
    ends = listed(edges).to(dtype)
    row, index = ends[end], ends[1 - end]
    if not edges.added and (edges.facts.by_target if end else edges.facts.by_source):
        edge = torch.arange(row.numel(), device=row.device, dtype=dtype)
        # Kernels of a GPU take it that all of an order lies on 16 bytes, which one end of a list need not.
        index = index.clone() if index.data_ptr() & 15 else index
    else:
        row, permutation = torch.sort(row, stable=True)
        index, edge = index.index_select(0, permutation), permutation.to(dtype)
    bounds = torch.arange(rows + 1, device=row.device, dtype=dtype)
    # Searched, not counted: bincount waits for the largest row.
    return Order(torch.searchsorted(row, bounds, out_int32=dtype == torch.int32), index, edge)


def looped(rowptr: Tensor, index: Tensor, edge: Tensor, added: int) -> tuple[Tensor, Tensor, Tensor]:
    """``rowptr``, ``index`` and ``edge`` with one loop more at the end of each of the first rows."""
    count, rows = len(edge), len(rowptr) - 1
    number = torch.arange(rows + 1, device=rowptr.device, dtype=rowptr.dtype)
    more = number.clamp(max=added)
    new_rowptr, own = rowptr + more, number[:added]
    place = torch.arange(count, device=rowptr.device) + more[:-1].repeat_interleave(rowptr.diff(), output_size=count)
    last = (new_rowptr[1 : added + 1] - 1).long()
    new_index, new_edge = index.new_empty(count + added), edge.new_empty(count + added)
    for found, part, loop in ((new_index, index, own), (new_edge, edge, own + count)):
        found.index_copy_(0, place, part).index_copy_(0, last, loop.to(part.dtype))
    return new_rowptr, new_index, new_edge


def reversed_edges(rowptr: Tensor, index: Tensor, edge: Tensor) -> Tensor:
    """[E] for each edge j -> i the id of the edge i -> j, or -1; of parallel edges the k-th has the k-th. They come by
    target, of as many nodes as there are sources."""
    index, rows, target = index.long(), rowptr.shape[0] - 1, rows_of(rowptr, len(edge))
    # The edges by target, source and id: those between the same two nodes lie together, in the order of their ids.
    there, by_both = torch.sort(target * rows + index, stable=True)
    back = (index * rows + target)[by_both]
    rank = torch.arange(len(edge), device=edge.device) - torch.searchsorted(there, there)
    place = torch.searchsorted(there, back) + rank
    inside = place.clamp(max=max(len(edge) - 1, 0))
    found = torch.where((place < len(edge)) & (there[inside] == back), edge[by_both[inside]], -1)
    return torch.empty_like(edge).index_copy_(0, edge[by_both].long(), found.to(edge.dtype))


def _schedule(rowptr: Tensor) -> Schedule:
    degree, bounds = rowptr.diff(), blocks(rowptr)
    hubs, chunks = _hubs(degree)
    longest = int(degree.max()) if degree.numel() else 0
    return Schedule(bounds, longest, hubs, chunks, len(bounds) - 1, len(hubs) > 0)


def _hubs(degree: Tensor) -> tuple[Tensor, Tensor]:
    """The rows with too many edges for one thread, and where the chunks of each begin."""
    hubs = (degree > HUB_EDGES).nonzero().flatten()
    counts = (degree[hubs].long() + CHUNK_EDGES - 1) // CHUNK_EDGES
    return hubs, torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def _degrees(degree: Tensor, edges: int) -> Degrees:
    longest, by_degree = torch.sort(degree, descending=True, stable=True)
    mean = mean_degree(edges, degree.numel())
    least = max(GPU_HUB_EDGES, GPU_HUB_MEANS * mean) + 1
    hubs, most = 0, edges // least  # rows that can be hubs
    if most:
        # The one wait, where there is one; the host goes on with what is not many.
        long = longest[:most].cpu()
        counts = (long[long >= least].long() + GPU_CHUNK_EDGES - 1) // GPU_CHUNK_EDGES
        hubs = counts.numel()
    rows = by_degree[hubs:].to(degree.dtype, copy=True)
    if not hubs:
        return Degrees(rows, rows[:0], *no_chunks(degree.device), power_of_two(mean))
    owner = row_numbers(counts)
    # Moved together, both on 16 bytes.
    zeros, end = counts.new_zeros(1), hubs + 1
    moved = torch.cat([zeros, counts.cumsum(0), *[zeros] * (end % 2), owner]).to(degree.device)
    first, owner = moved[:end], moved[end + end % 2 :]
    return Degrees(rows, by_degree[:hubs].to(degree.dtype, copy=True), first, owner, power_of_two(mean))


@cache
def no_chunks(device: torch.device) -> tuple[Tensor, Tensor]:
    """Shared by all orders without hubs."""
    none = ordinary(lambda: torch.zeros(1, dtype=torch.int64, device=device))
    return none, none[:0]


def mean_degree(edges: int, rows: int) -> int:
    """Edges a row, rounded up."""
    return -(-edges // max(1, rows))


def blocks(rowptr: Tensor) -> Tensor:
    """[B + 1] row boundaries such that each block has about as many edges and rows as any other.

    A row is never split, and a hub is no work here: where a row has more of it than a block's share, there are fewer
    blocks.
    """
    degree = rowptr.diff()
    return shared_out(torch.where(degree > HUB_EDGES, 0, degree).long() + 1)


def shared_out(work: Tensor) -> Tensor:
    """[B + 1] row boundaries of blocks that share out the work [rows] int64, of which no row has none."""
    upto = torch.cat([work.new_zeros(1), work.cumsum(0)])
    total = int(upto[-1])
    count = max(1, min(MAX_BLOCKS, total // BLOCK_WORK, len(work)))
    shares = torch.arange(count + 1, device=work.device) * total // count
    return torch.searchsorted(upto, shares).unique_consecutive()
