"""``graph`` statements: what the graph must be."""

from __future__ import annotations

from collections.abc import Sequence

from gdsl.ir import build, library
from gdsl.ir.complete import why_not
from gdsl.ir.node import Node
from gdsl.ir.spaces import NamedGraph, Spaces
from gdsl.ir.types import ELEMENTS, Domain
from gdsl.language import ast
from gdsl.language.elaboration import Elaboration
from gdsl.language.errors import Diagnostic, Mistake, did_you_mean
from gdsl.language.program import MAKERS, Constant, GraphTransform
from gdsl.language.values import is_constant, is_number

# What the graph can be asked to be: the least and greatest number of arguments, and the keywords besides the
# names of edge inputs. `symmetric_norm` asks nothing: it is arithmetic on degrees.
TRANSFORMS: dict[str, tuple[int, int, tuple[str, ...]]] = {
    "add_self_loops": (0, 0, ()),
    "add_remaining_self_loops": (0, 0, ()),
    "remove_self_loops": (0, 0, ()),
    "non_backtracking": (0, 0, ()),
    "knn": (2, 2, ("loop",)),
    "complete": (0, 0, ("loops",)),
    "symmetric_norm": (0, 1, ()),
}
FILLS = ("sum", "add", "mean", "max", "min", "mul")


