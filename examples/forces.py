"""Energies and forces of atoms: a message-passing potential, trained on both.

    python examples/forces.py
    python examples/forces.py --short        few molecules, few epochs: do the errors fall?

The molecules are made here: atoms of two kinds in a cluster, whose energy is a sum of Morse potentials over pairs. The
network is a continuous-filter convolution as in SchNet (Schuett et al., NeurIPS 2017, section 4.1), written in the
language below; its energy is differentiated by the positions for the forces, so that the gradient of the loss on forces
goes through the generated backward pass a second time. Twice-differentiable words only: softplus, no relu.

It prints the errors beside those of a guess that knows the mean energy and takes all forces for zero: 0.09 and 0.14
against 1.62 and 1.16 with the default settings (half a minute on two cores, torch 2.13.0).
"""

from __future__ import annotations

import argparse
import sys

import torch
from torch import Tensor, nn
from tqdm import tqdm

import gdsl

FILTER = """
# Distances become filters of the neighbours' features.
layer CFConv(channels, basis, width = 4.0) {
    param centre[basis] ~ uniform(0, 6)
    param weight[channels, channels'] ~ glorot
    param first[basis, channels] ~ glorot
    param second[channels, channels'] ~ glorot
    param out[channels', channels] ~ glorot
    node h[channels]
    node pos[space]

    r = norm(pos[j] - pos[i])                            # edge
    shells = exp(-width * (r - centre)**2)               # edge[basis]
    filter = softplus(shells @ first) @ second           # edge[channels']
    fade = 1 / (1 + exp(4 * (r - 4)))                    # far atoms fade smoothly
    aggregate a = sum(fade * filter * (h @ weight)[j])
    update y = softplus(rename(a, channels' -> channels)) @ out
}
"""


class Potential(nn.Module):
    """The energy [molecules] of atoms of given kinds at given places."""

    def __init__(self, kinds: int = 2, channels: int = 24, basis: int = 16, layers: int = 2) -> None:
        super().__init__()
        self.embed = nn.Embedding(kinds, channels)
        self.convs = nn.ModuleList([gdsl.compile(FILTER, channels, basis) for _ in range(layers)])
        self.read = nn.Sequential(nn.Linear(channels, channels), nn.Softplus(), nn.Linear(channels, 1))

    def forward(self, kind: Tensor, pos: Tensor, graph: gdsl.Graph, batch: Tensor, molecules: int) -> Tensor:
        h = self.embed(kind)
        for conv in self.convs:
            h = h + conv(h, pos, graph)
        return pos.new_zeros(molecules).index_add(0, batch, self.read(h).squeeze(1))


def molecules(count: int, atoms: int, seed: int) -> tuple[Tensor, Tensor, gdsl.Graph, Tensor, Tensor, Tensor]:
    """Kinds, positions, the graph of all pairs within a molecule, batch, energies and forces."""
    generator = torch.Generator().manual_seed(seed)
    grid = torch.cartesian_prod(*[torch.arange(2.0)] * 3)[:atoms] * 1.6
    pos = (grid + 0.2 * torch.randn(count, atoms, 3, generator=generator)).view(-1, 3).requires_grad_()
    kind = torch.randint(2, (count * atoms,), generator=generator)
    batch = torch.arange(count).repeat_interleave(atoms)
    pairs = torch.cartesian_prod(torch.arange(atoms), torch.arange(atoms)).t()
    pairs = pairs[:, pairs[0] != pairs[1]]
    edges = (pairs.unsqueeze(1) + atoms * torch.arange(count).view(1, -1, 1)).flatten(1)
    r = (pos[edges[0]] - pos[edges[1]]).norm(dim=1)
    depth = torch.tensor([[1.0, 0.6], [0.6, 0.3]])[kind[edges[0]], kind[edges[1]]]
    pair = depth * ((1 - torch.exp(-1.5 * (r - 1.7))) ** 2 - 1)
    energy = torch.zeros(count).index_add(0, batch[edges[0]], 0.5 * pair)
    (slope,) = torch.autograd.grad(energy.sum(), pos)
    return kind, pos.detach(), gdsl.Graph(edges, count * atoms), batch, energy.detach(), -slope


def predict(model: Potential, data: tuple, create_graph: bool) -> tuple[Tensor, Tensor]:
    """Energies, and forces: minus the gradient of the energy by the positions."""
    kind, pos, graph, batch, energy, _ = data
    pos = pos.clone().requires_grad_()
    found = model(kind, pos, graph, batch, len(energy))
    (slope,) = torch.autograd.grad(found.sum(), pos, create_graph=create_graph)
    return found, -slope


def errors(model: Potential, data: tuple) -> tuple[float, float]:
    """Mean absolute errors of energies and of force components."""
    found, forces = predict(model, data, create_graph=False)
    return (found - data[4]).abs().mean().item(), (forces - data[5]).abs().mean().item()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--short", action="store_true", help="few molecules and 30 epochs")
    given = parser.parse_args()
    torch.manual_seed(given.seed)
    count, epochs = (40, 30) if given.short else (400, given.epochs)
    train, test = molecules(count, 7, 1), molecules(count // 4, 7, 2)

    model = Potential()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.005)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    bar = tqdm(range(epochs), disable=not sys.stderr.isatty())
    for _ in bar:
        found, forces = predict(model, train, create_graph=True)
        loss = 0.1 * (found - train[4]).square().mean() + (forces - train[5]).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.4f}")
    energy, force = errors(model, test)
    plain = float((test[4] - train[4].mean()).abs().mean()), float(test[5].abs().mean())
    print(f"on {count // 4} unseen molecules   energy   force   (mean absolute errors)")
    print(f"network                   {energy:8.4f}{force:8.4f}")
    print(f"mean energy, no force     {plain[0]:8.4f}{plain[1]:8.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
