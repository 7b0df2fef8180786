"""The statements of layers on several graphs: ``nodes paper, author`` and ``graph writes: author -> paper``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gdsl.ir.node import walk
from gdsl.ir.spaces import NamedGraph, Spaces
from gdsl.ir.types import Domain
from gdsl.language import ast
from gdsl.language.elaboration import Elaboration
from gdsl.language.errors import Diagnostic, Mistake, closest, did_you_mean
from gdsl.language.program import GraphTransform


def spaces_of(layer: ast.Layer) -> Spaces | None:
    """Which graphs and sets the inputs of a layer are of, from its text alone; None for a layer on one graph."""
    links = [link for s in layer.body if isinstance(s, ast.Graphs) for link in s.links]
    if not links:
        return None
    ends = {link.name: [end.id for end in (link.source, link.target) if end is not None] for link in links}
    sets = [name.id for s in layer.body if isinstance(s, ast.Sets) for name in s.names]
    only = {"edge": links[0].name, "node": next(iter(sets), "")}
    inputs = [s for s in ast.walk(layer) if isinstance(s, ast.Declaration) and s.role in only]
    return Spaces(
        {name: NamedGraph(name, *joined) for name, joined in ends.items()},
        {s.name: s.within or only[s.role] for s in inputs},
    )


class NamesGraphs(Elaboration):
    """What names graphs and sets of nodes, and says which of them inputs are of."""

    def _sets(self, s: ast.Sets) -> None:
        self._first(s, "`nodes`")
        if self.graphs:
            self.note(Diagnostic("sets of nodes stand before the graphs that join them", s.span))
        for name in s.names:
            self.sets[name.id] = name.span

    def _graphs(self, s: ast.Graphs) -> None:
        self._first(s, "graphs")
        sets = dict(self.sets)
        for link in s.links:
            ends = [self._end(name, sets) for name in (link.source, link.target) if name is not None]
            if sets and not ends:
                some = next(iter(sets))
                hint = f"as in graph {link.name}: {some} -> {some}"
                message = f"`{link.name}` goes from nodes of a set to nodes of a set: say which"
                self.note(Diagnostic(message, link.span, hint=hint))
                ends = [some, some]
            self.graphs[link.name] = NamedGraph(link.name, *ends)
        self.forms.spaces = Spaces(self.graphs, self.spaces)

    def _end(self, name: ast.Name, sets: Mapping[str, ast.Span]) -> str:
        """The set of nodes at an end of a graph; one that there is not is noted, and what it would be is meant by what
        follows."""
        if name.id in self.sets:
            return name.id
        known = f"there are {', '.join(sets)}" if sets else f"write `nodes {name.id}` above"
        message, hint = f"there is no set of nodes `{name.id}`", did_you_mean(name.id, sets, known)
        self.note(Diagnostic(message, name.span, hint=hint))
        found = closest(name.id, sets) or name.id
        self.sets.setdefault(found, name.span)
        return found

    def _first(self, s: ast.Statement, what: str) -> None:
        """Raise a mistake where a layer has no graphs and sets of its own, and note one where these stand too late."""
        if self.given is not None:
            raise Mistake(f"a layer on several graphs is not called by another: `{self.layer.name}` is one", s.span)
        if self.loop_values:
            raise Mistake(f"{what} stand outside loops", s.span)
        if self.rules or any(d.role == "input" for d in self.declarations) or self.transforms:
            self.note(Diagnostic(f"{what} stand before inputs and rules", s.span))

    def check_within(self, s: ast.Declaration) -> None:
        """Raise a mistake where an input is of a graph or set that there is not, or does not say of which."""
        hint: str | None
        if s.role in ("source", "target") and self.graphs:
            hint = "declare sets of nodes, `nodes paper, author`, and `node x[d] in paper`"
            raise Mistake(f"`{s.role}` is for a layer on one graph, and this has several", s.span, hint=hint)
        known = self._known(s.role)
        what = "graph" if s.role == "edge" else "set of nodes"
        if s.within and s.within not in known:
            hint = did_you_mean(s.within, known, f"there are {', '.join(known)}" if known else None)
            raise Mistake(f"there is no {what} `{s.within}`", s.within_span, hint=hint)
        if len(known) > 1 and not s.within:
            hint = f"as in {s.role} {s.name} in {known[0]}"
            raise Mistake(f"`{s.name}` is of a {what}: say of which", s.name_span, hint=hint)
        if self.within(s):
            self.spaces[s.name] = self.within(s)

    def within(self, s: ast.Declaration) -> str:
        """The graph or set that an input is of; "" where there is but one."""
        return s.within or next(iter(self._known(s.role)), "")

    def _known(self, role: str) -> list[str]:
        """The graphs that an input of this role may be of, or the sets."""
        return list(self.graphs) if role == "edge" else list(self.sets) if role == "node" else []

    def _only_within_sets(self) -> None:
        """Note what reads an edge at an end of another, or the other way, where edges join unlike sets."""
        spaces, span = self.forms.spaces, self.forms.one_set
        if spaces is None or span is None:
            return
        for node in walk([*(rule.node for rule in self.rules), *(node for _, node in self.results or ())]):
            pairs = Domain.PAIR in (node.domain, *(i.domain for i in node.inputs))
            counted = node.domain is Domain.EDGE and [i.op for i in node.inputs] == ["graph_value"]  # of pairs
            if not (node.op == "reverse" or pairs or counted):
                continue
            graph = self.graphs.get(spaces.of(node) or "")
            if graph is not None and graph.source != graph.target:
                message = f"the edges of `{graph.name}` go from {graph.source} to {graph.target} nodes"
                self.note(Diagnostic(f"{message}: none has a reverse, and none begins where another ends", span))

    def finish_graphs(self, transforms: Sequence[GraphTransform]) -> None:
        """Note what a layer on several graphs lacks, or asks of them that is asked of one graph only."""
        if self.mistakes:
            return
        if not self.graphs:
            for name, span in self.sets.items():
                self.note(Diagnostic(f"no graph joins the nodes of `{name}`", span, hint=f"graph g: {name} -> {name}"))
            return
        for t in transforms:
            graph = self.graphs[t.graph]
            if graph.source != graph.target:
                message = f"the edges of `{t.graph}` go from {graph.source} to {graph.target} nodes"
                message += f", and `graph {t.name}` is for one set of them"
                self.note(Diagnostic(message, t.span))
        self._only_within_sets()
        inputs = [d for d in self.declarations if d.role == "input" and not d.optional and d.type is not None]
        counted = {d.within for d in inputs if d.type is not None and d.type.domain is Domain.NODE}
        for name, span in (self.sets or {"": self.layer.span}).items():
            if name not in counted:
                message = f"no input says how many {name} nodes there are".replace("  ", " ")
                self.note(Diagnostic(message, span, hint=f"declare one: node x[d] in {name}" if name else None))
        pooled = next((s for s in self.rules if s.kind == "pool"), None)
        if len(self.sets) > 1 and self.signature.batched:
            span = self.layer.span if pooled is None else pooled.span
            hint = "pool the results of each set after the call, as gdsl.nn.global_mean_pool(y, batch) does"
            self.note(Diagnostic("values of whole graphs are for layers with one set of nodes", span, hint=hint))
