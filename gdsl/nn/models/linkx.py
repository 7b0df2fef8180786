"""A perceptron on rows of the adjacency."""

from __future__ import annotations

import math

from torch import Tensor, nn

from gdsl.module.meeting import meeting, must_meet
from gdsl.nn.conv.base import Conv
from gdsl.nn.conv.inputs import Adjacency, edge_weights, parameter
from gdsl.nn.declared import InitVar, Module, declared, redraw
from gdsl.nn.inits import kaiming_uniform, uniform
from gdsl.nn.models.mlp import MLP
from gdsl.runtime.local import of_own_nodes
from gdsl.runtime.together import norms_over_all


class SparseLinear(Conv):
    """A W + b with the adjacency as a sparse matrix.

    in_channels, out_channels: number of nodes, and size of the outputs
    bias:                      whether to add one
    """

    program_name = "lgc"

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True):
        super().__init__("add")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.weight = parameter(in_channels, out_channels)
        self.bias = parameter(out_channels) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        super().reset_parameters()
        kaiming_uniform(self.weight, fan=self.in_channels, a=math.sqrt(5))
        uniform(self.in_channels, self.bias)

    def forward(self, edge_index: Adjacency, edge_weight: Tensor | None = None) -> Tensor:
        """A graph of in_channels nodes and weights [E] to [in_channels, out_channels].

        Of a part of a distributed graph: to the rows of own nodes. Raises ``GraphError`` on every process for a graph
        of another number of nodes.
        """
        weight = of_own_nodes(edge_index, self.weight)
        graph, values = self.graph(edge_index, len(weight), len(weight))
        inputs = {"x": weight, "w": edge_weights(edge_weight, values, weight)}
        y: Tensor = self.run(graph, inputs, normalize=False)
        return y if self.bias is None else y + self.bias


@declared
class LINKX(Module):
    """MLP(relu(W [h_A, h_X] + h_A + h_X)) of perceptrons on the adjacency and the features. Lim et al., "Large Scale
    Learning on Non-Homophilous Graphs", NeurIPS 2021, equation 3.

    num_nodes: number of nodes of the one graph
    in_channels, hidden_channels, out_channels: sizes; -1 takes the first from the first call
    num_layers, num_edge_layers, num_node_layers: layers of the last perceptron, and of those on edges and features
    dropout:   of the last, in training
    """

    num_nodes: int
    in_channels: int
    hidden_channels: InitVar[int]
    out_channels: int
    num_layers: InitVar[int]
    num_edge_layers: int = 1
    num_node_layers: InitVar[int] = 1
    dropout: InitVar[float] = 0.0

    def _setup(self) -> None:
        hidden = self.hidden_channels
        self.edge_lin = SparseLinear(self.num_nodes, hidden)
        several = self.num_edge_layers > 1
        self.edge_norm = nn.BatchNorm1d(hidden) if several else None
        self.edge_mlp = MLP([hidden] * self.num_edge_layers, dropout=0.0, act_first=True) if several else None
        self.node_mlp = MLP([self.in_channels] + [hidden] * self.num_node_layers, dropout=0.0, act_first=True)
        self.cat_lin1 = nn.Linear(hidden, hidden)
        self.cat_lin2 = nn.Linear(hidden, hidden)
        self.final_mlp = MLP([hidden] * self.num_layers + [self.out_channels], dropout=self.dropout, act_first=True)

    reset_parameters = redraw

    def forward(self, x: Tensor | None, edge_index: Adjacency, edge_weight: Tensor | None = None) -> Tensor:
        """[N, in_channels], or None, and weights [E] to [N, out_channels]."""
        if must_meet(self, edge_index):
            with meeting(self, edge_index, x, edge_weight=edge_weight), norms_over_all(self):
                return self.forward(x, edge_index, edge_weight)
        h = self.edge_lin(edge_index, edge_weight)
        if self.edge_norm is not None and self.edge_mlp is not None:
            h = self.edge_mlp(self.edge_norm(h.relu()))
        h = h + self.cat_lin1(h)
        if x is not None:
            of_nodes = self.node_mlp(x)
            h = h + of_nodes + self.cat_lin2(of_nodes)
        return self.final_mlp(h.relu())

    def __repr__(self) -> str:
        names = ("num_nodes", "in_channels", "out_channels")
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)}' for name in names)})"
