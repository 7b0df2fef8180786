"""Frames around a user's own models, and labels among the inputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gdsl.nn.declared import declared, redraw, words


@declared
class MetaLayer(nn.Module):
    """Models of edges, of nodes and of whole graphs, one after the other. Battaglia et al., "Relational Inductive
    Biases, Deep Learning, and Graph Networks", 2018, algorithm 1.

    edge_model:   of (sources, targets, edge_attr, u, batch of the edges)
    node_model:   of (x, edge_index, edge_attr, u, batch)
    global_model: of the same
    """

    edge_model: nn.Module | None = None
    node_model: nn.Module | None = None
    global_model: nn.Module | None = None

    def reset_parameters(self) -> None:
        """Draw the parameters of the models anew."""
        model: Any
        for model in (self.node_model, self.edge_model, self.global_model):
            if hasattr(model, "reset_parameters"):
                model.reset_parameters()

    def forward(
        self,
        x: Tensor,
        edge_index: Tensor,
        edge_attr: Tensor | None = None,
        u: Tensor | None = None,
        batch: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Features of nodes [N, ...], edges [E, ...] and graphs [B, ...] to new ones; batch: [N] the graph of each
        node.
        """
        source, target = edge_index[0], edge_index[1]
        if self.edge_model is not None:
            of_edge = None if batch is None else batch[source]
            edge_attr = self.edge_model(x[source], x[target], edge_attr, u, of_edge)
        if self.node_model is not None:
            x = self.node_model(x, edge_index, edge_attr, u, batch)
        if self.global_model is not None:
            u = self.global_model(x, edge_index, edge_attr, u, batch)
        return x, edge_attr, u

    def __repr__(self) -> str:
        names = ("edge_model", "node_model", "global_model")
        parts = ",\n".join(f"  {name}={getattr(self, name)}" for name in names)
        return f"{type(self).__name__}(\n{parts}\n)"


class MaskLabel(nn.Module):
    """Embeddings of known labels among the features. Shi et al., "Masked Label Prediction: Unified Message Passing
    Model for Semi-Supervised Classification", IJCAI 2021, section 3.2.

    num_classes:  number of classes
    out_channels: size of an embedding
    method:       "add" to the features, or "concat"

    Raises ValueError for another method.
    """

    def __init__(self, num_classes: int, out_channels: int, method: str = "add"):
        super().__init__()
        if method not in ("add", "concat"):
            raise ValueError(f"'method' must be either 'add' or 'concat' (got '{method}')")
        self.method = method
        self.emb = nn.Embedding(num_classes, out_channels)
        self.reset_parameters()

    reset_parameters = redraw

    def forward(self, x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
        """Features [N, channels], labels [N] and which of them are known [N] to features."""
        known = x.new_zeros(y.size(0), self.emb.embedding_dim).index_put((mask,), self.emb(y[mask]))
        return torch.cat([x, known], dim=-1) if self.method == "concat" else x + known

    @staticmethod
    def ratio_mask(mask: Tensor, ratio: float) -> Tensor:
        """A part of what a mask has, drawn by chance."""
        kept = torch.rand(int(mask.sum()), device=mask.device) < ratio
        return mask.masked_scatter(mask, kept)

    __repr__ = words("")
