"""Functions that are made of others: what the language offers beyond the op table.

Each gives its formula. Written so that values *and derivatives* are right at the edges of the domain: no
``0 * inf`` under a ``where``, no division by an empty segment.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from gdsl.ir import build
from gdsl.ir.attributes import IRError
from gdsl.ir.node import Node
from gdsl.ir.ops import of
from gdsl.ir.types import Dim, Domain, Type, element_domain


def op(name: str, *args: Node | float) -> Node:
    """An entry of the op table."""
    return build.elementwise(name, *args)


def where(c: Node, a: Node | float, b: Node | float) -> Node:
    return op("where", c, a, b)


def elu(x: Node, alpha: Node | float = 1.0) -> Node:
    """x for x > 0, else alpha (e^x - 1). The exponential sees 0 where x > 0, so it never overflows.

    Not min(x, 0), which would share the gradient at 0 between its arguments.
    """
    positive = x > 0.0
    return where(positive, x, alpha * op("expm1", where(positive, 0.0, x)))


def selu(x: Node) -> Node:
    """Klambauer et al. 2017, with their fixed point's two numbers."""
    alpha, scale = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946
    return scale * elu(x, alpha)


def gelu(x: Node) -> Node:
    """x Phi(x), with the normal distribution function by erf."""
    return 0.5 * x * (1.0 + op("erf", x * math.sqrt(0.5)))


def silu(x: Node) -> Node:
    """x sigmoid(x)"""
    return x * op("sigmoid", x)


def softplus(x: Node) -> Node:
    """log(1 + e^x)"""
    return op("softplus", x)


def log_sigmoid(x: Node) -> Node:
    return -softplus(-x)


def clamp(x: Node, low: Node | float, high: Node | float) -> Node:
    """x held between low and high; the gradient is 1 between and at the limits, as in torch.clamp."""
    return where(x < low, low, where(x > high, high, x))


def square(x: Node) -> Node:
    return x * x


# ------------------------------------------------------------------------- over a feature dim


def last_dim(x: Node) -> str:
    if not x.dims:
        raise IRError(f"{x.type} has no dim to reduce over")
    return x.dims[-1].name


def dim_mean(x: Node, dims: Sequence[str]) -> Node:
    return build.sum_dims(x, dims) * (1.0 / max(math.prod(x.type.dim(name).size for name in dims), 1))


def dim_extreme(x: Node, reducer: str, dims: Sequence[str]) -> Node:
    """The max or min over some dims, one after the other."""
    for name in dims:
        x = build.reduce(x, reducer, name)
    return x


def dim_norm(x: Node, dims: Sequence[str]) -> Node:
    """The Euclidean norm; its derivative at 0 is 0."""
    return op("norm_sqrt", build.contract([x, x], dims))


def rounded(x: Node) -> Node:
    """A value of which the difference from an equal one is exactly 0: w * x - m in one instruction is what the product
    loses when it is rounded. What is read from memory is so already."""
    source = x
    while of(source).look:
        source = source.inputs[0]
    return x if source.op in ("load", "const") else op("rounded", x)


def dim_var(x: Node, dims: Sequence[str]) -> Node:
    """mean((x - mean(x))^2)"""
    x = rounded(x)
    return dim_mean(square(x - dim_mean(x, dims)), dims)


def dim_std(x: Node, dims: Sequence[str]) -> Node:
    return op("norm_sqrt", dim_var(x, dims))


def finite_or_zero(top: Node) -> Node:
    """A maximum to subtract: constant for the derivative; 0 where it is infinite, against inf - inf."""
    top = build.stop_gradient(top)
    return where(op("abs", top) < math.inf, top, 0.0)


def softmax_top(top: Node, masked: bool) -> Node:
    """The maximum that a softmax subtracts, constant for the derivative: its terms cancel.

    masked: 0 for -inf, so that what is masked everywhere stays -inf
    """
    top = build.stop_gradient(top)
    return where(top > -math.inf, top, 0.0) if masked else top


def softmax_total(total: Node, masked: bool) -> Node:
    """The divisor of a softmax; ``masked``: 1 for 0, where there is nothing to divide."""
    return where(op("eq", total, 0.0), 1.0, total) if masked else total


def dim_softmax(x: Node, dims: Sequence[str], masked: bool = False) -> Node:
    """e^(x - max) / sum e^(x - max); where all are -inf NaN, as in torch, or 0 with no gradient (``masked``)."""
    raised = op("exp", x - softmax_top(dim_extreme(x, "max", dims), masked))
    return in_order(raised / softmax_total(build.sum_dims(raised, dims), masked), x)


def dim_logsumexp(x: Node, dims: Sequence[str]) -> Node:
    """max + log sum e^(x - max)"""
    top = finite_or_zero(dim_extreme(x, "max", dims))
    return top + op("log", build.sum_dims(op("exp", x - top), dims))


