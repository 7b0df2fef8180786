"""The last rewrites of a plan: operands of matrix products on edges in the order that a tiled kernel reads them."""

from __future__ import annotations

import math

from gdsl.ir import build
from gdsl.ir.node import Node, walk_below
from gdsl.ir.ops.edges import is_sum
from gdsl.ir.types import ELEMENTS, Domain, Kind
from gdsl.passes import simplify
from gdsl.passes.dense import is_sum_of_products
from gdsl.passes.options import Options
from gdsl.passes.rewrite import Rule
from gdsl.passes.slots import MAX_ACCUMULATOR

# Edge operands are multiplied together before a matrix sees them, as long as the product stays this narrow.
MAX_JOINT_OPERAND = 4096

# What is narrower than this is no matrix for a tiled product: it does not fill the lanes of a vector.
LEAST_WIDTH = 8

# The sides of a product for matrix units.
MATRIX_SIDE = 16

# A graph is taken to have more nodes than this when two orders of a product are compared.
MANY_ROWS = 1000


def is_sparse(node: Node) -> bool:
    """Whether nearly all places of an edge value are zeros: the gradient of a maximum reaches the winners only."""
    return any(n.op == "where" and _is_at_winner(n) for n in walk_below([node], _factors))


def _factors(node: Node) -> tuple[Node, ...]:
    """Where an operand is 0, so is the node."""
    if node.op == "mul":
        return tuple(i for i in node.inputs if i.dims == node.dims)
    return node.inputs if node.op in ("neg", "transpose") else ()


def _is_at_winner(node: Node) -> bool:
    """where(winner, g, 0), or where(loser and not winner, 0, g): equal members share a gradient, and few are equal."""
    condition, yes, no = node.inputs
    if condition.op == "and":
        losers = [i.inputs[0] for i in condition.inputs if i.op == "not"]
        return any(map(_tells_winner, losers)) and build.is_const(yes, 0.0)
    return _tells_winner(condition) and build.is_const(no, 0.0)


def _tells_winner(condition: Node) -> bool:
    return condition.op == "eq" and any(i.op == "graph_value" for i in condition.inputs)


def _on_edges(node: Node) -> bool:
    return node.domain in ELEMENTS and node.kind is Kind.FLOAT


def is_picked(node: Node) -> bool:
    """Whether a value is a place of a table, another for each row."""
    return node.op == "index" and node.inputs[0].domain is Domain.GLOBAL


def joint_operand(node: Node) -> Node | None:
    """sum[d](a * b * W) --> sum[d]((a * b) * W): one edge operand, so that the product is of matrices"""
    if node.op != "contract" or len(node.inputs) < 3:
        return None
    edge = [i for i in node.inputs if _on_edges(i)]
    rest = [i for i in node.inputs if i not in edge]
    if len(edge) < 2 or len(rest) > 1 or (not rest and not node.attrs.total):
        return None
    edge.sort(key=lambda i: i.type.numel)
    first = edge[0]
    others = [i for i in edge[1:] if set(first.type.names) <= set(i.type.names)] or (edge[1:] if rest else [])
    if not others:
        return None
    joint = others[0] * first
    if joint.type.numel > MAX_JOINT_OPERAND:
        return None
    edge.remove(first)
    edge.remove(others[0])
    return build.contract([joint, *edge, *rest], node.attrs.reduce, total=node.attrs.total, order=node.type.names)


def pairwise(node: Node) -> Node | None:
    """sum[a, b](x * v * w) --> sum[b](x * sum[a](v * w)): two operands at a time, the cheapest pair first"""
    if node.op != "contract" or len(node.inputs) < 3:
        return None
    # What belongs to edges stays together: a kernel multiplies it in registers.
    pool = [k for k, i in enumerate(node.inputs) if i.domain not in ELEMENTS]
    pairs = [(j, k) for n, j in enumerate(pool) for k in pool[n + 1 :]]
    found = [p for j, k in pairs if (p := _paired(node, j, k)) is not None]
    return min(found, key=lambda p: p[0])[1] if found else None


