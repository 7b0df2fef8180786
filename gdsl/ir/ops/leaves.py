"""Values that no other value is needed for: numbers, inputs, what a graph has, counters, random numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from gdsl.ir.attributes import NAME, Allowed, Attrs, need, number, one_of, whole
from gdsl.ir.node import Node, make
from gdsl.ir.ops.op import ATOM, Op, Run, Text, check_dims, define, no_gradient, one_each, shape_of
from gdsl.ir.types import Dim, Domain, Kind, Type

if TYPE_CHECKING:
    from torch import Tensor

# ----------------------------------------------------------------------------------------- const

# C++ reads -2^63 as minus a number that is too large.
CONSTANT = Allowed(
    "true or false, a float or an int of 64 bits",
    lambda v: type(v) in (bool, float) or (whole(v) and -(2**63) < v < 2**63),
)


class Const(Attrs):
    value: Annotated[bool | int | float, CONSTANT]


def const(value: float | int | bool, dims: Sequence[Dim] = ()) -> Node:
    """A number, the same everywhere; ``dims`` repeats it along feature dims."""
    if isinstance(value, bool):
        kind: Kind = Kind.BOOL
    elif isinstance(value, int):
        kind = Kind.INT
    else:
        kind, value = Kind.FLOAT, float(value)
    return make("const", (), Type(Domain.GLOBAL, tuple(dims), kind), Const(value))


def is_const(node: Node, value: float | None = None) -> bool:
    """Whether a node is a number, or this one."""
    return node.op == "const" and (value is None or node.attrs.value == value)


def _const_value(node: Node, args: Sequence[Tensor], run: Run) -> Tensor:
    import torch

    dtype = {Kind.FLOAT: run.dtype, Kind.INT: torch.long, Kind.BOOL: torch.bool}[node.kind]
    return torch.full(node.type.shape, node.attrs.value, dtype=dtype, device=run.device)


def _const_text(node: Node, args: list[str]) -> Text:
    value = node.attrs.value
    text = f"{value:g}" if isinstance(value, float) else str(value)
    if isinstance(value, float) and float(text) != value:
        text = repr(value)
    return text, ATOM if not text.startswith("-") else 6


define(Op(
    name="const", operands=(0, 0), attrs=Const, rule=lambda n: const(n.attrs.value, n.dims), value=_const_value,
    text=_const_text, leaf=True, exact=True,
))  # fmt: skip

# ------------------------------------------------------------------------------------------ load

# "grad": of an output; "saved", "product": kept by the forward pass, a statistic or a product of matrices; "buffer": of
# a module, no parameter; "ids": the numbers of rows among those of all processes.
ROLES = ("input", "param", "buffer", "grad", "saved", "product", "seed", "ids")


class Load(Attrs):
    name: Annotated[str, NAME]
    role: Annotated[str, one_of(ROLES)]


def load(name: str, type: Type, role: str) -> Node:
    """A value that comes from outside; ``role`` is one of ``ROLES``. A bound is what whoever runs the program holds its
    tensors against."""
    check_dims(type.dims)
    return make("load", (), type, Load(name, role))


define(Op(
    name="load", operands=(0, 0), attrs=Load, rule=lambda n: load(n.attrs.name, n.type, n.attrs.role),
    text=lambda n, args: (n.attrs.name, ATOM), leaf=True, exact=True,
))  # fmt: skip

# ----------------------------------------------------------------------------------- graph_value

# in_degree, out_degree: of a node, as a float; of an edge, how many pairs it is the second and the first of.
# edge_id: the number of an edge in the user's edge_index.
# position: the rank of an edge among the edges into its target, in edge order.
GRAPH_VALUES = {
    "in_degree": (Kind.FLOAT, (Domain.NODE, Domain.TARGET, Domain.EDGE)),
    "out_degree": (Kind.FLOAT, (Domain.NODE, Domain.SOURCE, Domain.EDGE)),
    "edge_id": (Kind.INT, (Domain.EDGE,)),
    "position": (Kind.INT, (Domain.EDGE,)),
    "node_id": (Kind.INT, (Domain.NODE,)),
}


class GraphValue(Attrs):
    what: Annotated[str, one_of(GRAPH_VALUES)]


def graph_value(what: str, domain: Domain) -> Node:
    """A value that the graph itself holds: see ``GRAPH_VALUES``."""
    kind, _ = GRAPH_VALUES[what]
    return make("graph_value", (), Type(domain, (), kind), GraphValue(what))


def element_id(end: str) -> Node:
    """The number of an edge, or of a node for the end ``g``."""
    return graph_value("node_id", Domain.NODE) if end == "g" else graph_value("edge_id", Domain.EDGE)


def _graph_value_rule(node: Node) -> Node:
    what = node.attrs.what
    need(node.domain in GRAPH_VALUES[what][1], f"there is no {what} for each {node.domain.value}")
    return graph_value(what, node.domain)


def _graph_value_value(node: Node, args: Sequence[Tensor], run: Run) -> Tensor:
    import torch

    what = node.attrs.what
    if what in ("edge_id", "node_id"):
        return torch.arange(run.rows(node.domain), device=run.device)
    if what == "position":
        return run.graph.position.long()
    graph = run.graph.pairs if node.domain is Domain.EDGE else run.graph
    return graph.degree(what, run.dtype)


define(Op(
    name="graph_value", operands=(0, 0), attrs=GraphValue, rule=_graph_value_rule, value=_graph_value_value,
    text=lambda n, args: (n.attrs.what, ATOM), leaf=True, exact=True,
))  # fmt: skip

# ------------------------------------------------------------------------------------------ iota


def iota(dim: Dim) -> Node:
    """0, 1, 2, ... along a dim."""
    return make("iota", (), Type(Domain.GLOBAL, (dim,), Kind.INT, dim.size))


def _iota_rule(node: Node) -> Node:
    need(len(node.dims) == 1, f"it counts along one dim, not {node.type}")
    return iota(node.dims[0])


def _iota_value(node: Node, args: Sequence[Tensor], run: Run) -> Tensor:
    import torch

    return torch.arange(node.dims[0].size, device=run.device)


define(Op(
    name="iota", operands=(0, 0), rule=_iota_rule, value=_iota_value,
    text=lambda n, args: (f"iota({n.dims[0].name})", ATOM), leaf=True, exact=True,
))  # fmt: skip

# ---------------------------------------------------------------------------------------- random

# Ten rounds of two products of 64 bits and a few other operations.
PHILOX_COST = 60


class Random(Attrs):
    salt: Annotated[int, number(0, 2**32 - 1)]


def random(seed: Node, salt: int, domain: Domain, dims: Sequence[Dim], ids: Node | None = None) -> Node:
    """Uniform numbers in [0, 1), a function of seed, salt, row and place only (Philox4x32-10).

    ids: the numbers of the rows, where they are not 0, 1, 2, ...
    """
    return make("random", (seed,) if ids is None else (seed, ids), Type(domain, tuple(dims)), Random(salt))


def row_ids(domain: Domain) -> Node:
    """The number of each row of a distributed graph among those of all processes."""
    return load(f"ids_of_{domain.value.replace(' ', '_')}", Type(domain, (), Kind.INT), "ids")


def _random_rule(node: Node) -> Node:
    seed, *ids = node.inputs
    for i in ids:
        need(i.type == Type(node.domain, (), Kind.INT), f"its ids are an int a {node.domain.value}, not {i.type}")
    need(node.domain is not Domain.PAIR, "no number is drawn for each pair of edges")
    need(seed.type == Type(Domain.GLOBAL, (), Kind.INT), f"its seed is one int without a bound, not {seed.type}")
    return random(seed, node.attrs.salt, node.domain, node.dims, *ids)


def _random_value(node: Node, args: Sequence[Tensor], run: Run) -> Tensor:
    from gdsl.ir import philox

    return philox.uniform(args[0], node.attrs.salt, shape_of(node.type, run), run.device, run.dtype, *args[1:])


define(Op(
    name="random", operands=(1, 2), attrs=Random, rule=_random_rule, value=_random_value, pull=no_gradient,
    text=lambda n, args: (f"uniform({args[0]}, {n.attrs.salt})", ATOM), work=one_each, cost=PHILOX_COST,
    exact=True, heavy=True,
))  # fmt: skip