def dim_product(x: Node, dims: Sequence[str]) -> Node:
    """The product over the places of a dim, one factor at a time."""
    for name in dims:
        parts = [build.select(x, name, k) for k in range(x.type.dim(name).size)]
        product = parts[0] if parts else build.sum_dims(x, [name]) + 1.0
        for part in parts[1:]:
            product = product * part
        x = product
    return x


def in_order(x: Node, like: Node) -> Node:
    """The dims of x in the order of ``like``, when they are the same dims."""
    return build.transpose(x, like.type.names) if set(x.type.names) == set(like.type.names) else x


def unit_dim(x: Node) -> Node:
    """A value without dims as one over a dim of size 1, named ``1``."""
    return build.reshape_like(x, Type(x.domain, (Dim("1", 1),), x.kind))


def side_by_side(parts: Sequence[Node], dim: Dim, first: bool = False) -> Node:
    """Values of one type as the places of a new dim: their last, or their first."""
    one = Dim("1", 1)
    places = [build.reshape_like(p, p.type.with_dims((one, *p.dims) if first else (*p.dims, one))) for p in parts]
    return build.cat(places, [one.name] * len(places), dim)


def dot(a: Node, b: Node) -> Node:
    """The sum over the last dim of a, which b has too."""
    dim = last_dim(a)
    if dim not in b.type.names:
        raise IRError(f"dot sums over `{dim}`, the last dim of {a.type}, and {b.type} has no such dim")
    return build.contract([a, b], [dim])


def cdist(a: Node, b: Node) -> Node:
    """|a - b| over the last dim"""
    return dim_norm(a - b, [last_dim(a)])


def cross(a: Node, b: Node) -> Node:
    """The cross product over the last dim, of size 3."""
    dim = a.type.dim(last_dim(a))
    if dim.size != 3 or dim.name not in b.type.names:
        raise IRError(f"cross needs two vectors over one dim of size 3, not {a.type} and {b.type}")
    one = Dim("1", 1)

    def part(x: Node, k: int) -> Node:
        return build.slice_dim(x, dim.name, k, one)

    pairs = [(1, 2), (2, 0), (0, 1)]
    parts = [part(a, k) * part(b, m) - part(a, m) * part(b, k) for k, m in pairs]
    return build.cat(parts, [one.name] * 3, dim)


def one_hot(index: Node, dim: Dim) -> Node:
    """1 at the place of the index, else 0."""
    return where(op("eq", build.iota(dim), index), 1.0, 0.0)


# ------------------------------------------------------------------- over the edges of each node


def spread(e: Node, end: str, rows: Domain) -> Node:
    """A global value as one value of each element of the rows: an edge, a pair, or for the end ``g`` a node."""
    return build.spread(e, element_domain(end, rows)) if e.domain is Domain.GLOBAL else e


def segment_sum(e: Node, end: str, rows: Domain, by: Node | None = None, dim: Dim | None = None) -> Node:
    return build.segment(e, end, "sum", rows, by, dim)


def segment_count(end: str, rows: Domain, by: Node | None = None, dim: Dim | None = None) -> Node:
    """How many edges (nodes, for ``g``) each row has."""
    if by is None and end in ("i", "j"):
        return build.graph_value("in_degree" if end == "i" else "out_degree", rows)
    return build.segment(spread(build.const(1.0), end, rows), end, "sum", rows, by, dim)


def segment_mean(e: Node, end: str, rows: Domain, by: Node | None = None, dim: Dim | None = None) -> Node:
    """sum / max(count, 1): 0 where there is nothing"""
    total = segment_sum(e, end, rows, by, dim)
    return in_order(total / op("maximum", segment_count(end, rows, by, dim), 1.0), total)


def segment_var(e: Node, end: str, rows: Domain, by: Node | None = None, dim: Dim | None = None) -> Node:
    """mean((m - mean(m))^2), by a walk that knows the mean: no digits are lost where it is large against the spread.

    As mean((m - c)^2) - mean(m - c)^2 with the mean for c, a constant for the derivative: the last term is what the
    mean's rounding leaves, and its derivative is that of the mean, so that the gradient needs no walk of its own. Held
    at 0, below which rounding may take it; the derivative knows nothing of that.
    """
    e = rounded(spread(e, end, rows))
    center = build.gather_by(build.stop_gradient(segment_mean(e, end, rows, by, dim)), end, by, dim)
    rest = e - in_order(center, e)
    off = segment_mean(rest, end, rows, by, dim)
    var = segment_mean(rest * rest, end, rows, by, dim) - rounded(off * off)
    return var + build.stop_gradient(where(var < 0.0, -var, 0.0))


def segment_std(e: Node, end: str, rows: Domain, by: Node | None = None, dim: Dim | None = None) -> Node:
    """The root of :func:`segment_var`; its derivative where all are equal is 0."""
    var = segment_var(e, end, rows, by, dim)
    return _root(var, op("eq", var, 0.0))


