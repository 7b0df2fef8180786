"""The largest values on the edges of each node, or along a dim: where they stand, and weights that are 0 elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from gdsl.ir import build
from gdsl.ir.attributes import IRError
from gdsl.ir.library import in_order, op, segment_sum, softmax_top, spread, where
from gdsl.ir.node import Node
from gdsl.ir.ops.edges import number_in_row
from gdsl.ir.types import Dim, Domain, Kind

# Each is a walk over the edges, or over the places of the dim.
MOST = 32
# Below it float32 tells all integers apart.
MOST_EXACT = 2**24


def segment_topk(e: Node, end: str, rows: Domain, k: int, by: Node | None = None, dim: Dim | None = None) -> Node:
    """Whether each is among the k largest of its node; of equal ones the first is the larger, and -inf is none."""

    def largest(left: Node) -> Node:
        found = build.gather_by(build.segment(left, end, "argmax", rows, by, dim), end, by, dim)
        return op("eq", found, number_in_row(end, rows))

    return _topk(spread(e, end, rows), k, largest)


def dim_topk(x: Node, dims: Sequence[str], k: int) -> Node:
    """The same along a dim, which stays."""
    name = _one_dim("topk", dims)
    place = build.iota(x.type.dim(name))
    return _topk(x, k, lambda left: op("eq", build.reduce(left, "argmax", name), place))


def _topk(x: Node, k: int, largest: Callable[[Node], Node]) -> Node:
    if not 1 <= k <= MOST:
        raise IRError(f"`topk` finds 1 to {MOST} values, not {k}")
    if x.kind is Kind.INT and (x.type.bound or 0) > MOST_EXACT:
        hint = f"give what is added to a first one, below {MOST_EXACT}, or a float, in a layer of float64"
        raise IRError(f"integers up to {x.type.bound} are compared as floats, which are not all different", hint)
    x = build.to_float(x)
    found = largest(x)
    for _ in range(k - 1):
        found = op("or", found, largest(where(found, -math.inf, x)))
    return in_order(op("and", found, op("ne", x, -math.inf)), x)


def segment_argmax(m: Node, key: Node, end: str, rows: Domain, by: Node | None = None, dim: Dim | None = None) -> Node:
    """Of each node, the m where the key is largest; of equal ones the first, and 0 for none."""
    first = segment_topk(key, end, rows, 1, by, dim)
    return segment_sum(where(first, m, 0.0), end, rows, by, dim)


def segment_sparsemax(e: Node, end: str, rows: Domain) -> Node:
    """Weights of the edges of each node, nearest to the values of all that are 0 or more and together 1."""
    e = spread(build.to_float(e), end, rows)
    if rows is Domain.EDGE:
        raise IRError("`sparsemax` is over edges or nodes, and the pairs of an edge are not stored to be sorted")
    top = build.gather(softmax_top(build.segment(e, end, "max", rows), True), end)
    below = op("rounded", e - top)
    return _nearest(below, build.support(e, end), lambda x: build.gather(segment_sum(x, end, rows), end))


def dim_sparsemax(x: Node, dims: Sequence[str]) -> Node:
    """The same along a dim: each place is compared with all others."""
    name = _one_dim("sparsemax", dims)
    x = build.to_float(x)
    x = op("rounded", x - softmax_top(build.reduce(x, "max", name), True))
    others = f"{name}.others"
    other = build.rename(x, {name: others})
    above = build.sum_dims(where(other > x, other - x, 0.0), [others])
    inside = op("and", op("not", above >= 1.0), op("ne", x, -math.inf))
    return in_order(_nearest(x, inside, lambda y: build.sum_dims(y, [name])), x)


def _one_dim(function: str, dims: Sequence[str]) -> str:
    if len(dims) != 1:
        raise IRError(f"`{function}` is along one dim, not {', '.join(dims)}")
    return dims[0]


def _nearest(x: Node, inside: Node, total: Callable[[Node], Node]) -> Node:
    """x less what makes those inside 1 together, and 0 for the others. Derivatives take it as known which are inside.

    The largest x is 0, and x is rounded, so that no rule takes together what it is the small difference of.
    """
    count = op("maximum", total(where(inside, 1.0, 0.0)), 1.0)
    return where(inside, op("relu", x - (total(where(inside, x, 0.0)) - 1.0) / count), 0.0)
