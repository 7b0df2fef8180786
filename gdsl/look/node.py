"""``explain(graph, node=...)``: one node's edges and values, step by step, from the reference and from the kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gdsl.errors import InputError
from gdsl.ir.node import Node, walk
from gdsl.ir.printer import expression
from gdsl.ir.types import Domain, Kind
from gdsl.language.program import MAKERS, TypedProgram
from gdsl.runtime.graph import Graph
from gdsl.runtime.rewire import rewire_edge_value, rewirings

# What is shown of a node with many edges and of a value with many features.
EDGES, FEATURES = 8, 6


def check_shown(typed: TypedProgram, graph: Graph, node: int) -> None:
    """Raises :class:`gdsl.InputError` for a node that the graph does not have, or a program that makes its graph."""
    if not 0 <= node < graph.num_targets:
        raise InputError(f"the graph has targets 0 to {graph.num_targets - 1}, and no node {node}")
    if any(t.name in MAKERS for t in typed.transforms):
        raise InputError("explain(graph, node=...) shows layers that do not make their graph")


def story(
    typed: TypedProgram,
    named: Sequence[tuple[str, Node]],
    graph: Graph,
    node: int,
    plain: Sequence[Tensor],
    kernels: Sequence[Tensor] | None,
    note: str,
) -> str:
    """The edges and values of a node as text.

    named:   the values that are shown: see :func:`named_values`
    plain:   their tensors by the reference
    kernels: and by a layer's own backend, if that is another
    note:    what is said of the numbers at the top
    """
    edges = edges_into(typed, graph, node)
    mine = [e.place for e in edges]
    lines = [f"{typed.name}, node {node} of {graph.num_targets:,}: {len(mine)} in-edges", note]
    for (name, value), a, b in zip(named, plain, kernels or plain, strict=True):
        lines += ["", rule_of(typed, name, value)]
        if value.domain is Domain.EDGE:
            for place, source, number in edges[:EDGES]:
                what = "self-loop" if number < 0 else f"edge {number}, from {source}"
                lines.append(f"    {what}: {_both(a[place], b[place])}")
            if len(mine) > EDGES:
                lines.append(f"    ... and {len(mine) - EDGES} more edges")
            difference = _difference(a[mine], b[mine])
        else:
            lines.append(f"    {_both(a[node], b[node])}")
            difference = _difference(a[node], b[node])
        if kernels is not None:
            lines.append(f"    largest difference between reference and kernel here: {difference:.1e}")
    return "\n".join(lines)


class SeenEdge(NamedTuple):
    """An edge as the rules see it: its place, its source, and its number in the user's graph, -1 for a loop that the
    layer adds."""

    place: int
    source: int
    number: int


def edges_into(typed: TypedProgram, graph: Graph, node: int) -> list[SeenEdge]:
    """The edges into a node as the rules see them, in the order of the graph."""
    seen, numbers = graph, torch.arange(graph.num_edges, device=graph.edge_index.device)
    for made, _ in rewirings(typed, graph):
        seen, numbers = made.graph, rewire_edge_value(made, numbers, -1)
    order = seen.in_edges
    places = order.edge[int(order.rowptr[node]) : int(order.rowptr[node + 1])].tolist()
    return [SeenEdge(e, int(seen.edge_index[0, e]), int(numbers[e])) for e in places]


def rule_of(typed: TypedProgram, name: str, value: Node) -> str:
    """The rule of the text that gives a value, or what it is made of."""
    others = {k: v for k, v in typed.names.items() if k is not value}
    rules = {rule.node: rule.text for rule in typed.rules}
    return rules.get(value) or f"{name} = {expression(value, others)}"


def named_values(typed: TypedProgram) -> list[tuple[str, Node]]:
    """The values with names that edges and targets have, operands first, and the outputs."""
    outputs = {node: name for name, node in typed.outputs}
    found = []
    for node in walk([n for _, n in typed.outputs]):
        name = outputs.get(node) or typed.names.get(node)
        shown = node.domain in (Domain.EDGE, Domain.NODE, Domain.TARGET) and node.op != "load"
        if name and shown and node.kind is Kind.FLOAT:
            found.append((name, node))
    return found


def _both(a: Tensor, b: Tensor) -> str:
    """A row's numbers; the kernel's too where they are others when they are printed."""
    first, second = _numbers(a), _numbers(b)
    return first if first == second else f"{first} | {second}"


def _numbers(row: Tensor) -> str:
    flat = row.flatten()
    text = " ".join(f"{v:.4g}" for v in flat[:FEATURES].tolist())
    return text + (f" ... ({len(flat)})" if len(flat) > FEATURES else "")


def _difference(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max()) if a.numel() else 0.0