class Transforms(Elaboration):
    """The statements about the graph."""

    def _transform(self, s: ast.Transform) -> None:
        if s.name not in TRANSFORMS:
            declare = f"declare a value of each graph as `graph {s.name}[dim]` or `graph {s.name}: float`"
            if self.sets:
                some = next(iter(self.sets))
                declare = f"a graph between sets is `graph {s.name}: {some} -> {some}`"
                # What `over` says of it further down is no mistake.
                self.graphs[s.name] = NamedGraph(s.name, some, some)
                self.forms.spaces = Spaces(self.graphs, self.spaces)
            hint = did_you_mean(s.name, TRANSFORMS, f"there are {', '.join(TRANSFORMS)}; {declare}")
            raise Mistake(f"unknown graph transform `{s.name}`", s.name_span, hint=hint)
        if self.loop_values:
            raise Mistake("a graph transform stands outside loops", s.span)
        graph = self._graph_of(s)
        least, greatest, extra = TRANSFORMS[s.name]
        positional = [a for a in s.arguments if not isinstance(a, ast.Named | ast.Arrow)]
        if not least <= len(positional) <= greatest:
            many = str(least) if least == greatest else f"{least} to {greatest}"
            raise Mistake(f"`{s.name}` takes {many} arguments, not {len(positional)}", s.span)
        if s.name == "symmetric_norm":
            with self.forms.walking(graph, s.over_span):
                self._symmetric_norm(s, positional)
            return
        if s.name == "non_backtracking":
            self.forms.one_set = self.forms.one_set or s.span
        self._before_edge_values(s, graph)
        self._complete_alone(s)
        keywords = [self._keyword(a, s.name, extra, graph) for a in s.arguments if isinstance(a, ast.Named)]
        values = [self._transform_argument(a, s.name) for a in positional]
        self.transforms.append(GraphTransform(s.name, tuple(values), tuple(keywords), s.span, graph))

    def _graph_of(self, s: ast.Transform) -> str:
        """The name of the graph that a statement is about; "" in a layer on one."""
        with self.forms.walking(s.over, s.over_span):  # which knows the names
            pass
        if not self.graphs:
            return ""
        if s.name in MAKERS:
            message = f"`graph {s.name}` is for a layer on one graph, and this has several, which a call gives"
            raise Mistake(message, s.span)
        if not s.over and len(self.graphs) > 1:
            hint = f"as in graph {s.name} over {next(iter(self.graphs))}"
            message = f"`graph {s.name}` is about one graph, and this layer has several: say which"
            raise Mistake(message, s.span, hint=hint)
        return s.over or next(iter(self.graphs))

    def _before_edge_values(self, s: ast.Transform, graph: str) -> None:
        """All of a layer runs on the graph that a transform makes: what stands before it cannot mean another one."""

        spaces = self.forms.spaces

        def reads(n: Node) -> bool:
            if spaces is None:
                return n.domain in ELEMENTS or n.op == "graph_value"
            return (n.op == "over" and n.attrs.graph == graph) or (n.domain in ELEMENTS and spaces.of(n) == graph)

        alike = f"all that is over `{graph}` is on one graph" if graph else "all of a layer runs on one graph"
        for name, value, span in self.made:
            loose = spaces is not None and spaces.is_loose(value)
            if loose or any(map(reads, self.computed_here([value]))):
                raise Mistake(
                    f"`graph {s.name}` stands behind `{name}`, which is computed from the edges that it makes",
                    s.span,
                    hint=f"move it up, before line {span.line}: {alike}",
                )

    def _complete_alone(self, s: ast.Transform) -> None:
        """A complete graph has all edges: nothing is added to it or left out, but as ``loops`` says."""
        other = next((t.name for t in self.transforms if "complete" in (s.name, t.name)), None)
        if other is not None:
            message = f"the graph is complete, and `graph {s.name if other == 'complete' else other}` would change it"
            raise Mistake(message, s.span, hint="`graph complete(loops = false)` is the one without loops")

    def nothing_on_pairs(self, transforms: Sequence[GraphTransform]) -> None:
        """Note what of a layer on a complete graph would have to be stored for each pair of nodes."""
        span = next((t.span for t in (*transforms, *self.transforms) if t.name == "complete"), None)
        if span is None:
            return
        if self.forms.bipartite:
            hint = "declare `node`, and not `source` or `target`"
            self.note(Diagnostic("a complete graph joins the nodes of one set", span, hint=hint))
        for d in self.declarations:
            if d.role == "input" and d.type is not None and d.type.domain is Domain.EDGE:
                hint = "compute it of node values, or write a layer without `graph complete`"
                message = f"`{d.name}` would be a number for each pair of nodes, and nothing is stored for these"
                self.note(Diagnostic(message, self.declared[d.name], hint=hint))
        if self.mistakes or self.results is None:
            return
        why = why_not([node for _, node in self.results], self.forms.unseen)
        if why is not None:
            self.note(Diagnostic(f"nothing of a complete graph is stored for each pair of nodes: {why}", span))

    def _transform_argument(self, e: ast.Tree, name: str) -> Constant | Node:
        value = self.forms.value(e)
        if isinstance(value, Node):
            if value.domain in (Domain.EDGE, Domain.GLOBAL, Domain.GRAPH):
                raise Mistake(f"`{name}` needs a node value, not {value.type}", e.span)
            return value
        if not is_constant(value):
            raise self.forms.unusable(value, e)
        return value  # type: ignore[return-value]

    def _keyword(self, a: ast.Named, name: str, extra: tuple[str, ...], graph: str) -> tuple[str, Constant]:
        edges = [i.name for i in self.signature.inputs if i.domain == "edge" and i.within in ("", graph)]
        allowed = [*extra, *(edges if "self_loops" in name else [])]
        if a.name not in allowed:
            hint = did_you_mean(a.name, allowed, "name an edge input, and what it is on a new self-loop")
            raise Mistake(f"`{name}` has no argument `{a.name}`", a.span, hint=hint)
        value = self.forms.value(a.value)
        if a.name not in extra and not is_number(value) and value not in FILLS:
            raise Mistake(
                f"a new self-loop needs a number, or the name of a reducer, for `{a.name}`",
                a.value.span,
                hint=f'the reducers are {", ".join(FILLS)}, as in {a.name} = "mean"',
            )
        if name == "complete" and not isinstance(value, bool):
            raise Mistake("`loops` of a complete graph is true or false", a.value.span)
        assert is_constant(value)
        return a.name, value  # type: ignore[return-value]

    def _symmetric_norm(self, s: ast.Transform, arguments: Sequence[ast.Tree]) -> None:
        """With an edge weight: that weight is normalised. Without: the name `norm`."""
        if self.forms.bipartite:
            raise Mistake("symmetric_norm needs the same nodes at both ends", s.span)
        if not arguments:
            self._normalised("norm", library.symmetric_norm(None), s)
            return
        (e,) = arguments
        w = self.forms.node(e)
        if not isinstance(e, ast.Name):
            raise Mistake("symmetric_norm takes the name of an edge weight", e.span)
        if w.domain not in (Domain.EDGE, Domain.GLOBAL):
            raise Mistake(f"symmetric_norm takes an edge weight, and `{e.id}` is {w.type}", e.span)
        self._normalised(e.id, library.symmetric_norm(build.to_float(w)), s)

    def _normalised(self, name: str, norm: Node, s: ast.Transform) -> None:
        norm = self.forms.with_space(norm, ast.Name(name, span=s.span))
        self.forms.note_edges(norm)
        self.bring(name, norm, s.span)
        self.call_it(norm, name)
        self.made.append((name, norm, s.span))
