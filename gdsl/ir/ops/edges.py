"""Values read at an end of each edge, and values of edges reduced at a node: each the other's adjoint.

The end ``g`` takes nodes as the edges, and the graphs of a batch as the nodes. To pairs of edges that follow each
other, edges are what nodes are to edges: an edge value is read at both, and values of pairs are reduced to edges.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

from gdsl.ir.attributes import Attrs, IRError, need, one_of
from gdsl.ir.node import Node, make, walk, walk_below
from gdsl.ir.ops.elementwise import choose, elementwise, join_domains, to_float
from gdsl.ir.ops.indexing import added, below, index, loses, wins
from gdsl.ir.ops.leaves import const, element_id
from gdsl.ir.ops.op import ATOM, Gradients, NotDifferentiable, Op, Run, Text, align, define, full, of
from gdsl.ir.ops.products import spread, sum_to
from gdsl.ir.ops.rows import add_at
from gdsl.ir.ops.views import transpose
from gdsl.ir.types import ENDS, Dim, Domain, Kind, Type, element_domain, row_domains, shown_end

if TYPE_CHECKING:
    from torch import Tensor

END, EDGE_END = one_of(ENDS), one_of(("i", "j"))

# ---------------------------------------------------------------------------------------- gather


class Gather(Attrs):
    end: Annotated[str, END]


def gather(x: Node, end: str) -> Node:
    """Read a node value at an end of each edge, an edge value at an edge of each pair, or a graph value at each node
    (end ``g``)."""
    if x.domain is Domain.GLOBAL:
        return x
    if x.domain not in row_domains(end):
        raise IRError(f"{x.type} cannot be read at [{end}]", _gather_hint(x.domain))
    return make("gather", (x,), Type(element_domain(end, x.domain), x.dims, x.kind, x.type.bound), Gather(end))


def gather_by(x: Node, end: str, by: Node | None, dim: Dim | None) -> Node:
    """What each edge reads of a result of its row, at an end; where there is one for each integer ``by``, its own."""
    x = gather(x, end)
    return x if by is None or dim is None else index(x, by, dim.name)


def _gather_hint(domain: Domain) -> str:
    return {
        Domain.SOURCE: "a source value lives at [j]",
        Domain.TARGET: "a target value lives at [i]",
        Domain.GRAPH: "a graph value is read at nodes with [g]",
    }.get(domain, "only values of nodes and edges have ends")


def _gather_value(node: Node, args: Sequence[Tensor], run: Run) -> Tensor:
    if node.domain is Domain.PAIR and node.inputs[0] is element_id("i"):
        # Of a distributed graph the first edge of a pair may be another process's.
        return run.ends(node.attrs.end, node.domain)
    return full(args[0], node.inputs[0].type, run).index_select(0, run.ends(node.attrs.end, node.domain))


define(Op(
    name="gather", operands=(1, 1), attrs=Gather, rule=lambda n: gather(n.inputs[0], n.attrs.end), value=_gather_value,
    pull=lambda n, g, ties: [segment(g, n.attrs.end, "sum", n.inputs[0].domain)],
    text=lambda n, args: (f"{args[0]}[{shown_end(n.attrs.end, n.domain)}]", ATOM), levels=lambda n: (ATOM, ATOM),
    look=True, exact=True, pointwise=True, maps=True,
))  # fmt: skip

# --------------------------------------------------------------------------------------- segment

SEGMENT_REDUCERS = ("sum", "max", "min", "mul", "argmax", "argmin", "countmax", "countmin")


class Segment(Attrs):
    end: Annotated[str, END]
    reducer: Annotated[str, one_of(SEGMENT_REDUCERS)]


def segment(
    e: Node, end: str, reducer: str, row_domain: Domain, by: Node | None = None, dim: Dim | None = None
) -> Node:
    """Reduce edge values over the edges of each node at ``end``, values of pairs over the pairs of each edge, or node
    values over each graph (end ``g``).

    reducer: "sum", "max", "min", "mul"; "argmax", "argmin": the edge_id of the first winner, -1 for none; "countmax",
             "countmin": how many winners there are, more than one where they tie.
    With ``by``, a bounded integer on the same rows, ``dim`` is a new leading dim: one result for each integer. In a
    sum, ``by`` may have dims of the value: each of its integers names the place of its own numbers, and these dims go.
    An empty segment gives 0 (1 for ``mul``).
    """
    elements = element_domain(end, row_domain)
    if e.domain is not elements:
        if e.domain is not Domain.GLOBAL:
            raise IRError(f"only {elements.value} values can be aggregated, not {e.type}", _segment_hint(elements))
        e = spread(e, elements)
    dims, inputs = e.dims, [to_float(e)]
    if by is not None:
        assert dim is not None
        if by.kind is not Kind.INT or (by.dims and reducer != "sum") or not set(by.dims) <= set(e.dims):
            raise IRError(f"`by` needs one integer an edge, not {by.type}")
        if dim.name in e.type.names:
            raise IRError(f"dim `{dim.name}` is already in {e.type}")
        dims, inputs = (dim, *(d for d in dims if d not in by.dims)), [inputs[0], by]
    kind = Kind.INT if _finds_winners(reducer) else Kind.FLOAT
    return make("segment", inputs, Type(row_domain, dims, kind), Segment(end, reducer))


def _finds_winners(reducer: str) -> bool:
    return reducer[:-3] in ("arg", "count")


def finds_winners(node: Node) -> bool:
    """Whether a node is about the winners of a maximum or minimum over edges: the last three letters of its reducer say
    of which."""
    return node.op == "segment" and _finds_winners(node.attrs.reducer)


def is_sum(node: Node, by: bool = False) -> bool:
    """Whether a node is a sum over the edges of each node; with ``by``, one for each integer of an edge."""
    summed = node.op == "segment" and node.attrs.reducer == "sum" and node.attrs.end != "g"
    return summed and len(node.inputs) == 1 + by


def is_extreme(node: Node) -> bool:
    """Whether a node is a maximum or minimum over edges."""
    return node.op == "segment" and node.attrs.reducer in ("max", "min")


def _segment_hint(elements: Domain) -> str:
    return {
        Domain.NODE: "aggregate edge values to nodes first",
        Domain.PAIR: "read it at pairs first: [kj] for the first edge, [ji] for the second",
    }.get(elements, "read it along the edges first: [j] for the source, [i] for the target")


def rows_at(node: Node, end: str) -> Domain:
    """The domain of a value that is reduced at an end."""
    need(node.domain in row_domains(end), f"there is no {node.domain.value} at the end {end}")
    return node.domain


def _segment_rule(node: Node) -> Node:
    e, end, reducer = node.inputs[0], node.attrs.end, node.attrs.reducer
    if len(node.inputs) == 1:
        return segment(e, end, reducer, rows_at(node, end))
    need(bool(node.dims), f"it has a dim for `by`, and its type is {node.type}")
    by, dim = node.inputs[1], node.dims[0]
    below(by, dim)
    need(join_domains([e, by]) is e.domain, f"`by` has the rows of {e.type}, not of {by.type}")
    return segment(e, end, reducer, rows_at(node, end), by, dim)


def _segment_value(node: Node, args: Sequence[Tensor], run: Run) -> Tensor:
    value = full(args[0], node.inputs[0].type, run)
    elements = node.inputs[0].domain
    rows, ends, places = run.rows(node.domain), run.ends(node.attrs.end, elements), 1
    if len(args) == 2:
        places, by = node.dims[0].size, node.inputs[1].type
        turned = Type(node.inputs[0].domain, (*by.dims, *node.dims[1:]))
        value = align(value, node.inputs[0].type, turned).flatten(0, len(by.dims))
        ends = (ends.reshape(-1, *(1,) * len(by.dims)) * places + args[1]).flatten()
    shape, reducer = (rows * places, *value.shape[1:]), node.attrs.reducer
    if reducer.startswith("arg"):
        numbers = run.ends("j" if node.attrs.end == "i" else "i", elements) if elements is Domain.PAIR else None
        return _arg(value, ends, shape, "a" + reducer[3:], numbers).reshape(rows, *node.type.shape)
    return _REDUCED[reducer](value, ends, shape).reshape(rows, *node.type.shape)


def _sum(value: Tensor, ends: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Added up in double precision: one after the other in float32, a million numbers lose three digits."""
    return add_at(value.double(), ends, shape[0]).to(value.dtype)


