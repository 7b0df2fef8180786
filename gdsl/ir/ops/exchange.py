"""Values between the processes that share a graph: rows that edges read, and partial results.

Of a distributed graph a ``node`` value, or an ``own source`` value of a bipartite one, has the rows that a process
owns, and a ``source`` value the rows that its edges read: the own ones, then those of its halo. On a graph that is
whole both are all nodes, and these ops change nothing.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from gdsl.ir.attributes import Attrs, IRError, need, one_of
from gdsl.ir.node import Node, make, walk
from gdsl.ir.ops.edges import mul_pull
from gdsl.ir.ops.elementwise import elementwise
from gdsl.ir.ops.op import ATOM, Gradients, Op, Run, Text, define, full
from gdsl.ir.types import Domain, Kind, Type

if TYPE_CHECKING:
    from torch import Tensor

# How partial results become one.
COMBINED = ("sum", "max", "min", "mul")

WHOLE = (Domain.GLOBAL, Domain.GRAPH)
OWNED = (Domain.NODE, Domain.OWN)


# As what floats go to other processes: as they are, or rounded.
WIRES = ("exact", "bfloat16")


class Exchange(Attrs):
    wire: Annotated[str, one_of(WIRES)]


class Collect(Attrs):
    reducer: Annotated[str, one_of(COMBINED)]
    wire: Annotated[str, one_of(WIRES)]


class Combine(Attrs):
    reducer: Annotated[str, one_of(COMBINED)]


def _value(node: Node, args: Sequence[Tensor], run: Run) -> Tensor:
    return run.travelled(node, full(args[0], node.inputs[0].type, run))


# -------------------------------------------------------------------------------------- exchange


def _rounded(node: Node) -> str:
    return "" if node.attrs.wire == "exact" else f", {node.attrs.wire}"


def _exchange_text(node: Node, args: list[str]) -> Text:
    return f"exchange({args[0]}{_rounded(node)})", ATOM


def exchange(x: Node, wire: str = "exact") -> Node:
    """Rows of all nodes that edges of this process read, from the rows of its own nodes.

    wire: one of ``WIRES``, for floats; the own rows stay as they are
    """
    if x.domain not in OWNED:
        raise IRError(f"only values of own nodes are exchanged, not {x.type}")
    attrs = Exchange(wire if x.kind is Kind.FLOAT else "exact")
    return make("exchange", (x,), Type(Domain.SOURCE, x.dims, x.kind, x.type.bound), attrs)


define(Op(
    name="exchange", operands=(1, 1), attrs=Exchange, rule=lambda n: exchange(n.inputs[0], n.attrs.wire), value=_value,
    pull=lambda n, g, ties: [collect(g, "sum", n.inputs[0].domain, wire=n.attrs.wire)], text=_exchange_text,
    exact=True, pointwise=True, heavy=True, whole=True, travels=True,
))  # fmt: skip

# --------------------------------------------------------------------------------------- collect


def collect(x: Node, reducer: str, rows: Domain, count: Node | None = None, wire: str = "exact") -> Node:
    """For each node of this process what all processes have for it: their sum, product, maximum or minimum.

    rows:  those of own nodes
    count: of how many equal ones each maximum is, among which its gradient is shared out
    wire:  as for :func:`exchange`, of partial sums
    """
    if x.domain is not Domain.SOURCE or x.kind is not Kind.FLOAT:
        raise IRError(f"only floats of the rows that edges read are collected, not {x.type}")
    need(rows in OWNED, f"they are collected for own nodes, not for each {rows.value}")
    return make("collect", _with_count(x, reducer, count), Type(rows, x.dims), Collect(reducer, wire))


def _with_count(x: Node, reducer: str, count: Node | None) -> tuple[Node, ...]:
    if reducer in ("sum", "mul") or count is None:
        need((reducer in ("sum", "mul")) == (count is None), "a maximum or minimum has a count, and nothing else")
        return (x,)
    need(count.type == x.type, f"its count has the type of the value, {x.type}")
    return (x, count)


def _won(node: Node, best: Node) -> Node:
    """How many of a process's numbers are the largest, or smallest, of all."""
    x, count = node.inputs
    return elementwise("where", elementwise("eq", x, best), count, 0.0)


def _collect_text(node: Node, args: list[str]) -> Text:
    return f"collect({args[0]}, {node.attrs.reducer}{_rounded(node)})", ATOM


def _collect_pull(node: Node, g: Node, ties: str) -> Gradients:
    if node.attrs.reducer == "sum":
        return [exchange(g, node.attrs.wire)]
    if node.attrs.reducer == "mul":
        (x,) = node.inputs
        return [mul_pull(x, lambda v, how: exchange(collect(v, how, node.domain)), exchange(g))]
    won = _won(node, exchange(node))
    return [won * exchange(g / elementwise("maximum", collect(won, "sum", node.domain), 1.0)), None]


define(Op(
    name="collect", operands=(1, 2), attrs=Collect,
    rule=lambda n: collect(n.inputs[0], n.attrs.reducer, n.domain, n.inputs[1] if n.inputs[1:] else None, n.attrs.wire),
    value=_value, pull=_collect_pull, text=_collect_text,
    exact=True, pointwise=True, heavy=True, whole=True, travels=True,
))  # fmt: skip

# ------------------------------------------------------------------------------------ all_reduce


def all_reduce(x: Node, reducer: str, count: Node | None = None) -> Node:
    """A value that is the same for all rows, or has a row for each graph: what all processes have for it together.

    count: as in :func:`collect`
    """
    if x.domain not in WHOLE or x.kind is not Kind.FLOAT:
        raise IRError(f"only floats without rows, or of graphs, are reduced over all processes, not {x.type}")
    return make("all_reduce", _with_count(x, reducer, count), x.type, Combine(reducer))


def _all_reduce_pull(node: Node, g: Node, ties: str) -> Gradients:
    total = all_reduce(g, "sum")
    if node.attrs.reducer == "sum":
        return [total]
    if node.attrs.reducer == "mul":
        return [mul_pull(node.inputs[0], all_reduce, total)]
    won = _won(node, node)
    return [won * total / elementwise("maximum", all_reduce(won, "sum"), 1.0), None]


def _all_reduce_rule(node: Node) -> Node:
    need(node.type == node.inputs[0].type, f"it has the type of its operand, {node.inputs[0].type}")
    return all_reduce(node.inputs[0], node.attrs.reducer, *node.inputs[1:])


define(Op(
    name="all_reduce", operands=(1, 2), attrs=Combine, rule=_all_reduce_rule, value=_value,
    pull=_all_reduce_pull, text=lambda n, args: (f"all_reduce({args[0]}, {n.attrs.reducer})", ATOM),
    exact=True, pointwise=True, heavy=True, whole=True, travels=True,
))  # fmt: skip

# ------------------------------------------------------------------------------------ once for all

_of_graph: weakref.WeakKeyDictionary[Node, bool] = weakref.WeakKeyDictionary()


def is_of_graph(node: Node) -> bool:
    """Whether a value depends on nothing that a call gives."""
    found = _of_graph.get(node)
    if found is None:
        found = _of_graph[node] = not any(n.op in ("load", "call") for n in walk([node]))
    return found
