"""The edge that goes the other way: values of edges, each where its reverse reads it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from gdsl.ir.attributes import FLOAT, Attrs, IRError
from gdsl.ir.node import Node, make
from gdsl.ir.ops.op import ATOM, Op, Run, define, full
from gdsl.ir.types import Domain, Kind, Type

if TYPE_CHECKING:
    from torch import Tensor


class Reverse(Attrs):
    default: Annotated[float, FLOAT]


def reverse(x: Node, default: float = 0.0) -> Node:
    """For each edge j -> i the value of the edge i -> j, ``default`` where there is none.

    Of several edges j -> i, the k-th by number reads the k-th edge i -> j, so that each edge reads at most one and is
    read by that one only.
    """
    if x.domain is not Domain.EDGE:
        raise IRError(f"only edges have a reverse, and this is {x.type}")
    if x.kind is not Kind.FLOAT and default != 0.0:
        raise IRError(f"a default other than 0 is for floats, and this is {x.type}")
    return make("reverse", (x,), Type(x.domain, x.dims, x.kind, x.type.bound), Reverse(float(default)))


def at_reverse(value: Tensor, index: Tensor, default: float) -> Tensor:
    """The rows of a value of edges that ``index`` [E] names, ``default`` where it is -1."""
    if not value.shape[0]:
        return value
    found = value.index_select(0, index.clamp(min=0))
    there = (index >= 0).reshape(-1, *(1,) * (value.dim() - 1))
    return found.where(there, found.new_full((), default))


def _value(node: Node, args: Sequence[Tensor], run: Run) -> Tensor:
    return at_reverse(full(args[0], node.type, run), run.graph.reversed_edges, node.attrs.default)


def _text(node: Node, args: list[str]) -> tuple[str, int]:
    return f"reverse({args[0]}, {node.attrs.default:g})", ATOM


define(Op(
    name="reverse", operands=(1, 1), attrs=Reverse, rule=lambda n: reverse(n.inputs[0], n.attrs.default), value=_value,
    pull=lambda n, g, ties: [reverse(g)], text=_text, exact=True, maps=True, whole=True,
))  # fmt: skip
