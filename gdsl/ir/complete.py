"""What a program may not ask of a complete graph, whose edges, all pairs of nodes, never lie in memory."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from gdsl.ir.node import Node, walk
from gdsl.ir.ops import of
from gdsl.ir.types import Domain

# Ops that a text writes as something else.
_WRITTEN = {"order_rank": "a median or quantile", "support": "`sparsemax`"}


def why_not(outputs: Sequence[Node], unseen: Collection[str] = ()) -> str | None:
    """What of a program would need a number in memory for each pair of nodes; None where nothing does.

    unseen: modules that are not at hand, of which nobody can say yet whether the program will have what they compute
    """
    for node in outputs:
        if node.domain is Domain.EDGE:
            return f"a result that is {node.type} would be as large as all pairs: reduce it to nodes"
    seen = (n for n in walk(outputs) if not (n.op == "call" and n.attrs.module in unseen))
    return next(filter(None, map(_why_not, seen)), None)


def _why_not(node: Node) -> str | None:
    if node.domain is Domain.PAIR:
        return "pairs of its edges are triples of nodes, which are not walked"
    if node.op == "load" and node.domain is Domain.EDGE:
        return f"`{node.attrs.name}` has a value for each edge: compute it of node values instead"
    if Domain.EDGE not in (node.domain, *(i.domain for i in node.inputs)):
        return None
    if node.op == "reverse":
        return "an edge value at the other way round is not kept: write it with i and j exchanged"
    if node.op == "scan" or (node.op == "graph_value" and node.attrs.what == "position"):
        return "its edges have no order that rules could follow: `reduce` and `stack` need one"
    if node.op == "call":
        runs = f"module `{node.attrs.module}` runs as it is, on edge values that lie in memory"
        return f"{runs}; write it as rules, or make it of layers that a program can read, without hooks"
    if of(node).whole:
        return f"{_WRITTEN.get(node.op, f'`{node.op}`')} takes edge values that lie in memory"
    if len(node.inputs) == 2 and node.op == "segment" and node.attrs.reducer in ("max", "min"):
        return f"a `{node.attrs.reducer}` by kind takes edge values that lie in memory"
    return None
