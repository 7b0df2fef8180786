"""Open uniform B-spline bases and their derivatives: Fey et al., "SplineCNN", CVPR 2018, section 3."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

# The pieces of the basis of each degree: coefficients, lowest power first, in the place inside a knot interval.
_PIECES: dict[int, list[list[float]]] = {
    1: [[1, -1], [0, 1]],
    2: [[1 / 2, -1, 1 / 2], [1 / 2, 1, -1], [0, 0, 1 / 2]],
    3: [
        [1 / 6, -1 / 2, 1 / 2, -1 / 6],
        [2 / 3, 0, -1, 1 / 2],
        [1 / 6, 1 / 2, 1 / 2, -1 / 2],
        [0, 0, 0, 1 / 6],
    ],
}


def values(x: Tensor, kernel_size: int, degree: int, order: int = 0) -> Tensor:
    """Products of bases: ``[..., d]`` in [0, 1] to ``[..., (degree + 1)^d]``, first coordinate fastest.

    With ``order``, all partial derivatives of that order: ``[..., d, ..., d, (degree + 1)^d]``.
    """
    scale = kernel_size - degree
    inside = x * scale - (x * scale).floor()
    derivatives = [_pieces(inside, degree, n) * scale**n for n in range(order + 1)]
    width = x.shape[-1]
    partials = []
    for by in itertools.product(range(width), repeat=order):
        columns = [
            torch.stack([derivatives[by.count(k)][..., k, piece] for k, piece in enumerate(choice)]).prod(0)
            for choice in _choices(width, degree)
        ]
        partials.append(torch.stack(columns, -1))
    result = torch.stack(partials, -2)
    return result.reshape(*x.shape[:-1], *(width,) * order, result.shape[-1])


def _pieces(v: Tensor, degree: int, order: int) -> Tensor:
    """``[...]`` to ``[..., degree + 1]``: a derivative of each piece at v."""
    columns = []
    for coefficients in _PIECES[degree]:
        for _ in range(order):
            coefficients = [n * c for n, c in enumerate(coefficients)][1:]
        columns.append(sum((c * v**n for n, c in enumerate(coefficients)), torch.zeros_like(v)))
    return torch.stack(columns, -1)


def places(x: Tensor, kernel_size: int, degree: int) -> Tensor:
    """The control points of :func:`values`: integers below ``kernel_size^d``."""
    first = (x * (kernel_size - degree)).floor().long().unsqueeze(-2)
    coordinate = torch.arange(x.shape[-1], device=x.device)
    # As _choices has them, but made where x is: what a CPU makes a GPU waits for.
    product = torch.arange((degree + 1) ** x.shape[-1], device=x.device).unsqueeze(-1)
    choices = product // (degree + 1) ** coordinate % (degree + 1)
    return ((first + choices) % kernel_size * kernel_size**coordinate).sum(-1)


def _choices(width: int, degree: int) -> list[tuple[int, ...]]:
    """For each product, the piece of each coordinate; the first coordinate varies fastest."""
    return [c[::-1] for c in itertools.product(range(degree + 1), repeat=width)]
