"""Kernels whose rows are edges, in the words of those whose rows are nodes: a generator writes both in the same way.

What walks the pairs of an edge differs in where a row's walk begins and ends, and which pairs it leaves out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from gdsl.codegen.values import c_type
from gdsl.ir.node import Node, make, walk_below
from gdsl.ir.ops.leaves import GraphValue, Load
from gdsl.ir.printer import describe
from gdsl.ir.program import Program
from gdsl.ir.types import Domain, Kind, Type
from gdsl.passes.plan import Kernel

# What stands for edges and pairs.
_DOMAINS = {Domain.EDGE: Domain.NODE, Domain.PAIR: Domain.EDGE}

# What a kernel of each end walks, in its comment.
PAIRS_WALKED = {"i": "pairs of edge i; j is the edge before it", "j": "pairs of edge i; j is the edge behind it"}

# The same where edges are all pairs of nodes.
ALL_WALKED = {"i": "nodes j of the graph of node i, as sources", "j": "nodes j of the graph of node i, as targets"}


@dataclass(frozen=True)
class Readable:
    """A kernel as generators read it, with its program, which gives the names, and the buffers that are packed."""

    kernel: Kernel
    program: Program
    packed: frozenset[Node]


def readable(kernel: Kernel, program: Program, packed: frozenset[Node]) -> Readable:
    """The kernel itself; one whose rows are edges with nodes in their place, and edges in that of pairs. Its buffers
    and results are in the same order."""
    if kernel.rows is not Domain.EDGE:
        return Readable(kernel, program, packed)
    buffers = set(kernel.buffers)
    roots = [*kernel.buffers, *(n for p in kernel.phases for n in (*p.roots, *p.kept)), *kernel.stores, *kernel.totals]
    found: dict[Node, Node] = {}
    for node in walk_below(roots, lambda n: () if n in buffers else n.inputs):
        if node in buffers and node.inputs:
            # What an earlier step has made lies in memory, and is read as an input is.
            kept = node.kind is Kind.INT and c_type(node) == "idx_t"
            name = f"{len(found)} {describe(node, program.names)}"
            found[node] = make("load", (), _type(node), Load(name, "saved" if kept else "input"))
        else:
            which = node.op == "graph_value" and node.attrs.what == "edge_id"
            attrs = GraphValue("node_id") if which else node.attrs
            found[node] = make(node.op, [found[i] for i in node.inputs], _type(node), attrs)

    def each(nodes: Sequence[Node]) -> tuple[Node, ...]:
        return tuple(found[n] for n in nodes)

    phases = tuple(
        replace(
            p,
            accumulators=each(p.accumulators),
            totals=each(p.totals),
            stores=each(p.stores),
            kept=each(p.kept),
            running=tuple(replace(r, total=found[r.total], top=found[r.top]) for r in p.running),
        )
        for p in kernel.phases
    )
    names = {found[n]: describe(n, program.names) for n in found if n in program.names or n in buffers}
    names = {n: name for n, name in names.items() if n.op != "load" or n.attrs.name != name}
    return Readable(
        Kernel(
            kernel.name, kernel.end, Domain.NODE, phases, each(kernel.stores), each(kernel.totals), each(kernel.buffers)
        ),
        Program(program.name, (), names),
        frozenset(found[n] for n in packed if n in found),
    )


def _type(node: Node) -> Type:
    return replace(node.type, domain=_DOMAINS.get(node.domain, node.domain))