def _scatter(value: Tensor, ends: Tensor, shape: tuple[int, ...], how: str, start: float) -> Tensor:
    import torch

    where = ends.reshape(-1, *(1,) * (value.dim() - 1)).expand_as(value)
    if how == "prod":
        return value.new_full(shape, start).scatter_reduce(0, where, value, how)
    # From NaN, which equals no result: torch's derivative counts a tensor to start from among the winners where it is
    # equal to them, though it is left out.
    init = value.new_full(shape, torch.nan) if value.is_floating_point() else value.new_full(shape, -1)
    found = init.scatter_reduce(0, where, value, how, include_self=False)
    filled = torch.zeros(shape[0], dtype=torch.bool, device=value.device).index_fill(0, ends, True)
    return found.where(filled.reshape(-1, *(1,) * (len(shape) - 1)), start)


def _arg(value: Tensor, ends: Tensor, shape: tuple[int, ...], how: str, numbers: Tensor | None) -> Tensor:
    """The least number of a winner; ``numbers`` of the values, where these are not 0, 1, 2, ..."""
    import torch

    winner = wins(value, _scatter(value, ends, shape, how, 0.0).index_select(0, ends))
    ids = torch.arange(len(value), device=value.device) if numbers is None else numbers
    most = torch.iinfo(torch.int64).max
    ids = ids.reshape(-1, *(1,) * (value.dim() - 1)).expand_as(value)
    first = _scatter(torch.where(winner, ids, most), ends, shape, "amin", most)
    return torch.where(first == most, -1, first)


