"""Graphs of nearest neighbours."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from gdsl.errors import InputError

# Distances held at a time, 64 MiB in float32.
CHUNK_ELEMENTS = 1 << 24

# A tree looks at ever more of the points as dimensions grow; above about this many, a product of matrices
# is faster.
TREE_DIMENSIONS = 16


@functools.cache
def tree_class() -> Any:
    """SciPy's k-d tree, or None. Imported when a graph of neighbours is first made: it takes a third of a second."""
    try:
        from scipy.spatial import cKDTree
    except ImportError:
        return None
    return cKDTree


def knn_graph(x: Tensor, k: int, batch: Tensor | None = None, loop: bool = False) -> Tensor:
    """``edge_index`` [2, E] from each node's k nearest neighbours (sources, nearest first) to the node
    (target).

    ``x`` [N, d] or [N] are positions; ``batch`` [N] integers, in any order, keep neighbours within a group;
    ``loop`` lets a node be its own neighbour. A node with fewer than k candidates gets them all. Of
    neighbours at the same distance the one with the smaller index is taken first, so the same points always
    give the same graph.

    Raises ``InputError`` for a wrong shape, a k below 1, or positions that are not finite.
    """
    points = _check(x, k, batch)
    if batch is None:
        return _knn(points, k, loop)
    parts = [torch.empty(2, 0, dtype=torch.int64, device=x.device)]
    for group in batch.unique().tolist():
        members = (batch == group).nonzero().squeeze(1)
        parts.append(members[_knn(points[members], k, loop)])
    edges = torch.cat(parts, dim=1)
    return edges[:, torch.sort(edges[1], stable=True).indices]


def _check(x: Tensor, k: int, batch: Tensor | None) -> Tensor:
    if x.dim() not in (1, 2):
        raise InputError(f"positions must have shape [N, d], but their shape is {list(x.shape)}")
    if k < 1:
        raise InputError(f"the number of neighbours must be at least 1, but it is {k}")
    if batch is not None and batch.shape != x.shape[:1]:
        raise InputError(f"batch must have shape [{x.shape[0]}], but its shape is {list(batch.shape)}")
    points = x.detach().unsqueeze(1) if x.dim() == 1 else x.detach()
    if not bool(points.isfinite().all()):
        row = int((~points.isfinite()).any(dim=1).nonzero()[0])
        raise InputError(f"positions must be finite, but node {row} has {points[row].tolist()}")
    return points


def _knn(points: Tensor, k: int, loop: bool) -> Tensor:
    count = points.shape[0]
    k = min(k, count if loop else count - 1)
    if k <= 0:
        return torch.empty(2, 0, dtype=torch.int64, device=points.device)
    # A GPU is slow in float64, and float32 would lose what float64 tells apart.
    points = points.double() if points.is_cpu or points.dtype == torch.float64 else points.float()
    if tree_class() is not None and points.is_cpu and 0 < points.shape[1] <= TREE_DIMENSIONS:
        source = _by_tree(points, k, loop)
    else:
        source = _by_distance(points, k, loop)
    target = torch.arange(count, device=points.device).repeat_interleave(k)
    return torch.stack([source.reshape(-1), target])


def _by_tree(points: Tensor, k: int, loop: bool) -> Tensor:
    """[N, k]"""
    count = points.shape[0]
    # One more than needed shows whether a tie is cut off, and one stands for the node itself.
    asked = min(k + 1 + (not loop), count)
    found = tree_class()(points.numpy()).query(points.numpy(), k=asked)
    distance, index = (torch.from_numpy(part).view(count, asked) for part in found)
    if not loop:
        distance = distance.masked_fill(index == torch.arange(count, device=index.device).unsqueeze(1), torch.inf)
    source, tied = _nearest(distance, index, k)
    source[tied] = _by_distance(points, k, loop, tied)
    return source


def _by_distance(points: Tensor, k: int, loop: bool, rows: Tensor | None = None) -> Tensor:
    """[rows, k] by comparing each of the rows, or of all, with every point."""
    count = points.shape[0]
    rows = torch.arange(count, device=points.device) if rows is None else rows
    found = [rows.new_empty(0, k)]
    for part in rows.split(max(1, CHUNK_ELEMENTS // count)):
        # The faster product form rounds, and would part points that are equally far.
        distance = torch.cdist(points[part], points, compute_mode="donot_use_mm_for_euclid_dist")
        if not loop:
            distance.scatter_(1, part.unsqueeze(1), torch.inf)
        source, tied = _nearest(*distance.topk(min(k + 1, count), largest=False), k)
        source[tied] = distance[tied].argsort(dim=1, stable=True)[:, :k]
        found.append(source)
    return torch.cat(found)


def _nearest(distance: Tensor, index: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k nearest [rows, k] of the candidates, by distance and then index; and the rows in which a node as
    far as the k-th was left out, so that one of smaller index may not be among the candidates at all."""
    by_index = index.argsort(dim=1)
    order = by_index.gather(1, distance.gather(1, by_index).argsort(dim=1, stable=True))
    distance, index = distance.gather(1, order), index.gather(1, order)
    if index.shape[1] == k:
        return index, index.new_empty(0)
    last = distance[:, k:].masked_fill(distance[:, k:].isinf(), -torch.inf).amax(dim=1)
    return index[:, :k].contiguous(), (distance[:, k - 1] == last).nonzero().squeeze(1)
