"""ReductionCalls over the edges of each node, the nodes of each graph, or a dim, and what else is of all of these."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from gdsl.ir import library, selection
from gdsl.ir.node import Node
from gdsl.ir.types import EDGES_OF_PAIRS, ENDS, Dim, Domain, Kind, element_domain
from gdsl.language import ast, format
from gdsl.language.errors import Mistake, did_you_mean
from gdsl.language.functions import DIM_REDUCERS, FUNCTIONS, ORDERED_REDUCERS, REQUIRED, SEGMENT_REDUCERS
from gdsl.language.module_calls import ModuleCalls
from gdsl.language.program import Requirement
from gdsl.language.values import Scope, Value


class ReductionCalls(ModuleCalls):
    """Expressions with reductions. ``forms.Forms`` adds the other calls."""

    def __init__(self, scope: Scope):
        super().__init__(scope)
        self.pooling = False  # inside a `pool` rule, where node values are reduced over graphs
        self.requires: list[Requirement] = []
        # Names of defaults of inputs that were not passed, and of what is made of them, and where they would live.
        self.stand_ins: dict[str, Domain] = {}

    def bind(self, e: ast.Call, parameters: Sequence[tuple[str, Any]], variadic: bool = False) -> list[Any]:
        """The arguments in the order of the parameters: syntax nodes, or defaults."""
        if e.dims:
            raise Mistake(f"`{e.function}` takes no dims after `;`", e.dims[0].span)
        names = [name for name, _ in parameters]
        bound: dict[str, Any] = {}
        more: list[ast.Tree] = []
        for k, argument in enumerate(e.arguments):
            if isinstance(argument, ast.Arrow):
                raise Mistake(f"`->` belongs to rename, not to {e.function}", argument.span)
            if isinstance(argument, ast.Named):
                if argument.name not in names:
                    hint = did_you_mean(argument.name, names, f"its arguments are {', '.join(names)}")
                    raise Mistake(f"`{e.function}` has no argument `{argument.name}`", argument.span, hint=hint)
                if argument.name in bound:
                    raise Mistake(f"argument `{argument.name}` is given twice", argument.span)
                bound[argument.name] = argument.value
            elif k < len(names):
                bound[names[k]] = argument
            elif variadic:
                more.append(argument)
            else:
                raise Mistake(f"{_takes(e.function, parameters)}, not {len(e.arguments)}", e.span)
        for name, default in parameters:
            if name not in bound:
                if default is REQUIRED:
                    raise Mistake(f"{_takes(e.function, parameters)}: `{name}` is missing", e.span)
                bound[name] = default
        return [bound[name] for name in names] + more

    def only(self, e: ast.Call, *names: str) -> list[ast.Tree]:
        """Exactly these arguments."""
        return self.bind(replace(e, dims=()), [(name, REQUIRED) for name in names])

    def stand_in(self, e: ast.Tree, value: Node) -> Domain | None:
        """Where a value that is the same everywhere would live, were the optional inputs in it passed."""
        if value.domain is not Domain.GLOBAL:
            return None
        found = [self.stand_ins[t.id] for t in ast.walk(e) if isinstance(t, ast.Name) and t.id in self.stand_ins]
        ends = [t.indices[0] for t in ast.walk(e) if isinstance(t, ast.Subscript) and t.indices]
        if found and any(isinstance(end, ast.Name) and end.id in EDGES_OF_PAIRS for end in ends):
            return Domain.PAIR
        if found and any(isinstance(end, ast.Name) and end.id in ("i", "j") for end in ends):
            return Domain.EDGE
        return next((d for d in (Domain.PAIR, Domain.EDGE) if d in found), next(iter(found), None))

    def over(self, e: ast.Call, values: Sequence[Node]) -> tuple[str, Domain]:
        """The end at which a call reduces its first arguments, and the domain of what it gives."""
        domains = [self.stand_in(text, x) or x.domain for text, x in zip(e.arguments, values, strict=False)]
        if e.at in EDGES_OF_PAIRS or (not e.at and Domain.PAIR in domains):
            return EDGES_OF_PAIRS[e.at or "ji"], Domain.EDGE
        end: str = e.at or ("g" if self.pooling else "i")
        if end not in ENDS:
            hint = "at i: over the edges into each node; at j: over the edges out of it"
            raise Mistake(f"`at {end}` is not an end of an edge", e.span, hint=hint)
        if end != "g":
            self.note_edges(*values)
        return end, self.rows(end)

    def element(self, x: Node, text: ast.Tree, end: str, rows: Domain) -> Node:
        """A value that can be reduced to these rows at this end."""
        if x.domain is Domain.GLOBAL:
            return library.spread(x, end, rows)
        elements = element_domain(end, rows)
        if x.domain is elements:
            return x
        if end == "g" and x.domain is Domain.EDGE:
            hint = "aggregate it to nodes first"
            raise Mistake(f"a pool reduces node values over each graph, and this is {x.type}", text.span, hint=hint)
        if x.domain is Domain.PAIR:
            hint = "at ji, its second edge, or at kj, its first; what is reduced to edges can then be to nodes"
            raise Mistake(f"pairs of edges are reduced to edges, and this is {x.type}", text.span, hint=hint)
        if rows is Domain.EDGE:
            read = f"read it at an edge of each pair: {self._leaf(x, text)}[kj]" if x.domain is Domain.EDGE else None
            raise Mistake(f"only values of pairs can be reduced to edges, and this is {x.type}", text.span, hint=read)
        if end != "g":
            message = f"only edge values can be aggregated, and this is {x.type}"
            raise Mistake(message, text.span, hint=f"did you mean {self.at_an_end(x, text)}?")
        return x

    def _is_segment(self, e: ast.Call) -> bool:
        if e.function in ORDERED_REDUCERS:
            return True
        if e.function not in SEGMENT_REDUCERS:
            return False
        # max(a, b) compares two values; max(m) reduces one over edges.
        return not (e.function in FUNCTIONS and len(e.arguments) > 1)

    def _segment(self, e: ast.Call) -> Value:
        parameters = {"quantile": ("m", "q"), "stack": ("m", "K")}.get(e.function, ("m",))
        text, *more = self.only(e, *parameters)
        x = self.node(text)
        on_edges = (Domain.GLOBAL, Domain.EDGE, Domain.PAIR)
        if e.over == () and x.domain not in on_edges and not self.pooling and not e.at:
            raise self._no_dim(e, x, text)
        end, rows = self.over(e, [x])
        x = self.element(x, text, end, rows)
        if e.function in ORDERED_REDUCERS:
            if e.by is not None:
                raise Mistake(f"`{e.function}` has no `by`", e.span)
            if rows is Domain.EDGE:
                raise Mistake(f"`{e.function}` is over edges or nodes, and this is {x.type}", e.span)
            if e.function == "quantile":
                found = library.segment_quantile(x, end, rows, float(self.number(more[0], "the quantile")))
            elif e.function == "stack":
                found = self._stack(x, more[0], end, e)
            else:
                found = library.segment_median(x, end, rows)
            return self.reduced(x, end, found)
        by, dim = (None, None) if e.by is None else self._by(e, e.by, end, rows)
        return self.reduced(x, end, self.tied_to(SEGMENT_REDUCERS[e.function](x, end, rows, by, dim), x))

    def _no_dim(self, e: ast.Call, x: Node, text: ast.Tree) -> Mistake:
        """``sum(x)`` of a node value: over a dim, or over edges?"""
        read = self.at_an_end(x, text)
        on_edges = ", ".join(read if a is text else format.expression(a) for a in e.arguments)
        hints = [f"over edges: {e.function}({on_edges})"]
        if x.dims and e.function in DIM_REDUCERS:
            along = ", ".join(map(format.expression, e.arguments))
            hints.append(f"over a dim: {e.function}[{x.dims[-1].name}]({along})")
        message = f"`{e.function}` over what? The value is {x.type}, not an edge value"
        return Mistake(message, e.span, hint="; ".join(hints))

    def _by(self, e: ast.Call, text: ast.Expression, end: str, rows: Domain) -> tuple[Node, Dim]:
        by = self.node(text)
        if rows is Domain.EDGE and e.function not in ("sum", "mean"):
            raise Mistake(f"`{e.function}` of pairs has no `by`", e.span)
        if by.kind is not Kind.INT or by.type.bound is None:
            hint = "declare it: `edge rel: int(num_relations)`"
            raise Mistake(f"`by` needs an integer with a bound, not {by.type}", text.span, hint=hint)
        by = self.element(by, text, end, rows)
        return by, Dim(self.counts.get(by) or str(by.type.bound), by.type.bound or 0)

    def _stack(self, x: Node, count: ast.Tree, end: str, e: ast.Call) -> Node:
        size, k = self.size(count)
        if end != "i":
            raise Mistake("`stack` is over the edges into each node", e.span)
        self.requires.append(Requirement("degree", end, k, e.span, self.graph_that_has([x], e)))
        return library.segment_stack(x, end, self.rows(end), Dim(str(size), k))

    def _over_dims(self, e: ast.Call) -> Value:
        if e.function not in DIM_REDUCERS:
            hint = did_you_mean(e.function, DIM_REDUCERS, f"these do: {', '.join(DIM_REDUCERS)}")
            raise Mistake(f"`{e.function}` does not reduce over a dim", e.name_span, hint=hint)
        if e.at or e.by is not None:
            raise Mistake(f"`{e.function}[...]` reduces over dims, so it takes no `{'at' if e.at else 'by'}`", e.span)
        text, *count = self.only(e, *(("x", "k") if e.function == "topk" else ("x",)))
        x = self.node(text)
        return DIM_REDUCERS[e.function](x, self.dims_of(e.over, x), *(self.integer(k, "how many") for k in count))

    def _elements(self, e: ast.Call, texts: Sequence[ast.Tree]) -> tuple[list[Node], str, Domain]:
        """Values of the edges of each node, or the nodes of each graph, and of which end and rows these are."""
        values = [self.node(text) for text in texts]
        end, rows = self.over(e, values)
        for x, text in zip(values, texts, strict=True):
            if x.domain not in (Domain.EDGE, Domain.PAIR, Domain.GLOBAL) and end != "g":
                raise self._no_dim(e, x, text)
        return [self.element(x, text, end, rows) for x, text in zip(values, texts, strict=True)], end, rows

    def _softmax(self, e: ast.Call) -> Value:
        if self.spaces is not None and e.function == "softmax" and len(e.arguments) > 1:
            if e.by is not None:
                raise Mistake("one softmax over several graphs has no `by`", e.span)
            texts = self.only(e, *(f"e{k + 1}" for k in range(len(e.arguments))))
            values, end, rows = self._elements(e, texts)
            return self.softmax_over_all(values, texts, end, rows, e)
        (x,), end, rows = self._elements(e, self.only(e, "e"))
        if e.function == "log_softmax":
            return library.segment_log_softmax(x, end, rows)
        by = () if e.by is None else self._by(e, e.by, end, rows)
        found = library.segment_softmax(x, end, rows, True, *by)
        if x.domain is Domain.EDGE:
            self.looks.softmaxes.append(found)
        return found

    def _sparsemax(self, e: ast.Call) -> Value:
        (x,), end, rows = self._elements(e, self.only(e, "e"))
        return selection.segment_sparsemax(x, end, rows)

    def _topk(self, e: ast.Call) -> Value:
        text, count = self.only(e, "e", "k")
        (x,), end, rows = self._elements(e, [text])
        by = () if e.by is None else self._by(e, e.by, end, rows)
        return selection.segment_topk(x, end, rows, self.integer(count, "how many"), *by)

    def _argmax(self, e: ast.Call) -> Value:
        texts = self.only(e, "e", "key")
        values, end, rows = self._elements(e, texts)
        m, key = self.together(values, texts, e, e.function)
        by = () if e.by is None else self._by(e, e.by, end, rows)
        return self.reduced(m, end, selection.segment_argmax(m, key, end, rows, *by))


# Calls that take `at`, since they are about the edges of each node, and those of them that take `by`.
OVER_EDGES: dict[str, Callable[[ReductionCalls, ast.Call], Value]] = {
    "softmax": ReductionCalls._softmax,
    "log_softmax": ReductionCalls._softmax,
    "sparsemax": ReductionCalls._sparsemax,
    "topk": ReductionCalls._topk,
    "argmax": ReductionCalls._argmax,
}
BY_A_KEY = ("softmax", "topk", "argmax")


def _takes(function: str, parameters: Sequence[tuple[str, Any]]) -> str:
    names = [name if default is REQUIRED else f"{name} = {default}" for name, default in parameters]
    return f"`{function}({', '.join(names)})` takes {len(names)} argument{'s' if len(names) != 1 else ''}"
