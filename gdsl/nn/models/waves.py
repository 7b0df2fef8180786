"""Lengths and angles as waves, and the angles of a graph: what directional models see of positions."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor, nn

from gdsl.runtime.spans import spans


class Envelope(nn.Module):
    """1/x and what takes it to 0 at 1 with its first derivatives. Gasteiger et al., ICLR 2020, equation 8.

    exponent: of the smallest power but one
    """

    def __init__(self, exponent: int):
        super().__init__()
        self.p = exponent + 1
        self.a = -(self.p + 1) * (self.p + 2) / 2
        self.b = self.p * (self.p + 2)
        self.c = -self.p * (self.p + 1) / 2

    def forward(self, x: Tensor) -> Tensor:
        """Of any shape; 0 from 1 on."""
        power = x.pow(self.p - 1)
        return (1.0 / x + power * (self.a + x * (self.b + x * self.c))) * (x < 1.0).to(x.dtype)


class BesselBasisLayer(nn.Module):
    """Standing waves of learned frequencies, times the envelope. Gasteiger et al., ICLR 2020, equation 7.

    num_radial:        number of waves
    cutoff:            where they end
    envelope_exponent: of :class:`Envelope`
    """

    def __init__(self, num_radial: int, cutoff: float = 5.0, envelope_exponent: int = 5):
        super().__init__()
        self.cutoff = cutoff
        self.envelope = Envelope(envelope_exponent)
        self.freq = nn.Parameter(torch.empty(num_radial))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Back to the multiples of pi."""
        self.freq.data.copy_(math.pi * torch.arange(1, len(self.freq) + 1))

    def forward(self, dist: Tensor) -> Tensor:
        """[E] to [E, num_radial]."""
        x = dist.unsqueeze(-1) / self.cutoff
        return self.envelope(x) * (self.freq * x).sin()


class SphericalBasisLayer(nn.Module):
    """Spherical waves of lengths and angles. Gasteiger et al., ICLR 2020, equation 6.

    num_spherical, num_radial: orders of the waves, and waves of each
    cutoff:            where they end
    envelope_exponent: of :class:`Envelope`

    Raises AssertionError for more than 64 waves of an order.
    """

    def __init__(self, num_spherical: int, num_radial: int, cutoff: float = 5.0, envelope_exponent: int = 5):
        super().__init__()
        assert num_radial <= 64, f"there are at most 64 waves of an order, not {num_radial}"
        self.num_spherical = num_spherical
        self.num_radial = num_radial
        self.cutoff = cutoff
        self.envelope = Envelope(envelope_exponent)

    def forward(self, dist: Tensor, angle: Tensor, idx_kj: Tensor) -> Tensor:
        """Lengths [E], angles [T] and the edge of each [T] to [T, num_spherical * num_radial]."""
        x = dist / self.cutoff
        rbf = self.envelope(x).view(-1, 1, 1) * self._radial(x)
        return (rbf[idx_kj] * self._angular(angle).unsqueeze(-1)).flatten(1)

    def _radial(self, x: Tensor) -> Tensor:
        """j_l(z_ln x) of norm 1 over the unit ball: [E, num_spherical, num_radial]."""
        roots, scale = _waves(self.num_spherical, self.num_radial, x.dtype, x.device)
        found = [spherical_bessel(x.unsqueeze(-1) * z, k + 1)[k] for k, z in enumerate(roots)]
        return torch.stack(found, dim=1) * scale

    def _angular(self, angle: Tensor) -> Tensor:
        """sqrt((2l + 1) / 4 pi) P_l(cos): [T, num_spherical]."""
        z = angle.cos()
        legendre = [torch.ones_like(z), z]
        for k in range(1, self.num_spherical - 1):
            legendre.append(((2 * k + 1) * z * legendre[k] - k * legendre[k - 1]) / (k + 1))
        scaled = [math.sqrt((2 * k + 1) / (4 * math.pi)) * p for k, p in enumerate(legendre[: self.num_spherical])]
        return torch.stack(scaled, dim=1)


def spherical_bessel(x: Tensor, orders: int) -> list[Tensor]:
    """j_0(x), j_1(x), ... of the first kind, each from the two before."""
    found = [x.sin() / x, x.sin() / x**2 - x.cos() / x]
    for k in range(1, orders - 1):
        found.append((2 * k + 1) / x * found[k] - found[k - 1])
    return found[:orders]


@functools.cache
def _waves(orders: int, count: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """The roots of j_l, and what gives the waves that end there norm 1: [orders, count] each."""
    roots = bessel_roots(orders, count)
    next_ones = torch.stack([spherical_bessel(z, k + 2)[k + 1] for k, z in enumerate(roots)])
    return roots.to(device, dtype), (2**0.5 / next_ones.abs()).to(device, dtype)


@functools.cache
def bessel_roots(orders: int, count: int) -> Tensor:
    """Where j_l is 0, the first places of each order: [orders, count] in float64. They lie between those of the order
    before.
    """
    roots = [math.pi * torch.arange(1, count + orders, dtype=torch.float64)]
    for order in range(1, orders):
        low, high = roots[-1][:-1].clone(), roots[-1][1:].clone()
        rising = spherical_bessel(high, order + 1)[order] > 0
        for _ in range(60):
            middle = (low + high) / 2
            below = (spherical_bessel(middle, order + 1)[order] > 0) != rising
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        roots.append((low + high) / 2)
    return torch.stack([each[:count] for each in roots])


def triplets(edge_index: Tensor, num_nodes: int) -> tuple[Tensor, ...]:
    """Pairs of edges k -> j -> i with another k than i.

    Gives the targets and sources of the edges [E], the nodes i, j and k [T], and the edges k -> j and j -> i [T].
    """
    source, target = edge_index
    order = (target * num_nodes + source).argsort(stable=True)
    count = torch.bincount(target, minlength=num_nodes)
    second, place = spans((count.cumsum(0) - count)[source], count[source])
    first = order[place]
    kept = target[second] != source[first]
    first, second = first[kept], second[kept]
    return target, source, target[second], source[second], source[first], first, second
