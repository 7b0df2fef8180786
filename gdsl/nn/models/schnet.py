"""Energies of molecules from continuous filters."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from gdsl.ir import library
from gdsl.ir.node import Node
from gdsl.nn.aggr import SumAggregation, aggr_resolver
from gdsl.nn.conv.base import Conv
from gdsl.nn.conv.inputs import Adjacency
from gdsl.nn.neighbors import radius_graph

# Where torch's softplus becomes the identity.
LINEAR_ABOVE = 20.0


class ShiftedSoftplus(nn.Module):
    """softplus(x) - log 2, which is 0 at 0. Schütt et al., NeurIPS 2017, section 3."""

    shift = math.log(2.0)

    def forward(self, x: Tensor) -> Tensor:
        """Of any shape."""
        return functional.softplus(x) - self.shift

    def read_value(self, x: Node) -> Node:
        """The same in the IR, for a program that reads this module."""
        return library.where(x > LINEAR_ABOVE, x, library.softplus(x)) - self.shift


class GaussianSmearing(nn.Module):
    """exp(-(d - mu)² / 2 s²) for centres mu that are s apart. Schütt et al., NeurIPS 2017, section 4.1.

    start, stop:   the first and the last centre
    num_gaussians: number of centres
    """

    def __init__(self, start: float = 0.0, stop: float = 5.0, num_gaussians: int = 50):
        super().__init__()
        offset = torch.linspace(start, stop, num_gaussians)
        self.coeff = -0.5 / (offset[1] - offset[0]).item() ** 2
        self.offset: Tensor
        self.register_buffer("offset", offset)

    def forward(self, dist: Tensor) -> Tensor:
        """[E] to [E, num_gaussians]."""
        return (self.coeff * (dist.view(-1, 1) - self.offset).square()).exp()


class RadiusInteractionGraph(nn.Module):
    """Edges between atoms that are near, and their lengths.

    cutoff:            how near
    max_num_neighbors: edges into an atom, at most
    """

    def __init__(self, cutoff: float = 10.0, max_num_neighbors: int = 32):
        super().__init__()
        self.cutoff = cutoff
        self.max_num_neighbors = max_num_neighbors

    def forward(self, pos: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Positions [N, 3] and the molecule of each atom [N] to edges [2, E] and lengths [E]."""
        edges = radius_graph(pos, self.cutoff, batch, max_num_neighbors=self.max_num_neighbors)
        return edges, (pos[edges[0]] - pos[edges[1]]).norm(dim=-1)


