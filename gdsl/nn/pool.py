"""Readouts of whole graphs, and poolings that keep a part of the nodes. Interface of ``torch_geometric.nn.pool``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gdsl.nn.aggr import MaxAggregation, MeanAggregation, SumAggregation
from gdsl.nn.conv.simple import GraphConv, activation
from gdsl.nn.inits import uniform
from gdsl.nn.message_passing import softmax

Pooled = tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor, Tensor]

_SUM, _MEAN, _MAX = SumAggregation(), MeanAggregation(), MaxAggregation()


def _readout(aggr: nn.Module, x: Tensor, batch: Tensor | None, size: int | None) -> Tensor:
    if x.dim() == 1:
        return _readout(aggr, x.unsqueeze(1), batch, size).squeeze(1)
    result: Tensor = aggr(x, batch, dim_size=size)
    return result


def global_add_pool(x: Tensor, batch: Tensor | None, size: int | None = None) -> Tensor:
    """The sum of each graph's nodes: [N, channels] to [graphs, channels].

    batch: [N] the graph of each node; None for one graph
    size:  the number of graphs; without it the largest index plus one
    """
    return _readout(_SUM, x, batch, size)


def global_mean_pool(x: Tensor, batch: Tensor | None, size: int | None = None) -> Tensor:
    """The mean of each graph's nodes; see :func:`global_add_pool`."""
    return _readout(_MEAN, x, batch, size)


def global_max_pool(x: Tensor, batch: Tensor | None, size: int | None = None) -> Tensor:
    """The largest of each feature in each graph; see :func:`global_add_pool`."""
    return _readout(_MAX, x, batch, size)


def topk(
    score: Tensor, ratio: float | None, batch: Tensor, min_score: float | None = None, tol: float = 1e-7
) -> Tensor:
    """The nodes of the best scores of each graph, best first.

    ratio:     the part of a graph's nodes, rounded up, or their number from 1
    min_score: keeps those above it, and at least one a graph

    Raises ValueError without either.
    """
    if min_score is not None:
        best = score.new_full((int(batch.max()) + 1,), float("-inf")).scatter_reduce(0, batch, score, "amax")
        return (score > (best[batch] - tol).clamp(max=min_score)).nonzero().view(-1)
    if ratio is None:
        raise ValueError("At least one of the 'ratio' and 'min_score' parameters must be specified")
    count = torch.bincount(batch)
    most = (float(ratio) * count.to(score.dtype)).ceil().long()
    kept = count.new_full(count.shape, int(ratio)) if ratio >= 1 else most
    order = score.view(-1).argsort(descending=True)
    group, again = batch[order].sort(stable=True)
    place = torch.arange(len(group), device=group.device) - (count.cumsum(0) - count)[group]
    return order[again[place < kept[group]]]


def filter_adj(
    edge_index: Tensor, edge_attr: Tensor | None, nodes: Tensor, num_nodes: int
) -> tuple[Tensor, Tensor | None]:
    """The edges between kept nodes, which are numbered in their new order."""
    place = nodes.new_full((num_nodes,), -1)
    place[nodes] = torch.arange(len(nodes), device=nodes.device)
    moved = place[edge_index]
    kept = (moved >= 0).all(dim=0)
    return moved[:, kept], None if edge_attr is None else edge_attr[kept]


