"""A program on several graphs cut into programs on one each, which are compiled and run as all others are.

A piece walks the edges of one graph. What passes from piece to piece are values of nodes, and of edges only what is
worth keeping for a later piece on the same graph; what little there is between is computed again. In a piece on a graph
from one set of nodes to another, the values of these are of sources and targets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from gdsl.ir import build
from gdsl.ir.node import Node, make, users, walk, walk_below
from gdsl.ir.ops.over import is_of_set
from gdsl.ir.program import Program
from gdsl.ir.spaces import NamedGraph, Spaces
from gdsl.ir.types import ELEMENTS, Domain, Kind


@dataclass(frozen=True)
class GraphPiece:
    """A part of a program on one graph.

    program: its loads are those of the program that was cut, and what earlier pieces give, by its names
    graph:   the name of the graph; "" for what is computed row by row of a set that none of the others is on
    nodes:   of such, the set
    """

    program: Program
    graph: str
    nodes: str = ""


def pieces_of(
    program: Program, graphs: Sequence[NamedGraph], within: Mapping[str, str]
) -> tuple[tuple[GraphPiece, ...], tuple[str, ...]]:
    """The pieces in the order in which they run, and the names of the program's results among what they give.

    within: the graph or set of each input
    """
    return _Pieces(program, graphs, within).pieces()


class _Pieces:
    """A program being cut.

    stage: for each value that is made of all edges of a node, and each result, the number of the piece that gives it
    at:    for each piece, its graph, or the set of nodes whose rows it is about
    """

    def __init__(self, program: Program, graphs: Sequence[NamedGraph], within: Mapping[str, str]):
        self.program = program
        self.spaces = Spaces({g.name: g for g in graphs}, within)
        self.order = list(walk(program.nodes))
        self.at: list[tuple[str, str]] = []
        self.stage: dict[Node, int] = {}
        self._schedule()
        for node in program.nodes:
            if node not in self.stage:
                self.stage[node] = self._place(node)

    # ------------------------------------------------------------------------------- what runs when

    def _graph(self, node: Node) -> str | None:
        """Of what is made of all edges of a node, or of their number, the graph."""
        if node.domain in ELEMENTS:
            return None
        if node.op == "over":
            return None if is_of_set(node) else str(node.attrs.graph)
        if node.op == "stop_gradient":  # what has no gradient passes on as such: no piece keeps anything for one
            return self._graph(node.inputs[0])
        edges = [i for i in node.inputs if i.domain in ELEMENTS]
        return self.spaces.of(edges[0]) if edges else None

    def _schedule(self) -> None:
        """Graph by graph: first the one for which most other graphs wait one after the other; one that is asked again
        later, as late as can be."""
        reduced = {node: graph for node in self.order if (graph := self._graph(node)) is not None}
        waiting = self._waiting(reduced)
        left = Counter(reduced.values())
        while len(self.stage) < len(reduced):
            found = {name: ready for name in self.spaces.graphs if (ready := self._ready(reduced, name))}
            best = max(
                found, key=lambda g: (max(waiting[n] for n in found[g]), len(found[g]) == left[g], len(found[g]))
            )
            self.stage |= dict.fromkeys(found[best], len(self.at))
            left[best] -= len(found[best])
            self.at.append((best, ""))

    def _waiting(self, reduced: Mapping[Node, str]) -> dict[Node, int]:
        """For what is made of all edges of a node, how often the graph changes on the longest way on from it."""
        read_by = users(self.program.nodes)
        ahead: dict[Node, dict[str, int]] = {}
        found: dict[Node, int] = {}
        for node in reversed(self.order):
            most = dict.fromkeys(self.spaces.graphs, 0)
            for user in read_by[node]:
                for name in most:
                    on = found[user] + (reduced[user] != name) if user in reduced else ahead[user][name]
                    most[name] = max(most[name], on)
            ahead[node] = most
            if node in reduced:
                found[node] = most[reduced[node]]
        return found

    def _ready(self, reduced: Mapping[Node, str], graph: str) -> list[Node]:
        """What can be had of all edges of a graph with what earlier pieces give."""
        waits: set[Node] = set()
        found: list[Node] = []
        for node in self.order:
            here = reduced.get(node)
            if any(i in waits for i in node.inputs) or (here not in (None, graph) and node not in self.stage):
                waits.add(node)
            elif here == graph and node not in self.stage:
                found.append(node)
        return found

    def _place(self, result: Node) -> int:
        """The first piece that can give a result."""
        below = walk_below([result], lambda n: () if n in self.stage else n.inputs)
        first = max((self.stage[n] for n in below if n in self.stage), default=0)
        space = self.spaces.of(result)
        if result.domain in ELEMENTS:
            fits = [k for k, (graph, _) in enumerate(self.at) if graph == space and k >= first]
            wanted = (space or "", "")
        else:
            fits = [k for k in range(first, len(self.at)) if not space or space in self._sets(k)]
            wanted = ("", space or "")
        if not fits:
            self.at.append(wanted)
            return len(self.at) - 1
        return fits[0]

    def _sets(self, piece: int) -> tuple[str, ...]:
        graph, nodes = self.at[piece]
        return (self.spaces.graphs[graph].source, self.spaces.graphs[graph].target) if graph else (nodes,)

    # ---------------------------------------------------------------------------------- the pieces

    def pieces(self) -> tuple[tuple[GraphPiece, ...], tuple[str, ...]]:
        targets = [[n for n, k in self.stage.items() if k == piece] for piece in range(len(self.at))]
        first: dict[Node, int] = {}
        kept: dict[Node, int] = {}
        taken: list[list[Node]] = []
        for piece, wanted in enumerate(targets):

            def is_taken(node: Node, piece: int = piece) -> bool:
                earlier = self.stage.get(node, piece) < piece or first.get(node, piece) < piece
                return earlier and node.op != "load"

            found: list[Node] = []
            for node in walk_below(wanted, lambda n: () if is_taken(n) else n.inputs):
                if is_taken(node):
                    found.append(node)
                    if node not in self.stage:
                        kept[node] = first[node]
                elif _is_worth_keeping(node):
                    first.setdefault(node, piece)
            taken.append(found)
        read = {node for found in taken for node in found} | set(self.program.nodes)
        gives = [
            [n for n in (*targets[k], *(n for n, at in kept.items() if at == k)) if n in read]
            for k in range(len(self.at))
        ]
        names = {n: f"between.{k}" for k, n in enumerate(n for found in gives for n in found)}
        made = tuple(self._piece(k, gives[k], taken[k], names) for k in range(len(self.at)) if gives[k])
        loads = {n: n.attrs.name for n in self.program.nodes if n.op == "load"}
        return made, tuple((loads | names)[n] for n in self.program.nodes)

    def _piece(
        self, number: int, gives: Sequence[Node], taken: Collection[Node], names: Mapping[Node, str]
    ) -> GraphPiece:
        graph, nodes = self.at[number]
        plain = _Plain(self.spaces, graph, frozenset(taken), names)
        found = plain.made([(n, self.spaces.of(n) or nodes) for n in gives])
        outputs = tuple((names[n], node) for n, node in zip(gives, found, strict=True))
        called = plain.named(self.program.names)
        where = graph or nodes or "rows"
        return GraphPiece(Program(f"{self.program.name}_{where}_{number}", outputs, called), graph, nodes)


class _Plain:
    """The values of a piece, as of a program on one graph."""

    def __init__(self, spaces: Spaces, graph: str, taken: frozenset[Node], names: Mapping[Node, str]):
        self.spaces, self.taken, self.names = spaces, taken, names
        self.graph = spaces.graphs.get(graph)
        self._made: dict[tuple[Node, str], Node] = {}

    def named(self, names: Mapping[Node, str]) -> dict[Node, str]:
        """The names of what was made."""
        return {made: names[node] for (node, _), made in self._made.items() if node in names}

    def made(self, wanted: Iterable[tuple[Node, str]]) -> list[Node]:
        """Values of these sets of nodes; of others, the set says nothing."""
        wanted = list(wanted)
        for key in walk_below(wanted, self._below):
            if key not in self._made:
                self._made[key] = self._make(*key)
        return [self._made[key] for key in wanted]

    def _below(self, key: tuple[Node, str]) -> list[tuple[Node, str]]:
        node, nodes = key
        if node in self.taken:
            return []
        return [(i, self._set(i, node, nodes)) for i in node.inputs]

    def _set(self, operand: Node, node: Node, nodes: str) -> str:
        """The set of an operand's nodes: its own, or, of what is the same for all, that of those who read it."""
        if operand.domain is not Domain.NODE:
            return ""
        own = self.spaces.of(operand)
        if own is not None:
            return own
        if node.domain is Domain.NODE or self.graph is None:
            return nodes
        return self.graph.at(getattr(node.attrs, "end", "i"))

    def _make(self, node: Node, nodes: str) -> Node:
        type = replace(node.type, domain=self._domain(node, nodes))
        if node in self.taken:
            return build.load(self.names[node], type, "input")
        inputs = [self._made[key] for key in self._below((node, nodes))]
        return inputs[0] if node.op == "over" else make(node.op, inputs, type, node.attrs)

    def _domain(self, node: Node, nodes: str) -> Domain:
        graph = self.graph
        if node.domain is not Domain.NODE or graph is None or graph.source == graph.target:
            return node.domain
        return Domain.TARGET if nodes == graph.target else Domain.SOURCE


def _is_worth_keeping(node: Node) -> bool:
    heavy = node.op in ("contract", "segment") and node.kind is Kind.FLOAT
    return (heavy and node.domain not in (Domain.GLOBAL, Domain.PAIR)) or node.op == "call"  # which may draw numbers
