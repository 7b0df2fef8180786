"""Poolings to clusters of which every node is a mixture, on dense adjacencies: products of matrices, in torch."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from gdsl.nn.declared import redraw, words
from gdsl.nn.models.mlp import MLP

EPS = 1e-15


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

    Gives (x [B, C, channels], adj [B, C, C], link loss, entropy).
    """
    x, adj, s = _mixed(x, adj, s, mask)
    turned = s.transpose(1, 2)
    link = torch.norm(adj - s @ turned, p=2)
    link = link / adj.numel() if normalize else link
    entropy = (-s * torch.log(s + EPS)).sum(dim=-1).mean()
    return turned @ x, turned @ adj @ s, link, entropy


def dense_mincut_pool(
    x: Tensor, adj: Tensor, s: Tensor, mask: Tensor | None = None, temp: float = 1.0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Clusters that few edges leave. Bianchi et al., "Spectral Clustering with Graph Neural Networks for Graph
    Pooling", ICML 2020, equations 8 to 10.

    temp: what the scores are divided by
    Other arguments as in :func:`dense_diff_pool`.

    Gives (x [B, C, channels], adj [B, C, C] without loops and normalised, cut loss, orthogonality loss).
    """
    x, adj, s = _mixed(x, adj, s if temp == 1.0 else s / temp, mask)
    turned = s.transpose(1, 2)
    pooled = turned @ adj @ s
    degrees = adj.sum(dim=-1)
    cut = -(_trace(pooled) / (degrees.unsqueeze(-1) * s.square()).sum(dim=(1, 2))).mean()
    return turned @ x, _normalised(pooled), cut, _orthogonality(turned @ s)


class DMoNPooling(nn.Module):
    """Clusters of a large modularity. Tsitsulin et al., "Graph Clustering with Graph Neural Networks", JMLR 2023,
    section 4.

    channels: size of the features, or sizes of a perceptron's layers before its last
    k:        number of clusters
    dropout:  of the scores, in training
    """

    def __init__(self, channels: int | list[int], k: int, dropout: float = 0.0):
        super().__init__()
        sizes = [channels] if isinstance(channels, int) else channels
        self.mlp = MLP([*sizes, k], act=None, norm=None)
        self.dropout = dropout
        self.reset_parameters()

    reset_parameters = redraw

    def forward(
        self, x: Tensor, adj: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """[B, N, channels], [B, N, N] and which nodes there are [B, N] to (mixtures [B, N, k], x [B, k, channels], adj
        [B, k, k] without loops and normalised, spectral loss, orthogonality loss, cluster loss).
        """
        x = x.unsqueeze(0) if x.dim() == 2 else x
        score = functional.dropout(self.mlp(x), self.dropout, self.training)
        x, adj, s = _mixed(x, adj, score, mask)
        turned = s.transpose(1, 2)
        pooled = turned @ adj @ s
        here = x.new_ones(x.shape[:2]) if mask is None else mask.view(x.shape[:2]).to(x.dtype)
        degrees = adj.sum(dim=-1) * here
        edges = degrees.sum(dim=1) / 2
        # The trace of s^T (A - d d^T / 2m) s: of the second, the sum of the squares of what each cluster has of d.
        within = (degrees.unsqueeze(1) @ s).square().sum(dim=(1, 2)) / 2 / edges
        spectral = (-(_trace(pooled) - within) / 2 / edges).mean()
        sizes = s.sum(dim=1)
        cluster = (sizes.norm(dim=1) / here.sum(dim=1) * s.size(-1) ** 0.5 - 1).mean()
        found = functional.selu(turned @ x)
        return s, found, _normalised(pooled), spectral, _orthogonality(turned @ s), cluster

    __repr__ = words("{self.mlp.in_channels}, num_clusters={self.mlp.out_channels}")


def _mixed(x: Tensor, adj: Tensor, s: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Features, adjacencies and mixtures with a dim of graphs, zeros for the nodes that there are not."""
    x, adj, s = (t.unsqueeze(0) if t.dim() == 2 else t for t in (x, adj, s))
    s = s.softmax(dim=-1)
    if mask is None:
        return x, adj, s
    here = mask.view(x.size(0), x.size(1), 1).to(x.dtype)
    return x * here, adj, s * here


def _trace(x: Tensor) -> Tensor:
    return x.diagonal(dim1=-2, dim2=-1).sum(dim=-1)


def _orthogonality(ss: Tensor) -> Tensor:
    """How far clusters [B, C, C] are from being apart and of one size."""
    count = ss.size(-1)
    even = torch.eye(count, dtype=ss.dtype, device=ss.device) / count**0.5
    return (ss / ss.norm(dim=(-1, -2), keepdim=True) - even).norm(dim=(-1, -2)).mean()


def _normalised(adj: Tensor) -> Tensor:
    """D^{-1/2} A D^{-1/2} without loops."""
    adj = adj.masked_fill(torch.eye(adj.size(-1), dtype=torch.bool, device=adj.device), 0.0)
    root = adj.sum(dim=-1).sqrt() + EPS
    return adj / root.unsqueeze(1) / root.unsqueeze(2)
