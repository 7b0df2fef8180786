"""A perceptron that looks at neighbours once it has been trained."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import dropout

from gdsl.module.meeting import meeting, must_meet
from gdsl.nn.conv.inputs import Adjacency
from gdsl.nn.conv.simple import SimpleConv
from gdsl.nn.declared import InitVar, Module, declared, words
from gdsl.nn.linear import Linear
from gdsl.runtime.together import batch_norm, is_shared


@declared
class PMLP(Module):
    """A perceptron, and outside of training the means of neighbours after each linear map. Yang et al., "Graph Neural
    Networks are Inherently Good Generalizers: Insights by Bridging GNNs and MLPs", ICLR 2023, section 3.

    in_channels, hidden_channels, out_channels: sizes
    num_layers: number of linear maps
    dropout:    between them, in training
    norm:       whether there is a batch norm between them, without parameters or statistics of its own
    bias:       whether they have one
    """

    in_channels: int
    hidden_channels: int
    out_channels: int
    num_layers: int
    dropout: float = 0.0
    norm: InitVar[bool] = True
    bias: bool = True

    def _setup(self) -> None:
        sizes = [self.in_channels, *[self.hidden_channels] * (self.num_layers - 1), self.out_channels]
        self.lins: Any = nn.ModuleList(Linear(a, b, self.bias) for a, b in pairwise(sizes))
        hidden = self.hidden_channels
        self.norm: Any = nn.BatchNorm1d(hidden, affine=False, track_running_stats=False) if self.norm else None
        self.conv = SimpleConv("mean", combine_root="self_loop")

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        for lin in self.lins:
            nn.init.xavier_uniform_(lin.weight, gain=1.414)
            if self.bias:
                nn.init.zeros_(lin.bias)

    def forward(self, x: Tensor, edge_index: Adjacency | None = None) -> Tensor:
        """[N, in_channels] to [N, out_channels]. Raises ValueError outside of training without a graph.

        Of a part of a distributed graph, which the norm needs in training as well.
        """
        if must_meet(self, edge_index):
            with meeting(self, edge_index, x):
                return self.forward(x, edge_index)
        if not self.training and edge_index is None:
            raise ValueError(f"'edge_index' needs to be present during inference in '{type(self).__name__}'")
        for k, lin in enumerate(self.lins):
            x = x @ lin.weight.t()
            if not self.training:
                x = self.conv(x, edge_index)
            x = x + lin.bias if self.bias else x
            if k < self.num_layers - 1:
                if self.norm is not None:
                    x = batch_norm(self.norm, x) if is_shared() else self.norm(x)
                x = dropout(x.relu(), self.dropout, self.training)
        return x

    __repr__ = words("{self.in_channels}, {self.out_channels}, num_layers={self.num_layers}")
