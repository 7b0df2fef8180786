"""The edges of a packed data set: sorted once by both ends, graph by graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gdsl.data.columns import Column, ColumnGather
from gdsl.data.native import native
from gdsl.errors import GraphError
from gdsl.runtime import prepare
from gdsl.runtime.dtypes import CPU
from gdsl.runtime.graph import Graph
from gdsl.runtime.order import EdgeEnds, Facts, PackedOrder
from gdsl.runtime.spans import rows_of, spans

# What is kept of each graph besides its list of edges, all counted from the graph's own beginning: by target ("in")
# and by source ("out") where the edges of each row begin, the node at the other end and the id of each edge.
PARTS = ("in_first", "in_index", "in_edge", "out_first", "out_index", "out_edge")


class Ends(NamedTuple):
    """Which of the offsets count the source nodes, the target nodes, the edges and the loops of a graph.

    Where sources and targets are not counted alike, which edges go from a number to the same one depends on the batch:
    ``loops`` is then None.
    """

    source: int
    target: int
    edges: int
    loops: int | None


@dataclass(frozen=True)
class Edges:
    """The edges of one type.

    listed        [2, E] as they came
    parts         of PARTS, those that are not told by ``listed`` because all graphs came sorted
    by_source, by_target  whether all graphs came sorted so
    index         the dtype of ``edge_index``: int32 where all graphs came so, else int64
    """

    ends: Ends
    listed: Column
    parts: dict[str, Column]
    by_source: bool
    by_target: bool
    index: torch.dtype = torch.int64

    @property
    def columns(self) -> list[Column]:
        return [self.listed, *self.parts.values()]

    @cached_property
    def unsorted(self) -> list[tuple[str, int, list[int]]]:
        """The ends by which not all graphs came sorted: which offsets count the rows, and where in ``columns`` what
        makes an order lies."""
        place = {name: 1 + k for k, name in enumerate(self.parts)}
        return [
            (end, rows, [place[f"{end}_{part}"] for part in ("first", "index", "edge")])
            for end, rows in (("in", self.ends.target), ("out", self.ends.source))
            if f"{end}_edge" in place
        ]

    def rooms(
        self, totals: Sequence[int], most: int, first: int, addresses: dict[int, int]
    ) -> dict[str, PackedOrder]:
        """Memory for the orders of a batch, by their ends: of most orders no tensor is ever asked for.

        most:      edges that a node has
        addresses: gets where each of ``columns`` that makes them, counted from ``first`` on, is written to
        """
        count, found = totals[self.ends.edges], {}
        for end, rows, places in self.unsorted:
            room = prepare.room_for_order(totals[rows], count, most)
            if room is not None:
                found[end] = room
                for k, address in zip(places, room.places, strict=False):
                    addresses[first + k] = address
        return found

    def graph(self, found: Sequence[Any], totals: Sequence[int], rooms: Mapping[str, PackedOrder]) -> Graph:
        """The graph of a batch from its columns, in the order of ``columns``, and the totals of all offsets.

        rooms: those that were written to, in the place of columns
        """
        source, target, edges, known = self.ends
        sizes, count, listed = (totals[source], totals[target]), totals[edges], found[0]
        loops = int((listed[0] == listed[1]).sum()) if known is None else totals[known]
        graph = Graph._of(EdgeEnds(listed, Facts(loops, self.by_source, self.by_target)), sizes)
        for name, end in (("in", 1), ("out", 0)):
            if name in rooms:
                graph.__dict__[f"{name}_edges"] = prepare.written(rooms[name], sizes[end])
                continue
            parts = dict(zip(self.parts, found[1:], strict=True))
            sorted_so = f"{name}_edge" not in parts
            index = listed[1 - end] if sorted_so else parts[f"{name}_index"]
            edge = counted(count) if sorted_so else parts[f"{name}_edge"]
            graph.__dict__[f"{name}_edges"] = prepare.given_order(parts[f"{name}_first"], index, edge)
        return graph


def numbered(ptr: Tensor, total: int) -> Tensor:
    """[total] int64 the graph of each node, from where those of each graph begin."""
    code = native("gather") if ptr.is_cpu else None
    if code is None:
        return rows_of(ptr, total)
    out = torch.empty(total, dtype=torch.int64, device=CPU)
    code.number(ptr.data_ptr(), len(ptr) - 1, out.data_ptr())
    return out


def groups(batch: Tensor, ptr: Tensor) -> Graph:
    """The graph that aggregates the nodes of each graph: see :func:`gdsl.runtime.recent.grouped`.

    batch: [N] the graph of each node; ptr: where each begins. They come one after the other: nothing is sorted
    """
    ends = torch.empty((2, len(batch)), dtype=torch.int32, device=CPU).copy_(batch)
    size = len(ptr) - 1
    graph = Graph._of(EdgeEnds(ends, Facts(len(batch), True, True)), (size, size))
    order = prepare.given_order(ptr.to(torch.int32), ends[0], counted(len(batch)))
    graph.__dict__.update(in_edges=order, out_edges=order)
    return graph


_counted = torch.empty(0, dtype=torch.int32, device=CPU)


def counted(count: int) -> Tensor:
    """[count] int32 0, 1, 2, ...: part of a tensor that all share. Nothing writes to the tensors of an order."""
    global _counted
    found = _counted
    if len(found) < count:
        found = _counted = torch.arange(max(1 << 12, 1 << (count - 1).bit_length()), dtype=torch.int32, device=CPU)
    return found[:count]


def sorted_by_both(
    listed: Tensor, ends: Ends, offsets: Sequence[Tensor]
) -> tuple[dict[str, Tensor], bool, bool]:
    """The values of all PARTS, and whether all graphs came sorted by source and by target.

    listed: [2 * E] int32, flat, graph by graph, as a column has it; in range
    """
    sources, targets, edges = (offsets[k] for k in ends[:3])
    column = Column(listed, ends.edges, (2, None), (ends.source, ends.target), torch.int64)
    (joined,), _, _ = ColumnGather(offsets, [column])(torch.arange(len(edges) - 1, device=CPU))
    graph = Graph(joined, (int(sources[-1]), int(targets[-1])))
    values, count = {}, edges.diff()
    for name, order, rows, other in (
        ("in", graph.in_edges, targets, sources),
        ("out", graph.out_edges, sources, targets),
    ):
        values[f"{name}_first"] = order.rowptr[:-1] - edges[:-1].repeat_interleave(rows.diff())
        values[f"{name}_index"] = order.index - other[:-1].repeat_interleave(count)
        values[f"{name}_edge"] = order.edge - edges[:-1].repeat_interleave(count)
    facts = graph._edges.facts
    return {name: value.to(torch.int32) for name, value in values.items()}, facts.by_source, facts.by_target


def width(ends: Ends, offsets: Sequence[Tensor]) -> torch.dtype:
    """The narrowest dtype that ``listed`` and all PARTS fit in: a batch is made sooner of fewer bytes."""
    most = max(int(offsets[k].diff().max()) for k in ends[:3])
    return next((dtype for dtype in (torch.uint8, torch.int16) if most <= torch.iinfo(dtype).max), torch.int32)


def edges_of(
    ends: Ends, listed: Tensor, values: dict[str, Tensor], by_source: bool, by_target: bool, index: torch.dtype
) -> Edges:
    """Edges from ``listed`` and the values of all PARTS, of one dtype; those that a sorted list tells are left out."""
    parts = {}
    for name, ordered, rows, other in (
        ("in", by_target, ends.target, ends.source),
        ("out", by_source, ends.source, ends.target),
    ):
        about = {"first": (rows, ends.edges), "index": (ends.edges, other), "edge": (ends.edges, ends.edges)}
        for part, (length, shift) in about.items():
            if part == "first" or not ordered:
                numbers = values[f"{name}_{part}"]
                closed = part == "first"
                parts[f"{name}_{part}"] = Column(numbers, length, (None,), (shift,), torch.int32, closed)
    column = Column(listed, ends.edges, (2, None), (ends.source, ends.target), torch.int32)
    return Edges(ends, column, parts, by_source, by_target, index)


def loops_of(listed: Tensor, edges: Tensor) -> Tensor:
    """[graphs] how many loops each graph has; ``listed`` as above, ``edges`` where those of each graph begin."""
    count = edges.diff()
    owner, source = spans(2 * edges[:-1], count)
    same = listed[source] == listed[source + count[owner]]
    return torch.zeros(len(count), dtype=torch.int64, device=CPU).index_add(0, owner, same.long())


def loops_of_all(edges: Edges, offsets: Sequence[Tensor]) -> Tensor:
    """[graphs] how many loops each graph has, some graphs at a time."""
    starts, found = offsets[edges.ends.edges], []
    for first in range(0, len(starts) - 1, 1 << 14):
        part = starts[first : first + (1 << 14) + 1]
        listed = edges.listed.values[2 * int(part[0]) : 2 * int(part[-1])]
        found.append(loops_of(listed, part - part[0]))
    return torch.cat(found)


def check_ends(listed: Tensor, ends: Ends, offsets: Sequence[Tensor], first_graph: int, what: str) -> None:
    """Raises ``GraphError`` for an edge of ``listed``, as above but int64, to a node that its graph does not have."""
    edges = offsets[ends.edges]
    count = edges.diff()
    owner, place = spans(torch.zeros_like(count), 2 * count)
    at_target = place >= count[owner]
    limit = torch.where(at_target, offsets[ends.target].diff()[owner], offsets[ends.source].diff()[owner])
    wrong = (listed < 0) | (listed >= limit)
    if bool(wrong.any()):
        k = int(wrong.nonzero()[0])
        graph, to_target = int(owner[k]), bool(at_target[k])
        edge = int(place[k]) - (int(count[graph]) if to_target else 0)
        raise GraphError(
            f"graph {first_graph + graph}: edge {edge} of {what} {('comes from', 'goes to')[to_target]} node "
            f"{int(listed[k])}, but the graph has {int(limit[k])} nodes there, numbered from 0"
        )


def wrong_graph(edges: Edges, offsets: Sequence[Tensor]) -> int:
    """The first graph whose edges are out of range or whose orders are not those of its edges; -1 where all are right.

    All offsets rise from zero, and the arrays are as long as they say.
    """
    code = native("gather")
    wrong = [_wrong_natively(code, edges, offsets, end) if code else _wrong(edges, offsets, end) for end in (0, 1)]
    return min((graph for graph in wrong if graph >= 0), default=-1)


def _wrong_natively(code: Any, edges: Edges, offsets: Sequence[Tensor], end: int) -> int:
    name, counts = ("out", "in")[end], offsets[edges.ends.edges]
    rows = offsets[edges.ends.target if end else edges.ends.source]
    parts = [edges.parts.get(f"{name}_{part}") for part in ("first", "index", "edge")]
    given = [None if part is None else part.values.data_ptr() for part in parts]
    listed = edges.listed.values.data_ptr()
    wrong_order = getattr(code, f"wrong_order_{edges.listed.values.dtype}".replace("torch.", ""))
    return int(wrong_order(listed, counts.data_ptr(), rows.data_ptr(), len(counts) - 1, end, *given))


def _wrong(edges: Edges, offsets: Sequence[Tensor], end: int) -> int:
    """The same in torch, which is slow: graph by graph."""
    name = ("out", "in")[end]
    first, index, edge = (edges.parts.get(f"{name}_{part}") for part in ("first", "index", "edge"))
    assert first is not None
    counts, rows = offsets[edges.ends.edges].tolist(), offsets[(edges.ends.source, edges.ends.target)[end]].tolist()
    for graph in range(len(counts) - 1):
        start, stop = counts[graph], counts[graph + 1]
        ends = edges.listed.values[2 * start : 2 * stop].view(2, -1)
        last = torch.tensor([stop - start], device=CPU)
        bounds = torch.cat([first.values[rows[graph] : rows[graph + 1]], last]).long()
        if int(bounds[0]) != 0 or bool((bounds.diff() < 0).any()):
            return graph
        row, other = ends[end], ends[1 - end]
        ids = (counted(stop - start) if edge is None else edge.values[start:stop]).long()
        order = torch.sort(row, stable=True).indices
        if not torch.equal(order, ids) or not torch.equal(row[ids].long(), rows_of(bounds)):
            return graph
        if index is not None and not torch.equal(index.values[start:stop], other[ids]):
            return graph
    return -1
