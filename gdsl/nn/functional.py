"""Penalties for what graphs are represented by. Interface of ``torch_geometric.nn.functional``."""

from __future__ import annotations

import torch
from torch import Tensor

from gdsl.nn.aggr.base import dense_with_mask


def bro(x: Tensor, batch: Tensor, p: int | str = 2) -> Tensor:
    """The mean over graphs of |H H^T - I|_p with their nodes as rows of H. Henderson et al., "Improving Molecular Graph
    Neural Network Explainability with Orthonormalization and Induced Sparsity", ICML 2021, equation 3.

    x:     [N, channels]
    batch: [N] the graph of each node, in order
    p:     of the norm of matrices
    """
    _, group, count = torch.unique(batch, return_inverse=True, return_counts=True)
    rows, here = dense_with_mask(x, group, len(count))
    gap = rows @ rows.transpose(1, 2) - torch.diag_embed(here.to(x.dtype))
    norms: Tensor = torch.norm(gap, p=p, dim=(1, 2))
    return norms.mean()


def gini(w: Tensor) -> Tensor:
    """The mean over rows of sum_jk |w_j - w_k| / (2 (n² - n) mean |w|). Henderson et al., ICML 2021, equation 5.

    w: [N, n]
    """
    count = w.size(-1)
    apart = (w.unsqueeze(-1) - w.unsqueeze(-2)).abs().sum(dim=(-1, -2))
    return (apart / (2 * (count**2 - count) * w.abs().mean(dim=-1) + torch.finfo().eps)).mean()
