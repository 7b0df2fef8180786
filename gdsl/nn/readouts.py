"""Readouts of whole graphs: one value for each graph of a batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gdsl.ir.ops.rows import add_at
from gdsl.nn.aggr import MaxAggregation, MeanAggregation, SortAggregation, SumAggregation
from gdsl.nn.grouped import count_in
from gdsl.runtime.together import is_shared, largest, means, most, summed

SUM, MEAN, MAX = SumAggregation(), MeanAggregation(), MaxAggregation()


def readout(aggr: nn.Module, x: Tensor, batch: Tensor | None, size: int | None) -> Tensor:
    """The aggregate of the rows of each graph, [N, ...] to [graphs, ...]; of all rows where there is no ``batch``."""
    if x.dim() == 1:
        return readout(aggr, x.unsqueeze(1), batch, size).squeeze(1)
    if is_shared():
        return _readout_together(aggr, x, batch, size)
    if batch is None and aggr is SUM and size is None and not (x.is_floating_point() or x.is_complex()):
        return x.sum(0, keepdim=True)  # of small whole numbers in 64 bits
    return aggr(x, batch, dim_size=size)


def _readout_together(aggr: nn.Module, x: Tensor, batch: Tensor | None, size: int | None) -> Tensor:
    """Of the nodes of all processes. Equal maxima share the gradient, wherever they are."""
    batch = torch.zeros(len(x), dtype=torch.long, device=x.device) if batch is None else batch
    size = most(count_in(batch), x.device) if size is None else size
    if aggr is MEAN:
        return means(x, batch, size)
    zeros = x.new_zeros(size, *x.shape[1:])
    if aggr is SUM:
        return summed(add_at(x, batch, size))
    index = batch.unsqueeze(1).expand_as(x)
    best = largest((zeros - torch.inf).scatter_reduce(0, index, x.detach(), "amax"))
    won = (x == best[batch]).to(x.dtype)
    ties = summed(zeros.index_add(0, batch, won)).clamp(min=1)
    # Nothing but the gradients of the winners.
    share = summed(add_at(won * (x - x.detach()) / ties[batch], batch, size))
    return torch.where(best == -torch.inf, 0.0, best) + share


def global_add_pool(x: Tensor, batch: Tensor | None, size: int | None = None) -> Tensor:
    """The sum of each graph's nodes: [N, channels] to [graphs, channels].

    batch: [N] the graph of each node; None for one graph
    size:  the number of graphs; without it the largest index plus one
    """
    return readout(SUM, x, batch, size)


def global_mean_pool(x: Tensor, batch: Tensor | None, size: int | None = None) -> Tensor:
    """The mean of each graph's nodes; see :func:`global_add_pool`."""
    return readout(MEAN, x, batch, size)


def global_max_pool(x: Tensor, batch: Tensor | None, size: int | None = None) -> Tensor:
    """The largest of each feature in each graph; see :func:`global_add_pool`."""
    return readout(MAX, x, batch, size)


def global_sort_pool(x: Tensor, index: Tensor, k: int) -> Tensor:
    """The k nodes of each graph with the largest last feature: [N, F] and ``index`` [N], sorted, to [graphs, k * F].

    See :class:`gdsl.nn.aggr.SortAggregation`.
    """
    return SortAggregation(k)(x, index)
