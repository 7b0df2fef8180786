"""Neighbours of seeds sampled hop by hop, natively; without a compiler, by :mod:`gdsl.data.slow_sampler`."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from gdsl.data import slow_sampler
from gdsl.data.native import native
from gdsl.data.sampled import DISJOINT, EdgeKind, Sampled
from gdsl.errors import InputError
from gdsl.runtime.dtypes import CPU
from gdsl.runtime.order import Order
from gdsl.runtime.spans import rows_of

MASK = (1 << 64) - 1


class _NativeEdges(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("source", "target")),
        *((name, ctypes.c_void_p) for name in ("rowptr", "index", "edge", "weight", "upto", "time")),
        ("wide", ctypes.c_int64),
    ]


class _Request(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("node_types", "edge_types", "hops")),
        *((name, ctypes.c_void_p) for name in ("kinds", "fan_outs", "num_nodes")),
        ("flags", ctypes.c_int64),
        ("key", ctypes.c_uint64),
        ("seed_types", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("seed_type", "seed_count", "seeds", "seed_time")),
        ("threads", ctypes.c_int64),
    ]


@dataclass(frozen=True)
class Sampler:
    """Samples of one graph.

    num_nodes  of each type of nodes
    kinds      the types of edges
    fan_outs   [edge types][hops] how many edges into each node are taken, -1 for all
    flags      REPLACE: with replacement; DISJOINT: each seed has nodes of its own; LAST: the latest edges, not any;
               INDUCED: all edges between the nodes that were met
    """

    num_nodes: Sequence[int]
    kinds: Sequence[EdgeKind]
    fan_outs: Sequence[Sequence[int]]
    flags: int = 0

    @property
    def hops(self) -> int:
        return max((len(f) for f in self.fan_outs), default=0)

    def __call__(self, seeds: dict[int, Tensor], key: int, times: Tensor | None = None) -> Sampled:
        """The neighbourhood of some nodes.

        seeds: type of nodes -> [seeds] int64, in range
        key:   64 random bits: the same give the same sample, for any number of threads
        times: [all seeds] int64, in the order of ``seeds``
        """
        code = native("sample")
        if code is None:
            return slow_sampler.sample(self, seeds, key, times)
        return self._natively(code, seeds, key & MASK, times)

    def __reduce__(self) -> tuple[Any, ...]:
        return Sampler, (self.num_nodes, self.kinds, self.fan_outs, self.flags)

    @cached_property
    def _parts(self) -> tuple[Any, Any, Any]:
        kinds = (_NativeEdges * max(1, len(self.kinds)))()
        for made, kind in zip(kinds, self.kinds, strict=False):
            made.source, made.target, made.wide = kind.source, kind.target, kind.rowptr.dtype is torch.int64
            for name in ("rowptr", "index", "edge", "weight", "upto", "time"):
                values = getattr(kind, name)
                setattr(made, name, None if values is None else values.data_ptr())
        numbers = [number for fan_outs in self.fan_outs for number in fan_outs]
        fan_outs = (ctypes.c_int64 * max(1, len(numbers)))(*numbers)
        return kinds, fan_outs, (ctypes.c_int64 * len(self.num_nodes))(*self.num_nodes)

    def _natively(self, code: Any, seeds: dict[int, Tensor], key: int, times: Tensor | None) -> Sampled:
        kinds, fan_outs, num_nodes = self._parts
        given = torch.cat(list(seeds.values())) if len(seeds) > 1 else next(iter(seeds.values())).contiguous()
        types = (ctypes.c_int64 * len(seeds))(*seeds)
        counts = (ctypes.c_int64 * len(seeds))(*map(len, seeds.values()))
        request = _Request(
            len(self.num_nodes), len(self.kinds), self.hops, *(ctypes.addressof(p) for p in (kinds, fan_outs)),
            ctypes.addressof(num_nodes), self.flags, key, len(seeds), ctypes.addressof(types),
            ctypes.addressof(counts), given.data_ptr(), None if times is None else times.data_ptr(),
            torch.get_num_threads(),
        )  # fmt: skip
        sizes = (ctypes.c_int64 * (len(self.num_nodes) + len(self.kinds)))()
        handle = code.sample(ctypes.byref(request), sizes)
        if not handle:
            raise InputError("a sample needs more memory than there is, or has more than 2^31 - 1 nodes of a type")
        try:
            return self._taken(code, handle, list(sizes))
        finally:
            code.drop(handle)

    def _taken(self, code: Any, handle: int, sizes: list[int]) -> Sampled:
        kinds, hops = len(self.num_nodes), self.hops
        nodes = [torch.empty(n, dtype=torch.int64, device=CPU) for n in sizes[:kinds]]
        trees = [torch.empty_like(n) for n in nodes] if self.flags & DISJOINT else None
        ends = [torch.empty((2, n), dtype=torch.int32, device=CPU) for n in sizes[kinds:]]
        edges = [torch.empty(n, dtype=torch.int64, device=CPU) for n in sizes[kinds:]]
        targets = [sizes[kind.target] for kind in self.kinds]
        rowptr = [torch.empty(n + 1, dtype=torch.int32, device=CPU) for n in targets]
        counts = torch.empty(kinds + hops * (kinds + len(self.kinds)), dtype=torch.int64, device=CPU)
        out: list[Tensor | None] = []
        for k, found in enumerate(nodes):
            out += [found, None if trees is None else trees[k]]
        for group in zip(ends, edges, rowptr, strict=True):
            out += group
        out.append(counts)
        pointers = (ctypes.c_void_p * len(out))(*(None if t is None else t.data_ptr() for t in out))
        code.take(handle, pointers, (ctypes.c_int64 * max(1, len(targets)))(*targets))
        new = counts.tolist()
        num_nodes = [[n] for n in new[:kinds]]
        num_edges: list[list[int]] = [[] for _ in self.kinds]
        rest = iter(new[kinds:])
        for _ in range(hops):
            for one in (*num_nodes, *num_edges):
                one.append(next(rest))
        return Sampled(nodes, trees, ends, edges, rowptr, num_nodes, num_edges)


def kind_of(
    order: Order, source: int, target: int, weight: Tensor | None = None, time: Tensor | None = None
) -> EdgeKind:
    """A kind from the edges of a graph by target, and from values [E] of the edges by their ids."""
    rowptr, index, edge = order.rowptr, order.index.contiguous(), order.edge
    if time is None:
        return EdgeKind(source, target, rowptr, index, edge, None if weight is None else weight.double()[edge.long()])
    row = rows_of(rowptr)
    by_time = time[edge.long()]
    place = torch.sort(by_time, stable=True).indices
    place = place[torch.sort(row[place], stable=True).indices]
    return EdgeKind(source, target, rowptr, index[place], edge[place], None, by_time[place].long().contiguous())


def walks(order: Order, count: int, length: int, key: int) -> Tensor:
    """[count, length + 1] int64: the nodes of random walks from nodes that are drawn, each with the same chance.

    order: the edges by source; a walk takes each edge out of a node with the same chance, and stays where there is none
    key:   as of a :class:`Sampler`
    """
    code, nodes, key = native("sample"), len(order.rowptr) - 1, key & MASK
    if code is None:
        return slow_sampler.walks(order.rowptr.tolist(), order.index.tolist(), nodes, count, length, key)
    out = torch.empty((count, length + 1), dtype=torch.int64, device=CPU)
    index, wide = order.index.contiguous(), order.rowptr.dtype is torch.int64
    code.walk(
        order.rowptr.data_ptr(), index.data_ptr(), wide, nodes, count, length, key, out.data_ptr(),
        torch.get_num_threads(),
    )  # fmt: skip
    return out