class SelectTopK(nn.Module):
    """A learned score of each node, and the nodes that it keeps; see :class:`TopKPooling`."""

    def __init__(
        self,
        in_channels: int,
        ratio: float | None = 0.5,
        min_score: float | None = None,
        act: str | Callable[[Tensor], Tensor] = "tanh",
    ):
        super().__init__()
        if ratio is None and min_score is None:
            raise ValueError(
                f"At least one of the 'ratio' and 'min_score' parameters must be specified in '{type(self).__name__}'"
            )
        self.in_channels = in_channels
        self.ratio = ratio
        self.min_score = min_score
        self.act: Any = activation(act)
        self.weight = nn.Parameter(torch.empty(1, in_channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weight anew."""
        uniform(self.in_channels, self.weight)

    def forward(self, x: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
        """[N, channels] to the kept nodes [K] and their scores [K]."""
        x = x.view(-1, 1) if x.dim() == 1 else x
        score = (x * self.weight).sum(dim=-1)
        if self.min_score is None:
            score = self.act(score / self.weight.norm(p=2, dim=-1))
        else:
            score = softmax(score, batch)
        nodes = topk(score, self.ratio, batch, self.min_score)
        return nodes, score[nodes]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_channels}, {_part(self)})"


def _part(pooling: Any) -> str:
    return f"ratio={pooling.ratio}" if pooling.min_score is None else f"min_score={pooling.min_score}"


class TopKPooling(nn.Module):
    """Keeps the nodes of the best scores x . w / |w|, times these. Gao and Ji, "Graph U-Nets", ICML 2019, equation 2.

    in_channels:  size of the features
    ratio:        the part of a graph's nodes that is kept, rounded up, or their number from 1
    min_score:    keeps those with a softmax above it instead
    multiplier:   of what is kept
    nonlinearity: of the score: the name of a class of torch.nn, or a function

    Raises ValueError without a ratio and a least score. It runs in torch: which nodes it keeps is known from values
    alone.
    """

    def __init__(
        self,
        in_channels: int,
        ratio: float = 0.5,
        min_score: float | None = None,
        multiplier: float = 1.0,
        nonlinearity: str | Callable[[Tensor], Tensor] = "tanh",
    ):
        super().__init__()
        self.in_channels = in_channels
        self.ratio = ratio
        self.min_score = min_score
        self.multiplier = multiplier
        self.select = SelectTopK(in_channels, ratio, min_score, nonlinearity)

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        self.select.reset_parameters()

    def forward(
        self,
        x: Tensor,
        edge_index: Tensor,
        edge_attr: Tensor | None = None,
        batch: Tensor | None = None,
        attn: Tensor | None = None,
    ) -> Pooled:
        """[N, channels] to (x, edge_index, edge_attr, batch, nodes, scores) of the K nodes that are kept.

        batch: [N] the graph of each node
        attn:  [N, channels] what is scored instead of x
        """
        batch = edge_index.new_zeros(x.size(0)) if batch is None else batch
        nodes, score = self.select(self.scored(x if attn is None else attn, edge_index), batch)
        kept = x[nodes] * score.view(-1, 1)
        edges, attributes = filter_adj(edge_index, edge_attr, nodes, x.size(0))
        return self.multiplier * kept, edges, attributes, batch[nodes], nodes, score

    def scored(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """What the scores are made of."""
        return x

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_channels}, {_part(self)}, multiplier={self.multiplier})"


class SAGPooling(TopKPooling):
    """:class:`TopKPooling` with scores from a graph layer. Lee et al., "Self-Attention Graph Pooling", ICML 2019.

    GNN:      the class of the layer; :class:`GraphConv` by default
    **kwargs: of that layer
    Other arguments as in :class:`TopKPooling`.
    """

    def __init__(
        self,
        in_channels: int,
        ratio: float = 0.5,
        GNN: Callable[..., nn.Module] = GraphConv,
        min_score: float | None = None,
        multiplier: float = 1.0,
        nonlinearity: str | Callable[[Tensor], Tensor] = "tanh",
        **kwargs: Any,
    ):
        super().__init__(1, ratio, min_score, multiplier, nonlinearity)
        self.in_channels = in_channels
        select = self.select
        del self.select  # the layer comes first, as in torch_geometric's state
        self.gnn: Any = GNN(in_channels, 1, **kwargs)
        self.select = select

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        self.gnn.reset_parameters()
        super().reset_parameters()

    def scored(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """The layer's result."""
        y: Tensor = self.gnn(x.view(-1, 1) if x.dim() == 1 else x, edge_index)
        return y

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({type(self.gnn).__name__}, {self.in_channels}, {_part(self)}, "
            f"multiplier={self.multiplier})"
        )


def dense_diff_pool(
    x: Tensor, adj: Tensor, s: Tensor, mask: Tensor | None = None, normalize: bool = True
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Nodes as mixtures of clusters. Ying et al., "Hierarchical Graph Representation Learning with Differentiable
    Pooling", NeurIPS 2018, equations 3 and 4, with its two losses.

    x:         [B, N, channels]
    adj:       [B, N, N]
    s:         [B, N, C] scores of clusters
    mask:      [B, N] which nodes there are
    normalize: whether to divide the link loss by the size of ``adj``

    Gives (x [B, C, channels], adj [B, C, C], link loss, entropy). All is dense: plain torch.
    """
    x, adj, s = (t.unsqueeze(0) if t.dim() == 2 else t for t in (x, adj, s))
    s = torch.softmax(s, dim=-1)
    if mask is not None:
        here = mask.view(x.size(0), x.size(1), 1).to(x.dtype)
        x, s = x * here, s * here
    turned = s.transpose(1, 2)
    link = torch.norm(adj - s @ turned, p=2)
    link = link / adj.numel() if normalize else link
    entropy = (-s * torch.log(s + 1e-15)).sum(dim=-1).mean()
    return turned @ x, turned @ adj @ s, link, entropy
