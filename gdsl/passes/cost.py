"""What a kernel costs: bytes moved and floating-point operations, as sympy formulas.

``N`` is the number of nodes (``N_src`` and ``N_dst`` on a bipartite graph), ``E`` the number of edges; every dim is a
symbol of its own name. Bytes are counted as if no cache held a gathered row: an upper bound.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from gdsl.ir.node import Node, walk
from gdsl.ir.ops import ELEMENTWISE, of
from gdsl.ir.types import Dim, Domain, Kind
from gdsl.passes.layout import is_sparse
from gdsl.passes.plan import Kernel

if TYPE_CHECKING:
    import sympy

_ROWS = {
    Domain.NODE: "N",
    Domain.SOURCE: "N_src",
    Domain.TARGET: "N_dst",
    Domain.EDGE: "E",
    Domain.GRAPH: "B",
}

# Indices are 32 bit up to 2^31 edges; a walk reads one pointer a row, and the other end and the number of each edge.
INDEX_BYTES = 4


def size(dim: Dim) -> sympy.Expr:
    """The size of a dim as a formula over the dims of its name: ``heads*out_channels`` is a product of symbols."""
    import sympy

    if re.fullmatch(r"\d+", dim.name):
        return sympy.Integer(dim.size)
    if not re.fullmatch(r"\w+(\s*(\*\*|[*+-])\s*\w+)*", dim.name):
        return sympy.Symbol(dim.name, positive=True, integer=True)
    names = set(re.findall(r"[A-Za-z_]\w*", dim.name))
    scope = {n: sympy.Symbol(n, positive=True, integer=True) for n in names}
    return sympy.sympify(dim.name, locals=scope)


def numel(dims: tuple[Dim, ...]) -> sympy.Expr:
    import sympy

    return sympy.Mul(*(size(d) for d in dims))


def rows(domain: Domain) -> sympy.Expr:
    import sympy

    if domain is Domain.GLOBAL:
        return sympy.Integer(1)
    return sympy.Symbol(_ROWS[domain], positive=True, integer=True)


def bytes_moved(kernel: Kernel, float_bytes: int = 4) -> sympy.Expr:
    """Bytes that the kernel reads and writes."""
    import sympy

    total = sympy.Integer(0)
    widths = {Kind.FLOAT: float_bytes, Kind.INT: INDEX_BYTES, Kind.BOOL: 1}
    walks = len(kernel.phases)
    for node, place, dims in sorted(_reads(kernel), key=lambda r: (str(r[0].attrs), r[1])):
        per = {"row": rows(kernel.rows), "column": rows(Domain.EDGE), "edge": rows(Domain.EDGE), "global": 1}[place]
        total += per * numel(dims) * widths[node.kind]
    for node in kernel.outputs:
        total += rows(node.domain) * numel(node.dims) * widths[node.kind]
    if kernel.end:
        total += INDEX_BYTES * (rows(kernel.rows) + 2 * walks * rows(Domain.EDGE))
    return sympy.expand(total)


def _reads(kernel: Kernel) -> set[tuple[Node, str, tuple[Dim, ...]]]:
    """Each buffer with the place at which it is read, once a row, at the other end, or once an edge, and the dims that
    are read there: of a dim into which an index points only as many places as that names."""
    found: set[tuple[Node, str, tuple[Dim, ...]]] = set()
    buffers = set(kernel.buffers)
    for node, place, picked in _computed(kernel, buffers):
        if node in buffers and node.domain is Domain.GLOBAL:
            found.add((node, "global", node.dims))
        elif node in buffers:
            dims = dict(picked)
            found.add((node, place, tuple(k for d in node.dims for k in dims.get(d.name, (d,)))))
    return found


# What is read instead of some dims, by their names.
Picked = tuple[tuple[str, tuple[Dim, ...]], ...]


def _computed(kernel: Kernel, buffers: set[Node]) -> Iterator[tuple[Node, str, Picked]]:
    """Every value of the kernel with where it is computed, "row", "column" or "edge", and for which places of dims."""
    seen: set[tuple[Node, str, Picked]] = set()
    over_rows = {*kernel.stores, *kernel.totals}
    stack: list[tuple[Node, str, Picked]] = [(n, "row" if n in over_rows else "edge", ()) for n in kernel.outputs]
    while stack:
        node, place, picked = item = stack.pop()
        if item in seen:
            continue
        seen.add(item)
        yield item
        if node in buffers or of(node).leaf:
            continue
        kept = picked if of(node).pointwise else ()
        for operand in node.inputs:
            where, dims = place, kept
            if node.op == "gather":
                where = "row" if node.attrs.end == kernel.end else "column"
            elif node.op in ("segment", "scan"):
                where = "edge"
            elif node.op == "index" and operand is node.inputs[0]:
                dims = ((node.attrs.dim, node.inputs[1].dims),)
            stack.append((operand, where, tuple(p for p in dims if p[0] in operand.type.names)))


def flops(kernel: Kernel) -> sympy.Expr:
    """Floating-point operations; a function such as exp counts as the op table says."""
    import sympy

    total = sympy.Integer(0)
    buffers = set(kernel.buffers)
    for node, place in {(n, where) for n, where, _ in _computed(kernel, buffers)}:
        if node in buffers or of(node).leaf:
            continue
        per = rows(kernel.rows) if place == "row" else rows(Domain.EDGE)
        each = _flops_each(node, per)
        if node.op == "contract" and any(is_sparse(i) for i in node.inputs):
            # Of a row's edges, about one has a number at each place.
            each = each * rows(kernel.rows) / rows(Domain.EDGE)
        total += per * each
    return sympy.expand(total)


def evaluate(
    formula: sympy.Expr, kernel: Kernel, rows_of: Mapping[Domain, int], arguments: Mapping[str, object]
) -> float:
    """A formula as a number, for the sizes of the kernel's dims, the rows of a graph and the layer's arguments."""
    import sympy

    sizes: dict[str, object] = {name: rows_of.get(domain, 1) for domain, name in _ROWS.items()}
    sizes |= {name: value for name, value in arguments.items() if isinstance(value, int)}
    for node in walk([*kernel.outputs, *kernel.buffers]):
        for d in node.dims:
            if d.name.isidentifier():
                sizes.setdefault(d.name, d.size)
            else:
                # A dim whose name is no formula is a symbol of that name.
                sizes.setdefault(str(size(d)), d.size)
    return float(formula.subs({s: sizes[s.name] for s in formula.free_symbols if isinstance(s, sympy.Symbol)}))


def _flops_each(node: Node, per: sympy.Expr) -> sympy.Expr:
    import sympy

    if node.op in ELEMENTWISE:
        return numel(node.dims) * ELEMENTWISE[node.op].flops
    if node.op in ("contract", "reduce"):
        space = {d.name: d for i in node.inputs for d in i.dims}
        return numel(tuple(space.values())) * len(node.inputs)
    if node.op in ("segment", "scatter"):
        return numel(node.inputs[0].dims) * rows(Domain.EDGE) / per
    if node.op == "scan":
        steps = sum(ELEMENTWISE[n.op].flops for n in walk([node.attrs.step]) if n.op in ELEMENTWISE)
        return numel(node.dims) * steps * rows(Domain.EDGE) / per
    if node.op == "random":
        return numel(node.dims) * 60
    return sympy.Integer(0)
