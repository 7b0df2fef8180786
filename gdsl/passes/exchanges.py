"""Communication of a distributed graph: where a program reads what other processes have, and which value is sent.

A process has the rows of its own nodes, and the edges into them. What an edge reads at its source may lie elsewhere:
of all values between what the program is given and what its edges read, those are exchanged whose rows cost least to
send and to compute again at the halo. What is summed up at sources goes back to the owners of these as partial sums,
and sums over all rows are added up over the processes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

from gdsl.errors import GraphError
from gdsl.ir import build
from gdsl.ir.library import segment_count
from gdsl.ir.node import Node, make, walk, walk_below
from gdsl.ir.ops import end_of, of
from gdsl.ir.ops.text import expression
from gdsl.ir.program import Program
from gdsl.ir.types import Domain, Kind
from gdsl.passes.cost import Numbers

# A number that is sent takes the time of so many operations: 4 bytes over a link of 10 to 100 Gbit a second.
SENT = 256

FEW = float("inf")


def exchanged(program: Program, wire: str = "exact") -> Program:
    """The program for one process of a distributed graph: ``node`` values are those of its own nodes.

    wire: as what floats go to other processes; partial results always go as they are, but for gradients

    Raises ``GraphError`` for what reads other processes' nodes or edges in a way that no exchange gives.
    """
    order = list(walk(program.nodes))
    for node in order:
        _check(node, program)
    local = _Local(cut(order), wire)
    mapping = {node: local.home(node) for node in order}
    return program.mapped(mapping)


def _check(node: Node, program: Program) -> None:
    why = _why_not(node)
    if why:
        raise GraphError(
            f"{program.name}: `{expression(node, program.names)}` {why}, and is not distributed; "
            "run this layer on the whole graph, in one process"
        )


def _why_not(node: Node) -> str:
    """Why a process cannot compute a value together with the others; empty where it can."""
    if node.op == "graph_value" and node.attrs.what == "node_id":
        return "asks for the numbers of nodes"
    if _is_at_first_edges(node):
        return "" if _is_partial(node) and len(node.inputs) == 1 and node.attrs.reducer == "sum" else (
            "aggregates, and does not only add up, at the first edges of pairs"
        )
    if of(node).aggregates and end_of(node) == "j" and not _is_partial(node):
        return "aggregates at the sources of edges"
    if of(node).aggregates and end_of(node) == "g" and not _is_partial(node):
        return "aggregates all nodes of a graph"
    if node.op == "call" and node.attrs.kind == "aggregate" and end_of(node) != "i":
        return "aggregates by a module, and not at the targets of edges,"
    summed = node.domain is Domain.GLOBAL and any(i.domain is not Domain.GLOBAL for i in node.inputs)
    return "reduces all rows" if summed and not _is_total(node) else ""


def _is_at_first_edges(node: Node) -> bool:
    """Whether pairs of edges are aggregated for each edge that they begin with."""
    return of(node).aggregates and end_of(node) == "j" and node.inputs[0].domain is Domain.PAIR


def _is_partial(node: Node) -> bool:
    """Whether an aggregation is one of those of its parts."""
    reducers = ("sum", "max", "min", "mul") if len(node.inputs) == 1 else ("sum",)
    return node.op == "segment" and node.attrs.reducer in reducers


def _is_total(node: Node) -> bool:
    """Whether a value is a sum over all rows."""
    return node.op == "scatter" or (node.op == "contract" and node.attrs.total)


# ------------------------------------------------------------------------------------------ program


class _Local:
    """The values of a program as one process has them, of its own nodes and of those that its edges read."""

    def __init__(self, sent: frozenset[Node], wire: str):
        self.sent, self.wire = sent, wire
        self._home: dict[Node, Node] = {}
        self._read: dict[Node, Node] = {}

    def home(self, node: Node) -> Node:
        """The value on own nodes, or own edges. Operands first."""
        found = self._home.get(node)
        if found is None:
            found = self._home[node] = self._at_home(node)
        return found

    def _at_home(self, node: Node) -> Node:
        if node.op == "gather" and node.domain is Domain.PAIR and node.attrs.end == "j":
            if node.inputs[0] is build.element_id("i"):
                return node  # it tells the pairs of an edge apart, and that of another process is a number there
            return build.exchange_pairs(self.home(node.inputs[0]))
        if node.op == "reverse":
            return build.exchange_reverse(self.home(node.inputs[0]), node.attrs.default)
        if node.op == "gather" and node.attrs.end == "j":
            return build.gather(self.read(node.inputs[0]), "j")
        own = _own(node.domain)
        if node.op == "graph_value" and node.attrs.what == "out_degree" and node.domain is not Domain.EDGE:
            return build.collect(build.graph_value("out_degree", Domain.SOURCE), "sum", own)
        if node.op == "graph_value" and node.attrs.what == "out_degree" and node.domain is Domain.EDGE:
            return build.collect_pairs(build.spread(build.const(1.0), Domain.PAIR))
        inputs = tuple(map(self.home, node.inputs))
        if _is_at_first_edges(node):
            return build.collect_pairs(*inputs)
        if of(node).aggregates and end_of(node) in ("j", "g"):
            return _collected(node, inputs)
        made = _with_rows(node, inputs, own)
        if node.domain is Domain.GLOBAL and _is_total(node) and any(i.domain is not Domain.GLOBAL for i in inputs):
            return build.all_reduce(made, "sum")
        return made

    def read(self, node: Node) -> Node:
        """The value on all nodes that own edges read."""
        for below in walk_below([node], self._computed_there):
            if below not in self._read:
                self._read[below] = self._at_sources(below)
        return self._read[node]

    def _computed_there(self, node: Node) -> Sequence[Node]:
        return () if node in self.sent or node in self._read or not _has_rows(node) else node.inputs

    def _at_sources(self, node: Node) -> Node:
        if not _has_rows(node):
            return self.home(node)
        if node not in self.sent:
            return _with_rows(node, tuple(self._read[i] for i in node.inputs), Domain.SOURCE)
        return build.exchange(self.home(node), self.wire)


def _with_rows(node: Node, inputs: tuple[Node, ...], rows: Domain) -> Node:
    """The same operation on other rows. What it draws is that of the rows of one process with all of them."""
    drawn = node.op == "random" and rows in (Domain.NODE, Domain.SOURCE, Domain.OWN, Domain.TARGET, Domain.EDGE)
    ids = (build.row_ids(rows),) if drawn else ()
    return make(node.op, inputs + ids, replace(node.type, domain=rows), node.attrs)


def _has_rows(node: Node) -> bool:
    return node.domain in (Domain.NODE, Domain.SOURCE)


def _own(domain: Domain) -> Domain:
    """The rows that a process owns, of all that there are."""
    return Domain.OWN if domain is Domain.SOURCE else domain


def _collected(node: Node, inputs: Sequence[Node]) -> Node:
    """What the processes together aggregate at the sources of edges, or over the nodes of each graph."""
    reducer, end = node.attrs.reducer, node.attrs.end
    rows = Domain.GRAPH if end == "g" else Domain.SOURCE

    def together(x: Node, reducer: str, count: Node | None = None) -> Node:
        if end == "g":
            return build.all_reduce(x, reducer, count)
        return build.collect(x, reducer, _own(node.domain), count)

    by = (inputs[1], node.dims[0]) if len(inputs) == 2 else ()
    partial = build.segment(inputs[0], end, reducer, rows, *by)
    if reducer in ("sum", "mul"):
        return together(partial, reducer)
    members = segment_count(end, rows)
    winners = build.to_float(build.segment(inputs[0], end, f"count{reducer}", rows))
    # Where a process has no member: what is no larger, or smaller, than any number.
    own = _where_none(members, float("-inf") if reducer == "max" else float("inf"), partial)
    best = together(own, reducer, build.transpose(winners, partial.type.names))
    return _where_none(together(members, "sum"), 0.0, best)


def _where_none(count: Node, value: float, best: Node) -> Node:
    """The value where there is no member, and the best of them elsewhere."""
    found = build.elementwise("where", build.elementwise("eq", count, 0.0), value, best)
    return build.transpose(found, best.type.names)


# ------------------------------------------------------------------------------------------ placement


_ONE_ROW = Numbers({})


def can_follow(node: Node) -> bool:
    """Whether a row of a value is made of that row of its operands alone, wherever these lie."""
    return of(node).rowwise or node.op in ("stop_gradient", "spread", "random")


def _to_send(node: Node) -> float:
    """What a row of a value costs to send."""
    return SENT * max(node.type.numel, 0) * (0.25 if node.kind is Kind.BOOL else 1.0) + 1.0


def _to_compute(node: Node) -> float:
    """What a row of a value costs to compute."""
    return float(of(node).work(node, _ONE_ROW) * of(node).cost)


def cut(order: Sequence[Node]) -> frozenset[Node]:
    """The node values that are sent to the processes whose edges read them, so that all that edges read can be made of
    them there, at the least cost of sending and of computing again: a minimum cut.

    Of each value v there are two points, ``(v, 0)`` and ``(v, 1)``. Through the first come its operands, and between
    them lies what it costs to send. What stays on the far side of the cut is computed there.
    """
    read = [n.inputs[0] for n in order if n.op == "gather" and n.attrs.end == "j" and _has_rows(n.inputs[0])]
    return least_cut(read, can_follow)


def least_cut(read: Iterable[Node], follows: Callable[[Node], bool]) -> frozenset[Node]:
    """Of values, or of what they are made of, those that cost least to send for all of them to be had.

    follows: whether a value may be made of its operands where it is read
    """
    read = set(read)
    if not read:
        return frozenset()

    def inner(node: Node) -> list[Node]:
        return [i for i in node.inputs if i.domain is not Domain.GLOBAL] if follows(node) else []

    flow = _Flow()
    for node in walk_below(read, inner):
        flow.edge((node, 0), (node, 1), _to_send(node))
        flow.edge("home", (node, 0), _to_compute(node) if follows(node) else FEW)
        for operand in inner(node):
            flow.edge((operand, 1), (node, 0), FEW)
        if node in read:
            flow.edge((node, 1), "there", FEW)
    there = flow.far_side("home", "there")
    found = {n for n in flow.nodes if (n, 1) in there and (n, 0) not in there}
    return frozenset(found)


_Point = str | tuple[Node, int]


class _Flow:
    """A network whose least cut is looked for, by augmenting paths with fewest edges."""

    def __init__(self) -> None:
        self.room: dict[_Point, dict[_Point, float]] = {"home": {}, "there": {}}

    @property
    def nodes(self) -> Iterator[Node]:
        return (point[0] for point in self.room if not isinstance(point, str) and point[1] == 0)

    def edge(self, start: _Point, end: _Point, room: float) -> None:
        self.room.setdefault(start, {})[end] = room
        self.room.setdefault(end, {}).setdefault(start, 0.0)

    def far_side(self, source: _Point, sink: _Point) -> set[_Point]:
        """The points on the sink's side of the least cut that is nearest to it."""
        while (path := self._path(source, sink)) is not None:
            steps = list(pairwise(path))
            least = min(self.room[a][b] for a, b in steps)
            for a, b in steps:
                self.room[a][b] -= least
                self.room[b][a] += least
        back: dict[_Point, list[_Point]] = {}
        for a, ends in self.room.items():
            for b, room in ends.items():
                if room > 0.0:
                    back.setdefault(b, []).append(a)
        return set(walk_below([sink], lambda point: back.get(point, ())))

    def _path(self, source: _Point, sink: _Point) -> list[_Point] | None:
        came: dict[_Point, _Point] = {source: source}
        queue = deque([source])
        while queue:
            point = queue.popleft()
            if point == sink:
                found = [sink]
                while found[-1] != source:
                    found.append(came[found[-1]])
                return found[::-1]
            for end, room in self.room[point].items():
                if room > 0.0 and end not in came:
                    came[end] = point
                    queue.append(end)
        return None
