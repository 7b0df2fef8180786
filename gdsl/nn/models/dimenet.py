"""Directional models of molecules: messages between edges, by the angles between them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from gdsl.nn.activations import activation
from gdsl.nn.conv.base import Programmed
from gdsl.nn.declared import redraw
from gdsl.nn.inits import glorot_orthogonal, zeros
from gdsl.nn.models.waves import BesselBasisLayer, SphericalBasisLayer, triplets
from gdsl.nn.neighbors import radius_graph
from gdsl.nn.readouts import global_add_pool
from gdsl.runtime.graph import Graph
from gdsl.runtime.recent import graph_of

Act = Callable[[Tensor], Tensor]


def _draw(*lins: Any) -> None:
    for lin in lins:
        glorot_orthogonal(lin.weight, 2.0)
        zeros(lin.bias)


class EmbeddingBlock(nn.Module):
    """The first messages, of both atoms and the length between. Gasteiger et al., ICLR 2020, figure 4."""

    def __init__(self, num_radial: int, hidden_channels: int, act: Act):
        super().__init__()
        self.act = act
        self.emb = nn.Embedding(95, hidden_channels)
        self.lin_rbf = nn.Linear(num_radial, hidden_channels)
        self.lin = nn.Linear(3 * hidden_channels, hidden_channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        self.emb.weight.data.uniform_(-math.sqrt(3), math.sqrt(3))
        self.lin_rbf.reset_parameters()
        self.lin.reset_parameters()

    def forward(self, x: Tensor, rbf: Tensor, i: Tensor, j: Tensor) -> Tensor:
        """Atomic numbers [N], waves [E, num_radial] and the ends of the edges [E] to [E, hidden_channels]."""
        h = self.emb(x)
        return self.act(self.lin(torch.cat([h[i], h[j], self.act(self.lin_rbf(rbf))], dim=-1)))


class ResidualLayer(nn.Module):
    """x + act(lin(act(lin(x))))."""

    def __init__(self, hidden_channels: int, act: Act):
        super().__init__()
        self.act = act
        self.lin1 = nn.Linear(hidden_channels, hidden_channels)
        self.lin2 = nn.Linear(hidden_channels, hidden_channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        _draw(self.lin1, self.lin2)

    def forward(self, x: Tensor) -> Tensor:
        """[E, hidden_channels] to the same."""
        return x + self.act(self.lin2(self.act(self.lin1(x))))


class DirectedInteraction(Programmed):
    """What both kinds of interaction share: messages along the angles, which a subclass makes, between networks."""

    lin_kj: nn.Linear
    lin_ji: nn.Linear

    def __init__(self, act: Act):
        super().__init__("add")
        self.act = act

    def _finish(self, hidden: int, before: int, after: int) -> None:
        """The parts that come last, in their order."""
        self.layers_before_skip = nn.ModuleList(ResidualLayer(hidden, self.act) for _ in range(before))
        self.lin = nn.Linear(hidden, hidden)
        self.layers_after_skip = nn.ModuleList(ResidualLayer(hidden, self.act) for _ in range(after))
        self.reset_parameters()

    def _draw_rest(self) -> None:
        for layer in self.layers_before_skip:
            layer.reset_parameters()  # type: ignore[operator]
        _draw(self.lin)
        for layer in self.layers_after_skip:
            layer.reset_parameters()  # type: ignore[operator]

    def directed(self, x: Tensor, rbf: Tensor, sbf: Tensor, angles: Graph) -> Tensor:
        """What comes along the angles: [E, hidden_channels]."""
        raise NotImplementedError

    def forward(self, x: Tensor, rbf: Tensor, sbf: Tensor, idx_kj: Tensor, idx_ji: Tensor) -> Tensor:
        """Messages [E, hidden_channels], waves [E, num_radial] and [T, num_spherical * num_radial], and the two edges
        of each angle [T], to [E, hidden_channels].
        """
        angles = graph_of(torch.stack([idx_kj, idx_ji]), len(x), len(x))
        h = self.act(self.lin_ji(x)) + self.directed(self.act(self.lin_kj(x)), rbf, sbf, angles)
        for layer in self.layers_before_skip:
            h = layer(h)
        h = self.act(self.lin(h)) + x
        for layer in self.layers_after_skip:
            h = layer(h)
        return h


class BilinearInteraction(DirectedInteraction):
    """Gasteiger et al., ICLR 2020, equation 9 and figure 4.

    hidden_channels, num_bilinear, num_spherical, num_radial: sizes
    num_before_skip, num_after_skip: residual layers before and after the skip connection
    act:                             the function between
    """

    program_name = "dimenet"

    def __init__(
        self,
        hidden_channels: int,
        num_bilinear: int,
        num_spherical: int,
        num_radial: int,
        num_before_skip: int,
        num_after_skip: int,
        act: Act,
    ):
        super().__init__(act)
        self.lin_rbf = nn.Linear(num_radial, hidden_channels, bias=False)
        self.lin_sbf = nn.Linear(num_spherical * num_radial, num_bilinear, bias=False)
        self.lin_kj = nn.Linear(hidden_channels, hidden_channels)
        self.lin_ji = nn.Linear(hidden_channels, hidden_channels)
        self.W = nn.Parameter(torch.empty(hidden_channels, num_bilinear, hidden_channels))
        self._finish(hidden_channels, num_before_skip, num_after_skip)

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        super().reset_parameters()
        _draw(self.lin_rbf, self.lin_sbf, self.lin_kj, self.lin_ji)
        self.W.data.normal_(mean=0, std=2 / self.W.size(0))
        self._draw_rest()

    def directed(self, x: Tensor, rbf: Tensor, sbf: Tensor, angles: Graph) -> Tensor:
        """What comes along the angles: [E, hidden_channels]."""
        return self.run(angles, {"x": x * self.lin_rbf(rbf), "s": sbf}, bilinear=self.W.size(1))


class ProductInteraction(DirectedInteraction):
    """Gasteiger et al., "Fast and Uncertainty-Aware Directional Message Passing for Non-Equilibrium Molecules", 2020.

    hidden_channels, int_emb_size, basis_emb_size, num_spherical, num_radial: sizes
    num_before_skip, num_after_skip: residual layers before and after the skip connection
    act:                             the function between
    """

    program_name = "dimenet_pp"

    def __init__(
        self,
        hidden_channels: int,
        int_emb_size: int,
        basis_emb_size: int,
        num_spherical: int,
        num_radial: int,
        num_before_skip: int,
        num_after_skip: int,
        act: Act,
    ):
        super().__init__(act)
        self.lin_rbf1 = nn.Linear(num_radial, basis_emb_size, bias=False)
        self.lin_rbf2 = nn.Linear(basis_emb_size, hidden_channels, bias=False)
        self.lin_sbf1 = nn.Linear(num_spherical * num_radial, basis_emb_size, bias=False)
        self.lin_sbf2 = nn.Linear(basis_emb_size, int_emb_size, bias=False)
        self.lin_kj = nn.Linear(hidden_channels, hidden_channels)
        self.lin_ji = nn.Linear(hidden_channels, hidden_channels)
        self.lin_down = nn.Linear(hidden_channels, int_emb_size, bias=False)
        self.lin_up = nn.Linear(int_emb_size, hidden_channels, bias=False)
        self._finish(hidden_channels, num_before_skip, num_after_skip)

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        super().reset_parameters()
        _draw(self.lin_rbf1, self.lin_rbf2, self.lin_sbf1, self.lin_sbf2, self.lin_kj, self.lin_ji)
        _draw(self.lin_down, self.lin_up)
        self._draw_rest()

    def directed(self, x: Tensor, rbf: Tensor, sbf: Tensor, angles: Graph) -> Tensor:
        """What comes along the angles: [E, hidden_channels]."""
        down = self.act(self.lin_down(x * self.lin_rbf2(self.lin_rbf1(rbf))))
        met = self.run(angles, {"x": down, "s": sbf}, inner=self.lin_sbf1.out_features)
        return self.act(self.lin_up(met))


class OutputBlock(Programmed):
    """What atoms have of the messages to them. Gasteiger et al., ICLR 2020, figure 4.

    num_radial, hidden_channels, out_channels: sizes
    num_layers:         layers of the network
    act:                the function between
    output_initializer: "zeros" or "glorot_orthogonal", of the last map
    out_emb_channels:   size of its layers; None stands for ``hidden_channels``, without a map to them

    Raises AssertionError for another initializer.
    """

    program_name = "dimenet_out"
    initializers = ("zeros", "glorot_orthogonal")

    def __init__(
        self,
        num_radial: int,
        hidden_channels: int,
        out_channels: int,
        num_layers: int,
        act: Act,
        output_initializer: str = "zeros",
        out_emb_channels: int | None = None,
    ):
        assert output_initializer in self.initializers, f"outputs begin with one of {self.initializers}"
        super().__init__("add")
        self.act = act
        self.output_initializer = output_initializer
        self.lin_rbf = nn.Linear(num_radial, hidden_channels, bias=False)
        inner = hidden_channels if out_emb_channels is None else out_emb_channels
        self.lin_up = None if out_emb_channels is None else nn.Linear(hidden_channels, inner, bias=False)
        self.lins = nn.ModuleList(nn.Linear(inner, inner) for _ in range(num_layers))
        self.lin = nn.Linear(inner, out_channels, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        super().reset_parameters()
        _draw(self.lin_rbf, *([] if self.lin_up is None else [self.lin_up]), *self.lins)
        if self.output_initializer == "zeros":
            zeros(self.lin.weight)
        else:
            glorot_orthogonal(self.lin.weight, 2.0)

    def forward(self, x: Tensor, rbf: Tensor, edge_index: Tensor, num_nodes: int) -> Tensor:
        """Messages [E, hidden_channels] and waves [E, num_radial] to [N, out_channels]."""
        graph, _ = self.graph(edge_index, num_nodes, num_nodes)
        h = self.run(graph, {"x": x, "r": rbf}, channels=self.lin_rbf.out_features)
        h = h if self.lin_up is None else self.lin_up(h)
        for lin in self.lins:
            h = self.act(lin(h))
        return self.lin(h)


class DimeNet(nn.Module):
    """Energies of molecules from messages between edges. Gasteiger et al., "Directional Message Passing for Molecular
    Graphs", ICLR 2020.

    hidden_channels, out_channels, num_bilinear: sizes
    num_blocks:         number of interactions
    num_spherical, num_radial: orders of the waves, and waves of each
    cutoff:             how near atoms see each other
    max_num_neighbors:  edges into an atom, at most
    envelope_exponent:  how waves end
    num_before_skip, num_after_skip: residual layers of an interaction before and after the skip connection
    num_output_layers:  layers of an output
    act:                the name of a class of torch.nn, or a function
    output_initializer: "zeros" or "glorot_orthogonal", of the last maps

    Raises ValueError for fewer than two orders.
    """

    # As it was trained on QM9.
    trained: ClassVar[dict[str, Any]] = {
        "hidden_channels": 128, "out_channels": 1, "num_blocks": 6, "num_bilinear": 8, "num_spherical": 7,
        "num_radial": 6,
    }  # fmt: skip

    def __init__(
        self,
        hidden_channels: int,
        out_channels: int,
        num_blocks: int,
        num_bilinear: int,
        num_spherical: int,
        num_radial: int,
        cutoff: float = 5.0,
        max_num_neighbors: int = 32,
        envelope_exponent: int = 5,
        num_before_skip: int = 1,
        num_after_skip: int = 2,
        num_output_layers: int = 3,
        act: str | Act = "swish",
        output_initializer: str = "zeros",
    ):
        super().__init__()
        if num_spherical < 2:
            raise ValueError("'num_spherical' should be greater than 1")
        function = activation(act)
        self.cutoff = cutoff
        self.max_num_neighbors = max_num_neighbors
        self.num_blocks = num_blocks
        self.rbf = BesselBasisLayer(num_radial, cutoff, envelope_exponent)
        self.sbf = SphericalBasisLayer(num_spherical, num_radial, cutoff, envelope_exponent)
        self.emb = EmbeddingBlock(num_radial, hidden_channels, function)
        self.output_blocks = nn.ModuleList(
            OutputBlock(num_radial, hidden_channels, out_channels, num_output_layers, function, output_initializer)
            for _ in range(num_blocks + 1)
        )
        sizes = (hidden_channels, num_bilinear, num_spherical, num_radial)
        self.interaction_blocks = nn.ModuleList(
            BilinearInteraction(*sizes, num_before_skip, num_after_skip, function) for _ in range(num_blocks)
        )

    reset_parameters = redraw

    @classmethod
    def from_qm9_pretrained(cls, root: str, dataset: Any, target: int) -> tuple[DimeNet, Any]:
        """The model that was trained on a target of QM9, and parts of the data set, as torch_geometric loads them."""
        import torch_geometric.nn

        theirs, parts = getattr(torch_geometric.nn, cls.__name__).from_qm9_pretrained(root, dataset, target)
        model = cls(**cls.trained)
        model.load_state_dict(theirs.state_dict())
        return model, parts

    def forward(self, z: Tensor, pos: Tensor, batch: Tensor | None = None) -> Tensor:
        """Atomic numbers [N], positions [N, 3] and the molecule of each atom [N] to [molecules, out_channels]; without
        molecules, the sum over all atoms, [out_channels].
        """
        edges = radius_graph(pos, self.cutoff, batch, max_num_neighbors=self.max_num_neighbors)
        i, j, *of_angle, kj, ji = triplets(edges, len(z))
        length = (pos[i] - pos[j]).square().sum(dim=-1).sqrt()
        rbf = self.rbf(length)
        a, b = self.arms(*(pos[end] for end in of_angle))
        angle = torch.atan2(torch.linalg.cross(a, b, dim=1).norm(dim=-1), (a * b).sum(dim=-1))
        sbf = self.sbf(length, angle, kj)
        x = self.emb(z, rbf, i, j)
        total = self.output_blocks[0](x, rbf, edges, len(z))
        for interaction, output in zip(self.interaction_blocks, self.output_blocks[1:], strict=True):
            x = interaction(x, rbf, sbf, kj, ji)
            total = total + output(x, rbf, edges, len(z))
        return total.sum(dim=0) if batch is None else global_add_pool(total, batch)

    @staticmethod
    def arms(i: Tensor, j: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Between what the angle of three atoms is: at the last."""
        return j - i, k - i


