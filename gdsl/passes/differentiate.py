"""Reverse-mode differentiation, from IR to IR: the backward is a program that can be differentiated again.

One row an op in ``_RULES``: a function of the node and the gradient of its result that gives the gradient of each
operand (None for zero). Elementwise ops take theirs from the op table. ``gather`` and ``segment`` are each
other's adjoint, ``index`` and ``scatter`` too, so the set of ops is closed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from gdsl.errors import GdslError
from gdsl.ir import build
from gdsl.ir.node import Node, walk, walk_below
from gdsl.ir.ops import ELEMENTWISE
from gdsl.ir.types import Dim, Domain, Kind, Type

Gradients = Sequence[Node | None]


class NotDifferentiable(GdslError):
    """An op has no derivative rule."""


def gradients(
    outputs: Mapping[Node, Node],
    wrt: Sequence[Node],
    found: dict[Node, Node] | None = None,
    ties: str = "split",
) -> list[Node | None]:
    """For each node of ``wrt`` the gradient of the outputs, whose own gradients are given; None is zero.

    found: when given, receives the gradient of every node on the way
    ties:  whether equal maxima (minima) of a segment or dim "split" the gradient evenly, or the "first" gets it all
    """
    order = list(walk(outputs))
    active = _depends_on(order, set(wrt))
    found = {} if found is None else found
    for node, g in outputs.items():
        if node in active:
            found[node] = g
    for node in reversed(order):
        gradient = found.get(node)
        if gradient is None or node not in active or not node.inputs:
            continue
        for operand, part in zip(node.inputs, _pull(node, gradient, ties), strict=True):
            if part is None or operand not in active:
                continue
            found[operand] = part if operand not in found else found[operand] + part
    return [found.get(node) for node in wrt]


def _depends_on(order: Sequence[Node], wrt: set[Node]) -> set[Node]:
    active = set()
    for node in order:
        if node in wrt or (node.kind is Kind.FLOAT and any(i in active for i in node.inputs)):
            active.add(node)
    return active


def _pull(node: Node, g: Node, ties: str) -> Gradients:
    if node.op in ELEMENTWISE:
        return _pull_elementwise(node, g)
    if node.op in _CHOOSING:
        return _CHOOSING[node.op](node, g, ties)
    if node.op not in _RULES:
        raise NotDifferentiable(f"`{node.op}` has no derivative rule")
    return _RULES[node.op](node, g)


def _pull_elementwise(node: Node, g: Node) -> Gradients:
    parts: list[Node | None] = []
    for operand, rule in zip(node.inputs, ELEMENTWISE[node.op].derivative, strict=True):
        if rule is None or operand.kind is not Kind.FLOAT:
            parts.append(None)
        else:
            parts.append(_chain(g, rule(*node.inputs, node), operand.type))
    return parts


def _chain(g: Node, partial: Node, type: Type) -> Node:
    """g · partial, summed over what was broadcast.

    A partial that is chosen by a condition chooses g itself, so that 0 · inf never makes a NaN.
    """
    if partial.op == "where" and all(_is_constant(p, 0.0) or _is_constant(p, 1.0) for p in partial.inputs[1:]):
        condition, a, b = partial.inputs
        product = build.elementwise(
            "where", condition, g if _is_constant(a, 1.0) else 0.0, g if _is_constant(b, 1.0) else 0.0
        )
        return _sum_to(product, type)
    if _is_constant(partial, 1.0) and not partial.dims:
        return _sum_to(g, type)
    if _is_constant(partial, -1.0) or (partial.op == "neg" and _is_constant(partial.inputs[0], 1.0)):
        return _sum_to(-g, type)
    return _product([g, partial], type)


def _is_constant(node: Node, value: float) -> bool:
    return node.op == "const" and node.attr("value") == value


def _product(factors: list[Node], type: Type) -> Node:
    """The product of factors, reduced to a type: a product alone where nothing is summed, else a contraction."""
    domain, dims = build.broadcast(factors)
    names = {d.name for d in dims}
    surplus = [n for n in names if n not in type.names]
    total = type.domain is Domain.GLOBAL and domain is not Domain.GLOBAL
    if not surplus and not total:
        product = factors[0]
        for f in factors[1:]:
            product = product * f
        return _spread_to(product, type)
    kept = [n for n in type.names if n in names]
    return _spread_to(build.contract(factors, surplus, total=total, order=kept), type)


def _sum_to(g: Node, type: Type) -> Node:
    return _product([g], type)


def _spread_to(g: Node, type: Type) -> Node:
    """Repeat along dims that the gradient lacks, and put the dims in order."""
    missing = [d for d in type.dims if d.name not in g.type.names]
    if missing:
        g = g * build.const(1.0, missing)
    if g.domain is Domain.GLOBAL and type.domain is not Domain.GLOBAL:
        g = build.spread(g, type.domain)
    return build.transpose(g, type.names)


def _contract(node: Node, g: Node) -> Gradients:
    parts: list[Node | None] = []
    for k, operand in enumerate(node.inputs):
        if operand.kind is not Kind.FLOAT:
            parts.append(None)
            continue
        others = [n for j, n in enumerate(node.inputs) if j != k]
        parts.append(_product([g, *others], operand.type))
    return parts


def _gather(node: Node, g: Node) -> Gradients:
    operand = node.inputs[0]
    return [build.segment(g, node.attr("end"), "sum", operand.domain)]


def _segment(node: Node, g: Node, ties: str) -> Gradients:
    e, end = node.inputs[0], node.attr("end")
    rest: Gradients = [None] * (len(node.inputs) - 1)
    reducer = node.attr("reducer")
    by, dim = (node.inputs[1], node.dims[0]) if len(node.inputs) == 2 else (None, None)
    zero = build.const(0.0)

    def on_edges(row: Node) -> Node:
        """What each edge reads of its row's result."""
        row = build.gather(row, end)
        return row if by is None or dim is None else build.index(row, by, dim.name)

    def first() -> Node:
        arg = build.segment(e, end, "arg" + reducer, node.domain, by, dim)
        return build.elementwise("eq", on_edges(arg), build.element_id(end))

    if reducer == "sum":
        part = on_edges(g)
    elif reducer == "mul":
        part = _pull_mul(e, end, node, on_edges(g), by, dim)
    elif reducer not in ("max", "min"):
        raise NotDifferentiable(f"the aggregator `{reducer}` has no derivative rule")
    elif ties == "first":
        part = _choose(first(), on_edges(g), zero)
    else:
        loses = _loses(e, on_edges(node), reducer)
        if compared_rows(e) is not None:
            count = build.to_float(build.segment(e, end, "count" + reducer, node.domain, by, dim))
        else:
            # What is computed on edges may be rounded otherwise when it is computed again: the winner that the forward
            # pass has seen is one in any case, and those are counted that the gradient is given to.
            loses = build.elementwise("and", loses, build.elementwise("not", first()))
            count = build.segment(_choose(loses, zero, build.const(1.0)), end, "sum", node.domain, by, dim)
        share = g / build.elementwise("maximum", count, 1.0)
        part = _choose(loses, zero, on_edges(build.transpose(share, g.type.names)))
    return [_sum_to(part, e.type), *rest]


