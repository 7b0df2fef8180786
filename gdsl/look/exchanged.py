"""What of a distributed graph goes from process to process, in bytes, and why it is that value."""

from __future__ import annotations

from collections.abc import Iterator

from gdsl.ir.node import Node, users
from gdsl.ir.ops import of
from gdsl.ir.ops.exchange import is_of_graph
from gdsl.ir.printer import expression, name_nodes
from gdsl.ir.program import Program
from gdsl.ir.types import Domain, Kind
from gdsl.passes.exchanges import can_follow
from gdsl.passes.plan import Plan
from gdsl.passes.turns import ProgramPiece
from gdsl.runtime.local import LocalGraph


def _row_bytes(value: Node, wire: str, width: int) -> int:
    floats = 2 if wire == "bfloat16" else width
    return value.type.numel * (floats if value.kind is Kind.FLOAT else 1 if value.kind is Kind.BOOL else 8)


def _sent_bytes(node: Node, graph: LocalGraph, width: int) -> int:
    """What this process sends of a value that travels, with one graph in the batch; of a sum over all processes, what a
    ring of them sends."""
    halo = graph.halo
    if node.op == "all_reduce":
        return 2 * (halo.world - 1) * _row_bytes(node, "exact", width) // halo.world
    if node.op == "exchange_reverse":
        return len(graph.reverses.halo.send) * _row_bytes(node, "exact", width)
    if node.op in ("exchange_pairs", "collect_pairs"):
        shared = graph.pairs.halo
        return (shared.rows if node.op == "collect_pairs" else len(shared.send)) * _row_bytes(node, "exact", width)
    return (len(halo.send) if node.op == "exchange" else halo.rows) * _row_bytes(node, node.attrs.wire, width)


def exchanges(direction: str, plan: Plan, graph: LocalGraph, width: int) -> Iterator[tuple[str, int, str]]:
    """For each value of a plan that travels: a line about it, the bytes that this process sends of it, and why."""
    names, read_by = name_nodes(plan.program), users(plan.program.nodes)
    for step in plan.steps:
        for node in (n for n in step.outputs if of(n).travels):
            value = node.inputs[0]
            once = is_of_graph(node)
            why = "the graph alone decides it: it was sent once" if once else _why(node, value, read_by[node])
            count = 0 if once else _sent_bytes(node, graph, width)
            yield f"{direction}: {expression(node, names)}   # {value.type}", count, why


def exchanges_in_turns(
    direction: str, piece: ProgramPiece, program: Program, graph: LocalGraph, width: int
) -> Iterator[tuple[str, int, str]]:
    """As :func:`exchanges`, of what a piece of a program sends in turns."""
    names, turns = name_nodes(program), len(graph.parts)
    most = max((part.stop - part.start for part in graph.parts if part.rows is not None), default=0)
    for _, value, wire in piece.sends:
        why = f"edges read it in {turns} turns, first of own rows, then at most {most:,} rows of others in each"
        count = len(graph.halo.send) * _row_bytes(value, wire, width)
        yield f"{direction}: exchange({expression(value, names)})   # {value.type}", count, why
    for value in (n for n in piece.gives if n.op == "collect"):
        why = f"its owners get partial results of {turns} turns, each of at most {most:,} rows of others"
        yield f"{direction}: {expression(value, names)}   # {value.type}", _sent_bytes(value, graph, width), why


_OF_EDGES = {
    "exchange_reverse": "edges read it at their reverse, which may be another process's",
    "exchange_pairs": "pairs of edges read it at their first edge, which may be another process's",
    "collect_pairs": "pairs of several processes begin with one edge, which gets a partial sum of each",
}


def _why(node: Node, value: Node, readers: list[Node]) -> str:
    if node.op in _OF_EDGES:
        return _OF_EDGES[node.op]
    if node.op == "all_reduce":
        return "it is reduced over all rows, and each process has some"
    if node.op == "collect":
        return "edges of several processes are aggregated at one node, which gets a partial result of each"
    whole = value
    while of(whole).arranges and len(whole.inputs) == 1:
        whole = whole.inputs[0]
    parts = [i for i in whole.inputs if i.domain is not Domain.GLOBAL]
    made = sum(n.type.numel for n in readers if n.domain is Domain.SOURCE and not of(n).travels)
    why = [f"edges read it at their sources, {value.type.numel} numbers a row"]
    if can_follow(whole) and parts:
        why.append(f"what it is made of has {sum(i.type.numel for i in parts)}")
    if made:
        why.append(f"what is made of it for the halo has {made}")
    return "; ".join(why)
