"""Energies of molecules by MACE, the text of mace.gdsl: features of an atom's neighbours, multiplied with one another.

    python examples/mace.py              learn energies and say how they change when molecules are turned
    python examples/mace.py --short      few molecules, few steps

A product of two or three features of an atom is of degree L again where Clebsch-Gordan coefficients couple them: two
to one of a degree between, and that with the third to L. Since all factors are the same features, only what is
symmetric in them counts, and a table has its numbers where the orders of the factors do not descend: of the 16 ways to
couple three that is 213 numbers of 104,976, in the place of 856. The tables are constants of the program, and what is 0
in them takes no operation.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from pathlib import Path

import torch
from equivariant import DEGREES, ORDERS, PLACES, coupling, couplings, learn, options_of, orders_of_degrees
from torch import Tensor, nn

import gdsl

TEXT = (Path(__file__).parent / "mace.gdsl").read_text(encoding="utf-8")


# Products of one feature with itself ----------------------------------------------------------------------


def symmetric(table: Tensor) -> Tensor:
    """The mean over all orders of the factors, which all dims but the last are."""
    count = table.dim() - 1
    return torch.stack([table.permute(*order, count) for order in itertools.permutations(range(count))]).mean(0)


def chains(factors: int) -> Iterator[tuple[Tensor, tuple[int, ...]]]:
    """Products of features of degrees that do not descend, coupled one after the other, and these degrees."""
    if factors == 1:
        for degree, places in enumerate(PLACES):
            table = torch.zeros(ORDERS, ORDERS, dtype=torch.float64)
            table[places, places] = torch.eye(2 * degree + 1, dtype=torch.float64)
            yield table, (degree,)
        return
    for before, degrees in chains(factors - 1):
        between = next(n for n in range(DEGREES) if before[..., PLACES[n]].any())
        for new, result in itertools.product(range(degrees[-1], DEGREES), range(DEGREES)):
            if abs(between - new) <= result <= between + new:
                yield torch.tensordot(before, coupling(between, new, result), 1), (*degrees, new)


def in_mirrors(table: Tensor, degrees: tuple[int, ...]) -> bool:
    """Whether a product changes its sign in a mirror as a feature of its degree does."""
    result = next(n for n in range(DEGREES) if table[..., PLACES[n]].any())
    return (sum(degrees) + result) % 2 == 0


@functools.cache
def products(factors: int) -> Tensor:
    """The symmetric products of equal features that turn as a feature does: [ways, 9, ..., 9], the result last.

    Chains that others give are left out, and those that are 0 once they are symmetric.
    """
    found: list[Tensor] = []
    for table, degrees in chains(factors):
        table = symmetric(table)
        if table.abs().max() > 1e-9 and in_mirrors(table, degrees):
            table = table / table.norm()
            known = torch.stack([*found, table]).flatten(1)
            if torch.linalg.matrix_rank(known, tol=1e-6) == len(known):
                found.append(torch.where(table.abs() < 1e-9, 0.0, table))
    return torch.stack(found)


def folded(table: Tensor) -> Tensor:
    """A symmetric table [ways, 9, ..., 9, 9] with the same sums, whose numbers stand where orders do not descend."""
    factors = table.dim() - 2
    places = torch.stack(torch.meshgrid(*[torch.arange(ORDERS)] * factors, indexing="ij"), -1)
    ascending = (places[..., 1:] >= places[..., :-1]).all(-1)
    alike = (places[..., None] == torch.arange(ORDERS)).sum(-2)  # how often each order is there
    times = math.factorial(factors) / torch.lgamma(alike.double() + 1).sum(-1).exp()
    return table * (ascending * times)[None, ..., None]


# The network -----------------------------------------------------------------------------------------------


def tables(degrees: int = DEGREES) -> dict[str, Tensor]:
    """The tables of the text for features of so many degrees, at most three, which are the first orders of all nine."""
    size = degrees**2

    def first(table: Tensor) -> Tensor:
        dims = (slice(None), *[slice(size)] * (table.dim() - 1))
        return table[dims][table[dims].flatten(1).any(1)]

    found = {"coupling": couplings(), "two": folded(products(2)), "three": folded(products(3))}
    return {"degree": orders_of_degrees()[:degrees, :size], **{name: first(table) for name, table in found.items()}}


def layer(channels: int, kinds: int, degrees: int = DEGREES, **options: object) -> gdsl.Layer:
    """The layer of the text. It takes x [N, orders, channels], z [N], p [N, 3] and the edges to x of the same shape.

    The tables say how many orders, degrees and ways there are.
    """
    return gdsl.compile(TEXT, channels=channels, kinds=kinds, **tables(degrees), **options)


class Energies(nn.Module):
    """Two layers, and the energy of each molecule from the scalars of its atoms after each."""

    def __init__(self, kinds: int, channels: int = 8, degrees: int = DEGREES, **options: object):
        super().__init__()
        self.orders = degrees**2
        self.embedding = nn.Embedding(kinds, channels)
        self.layers = nn.ModuleList(layer(channels, kinds, degrees, **options) for _ in range(2))
        self.first = nn.Linear(channels, 1)
        self.last = nn.Sequential(nn.Linear(channels, channels), nn.SiLU(), nn.Linear(channels, 1))

    def forward(self, kind: Tensor, p: Tensor, edge_index: Tensor, molecule: Tensor, count: int) -> Tensor:
        """Kinds [N], positions [N, 3], edges [2, E] and the molecule of each atom [N] to energies [count]."""
        scalars = self.embedding(kind)
        x = torch.cat([scalars[:, None], scalars.new_zeros(len(kind), self.orders - 1, scalars.shape[1])], 1)
        energy = scalars.new_zeros(len(kind))
        for layer, readout in zip(self.layers, (self.first, self.last), strict=True):
            x = layer(x, kind, p, edge_index)
            energy = energy + readout(x[:, 0]).squeeze(1)
        return energy.new_zeros(count).index_add(0, molecule, energy)


def main() -> None:
    count, steps = (20, 10) if options_of(__doc__).short else (200, 200)
    learn(lambda neighbours: Energies(2, mean_degree=neighbours), count, steps)


if __name__ == "__main__":
    main()