def _loses(value: Node, best: Node, reducer: str) -> Node:
    """Whether a value is not the best of its own. NaN is, and nothing loses to it."""
    return value < best if reducer == "max" else value > best


# What is the same number when it is computed again from the same numbers, whatever else is computed with it.
_EXACT = frozenset({
    "load", "const", "graph_value", "iota", "random", "gather", "spread", "reshape", "transpose", "slice",
    "stop_gradient", "neg", "abs", "relu", "where", "maximum", "minimum", "lt", "le", "gt", "ge", "eq", "ne", "and",
    "or", "not", "to_float",
})  # fmt: skip


def compared_rows(e: Node) -> tuple[Node, ...] | None:
    """The row values that an edge value is one of, or the negative of one: None where it is computed on edges.

    The backward pass tells from these which edges win a maximum, and reads them as the forward pass has made them.
    """
    computed = [n for n in walk_below([e], lambda n: n.inputs if n.op in _EXACT else ()) if n.op not in _EXACT]
    if any(n.domain in (Domain.EDGE, Domain.GLOBAL) for n in computed):
        return None
    return tuple(computed)


def held_by_ties(outputs: Sequence[Node]) -> frozenset[Node]:
    """What the backward pass must read as the forward pass has made it, to know which values tie."""
    found: set[Node] = set()
    for node in walk(outputs):
        if node.op == "segment" and node.attr("reducer") in ("max", "min"):
            found.update(compared_rows(node.inputs[0]) or ())
    return frozenset(found)


