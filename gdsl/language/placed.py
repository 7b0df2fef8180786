"""Expressions of layers on several graphs: each value of edges is of one of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from gdsl.ir import build, library
from gdsl.ir.attributes import IRError
from gdsl.ir.node import Node, walk
from gdsl.ir.spaces import Spaces
from gdsl.ir.types import ELEMENTS, Domain
from gdsl.language import ast, format
from gdsl.language.errors import Mistake, did_you_mean
from gdsl.language.values import LayerResults, Value


class Placed:
    """What is known of the graphs of a layer, and of values that it is the same for wherever they are read."""

    def __init__(self) -> None:
        # The graphs that values are of; None in a layer on one.
        self.spaces: Spaces | None = None
        # The one whose edges the expression at hand speaks of.
        self.walked = ""
        # Whether anything is computed from edges, besides what layers do that are called; and of which graphs.
        self.reads_edges = False
        self.read_graphs: set[str] = set()
        # The dim that an integer value counts along, from its declared bound.
        self.counts: dict[Node, str] = {}
        # The first place of a dim that was declared as a range.
        self.origins: dict[tuple[Node, str], int] = {}

    @contextmanager
    def walking(self, graph: str, span: ast.Span) -> Iterator[None]:
        """What is read of edges within is of this graph; "" changes nothing."""
        known = () if self.spaces is None else tuple(self.spaces.graphs)
        if graph and not known:
            hint: str | None = "name them first: `graph bonds, near`"
            raise Mistake(f"`over {graph}` is for a layer on several graphs, and this has one", span, hint=hint)
        if graph and graph not in known:
            hint = did_you_mean(graph, known, f"there are {', '.join(known)}")
            raise Mistake(f"there is no graph `{graph}`", span, hint=hint)
        if graph and self.walked and graph != self.walked:
            raise Mistake(f"this is over `{graph}` within what is over `{self.walked}`", span)
        before, self.walked = self.walked, graph or self.walked
        try:
            yield
        finally:
            self.walked = before

    def note_edges(self, *values: Node) -> None:
        """Note that something is computed from edges: of the graph at hand, and of those that values are of."""
        self.reads_edges = True
        if self.spaces is None:
            return
        graphs = self.spaces.graphs
        on_edges = (x for x in values if x.domain in ELEMENTS and not self.spaces.is_loose(x))
        here = self.walked or (next(iter(graphs)) if len(graphs) == 1 else None)
        self.read_graphs.update(name for name in (here, *map(self.spaces.of, on_edges)) if name)

    def placed(self, value: Value, e: ast.Tree) -> Value:
        """A value, with what it reads of edges said to be of one graph, as far as that can be told."""
        if self.spaces is None:
            return value
        if isinstance(value, LayerResults):  # of which one may be of another graph than is spoken of
            return replace(value, values=tuple((name, self._of_a_graph(node, e)) for name, node in value.values))
        return self._placed(value, e) if isinstance(value, Node) else value

    def _placed(self, x: Node, e: ast.Tree) -> Node:
        assert self.spaces is not None
        x = self._of_a_graph(x, e)
        space = self.spaces.of(x)
        if self.walked and x.domain in ELEMENTS and space not in (None, self.walked):
            message = f"`{format.expression(e)}` is of edges of `{space}`, and this is over `{self.walked}`"
            raise Mistake(message, e.span)
        return x

    def _of_a_graph(self, x: Node, e: ast.Tree) -> Node:
        """A value, tied to the graph that is spoken of or that it has met, if any is."""
        spaces = self.spaces
        assert spaces is not None
        if not spaces.is_loose(x):
            return x
        found = [self.walked] if self.walked else spaces.met(x)
        if not found and len(spaces.graphs) == 1:
            found = list(spaces.graphs)
        if not found and x.domain not in ELEMENTS:
            raise self._which(e, x)
        return self.tied(x, found[0]) if found else x

    def graph_of_call(self, values: Sequence[Node]) -> str:
        """The graph that a layer runs on which is called with these values; "" where nobody says it."""
        if self.spaces is None or self.walked or len(self.spaces.graphs) == 1:
            return self.walked or ("" if self.spaces is None else next(iter(self.spaces.graphs)))
        found = (self.spaces.of(x) for x in values if x.domain in ELEMENTS and not self.spaces.is_loose(x))
        return next((name for name in found if name), "")

    def graph_that_has(self, values: Sequence[Node], e: ast.Tree) -> str:
        """The graph that an expression asks something of; "" in a layer on one. Raises a mistake if none is said."""
        graph = self.graph_of_call(values)
        if self.spaces is not None and not graph:
            raise self._which(e)
        return graph

    def tied(self, x: Node, graph: str) -> Node:
        """A value with all that is loose in it of this graph."""
        assert self.spaces is not None
        made = self.spaces.tied(x, graph)
        for old, new in made.items():
            if old in self.counts:
                self.counts.setdefault(new, self.counts[old])
            for dim in old.type.names:
                if (old, dim) in self.origins:
                    self.origins.setdefault((new, dim), self.origins[old, dim])
        return made[x]

    def tied_to(self, x: Node, edges: Node) -> Node:
        """What is made of values of edges, with all that is loose in it, such as their number, of their graph."""
        if self.spaces is None or not self.spaces.is_loose(x):
            return x
        graph = self.spaces.of(edges)
        return x if graph is None or edges.domain not in ELEMENTS else self.tied(x, graph)

    def _which(self, e: ast.Tree, x: Node | None = None) -> Mistake:
        assert self.spaces is not None
        names = list(self.spaces.graphs)
        message = f"this reads edges, and the layer has those of {', '.join(names)}"
        fits = names[0] if x is None else next((name for name in names if self._fits(x, name)), names[0])
        return Mistake(message, e.span, hint=f"say which: `{format.expression(e)} over {fits}`")

    def _fits(self, x: Node, graph: str) -> bool:
        """Whether a loose value may be of this graph, by the sets of nodes that it reads."""
        assert self.spaces is not None
        try:
            self.spaces.of(self.spaces.tied(x, graph)[x])
        except IRError:
            return False
        return True

    @staticmethod
    def reads_no_edges(x: Node) -> bool:
        """Whether no graph plays a part in a value. What is the same everywhere may stand for an edge input that was
        not passed, and then one does, unless it is an input or a parameter itself."""
        if x.domain is Domain.NODE:
            return not any(n.domain in ELEMENTS or n.op == "graph_value" for n in walk([x]))
        return x.domain is Domain.GLOBAL and x.op == "load"

    def only_end(self, x: Node, edges: Node | None) -> str | None:
        """The end of edges at which the nodes are that a value is of, if they are at one of the two only."""
        if self.spaces is None or not (of := self.spaces.of(x)):
            return None
        meant = (edges and self.spaces.of(edges)) or self.walked
        links = [self.spaces.graphs[meant]] if meant else self.spaces.graphs.values()
        ends = {end for link in links for end in "ij" if link.at(end) == of}
        return ends.pop() if len(ends) == 1 else None

    def with_space(self, x: Node, e: ast.Tree) -> Node:
        """A result, of one graph or set. Raises a mistake where nobody can tell of which."""
        if self.spaces is None:
            return x
        x = self._placed(x, e)
        if self.spaces.is_loose(x):
            raise self._which(e, x)
        if x.domain is Domain.NODE and any(g.source for g in self.spaces.graphs.values()) and self.spaces.of(x) is None:
            raise Mistake("this is the same for the nodes of all sets: there is no telling how many", e.span)
        return x

    def softmax_over_all(
        self, values: Sequence[Node], texts: Sequence[ast.Tree], end: str, rows: Domain, e: ast.Call
    ) -> LayerResults:
        """One softmax over the edges of several graphs at each node: the weights of the edges of each.

        As of one graph: e^(e - max) / sum, of the maximum of all maxima and the sum of all sums.
        """
        spaces = self.spaces
        assert spaces is not None
        graphs: list[str] = []
        for x, text in zip(values, texts, strict=True):
            name = spaces.of(x)
            if x.domain is not Domain.EDGE:
                raise Mistake(f"one softmax over several graphs is of edge values, and this is {x.type}", text.span)
            if name is None:
                raise self._which(text)
            if name in graphs:
                hint = "give one value for each graph"
                raise Mistake(f"edges of `{name}` come twice in one softmax", text.span, hint=hint)
            if set(x.dims) != set(values[0].dims):
                raise Mistake(f"one softmax of {values[0].type} and {x.type}: their dims are not the same", text.span)
            graphs.append(name)
        sets = [spaces.graphs[name].at(end) for name in graphs]
        if len(set(sets)) > 1:
            which = "end" if end == "i" else "begin"
            pairs = ", ".join(f"those of `{name}` at {at} nodes" for name, at in zip(graphs, sets, strict=True))
            raise Mistake(f"one softmax over edges that {which} at unlike nodes: {pairs}", e.span)
        top: Node | None = None
        for x, name in zip(values, graphs, strict=True):
            count = self.tied(library.segment_count(end, rows), name)
            own = build.stop_gradient(build.segment(x, end, "max", rows))  # its terms cancel
            own = library.where(count > 0.0, own, float("-inf"))
            top = own if top is None else library.op("maximum", top, own)
        assert top is not None
        top = library.softmax_top(top, True)
        tops = [self.tied(build.gather(top, end), name) for name in graphs]
        raised = [library.op("exp", x - most) for x, most in zip(values, tops, strict=True)]
        total: Node | None = None
        for one in raised:
            part = library.segment_sum(one, end, rows)
            total = part if total is None else total + part
        assert total is not None
        total = library.softmax_total(total, True)
        weights = [
            one / self.tied(build.gather(total, end), name) for one, name in zip(raised, graphs, strict=True)
        ]
        return LayerResults("softmax", tuple(zip(graphs, weights, strict=True)))
