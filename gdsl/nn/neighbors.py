"""Neighbours in space: k nearest, within a radius, farthest points. Interface of torch_cluster and torch_geometric.

On the CPU by SciPy's k-d tree where it is installed; else by distances in torch. Which points are neighbours has no
derivative; distances that a layer computes from them have.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from gdsl.runtime.neighbors import TREE_DIMENSIONS, tree_class

# Pairs of points that a tree finds at a time: a Python number each, and their coordinates in float64.
CHUNK_PAIRS = 1 << 18
# Distances held at a time, 16 MiB.
CHUNK_DISTANCES = 1 << 21
# A pair costs a tree as much as so many distances.
PAIR_COST = 16


def knn(
    x: Tensor,
    y: Tensor,
    k: int,
    batch_x: Tensor | None = None,
    batch_y: Tensor | None = None,
    cosine: bool = False,
    num_workers: int = 1,
    batch_size: int | None = None,
) -> Tensor:
    """For each point of y, its k nearest points of x: [2, E], row 0 the point of y, row 1 that of x, nearest first.

    x, y:             [N, d] and [M, d]
    batch_x, batch_y: [N] and [M] the group of each point: neighbours are of the same group
    cosine:           nearest by angle; points of length 0 are far from all
    num_workers, batch_size: accepted for torch_geometric's sake

    Raises ValueError for another shape, a k below 1, or positions that are not finite.
    """
    if k < 1:
        raise ValueError(f"the number of neighbours must be at least 1, but it is {k}")
    if cosine:
        x, y = (torch.nn.functional.normalize(points, dim=-1) for points in (x, y))
    parts = []
    for of_x, of_y in _groups(x, y, batch_x, batch_y):
        here = min(k, len(of_x))
        if here and len(of_y):
            near = of_x[_nearest(x[of_x], y[of_y], here)]
            parts.append(torch.stack([of_y.repeat_interleave(here), near.flatten()]))
    return _sorted(parts, x)


def knn_graph(
    x: Tensor,
    k: int,
    batch: Tensor | None = None,
    loop: bool = False,
    flow: str = "source_to_target",
    cosine: bool = False,
    num_workers: int = 1,
    batch_size: int | None = None,
) -> Tensor:
    """``edge_index`` [2, E] from the k nearest neighbours of each point to it, or the other way with another ``flow``.

    loop:   whether a point is its own neighbour
    cosine, num_workers, batch_size: as in :func:`knn`

    Raises what :func:`knn` raises.
    """
    found = knn(x, x, k if loop else k + 1, batch, batch, cosine)
    target, source = found
    if not loop:
        # A point may be behind others at the same place: then the last neighbour goes.
        keep = source != target
        source, target = source[keep], target[keep]
        count = torch.bincount(target, minlength=len(x))
        place = torch.arange(len(target), device=x.device) - (count.cumsum(0) - count)[target]
        source, target = source[place < k], target[place < k]
    return torch.stack([source, target] if flow == "source_to_target" else [target, source])


def radius(
    x: Tensor,
    y: Tensor,
    r: float,
    batch_x: Tensor | None = None,
    batch_y: Tensor | None = None,
    max_num_neighbors: int | None = 32,
    num_workers: int = 1,
    batch_size: int | None = None,
) -> Tensor:
    """For each point of y, points of x that are nearer than r: [2, E] as :func:`knn`, by index.

    max_num_neighbors: the most for each point of y, those of the smallest indices; None for all

    As in torch_cluster, a point at the distance r is left out. Differences are taken first, in float64: what is near
    does not depend on where the origin is.

    Raises ValueError for another shape, positions that are not finite, or a radius that is below 0 or NaN.
    """
    return _near(x, y, r, batch_x, batch_y, max_num_neighbors, loop=True)


def radius_graph(
    x: Tensor,
    r: float,
    batch: Tensor | None = None,
    loop: bool = False,
    max_num_neighbors: int | None = 32,
    flow: str = "source_to_target",
    num_workers: int = 1,
    batch_size: int | None = None,
) -> Tensor:
    """``edge_index`` [2, E] between points that are nearer than r, at most so many into each; see :func:`radius`."""
    target, source = _near(x, x, r, batch, batch, max_num_neighbors, loop)
    return torch.stack([source, target] if flow == "source_to_target" else [target, source])


def nearest(x: Tensor, y: Tensor, batch_x: Tensor | None = None, batch_y: Tensor | None = None) -> Tensor:
    """For each point of x the nearest of y: [N, d] and [M, d] to [N].

    batch_x, batch_y: [N] and [M] the group of each point

    Raises what :func:`knn` raises, and ValueError where a point has none of its group.
    """
    of_x, of_y = knn(y, x, 1, batch_y, batch_x)
    if len(of_x) != len(x):
        raise ValueError("there are points without a point of the same group in y")
    return of_y


def fps(
    x: Tensor, batch: Tensor | None = None, ratio: float = 0.5, random_start: bool = True, batch_size: int | None = None
) -> Tensor:
    """Farthest point sampling: the indices of a part of the points, each the farthest from those before it.

    x:            [N, d]
    batch:        [N] the group of each point; the part is taken of each
    ratio:        the part, rounded up
    random_start: whether the first point of a group is a random one, and not the first
    batch_size:   accepted for torch_geometric's sake

    Qi et al., "PointNet++", NeurIPS 2017, section 3.2. Raises ValueError for a ratio outside (0, 1].
    """
    if not 0.0 < ratio <= 1.0:
        raise ValueError(f"the ratio must be above 0 and at most 1, but it is {ratio}")
    chosen = []
    for members, _ in _groups(x, x, batch, batch):
        points = x[members].detach().double()
        if not len(points):
            continue
        count = -int(-ratio * len(points) // 1)
        start = int(torch.randint(len(points), (1,))) if random_start else 0
        found = [start]
        distance = (points - points[start]).square().sum(dim=1)
        for _ in range(count - 1):
            found.append(int(distance.argmax()))
            distance = torch.minimum(distance, (points - points[found[-1]]).square().sum(dim=1))
        chosen.append(members[torch.tensor(found, device=x.device)])
    return torch.cat(chosen) if chosen else torch.empty(0, dtype=torch.long, device=x.device)


def _groups(x: Tensor, y: Tensor, batch_x: Tensor | None, batch_y: Tensor | None) -> Iterator[tuple[Tensor, Tensor]]:
    """The points of x and of y in each group that y has."""
    for points in (x, y):
        if points.dim() != 2:
            raise ValueError(f"positions must have shape [N, d], but their shape is {list(points.shape)}")
        if not bool(points.isfinite().all()):
            raise ValueError("positions must be finite")
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"both sets of points have as many coordinates, not {x.shape[1]} and {y.shape[1]}")
    if (batch_x is None) != (batch_y is None):
        raise ValueError("both sets of points have groups, or none has")
    if batch_x is None or batch_y is None:
        yield torch.arange(len(x), device=x.device), torch.arange(len(y), device=x.device)
        return
    for points, batch in ((x, batch_x), (y, batch_y)):
        if batch.shape != points.shape[:1]:
            raise ValueError(f"there are {len(points)} points, but the shape of their groups is {list(batch.shape)}")
    of_x, of_y = _members(batch_x), _members(batch_y)
    none = torch.empty(0, dtype=torch.long, device=x.device)
    for group, members in of_y.items():
        yield of_x.get(group, none), members


def _members(batch: Tensor) -> dict[int, Tensor]:
    """The points of each group, by index."""
    groups, count = batch.unique(return_counts=True)
    parts = batch.argsort(stable=True).split(count.tolist())
    return dict(zip(groups.tolist(), parts, strict=True))


def _by_tree(x: Tensor) -> bool:
    return x.is_cpu and tree_class() is not None and 0 < x.shape[1] <= TREE_DIMENSIONS


def _distances(y: Tensor, x: Tensor) -> Tensor:
    # The faster product form cancels far from the origin.
    return torch.cdist(y, x, compute_mode="donot_use_mm_for_euclid_dist")


def _rows(count: int, each: int, device: torch.device) -> tuple[Tensor, ...]:
    """So many rows in parts, of a chunk of numbers at most where each row takes so many."""
    return torch.arange(count, device=device).split(max(1, CHUNK_DISTANCES // max(each, 1)))


def _nearest(x: Tensor, y: Tensor, k: int) -> Tensor:
    """[M, k] places in x, nearest first."""
    x, y = x.detach().double(), y.detach().double()
    if _by_tree(x):
        _, found = tree_class()(x.numpy()).query(y.numpy(), k)
        return torch.from_numpy(found).view(len(y), k).long()
    parts = _rows(len(y), len(x), x.device)
    return torch.cat([_distances(y[part], x).topk(k, dim=1, largest=False).indices for part in parts])


def _near(
    x: Tensor, y: Tensor, r: float, batch_x: Tensor | None, batch_y: Tensor | None, most: int | None, loop: bool
) -> Tensor:
    """Pairs as :func:`radius` gives them; without ``loop`` none of equal indices."""
    if not r >= 0:
        raise ValueError(f"a radius is a number from 0, not {r}")
    parts = []
    for of_x, of_y in _groups(x, y, batch_x, batch_y):
        here, there = x[of_x].detach().double(), y[of_y].detach().double()
        for a, b in _candidates(here, there, float(r)):
            # Trees and roots of squares may round, so they only say which pairs to look at.
            near = (there[a] - here[b]).square().sum(dim=1) < float(r) ** 2
            near &= loop | (of_y[a] != of_x[b])
            a, b = a[near], b[near]
            if most is not None:
                count = torch.bincount(a, minlength=len(there))
                first = torch.arange(len(a), device=a.device) - (count.cumsum(0) - count)[a] < most
                a, b = a[first], b[first]
            parts.append(torch.stack([of_y[a], of_x[b]]))
    return _sorted(parts, x)


def _candidates(x: Tensor, y: Tensor, r: float) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs (place in y, place in x) of points nearer than r, and of a few others: a chunk of them at a time, all of a
    point of y in one, by place in x."""
    if not len(x) or not len(y):
        return
    wide = r * (1 + 1e-9)
    if _by_tree(x):
        tree, points = tree_class()(x.numpy()), y.numpy()
        counts = torch.from_numpy(tree.query_ball_point(points, wide, return_length=True))
    if not _by_tree(x) or PAIR_COST * int(counts.sum()) > len(x) * len(y):
        for part in _rows(len(y), len(x), x.device):
            a, b = (_distances(y[part], x) <= wide).nonzero().t()
            yield part[a], b
        return
    for part in torch.arange(len(y)).split(_lengths(counts)):
        found = tree.query_ball_point(points[part.numpy()], wide, return_sorted=True)
        b = torch.tensor(list(itertools.chain.from_iterable(found)), dtype=torch.long)
        yield part.repeat_interleave(counts[part]), b


def _lengths(counts: Tensor) -> list[int]:
    """How many rows in turn have a chunk of pairs together: one at least."""
    chunk = counts.cumsum(0) // CHUNK_PAIRS
    return torch.unique_consecutive(chunk, return_counts=True)[1].tolist()


def _sorted(parts: list[Tensor], like: Tensor) -> Tensor:
    """Pairs by the first row, in the order in which they were found."""
    if not parts:
        return torch.empty(2, 0, dtype=torch.long, device=like.device)
    pairs = torch.cat(parts, dim=1)
    return pairs[:, pairs[0].argsort(stable=True)]
