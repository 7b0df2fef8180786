"""A graph layer that is trained to give the centres of classes back."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout

from gdsl.nn.conv.gcn import GCNConv
from gdsl.nn.conv.inputs import Adjacency
from gdsl.nn.declared import InitVar, Module, declared, redraw, words
from gdsl.nn.readouts import global_mean_pool


@declared
class RECT_L(Module):
    """W gcn(x) + b, to be near what the features of a class are on the mean. Wang et al., "Network Embedding with
    Completely-Imbalanced Labels", TKDE 2020, section 4.1.

    in_channels, hidden_channels: sizes
    normalize: whether the graph layer adds self-loops and divides by the degrees
    dropout:   of its results, in training
    """

    in_channels: int
    hidden_channels: int
    normalize: InitVar[bool] = True
    dropout: float = 0.0

    def _setup(self) -> None:
        self.conv = GCNConv(self.in_channels, self.hidden_channels, normalize=self.normalize)
        self.lin = nn.Linear(self.hidden_channels, self.in_channels)

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        redraw(self)
        nn.init.xavier_uniform_(self.lin.weight.data)

    def forward(self, x: Tensor, edge_index: Adjacency, edge_weight: Tensor | None = None) -> Tensor:
        """[N, in_channels] and weights [E] to [N, in_channels]."""
        found: Tensor = self.lin(dropout(self.conv(x, edge_index, edge_weight), self.dropout, self.training))
        return found

    @torch.no_grad()
    def embed(self, x: Tensor, edge_index: Adjacency, edge_weight: Tensor | None = None) -> Tensor:
        """What the graph layer gives: [N, hidden_channels]."""
        found: Tensor = self.conv(x, edge_index, edge_weight)
        return found

    @torch.no_grad()
    def get_semantic_labels(self, x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
        """For each node of ``mask`` the mean features of those of its class ``y`` [N]."""
        y = y[mask]
        return global_mean_pool(x[mask], y, int(y.max()) + 1)[y]

    __repr__ = words("{self.in_channels}, {self.hidden_channels}")
