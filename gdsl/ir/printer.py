"""IR as text: a program as a list of equations that read like the language."""

from __future__ import annotations

from collections.abc import Mapping

from gdsl.ir.node import Node, users, walk
from gdsl.ir.ops import of
from gdsl.ir.ops.text import MAX_DEPTH, expression
from gdsl.ir.program import Program


class NodeNames:
    """Names for nodes: the user's where there are some, else ``t0``, ``t1``, ..."""

    def __init__(self, given: Mapping[Node, str]):
        self._names: dict[Node, str] = {}
        self._used: set[str] = set()
        self._counts: dict[str, int] = {}  # the last number that was tried, by name
        self._given = given

    def __getitem__(self, node: Node) -> str:
        if node not in self._names:
            name = self._given.get(node) or _own_name(node)
            self._names[node] = self._fresh(name)
        return self._names[node]

    def _fresh(self, name: str | None) -> str:
        base, first = name or "t", 0 if name is None else 1
        name = name or "t0"
        count = self._counts.get(base, first)
        while name in self._used:
            count += 1
            name = f"{base}{count}" if base == "t" else f"{base}_{count}"
        self._used.add(name)
        self._counts[base] = count
        return name


def describe(node: Node, names: Mapping[Node, str]) -> str:
    """A name for a node: the user's, else one that says what it holds, as ``max_score`` or ``sum_exp``."""
    given = names.get(node) or _own_name(node) or (node.attrs.what if node.op == "graph_value" else None)
    if given:
        return given
    if node.op == "segment":
        return f"{node.attrs.reducer}_{_short(node.inputs[0], names)}"
    if of(node).look and not of(node).word and node.inputs[0] in names:
        return names[node.inputs[0]]
    return of(node).word or node.op


def _short(node: Node, names: Mapping[Node, str]) -> str:
    return names.get(node) or of(node).word or node.op


def _own_name(node: Node) -> str | None:
    return node.attrs.name if node.op == "load" else None


def name_nodes(program: Program) -> dict[Node, str]:
    """Names for every node that deserves a line of its own: named by the user, an output, or used twice."""
    names = NodeNames(program.names)
    found: dict[Node, str] = {}
    uses = users(program.nodes)
    outputs = set(program.nodes)
    parts: dict[Node, int] = {}  # of a node's line
    for node in walk(program.nodes):
        trivial = of(node).leaf and node.op != "load"
        wanted = node.op == "load" or node in program.names or node in outputs or len(uses[node]) > 1
        parts[node] = 1 + sum(parts[i] for i in node.inputs)
        if (wanted or parts[node] >= MAX_DEPTH) and not trivial:
            found[node] = names[node]
            parts[node] = 1
    return found


def print_program(program: Program) -> str:
    """One equation a line: ``alpha = exp(score - m[i]) / z[i]   # edge[heads]``."""
    names = name_nodes(program)
    lines = []
    for node, name in names.items():
        left = name
        right = f"{node.attrs.role}" if node.op == "load" else expression(node, names)
        lines.append((f"{left} = {right}", str(node.type)))
    width = min(max((len(text) for text, _ in lines), default=0), 88)
    body = [f"    {text.ljust(width)}  # {type}" for text, type in lines]
    written = [(name, names.get(node) or expression(node, names)) for name, node in program.outputs]
    results = ", ".join(name if name == text else f"{name} = {text}" for name, text in written)
    return "\n".join([f"program {program.name} {{", *body, f"    return {results}", "}"])
