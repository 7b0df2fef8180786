"""Features of points from those of others. Interface of ``torch_geometric.nn.unpool``."""

from __future__ import annotations

import torch
from torch import Tensor

from gdsl.ir.ops.rows import add_at
from gdsl.nn.conv.simple import SimpleConv
from gdsl.nn.neighbors import knn

SUM = SimpleConv("sum")


def knn_interpolate(
    x: Tensor,
    pos_x: Tensor,
    pos_y: Tensor,
    batch_x: Tensor | None = None,
    batch_y: Tensor | None = None,
    k: int = 3,
    num_workers: int = 1,
) -> Tensor:
    """The mean of the features of the k nearest points, by the inverse squares of their distances. Qi et al.,
    "PointNet++", NeurIPS 2017, equation 2.

    x:                [N, channels] the features of the points at ``pos_x`` [N, d]
    pos_y:            [M, d] the points that have none: the result is [M, channels], of the wider dtype of x and pos_x
    batch_x, batch_y: [N] and [M] the group of each point: neighbours are of the same group
    k:                the number of neighbours
    num_workers:      accepted for torch_geometric's sake

    No gradient goes to the positions. Raises what :func:`gdsl.nn.knn` raises.
    """
    with torch.no_grad():
        to, of = knn(pos_x, pos_y, k, batch_x, batch_y)
        weight = (pos_x[of] - pos_y[to]).square().sum(dim=-1).clamp(min=1e-16).reciprocal()
        total = add_at(weight, to, len(pos_y))
    # Weights of points that coincide are beyond float16, and no whole numbers.
    wide = torch.promote_types(x.dtype, weight.dtype)
    found: Tensor = SUM((x.to(wide), None), torch.stack([of, to]), weight.to(wide), size=(len(pos_x), len(pos_y)))
    return found / total.to(wide).unsqueeze(1)
