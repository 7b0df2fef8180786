"""Poolings to clusters: of nodes that good edges join, or of nodes that are near to learned points."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from gdsl.nn.aggr.base import dense_with_mask
from gdsl.nn.conv.base import Programmed
from gdsl.nn.declared import redraw, words
from gdsl.nn.grouped import count_in
from gdsl.nn.sparse import coalesce, refuse_graph
from gdsl.nn.unpool import SUM

EPS = 1e-15


class MemPooling(nn.Module):
    """Nodes as mixtures of clusters by their distances to keys, in several heads. Khasahmadi et al., "Memory-Based
    Graph Networks", ICLR 2020, equations 1 to 4.

    in_channels, out_channels: sizes
    heads:                     number of heads
    num_clusters:              number of keys of each
    tau:                       degrees of freedom of Student's distribution

    It runs in torch: no edge is in it.
    """

    def __init__(self, in_channels: int, out_channels: int, heads: int, num_clusters: int, tau: float = 1.0):
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.heads = heads
        self.num_clusters = num_clusters
        self.tau = tau
        self.k = nn.Parameter(torch.empty(heads, num_clusters, in_channels))
        self.conv = nn.Conv2d(heads, 1, kernel_size=1, padding=0, bias=False)
        self.lin = nn.Linear(in_channels, out_channels, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        nn.init.uniform_(self.k.data, -1.0, 1.0)
        self.conv.reset_parameters()
        self.lin.reset_parameters()

    @staticmethod
    def kl_loss(S: Tensor) -> Tensor:
        """The divergence of mixtures [B, N, K] from sharper ones. Equations 8 and 9."""
        sharp = S**2 / S.sum(dim=1, keepdim=True)
        total = sharp.sum(dim=2, keepdim=True)
        sharp = sharp / total.masked_fill(S.sum(dim=2, keepdim=True) == 0.0, 1.0)
        return functional.kl_div(S.clamp(EPS).log(), sharp.clamp(EPS), reduction="batchmean")

    def forward(
        self,
        x: Tensor,
        batch: Tensor | None = None,
        mask: Tensor | None = None,
        max_num_nodes: int | None = None,
        batch_size: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """[N, in_channels], or [B, N, in_channels], to clusters [B, num_clusters, out_channels] and mixtures [B, N,
        num_clusters].

        batch: [N] the graph of each node, in order
        mask:  [B, N] which nodes there are, in a block
        max_num_nodes, batch_size: nodes of a graph, and graphs; as many as there are without them
        """
        if x.dim() <= 2:
            batch = x.new_zeros(len(x), dtype=torch.long) if batch is None else batch
            x, mask = dense_with_mask(x, batch, max(count_in(batch), batch_size or 0), most=max_num_nodes)
        square = torch.cdist(self.k.flatten(0, 1), x.flatten(0, 1)) ** 2
        near = (1.0 + square / self.tau).pow(-(self.tau + 1.0) / 2.0)
        near = near.unflatten(1, x.shape[:2]).unflatten(0, self.k.shape[:2]).permute(2, 0, 3, 1)
        mix = self.conv(near / near.sum(dim=-1, keepdim=True)).squeeze(dim=1).softmax(dim=-1)
        mix = mix if mask is None else mix * mask.unsqueeze(-1)
        return self.lin(mix.transpose(1, 2) @ x), mix

    __repr__ = words("{self.in_channels}, {self.out_channels}, heads={self.heads}, num_clusters={self.num_clusters}")


class ClusterUnpoolInfo(NamedTuple):
    """What led to clusters: the edges without loops, and the cluster and the graph of each node."""

    edge_index: Tensor
    cluster: Tensor
    batch: Tensor


class ClusterPooling(Programmed):
    """Contracts all edges of good scores: what they join becomes one node. Snelleman et al., "Edge-Based Graph
    Component Pooling", 2024.

    in_channels:       size of the features
    edge_score_method: "tanh", "sigmoid" or "log_softmax", over all edges
    dropout:           of the scores before it, in training
    threshold:         above which an edge is contracted; None stands for 0.5 of a sigmoid, and 0 of others

    The scores and the sums are programs; which nodes are joined is known from values alone, and runs in torch.

    Raises AssertionError for another method.
    """

    program_name = "edge_pool"
    methods = ("tanh", "sigmoid", "log_softmax")

    def __init__(
        self, in_channels: int, edge_score_method: str = "tanh", dropout: float = 0.0, threshold: float | None = None
    ):
        super().__init__(None)
        assert edge_score_method in self.methods, f"scores are of {self.methods}, not '{edge_score_method}'"
        if threshold is None:
            threshold = 0.5 if edge_score_method == "sigmoid" else 0.0
        self.in_channels = in_channels
        self.edge_score_method = edge_score_method
        self.dropout = dropout
        self.threshold = threshold
        self.lin = nn.Linear(2 * in_channels, 1)

    reset_parameters = redraw

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> tuple[Tensor, Tensor, Tensor, ClusterUnpoolInfo]:
        """[N, in_channels] to (x, edge_index, batch, what led to them) of the K clusters; batch: [N] the graph of each
        node.
        """
        refuse_graph(self, edge_index)
        nodes = x.size(0)
        edges = edge_index[:, edge_index[0] != edge_index[1]]
        graph, _ = self.graph(edges, nodes, nodes)
        raw = functional.dropout(self.run(graph, {"x": x}, how="none", p=0.0, shift=0.0), self.dropout, self.training)
        how = self.edge_score_method
        score = raw.log_softmax(dim=0) if how == "log_softmax" else getattr(raw, how)()
        contracted = edges[:, score > self.threshold]
        cluster, count = components(contracted, nodes)
        # Each cluster has what its nodes get along the edges, and the nodes that no contracted edge has themselves.
        alone = torch.ones(nodes, dtype=torch.bool, device=x.device).index_fill(0, contracted.flatten(), False)
        loops = alone.nonzero().view(-1)
        into = torch.stack([torch.cat([edges[0], loops]), cluster[torch.cat([edges[1], loops])]])
        pooled = SUM((x, None), into, torch.cat([score, score.new_ones(len(loops))]), size=(nodes, count))
        found, _ = coalesce(cluster[edges], None, count)
        found = found[:, found[0] != found[1]]
        of_graph = batch.new_empty(count).scatter_(0, cluster, batch)
        return pooled, found, of_graph, ClusterUnpoolInfo(edges, cluster, batch)

    __repr__ = words("{self.in_channels}")


def components(edge_index: Tensor, num_nodes: int) -> tuple[Tensor, int]:
    """The component of each node, whichever way the edges go, numbered by their first nodes; and how many there are."""
    first = torch.arange(num_nodes, device=edge_index.device)
    ends, others = torch.cat([edge_index, edge_index.flip(0)], dim=1)
    while True:
        lower = first.scatter_reduce(0, ends, first[others], "amin")
        lower = lower[lower]  # what the first node knows
        if torch.equal(lower, first):
            break
        first = lower
    names, cluster = torch.unique(first, return_inverse=True)
    return cluster, len(names)