def _count(value: Tensor, ends: Tensor, shape: tuple[int, ...], how: str) -> Tensor:
    best = _scatter(value, ends, shape, how, 0.0).index_select(0, ends)
    return ends.new_zeros(shape).index_add(0, ends, wins(value, best).long())


_REDUCED: dict[str, Callable[[Tensor, Tensor, tuple[int, ...]], Tensor]] = {
    "sum": _sum,
    "max": lambda v, e, s: _scatter(v, e, s, "amax", 0.0),
    "min": lambda v, e, s: _scatter(v, e, s, "amin", 0.0),
    "mul": lambda v, e, s: _scatter(v, e, s, "prod", 1.0),
    "countmax": lambda v, e, s: _count(v, e, s, "amax"),
    "countmin": lambda v, e, s: _count(v, e, s, "amin"),
}


def number_in_row(end: str, rows: Domain) -> Node:
    """What tells apart the elements of a row: the number of an edge or node; of a pair that of its other edge."""
    if rows is Domain.EDGE:
        return gather(element_id("i"), "j" if end == "i" else "i")
    return element_id(end)


def _segment_pull(node: Node, g: Node, ties: str) -> Gradients:
    e, end, reducer = node.inputs[0], node.attrs.end, node.attrs.reducer
    rest: Gradients = [None] * (len(node.inputs) - 1)
    by, dim = (node.inputs[1], node.dims[0]) if len(node.inputs) == 2 else (None, None)
    zero = const(0.0)

    def on_edges(row: Node) -> Node:
        return gather_by(row, end, by, dim)

    def first() -> Node:
        arg = segment(e, end, "arg" + reducer, node.domain, by, dim)
        return elementwise("eq", on_edges(arg), number_in_row(end, node.domain))

    if reducer == "sum":
        part = on_edges(g)
    elif reducer == "mul":
        part = mul_pull(e, lambda v, how: on_edges(segment(v, end, how, node.domain, by, dim)), on_edges(g))
    elif reducer not in ("max", "min"):
        raise NotDifferentiable(f"the aggregator `{reducer}` has no derivative rule")
    elif ties == "first":
        part = choose(first(), on_edges(g), zero)
    else:
        count = to_float(segment(e, end, "count" + reducer, node.domain, by, dim))
        if compared_rows(e) is not None:
            losers = loses(e, on_edges(node), reducer)
        else:
            # What is computed on edges is rounded otherwise by each kernel that computes it again, which adds up in
            # another order. So the forward pass tells which rows have several winners, and which is the first. Where
            # there are several, what comes near the best is one, and those are counted that the gradient is given to:
            # they may be more than the forward pass has seen.
            losers = loses(e, on_edges(_bar(node, count, reducer)), reducer)
            losers = elementwise("and", losers, elementwise("not", first()))
            count = segment(choose(losers, zero, const(1.0)), end, "sum", node.domain, by, dim)
        share = g / elementwise("maximum", count, 1.0)
        part = choose(losers, zero, on_edges(transpose(share, g.type.names)))
    return [sum_to(part, e.type), *rest]


