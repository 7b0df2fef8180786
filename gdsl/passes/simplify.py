"""Algebra that holds for any program. Each rule's first line shows before --> after; ``tests/passes`` prints each."""

from __future__ import annotations

import functools
import itertools
import math
import operator
from typing import NamedTuple

from gdsl.ir import build
from gdsl.ir.library import segment_count
from gdsl.ir.node import Node
from gdsl.ir.ops import ELEMENTWISE, torch_function
from gdsl.ir.ops.edges import is_sum
from gdsl.ir.ops.indexing import slice_place
from gdsl.ir.ops.tables import numbers_of, table, written_out
from gdsl.ir.types import Dim, Domain, Kind, Type
from gdsl.passes.rewrite import Rule, on


def constant_value(node: Node) -> float | None:
    """The number that a constant holds, else None."""
    return node.attrs.value if node.op == "const" else None


def _like(node: Node, value: Node) -> Node | None:
    """``value`` if it has the node's type as it is, else None: simplifying must not change the shape."""
    return value if value.type == node.type else None


@on(*ELEMENTWISE)
def fold_constants(node: Node) -> Node | None:
    """2 * 3 --> 6"""
    if node.kind is not Kind.FLOAT or node.op == "to_int":
        return None
    values = [v for v in map(constant_value, node.inputs) if v is not None]
    if len(values) < len(node.inputs):
        return None
    import torch

    numbers = [torch.tensor(v, dtype=torch.bool if isinstance(v, bool) else torch.float64) for v in values]
    return build.const(float(torch_function(node.op, None, torch.float64)(*numbers)), node.dims)


@on("add", "sub", "mul", "div", "pow")
def neutral_element(node: Node) -> Node | None:
    """x + 0 --> x;  x - 0 --> x;  x * 1 --> x;  x / 1 --> x;  x ** 1 --> x"""
    neutral = 0.0 if node.op in ("add", "sub") else 1.0
    a, b = node.inputs
    if constant_value(b) == neutral:
        return _like(node, a)
    if node.op in ("add", "mul") and constant_value(a) == neutral:
        return _like(node, b)
    return None


@on("sub", "mul")
def zero_minus(node: Node) -> Node | None:
    """0 - x --> -x;  x * -1 --> -x"""
    if node.op == "sub" and constant_value(node.inputs[0]) == 0.0:
        return _like(node, -node.inputs[1])
    if node.op == "mul" and constant_value(node.inputs[1]) == -1.0:
        return _like(node, -node.inputs[0])
    if node.op == "mul" and constant_value(node.inputs[0]) == -1.0:
        return _like(node, -node.inputs[1])
    return None


@on("neg", "add", "sub")
def double_negation(node: Node) -> Node | None:
    """-(-x) --> x;  x + (-y) --> x - y;  x - (-y) --> x + y"""
    if node.op == "neg" and node.inputs[0].op == "neg":
        return node.inputs[0].inputs[0]
    if node.op == "add" and node.inputs[1].op == "neg":
        return _like(node, node.inputs[0] - node.inputs[1].inputs[0])
    if node.op == "add" and node.inputs[0].op == "neg":
        return _like(node, node.inputs[1] - node.inputs[0].inputs[0])
    if node.op == "sub" and node.inputs[1].op == "neg":
        return _like(node, node.inputs[0] + node.inputs[1].inputs[0])
    return None


@on("where")
def known_condition(node: Node) -> Node | None:
    """where(c, x, x) --> x;  where(c, where(c, x, y), z) --> where(c, x, z)"""
    c, a, b = node.inputs
    if a is b:
        return _like(node, a)
    if a.op == "where" and a.inputs[0] is c:
        return _like(node, build.elementwise("where", c, a.inputs[1], b))
    if b.op == "where" and b.inputs[0] is c:
        return _like(node, build.elementwise("where", c, a, b.inputs[2]))
    return None


@on("pow")
def square(node: Node) -> Node | None:
    """x ** 2 --> x * x;  x ** 0.5 --> sqrt(x);  x ** -1 --> 1 / x;  x ** -0.5 --> rsqrt(x)"""
    x, exponent = node.inputs
    power = constant_value(exponent)
    forms = {2.0: lambda: x * x, 0.5: lambda: build.elementwise("sqrt", x), -1.0: lambda: 1.0 / x,
             -0.5: lambda: build.elementwise("rsqrt", x)}  # fmt: skip
    return _like(node, forms[power]()) if power in forms else None


@on("contract")
def trivial_contraction(node: Node) -> Node | None:
    """sum(x) over nothing --> x;  sum(x * y) over nothing --> x * y"""
    if node.attrs.reduce or node.attrs.total:
        return None
    return build.transpose(functools.reduce(operator.mul, node.inputs), node.type.names)