def _paired(node: Node, j: int, k: int) -> tuple[int, Node] | None:
    """The contraction with two operands contracted first, and the work of that; None where it would gain nothing."""
    pair = [node.inputs[j], node.inputs[k]]
    rest = [i for n, i in enumerate(node.inputs) if n not in (j, k)]
    needed = {*node.type.names, *(name for i in rest for name in i.type.names)}
    reduce = [n for n in node.attrs.reduce if any(n in i.type.names for i in pair) and n not in needed]
    per_row = [i for i in pair if i.domain is not Domain.GLOBAL]
    total = bool(node.attrs.total and per_row) and all(i.domain is Domain.GLOBAL for i in rest)
    if not (reduce or total or set(pair[0].type.names) <= set(pair[1].type.names)):
        return None
    inner = build.contract(pair, reduce, total=total) if reduce or total else pair[0] * pair[1]
    left = [n for n in node.attrs.reduce if n not in reduce]
    whole = build.contract([inner, *rest], left, total=bool(node.attrs.total) and not total, order=node.type.names)
    # A product with nothing left to sum is no contraction.
    result = simplify.trivial_contraction(whole) or whole
    dims = {d.name: d.size for i in pair for d in i.dims}
    return math.prod(dims.values()) * (MANY_ROWS if per_row else 1), result


def summed_dims_first(node: Node) -> Node | None:
    """sum[d](a * W[o, d]) --> sum[d](a * W[d, o]), the matrix transposed once, where a is an edge value; also where an
    edge or a node picks its matrix"""
    if node.op != "contract" or len(node.inputs) != 2 or node.attrs.total:
        return None
    for a, matrix in (node.inputs, node.inputs[::-1]):
        order = (*a.type.names, *node.type.names)
        by_kernel = node.domain is a.domain and (_on_edges(a) or is_picked(matrix))
        if not by_kernel or sorted(order) != sorted(matrix.type.names) or order == matrix.type.names:
            continue
        turned = _turned(matrix, order)
        if turned is not None and len(matrix.dims) > 1:
            return build.contract([a, turned], node.attrs.reduce, order=node.type.names)
    return None


def _turned(matrix: Node, order: tuple[str, ...]) -> Node | None:
    """A matrix of all edges, or one of several that an edge picks, with its dims in another order in memory."""
    if matrix.domain is Domain.GLOBAL:
        return build.transpose(matrix, order)
    if is_picked(matrix):
        (table, idx), dim = matrix.inputs, matrix.attrs.dim
        inner = order[len(idx.dims) :]
        if order[: len(idx.dims)] == idx.type.names and inner != tuple(n for n in table.type.names if n != dim):
            return build.index(build.transpose(table, [dim, *inner]), idx, dim)
    return None


def outer_by_kind(node: Node) -> Node | None:
    """scatter(w * x[j] * d[i], rel) --> grouped_product(x, d, rel, w): no outer product a row, where no kernel can hold
    the sums of all kinds"""
    if node.op != "scatter" or node.type.numel <= MAX_ACCUMULATOR:
        return None
    value, idx = node.inputs
    sides, weight = _outer_product(value, idx)
    names = [n for s in sides for n in s.type.names] + [*idx.type.names]
    if len(sides) != 2 or len(set(names)) < len(names) or any(s.domain is not idx.domain for s in sides):
        return None
    (x, at_x), (y, at_y) = ((s.inputs[0], s.attrs.end) if s.op == "gather" else (s, None) for s in sides)
    product = build.grouped_product(x, y, idx, node.type.dim(node.attrs.dim), (at_x, at_y), weight)
    return build.transpose(product, node.type.names)


def _outer_product(value: Node, idx: Node) -> tuple[list[Node], Node | None]:
    """The factors of a product, multiplied where they have the same dims, and the product of those with no dim but the
    dims of ``idx``."""
    sides: dict[frozenset[str], Node] = {}
    weight: Node | None = None
    left = [value]
    while left:
        node = left.pop()
        names = frozenset(node.type.names)
        if names <= set(idx.type.names):
            weight = node if weight is None else weight * node
        elif node.op == "transpose":
            left.append(node.inputs[0])
        elif node.op == "mul":
            left += node.inputs
        elif node.op == "div" and not node.inputs[1].dims:
            left += [node.inputs[0], 1.0 / node.inputs[1]]
        else:
            sides[names] = sides[names] * node if names in sides else node
    return list(sides.values()), weight if weight is None else build.spread(weight, value.domain)


