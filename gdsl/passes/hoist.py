"""Hoisting: what depends on one end of an edge only is computed per node, not per edge."""

from __future__ import annotations

from gdsl.ir import build
from gdsl.ir.library import segment_count
from gdsl.ir.node import Node, make
from gdsl.ir.ops import of
from gdsl.ir.ops.edges import is_sum
from gdsl.ir.types import ELEMENTS, Domain, Kind, Type
from gdsl.passes import simplify
from gdsl.passes.rewrite import Rule, on

# A node without an edge has no say in the result, yet 0 times the infinite derivative of an op that is singular at the
# node's value (see ``gdsl.ir.ops``) would be a NaN in its gradient: there the op is given a harmless argument.
_HARMLESS = 0.5


def one_ended(node: Node) -> Node | None:
    """f(x[j], c) --> f(x, c)[j]; where f or x has a singularity, f(where(out_degree > 0, x, 0.5), c)[j]"""
    if not of(node).rowwise or node.domain not in ELEMENTS:
        return None
    gathers = [i for i in node.inputs if i.domain is not Domain.GLOBAL]
    if not gathers or any(g.op != "gather" for g in gathers) or len({g.attrs.end for g in gathers}) != 1:
        return None
    end, domain = gathers[0].attrs.end, gathers[0].inputs[0].domain
    inner = [i.inputs[0] if i.op == "gather" else i for i in node.inputs]
    if of(node).singular:
        inner = [i if i.domain is Domain.GLOBAL else _where_edges(end, i, _HARMLESS) for i in inner]
    elif not of(node).linear:
        inner = [finite_without_edges(i, end) for i in inner]
    moved = make(node.op, inner, Type(domain, node.dims, node.kind, node.type.bound), node.attrs)
    return build.gather(moved, end)


def _where_edges(end: str, row: Node, otherwise: float) -> Node:
    """The row value at nodes that have an edge at this end."""
    found = build.elementwise("where", segment_count(end, row.domain) > 0.0, row, otherwise)
    return build.transpose(found, row.type.names)


def finite_without_edges(row: Node, end: str) -> Node:
    """A row value that only edges read until now, made harmless at nodes without an edge at this end.

    There 1 / degree is infinite, which no edge sees; a sum over nodes would multiply it by a gradient of 0.
    """
    return _where_edges(end, row, _HARMLESS) if _may_be_infinite(row, end) else row


def _may_be_infinite(row: Node, end: str) -> bool:
    """Whether a row value may be infinite at nodes without an edge at this end, while what it is made of is not."""
    if row.domain is Domain.GLOBAL or row.kind is not Kind.FLOAT:
        return False
    stack, seen = [row], set[Node]()
    while stack:
        node = stack.pop()
        if node in seen or node.domain is not row.domain:
            continue
        seen.add(node)
        if node.op == "where" and _asks_for_edges(node.inputs[0], end):
            stack.append(node.inputs[2])
        elif of(node).singular and not (of(node).singular == "at zero" and _is_guarded(node.inputs[-1])):
            return True
        else:
            stack += node.inputs
    return False


def _asks_for_edges(condition: Node, end: str) -> bool:
    """in_degree > 0, or in_degree != 0"""
    if condition.op not in ("gt", "ne") or simplify.constant_value(condition.inputs[1]) != 0.0:
        return False
    degree = condition.inputs[0]
    return degree.op == "graph_value" and degree is segment_count(end, degree.domain)


def _is_guarded(argument: Node) -> bool:
    """where(v > 0, v, 1), where(v != 0, v, 1), max(v, 1), or a number: never 0."""
    if argument.op == "where":
        condition, value, otherwise = argument.inputs
        asked = condition.op in ("gt", "ne") and condition.inputs[0] is value
        return asked and simplify.constant_value(condition.inputs[1]) == 0.0 and _is_guarded(otherwise)
    if argument.op == "maximum":
        return any((simplify.constant_value(i) or 0.0) > 0.0 for i in argument.inputs)
    return bool(simplify.constant_value(argument))


@on("segment")
def sum_of_own(node: Node) -> Node | None:
    """sum(v[i]) --> v * in_degree"""
    if not is_sum(node):
        return None
    row = _row_factor(node.inputs[0], node.attrs.end, node.domain)
    if row is None:
        return None
    return _where_edges(node.attrs.end, row, 0.0) * segment_count(node.attrs.end, node.domain)


def _row_factor(node: Node, end: str, rows: Domain) -> Node | None:
    """The row value behind a factor that is the same for all edges of a segment."""
    if node.domain is Domain.GLOBAL:
        return node
    if node.op == "gather" and node.attrs.end == end and node.inputs[0].domain is rows:
        return node.inputs[0]
    return None


