"""What of a distributed graph goes from process to process, in bytes, and why it is that value."""

from __future__ import annotations

from collections.abc import Iterator

from gdsl.ir.node import Node, users
from gdsl.ir.ops import of
from gdsl.ir.printer import expression, name_nodes
from gdsl.ir.types import Domain, Kind
from gdsl.passes.exchanges import can_follow
from gdsl.passes.plan import Plan
from gdsl.runtime.frame import is_of_graph
from gdsl.runtime.halo import Halo


def _sent_bytes(node: Node, halo: Halo, width: int) -> int:
    """What this process sends of a value that travels, with one graph in the batch; of a sum over all processes, what a
    ring of them sends."""
    rounded = node.op != "all_reduce" and node.attrs.wire != "exact"
    floats = 2 if rounded else width
    size = node.type.numel * (floats if node.kind is Kind.FLOAT else 1 if node.kind is Kind.BOOL else 8)
    if node.op == "all_reduce":
        return 2 * (halo.world - 1) * size // halo.world
    return (len(halo.send) if node.op == "exchange" else halo.rows) * size


def exchanges(direction: str, plan: Plan, halo: Halo, width: int) -> Iterator[tuple[str, int, str]]:
    """For each value of a plan that travels: a line about it, the bytes that this process sends of it, and why."""
    names, read_by = name_nodes(plan.program), users(plan.program.nodes)
    for step in plan.steps:
        for node in (n for n in step.outputs if of(n).travels):
            value = node.inputs[0]
            once = is_of_graph(node)
            why = "the graph alone decides it: it was sent once" if once else _why(node, value, read_by[node])
            count = 0 if once else _sent_bytes(node, halo, width)
            yield f"{direction}: {expression(node, names)}   # {value.type}", count, why


def _why(node: Node, value: Node, readers: list[Node]) -> str:
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
