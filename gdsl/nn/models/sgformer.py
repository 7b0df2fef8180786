"""A graph layer beside attention over all nodes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from gdsl.module.meeting import meeting, must_meet
from gdsl.nn.attention import SGFormerAttention, blocks_of_graphs
from gdsl.nn.conv.gcn import GCNConv
from gdsl.nn.conv.inputs import Adjacency
from gdsl.nn.declared import redraw
from gdsl.nn.grouped import count_in
from gdsl.runtime.together import most, norms_over_all


class _Half(nn.Module):
    """A linear map and layers after it, each with a norm, a relu and dropout."""

    fcs: nn.ModuleList
    bns: nn.ModuleList

    def __init__(self, dropout: float):
        super().__init__()
        self.dropout = dropout

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        layers: Any = self._modules.get("convs") or self._modules.get("attns") or ()
        for part in (*layers, *self.bns, *self.fcs):
            part.reset_parameters()

    def finish(self, k: int, x: Tensor) -> Tensor:
        """What comes after each layer."""
        return functional.dropout(self.bns[k](x).relu(), self.dropout, self.training)


class GraphModule(_Half):
    """Layers :class:`GCNConv`; the features before them are added to each."""

    def __init__(self, in_channels: int, hidden_channels: int, num_layers: int = 2, dropout: float = 0.5):
        super().__init__(dropout)
        self.convs = nn.ModuleList()
        self.fcs = nn.ModuleList([nn.Linear(in_channels, hidden_channels)])
        self.bns = nn.ModuleList([nn.BatchNorm1d(hidden_channels)])
        for _ in range(num_layers):
            self.convs.append(GCNConv(hidden_channels, hidden_channels))
            self.bns.append(nn.BatchNorm1d(hidden_channels))

    def forward(self, x: Tensor, edge_index: Adjacency) -> Tensor:
        """[N, in_channels] to [N, hidden_channels]."""
        if must_meet(self, edge_index):
            with meeting(self, edge_index, x), norms_over_all(self.bns):
                return self.forward(x, edge_index)
        x = first = self.finish(0, self.fcs[0](x))
        for k, conv in enumerate(self.convs):
            x = self.finish(k + 1, conv(x, edge_index)) + first
        return x


class SGModule(_Half):
    """Attention over all nodes of each graph; the mean with the features before it is kept."""

    def __init__(
        self, in_channels: int, hidden_channels: int, num_layers: int = 2, num_heads: int = 1, dropout: float = 0.5
    ):
        super().__init__(dropout)
        self.attns = nn.ModuleList()
        self.fcs = nn.ModuleList([nn.Linear(in_channels, hidden_channels)])
        self.bns = nn.ModuleList([nn.LayerNorm(hidden_channels)])
        for _ in range(num_layers):
            self.attns.append(SGFormerAttention(hidden_channels, num_heads, hidden_channels))
            self.bns.append(nn.LayerNorm(hidden_channels))

    def forward(self, x: Tensor, batch: Tensor) -> Tensor:
        """[N, in_channels] and the graph of each node [N], in any order, to [N, hidden_channels]."""
        batch, order = batch.sort(stable=True)
        x, known = blocks_of_graphs(x[order], batch, most(count_in(batch), x.device))  # also of graphs elsewhere
        x = self.finish(0, self.fcs[0](x))
        for k, attn in enumerate(self.attns):
            x = self.finish(k + 1, (attn(x, known) + x) / 2)
        return x[known][order.argsort()]


class SGFormer(nn.Module):
    """Graph layers and attention over all nodes side by side. Wu et al., "SGFormer: Simplifying and Empowering
    Transformers for Large-Graph Representations", NeurIPS 2023, section 4.

    in_channels, hidden_channels, out_channels: sizes
    trans_num_layers, trans_num_heads, trans_dropout: of the attention, :class:`SGFormerAttention`
    gnn_num_layers, gnn_dropout: of the layers, :class:`GCNConv`
    graph_weight: the part of the layers in the sum
    aggregate:    "add", or "cat" to join both

    Raises ValueError for another ``aggregate``.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int,
        trans_num_layers: int = 2,
        trans_num_heads: int = 1,
        trans_dropout: float = 0.5,
        gnn_num_layers: int = 3,
        gnn_dropout: float = 0.5,
        graph_weight: float = 0.5,
        aggregate: str = "add",
    ):
        super().__init__()
        if aggregate not in ("add", "cat"):
            raise ValueError(f"Invalid aggregate type:{aggregate}")
        self.trans_conv = SGModule(in_channels, hidden_channels, trans_num_layers, trans_num_heads, trans_dropout)
        self.graph_conv = GraphModule(in_channels, hidden_channels, gnn_num_layers, gnn_dropout)
        self.graph_weight = graph_weight
        self.aggregate = aggregate
        self.fc = nn.Linear(hidden_channels * (1 if aggregate == "add" else 2), out_channels)
        self.out_channels = out_channels

    @property
    def params1(self) -> list[nn.Parameter]:
        """The parameters of the attention, which the paper trains with a weight decay of their own."""
        return [*self.trans_conv.parameters()]

    @property
    def params2(self) -> list[nn.Parameter]:
        """All others."""
        return [*self.graph_conv.parameters(), *self.fc.parameters()]

    reset_parameters = redraw

    def forward(self, x: Tensor, edge_index: Adjacency, batch: Tensor | None) -> Tensor:
        """[N, in_channels] and the graph of each node [N], or None for one graph, to logarithms of probabilities,
        [N, out_channels].
        """
        if must_meet(self, edge_index):
            with meeting(self, edge_index, x, batch), norms_over_all(self.graph_conv.bns):
                return self.forward(x, edge_index, batch)
        batch = x.new_zeros(len(x), dtype=torch.long) if batch is None else batch
        whole, near = self.trans_conv(x, batch), self.graph_conv(x, edge_index)
        if self.aggregate == "add":
            both = self.graph_weight * near + (1 - self.graph_weight) * whole
        else:
            both = torch.cat([whole, near], dim=1)
        return functional.log_softmax(self.fc(both), dim=-1)