@on("segment")
def factor_out_of_sum(node: Node) -> Node | None:
    """sum(c[i] * m) --> c * sum(m);  sum(m / c[i]) --> sum(m) / c, 0 where there is no edge"""
    if not is_sum(node) or node.inputs[0].op not in ("mul", "div"):
        return None
    e, end = node.inputs[0], node.attrs.end
    a, b = e.inputs
    if e.op == "mul":
        for factor, rest in ((a, b), (b, a)):
            row = _row_factor(factor, end, node.domain)
            if row is not None and rest.domain in ELEMENTS:
                inner = build.segment(rest, end, "sum", node.domain)
                return build.transpose(_product(node, row, inner), node.type.names)
        return None
    row = _row_factor(b, end, node.domain)
    if row is None or a.domain not in ELEMENTS:
        return None
    inner = build.segment(a, end, "sum", node.domain)
    if row.domain is Domain.GLOBAL:
        return build.transpose(inner / row, node.type.names)
    return build.transpose(inner / _where_edges(end, row, 1.0), node.type.names)


def _product(node: Node, row: Node, inner: Node) -> Node:
    """c * sum(m), and 0 where there is no edge even if c is infinite there."""
    if row.domain is Domain.GLOBAL:
        return inner * row
    return inner * _where_edges(node.attrs.end, row, 0.0)


@on("segment")
def one_hot_by(node: Node) -> Node | None:
    """sum(where(k == 0...n, v, 0)) --> sum(v, by k): what a place is chosen for is added there alone"""
    if not is_sum(node):
        return None
    e = node.inputs[0]
    summed: tuple[str, ...] = ()
    if e.op == "contract" and len(e.inputs) == 1 and not e.attrs.total:
        e, summed = e.inputs[0], e.attrs.reduce
    if e.op != "where" or e.inputs[0].op != "eq" or simplify.constant_value(e.inputs[2]) != 0.0:
        return None
    place, counter = e.inputs[0].inputs
    value = e.inputs[1]
    if counter.op != "iota" or place.domain not in ELEMENTS or value.domain not in ELEMENTS:
        return None
    dim = counter.dims[0]
    if dim.name in value.type.names or set(place.type.names) != set(summed) or not set(place.dims) <= set(value.dims):
        return None
    found = build.segment(value, node.attrs.end, "sum", node.domain, place, dim)
    return build.transpose(found, node.type.names) if set(found.dims) == set(node.dims) else None


@on("mul")
def quotient_last(node: Node) -> Node | None:
    """(a / b[i]) * c --> (a * c) / b[i]: a softmax's denominator then leaves the sum"""
    if node.domain not in ELEMENTS:
        return None
    for quotient, other in (node.inputs, node.inputs[::-1]):
        if quotient.op == "div" and quotient.inputs[1].op == "gather" and other.domain is not Domain.GLOBAL:
            a, b = quotient.inputs
            return build.transpose((a * other) / b, node.type.names)
    return None


@on("where")
def masked_quotient(node: Node) -> Node | None:
    """where(random < p, 0, a / b[i]) --> where(random < p, 0, a) / b[i]: dropout on a softmax stays one pass

    Only for a random condition: one that the user wrote may be there to keep a / b[i] from being 0 / 0.
    """
    if node.domain not in ELEMENTS:
        return None
    condition, dropped, value = node.inputs
    if condition.op != "lt" or condition.inputs[0].op != "random" or simplify.constant_value(dropped) != 0.0:
        return None
    if value.op != "div" or value.inputs[1].op != "gather":
        return None
    masked = build.elementwise("where", condition, 0.0, value.inputs[0])
    return build.transpose(masked / value.inputs[1], node.type.names)


@on("div", "mul")
def scaled_quotient(node: Node) -> Node | None:
    """(a / b[i]) / c, (a / b[i]) * c with c constant --> (a / c) / b[i], (a * c) / b[i]"""
    if node.domain not in ELEMENTS:
        return None
    quotient, c = node.inputs
    if quotient.op != "div" or c.domain is not Domain.GLOBAL or quotient.inputs[1].op != "gather":
        return None
    scaled = build.elementwise(node.op, quotient.inputs[0], c)
    return build.transpose(scaled / quotient.inputs[1], node.type.names)


RULES: list[Rule] = [
    one_ended,
    one_hot_by,
    quotient_last,
    masked_quotient,
    scaled_quotient,
    sum_of_own,
    factor_out_of_sum,
]
