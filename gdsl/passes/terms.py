"""Edge values as sums of products of edge values and tables, summed over dims."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from gdsl.ir import build
from gdsl.ir.node import Node, walk_below
from gdsl.ir.types import ELEMENTS, Dim, Domain, Kind, Type


@dataclass(frozen=True)
class Term:
    """A product of edge values and global values, summed over dims.

    edges:  one number or more an edge
    tables: global
    reduce: names of the summed dims
    by:     integers of an edge that pick places of a table's dim, and that dim
    sign:   1 or -1
    """

    edges: tuple[Node, ...]
    tables: tuple[Node, ...] = ()
    reduce: tuple[str, ...] = ()
    by: tuple[Node, Dim] | None = None
    sign: float = 1.0

    @property
    def names(self) -> set[str]:
        picks = (self.by[0],) if self.by else ()
        return {n for v in (*self.edges, *self.tables, *picks) for n in v.type.names}

    @property
    def bound(self) -> set[str]:
        """Names of dims that the term has inside, and its value has not: summed ones, and the one that is picked from.

        A dim of the same name outside is another one: sums of the whole would run over both as if they were one.
        """
        return {*self.reduce, self.by[1].name} if self.by else set(self.reduce)

    @property
    def factors(self) -> int:
        return len(self.edges) + len(self.tables)

    def times(self, other: Term) -> Term | None:
        """The product, unless a dim inside of one has the name of a dim of the other, or both pick."""
        if self.bound & other.names or other.bound & self.names or (self.by and other.by):
            return None
        return Term(
            self.edges + other.edges,
            self.tables + other.tables,
            self.reduce + other.reduce,
            self.by or other.by,
            self.sign * other.sign,
        )


# The terms of each value that has been taken apart.
Terms = Mapping[Node, list[Term]]

# Products of sums have many terms, and those of a value that is read twice come twice: beyond these a value is a term.
MAX_TERMS, MAX_FACTORS = 32, 16


def terms_of(node: Node, bases: bool = True) -> list[Term]:
    """An edge value as a sum of terms. ``bases``: a table that is itself a product is taken apart, not picked from."""
    terms: dict[Node, list[Term]] = {}
    for n in walk_below([node], lambda n: n.inputs if _is_opened(n) and n.op != "gather" else ()):
        opened = _OPENED[n.op](n, terms, bases) if _is_opened(n) else None
        small = opened is not None and len(opened) <= MAX_TERMS and all(t.factors <= MAX_FACTORS for t in opened)
        terms[n] = opened if opened is not None and small else [_leaf(n)]
    return terms[node]


def closed_term(node: Node) -> Term | None:
    """A product with tables as one term, whatever its factors are made of."""
    if node.op != "contract" or node.attrs.total:
        return None
    edges = tuple(i for i in node.inputs if i.domain is not Domain.GLOBAL)
    tables = tuple(i for i in node.inputs if i.domain is Domain.GLOBAL)
    return Term(edges, tables, node.attrs.reduce) if tables else None


def _is_opened(node: Node) -> bool:
    return node.op in _OPENED and node.kind is Kind.FLOAT and node.domain in ELEMENTS


def _leaf(node: Node) -> Term:
    return Term((), (node,)) if node.domain is Domain.GLOBAL else Term((node,))


def _products(nodes: Sequence[Node], terms: Terms) -> list[Term] | None:
    found = [Term(())]
    for node in nodes:
        products = [a.times(b) for a in found for b in terms[node]]
        if any(p is None for p in products) or len(products) > MAX_TERMS:
            return None
        found = [p for p in products if p is not None]
    return found


def _open_contraction(node: Node, terms: Terms, bases: bool) -> list[Term] | None:
    if node.attrs.total:
        return None
    found = _products(node.inputs, terms)
    if found is None or any(not set(node.attrs.reduce) <= t.names - set(t.reduce) for t in found):
        return None
    return [replace(t, reduce=t.reduce + node.attrs.reduce) for t in found]


def _open_product(node: Node, terms: Terms, bases: bool) -> list[Term] | None:
    return _products(node.inputs, terms)


def _open_sum(node: Node, terms: Terms, bases: bool) -> list[Term] | None:
    a, b = node.inputs
    if a.dims != node.dims or b.dims != node.dims:
        return None
    second = terms[b]
    if node.op == "sub":
        second = [replace(t, sign=-t.sign) for t in second]
    return terms[a] + second


def _open_gather(node: Node, terms: Terms, bases: bool) -> list[Term] | None:
    """(x @ W)[j], read as x[j] @ W."""
    term = _product_of_rows(node.inputs[0], node.attrs.end)
    return None if term is None else [term]


def _product_of_rows(h: Node, end: str) -> Term | None:
    """(x @ W)[j], where h is x @ W."""
    if h.op != "contract" or h.attrs.total:
        return None
    per_row = [i for i in h.inputs if i.domain is not Domain.GLOBAL]
    if len(per_row) != 1 or len(h.inputs) < 2:
        return None
    tables = tuple(i for i in h.inputs if i is not per_row[0])
    return Term((build.gather(per_row[0], end),), tables, h.attrs.reduce)


def _open_view(node: Node, terms: Terms, bases: bool) -> list[Term] | None:
    if node.op == "transpose":
        return terms[node.inputs[0]]
    found = [_reshaped(t, node.inputs[0].type, node.type) for t in terms[node.inputs[0]]]
    return None if any(t is None for t in found) else [t for t in found if t is not None]


def _reshaped(term: Term, old: Type, new: Type) -> Term | None:
    """A view of a product whose dims all come from one table is a product with a view of the table."""
    holders = [t for t in term.tables if set(old.names) <= set(t.type.names)]
    if len(holders) != 1 or any(set(e.type.names) & set(old.names) for e in term.edges):
        return None
    table = holders[0]
    rest = [n for n in table.type.names if n not in old.names]
    if set(new.names) & (term.names - set(old.names) | term.bound):
        return None
    turned = build.transpose(table, [*rest, *old.names])
    dims = tuple(d for d in turned.dims if d.name in rest) + new.dims
    viewed = build.reshape_like(turned, Type(Domain.GLOBAL, dims))
    return replace(term, tables=tuple(viewed if t is table else t for t in term.tables))


def _open_index(node: Node, terms: Terms, bases: bool) -> list[Term] | None:
    table, idx = node.inputs
    if idx.domain not in ELEMENTS:
        return None
    dim = table.type.dim(node.attrs.dim)
    if table.op == "gather":
        term = _picked_row(table.inputs[0], table.attrs.end, idx, dim)
        return None if term is None or not term.by else [term]
    if table.domain is not Domain.GLOBAL:
        return None
    if bases and table.op == "contract":
        holders = [i for i in table.inputs if dim.name in i.type.names]
        if len(holders) == 1 and len(table.inputs) > 1:
            picked = build.index(holders[0], idx, dim.name)
            return [Term((picked,), tuple(i for i in table.inputs if i is not holders[0]), table.attrs.reduce)]
    return [Term((), (table,), (), (idx, dim))]


def _picked_row(h: Node, end: str, idx: Node, dim: Dim) -> Term | None:
    """(w * (x @ W))[j][rel], read as w[j][rel] * (x[j] @ W[rel])."""
    term: Term | None = Term(())
    left = [h]
    while left and term is not None and term.factors < MAX_FACTORS:
        factor = left.pop()
        if factor.op == "transpose":
            left.append(factor.inputs[0])
        elif factor.op == "mul" and factor.domain is not Domain.GLOBAL:
            left += reversed(factor.inputs)
        else:
            term = term.times(_picked_factor(factor, end, idx, dim))
    return None if left else term


def _picked_factor(h: Node, end: str, idx: Node, dim: Dim) -> Term:
    picks = dim.name in h.type.names
    if h.domain is Domain.GLOBAL:
        return Term((), (h,), (), (idx, dim)) if picks else _leaf(h)
    if not picks:
        return _leaf(build.gather(h, end))
    product = _product_of_rows(h, end)
    if product is not None and dim.name not in product.edges[0].type.names:
        return replace(product, by=(idx, dim))
    return Term((build.index(build.gather(h, end), idx, dim.name),))


_OPENED: dict[str, Callable[[Node, Terms, bool], list[Term] | None]] = {
    "contract": _open_contraction,
    "mul": _open_product,
    "add": _open_sum,
    "sub": _open_sum,
    "gather": _open_gather,
    "reshape": _open_view,
    "transpose": _open_view,
    "index": _open_index,
}