@on("contract")
def flatten_contraction(node: Node) -> Node | None:
    """sum[d](a * b) --> a contraction of a and b over d, with no product stored"""
    if len(node.inputs) != 1 or node.inputs[0].op != "mul":
        return None
    if any(i.kind is not Kind.FLOAT for i in node.inputs[0].inputs):
        return None
    return build.contract(node.inputs[0].inputs, node.attrs.reduce, total=node.attrs.total, order=node.type.names)


@on("contract")
def nested_contraction(node: Node) -> Node | None:
    """sum[c](sum[a](x * w)) --> sum[a, c](x * w)"""
    if len(node.inputs) != 1 or node.inputs[0].op != "contract":
        return None
    inner = node.inputs[0]
    if inner.attrs.total or not node.attrs.reduce:
        return None
    reduce = (*inner.attrs.reduce, *node.attrs.reduce)
    return build.contract(inner.inputs, reduce, total=node.attrs.total, order=node.type.names)


@on("reshape", "transpose", "slice")
def table_of_numbers(node: Node) -> Node | None:
    """a reshaped, transposed or sliced table --> a table"""
    if node.inputs[0].op != "table":
        return None
    x = node.inputs[0]
    if node.op == "reshape":
        return table(numbers_of(x), node.dims)
    places = [range(d.size) for d in x.dims]
    names = list(node.type.names)
    if node.op == "slice":
        at = x.type.names.index(node.attrs.dim)
        names[slice_place(node)] = node.attrs.dim
        places[at] = places[at][node.attrs.start :][: node.dims[slice_place(node)].size]
    numbers = dict(zip(itertools.product(*(range(d.size) for d in x.dims)), numbers_of(x), strict=True))
    order = [names.index(name) for name in x.type.names]
    inner = itertools.product(*(places[x.type.names.index(name)] for name in names))
    return table([numbers[tuple(at[k] for k in order)] for at in inner], node.dims)


@on("contract")
def sparse_contraction(node: Node) -> Node | None:
    """sum[a](table * x) --> a term for each number of the table that is not 0"""
    if len(node.inputs) < 2:
        return None
    return written_out(node.inputs, node.attrs.reduce, total=node.attrs.total, order=node.type.names)


@on("contract")
def repeated_factor(node: Node) -> Node | None:
    """sum[a]((x * 1[b]) * w[a, b]) --> sum[a](x * w[a, b]): a factor need not be repeated along a dim of another"""
    if len(node.inputs) < 2:
        return None
    for k, operand in enumerate(node.inputs):
        inner = operand.inputs[0] if operand.op == "transpose" else operand
        if inner.op != "mul" or constant_value(inner.inputs[1]) != 1.0:
            continue
        others = [*node.inputs[:k], *node.inputs[k + 1 :]]
        gone = set(inner.type.names) - set(inner.inputs[0].type.names)
        if inner.inputs[0].domain is node.inputs[k].domain and gone <= {n for o in others for n in o.type.names}:
            inputs = [*node.inputs[:k], inner.inputs[0], *node.inputs[k + 1 :]]
            return build.contract(inputs, node.attrs.reduce, total=node.attrs.total, order=node.type.names)
    return None


@on("reshape", "transpose")
def compose_views(node: Node) -> Node | None:
    """reshape(reshape(x)) --> reshape(x);  transpose(transpose(x)) --> transpose(x)"""
    if node.inputs[0].op != node.op:
        return None
    x = node.inputs[0].inputs[0]
    return build.reshape_like(x, node.type) if node.op == "reshape" else build.transpose(x, node.type.names)


@on("contract")
def view_of_total(node: Node) -> Node | None:
    """total(reshape(x)) --> reshape(total(x)): rows are added up under any dims, and x need not be stored under both"""
    if not node.attrs.total or node.attrs.reduce or len(node.inputs) != 1 or node.inputs[0].op != "reshape":
        return None
    view = node.inputs[0]
    total = build.reshape_like(build.total(view.inputs[0]), Type(Domain.GLOBAL, view.dims))
    return build.transpose(total, node.type.names)


@on("slice")
def whole_slice(node: Node) -> Node | None:
    """slice(x; 1 from 0 as one) --> reshape(x; one): all places of a dim are the dim under another name"""
    if node.type.numel != node.inputs[0].type.numel:
        return None
    return build.reshape_like(node.inputs[0], node.type)


@on("cat")
def nested_cat(node: Node) -> Node | None:
    """cat(cat(x, y), z) --> cat(x, y, z): each part is seen by the rules that split a product"""
    parts: list[tuple[Node, str]] = []
    for part, dim in zip(node.inputs, node.attrs.dims, strict=True):
        joined = part.op == "cat" and part.attrs.new == dim
        parts += zip(part.inputs, part.attrs.dims, strict=True) if joined else [(part, dim)]
    if len(parts) == len(node.inputs):
        return None
    nodes, dims = zip(*parts, strict=True)
    return _like(node, build.cat(nodes, dims, node.type.dim(node.attrs.new)))


