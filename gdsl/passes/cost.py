"""What a kernel costs: bytes moved, and operations, each function of the table as one.

Both are counted in sizes: in numbers for a graph, or as sympy formulas. In these ``N`` is the number of nodes
(``N_src`` and ``N_dst`` on a bipartite graph), ``E`` the number of edges; every dim is a symbol of its own name.

A kernel computes what belongs to a row once, and what belongs to an edge once in each walk that needs it. Bytes are
counted as if no cache held a gathered row: an upper bound.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gdsl.ir.node import Node
from gdsl.ir.ops import of
from gdsl.ir.ops.op import OPS, Sizes
from gdsl.ir.types import Dim, Domain, Kind
from gdsl.passes.layout import is_sparse
from gdsl.passes.plan import Kernel

if TYPE_CHECKING:
    import sympy

# How the number of rows of a domain is written in a formula.
ROWS = {
    Domain.NODE: "N",
    Domain.SOURCE: "N_src",
    Domain.TARGET: "N_dst",
    Domain.EDGE: "E",
    Domain.PAIR: "P",
    Domain.GRAPH: "B",
    Domain.OWN: "N_own",
}

# How many edges of a row a GPU takes at a time.
BLOCK_EDGES = 4

# Indices are 32 bit up to 2^31 edges.
INDEX_BYTES = 4
# Operations in the time of which a byte is moved: on CPUs as measured (docs/performance.md), on an H200 half of what it
# can do at best (60 Tflop/s, 4.8 TB/s).
OPERATIONS_A_BYTE = 6.0


# ---------------------------------------------------------------------------------------------- sizes


@dataclass(frozen=True)
class Numbers:
    """Sizes on a graph; a domain that ``count`` has not has one row."""

    count: Mapping[Domain, int]

    def rows(self, domain: Domain) -> int:
        return self.count.get(domain, 1)

    def numel(self, dims: tuple[Dim, ...]) -> int:
        return math.prod(d.size for d in dims)


class Formulas:
    """Sizes as formulas: ``heads*out_channels`` is a product of symbols."""

    def rows(self, domain: Domain) -> Any:
        return 1 if domain is Domain.GLOBAL else _symbol(ROWS[domain])

    def numel(self, dims: tuple[Dim, ...]) -> Any:
        return math.prod(_size(d) for d in dims)


def _symbol(name: str) -> sympy.Expr:
    import sympy

    return sympy.Symbol(name, positive=True, integer=True)


def _size(dim: Dim) -> sympy.Expr | int:
    """The size of a dim as a formula over the dims of its name; of a name that is none, the symbol."""
    import sympy

    if re.fullmatch(r"\d+", dim.name):
        return dim.size
    if not re.fullmatch(r"\w+(\s*(\*\*|[*+-])\s*\w+)*", dim.name):
        return _symbol(dim.name)
    names = set(re.findall(r"[A-Za-z_]\w*", dim.name))
    return sympy.sympify(dim.name, locals={n: _symbol(n) for n in names})


def formula(count: Callable[[Kernel, Sizes], Any], kernel: Kernel) -> sympy.Expr:
    """One of the counts below as a formula."""
    import sympy

    return sympy.expand(count(kernel, Formulas()))


@dataclass(frozen=True)
class _Within:
    """Sizes within a kernel: so many rows of any domain, and so many of what it walks, the ``elements``."""

    sizes: Sizes
    row: Domain
    edge: Domain
    elements: Domain

    def rows(self, domain: Domain) -> Any:
        return self.sizes.rows(self.edge if domain is self.elements else self.row)

    def numel(self, dims: tuple[Dim, ...]) -> Any:
        return self.sizes.numel(dims)


# --------------------------------------------------------------------------------------------- counts


def bytes_moved(kernel: Kernel, sizes: Sizes, float_bytes: int = 4) -> Any:
    """Bytes that the kernel reads and writes."""
    widths = {Kind.FLOAT: float_bytes, Kind.INT: INDEX_BYTES, Kind.BOOL: 1}
    values = list(_values(kernel))
    # Where a row's edges begin; in each walk, the other end of each edge where it is read there, and its number.
    total = INDEX_BYTES * sizes.rows(kernel.rows) if kernel.end else 0
    for number, phase in enumerate(kernel.phases):
        here = [v for v in values if v.walk == number]
        indices = any(v.is_read and v.node.domain is not kernel.elements for v in here)
        numbers = bool(phase.stores) or any(_asks_which_edge(v, kernel.elements) for v in here)
        total += INDEX_BYTES * (indices + numbers) * sizes.rows(kernel.elements)
    for node, walk, dims in {(v.node, v.walk, v.dims) for v in values if v.is_read}:
        per = Domain.GLOBAL if node.domain is Domain.GLOBAL else kernel.rows if walk is None else kernel.elements
        total += sizes.rows(per) * sizes.numel(dims) * widths[node.kind]
    for node in kernel.outputs:
        total += sizes.rows(node.domain) * sizes.numel(node.dims) * widths[node.kind]
    return total


def _asks_which_edge(value: _Value, elements: Domain) -> bool:
    """Whether a value depends on the number of an edge: it lies there in memory, or is made from it."""
    known = value.node.op == "random" or (value.node.op == "graph_value" and value.node.attrs.what == "edge_id")
    return value.node.domain is elements and (value.is_read or known)


def operations(kernel: Kernel, sizes: Sizes) -> Any:
    """Operations of the kernel."""
    products, raised = _rescaled(kernel, sizes)
    return sum(count for _, count in _operations(kernel, sizes)) + products + raised


def time(kernel: Kernel, sizes: Sizes) -> Any:
    """Its operations, each as many additions as take the time that it takes."""
    products, raised = _rescaled(kernel, sizes)
    made = sum(of(node).cost * count for node, count in _operations(kernel, sizes))
    return made + products + OPS["exp"].cost * raised


def both(kernel: Kernel, sizes: Sizes) -> Any:
    """Operations and bytes, in the time of additions."""
    return time(kernel, sizes) + OPERATIONS_A_BYTE * bytes_moved(kernel, sizes)


def _rescaled(kernel: Kernel, sizes: Sizes) -> tuple[Any, Any]:
    """Where sums are relative to maxima so far: their multiplications, and exp(maximum before - maximum), of each block
    of edges."""
    running = [r for phase in kernel.phases for r in phase.running]
    if not running:
        return 0, 0
    each = [sum(sizes.numel(n.dims) for n in nodes) for nodes in ([r.total for r in running], {r.top for r in running})]
    products, raised = (sizes.rows(kernel.elements) * count * (1 / BLOCK_EDGES) for count in each)
    return products, raised


def _operations(kernel: Kernel, sizes: Sizes) -> Iterator[tuple[Node, Any]]:
    targets = kernel.rows if kernel.rows in (Domain.NODE, Domain.EDGE) else Domain.TARGET
    for node, walk in dict.fromkeys((v.node, v.walk) for v in _values(kernel) if not v.is_read):
        rows = kernel.rows if walk is None else kernel.elements
        # Of the edges of a target, about one has a number at each place of a sparse operand.
        edges = targets if skips_zeros(node) else kernel.elements
        yield node, of(node).work(node, _Within(sizes, rows, edges, kernel.elements))


def skips_zeros(node: Node) -> bool:
    """Whether a product of edge values leaves out what is nearly all zeros."""
    product = node.op == "contract" and len(node.inputs) > 1
    return product and any(i.domain is Domain.EDGE and is_sparse(i) for i in node.inputs)


@dataclass(frozen=True)
class _Value:
    """A value that a kernel computes, or reads from memory.

    walk: in which walk over the edges of a row; None once a row
    dims: of what is read: of a dim into which an index points only as many places as that names
    """

    node: Node
    walk: int | None
    dims: tuple[Dim, ...]
    is_read: bool


# What is read instead of some dims, by their names.
_Picked = tuple[tuple[str, tuple[Dim, ...]], ...]


def _values(kernel: Kernel) -> Iterator[_Value]:
    """Each value of a kernel, once a row and once in each walk where it is computed or read there."""
    walks = {n: number for number, phase in enumerate(kernel.phases) for n in phase.roots}
    kept = {n: number for number, phase in enumerate(kernel.phases) for n in phase.kept}
    written = {n for phase in kernel.phases for n in phase.stores}
    buffers = set(kernel.buffers)
    # What a walk adds up for a row is a value of the row, of operands in that walk.
    roots = ((n, w if n.domain in (kernel.elements, Domain.GLOBAL) else None) for n, w in walks.items())
    stack: list[tuple[Node, int | None, _Picked]] = [(n, w, ()) for n, w in roots]
    stack += [(n, None, ()) for n in (*kernel.stores, *kernel.totals)]
    seen = set[tuple[Node, int | None, _Picked]]()
    while stack:
        node, walk, picked = item = stack.pop()
        if item in seen or (walk is not None and kept.get(node, walk) < walk):
            continue
        seen.add(item)
        if node in buffers or (node in written and walks[node] != walk):
            places = dict(picked)
            dims = tuple(k for d in node.dims for k in places.get(d.name, (d,)))
            once = node.domain is Domain.GLOBAL
            yield _Value(node, None if once else walk, node.dims if once else dims, True)
            continue
        yield _Value(node, walk, node.dims, False)
        if of(node).leaf:
            continue
        inner = walks.get(node, walk)
        if node.op == "gather" and node.attrs.end == kernel.end:
            inner = None
        for operand in node.inputs:
            dims_of = picked if of(node).pointwise else ()
            if node.op == "index" and operand is node.inputs[0]:
                dims_of = ((node.attrs.dim, node.inputs[1].dims),)
            stack.append((operand, inner, tuple(p for p in dims_of if p[0] in operand.type.names)))
