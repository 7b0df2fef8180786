"""Open uniform B-spline bases: Fey et al., "SplineCNN", CVPR 2018, section 3."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

# The pieces of the basis of each degree, as functions of the place inside a knot interval.
_PIECES: dict[int, tuple[Callable[[Tensor], Tensor], ...]] = {
    1: (lambda v: 1 - v, lambda v: v),
    2: (lambda v: 0.5 * v * v - v + 0.5, lambda v: -v * v + v + 0.5, lambda v: 0.5 * v * v),
    3: (
        lambda v: (1 - v) ** 3 / 6,
        lambda v: (3 * v**3 - 6 * v * v + 4) / 6,
        lambda v: (-3 * v**3 + 3 * v * v + 3 * v + 1) / 6,
        lambda v: v**3 / 6,
    ),
}


def values(x: Tensor, kernel_size: int, degree: int) -> Tensor:
    """Products of bases: ``[..., d]`` in [0, 1] to ``[..., (degree + 1)^d]``, first coordinate fastest."""
    place = x * (kernel_size - degree)
    inside = place - place.floor()
    pieces = torch.stack([piece(inside) for piece in _PIECES[degree]], -1)
    columns = [
        torch.stack([pieces[..., k, choice] for k, choice in enumerate(choices)]).prod(0)
        for choices in _choices(x, degree)
    ]
    return torch.stack(columns, -1)


def places(x: Tensor, kernel_size: int, degree: int) -> Tensor:
    """The control points of :func:`values`: integers below ``kernel_size^d``."""
    first = (x * (kernel_size - degree)).floor().long()
    strides = kernel_size ** torch.arange(x.shape[-1], device=x.device)
    columns = [
        (((first + torch.tensor(choices, device=x.device)) % kernel_size) * strides).sum(-1)
        for choices in _choices(x, degree)
    ]
    return torch.stack(columns, -1)


def _choices(x: Tensor, degree: int) -> list[tuple[int, ...]]:
    """For each product, the piece of each coordinate; the first coordinate varies fastest."""
    return [c[::-1] for c in itertools.product(range(degree + 1), repeat=x.shape[-1])]
