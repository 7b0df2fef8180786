"""Which graph each value of edges is of, and which set of nodes each value of nodes, in a program on several graphs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gdsl.ir.attributes import IRError
from gdsl.ir.node import Node, make, walk_below
from gdsl.ir.ops.leaves import Random
from gdsl.ir.ops.over import is_of_set, over
from gdsl.ir.types import ELEMENTS, Domain

# As many calls of dropout as no text has.
_SALTS = 2**20
_DEGREES = {"in_degree": "i", "out_degree": "j"}


@dataclass(frozen=True, slots=True)
class NamedGraph:
    """A graph by its name in a program, and the sets of nodes that its edges go from and to; "" where there is one."""

    name: str
    source: str = ""
    target: str = ""

    def at(self, end: str) -> str:
        """The set of the nodes at an end of its edges."""
        return self.source if end == "j" else self.target


class Spaces:
    """Of the values of a program: each value of edges or pairs has the graph that it is of, each of nodes its set.

    graphs: by their names
    loads:  for each input the name of its graph or set; ``param`` and others that are of none are not in it

    A value that is read along edges without a word of which is *loose*: it is of whichever graph it comes to be used
    with. :meth:`tied` says which.
    """

    def __init__(self, graphs: Mapping[str, NamedGraph], loads: Mapping[str, str]):
        self.graphs, self.loads = graphs, loads
        self._of: dict[Node, str | None] = {}
        self._loose: dict[Node, bool] = {}

    def of(self, x: Node) -> str | None:
        """The graph of a value of edges, the set of one of nodes; None of what is the same for all, or not said yet.

        Raises :class:`IRError` where values of unlike edges or nodes are taken together.
        """
        for node in walk_below([x], lambda n: () if n in self._of else n.inputs):
            if node not in self._of:
                self._of[node] = self._found(node)
        return self._of[x]

    def shown(self, x: Node) -> str:
        """The type of a value, and the graph or set that it is of: ``edge[d] over bonds``, ``node[d] in paper``."""
        try:
            space = self.of(x)
        except IRError:
            space = None
        return str(x.type) if not space else f"{x.type} {'over' if x.domain in ELEMENTS else 'in'} {space}"

    def _found(self, x: Node) -> str | None:
        if x.op == "load":
            return self.loads.get(x.attrs.name)
        if x.op == "over":
            return self._said(x)
        if x.domain in ELEMENTS:
            return self._one([i for i in x.inputs if i.domain in ELEMENTS], "edges of")
        if x.domain is not Domain.NODE:
            return None
        edges = [i for i in x.inputs if i.domain in ELEMENTS]
        if edges:
            graph = self._one(edges, "edges of")
            found = None if graph is None else self.graphs[graph].at(x.attrs.end)
        else:
            found = self._one([i for i in x.inputs if i.domain is Domain.NODE], "nodes of")
        return self._only_set() if found is None else found

    def _only_set(self) -> str | None:
        """The set of all nodes where there is but one: also of what is the same for all of them."""
        sets = {end for g in self.graphs.values() for end in (g.source, g.target)}
        sets |= set(self.loads.values()) - self.graphs.keys()
        return sets.pop() if len(sets) == 1 else None

    def _said(self, x: Node) -> str:
        if is_of_set(x):
            return str(x.attrs.graph)
        graph, inner = self.graphs[x.attrs.graph], x.inputs[0]
        if inner.op == "graph_value" and inner.domain is Domain.NODE:
            return graph.at(_DEGREES[inner.attrs.what])
        if inner.op == "gather" and inner.inputs[0].domain is Domain.NODE:
            end, known = inner.attrs.end, self.of(inner.inputs[0])
            if known is not None and known != graph.at(end):
                role = "begin" if end == "j" else "end"
                other = "i" if end == "j" else "j"
                hint = f"they go from {graph.source} to {graph.target}"
                hint += f": did you mean [{other}]?" if graph.at(other) == known else ""
                raise IRError(f"[{end}] reads {known} nodes, and no edges of `{graph.name}` {role} at these", hint)
        return graph.name

    def _one(self, values: list[Node], what: str) -> str | None:
        found = list(dict.fromkeys(name for name in map(self.of, values) if name is not None))
        if len(found) > 1:
            hint = "reduce them to nodes first, each over its own graph" if what == "edges of" else None
            raise IRError(f"{what} `{found[0]}` and {what} `{found[1]}` do not mix", hint)
        return found[0] if found else None

    # ------------------------------------------------------------------------------------ loose values

    def is_loose(self, x: Node) -> bool:
        """Whether a value depends on edges of a graph that nobody has named."""
        for node in walk_below([x], lambda n: () if n in self._loose else n.inputs):
            if node not in self._loose:
                inner = node.op != "over" and any(self._loose[i] for i in node.inputs)
                self._loose[node] = inner or _reads_graph(node)
        return self._loose[x]

    def met(self, x: Node) -> list[str]:
        """The graphs whose values a loose value has been taken together with."""
        found: dict[str, None] = {}
        for node in walk_below([x], lambda n: n.inputs if self.is_loose(n) else ()):
            if node.domain in ELEMENTS and not self.is_loose(node) and (name := self.of(node)) is not None:
                found[name] = None
        return list(found)

    def tied(self, x: Node, graph: str) -> dict[Node, Node]:
        """A value with all that is loose in it of one graph: for each node below it, what takes its place."""
        made: dict[Node, Node] = {}
        for node in walk_below([x], lambda n: n.inputs if self.is_loose(n) else ()):
            if not self.is_loose(node):
                made[node] = node
                continue
            attrs = node.attrs
            if node.op == "random" and node.domain in ELEMENTS:  # other numbers for the edges of each graph
                attrs = Random(attrs.salt + list(self.graphs).index(graph) * _SALTS)
            new = make(node.op, [made[i] for i in node.inputs], node.type, attrs)
            made[node] = over(new, graph) if _reads_graph(node) else new
        return made


def _reads_graph(x: Node) -> bool:
    """Whether a value is of edges, or of how many of them there are, and made of nothing that says of which."""
    if x.op in ("load", "over"):
        return False
    if x.domain in ELEMENTS:
        return not any(i.domain in ELEMENTS for i in x.inputs)
    return x.op == "graph_value" and x.attrs.what in _DEGREES
