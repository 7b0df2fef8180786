"""Clusters of nodes, and the graphs of clusters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gdsl.nn.grouped import count_in
from gdsl.nn.pool import matching
from gdsl.nn.readouts import MAX, MEAN, readout
from gdsl.nn.sparse import coalesce


def graclus(edge_index: Tensor, weight: Tensor | None = None, num_nodes: int | None = None) -> Tensor:
    """Pairs of neighbours, heavy edges first, as clusters: [2, E] to [N], named by their first node. Dhillon et al.,
    "Weighted Graph Cuts without Eigenvectors", TPAMI 2007, section 4.1.

    weight:    [E]; edges of a negative weight join nothing. Edges of equal weights, or without any, come at random
    num_nodes: without it the largest index plus one

    torch_geometric goes through the nodes at random, and takes the heaviest edge at each; here the heaviest edge of all
    comes first, in torch, in rounds that take many edges at once.
    """
    nodes = count_in(edge_index) if num_nodes is None else num_nodes
    order = torch.randperm(edge_index.shape[1], device=edge_index.device)
    order = order[edge_index[0, order] != edge_index[1, order]]
    if weight is not None:
        order = order[weight[order] >= 0]
        order = order[weight[order].argsort(descending=True, stable=True)]
    ranked = edge_index[:, order]
    pairs = ranked[:, matching(ranked, nodes)]
    cluster = torch.arange(nodes, device=edge_index.device)
    cluster[pairs] = pairs.amin(dim=0)
    return cluster


def voxel_grid(
    pos: Tensor,
    size: float | list[float] | Tensor,
    batch: Tensor | None = None,
    start: float | list[float] | Tensor | None = None,
    end: float | list[float] | Tensor | None = None,
) -> Tensor:
    """The cell of a regular grid of each point: [N, D] to [N]. Simonovsky and Komodakis, CVPR 2017.

    size:       of a cell, in all directions or in each
    batch:      [N] the graph of each point, whose cells are its own
    start, end: of the grid; without them, the least and the largest coordinates
    """
    pos = pos.unsqueeze(1) if pos.dim() == 1 else pos

    def each(value: Any) -> Tensor:
        numbers = torch.as_tensor(value, dtype=pos.dtype, device=pos.device).view(-1)
        return torch.cat([numbers, numbers[-1:].expand(max(pos.size(1) - len(numbers), 0))])[: pos.size(1)]

    width = each(size)
    low = pos.amin(dim=0) if start is None else each(start)
    high = pos.amax(dim=0) if end is None else each(end)
    cells = ((high - low) / width).long() + 1
    stride = cells.cumprod(0)
    cell = (((pos - low) / width).long() * (stride // cells)).sum(dim=1)
    return cell if batch is None else cell + batch * stride[-1]


def _consecutive(cluster: Tensor, batch: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Clusters numbered without gaps, and the graph of each."""
    names, cluster = torch.unique(cluster, return_inverse=True)
    return cluster, None if batch is None else batch.new_empty(len(names)).scatter_(0, cluster, batch)


def _pool_x(
    aggr: nn.Module, cluster: Tensor, x: Tensor, batch: Tensor, batch_size: int | None, size: int | None
) -> tuple[Tensor, Tensor | None]:
    if size is not None:
        graphs = count_in(batch) if batch_size is None else batch_size
        return readout(aggr, x, cluster, graphs * size), None
    cluster, of_graph = _consecutive(cluster, batch)
    return readout(aggr, x, cluster, None), of_graph


def _pool(aggr: nn.Module, cluster: Tensor, data: Any, transform: Callable[[Any], Any] | None) -> Any:
    # Whoever has such data has torch_geometric.
    from torch_geometric.data import Batch

    cluster, batch = _consecutive(cluster, data.batch)
    edges, attributes = cluster[data.edge_index], data.edge_attr
    between = edges[0] != edges[1]
    edges, attributes = edges[:, between], None if attributes is None else attributes[between]
    edges, attributes = coalesce(edges, attributes, len(cluster))
    pooled = Batch(
        batch=batch,
        x=None if data.x is None else readout(aggr, data.x, cluster, None),
        edge_index=edges,
        edge_attr=attributes,
        pos=None if data.pos is None else readout(MEAN, data.pos, cluster, None),
    )
    return pooled if transform is None else transform(pooled)


def _pool_neighbors(aggr: nn.Module, data: Any, flow: str) -> Any:
    own = torch.arange(data.num_nodes, device=data.edge_index.device).expand(2, -1)
    edges = torch.cat([data.edge_index, own], dim=1)
    source, target = edges if flow == "source_to_target" else edges.flip(0)
    data.x = readout(aggr, data.x[source], target, data.num_nodes)
    return data


def max_pool_x(
    cluster: Tensor, x: Tensor, batch: Tensor, batch_size: int | None = None, size: int | None = None
) -> tuple[Tensor, Tensor | None]:
    """The largest of each feature in each cluster: [N, channels] to [K, channels], and the graph [K] of each cluster.

    cluster:    [N] the cluster of each node
    batch:      [N] the graph of each node
    batch_size: the number of graphs; without it the largest index plus one
    size:       the number of clusters of each graph, where all have a number of their own; there is no second result
    """
    return _pool_x(MAX, cluster, x, batch, batch_size, size)


def avg_pool_x(
    cluster: Tensor, x: Tensor, batch: Tensor, batch_size: int | None = None, size: int | None = None
) -> tuple[Tensor, Tensor | None]:
    """The mean of each cluster; see :func:`max_pool_x`."""
    return _pool_x(MEAN, cluster, x, batch, batch_size, size)


def max_pool(cluster: Tensor, data: Any, transform: Callable[[Any], Any] | None = None) -> Any:
    """The graph of clusters: the largest features, mean positions, and the sums of the edges' features.

    cluster:   [N] the cluster of each node
    data:      a ``torch_geometric.data.Data``; the result is one of a batch
    transform: what the result goes through
    """
    return _pool(MAX, cluster, data, transform)


def avg_pool(cluster: Tensor, data: Any, transform: Callable[[Any], Any] | None = None) -> Any:
    """:func:`max_pool` with the mean features."""
    return _pool(MEAN, cluster, data, transform)


def max_pool_neighbor_x(data: Any, flow: str = "source_to_target") -> Any:
    """The features of ``data`` replaced by the largest of a node and its neighbours."""
    return _pool_neighbors(MAX, data, flow)


def avg_pool_neighbor_x(data: Any, flow: str = "source_to_target") -> Any:
    """The features of ``data`` replaced by the mean of a node and its neighbours."""
    return _pool_neighbors(MEAN, data, flow)
