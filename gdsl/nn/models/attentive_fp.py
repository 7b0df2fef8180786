"""Attention on molecules."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from gdsl.module.meeting import meeting, must_meet
from gdsl.nn.conv.base import Conv
from gdsl.nn.conv.gat import GATConv
from gdsl.nn.conv.inputs import Adjacency, parameter
from gdsl.nn.declared import declared
from gdsl.nn.inits import glorot, zeros
from gdsl.nn.readouts import global_add_pool
from gdsl.runtime.together import drawn_alike, gathered, is_shared


class GATEConv(Conv):
    """Attention that sees the bonds. Xiong et al., J. Med. Chem. 2020, equations 1 to 5.

    in_channels, out_channels: sizes
    edge_dim:                  size of the edge features
    dropout:                   of the weights, in training
    """

    program_name = "gate"

    def __init__(self, in_channels: int, out_channels: int, edge_dim: int, dropout: float = 0.0):
        super().__init__("add", node_dim=0)
        self.dropout = dropout
        self.att_l = parameter(1, out_channels)
        self.att_r = parameter(1, in_channels)
        self.lin1 = nn.Linear(in_channels + edge_dim, out_channels, bias=False)
        self.lin2 = nn.Linear(out_channels, out_channels, bias=False)
        self.bias = parameter(out_channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        super().reset_parameters()
        for weight in (self.att_l, self.att_r, self.lin1.weight, self.lin2.weight):
            glorot(weight)
        zeros(self.bias)

    def forward(self, x: Tensor, edge_index: Adjacency, edge_attr: Tensor) -> Tensor:
        """[N, in_channels] and [E, edge_dim] to [N, out_channels]."""
        graph, _ = self.square(x, edge_index)
        p = float(self.dropout)
        y: Tensor = self.run(
            graph, {"x": x, "e": edge_attr}, channels=self.att_r.size(1), out_channels=self.att_l.size(1), p=p
        )
        return y


@declared
class AttentiveFP(nn.Module):
    """Attention over atoms, then over molecules, with a GRU after each. Xiong et al., "Pushing the Boundaries of
    Molecular Representation for Drug Discovery with the Graph Attention Mechanism", J. Med. Chem. 2020.

    in_channels, hidden_channels, out_channels: sizes
    edge_dim:      size of the edge features
    num_layers:    layers on atoms
    num_timesteps: steps on molecules
    dropout:       in training
    """

    in_channels: int
    hidden_channels: int
    out_channels: int
    edge_dim: int
    num_layers: int
    num_timesteps: int
    dropout: float = 0.0

    def _setup(self) -> None:
        size = self.hidden_channels

        def attention() -> GATConv:
            return GATConv(size, size, dropout=self.dropout, add_self_loops=False, negative_slope=0.01)

        self.lin1 = nn.Linear(self.in_channels, size)
        self.gate_conv = GATEConv(size, size, self.edge_dim, self.dropout)
        self.gru = nn.GRUCell(size, size)
        self.atom_convs = nn.ModuleList()
        self.atom_grus = nn.ModuleList()
        for _ in range(self.num_layers - 1):
            self.atom_convs.append(attention())
            self.atom_grus.append(nn.GRUCell(size, size))
        self.mol_conv = attention()
        self.mol_conv.explain = False  # its edges go from atoms to molecules
        self.mol_gru = nn.GRUCell(size, size)
        self.lin2 = nn.Linear(size, self.out_channels)

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        pairs = [part for both in zip(self.atom_convs, self.atom_grus, strict=True) for part in both]
        parts: Any = (self.lin1, self.gate_conv, self.gru, *pairs, self.mol_conv, self.mol_gru, self.lin2)
        for part in parts:
            part.reset_parameters()

    def forward(self, x: Tensor, edge_index: Adjacency, edge_attr: Tensor, batch: Tensor) -> Tensor:
        """Atoms [N, in_channels], bonds [E, edge_dim] and the molecule of each atom [N], to [M, out_channels].

        Of a distributed graph, each process has all atoms for the readout, and gives all molecules.
        """
        if must_meet(self, edge_index):
            with meeting(self, edge_index, x, batch):
                return self.forward(x, edge_index, edge_attr, batch)
        x = functional.leaky_relu(self.lin1(x))
        x = self._step(self.gate_conv(x, edge_index, edge_attr), self.gru, x)
        for conv, gru in zip(self.atom_convs, self.atom_grus, strict=True):
            x = self._step(conv(x, edge_index), gru, x)
        whole = global_add_pool(x, batch).relu()
        if not is_shared():
            return self._read_out(x, batch, whole)
        with drawn_alike(x.device):
            return self._read_out(gathered(x), gathered(batch), whole)

    def _read_out(self, x: Tensor, batch: Tensor, whole: Tensor) -> Tensor:
        belongs = torch.stack([torch.arange(len(batch), device=batch.device), batch])
        for _ in range(self.num_timesteps):
            whole = self._step(self.mol_conv((x, whole), belongs), self.mol_gru, whole)
        return self.lin2(functional.dropout(whole, self.dropout, self.training))

    def _step(self, h: Tensor, gru: Any, state: Tensor) -> Tensor:
        h = functional.dropout(functional.elu(h), self.dropout, self.training)
        return gru(h, state).relu()

    def __repr__(self) -> str:
        names = ("in_channels", "hidden_channels", "out_channels", "edge_dim", "num_layers", "num_timesteps")
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)}' for name in names)})"
