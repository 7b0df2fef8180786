"""Energies that do not change when a molecule is turned: an interaction of NequIP, the text of equivariant.gdsl.

    python examples/equivariant.py              learn energies and say how they change when molecules are turned
    python examples/equivariant.py --short      few molecules, few steps

The Clebsch-Gordan coefficients are computed here: what couples two degrees to a third is the one table that may be
turned before or after, up to a factor. They are constants of the program, which writes out the products of the non-zero
ones: of the 8,019 numbers of 11 paths 83 are not 0.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

import gdsl

TEXT = (Path(__file__).parent / "equivariant.gdsl").read_text(encoding="utf-8")
DEGREES = 3
ORDERS = DEGREES**2
# The orders of each degree among all nine.
PLACES = [slice(n * n, (n + 1) ** 2) for n in range(DEGREES)]


# Rotations -------------------------------------------------------------------------------------------------


def harmonics(points: Tensor) -> Tensor:
    """The real spherical harmonics of degrees 0 to 2, of points [..., 3] on the unit sphere, as the text has them."""
    x, y, z = points.unbind(-1)
    s, q = math.sqrt(3), math.sqrt(15)
    second = [q * x * z, q * x * y, s * q / 6 * (3 * y**2 - 1), q * y * z, q / 2 * (z**2 - x**2)]
    return torch.stack([torch.ones_like(x), s * x, s * y, s * z, *second], -1)


def rotation(generator: torch.Generator) -> Tensor:
    """A random rotation of space, [3, 3], in float64."""
    made, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))
    return made * torch.linalg.det(made).sign()


def turned(by: Tensor) -> Tensor:
    """What a rotation does to the nine harmonics: [9, 9], a block for each degree."""
    points = torch.randn(64, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    points = nn.functional.normalize(points, dim=1)
    return torch.linalg.lstsq(harmonics(points), harmonics(points @ by.T)).solution.T


# Couplings -------------------------------------------------------------------------------------------------


@functools.cache
def coupling(one: int, two: int, three: int) -> Tensor:
    """How values of two degrees make one of a third, [9, 9, 9]: the table that is the same when all are turned."""
    shape = [2 * n + 1 for n in (one, two, three)]
    generator, apart = torch.Generator().manual_seed(1), torch.zeros(())
    for _ in range(3):
        whole = turned(rotation(generator))
        a, b, c = (whole[PLACES[n], PLACES[n]] for n in (one, two, three))
        change = torch.kron(torch.kron(a, b), c) - torch.eye(math.prod(shape), dtype=torch.float64)
        apart = apart + change.T @ change
    found = torch.linalg.eigh(apart)[1][:, 0]
    # The first of the large numbers is positive.
    first = torch.nonzero(found.abs() > 0.9 * found.abs().max())[0]
    found = found * found[first].sign() * math.sqrt(shape[2])
    found = torch.where(found.abs() < 1e-9, 0.0, found)
    table = torch.zeros(ORDERS, ORDERS, ORDERS, dtype=torch.float64)
    table[PLACES[one], PLACES[two], PLACES[three]] = found.view(shape)
    return table


@functools.cache
def couplings() -> Tensor:
    """All ways to couple two of the degrees 0 to 2 to a third, so that mirrors turn them too: [paths, 9, 9, 9]."""
    ways = itertools.product(range(DEGREES), repeat=3)
    possible = [w for w in ways if abs(w[0] - w[1]) <= w[2] <= w[0] + w[1] and sum(w) % 2 == 0]
    return torch.stack([coupling(*w) for w in possible])


def orders_of_degrees() -> Tensor:
    """Which orders each degree has: [3, 9]."""
    found = torch.zeros(DEGREES, ORDERS)
    for n, places in enumerate(PLACES):
        found[n, places] = 1
    return found


# The network -----------------------------------------------------------------------------------------------


def interaction(channels: int, **options: object) -> gdsl.Layer:
    """The layer of the text. It takes x [N, 9, channels], p [N, 3] and the edges to x of the same shape."""
    table = couplings()
    sizes = {"channels": channels, "lm": ORDERS, "paths": len(table)}
    return gdsl.compile(TEXT, **sizes, coupling=table, degree=orders_of_degrees(), **options)


class Energies(nn.Module):
    """Two interactions, and the energy of each molecule from the scalars of its atoms."""

    def __init__(self, kinds: int, channels: int = 16):
        super().__init__()
        self.embedding = nn.Embedding(kinds, channels)
        self.first, self.second = interaction(channels), interaction(channels)
        self.energy = nn.Sequential(nn.Linear(channels, channels), nn.SiLU(), nn.Linear(channels, 1))

    def forward(self, kind: Tensor, p: Tensor, edge_index: Tensor, molecule: Tensor, count: int) -> Tensor:
        """Kinds [N], positions [N, 3], edges [2, E] and the molecule of each atom [N] to energies [count]."""
        scalars = self.embedding(kind)
        x = torch.cat([scalars[:, None], scalars.new_zeros(len(kind), ORDERS - 1, scalars.shape[1])], 1)
        x = self.second(self.first(x, p, edge_index), p, edge_index)
        atoms = self.energy(x[:, 0]).squeeze(1)
        return torch.zeros(count, dtype=atoms.dtype).index_add(0, molecule, atoms)


# Molecules -------------------------------------------------------------------------------------------------


def molecules(count: int, atoms: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Atoms of two kinds in a ball, the edges within 3, and energies of pairs and of angles between neighbours."""
    generator = torch.Generator().manual_seed(seed)
    p = 1.2 * torch.randn(count, atoms, 3, generator=generator)
    kind = torch.randint(0, 2, (count, atoms), generator=generator)
    between = p[:, None] - p[:, :, None]
    length = between.norm(dim=-1) + 9 * torch.eye(atoms)
    near = (length < 3).float()
    pairs = near * torch.exp(-length) * (1 + kind[:, None] * kind[:, :, None])
    unit = between / length[..., None]
    cosines = torch.einsum("mijx,mikx->mijk", unit, unit)
    angles = torch.einsum("mij,mik,mijk->m", near * torch.exp(-length), near * torch.exp(-length), cosines**2)
    source, target = (torch.nonzero(near)[:, k] for k in (1, 2))
    edges = torch.stack([source, target]) + torch.nonzero(near)[:, 0] * atoms
    owner = torch.arange(count).repeat_interleave(atoms)
    return kind.flatten(), p.reshape(-1, 3), edges, owner, pairs.sum((1, 2)) + angles


