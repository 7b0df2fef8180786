"""Of a program on several graphs, which one a value is of. The cut into programs of one graph each takes it away."""

from __future__ import annotations

from typing import Annotated

from gdsl.ir.attributes import NAME, Attrs, IRError
from gdsl.ir.node import Node, make
from gdsl.ir.ops.op import ATOM, Op, define
from gdsl.ir.types import ELEMENTS


class Over(Attrs):
    graph: Annotated[str, NAME]


def over(x: Node, graph: str) -> Node:
    """The value itself, as one of the edges of the graph of this name, or, of a degree, of nodes as that graph has
    them."""
    if x.domain not in ELEMENTS and x.op != "graph_value":
        raise IRError(f"only values of edges are of a graph, and this is {x.type}")
    return make("over", (x,), x.type, Over(graph))


define(Op(
    name="over", operands=(1, 1), attrs=Over, rule=lambda n: over(n.inputs[0], n.attrs.graph),
    text=lambda n, args: (f"{args[0]} over {n.attrs.graph}", ATOM), levels=lambda n: (ATOM, ATOM),
    no_file="a program in a file runs on one graph",
))  # fmt: skip
