"""Programs on a graph whose edges are turned round: the same with the ends of edges swapped, on the graph as it is.

Of a part of a distributed graph, whose edges are those into own nodes, no other part would have those out of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gdsl.errors import GraphError
from gdsl.ir import build
from gdsl.ir.node import Node, make, walk
from gdsl.ir.ops import end_of
from gdsl.ir.ops.text import expression
from gdsl.ir.program import Program
from gdsl.ir.types import Domain

_ENDS = {"i": "j", "j": "i", "g": "g"}
_ROWS = {Domain.SOURCE: Domain.TARGET, Domain.TARGET: Domain.SOURCE}
_DEGREES = {"in_degree": "out_degree", "out_degree": "in_degree"}


def with_ends_swapped(program: Program) -> Program:
    """The program that gives on a graph what ``program`` gives on the graph with every edge turned round.

    Raises ``GraphError`` for what looks at the edges of a node in an order, or at pairs of edges.
    """
    mapping: dict[Node, Node] = {}
    for node in walk(program.nodes):
        mapping[node] = _swapped(node, [mapping[i] for i in node.inputs], program)
    return program.mapped(mapping)


def _swapped(node: Node, inputs: Sequence[Node], program: Program) -> Node:
    rows = _ROWS.get(node.domain, node.domain)
    if Domain.PAIR not in (node.domain, *(i.domain for i in node.inputs)):
        if node.op == "gather":
            return build.gather(inputs[0], _ENDS[node.attrs.end])
        if node.op == "segment":
            by = (inputs[1], node.dims[0]) if len(inputs) == 2 else ()
            return build.segment(inputs[0], _ENDS[node.attrs.end], node.attrs.reducer, rows, *by)
        if node.op == "graph_value" and node.attrs.what in _DEGREES:
            return build.graph_value(_DEGREES[node.attrs.what], rows)
        ordered = end_of(node) is not None or (node.op == "graph_value" and node.attrs.what == "position")
        if not ordered:
            return make(node.op, inputs, replace(node.type, domain=rows), node.attrs)
    raise GraphError(
        f"{program.name}: `{expression(node, program.names)}` is not distributed on a graph that is turned round, as "
        'by flow="target_to_source"; run this layer on the whole graph, in one process'
    )
