"""Walks over edges in turns, so that a process never has the rows of all nodes that its edges read.

The edges of a process are cut into parts: those between own nodes, and those that read some rows of its halo. What a
program computes of edges, and of the rows that they read, it computes of one part after the other; sums and extremes
over the edges of a node are what the parts give, put together. The program is cut where they must be complete: a
whole piece computes what belongs to own nodes, then a turn goes through all parts, then comes the next piece. Each of
them is a program of its own, which is compiled as any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from gdsl.ir import build
from gdsl.ir.node import Node, make, substitute, users, walk, walk_below
from gdsl.ir.ops import end_of, of
from gdsl.ir.ops.edges import finds_winners
from gdsl.ir.ops.exchange import is_of_graph
from gdsl.ir.ops.text import expression
from gdsl.ir.program import Program
from gdsl.ir.types import Domain, Kind
from gdsl.passes.exchanges import least_cut

# What is computed of parts: values of edges, and of the rows that these read.
PARTS = (Domain.EDGE, Domain.SOURCE)
# How what parts give for a node becomes one; who wins a maximum, or how many, goes by the maximum itself.
PUT_TOGETHER = ("sum", "max", "min", "mul", "argmax", "argmin", "countmax", "countmin")
# What all edges of a source give for it, which are in one part.
AT_SOURCES = ("sum", "max", "min", "countmax", "countmin")

# Of an edge, or of a row that edges read, these need nothing but it.
_BY_ITSELF = frozenset({"load", "const", "iota", "gather", "spread", "random", "stop_gradient", "exchange"})


@dataclass(frozen=True)
class ProgramPiece:
    """A part of a program that runs at once, on all rows or, in turns, on one part of the edges after the other.

    program: its loads stand for values of the program that was cut
    takes:   (load, the value that it stands for), for those that are no loads of that program
    gives:   the value that each output is, or is one part's share of
    sends:   (load, the value of own nodes, wire) for rows that come from other processes
    turns:   whether it goes through the edges in turns
    """

    program: Program
    takes: tuple[tuple[Node, Node], ...]
    gives: tuple[Node, ...]
    sends: tuple[tuple[Node, Node, str], ...] = ()
    turns: bool = False


def why_not(program: Program) -> str:
    """Why a program reads the rows of others all at once; empty where it can do so in turns."""
    order = list(walk(program.nodes))
    apart = _apart(order)
    for node in order:
        if not _in_turns(node, apart):
            return f"`{expression(node, program.names)}` needs all edges, or all rows of others, at once"
    return ""


def _in_turns(node: Node, apart: Mapping[Node, bool]) -> bool:
    """Whether a value can be computed of one part of the edges, or be put together of what parts give."""
    reducer = node.attrs.reducer if node.op == "segment" else ""
    if apart[node]:
        at_sources = node.domain is Domain.SOURCE and (node.op == "graph_value" or reducer in AT_SOURCES)
        return _is_by_itself(node) or at_sources
    if _is_kept(node) or not any(apart[i] for i in node.inputs):
        return True
    if node.op == "segment" and end_of(node) == "i":
        return reducer == "sum" or (reducer in PUT_TOGETHER and len(node.inputs) == 1)
    total = node.domain is Domain.GLOBAL and (node.op == "scatter" or (node.op == "contract" and node.attrs.total))
    return total or node.op == "collect"


def _is_by_itself(node: Node) -> bool:
    return of(node).rowwise or node.op in _BY_ITSELF


def _apart(order: Iterable[Node]) -> dict[Node, bool]:
    """Whether each value belongs to rows that edges read, or to edges and is made of such."""
    found: dict[Node, bool] = {}
    for node in order:
        by_edge = node.domain is Domain.EDGE and any(found[i] for i in node.inputs)
        found[node] = node.domain is Domain.SOURCE or by_edge
    return found


def _is_kept(node: Node) -> bool:
    """Whether a value is sent once, for all calls."""
    return of(node).travels and is_of_graph(node)


def pieces_of(program: Program) -> tuple[ProgramPiece, ...]:
    """The pieces of a program that can be cut, in the order in which they run; none where no edge reads of others."""
    return _Cut(program).pieces()


class _Cut:
    """A program being cut.

    apart:   see :func:`_apart`
    results: what turns give: values put together, and outputs of edges and of the rows that they read
    level:   for each value, after how many turns all rows of it can be had
    """

    def __init__(self, program: Program):
        self.program = program
        self.order = list(walk(program.nodes))
        self.apart = _apart(self.order)
        self.users = users(program.nodes)
        self.together = dict.fromkeys(n for n in self.order if self._is_put_together(n))
        self.together |= {best: None for n in self.together if finds_winners(n) for best in [best_of(n)]}
        self.order += [n for n in self.together if n not in self.apart]
        self.apart |= {n: False for n in self.order if n not in self.apart}
        self.results = list(dict.fromkeys([*self.together, *(n for n in program.nodes if self.apart[n])]))
        self.level: dict[Node, int] = {}
        self._add_levels(self.order)
        self.loads: dict[tuple[Node, Domain], Node] = {}

    def _is_put_together(self, node: Node) -> bool:
        return any(self.apart[i] for i in node.inputs) and not self.apart[node] and not _is_kept(node)

    def _add_levels(self, order: Iterable[Node]) -> None:
        for node in order:
            if node not in self.level:
                self.level[node] = max((self.level[i] for i in node.inputs), default=0) + (node in self.together)

    def _turn(self, result: Node) -> int:
        return self.level[result] + (result not in self.together)

    def pieces(self) -> tuple[ProgramPiece, ...]:
        """Made from the last one to the first: each says what it takes of those before."""
        found: list[ProgramPiece] = []
        wanted = [n for n in self.program.nodes if n not in self.results]
        for level in range(max(map(self._turn, self.results), default=0), -1, -1):
            here = [n for n in dict.fromkeys(wanted) if self.level[n] == level and n.op != "load"]
            if here:
                found.append(self._whole(here, level))
                wanted += self._taken(found[-1])
            results = [n for n in self.results if self._turn(n) == level]
            if results:
                found.append(self._of_parts(results))
                wanted += self._taken(found[-1])
        return tuple(reversed(found)) if self.results else ()

    def _taken(self, piece: ProgramPiece) -> list[Node]:
        values = [value for _, value in piece.takes] + [value for _, value, _ in piece.sends]
        self._add_levels(walk(values))
        return [value for value in values if value not in self.results]

    def _whole(self, outputs: Sequence[Node], level: int) -> ProgramPiece:
        """What can be had of own nodes after so many turns."""

        def is_taken(node: Node) -> bool:
            return node in self.together or (self.level[node] < level and not _is_anywhere(node))

        taken = self._border(outputs, is_taken)
        return self._piece(f"after_{level}", outputs, outputs, {n: self._load(n) for n in taken})

    def _of_parts(self, results: Sequence[Node]) -> ProgramPiece:
        """What one turn gives."""
        outputs = [n.inputs[0] if n.op == "collect" else n for n in results]
        # Rows that an earlier turn has fetched, to be kept for the backward pass.
        there = {n for n in self.results if n.domain is Domain.SOURCE and self._turn(n) < self._turn(results[0])}

        def is_taken(node: Node) -> bool:
            if node in there:
                return True
            of_all = not self.apart.get(node, False) and not _is_by_itself(node)
            return node not in results and (of_all or not _is_anywhere(node))

        swap = {n: self._load(n) for n in self._border(outputs, is_taken)}
        inside = [n for n in walk_below(outputs, lambda n: () if n in swap else n.inputs) if n not in swap]
        sends = self._sent(inside, results)
        swap |= {n: load for n, (load, *_) in sends.items()}
        found = self._piece(f"turn_{self._turn(results[0])}", outputs, results, swap)
        fetched = tuple(dict.fromkeys(sends.values()))
        takes = tuple((load, value) for load, value in found.takes if all(load is not other for other, *_ in fetched))
        return replace(found, takes=takes, sends=fetched, turns=True)

    def _border(self, outputs: Sequence[Node], is_taken: Callable[[Node], bool]) -> list[Node]:
        """The values nearest to outputs that other pieces give."""
        return [n for n in walk_below(outputs, lambda n: () if is_taken(n) else n.inputs) if is_taken(n)]

    def _load(self, node: Node, rows: Domain | None = None) -> Node:
        """What stands for a value of another piece; ``rows`` are those of its load."""
        key = (node, rows or node.domain)
        if node.op == "load" and rows is None:
            return node
        if key not in self.loads:
            role = "saved" if _is_statistic(node) else "input"
            self.loads[key] = build.load(f"between.{len(self.loads)}", replace(node.type, domain=key[1]), role)
        return self.loads[key]

    def _piece(
        self, name: str, outputs: Sequence[Node], gives: Sequence[Node], swap: Mapping[Node, Node]
    ) -> ProgramPiece:
        mapping = substitute(outputs, swap)
        made = tuple((f"{name}.{k}", mapping[n]) for k, n in enumerate(outputs))
        names = {mapping[n]: text for n, text in self.program.names.items() if n in mapping}
        program = Program(f"{self.program.name}_{name}", made, names)
        read = set(program.inputs)
        takes = tuple((load, value) for value, load in swap.items() if load in read and load is not value)
        return ProgramPiece(program, takes, tuple(gives))

    def _sent(self, inside: Sequence[Node], results: Sequence[Node]) -> dict[Node, tuple[Node, Node, str]]:
        """For each value of the rows that edges read which is fetched: its load, the value of own nodes, and the wire.

        Of what a turn reads, what costs least to send and to compute again: where it reads but a narrow value that is
        made of wide rows, the wide ones stay at home.
        """
        at_home: dict[Node, Node] = {}
        for node in inside:
            if node.op == "exchange":
                at_home[node] = node.inputs[0]
            elif self._follows(node, at_home):
                inputs = tuple(at_home.get(i, i) for i in node.inputs)
                rows = next(i.domain for i in inputs if i.domain is not Domain.GLOBAL)
                at_home[node] = make(node.op, inputs, replace(node.type, domain=rows), node.attrs)
        fetched = [n for n in at_home if n.op == "exchange"]
        if not fetched:
            return {}
        here = {*inside, *results}
        read = [n for n in at_home if n in results or any(u in here and u not in at_home for u in self.users[n])]
        follow = {home for node, home in at_home.items() if node.op != "exchange"}
        sent = least_cut([at_home[n] for n in read], follow.__contains__)
        if any(n in results for n in fetched):  # as it is, for the backward pass
            sent = frozenset(at_home[n] for n in fetched)
        wire = fetched[0].attrs.wire
        return {n: (self._load(h, Domain.SOURCE), h, wire) for n, h in at_home.items() if h in sent}

    def _follows(self, node: Node, at_home: Mapping[Node, Node]) -> bool:
        """Whether a value of the rows that edges read is made of rows that are fetched alone."""
        if node.domain is not Domain.SOURCE or not of(node).rowwise:
            return False
        return all(i in at_home or i.domain is Domain.GLOBAL for i in node.inputs) and any(
            i in at_home for i in node.inputs
        )


def best_of(node: Node) -> Node:
    """The maximum or minimum that a value tells the winners of."""
    return build.segment(node.inputs[0], node.attrs.end, node.attrs.reducer[-3:], node.domain)


def _is_statistic(node: Node) -> bool:
    """Whether a value lies between pieces as kernels compute it, where users have numbers of 16 bits, and numbers of
    edges as the graph has them: see :mod:`gdsl.codegen.storage`."""
    if node.kind is Kind.FLOAT:
        return node.op not in ("load", "contract")
    return node.op in ("segment", "graph_value")


def _is_anywhere(node: Node) -> bool:
    """Whether a value is computed where it is read: of edges, of the rows that they read, and what costs nothing."""
    return (node.domain in PARTS and not _is_kept(node)) or (of(node).leaf and node.op != "load")
