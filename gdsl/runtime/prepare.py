"""Graphs made ready for kernels: by native code for tensors of a CPU, else by torch as in :mod:`gdsl.runtime.order`.

The native code is compiled once a machine, for a process's second graph. Until that is done, in a thread of its own,
and where it cannot be done, torch does the same work: both give the same numbers.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Callable
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gdsl.codegen.schedule import BLOCK_WORK, CHUNK_EDGES, HUB_EDGES, MAX_BLOCKS
from gdsl.errors import CacheError, CompilerError, GraphError
from gdsl.locks import Lock
from gdsl.runtime import cache as kernels
from gdsl.runtime import order as by_torch
from gdsl.runtime.dtypes import CPU
from gdsl.runtime.order import EdgeEnds, Facts, Order, PackedOrder, Schedule, index_dtype, no_hubs
from gdsl.runtime.spans import rows_of

Sizes = tuple[int, int]
ToldSizes = tuple[int | None, int | None]

NAME = "prepare"

_TYPES = {torch.int32: "int32", torch.int64: "int64"}
_NUMBERS = {torch.float32: "float32", torch.float64: "float64", torch.int64: "int64"}
_REALS = {torch.float32: "float", torch.float64: "double"}
_POINTER, _COUNT, _FLAG = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int

# Function -> the dtypes that it is for, one or two, and what it takes.
_INDEX, _PAIR, _DEGREE = (_TYPES,), (_TYPES, _TYPES), (_TYPES, _NUMBERS)
_FUNCTIONS: dict[str, tuple[tuple[dict[torch.dtype, str], ...], list[Any]]] = {
    "take": (_PAIR, [_POINTER, _POINTER, _COUNT, _COUNT, _COUNT, _POINTER, _POINTER, _FLAG]),
    "look": (_INDEX, [_POINTER, _POINTER, _COUNT, _POINTER, _FLAG]),
    "expand": (_PAIR, [_POINTER, _COUNT, _POINTER]),
    "order": (_INDEX, [_POINTER, _POINTER, *[_COUNT] * 4, _FLAG, *[_POINTER] * 7, _FLAG]),
    "looped": (_INDEX, [*[_POINTER] * 3, *[_COUNT] * 3, *[_POINTER] * 3]),
    "share": (_INDEX, [_POINTER, _COUNT, *[_POINTER] * 4]),
    "degree": (_DEGREE, [_POINTER, _COUNT, _POINTER]),
    "rewire": (_INDEX, [_POINTER, _POINTER, *[_COUNT] * 3, *[_POINTER] * 3]),
    "reversed": (_INDEX, [*[_POINTER] * 6, _COUNT, _COUNT, _POINTER, _POINTER]),
    "steps": ((_REALS, _TYPES), [_POINTER, ctypes.c_char_p]),
}


class Native:
    """The functions of prepare.cpp and steps.cpp, by the dtype or the pair of dtypes that they work on."""

    def __init__(self, library: ctypes.CDLL):
        made = (_by_dtypes(library, name, *about) for name, about in _FUNCTIONS.items())
        self.take, self.look, self.expand, self.order, self.looped, self.share, self.degree, *more = made
        self.rewire, self.reversed, self.steps = more


def _by_dtypes(
    library: ctypes.CDLL, name: str, dtypes: tuple[dict[torch.dtype, str], ...], takes: list[Any]
) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    for key in product(*dtypes):
        names = [names[dtype] for names, dtype in zip(dtypes, key, strict=True)]
        function = getattr(library, "_".join([name, *names]))
        function.argtypes, function.restype = takes, None
        found[key if len(key) > 1 else key[0]] = function
    return found


_native: Native | None = None
_lock = Lock()
_state = "untried"  # then "unbuilt", "building" and "there", or some of them, or "missing"


def native(*, wait: bool = False, another: bool = False) -> Native | None:
    """The native functions, or None where they are not there, or with ``wait=False`` not there yet.

    another: a graph is begun. The second one has them built: who has but one graph waits for no compiler, and leaves
             the processor to the compiler of its kernels.
    """
    if _native is not None or _state == "missing":
        return _native
    return _get(wait, another)


def _get(wait: bool, another: bool) -> Native | None:
    global _state
    with _lock:
        if _state == "untried":
            try:
                built = kernels.is_built(_source(), name=NAME)
            except (CompilerError, CacheError, OSError):
                _state = "missing"
                return None
            if built:
                wait = True
            else:
                _state = "unbuilt"
        elif _state == "unbuilt" and another and not wait:
            # Python waits for it before it ends, so that no process leaves the work to the next one.
            thread = threading.Thread(target=_load, name="gdsl-prepare", daemon=False)
            with contextlib.suppress(RuntimeError):  # there are no new threads while Python ends
                thread.start()
                _state = "building"
    if wait:
        _load()
    return _native


def _load() -> None:
    global _native, _state
    try:
        _native = Native(kernels.load(_source(), name=NAME))
        _state = "there"
    except (CompilerError, CacheError, OSError):
        _state = "missing"


@cache
def _source() -> str:
    # One library, since each is another start of the compiler.
    return "".join(Path(__file__).with_name(name).read_text() for name in ("layout.cpp", "prepare.cpp", "steps.cpp"))


def _after_fork() -> None:
    global _state
    # The thread that builds does not live on in the child.
    if _state == "building":
        _state = "unbuilt"


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


# -- a list of edges -------------------------------------------------------------------------------


def take(edge_index: Tensor, told: ToldSizes | None) -> tuple[EdgeEnds, Sizes]:
    """A private copy of the edges [2, E], and the sizes. Without any, the largest index plus one is both; where one is
    known, that of the other row is the other.

    Raises ``GraphError`` for an index out of range, with the first bad edge.
    """
    code = native(another=True) if edge_index.is_cpu else None
    if code is None:
        return _take_by_torch(edge_index, told)
    if edge_index.dtype not in _TYPES:
        edge_index = edge_index.long()
    if not edge_index.is_contiguous():
        edge_index = edge_index.contiguous()
    count = edge_index.shape[1]
    if told is None or None in told:
        sources, targets = told or (None, None)
        known = (-1 if sources is None else sources, -1 if targets is None else targets)
    else:
        known = told  # type: ignore[assignment]
    dtype = index_dtype(*known, count)
    copy, facts = _copied(code, edge_index, known, dtype)
    sizes = known if known is told else _completed(told, facts[1], facts[2])
    if facts[0] >= 0:
        raise GraphError(bad_edge(edge_index, facts[0], sizes))
    if known is not told and index_dtype(*sizes, count) is not dtype:
        copy, facts = _copied(code, edge_index, sizes, torch.int64)
    return EdgeEnds(copy, Facts(facts[3], facts[4] == 1, facts[5] == 1)), sizes


def _completed(told: ToldSizes | None, source: int, target: int) -> Sizes:
    """The sizes, from those that are known and the largest source and target."""
    if told is None:
        return (max(source, target) + 1,) * 2
    return (source + 1 if told[0] is None else told[0], target + 1 if told[1] is None else told[1])


def _copied(code: Native, edge_index: Tensor, sizes: Sizes, dtype: torch.dtype) -> tuple[Tensor, Any]:
    count = edge_index.shape[1]
    copy, facts = torch.empty((2, count), dtype=dtype, device=CPU), _Facts()
    source = edge_index.data_ptr()
    code.take[edge_index.dtype, dtype](
        source, source + count * edge_index.itemsize, count, *sizes, copy.data_ptr(), facts, torch.get_num_threads()
    )
    return copy, facts


def _take_by_torch(edge_index: Tensor, told: ToldSizes | None) -> tuple[EdgeEnds, Sizes]:
    count = edge_index.shape[1]
    if edge_index.dtype is not torch.int64:
        edge_index = edge_index.long()
    if count:
        least, most = torch.aminmax(edge_index, dim=1)
        rise = edge_index.diff(dim=1).amin(1) if count > 1 else most - most
        loops = (edge_index[0] == edge_index[1]).sum().view(1)
        found = torch.cat([least, most, rise, loops]).tolist()  # the one wait
    else:
        found = [0, 0, -1, -1, 0, 0, 0]
    low_source, low_target, high_source, high_target, by_source, by_target, num_loops = found
    sizes = _completed(told, high_source, high_target)
    if low_source < 0 or low_target < 0 or high_source >= sizes[0] or high_target >= sizes[1]:
        limit = torch.tensor(sizes, device=edge_index.device).unsqueeze(1)
        bad = ((edge_index < 0) | (edge_index >= limit)).any(dim=0)
        raise GraphError(bad_edge(edge_index, int(bad.nonzero()[0]), sizes))
    dtype = index_dtype(*sizes, count)
    copy = edge_index.to(dtype, copy=True, memory_format=torch.contiguous_format)
    return EdgeEnds(copy, Facts(num_loops, by_source >= 0, by_target >= 0)), sizes


def take_sorted(rowptr: Tensor, index: Tensor, end: int, sizes: Sizes | None) -> tuple[EdgeEnds, Sizes]:
    """Edges that come by row, targets (``end=1``) or sources (``end=0``), and the sizes; None for as many of both.

    Raises ``GraphError`` where the rows do not follow each other or a node is out of range.
    """
    rows, count = rowptr.numel() - 1, index.numel()
    if rowptr.dtype not in _TYPES:
        rowptr = rowptr.long()
    sizes = sizes or (rows, rows)
    if sizes[end] != rows:
        raise GraphError(f"there are {rows} rows, one less than row pointers, and {sizes[end]} {_NODES[end]} nodes")
    dtype = index_dtype(*sizes, count)
    looked = torch.stack([rowptr[0], rowptr[-1], (rowptr[1:] < rowptr[:-1]).any()]).long()
    extremes = torch.stack(torch.aminmax(index)).long() if count else looked.new_tensor((0, -1))
    first, last, falls, low, high = torch.cat([looked, extremes]).tolist()  # one wait
    if low < 0 or high >= sizes[1 - end]:
        edge = int(((index < 0) | (index >= sizes[1 - end])).nonzero()[0])
        raise GraphError(_bad_node(edge, 1 - end, int(index[edge]), sizes))
    if falls:
        row = int((rowptr[1:] < rowptr[:-1]).nonzero()[0])
        raise GraphError(f"row {row} ends at edge {int(rowptr[row + 1])}, before it begins at {int(rowptr[row])}")
    if first != 0 or last != count:
        raise GraphError(f"the rows must go from edge 0 to {count}, and they go from {first} to {last}")
    ends = torch.empty((2, count), dtype=dtype, device=index.device)
    ends[1 - end].copy_(index)
    code = native(another=True) if index.is_cpu else None
    if code is None:
        ends[end].copy_(rows_of(rowptr, count))
        return EdgeEnds(ends, Facts(int((ends[0] == ends[1]).sum()), end == 0, end == 1)), sizes
    code.expand[rowptr.dtype, dtype](rowptr.contiguous().data_ptr(), rows, ends[end].data_ptr())
    facts = _Facts()
    code.look[dtype](ends[0].data_ptr(), ends[1].data_ptr(), count, facts, torch.get_num_threads())
    return EdgeEnds(ends, Facts(facts[3], facts[4] == 1, facts[5] == 1)), sizes


_NODES = ("source", "target")


def bad_edge(edge_index: Tensor, edge: int, sizes: Sizes) -> str:
    """What is wrong with an edge one of whose ends is out of range."""
    source, target = edge_index[:, edge].tolist()
    end = 0 if not 0 <= source < sizes[0] else 1
    return _bad_node(edge, end, (source, target)[end], sizes)


def _bad_node(edge: int, end: int, node: int, sizes: Sizes) -> str:
    start = f"edge {edge} {('comes from', 'goes to')[end]} node {node}"
    if node < 0:
        return f"{start}, but nodes are numbered from 0"
    kind = "nodes" if sizes[0] == sizes[1] else f"{_NODES[end]} nodes"
    size = sizes[end]
    have = f"{size} {kind} (0 to {size - 1})" if size else f"no {kind}"
    return f"{start}, but the graph has {have}"


# -- an order --------------------------------------------------------------------------------------


def sort(edges: EdgeEnds, end: int, sizes: Sizes) -> Order:
    """The edges by source (``end=0``) or by target (``end=1``)."""
    listed, facts, drop, added = edges
    total, rows = listed.shape[1], sizes[end]
    kept = total - facts.loops if drop else total
    count = kept + added
    dtype = index_dtype(*sizes, count)
    code = native() if listed.is_cpu else None
    if code is None:
        return by_torch.sort(edges, end, rows, dtype)
    if listed.dtype is not dtype:
        listed = listed.to(dtype)
    in_order = facts.by_target if end else facts.by_source
    row = listed.data_ptr()
    other = row + total * listed.itemsize
    if end:
        row, other = other, row
    # Of a sorted list the nodes at the other end are as they should be.
    as_listed = listed[1 - end] if in_order and count == kept == total else None
    edges_in, threads = (row, other, total, kept, rows, added, in_order), torch.get_num_threads()
    if count <= HUB_EDGES:
        schedule = _shares()
        packed = PackedOrder(dtype, _most_blocks(rows, count) + 1, rows, count, as_listed)
        rowptr_at, index_at, edge_at, blocks_at = packed.places
        code.order[dtype](*edges_in, rowptr_at, index_at, edge_at, blocks_at, None, None, schedule, threads)
        packed.fill(schedule[4] - 1, schedule[6])
        return packed
    rowptr, edge = torch.empty(rows + 1, dtype=dtype, device=CPU), torch.empty(count, dtype=dtype, device=CPU)
    index = torch.empty(count, dtype=dtype, device=CPU) if as_listed is None else as_listed
    blocks, hubs, chunks, schedule = room = _room(rows, count)
    places = [t.data_ptr() for t in (rowptr, index, edge, blocks, hubs, chunks)]
    code.order[dtype](*edges_in, *places, schedule, threads)
    return Order(rowptr, index, edge, _shared_out(*room))


def given_order(rowptr: Tensor, index: Tensor, edge: Tensor) -> Order:
    """An order whose parts are known: its rows are shared out and nothing is sorted."""
    code = native() if rowptr.is_cpu else None
    if code is None:
        return Order(rowptr, index, edge)
    rows = rowptr.shape[0] - 1
    blocks, hubs, chunks, schedule = room = _room(rows, edge.shape[0])
    code.share[rowptr.dtype](
        rowptr.data_ptr(), rows, blocks.data_ptr(), hubs.data_ptr(), chunks.data_ptr(), schedule
    )
    return Order(rowptr, index, edge, _shared_out(*room))


def room_for_order(rows: int, edges: int, most: int) -> PackedOrder | None:
    """Memory that rowptr, index and edge, all int32, are written to natively, and that :func:`written` then makes an
    order of; None where an order needs tensors from the start. No row has more than ``most`` edges."""
    if min(edges, most) > HUB_EDGES or native() is None:
        return None
    return PackedOrder(torch.int32, _most_blocks(rows, edges) + 1, rows, edges, None)


def written(order: PackedOrder, rows: int) -> PackedOrder:
    """The order of what was written to its room: its rows are shared out and nothing is sorted."""
    code, schedule = native(), _shares()
    assert code is not None
    rowptr, _, _, blocks = order.places
    code.share[torch.int32](rowptr, rows, blocks, None, None, schedule)
    order.fill(schedule[4] - 1, schedule[6])
    return order


def looped(order: Order, added: int) -> Order:
    """The order of a graph without loops, with one loop more at each of the first nodes: nothing is sorted."""
    rowptr, index, edge = order.rowptr, order.index, order.edge
    rows, count = rowptr.shape[0] - 1, edge.shape[0]
    code = native() if rowptr.is_cpu else None
    if code is None:
        return given_order(*by_torch.looped(rowptr, index, edge, added))
    found = torch.empty_like(rowptr), index.new_empty(count + added), edge.new_empty(count + added)
    code.looped[rowptr.dtype](
        rowptr.data_ptr(), index.data_ptr(), edge.data_ptr(), count, rows, added, *(t.data_ptr() for t in found)
    )
    return given_order(*found)


def _room(rows: int, edges: int) -> tuple[Tensor, Tensor, Tensor, Any]:
    """What the native code writes of how rows are shared out, as large as it may need."""
    blocks = torch.empty(_most_blocks(rows, edges) + 1, dtype=torch.int64, device=CPU)
    most_hubs = edges // (HUB_EDGES + 1)
    hubs, chunks = _room_for_hubs(most_hubs) if most_hubs else no_hubs()
    return blocks, hubs, chunks, _shares()


def _most_blocks(rows: int, edges: int) -> int:
    return max(1, min(MAX_BLOCKS, (rows + edges) // BLOCK_WORK, rows))


def _shared_out(blocks: Tensor, hubs: Tensor, chunks: Tensor, schedule: Any) -> Schedule:
    """Of the room, what was written."""
    num_bounds, num_hubs, max_degree = schedule[4:]
    if num_bounds != blocks.shape[0]:
        blocks = blocks[:num_bounds]
    if num_hubs != hubs.shape[0]:
        hubs, chunks = (hubs[:num_hubs], chunks[: num_hubs + 1]) if num_hubs else no_hubs()
    return Schedule(blocks, max_degree, hubs, chunks, num_bounds - 1, num_hubs > 0)


_Shares = ctypes.c_int64 * 7


def _shares() -> Any:
    """What the native code is told of how to share out rows, and writes of how it has."""
    return _Shares(BLOCK_WORK, MAX_BLOCKS, HUB_EDGES, CHUNK_EDGES)


_Facts = ctypes.c_int64 * 6


def degree(order: Order, dtype: torch.dtype) -> Tensor:
    """[rows] how many edges each row has."""
    rowptr = order.rowptr
    code = native() if rowptr.is_cpu else None
    function = code.degree.get((rowptr.dtype, dtype)) if code is not None else None
    if function is None:
        return order.lengths.to(dtype)
    rows = rowptr.shape[0] - 1
    found = torch.empty(rows, dtype=dtype, device=CPU)
    function(rowptr.data_ptr(), rows, found.data_ptr())
    return found


def reversed_edges(in_edges: Order, out_edges: Order) -> Tensor:
    """[E] for each edge j -> i the id of the edge i -> j, or -1; of parallel edges the k-th has the k-th."""
    code = native() if in_edges.edge.is_cpu else None
    if code is None:
        return by_torch.reversed_edges(in_edges.rowptr, in_edges.index, in_edges.edge)
    found, rows = torch.empty_like(in_edges.edge), in_edges.rowptr.shape[0] - 1
    count = found.shape[0]
    room = found.new_empty(4 * count + rows)
    walks = (t.data_ptr() for order in (in_edges, out_edges) for t in (order.rowptr, order.index, order.edge))
    code.reversed[found.dtype](*walks, count, rows, room.data_ptr(), found.data_ptr())
    return found


def _room_for_hubs(most: int) -> tuple[Tensor, Tensor]:
    return torch.empty(most, dtype=torch.int64, device=CPU), torch.empty(most + 1, dtype=torch.int64, device=CPU)


# -- edges left out and added ----------------------------------------------------------------------


def written_out(edges: EdgeEnds) -> EdgeEnds:
    """The same edges as a list."""
    found = torch.empty((2, edges.num_edges), dtype=edges.listed.dtype, device=CPU) if edges.listed.is_cpu else None
    loops = edges.added + (0 if edges.drop else edges.facts.loops)
    return EdgeEnds(_rewired(edges, 0, found, by_torch.listed), Facts(loops, False, False))


def kept_ids(edges: EdgeEnds) -> Tensor:
    """[K] int64: the ids of the edges of the list that are not left out."""
    found = torch.empty(edges.kept, dtype=torch.int64, device=CPU) if edges.listed.is_cpu else None
    return _rewired(edges, 1, found, by_torch.kept_ids)


def last_loops(edges: EdgeEnds) -> Tensor:
    """[added] int64: the last loop of the list at each node that is given one, or -1."""
    found = torch.empty(edges.added, dtype=torch.int64, device=CPU) if edges.listed.is_cpu else None
    return _rewired(edges, 2, found, by_torch.last_loops)


def _rewired(edges: EdgeEnds, place: int, found: Tensor | None, make: Callable[[EdgeEnds], Tensor]) -> Tensor:
    code = native() if edges.listed.is_cpu else None
    if code is None or found is None:
        return make(edges)
    results: list[int | None] = [None, None, None]
    results[place] = found.data_ptr()
    source = edges.listed.data_ptr()
    count = edges.listed.shape[1]
    code.rewire[edges.listed.dtype](
        source, source + count * edges.listed.itemsize, count, edges.kept, edges.added, *results
    )
    return found