def _pull_mul(e: Node, end: str, node: Node, back: Node, by: Node | None, dim: Dim | None) -> Node:
    """The product of the *other* members: through the product of the nonzero ones, since x / 0 would lose it."""

    def reduce(v: Node, how: str) -> Node:
        r = build.gather(build.segment(v, end, how, node.domain, by, dim), end)
        return r if by is None or dim is None else build.index(r, by, dim.name)

    zero = build.elementwise("eq", e, 0.0)
    nonzero = build.elementwise("where", zero, 1.0, e)
    product = reduce(nonzero, "mul")
    zeros = reduce(build.elementwise("where", zero, 1.0, 0.0), "sum")
    no_zero, one_zero = zeros < 0.5, build.elementwise("and", zeros > 0.5, zeros < 1.5)
    # The sum of the zeros is 0, but its derivative is not: it stands for the one zero, or the one other zero, that
    # the product of the others holds, so that the second derivative is right too.
    zero_sum = reduce(build.elementwise("where", zero, e, 0.0), "sum")
    two_zeros = build.elementwise("and", zeros > 1.5, zeros < 2.5)
    of_zero = _choose(one_zero, product, _choose(two_zeros, product * (zero_sum - e), build.const(0.0)))
    of_other = _choose(no_zero, product / nonzero, _choose(one_zero, product / nonzero * zero_sum, build.const(0.0)))
    return back * _choose(zero, of_zero, of_other)


def _choose(condition: Node, yes: Node, no: Node) -> Node:
    return build.elementwise("where", condition, yes, no)


def _scan(node: Node, g: Node) -> Gradients:
    """The adjoint of a fold is a fold the other way: λ_before = λ_after · ∂step/∂acc + g."""
    end, step, reverse, last = (node.attr(k) for k in ("end", "step", "reverse", "last"))
    leaves = {n.attr("name"): n for n in walk([step]) if n.op == "load"}
    acc = leaves.get("acc")
    operands = [leaves.get(str(k)) for k in range(len(node.inputs))]
    unit = build.const(1.0)
    partials = gradients({step: unit}, [x for x in [acc, *operands] if x is not None])
    by_leaf = dict(zip([x for x in [acc, *operands] if x is not None], partials, strict=True))
    before = build.scan(node.inputs, end, step, node.attr("init"), reverse=reverse)
    edge = {leaf: (before if name == "acc" else node.inputs[int(name)]) for name, leaf in leaves.items()}

    def on_edges(partial: Node | None) -> Node:
        if partial is None:
            return build.const(0.0)
        return build.replay(partial, edge)

    carry = on_edges(by_leaf.get(acc)) if acc is not None else build.const(0.0)
    scalar = Type(Domain.GLOBAL)
    a, add, lam = (
        build.load("0", scalar, "input"),
        build.load("1", scalar, "input"),
        build.load("acc", scalar, "input"),
    )
    dims = Type(Domain.EDGE if end != "g" else Domain.NODE, node.dims)
    wide = build.const(1.0, node.dims)
    if last:
        # λ after an edge is g times the product of the carries of the edges after it.
        product = build.scan([_spread_to(carry * wide, dims)], end, lam * a, 1.0, reverse=not reverse)
        after = product * build.gather(g, end)
    else:
        # g arrives at each edge's own prefix: λ before = λ after · carry + g.
        after = build.scan(
            [_spread_to(carry * wide, dims), _spread_to(g, dims)],
            end,
            lam * a + add,
            0.0,
            reverse=not reverse,
        )
    return [
        None if leaf is None else _product([after, on_edges(by_leaf.get(leaf))], operand.type)
        for leaf, operand in zip(operands, node.inputs, strict=True)
    ]


def _index(node: Node, g: Node) -> Gradients:
    table, idx = node.inputs
    name = node.attr("dim")
    if table.domain is Domain.GLOBAL:
        if node.domain is Domain.GLOBAL:
            return [_one_hot(g, idx, table, name), None]
        return [build.scatter(g, idx, table.type.dim(name), table.type.names), None]
    return [_one_hot(g, idx, table, name), None]


