"""Whether a program is well formed: every node is held against the rule of its op.

A rule says how many operands an op has, which attributes of which type and range, and makes the node once more with
its function of :mod:`gdsl.ir.build`. What comes out must be the node itself, so that domain, dims, kind and bound are
never taken on trust. Readers of files rely on it: kernels are generated from what passes here, and from nothing else.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gdsl.errors import ProgramError
from gdsl.ir import build
from gdsl.ir.build import IRError
from gdsl.ir.node import Node, make, walk
from gdsl.ir.ops import ELEMENTWISE
from gdsl.ir.program import Program
from gdsl.ir.types import ENDS, Dim, Domain, Kind, Type, element_domain, row_domains

# Places of a dim. Kernels count those of all rows in 64 bits, and there is no memory for more than that many.
MOST = 2**31 - 1
MOST_NUMBERS = 2**40
# torch names the dims of a product by letters, and one of them is for the rows.
MOST_DIMS = 25


@dataclass(frozen=True)
class Value:
    """What an attribute may be: ``is_one`` of a value, and the same in words."""

    words: str
    is_one: Callable[[Any], bool]


@dataclass(frozen=True)
class Rule:
    """What an op allows.

    again:    the node made once more, from its operands, attributes, and of its type what the op leaves open. Raises
              :class:`IRError` for what does not fit
    operands: the fewest and the most
    attrs:    every attribute that must be there
    optional: attributes that may be
    """

    again: Callable[[Node], Node]
    operands: tuple[int, int]
    attrs: Mapping[str, Value] = field(default_factory=dict)
    optional: Mapping[str, Value] = field(default_factory=dict)


def verify(program: Program) -> Program:
    """The program itself, whose nodes are all well formed.

    Raises :class:`gdsl.errors.ProgramError` with the op, the field and the rule of the first node that is not.
    """
    for node in walk(program.nodes):
        verify_node(node)
    return program


def verify_node(node: Node) -> None:
    """The same for one node, whose operands are well formed."""
    rule = RULES.get(node.op)
    if rule is None:
        raise ProgramError(f"there is no op {shown(node.op)}")
    try:
        _check_type(node.type)
        _check_attributes(node, rule)
        made = rule.again(node)
        if made is not node:
            raise IRError(_difference(node, made))
    except IRError as error:
        raise ProgramError(f"`{node.op}`: {error}") from error


def _check_type(type: Type) -> None:
    need(isinstance(type.domain, Domain) and isinstance(type.kind, Kind), f"there is no type {type!r}")
    need(len(type.dims) <= MOST_DIMS, f"a value has at most {MOST_DIMS} dims, not {len(type.dims)}")
    for d in type.dims:
        need(isinstance(d.name, str), f"a dim has a name, not {shown(d.name)}")
        need(whole(d.size) and 0 <= d.size <= MOST, f"the size of a dim is from 0 to {MOST}, not {shown(d.size)}")
    need(type.numel <= MOST_NUMBERS, f"a row has at most {MOST_NUMBERS} numbers, not {type.numel}")
    need(len(set(type.names)) == len(type.dims), f"a dim occurs twice in {type}")
    bounded = type.bound is None or (type.kind is Kind.INT and whole(type.bound) and 0 <= type.bound < 2**63)
    need(bounded, f"only an int has a bound, from 0 to 2^63 - 1, and {type} has {shown(type.bound)}")


def _check_attributes(node: Node, rule: Rule) -> None:
    fewest, most = rule.operands
    wanted = f"{fewest} operands" if fewest == most else f"{fewest} to {most} operands"
    need(fewest <= len(node.inputs) <= most, f"it has {wanted}, not {len(node.inputs)}")
    for name in rule.attrs:
        need(any(name == k for k, _ in node.attrs), f"its attribute `{name}` is missing")
    for name, value in node.attrs:
        allowed = rule.attrs.get(name) or rule.optional.get(name)
        if allowed is None:
            raise IRError(f"it has no attribute {shown(name)}")
        need(allowed.is_one(value), f"its attribute `{name}` is {allowed.words}, not {shown(value)}")


def _difference(node: Node, made: Node) -> str:
    """The field in which a node is not what its builder makes."""
    if made.op != node.op or made.inputs != node.inputs:
        have, want = (f"{n.op}({', '.join(str(i.type) for i in n.inputs)})" for n in (node, made))
        return f"its operands do not fit: {have}, where {want} is made of them"
    if made.type != node.type:
        return f"its type is {made.type!r}, not {node.type!r}"
    return f"its attributes are {dict(made.attrs)}, not {dict(node.attrs)}"


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80


def shown(value: Any) -> str:
    """A value as a message shows it: cut short, since it may be anything."""
    return _SHORT.repr(value)


def need(holds: bool, rule: str) -> None:
    """Raise the rule where it does not hold."""
    if not holds:
        raise IRError(rule)


# ------------------------------------------------------------------------------------- attributes


def whole(value: Any) -> bool:
    """Whether a value is an int, which a bool is to Python, too."""
    return type(value) is int


def number(least: int, most: int) -> Value:
    return Value(f"an int from {least} to {most}", lambda v: whole(v) and least <= v <= most)


def one_of(words: Iterable[str]) -> Value:
    words = tuple(words)
    return Value(f"one of {', '.join(words)}", lambda v: type(v) is str and v in words)


def _is_names(value: Any) -> bool:
    return type(value) is tuple and all(type(v) is str for v in value)


def _is_ends(value: Any) -> bool:
    return type(value) is tuple and len(value) == 2 and all(v is None or (type(v) is str and v in "ij") for v in value)


BOOL = Value("true or false", lambda v: type(v) is bool)
FLOAT = Value("a float", lambda v: type(v) is float)
SHARE = Value("a float from 0 to 1", lambda v: type(v) is float and 0.0 <= v <= 1.0)
NAME = Value("a name", lambda v: type(v) is str)
NAMES = Value("names", _is_names)
END, EDGE_END = one_of(ENDS), one_of(("i", "j"))
# C++ reads -2^63 as minus a number that is too large.
CONSTANT = Value(
    "true or false, a float or an int of 64 bits",
    lambda v: type(v) in (bool, float) or (whole(v) and -(2**63) < v < 2**63),
)
# See :func:`gdsl.ir.build.load`. A buffer of a module is no parameter.
ROLES = ("input", "param", "buffer", "grad", "saved", "product", "seed")
REDUCERS = ("max", "min", "argmax", "argmin")
SEGMENT_REDUCERS = ("sum", "max", "min", "mul", "argmax", "argmin", "countmax", "countmin")
# What a graph has a value for: see ``build.GRAPH_VALUES``.
ROWS_OF = {
    "in_degree": (Domain.NODE, Domain.TARGET),
    "out_degree": (Domain.NODE, Domain.SOURCE),
    "edge_id": (Domain.EDGE,),
    "position": (Domain.EDGE,),
    "node_id": (Domain.NODE,),
}


# ------------------------------------------------------------------------------------------ rules


def _elementwise(node: Node) -> Node:
    return build.elementwise(node.op, *node.inputs)


def _to_float(node: Node) -> Node:
    (x,) = node.inputs
    return make("to_float", (x,), Type(x.domain, x.dims))


def _to_int(node: Node) -> Node:
    need(node.inputs[0].kind is Kind.FLOAT, f"it rounds a float, not {node.inputs[0].type}")
    return build.to_int(node.inputs[0], node.attr("bound"))


def _load(node: Node) -> Node:
    """A bound is what whoever runs the program holds its tensors against."""
    return build.load(node.attr("name"), node.type, node.attr("role"))


def _graph_value(node: Node) -> Node:
    what = node.attr("what")
    need(node.domain in ROWS_OF[what], f"there is no {what} for each {node.domain.value}")
    return build.graph_value(what, node.domain)


def _iota(node: Node) -> Node:
    need(len(node.dims) == 1, f"it counts along one dim, not {node.type}")
    return build.iota(node.dims[0])


def _random(node: Node) -> Node:
    seed = node.inputs[0]
    need(seed.type == Type(Domain.GLOBAL, (), Kind.INT), f"its seed is one int without a bound, not {seed.type}")
    return build.random(seed, node.attr("salt"), node.domain, node.dims)


def _contract(node: Node) -> Node:
    _, dims = build.broadcast(node.inputs)
    need(len(dims) <= MOST_DIMS, f"a product has at most {MOST_DIMS} dims, not {len(dims)}")
    reduced = node.attr("reduce")
    kept = {d.name for d in dims} - set(reduced)
    need(set(node.type.names) == kept, f"{sorted(kept)} are left, and its type is {node.type}")
    return build.contract(node.inputs, reduced, total=node.attr("total"), order=node.type.names)


def _dim_of(x: Node, name: str) -> Dim:
    need(name in x.type.names, f"there is no dim {shown(name)} in {x.type}")
    return x.type.dim(name)


def _reduce(node: Node) -> Node:
    dim = _dim_of(node.inputs[0], node.attr("dim"))
    need(dim.size > 0, f"there is no {node.attr('reducer')} of no numbers")
    return build.reduce(node.inputs[0], node.attr("reducer"), dim.name)


def _row_domain(node: Node) -> Domain:
    rows, end = node.domain, node.attr("end")
    need(rows in row_domains(end), f"there is no {rows.value} at the end {end}")
    return rows


def _below(idx: Node, dim: Dim) -> None:
    """An index of a dim cannot leave it."""
    fits = idx.kind is Kind.INT and idx.type.bound is not None and idx.type.bound <= dim.size
    need(fits, f"an index of `{dim.name}` is an int below {dim.size}, not {idx.type}")


def _segment(node: Node) -> Node:
    e, end, reducer = node.inputs[0], node.attr("end"), node.attr("reducer")
    if len(node.inputs) == 1:
        return build.segment(e, end, reducer, _row_domain(node))
    need(bool(node.dims), f"it has a dim for `by`, and its type is {node.type}")
    by, dim = node.inputs[1], node.dims[0]
    _below(by, dim)
    need(build.join_domains([e, by]) is e.domain, f"`by` has the rows of {e.type}, not of {by.type}")
    return build.segment(e, end, reducer, _row_domain(node), by, dim)


def _at(x: Node, end: str | None, rows: Domain) -> None:
    """A value with these rows, or one that is read at an end of each."""
    fits = x.domain in (rows, Domain.GLOBAL) if end is None else x.domain in row_domains(end) and rows is Domain.EDGE
    need(fits and x.kind is Kind.FLOAT, f"{x.type} cannot be read at the end {end} of each {rows.value}")


def _grouped_product(node: Node) -> Node:
    left, right, idx, *weight = node.inputs
    need(bool(node.dims), f"it has a dim for its index, and its type is {node.type}")
    _below(idx, node.dims[0])
    need(idx.domain is not Domain.GLOBAL, f"its index has rows, and {idx.type} has none")
    for x, end in zip((left, right), node.attr("ends"), strict=True):
        _at(x, end, idx.domain)
        need(end is not None or x.domain is idx.domain, f"{x.type} has no rows to be read at")
    for w in weight:
        _at(w, None, idx.domain)
        need(set(w.dims) <= set(idx.dims), f"its weight has a number for each of {idx.type}, not {w.type}")
    return build.grouped_product(left, right, idx, node.dims[0], node.attr("ends"), *weight)


def _sparse_product(node: Node) -> Node:
    x, *weight = node.inputs
    end = node.attr("end")
    _at(x, "j" if end == "i" else "i", Domain.EDGE)
    for w in weight:
        _at(w, None, Domain.EDGE)
        need(not w.dims, f"its weight is one number an edge, not {w.type}")
    return build.sparse_product(x, end, _row_domain(node), *weight)


def _order_rank(node: Node) -> Node:
    x, end = node.inputs[0], node.attr("end")
    need(x.domain is element_domain(end), f"{x.type} has no value for each {element_domain(end).value}")
    return build.order_rank(x, end, node.attr("q"), node.attr("side"), _row_domain(node))


def _scan(node: Node) -> Node:
    end, step = node.attr("end"), node.attr("step")
    need(build.join_domains(node.inputs) in (Domain.GLOBAL, element_domain(end)), "it folds values of edges")
    places = {"acc", *(str(k) for k in range(len(node.inputs)))}
    for inner in walk([step]):
        verify_node(inner)
        known = inner.op in ELEMENTWISE or inner.op == "const"
        known = known or (inner.op == "load" and inner.attr("name") in places and inner.attr("role") == "input")
        need(known and inner.domain is Domain.GLOBAL and not inner.dims, f"its step reads {inner.op}: {inner.type}")
    need(step.kind is Kind.FLOAT, f"its step gives a float, not {step.type}")
    rows = _row_domain(node) if node.attr("last") else None
    return build.scan(node.inputs, end, step, node.attr("init"), reverse=node.attr("reverse"), row_domain=rows)


def _index(node: Node) -> Node:
    x, idx = node.inputs
    _below(idx, _dim_of(x, node.attr("dim")))
    return build.index(x, idx, node.attr("dim"))


def _scatter(node: Node) -> Node:
    g, idx = node.inputs
    dim = _dim_of(node, node.attr("dim"))
    _below(idx, dim)
    need(g.kind is Kind.FLOAT, f"it adds up floats, not {g.type}")
    need(g.domain is not Domain.GLOBAL, f"it adds up rows, and {g.type} has none")
    build.broadcast(node.inputs)
    rest = [d.name for d in g.dims if d.name not in idx.type.names]
    need(sorted(node.type.names) == sorted([*rest, dim.name]), f"{[dim.name, *rest]} are left, and not {node.type}")
    return build.scatter(g, idx, dim, node.type.names)


def _slice(node: Node) -> Node:
    (x,), dim = node.inputs, node.attr("dim")
    _dim_of(x, dim)
    need(len(node.dims) == len(x.dims), f"it has as many dims as {x.type}, and not {node.type}")
    return build.slice_dim(x, dim, node.attr("start"), node.dims[x.type.names.index(dim)])


def _cat(node: Node) -> Node:
    dims = node.attr("dims")
    need(len(dims) == len(node.inputs), f"it has a dim for each of {len(node.inputs)} parts, not {dims}")
    for x, dim in zip(node.inputs, dims, strict=True):
        _dim_of(x, dim)
    return build.cat(node.inputs, dims, _dim_of(node, node.attr("new")))


def _reshape(node: Node) -> Node:
    return build.reshape_like(node.inputs[0], node.type)


def _transpose(node: Node) -> Node:
    (x,) = node.inputs
    need(set(x.dims) == set(node.dims), f"it has the dims of {x.type}, and not {node.type}")
    return build.transpose(x, node.type.names)


def _spline(node: Node) -> Node:
    """One place for each control point that x touches; before it, for each order, a dim of the coordinates."""
    (x,), degree, kernel, order = node.inputs, node.attr("degree"), node.attr("kernel_size"), node.attr("order", 0)
    need(bool(x.dims), f"it needs a dim of coordinates, and {x.type} has none")
    *rows, width = x.type.shape
    need(width <= 16, f"it has at most 16 coordinates, not {width}")
    need(kernel > degree, f"an open B-spline of degree {degree} has a kernel above it, not of {kernel}")
    need((node.attr("order") is None) or node.op == "bspline", "places have no derivative")
    shape = (*rows, *[width] * order, (degree + 1) ** width)
    need(node.type.shape == shape and node.dims[: len(rows)] == x.dims[:-1], f"its shape is {shape}, not {node.type}")
    bound = {"kind": Kind.INT, "bound": kernel**width} if node.op == "bspline_index" else {}
    return build.basis(node.op, x, Type(x.domain, node.dims, **bound), **dict(node.attrs))


def _call(node: Node) -> Node:
    attrs = dict(node.attrs)
    return build.call(attrs.pop("module"), node.inputs, node.type, **attrs)


def _const(node: Node) -> Node:
    return build.const(node.attr("value"), node.dims)


_OF_AN_END = {"end": END}
_SPLINE = Rule(_spline, (1, 1), {"kernel_size": number(1, 2**16), "degree": number(1, 3)}, {"order": number(0, 16)})

RULES: dict[str, Rule] = {
    **{op: Rule(_elementwise, (entry.arity, entry.arity)) for op, entry in ELEMENTWISE.items()},
    "to_float": Rule(_to_float, (1, 1)),
    # Of the integers below it float32 has every one, so that what is clamped to it stays below.
    "to_int": Rule(_to_int, (1, 1), {"bound": number(1, 2**24)}),
    "const": Rule(_const, (0, 0), {"value": CONSTANT}),
    "load": Rule(_load, (0, 0), {"name": NAME, "role": one_of(ROLES)}),
    "graph_value": Rule(_graph_value, (0, 0), {"what": one_of(build.GRAPH_VALUES)}),
    "iota": Rule(_iota, (0, 0)),
    "random": Rule(_random, (1, 1), {"salt": number(0, 2**32 - 1)}),
    "contract": Rule(_contract, (1, MOST), {"reduce": NAMES, "total": BOOL}),
    "reduce": Rule(_reduce, (1, 1), {"reducer": one_of(REDUCERS), "dim": NAME}),
    "gather": Rule(lambda n: build.gather(n.inputs[0], n.attr("end")), (1, 1), _OF_AN_END),
    "segment": Rule(_segment, (1, 2), {"end": END, "reducer": one_of(SEGMENT_REDUCERS)}),
    "grouped_product": Rule(_grouped_product, (3, 4), {"ends": Value("two of i, j and none", _is_ends)}),
    "sparse_product": Rule(_sparse_product, (1, 2), {"end": EDGE_END}),
    "spread": Rule(lambda n: build.spread(n.inputs[0], n.domain), (1, 1)),
    "order_rank": Rule(_order_rank, (1, 1), {"end": END, "q": SHARE, "side": one_of(("lower", "upper"))}),
    "scan": Rule(
        _scan,
        (1, MOST),
        {
            **_OF_AN_END,
            "step": Value("an expression", lambda v: isinstance(v, Node)),
            "init": FLOAT,
            "reverse": BOOL,
            "last": BOOL,
        },
    ),
    "index": Rule(_index, (2, 2), {"dim": NAME}),
    "scatter": Rule(_scatter, (2, 2), {"dim": NAME}),
    "slice": Rule(_slice, (1, 1), {"dim": NAME, "start": number(0, MOST)}),
    "cat": Rule(_cat, (1, MOST), {"dims": NAMES, "new": NAME}),
    "reshape": Rule(_reshape, (1, 1)),
    "transpose": Rule(_transpose, (1, 1)),
    "stop_gradient": Rule(lambda n: build.stop_gradient(n.inputs[0]), (1, 1)),
    "bspline": _SPLINE,
    "bspline_index": _SPLINE,
    "call": Rule(_call, (0, MOST), {"module": NAME}, {"kind": one_of(("map", "aggregate")), "end": EDGE_END}),
}
