"""What sample.cpp does, in Python: what it is compared with, and what runs where there is no compiler."""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gdsl.data.sampled import DISJOINT, INDUCED, LAST, REPLACE, EdgeKind, Sampled
from gdsl.ir.philox import philox
from gdsl.runtime.dtypes import CPU

if TYPE_CHECKING:
    from gdsl.data.sampler import Sampler

_MASK32, _MASK64 = (1 << 32) - 1, (1 << 64) - 1


class Stream:
    """The numbers of the picks of a node in a step: see sample.cpp."""

    def __init__(self, key: int, node: int, step: int):
        self.key = key & _MASK32, key >> 32 & _MASK32
        self.counter = node & _MASK32, node >> 32 & _MASK32, step & _MASK32
        self.next = 0
        self.kept = (0, 0)

    def bits(self) -> int:
        if not self.next & 1:
            a, b, c, d = philox((self.next >> 1, *self.counter), self.key)
            self.kept = b << 32 | a, d << 32 | c
        found = self.kept[self.next & 1]
        self.next += 1
        return found

    def below(self, n: int) -> int:
        return self.bits() * n >> 64

    def open(self) -> float:
        return ((self.bits() >> 11) + 0.5) * 2.0**-53


def sample(sampler: Sampler, seeds: dict[int, Tensor], key: int, times: Tensor | None) -> Sampled:
    """See :class:`gdsl.data.sampler.Sampler`."""
    flags, count = sampler.flags, len(sampler.num_nodes)
    nodes: list[list[int]] = [[] for _ in range(count)]
    trees: list[list[int]] = [[] for _ in range(count)]
    places: list[dict[tuple[int, int], int]] = [{} for _ in range(count)]
    found: list[list[tuple[int, int, int]]] = [[] for _ in sampler.kinds]
    limits = None if times is None else times.tolist()
    rows = [(kind.rowptr.tolist(), kind.index.tolist(), kind.edge.tolist()) for kind in sampler.kinds]

    def meet(type: int, tree: int, node: int, again: bool = False) -> int:
        name = (tree if flags & DISJOINT else 0, node)
        place = places[type].setdefault(name, len(nodes[type]))
        if again or place == len(nodes[type]):
            nodes[type].append(node)
            trees[type].append(tree)
        return place

    tree = 0
    for type, given in seeds.items():
        for node in given.tolist():
            meet(type, tree, node, again=True)
            tree += 1
    num_nodes = [[len(n)] for n in nodes]
    num_edges: list[list[int]] = [[] for _ in sampler.kinds]
    begin, end = [0] * count, [len(n) for n in nodes]
    for hop in range(sampler.hops):
        for k, kind in enumerate(sampler.kinds):
            rowptr, index, edge = rows[k]
            fan_out, before = sampler.fan_outs[k][hop], len(found[k])
            for place in range(begin[kind.target], end[kind.target]) if fan_out else ():
                node, tree = nodes[kind.target][place], trees[kind.target][place]
                first, last = _row(kind, rowptr, node, None if limits is None else limits[tree])
                random = Stream(key & _MASK64, place, hop * len(sampler.kinds) + k)
                for e in _picks(kind, flags, random, first, last, fan_out):
                    found[k].append((meet(kind.source, tree, index[e]), place, edge[e]))
            num_edges[k].append(len(found[k]) - before)
        for t in range(count):
            begin[t], end[t] = end[t], len(nodes[t])
            num_nodes[t].append(end[t] - begin[t])
    for k, kind in enumerate(sampler.kinds if flags & INDUCED else ()):
        rowptr, index, edge = rows[k]
        found[k] = []
        for place, (node, tree) in enumerate(zip(nodes[kind.target], trees[kind.target], strict=True)):
            first, last = _row(kind, rowptr, node, None if limits is None else limits[tree])
            for e in range(first, last):
                source = places[kind.source].get((tree if flags & DISJOINT else 0, index[e]))
                if source is not None:
                    found[k].append((source, place, edge[e]))
    parts = [torch.tensor(f, dtype=torch.int64, device=CPU).reshape(-1, 3).t() for f in found]
    return Sampled(
        [torch.tensor(n, dtype=torch.int64, device=CPU) for n in nodes],
        [torch.tensor(t, dtype=torch.int64, device=CPU) for t in trees] if flags & DISJOINT else None,
        [part[:2].to(torch.int32).contiguous() for part in parts],
        [part[2].contiguous() for part in parts],
        [_rowptr(part[1], len(nodes[kind.target])) for part, kind in zip(parts, sampler.kinds, strict=True)],
        num_nodes,
        num_edges,
    )


def walks(rowptr: list[int], index: list[int], nodes: int, count: int, length: int, key: int) -> Tensor:
    """See :func:`gdsl.data.sampler.walks`."""
    found = []
    for walk in range(count):
        random = Stream(key, walk, 0)
        path = [random.below(nodes)]
        for _ in range(length):
            first, last = rowptr[path[-1]], rowptr[path[-1] + 1]
            path.append(index[first + random.below(last - first)] if last > first else path[-1])
        found.append(path)
    return torch.tensor(found, dtype=torch.int64, device=CPU).reshape(count, length + 1)


def _rowptr(target: Tensor, rows: int) -> Tensor:
    return torch.searchsorted(target.contiguous(), torch.arange(rows + 1, device=CPU), out_int32=True)


def _row(kind: EdgeKind, rowptr: list[int], node: int, limit: int | None) -> tuple[int, int]:
    first, last = rowptr[node], rowptr[node + 1]
    if kind.time is None or limit is None:
        return first, last
    return first, first + bisect_right(kind.time[first:last].tolist(), limit)


def _picks(kind: EdgeKind, flags: int, random: Stream, first: int, last: int, count: int) -> list[int]:
    n = last - first
    if not n:
        return []
    if kind.weight is not None and count > 0:
        weight = kind.weight[first:last].tolist()
        if not flags & REPLACE:
            draws = [-math.log(random.open()) for _ in weight]
            keys = sorted((draw / w, k) for k, (draw, w) in enumerate(zip(draws, weight, strict=True)) if w > 0)
            return [first + k for _, k in keys[:count]]
        assert kind.upto is not None
        upto = kind.upto[first:last].tolist()
        if not upto[-1] > 0:
            return []
        return [first + min(bisect_right(upto, random.open() * upto[-1]), n - 1) for _ in range(count)]
    if count < 0 or (not flags & REPLACE and count >= n):
        return list(range(first, last))
    if flags & LAST:
        return list(range(last - min(count, n), last))
    if flags & REPLACE:
        return [first + random.below(n) for _ in range(count)]
    picks: list[int] = []
    for j in range(n - count, n):
        pick = random.below(j + 1)
        picks.append(j if pick in picks else pick)
    return [first + pick for pick in picks]