class DimeNetPlusPlus(DimeNet):
    """:class:`DimeNet` with products in the place of a bilinear map. Gasteiger et al., "Fast and Uncertainty-Aware
    Directional Message Passing for Non-Equilibrium Molecules", 2020.

    int_emb_size, basis_emb_size, out_emb_channels: sizes inside of interactions, of waves there, and of outputs
    Other arguments as there.
    """

    trained: ClassVar[dict[str, Any]] = {
        "hidden_channels": 128, "out_channels": 1, "num_blocks": 4, "int_emb_size": 64, "basis_emb_size": 8,
        "out_emb_channels": 256, "num_spherical": 7, "num_radial": 6,
    }  # fmt: skip

    def __init__(
        self,
        hidden_channels: int,
        out_channels: int,
        num_blocks: int,
        int_emb_size: int,
        basis_emb_size: int,
        out_emb_channels: int,
        num_spherical: int,
        num_radial: int,
        cutoff: float = 5.0,
        max_num_neighbors: int = 32,
        envelope_exponent: int = 5,
        num_before_skip: int = 1,
        num_after_skip: int = 2,
        num_output_layers: int = 3,
        act: str | Act = "swish",
        output_initializer: str = "zeros",
    ):
        function: Any = activation(act)
        # With blocks that are replaced: they are drawn there, too, and a seed carries over.
        super().__init__(
            hidden_channels, out_channels, num_blocks, 1, num_spherical, num_radial, cutoff, max_num_neighbors,
            envelope_exponent, num_before_skip, num_after_skip, num_output_layers, function, output_initializer,
        )  # fmt: skip
        outputs = (num_radial, hidden_channels, out_channels, num_output_layers, function, output_initializer)
        self.output_blocks = nn.ModuleList(OutputBlock(*outputs, out_emb_channels) for _ in range(num_blocks + 1))
        sizes = (hidden_channels, int_emb_size, basis_emb_size, num_spherical, num_radial)
        self.interaction_blocks = nn.ModuleList(
            ProductInteraction(*sizes, num_before_skip, num_after_skip, function) for _ in range(num_blocks)
        )
        self.reset_parameters()

    @staticmethod
    def arms(i: Tensor, j: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Between what the angle of three atoms is: along the two edges."""
        return i - j, j - k
