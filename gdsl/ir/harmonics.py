"""Real spherical harmonics, written out as polynomials."""

from __future__ import annotations

import math
from collections.abc import Iterator

from gdsl.ir import build
from gdsl.ir.attributes import IRError
from gdsl.ir.library import side_by_side
from gdsl.ir.node import Node
from gdsl.ir.ops.elementwise import choose, elementwise
from gdsl.ir.types import Dim, Domain

# Kernels write out all their places.
MOST = 8
# What is shorter has no direction: near the least number of float32.
SHORTEST = 1e-37


def harmonics(v: Node, degree: int, name: str, normalize: bool = True) -> Node:
    """The real spherical harmonics of degrees 0 to ``degree`` of vectors, whose places are the last dim, of size 3.

    They stand along one dim of (degree + 1)² places, ``name``: degree by degree, and of degree l the orders -l to l
    about the second axis, so that those of degree 1 are x, y, z. The mean square of each over the sphere is 1. This is
    e3nn's order and its normalisation "component".

    normalize: of the direction of a vector; at 0 those of degree 1 and more are 0, and so is the gradient. Else the
               homogeneous polynomials, of which those of degree l grow with the length to the power l.
    """
    if not v.dims or v.dims[-1].size != 3:
        raise IRError(f"`harmonics` takes vectors whose last dim has size 3, not {v.type}")
    if not 0 <= degree <= MOST:
        raise IRError(f"the degree of `harmonics` is 0 to {MOST}, not {degree}")
    along, domain = v.dims[-1].name, v.domain
    if normalize:
        # The square of a length may be beyond float32 where the length is not; the direction is that of any multiple.
        most = build.stop_gradient(build.reduce(elementwise("abs", v), "max", along))
        none = most < SHORTEST
        v = v / choose(none, 1.0, most)
        v = v * choose(none, 0.0, elementwise("rsqrt", choose(none, 1.0, build.contract([v, v], [along]))))
        square: Node = choose(none, 0.0, build.const(1.0))
    else:
        square = build.contract([v, v], [along])
    x, y, z = (build.select(v, along, k) for k in range(3))
    # The real and the imaginary part of (z + ix)^m
    powers: list[tuple[Node | float, Node | float]] = [(1.0, 0.0), (z, x)]
    for _ in range(degree - 1):
        a, b = powers[-1]
        powers.append((z * a - x * b, z * b + x * a))
    found: list[Node | float] = [0.0] * (degree + 1) ** 2
    for m in range(degree + 1):
        for n, polynomial in enumerate(_legendre(y, square, m, degree), m):
            size = math.sqrt((2 * n + 1) * math.factorial(n - m) / math.factorial(n + m) * (2 if m else 1))
            middle = n * n + n
            for place, power in zip((middle + m, middle - m)[: 1 + (m > 0)], powers[m], strict=False):
                found[place] = size * polynomial * power
    places = [build.as_node(p) for p in found]
    whole = side_by_side(places, Dim(name, len(places)))
    return whole if whole.domain is domain or domain is Domain.GLOBAL else build.spread(whole, domain)


def _legendre(y: Node, square: Node, m: int, degree: int) -> Iterator[Node | float]:
    """The m-th derivatives of Legendre's polynomials of degrees m to ``degree``, made homogeneous."""
    before: Node | float | None = None
    now: Node | float = float(math.prod(range(1, 2 * m, 2)))
    for n in range(m, degree + 1):
        yield now
        after: Node = (2 * n + 1) / (n + 1 - m) * now * y
        if before is not None:
            after = after - (n + m) / (n + 1 - m) * before * square
        before, now = now, after
