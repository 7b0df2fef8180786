"""Values of edges between the processes that share a graph, whose edges are those into own nodes.

The edge that goes the other way, and the edges before one, may be another process's. On a graph that is whole these
ops are ``reverse``, a value read at the first edge of each pair, and a sum over the pairs of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gdsl.ir.attributes import IRError
from gdsl.ir.node import Node, make
from gdsl.ir.ops.op import ATOM, Op, Run, define, full
from gdsl.ir.ops.reversal import Reverse, reverse
from gdsl.ir.types import Domain, Kind, Type

if TYPE_CHECKING:
    from torch import Tensor


def _value(node: Node, args: Sequence[Tensor], run: Run) -> Tensor:
    return run.travelled(node, full(args[0], node.inputs[0].type, run))


def exchange_reverse(x: Node, default: float = 0.0) -> Node:
    """What ``reverse(x, default)`` is on the graph of all processes, for own edges."""
    return make("exchange_reverse", (x,), reverse(x, default).type, Reverse(float(default)))


define(Op(
    name="exchange_reverse", operands=(1, 1), attrs=Reverse,
    rule=lambda n: exchange_reverse(n.inputs[0], n.attrs.default), value=_value,
    pull=lambda n, g, ties: [exchange_reverse(g)],
    text=lambda n, args: (f"exchange_reverse({args[0]}, {n.attrs.default:g})", ATOM),
    exact=True, maps=True, heavy=True, whole=True, travels=True,
))  # fmt: skip


def exchange_pairs(x: Node) -> Node:
    """For each pair of edges k -> j -> i, of which the second is an own one, the value of the first."""
    if x.domain is not Domain.EDGE:
        raise IRError(f"the first edge of a pair has values of edges, not {x.type}")
    return make("exchange_pairs", (x,), Type(Domain.PAIR, x.dims, x.kind, x.type.bound))


define(Op(
    name="exchange_pairs", operands=(1, 1), rule=lambda n: exchange_pairs(n.inputs[0]), value=_value,
    pull=lambda n, g, ties: [collect_pairs(g)],
    exact=True, maps=True, heavy=True, whole=True, travels=True,
))  # fmt: skip


def collect_pairs(x: Node) -> Node:
    """For each own edge the sum over the pairs, of all processes, that it is the first of."""
    if x.domain is not Domain.PAIR or x.kind is not Kind.FLOAT:
        raise IRError(f"only floats of pairs are summed up for their first edges, not {x.type}")
    return make("collect_pairs", (x,), Type(Domain.EDGE, x.dims))


define(Op(
    name="collect_pairs", operands=(1, 1), rule=lambda n: collect_pairs(n.inputs[0]), value=_value,
    pull=lambda n, g, ties: [exchange_pairs(g)],
    maps=True, heavy=True, whole=True, travels=True,
))  # fmt: skip