def sparse_rows_first(node: Node) -> Node | None:
    """total(a[d] * b[o]) --> transpose(total(b[o] * a[d])), where nearly all of b is zeros: they are skipped"""
    if node.op != "contract" or not node.attrs.total or node.attrs.reduce or len(node.inputs) != 2:
        return None
    a, b = node.inputs
    if not (_on_edges(a) and _on_edges(b)) or is_sparse(a) == is_sparse(b):
        return None
    sparse, dense = (a, b) if is_sparse(a) else (b, a)
    order = (*sparse.type.names, *dense.type.names)
    if set(sparse.type.names) & set(dense.type.names) or order == node.type.names:
        return None
    return build.transpose(build.contract([sparse, dense], (), total=True, order=order), node.type.names)


def wide_dims_last(node: Node) -> Node | None:
    """sum@i(a[o] * b[k]) --> transpose(sum@i(b[k] * a[o])), where k has too few numbers for the lanes and o has not"""
    if not is_sum(node) or node.inputs[0].op != "mul":
        return None
    a, b = node.inputs[0].inputs
    wide, narrow = (a, b) if a.type.numel > b.type.numel else (b, a)
    if not (_on_edges(a) and _on_edges(b)) or node.type.names != (*wide.type.names, *narrow.type.names):
        return None
    if not (narrow.dims and narrow.type.numel < LEAST_WIDTH <= wide.type.numel):
        return None
    return build.transpose(build.segment(narrow * wide, node.attrs.end, "sum", node.domain), node.type.names)


def turned_operand(node: Node) -> Node | None:
    """sum[d](transpose(x) * w) --> sum[d](x * w): which dims are summed goes by their names"""
    if node.op != "contract" or all(i.op != "transpose" or i.domain is Domain.GLOBAL for i in node.inputs):
        return None
    inputs = [i.inputs[0] if i.op == "transpose" and i.domain is not Domain.GLOBAL else i for i in node.inputs]
    return build.contract(inputs, node.attrs.reduce, total=bool(node.attrs.total), order=node.type.names)


def products_together(node: Node) -> Node | None:
    """p + r + q --> p + q + r, where p and q are dense products of node values with matrices, and r is not: the BLAS
    adds p and q up"""
    if node.op != "add":
        return None
    for q, rest in (node.inputs, node.inputs[::-1]):
        if not is_sum_of_products(q) or rest.op != "add" or is_sum_of_products(rest):
            continue
        for p, r in (rest.inputs, rest.inputs[::-1]):
            if is_sum_of_products(p) and p.type == q.type == node.type:
                return (p + q) + r
    return None


def kinds_by_product(node: Node) -> Node | None:
    """sum(w * d, by k) --> sum(where(k == 0...n, w, 0) * d): the sums of all kinds as a product of matrices"""
    if not is_sum(node, by=True):
        return None
    (value, by), dim = node.inputs, node.dims[0]
    value = value.inputs[0] if value.op == "transpose" else value
    weight, rest = build.const(1.0), value
    if value.op == "mul":
        weight, rest = sorted(value.inputs, key=lambda f: f.type.numel)
    if min(dim.size, rest.type.numel) < MATRIX_SIDE or not set(weight.type.names) <= set(by.type.names):
        return None
    if set(rest.type.names) & {dim.name, *by.type.names} or rest.domain not in ELEMENTS:
        return None
    hit = build.elementwise("eq", by, build.iota(dim))
    place = build.elementwise("where", hit, weight, 0.0)
    if by.dims:
        place = build.contract([place], by.type.names)
    return build.transpose(build.segment(place * rest, node.attrs.end, "sum", node.domain), node.type.names)


RULES: list[Rule] = [
    pairwise,
    joint_operand,
    summed_dims_first,
    outer_by_kind,
    sparse_rows_first,
    wide_dims_last,
    turned_operand,
    products_together,
]

# Where there are matrix units, and adding at a place that an edge names would take a comparison for each place.
GPU_RULES: list[Rule] = [kinds_by_product]


def rules(options: Options) -> list[Rule]:
    """The rules of a plan for the device at hand."""
    return RULES if options.shape.device == "cpu" else [*RULES, *GPU_RULES]