class CFConv(Conv):
    """lin2(sum_j lin1(x_j) nn(e_ij) (cos(pi d_ij / cutoff) + 1) / 2). Schütt et al., NeurIPS 2017, section 3.

    in_channels, out_channels, num_filters: sizes
    nn:     a module, [E, gaussians] to [E, num_filters]
    cutoff: where filters are 0
    """

    program_name = "cfconv"

    def __init__(self, in_channels: int, out_channels: int, num_filters: int, nn: nn.Module, cutoff: float):
        super().__init__("add")
        self.lin1 = torch.nn.Linear(in_channels, num_filters, bias=False)
        self.lin2 = torch.nn.Linear(num_filters, out_channels)
        self.nn = nn
        self.cutoff = cutoff
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew, but those of the network."""
        super().reset_parameters()
        nn.init.xavier_uniform_(self.lin1.weight)
        _draw(self.lin2)

    def forward(self, x: Tensor, edge_index: Adjacency, edge_weight: Tensor, edge_attr: Tensor) -> Tensor:
        """[N, in_channels], distances [E] and what the network takes of them [E, gaussians] to [N, out_channels]."""
        graph, _ = self.square(x, edge_index)
        y: Tensor = self.run(
            graph,
            {"x": x, "d": edge_weight, "e": edge_attr},
            filters=self.lin1.out_features,
            out_channels=self.lin2.out_features,
            rate=math.pi / self.cutoff,
        )
        return y


class InteractionBlock(nn.Module):
    """:class:`CFConv` with its network, and a linear map after it. Schütt et al., NeurIPS 2017, figure 2.

    hidden_channels, num_gaussians, num_filters: sizes
    cutoff: where filters are 0
    """

    def __init__(self, hidden_channels: int, num_gaussians: int, num_filters: int, cutoff: float):
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(num_gaussians, num_filters), ShiftedSoftplus(), nn.Linear(num_filters, num_filters)
        )
        self.conv = CFConv(hidden_channels, hidden_channels, num_filters, self.mlp, cutoff)
        self.act = ShiftedSoftplus()
        self.lin = nn.Linear(hidden_channels, hidden_channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        _draw(self.mlp[0])
        _draw(self.mlp[2])
        self.conv.reset_parameters()
        _draw(self.lin)

    def forward(self, x: Tensor, edge_index: Adjacency, edge_weight: Tensor, edge_attr: Tensor) -> Tensor:
        """As :class:`CFConv`."""
        return self.lin(self.act(self.conv(x, edge_index, edge_weight, edge_attr)))


class SchNet(nn.Module):
    """Energies of molecules, or their dipole moments. Schütt et al., "SchNet: A continuous-filter convolutional neural
    network for modeling quantum interactions", NeurIPS 2017.

    hidden_channels, num_filters: sizes of atoms' features and of filters
    num_interactions:  number of blocks
    num_gaussians:     numbers that a distance becomes
    cutoff:            how near atoms see each other
    interaction_graph: edges [2, E] and distances [E] from positions and molecules; :class:`RadiusInteractionGraph`
                       without it
    max_num_neighbors: edges into an atom, at most
    readout:           how atoms meet: "add" or "mean"
    dipole:            whether the length of the dipole moment is wanted; the package ase knows the masses
    mean, std:         of the energies, without ``dipole``
    atomref:           [100, 1] energies of single atoms
    """

    shown = ("hidden_channels", "num_filters", "num_interactions", "num_gaussians", "cutoff")

    def __init__(
        self,
        hidden_channels: int = 128,
        num_filters: int = 128,
        num_interactions: int = 6,
        num_gaussians: int = 50,
        cutoff: float = 10.0,
        interaction_graph: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
        max_num_neighbors: int = 32,
        readout: str = "add",
        dipole: bool = False,
        mean: float | None = None,
        std: float | None = None,
        atomref: Tensor | None = None,
    ):
        super().__init__()
        self.hidden_channels = hidden_channels
        self.num_filters = num_filters
        self.num_interactions = num_interactions
        self.num_gaussians = num_gaussians
        self.cutoff = cutoff
        self.dipole = dipole
        self.sum_aggr = SumAggregation()
        self.readout: Any = aggr_resolver("sum" if dipole else readout)
        self.mean = mean
        self.std = std
        self.scale: float | None = None
        if dipole:
            import ase

            self.atomic_mass: Tensor
            self.register_buffer("atomic_mass", torch.from_numpy(ase.data.atomic_masses))
        self.embedding = nn.Embedding(100, hidden_channels, padding_idx=0)
        given = interaction_graph is not None
        self.interaction_graph: Any = interaction_graph if given else RadiusInteractionGraph(cutoff, max_num_neighbors)
        self.distance_expansion = GaussianSmearing(0.0, cutoff, num_gaussians)
        self.interactions = nn.ModuleList(
            InteractionBlock(hidden_channels, num_gaussians, num_filters, cutoff) for _ in range(num_interactions)
        )
        self.lin1 = nn.Linear(hidden_channels, hidden_channels // 2)
        self.act = ShiftedSoftplus()
        self.lin2 = nn.Linear(hidden_channels // 2, 1)
        self.initial_atomref: Tensor | None
        self.register_buffer("initial_atomref", atomref)
        self.atomref = None if atomref is None else nn.Embedding(100, 1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew; energies of single atoms are as at first."""
        self.embedding.reset_parameters()
        for block in self.interactions:
            block.reset_parameters()  # type: ignore[operator]
        _draw(self.lin1)
        _draw(self.lin2)
        if self.atomref is not None and self.initial_atomref is not None:
            self.atomref.weight.data.copy_(self.initial_atomref)

    @staticmethod
    def from_qm9_pretrained(root: str, dataset: Any, target: int) -> tuple[SchNet, Any, Any, Any]:
        """The model that was trained on a target of QM9, and parts of the data set, as torch_geometric loads them."""
        from torch_geometric.nn import SchNet as Loader

        theirs, *parts = Loader.from_qm9_pretrained(root, dataset, target)
        names = (*SchNet.shown, "dipole", "mean", "std")
        atomref = None if theirs.atomref is None else theirs.atomref.weight.detach()
        model = SchNet(**{name: getattr(theirs, name) for name in names}, atomref=atomref)
        model.readout = aggr_resolver(type(theirs.readout).__name__)
        model.scale = theirs.scale
        model.load_state_dict(theirs.state_dict(), strict=False)  # but for what ``atomref`` was at first
        return model, *parts

    def forward(self, z: Tensor, pos: Tensor, batch: Tensor | None = None) -> Tensor:
        """Atomic numbers [N], positions [N, 3] and the molecule of each atom [N], or None for one, to [M, 1]."""
        batch = torch.zeros_like(z) if batch is None else batch
        h = self.embedding(z)
        edge_index, distance = self.interaction_graph(pos, batch)
        smeared = self.distance_expansion(distance)
        for block in self.interactions:
            h = h + block(h, edge_index, distance, smeared)
        h = self.lin2(self.act(self.lin1(h)))
        if self.dipole:
            mass = self.atomic_mass[z].view(-1, 1)
            center = self.sum_aggr(mass * pos, batch) / self.sum_aggr(mass, batch)
            y: Tensor = self.readout(h * (pos - center[batch]), batch).norm(dim=-1, keepdim=True)
        else:
            h = h * self.std + self.mean if self.mean is not None and self.std is not None else h
            y = self.readout(h if self.atomref is None else h + self.atomref(z), batch)
        return y if self.scale is None else self.scale * y

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)}' for name in self.shown)})"


def _draw(lin: Any) -> None:
    nn.init.xavier_uniform_(lin.weight)
    lin.bias.data.fill_(0)