# More than what rounding makes of a message: 64 units in the last place of float32.
NEAR = 2.0**-18


def _bar(best: Node, winners: Node, reducer: str) -> Node:
    """What edges lose to, but for the first of the winners: nearly the best where there are several, else all do."""
    least, none = ("minimum", float("inf")) if reducer == "max" else ("maximum", float("-inf"))
    near = elementwise(least, best * (1 - NEAR), best * (1 + NEAR))  # infinity stays
    return choose(winners > 1.5, near, none)


def mul_pull(e: Node, reduced: Callable[[Node, str], Node], back: Node) -> Node:
    """The product of the *other* members: through the product of the nonzero ones, since x / 0 would lose it.

    reduced: what each member sees of all members together, from a value of each and "sum" or "mul"
    back:    the gradient that each sees
    """
    zero = elementwise("eq", e, 0.0)
    nonzero = choose(zero, 1.0, e)
    product = reduced(nonzero, "mul")
    zeros = reduced(choose(zero, 1.0, 0.0), "sum")
    no_zero, one_zero = zeros < 0.5, elementwise("and", zeros > 0.5, zeros < 1.5)
    # The sum of the zeros is 0, but its derivative is not: it stands for the one zero, or the one other zero, that
    # the product of the others holds, so that the second derivative is right too.
    zero_sum = reduced(choose(zero, e, 0.0), "sum")
    two_zeros = elementwise("and", zeros > 1.5, zeros < 2.5)
    of_zero = choose(one_zero, product, choose(two_zeros, product * (zero_sum - e), const(0.0)))
    of_other = choose(no_zero, product / nonzero, choose(one_zero, product / nonzero * zero_sum, const(0.0)))
    return back * choose(zero, of_zero, of_other)


def compared_rows(e: Node) -> tuple[Node, ...] | None:
    """The row values that an edge value is one of, or the negative of one: None where it is computed on edges.

    The backward pass tells from these which edges win a maximum, and reads them as the forward pass has made them.
    """
    computed = [n for n in walk_below([e], lambda n: n.inputs if of(n).exact else ()) if not of(n).exact]
    if any(n.domain in (e.domain, Domain.GLOBAL) for n in computed):
        return None
    return tuple(computed)


def held_by_ties(outputs: Sequence[Node]) -> frozenset[Node]:
    """What the backward pass must read as the forward pass has made it, to know which values tie."""
    found: set[Node] = set()
    for node in walk(outputs):
        if is_extreme(node):
            found.update(compared_rows(node.inputs[0]) or ())
    return frozenset(found)


def _segment_text(node: Node, args: list[str]) -> Text:
    by = f", by {args[1]}" if len(args) == 2 else ""
    return f"{node.attrs.reducer}@{shown_end(node.attrs.end, node.inputs[0].domain)}({args[0]}{by})", ATOM


define(Op(
    name="segment", operands=(1, 2), attrs=Segment, rule=_segment_rule, value=_segment_value, pull=_segment_pull,
    text=_segment_text, work=added, aggregates=True,
))  # fmt: skip