def _one_hot(g: Node, idx: Node, table: Node, name: str) -> Node:
    hit = build.elementwise("eq", idx, build.iota(table.type.dim(name)))
    return _sum_to(build.elementwise("where", hit, g, 0.0), table.type)


def _scatter(node: Node, g: Node) -> Gradients:
    value, idx = node.inputs
    return [_sum_to(build.index(g, idx, node.attr("dim")), value.type), None]


def _slice(node: Node, g: Node) -> Gradients:
    operand, name, start = node.inputs[0], node.attr("dim"), node.attr("start")
    whole = operand.type.dim(name)
    new = node.dims[operand.type.names.index(name)]
    after = whole.size - start - new.size
    parts, dims = [g], [new.name]
    if start:
        parts.insert(0, build.const(0.0, [Dim("before", start)]))
        dims.insert(0, "before")
    if after:
        parts.append(build.const(0.0, [Dim("after", after)]))
        dims.append("after")
    return [build.transpose(build.cat(parts, dims, whole), operand.type.names)]


def _cat(node: Node, g: Node) -> Gradients:
    parts: list[Node | None] = []
    new, start = node.attr("new"), 0
    for operand, name in zip(node.inputs, node.attr("dims"), strict=True):
        d = operand.type.dim(name)
        # Another part may have this dim besides the joined one: it is summed away before the name is free.
        taken = name != new and name in node.type.names
        place = Dim(f"{new}[{start}:{start + d.size}]", d.size) if taken else d
        wanted = operand.type.with_dims(tuple(place if e == d else e for e in operand.dims))
        part = _sum_to(build.slice_dim(g, new, start, place), wanted)
        parts.append(build.rename(part, {place.name: name}) if taken else part)
        start += d.size
    return parts


def _reduce(node: Node, g: Node, ties: str) -> Gradients:
    operand, name, reducer = node.inputs[0], node.attr("dim"), node.attr("reducer")
    if reducer.startswith("arg"):
        return [None]
    arg = build.reduce(operand, "arg" + reducer, name)
    if ties == "first":
        return [_one_hot(g, arg, operand, name)]
    others, zero = build.elementwise("ne", arg, build.iota(operand.type.dim(name))), build.const(0.0)
    loses = build.elementwise("and", others, _loses(operand, node, reducer))
    count = build.sum_dims(_choose(loses, zero, build.const(1.0)), [name])
    share = g / build.elementwise("maximum", count, 1.0)  # 0 over a dim of size 0
    return [_sum_to(_choose(loses, zero, share), operand.type)]


def _same_numbers(node: Node, g: Node) -> Gradients:
    """The adjoint of a reshape or transpose: the same numbers under the operand's dims."""
    operand = node.inputs[0]
    if node.op == "transpose":
        return [build.transpose(g, operand.type.names)]
    return [build.reshape_like(g, operand.type)]


def _bspline(node: Node, g: Node) -> Gradients:
    """The partial derivatives of order n are differentiated to those of order n + 1, on one more dim."""
    x, order = node.inputs[0], node.attr("order", 0)
    coordinate = x.dims[-1]
    new = Dim(f"{coordinate.name}@{order + 1}", coordinate.size)
    dims = (*node.dims[:-1], new, node.dims[-1])
    attrs = {**dict(node.attrs), "order": order + 1}
    slope = build.basis("bspline", x, Type(node.domain, dims), **attrs)
    summed = [d.name for d in node.dims[len(x.dims) - 1 :]]
    return [_sum_to(build.rename(build.contract([g, slope], summed), {new.name: coordinate.name}), x.type)]


# Those of which the gradient depends on what ties do.
_CHOOSING: dict[str, Callable[[Node, Node, str], Gradients]] = {"segment": _segment, "reduce": _reduce}

_RULES: dict[str, Callable[[Node, Node], Gradients]] = {
    "contract": _contract,
    "gather": _gather,
    "scan": _scan,
    "index": _index,
    "scatter": _scatter,
    "slice": _slice,
    "cat": _cat,
    "reshape": _same_numbers,
    "transpose": _same_numbers,
    "bspline": _bspline,
    "spread": lambda node, g: [_sum_to(g, node.inputs[0].type)],
    "stop_gradient": lambda node, g: [None],
    "order_rank": lambda node, g: [None],
    "bspline_index": lambda node, g: [None],
}
