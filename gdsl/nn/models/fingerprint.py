"""Vectors that tell what there is in a molecule."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from gdsl.module.meeting import meeting, must_meet
from gdsl.nn.conv.inputs import Adjacency
from gdsl.nn.conv.simple import MFConv
from gdsl.nn.declared import Module, declared, redraw, words
from gdsl.nn.linear import Linear
from gdsl.nn.readouts import global_add_pool


@declared(rest="kwargs", drawn=False)
class NeuralFingerprint(Module):
    """The sum over layers and nodes of softmax(W sigmoid(conv(x))). Duvenaud et al., "Convolutional Networks on Graphs
    for Learning Molecular Fingerprints", NeurIPS 2015, algorithm 2.

    in_channels, hidden_channels, out_channels: sizes of inputs, between layers, and of a fingerprint
    num_layers: number of layers MFConv
    **kwargs:   of :class:`gdsl.nn.MFConv`
    """

    in_channels: int
    hidden_channels: int
    out_channels: int
    num_layers: int

    def _setup(self) -> None:
        hidden, kwargs = self.hidden_channels, self.kwargs
        sizes = [self.in_channels, *[hidden] * (self.num_layers - 1)]
        self.convs = nn.ModuleList(MFConv(size, hidden, **kwargs) for size in sizes)
        self.lins = nn.ModuleList(Linear(hidden, self.out_channels, bias=False) for _ in sizes)

    reset_parameters = redraw

    def forward(
        self, x: Tensor, edge_index: Adjacency, batch: Tensor | None = None, batch_size: int | None = None
    ) -> Tensor:
        """[N, in_channels] and the graph [N] of each node to [graphs, out_channels].

        Of a distributed graph, each process gives all graphs.
        """
        if must_meet(self, edge_index):
            with meeting(self, edge_index, x, batch):
                return self.forward(x, edge_index, batch, batch_size)
        found: Any = 0
        for conv, lin in zip(self.convs, self.lins, strict=True):
            x = conv(x, edge_index).sigmoid()
            found = found + global_add_pool(lin(x).softmax(dim=-1), batch, batch_size)
        return found

    __repr__ = words("{self.in_channels}, {self.out_channels}, num_layers={self.num_layers}")