def options_of(text: str | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(text or "").split("\n\n")[0])
    parser.add_argument("--short", action="store_true", help="few molecules, few steps")
    return parser.parse_args()


def learn(make: Callable[[float], nn.Module], count: int, steps: int) -> None:
    """Train what `make` gives for the mean number of neighbours, and print its errors on other molecules."""
    torch.manual_seed(0)
    kind, p, edges, owner, energy = molecules(count, 8, seed=1)
    model = make(edges.shape[1] / len(p))
    mean, spread = energy.mean(), energy.std()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    bar = tqdm(range(steps), desc="steps")
    for _ in bar:
        loss = ((model(kind, p, edges, owner, count) - (energy - mean) / spread) ** 2).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        bar.set_postfix(loss=f"{loss.item():.4f}")
    with torch.no_grad():
        kind, p, edges, owner, energy = molecules(count, 8, seed=2)
        found = model(kind, p, edges, owner, count)
        by = rotation(torch.Generator().manual_seed(3)).float()
        change = (model(kind, p @ by.T, edges, owner, count) - found).abs().max()
        error = (found - (energy - mean) / spread).abs().mean()
    print("\n| error on new molecules (of their spread) | change when they are turned |\n|---|---|")
    print(f"| {error:.3f} | {change:.1e} |")


def main() -> None:
    count, steps = (20, 10) if options_of(__doc__).short else (200, 300)
    learn(lambda _: Energies(2), count, steps)


if __name__ == "__main__":
    main()
