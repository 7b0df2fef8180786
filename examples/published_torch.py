"""The layers of published.gdsl in plain torch: each takes the compiled layer, of which it reads the parameters.

    made:   the layer
    edges:  [2, E], from the sources in the first row to the targets in the second
    others: the layer's inputs, by name

Each gives a tuple of tensors.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

import gdsl

Found = tuple[Tensor, ...]


def summed(m: Tensor, at: Tensor, rows: int) -> Tensor:
    """Messages [E, ...] added up at their nodes: [rows, ...]."""
    return m.new_zeros(rows, *m.shape[1:]).index_add(0, at, m)


def egnn(made: gdsl.Layer, edges: Tensor, h: Tensor, p: Tensor, e: Tensor, **_: Any) -> Found:
    j, i = edges
    r = p[i] - p[j]
    m = F.silu(made.phi_e(torch.cat([h[i], h[j], r.square().sum(1, keepdim=True), e], 1)))
    count = torch.bincount(i, minlength=len(h)).clamp(min=1)
    moved = summed(r * made.phi_x(m), i, len(h)) / count[:, None]
    return h + made.phi_h(torch.cat([h, summed(m, i, len(h))], 1)), p + moved