@on("add")
def sum_of_parts(node: Node) -> Node | None:
    """cat(x, 0) + cat(0, y) --> cat(x, y): the derivatives by the parts of a value are put side by side, once"""
    if any(i.op != "cat" or i.type.names != node.type.names for i in node.inputs):
        return None
    one, other = node.inputs
    new = one.attrs.new
    if other.attrs.new != new:
        return None
    parts: list[tuple[Node, str]] = []
    left, right = _parts(one), _parts(other)
    at, size = 0, node.type.dim(new).size
    while at < size:
        a, b = (next(p for p in side if p.end > at) for side in (left, right))
        if a.node is None and b.node is None:
            end = min(a.end, b.end)
            parts.append((build.const(0.0, [Dim("zeros", end - at)]), "zeros"))
        else:
            part, zeros = (a, b) if b.node is None else (b, a)
            if zeros.node is not None or part.node is None or part.start != at or zeros.end < part.end:
                return None
            end = part.end
            parts.append((part.node, part.dim))
        at = end
    nodes, dims = zip(*parts, strict=True)
    return _like(node, build.cat(nodes, dims, node.type.dim(new)))


class _Part(NamedTuple):
    """A part of a ``cat``, without a node where it is zero, its dim that is joined, and its places."""

    node: Node | None
    dim: str
    start: int
    end: int


def _parts(cat: Node) -> list[_Part]:
    found: list[_Part] = []
    at = 0
    for operand, dim in zip(cat.inputs, cat.attrs.dims, strict=True):
        start, at = at, at + operand.type.dim(dim).size
        node = None if constant_value(operand) == 0.0 else operand
        if node is None and found and found[-1].node is None:
            start = found.pop().start
        found.append(_Part(node, dim, start, at))
    return found


@on("segment")
def count_edges(node: Node) -> Node | None:
    """sum(c), c a constant --> c * degree"""
    if not is_sum(node):
        return None
    e = node.inputs[0]
    if e.op != "spread" or e.inputs[0].op != "const" or not math.isfinite(e.inputs[0].attrs.value):
        return None  # no edge times inf would not be 0
    return _like(node, segment_count(node.attrs.end, node.domain) * e.inputs[0])


@on(*ELEMENTWISE)
def spread_is_broadcast(node: Node) -> Node | None:
    """an elementwise op of spread(c) and an edge value --> the op of c itself: rows broadcast"""
    if not any(i.op == "spread" for i in node.inputs):
        return None
    inputs = [i.inputs[0] if i.op == "spread" else i for i in node.inputs]
    if all(i.domain is Domain.GLOBAL for i in inputs):
        return build.spread(build.elementwise(node.op, *inputs), node.domain) if node.op != "to_int" else None
    return _like(node, build.elementwise(node.op, *inputs)) if node.op != "to_int" else None


@on(*ELEMENTWISE)
def reshape_last(node: Node) -> Node | None:
    """reshape(x) + c --> reshape(x + reshape(c)): a view at the end is free, inside a kernel it is index arithmetic"""
    if node.domain is Domain.GLOBAL or node.kind is Kind.INT:
        return None
    views = [i for i in node.inputs if i.op == "reshape"]
    inner = {v.inputs[0].dims for v in views}
    if len(inner) != 1 or any(v.dims != node.dims for v in views):
        return None
    dims = inner.pop()
    inputs: list[Node] = []
    for operand in node.inputs:
        if operand.op == "reshape":
            inputs.append(operand.inputs[0])
        elif not operand.dims:
            inputs.append(operand)
        elif operand.domain is Domain.GLOBAL and operand.dims == node.dims:
            inputs.append(build.reshape_like(operand, operand.type.with_dims(dims)))
        else:
            return None
    moved = build.elementwise(node.op, *inputs)
    return _like(node, build.reshape_like(moved, node.type)) if moved.dims == dims else None


RULES: list[Rule] = [
    fold_constants,
    neutral_element,
    zero_minus,
    double_negation,
    known_condition,
    square,
    trivial_contraction,
    flatten_contraction,
    nested_contraction,
    table_of_numbers,
    sparse_contraction,
    repeated_factor,
    compose_views,
    view_of_total,
    whole_slice,
    nested_cat,
    sum_of_parts,
    reshape_last,
    count_edges,
    spread_is_broadcast,
]


@on("stop_gradient")
def drop_stop_gradient(node: Node) -> Node | None:
    """stop_gradient(x) --> x, once nothing more is differentiated"""
    return node.inputs[0]
