"""Of a program on several graphs, which one a value is of. The cut into programs of one graph each takes it away."""

from __future__ import annotations

from typing import Annotated

from gdsl.ir.attributes import NAME, Attrs, IRError
from gdsl.ir.node import Node, make
from gdsl.ir.ops.op import ATOM, Op, define
from gdsl.ir.types import ELEMENTS, Domain


class Over(Attrs):
    graph: Annotated[str, NAME]


def over(x: Node, graph: str) -> Node:
    """The value itself, as one of the edges of the graph of this name, or, of a degree, of nodes as that graph has
    them; another value of nodes as one of the set of this name."""
    if x.domain not in (*ELEMENTS, Domain.NODE) and x.op != "graph_value":
        raise IRError(f"only values of edges are of a graph, and those of nodes of a set, and this is {x.type}")
    return make("over", (x,), x.type, Over(graph))


def is_of_set(node: Node) -> bool:
    """Whether what an ``over`` says is a set of nodes."""
    return node.domain is Domain.NODE and node.inputs[0].op != "graph_value"


define(Op(
    name="over", operands=(1, 1), attrs=Over, rule=lambda n: over(n.inputs[0], n.attrs.graph),
    text=lambda n, args: (f"{args[0]} {'in' if is_of_set(n) else 'over'} {n.attrs.graph}", ATOM),
    levels=lambda n: (ATOM, ATOM),
    no_file="a program in a file runs on one graph",
))  # fmt: skip
