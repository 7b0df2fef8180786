"""What layers that are called ask of a graph: all that is over one runs on the same, so they must agree."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from gdsl.ir.node import Node
from gdsl.ir.ops.leaves import is_const
from gdsl.language import ast, format
from gdsl.language.elaboration import Elaboration, Passed, Wish
from gdsl.language.errors import Diagnostic, Mistake
from gdsl.language.program import Constant, GraphTransform
from gdsl.language.signature import Signature
from gdsl.language.values import is_number

# Both make the same edges, with one loop at each node; they differ in what an edge input is on a loop.
_LOOPS = ("add_self_loops", "add_remaining_self_loops")


class Wishes(Elaboration):
    """What the calls of a layer ask of the graph, and what comes of it."""

    def _signature(self, layer: ast.Layer) -> Signature:
        raise NotImplementedError

    def _for_inputs(
        self, t: GraphTransform, layer: ast.Layer, inputs: Mapping[str, Passed], span: ast.Span
    ) -> GraphTransform:
        """A transform that a layer asks for, with the names that the inputs of edges have in this one."""
        own = any(o.name in _LOOPS for o in self.transforms if o.graph == t.graph)
        remaining = t.name == "add_remaining_self_loops"
        if t.name not in _LOOPS or (own and remaining):  # all loops are there, with their values
            return replace(t, keywords=(), span=span)
        said, keywords = dict(t.keywords), []
        for name, given in inputs.items():
            value = _laid_out(given.value)
            declared = next((i for i in self._signature(layer).inputs if i.name == name and i.domain == "edge"), None)
            if declared is None:
                continue
            fill = said.get(name, declared.default)
            if _is_number(value, fill):
                continue
            if value.op == "load" and value.attrs.role == "input":
                keywords += [] if fill is None else [(value.attrs.name, fill)]
                continue
            text = format.expression(given.text)
            hint = f"pass an input of edges as `{name}`"
            hint += ", or have this layer add the loops itself: `graph add_self_loops`" if remaining else ""
            message = f"{layer.name} adds self-loops, and `{text}` says nothing of `{name}` on them"
            raise Mistake(message, span, hint=hint)
        return replace(t, keywords=tuple(keywords), span=span)

    def _which_graph(self, t: GraphTransform, e: ast.Call) -> Mistake:
        names = list(self.graphs)
        message = f"`{e.function}` asks for `graph {t.name}`, and the layer has the graphs {', '.join(names)}"
        return Mistake(message, e.span, hint=f"say of which: `{format.expression(e)} over {names[0]}`")

    def agreed(self) -> tuple[GraphTransform, ...]:
        """What the program asks of its graph, or of each: what the layer says, or what all layers that it calls say
        alike."""
        return tuple(t for graph in self.graphs or ("",) for t in self._agreed_on(graph))

    def _agreed_on(self, graph: str) -> tuple[GraphTransform, ...]:
        said = tuple(t for t in self.transforms if t.graph == graph)
        # What nobody has said of which graph it is may be of this one.
        wishes = [w for w in self.calls.wishes if w.graph in (graph, "")]
        asked = [w for w in wishes if w.transforms]
        if not asked:
            return said
        own = [t for t in said if t.name in _LOOPS or t.name == "non_backtracking"]
        first = asked[0]
        if said and not own:
            self._disagree(first, f"a `graph {said[0].name}` of this layer", said)
            return ()
        if not own:
            other = next((w for w in wishes if _edges_of(w.transforms) != _edges_of(first.transforms)), None)
            if other is not None:
                self._disagree(first, f"{other.layer} in line {other.span.line}", said, other)
                return ()
            if graph in self.forms.read_graphs if graph else self.forms.reads_edges:
                self._disagree(first, "what this layer computes from the edges itself", said)
                return ()
        elif any(_edges_of(w.transforms) != _edges_of(said) for w in asked):
            other = next(w for w in asked if _edges_of(w.transforms) != _edges_of(said))
            self._disagree(other, f"`graph {own[0].name}` of this layer", said)
            return ()
        return self._with_fills(said, asked)

    def _with_fills(self, own: Sequence[GraphTransform], asked: Sequence[Wish]) -> tuple[GraphTransform, ...]:
        """The transforms that all ask for, with what each says of the edge inputs on new loops."""
        said = [t for w in asked for t in w.transforms]
        base = tuple(own) or asked[0].transforms
        fills: dict[str, tuple[str, Constant]] = {}
        for t in (*own, *said):
            for name, fill in t.keywords:
                if fills.setdefault(name, (t.name, fill)) != (t.name, fill):
                    message = f"`{name}` gets {format.default_value(fills[name][1])} by {fills[name][0]} on new loops"
                    message += f", and {format.default_value(fill)} by {t.name}"
                    self.note(Diagnostic(message, t.span, hint="give the layers inputs of edges of their own"))
        kinds = {kind for kind, _ in fills.values()}
        if len(kinds) > 1:
            (one, _), (two, _) = list(fills.values())[:2]
            message = f"some layers ask for `{one}` and some for `{two}`, which say different things of edge inputs"
            self.note(Diagnostic(message, said[0].span, hint="pass edge inputs to layers of one of the two kinds"))
        keywords = tuple((name, fill) for name, (_, fill) in fills.items())
        loops = next(iter(kinds), None)
        return tuple(replace(t, name=loops or t.name, keywords=keywords) if t.name in _LOOPS else t for t in base)

    def _disagree(self, one: Wish, other: str, own: Sequence[GraphTransform], second: Wish | None = None) -> None:
        names = " and ".join(f"`graph {t.name}`" for t in one.transforms)
        rule = f"all that is over `{one.graph}` is on one graph" if one.graph else "a program has one graph"
        message = f"{one.layer} runs on the graph after {names}, and {other} on another one: {rule}"
        if second is not None and second.transforms:
            message = f"{one.layer} runs on the graph after {names}, and {other} after "
            message += " and ".join(f"`graph {t.name}`" for t in second.transforms) + f": {rule}"
        ask = one.transforms[0].name
        over = f" over {one.graph}" if one.graph else ""
        hint = f"`graph {ask}{over}` in this layer has all run with loops" if ask in _LOOPS else "compile them apart"
        if ask in _LOOPS:
            first = "" if own else f"{hint}; "
            hint = f"{first}an argument of {one.layer} may leave its loops out"
        self.note(Diagnostic(message, one.span, hint=hint))


def _laid_out(x: Node) -> Node:
    """The value whose numbers these are, under whatever dims."""
    while x.op in ("reshape", "spread"):
        (x,) = x.inputs
    return x


def _is_number(x: Node, number: Constant) -> bool:
    """Whether a value is this number everywhere."""
    return is_number(number) and is_const(x, number)  # type: ignore[arg-type]


def _edges_of(transforms: Iterable[GraphTransform]) -> frozenset[str]:
    """What decides which edges a graph has after transforms."""
    return frozenset("add_self_loops" if t.name in _LOOPS else t.name for t in transforms)
