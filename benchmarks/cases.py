"""What every implementation of a layer is given on a graph: inputs, weights, the gradient that arrives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from graphs import SEED
from programs import Layer
from torch import Tensor


def make_case(layer: Layer, edge_index: Tensor, nodes: int, features: int) -> dict[str, Any]:
    """Inputs, weights and the gradient that arrives at the output, the same for everyone."""
    device = edge_index.device
    random = torch.Generator(device).manual_seed(SEED)

    def draw(shape: Sequence[int], scale: float = 1.0) -> Tensor:
        return torch.randn(tuple(shape), generator=random, device=device) * scale

    weights = {}
    for name, w in layer.weights.items():
        weights[name] = draw(w.shape, w.shape[0] ** -0.5 if len(w.shape) > 1 else 0.1)
        if layer.dgl is not None and w.dgl is None:
            weights[name].zero_()
    if "beta" in weights:
        weights["beta"].fill_(1.0)
    given, result = layer.sizes or (features, features)
    x, grad = draw((nodes, given)), draw((nodes, result))
    rows = {"node": nodes, "edge": edge_index.shape[1]}
    extras = {}
    for name, e in layer.extras.items():
        shape = (rows[e.where], *e.shape)
        extras[name] = (
            torch.rand(shape, generator=random, device=device)
            if e.bound is None
            else torch.randint(e.bound, shape, generator=random, device=device)
        )
    return {"edge_index": edge_index, "num_nodes": nodes, "x": x, "grad": grad, "weights": weights, "extras": extras}
