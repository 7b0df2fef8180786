"""Products over `cat` and sums are split, so that each part can move to the end of the edge that it belongs to, or so
that wide values of nodes need not be joined."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence

from gdsl.ir import build
from gdsl.ir.node import Node, walk_below
from gdsl.ir.types import ELEMENTS, Dim, Domain, Kind
from gdsl.passes.algebra import MAX_PARTS
from gdsl.passes.rewrite import Rule, on


def _is_one_ended(node: Node) -> bool:
    """Whether a value, or each of the terms that it is a sum of, belongs to one end of the edge."""

    def parts(node: Node) -> tuple[Node, ...]:
        whole = all(i.dims == node.dims for i in node.inputs)
        opened = node.op in ("neg", "transpose", "reshape") or (node.op in ("add", "sub") and whole)
        return node.inputs if opened else ()

    return all(n.op == "gather" or parts(n) for n in walk_below([node], parts))


def _matrix_product(node: Node, edges: bool = True) -> tuple[Node, tuple[Node, ...]] | None:
    """The edge value of a contraction of one edge value with global ones, and the others; or the node value."""
    if node.attrs.total or len(node.inputs) < 2:
        return None
    if (node.domain in ELEMENTS) != edges or node.domain in (Domain.GLOBAL, Domain.GRAPH):
        return None
    rows = [i for i in node.inputs if i.domain is not Domain.GLOBAL]
    if len(rows) != 1:
        return None
    return rows[0], tuple(i for i in node.inputs if i is not rows[0])


@on("contract")
def split_cat(node: Node) -> Node | None:
    """cat(x[i], e) @ W --> x[i] @ W[first rows] + e @ W[other rows], where a part belongs to one end"""
    found = _matrix_product(node)
    if found is None or found[0].op != "cat" or not any(map(_is_one_ended, found[0].inputs)):
        return None
    return _split(node, *found)


@on("contract")
def split_wide_cat(node: Node) -> Node | None:
    """cat(a, b) @ W --> a @ W[first rows] + b @ W[other rows] on nodes, where the sums move less than `cat` would"""
    found = _matrix_product(node, edges=False)
    if found is None or found[0].op != "cat" or found[0].type.numel <= len(found[0].inputs) * node.type.numel:
        return None
    return _split(node, *found)


def _split(node: Node, joined: Node, others: tuple[Node, ...]) -> Node | None:
    """The sum of the products of the parts."""
    rest = set(joined.type.names) - {joined.attrs.new}
    parts = list(zip(joined.inputs, joined.attrs.dims, strict=True))
    if joined.attrs.new not in node.attrs.reduce or any(set(p.type.names) - {d} != rest for p, d in parts):
        return None
    new, start, terms = joined.attrs.new, 0, []
    for part, name in parts:
        size = part.type.dim(name).size
        taken = _names([node, *others]) | set(node.attrs.reduce)
        rows = Dim(f"{new}[{start}:{start + size}]" if name in taken else name, size)
        sliced = [build.slice_dim(o, new, start, rows) if new in o.type.names else o for o in others]
        reduced = [rows.name if d == new else d for d in node.attrs.reduce]
        term = build.contract([_renamed(part, name, rows.name), *sliced], reduced, order=node.type.names)
        terms.append(build.spread(term, node.domain))
        start += size
    return functools.reduce(operator.add, terms)


def _renamed(part: Node, old: str, new: str) -> Node:
    """The part with another name for a dim, given to what it is gathered from, so that it still moves to nodes."""
    if old == new:
        return part
    if part.op == "gather":
        return build.gather(build.rename(part.inputs[0], {old: new}), part.attrs.end)
    if part.op in ("add", "sub", "neg"):
        return build.elementwise(part.op, *(_renamed(i, old, new) for i in part.inputs))
    return build.rename(part, {old: new})


@on("contract")
def split_sum(node: Node) -> Node | None:
    """(x[j] - x[i]) @ W --> x[j] @ W - x[i] @ W"""
    found = _matrix_product(node)
    if found is None or found[0].op not in ("add", "sub") or not _is_one_ended(found[0]):
        return None
    terms, others = found
    a, b = (build.contract([t, *others], node.attrs.reduce, order=node.type.names) for t in terms.inputs)
    return build.transpose(a + b if terms.op == "add" else a - b, node.type.names)


@on("contract")
def negation_last(node: Node) -> Node | None:
    """(-a) @ W --> -(a @ W)"""
    found = _matrix_product(node)
    if found is None or found[0].op != "neg":
        return None
    return -build.contract([found[0].inputs[0], *found[1]], node.attrs.reduce, order=node.type.names)


@on("contract")
def factor_out_of_product(node: Node) -> Node | None:
    """(c * (x[j] - x[i])) @ W --> c * ((x[j] - x[i]) @ W), where c has none of the summed dims; on nodes (c * x) @ W"""
    on_edges = node.domain in ELEMENTS
    found = _matrix_product(node, on_edges)
    if found is None or found[0].op not in ("mul", "div") or found[0].kind is not Kind.FLOAT:
        return None
    # On nodes it pays where the result is narrower; on edges, where the rest can then move to an end.
    if not on_edges and node.type.numel >= found[0].type.numel:
        return None
    a, b = found[0].inputs
    for factor, rest in ((b, a),) if found[0].op == "div" else ((a, b), (b, a)):
        outside = not set(factor.type.names) & set(node.attrs.reduce)
        outside = outside and (on_edges or rest.domain is node.domain)
        if outside and rest.dims == found[0].dims and (not on_edges or _is_one_ended(rest)):
            kept = [d for d in node.type.names if d in _names([rest, *found[1]])]
            product = build.contract([rest, *found[1]], node.attrs.reduce, order=kept)
            moved = product / factor if found[0].op == "div" else product * factor
            return build.transpose(moved, node.type.names) if moved.domain is node.domain else None
    return None


@on("add", "sub")
def terms_by_end(node: Node) -> Node | None:
    """x[i] + (y[j] - z[i]) --> (x - z)[i] + y[j]: the terms of one end are added per node"""
    if node.domain not in ELEMENTS or node.kind is not Kind.FLOAT:
        return None
    terms = _signed_terms(node, node.dims)
    groups: dict[tuple[str, Domain] | None, list[tuple[Node, bool]]] = {}
    for term, negative in terms:
        key = (term.attrs.end, term.inputs[0].domain) if term.op == "gather" else None
        groups.setdefault(key, []).append((term, negative))
    if all(key is None or len(group) == 1 for key, group in groups.items()):
        return None
    parts: list[tuple[Node, bool]] = []
    for key, group in groups.items():
        if key is None:
            parts += group
        else:
            value, negative = _signed_sum([(t.inputs[0], minus) for t, minus in group])
            parts.append((build.gather(value, key[0]), negative))
    value, negative = _signed_sum(parts)
    return -value if negative else value


def _signed_terms(node: Node, dims: tuple[Dim, ...]) -> list[tuple[Node, bool]]:
    """The terms of a sum, each with whether it is subtracted; only terms with all the dims, so that none broadcasts."""
    terms: list[tuple[Node, bool]] = []
    left = [(node, False)]
    while left:
        part, negative = left.pop()
        summed = part.op in ("add", "sub") and part.domain in ELEMENTS and all(i.dims == dims for i in part.inputs)
        # A sum that is read in many places has more terms than the program has parts.
        if summed and len(terms) + len(left) < MAX_PARTS:
            a, b = part.inputs
            left += [(b, negative != (part.op == "sub")), (a, negative)]
        elif part.op == "neg":
            left.append((part.inputs[0], not negative))
        else:
            terms.append((part, negative))
    return terms


def _signed_sum(terms: Sequence[tuple[Node, bool]]) -> tuple[Node, bool]:
    """The sum, and whether its sign is to be turned: it begins with a term that is added, if there is one."""
    ordered = sorted(terms, key=lambda t: t[1])
    value, first_negative = ordered[0]
    for term, negative in ordered[1:]:
        value = value + term if negative == first_negative else value - term
    return value, first_negative


def _names(nodes: Sequence[Node]) -> set[str]:
    return {name for n in nodes for name in n.type.names}


RULES: list[Rule] = [split_cat, split_wide_cat, split_sum, negation_last, factor_out_of_product, terms_by_end]