def clamped_std(var: Node) -> Node:
    """The root of a variance, 0 where that is at most 1e-5: torch_geometric's StdAggregation.

    The comparison is made on the variance and not on its rounded root: the same, whatever the rounding. NaN stays NaN.
    """
    return _root(var, var <= 1e-5)


def _root(var: Node, none: Node) -> Node:
    """The square root, and 0 with no derivative where ``none`` holds."""
    return where(none, 0.0, op("sqrt", where(none, 1.0, var)))


def segment_softmax(
    e: Node, end: str, rows: Domain, masked: bool = False, by: Node | None = None, dim: Dim | None = None
) -> Node:
    """e^(e - max) / sum of e^(e - max), over the edges of each node at this end; ``masked`` as for a dim."""
    e = spread(e, end, rows)
    top = softmax_top(build.segment(e, end, "max", rows, by, dim), masked)
    raised = op("exp", e - build.gather_by(top, end, by, dim))
    return raised / build.gather_by(softmax_total(segment_sum(raised, end, rows, by, dim), masked), end, by, dim)


def dim_log_softmax(x: Node, dims: Sequence[str]) -> Node:
    """x - log sum e^x, as torch's: -inf where x is, NaN where all are"""
    top = dim_extreme(x, "max", dims)
    shifted = x - top
    return in_order(shifted - op("log", build.sum_dims(op("exp", shifted), dims)), x)


def segment_log_softmax(e: Node, end: str, rows: Domain) -> Node:
    """e - log sum e^e over the edges of each node at this end."""
    e = spread(e, end, rows)
    shifted = e - build.gather(build.segment(e, end, "max", rows), end)
    return shifted - op("log", build.gather(segment_sum(op("exp", shifted), end, rows), end))


def segment_logsumexp(e: Node, end: str, rows: Domain, by: Node | None = None, dim: Dim | None = None) -> Node:
    """max + log sum e^(e - max); -inf where there is nothing, by log 0."""
    if by is not None:
        raise IRError("logsumexp has no `by`")
    e = spread(e, end, rows)
    top = finite_or_zero(build.segment(e, end, "max", rows))
    raised = op("exp", e - build.gather(top, end))
    total = segment_sum(raised, end, rows)
    # log's derivative at 0 is infinite: nothing flows into an empty segment.
    empty = op("eq", total, 0.0)
    return where(empty, -math.inf, top + op("log", where(empty, 1.0, total)))


def _pick(e: Node, rank: Node, end: str, rows: Domain) -> Node:
    """The value on the edge (node, for ``g``) whose number ``rank`` gives for each row; NaN where one of a row is."""
    chosen = op("eq", build.element_id(end), build.gather(rank, end))
    return segment_sum(where(chosen, e, where(op("ne", e, e), e, 0.0)), end, rows)


def segment_quantile(e: Node, end: str, rows: Domain, q: float) -> Node:
    """The q-quantile of each segment, linear between two values, as torch.quantile: NaN if a value is; 0 for none."""
    if not 0.0 <= q <= 1.0:
        raise IRError(f"a quantile is between 0 and 1, not {q}")
    e = spread(e, end, rows)
    low = _pick(e, build.order_rank(e, end, q, "lower", rows), end, rows)
    place = q * op("maximum", segment_count(end, rows) - 1.0, 0.0)
    share = place - op("floor", place)
    high = _pick(e, build.order_rank(e, end, q, "upper", rows), end, rows)
    # As torch.lerp, from the nearer end.
    gap = high - low
    return where(share < 0.5, low + share * gap, high - (1.0 - share) * gap)


def segment_median(e: Node, end: str, rows: Domain) -> Node:
    """The lower of two middle values, as torch.median: NaN where a value is; 0 for none."""
    e = spread(e, end, rows)
    return _pick(e, build.order_rank(e, end, 0.5, "lower", rows), end, rows)


def segment_stack(e: Node, end: str, rows: Domain, dim: Dim) -> Node:
    """The K values of each segment side by side in a new leading dim, in edge order."""
    place = build.graph_value("position", element_domain(end, rows))
    bounded = build.to_int(build.to_float(place), dim.size)
    return build.segment(spread(e, end, rows), end, "sum", rows, bounded, dim)


def symmetric_norm(w: Node | None) -> Node:
    """deg^-1/2[i] w deg^-1/2[j], deg the (weighted) in-degree; 0 where that is 0: Kipf and Welling 2017."""
    degree = segment_count("i", Domain.NODE) if w is None else segment_sum(w, "i", Domain.NODE)
    linked = op("ne", degree, 0.0)
    root = where(linked, op("rsqrt", where(linked, degree, 1.0)), 0.0)
    at_i, at_j = build.gather(root, "i"), build.gather(root, "j")
    return at_i * at_j if w is None else at_i * w * at_j
