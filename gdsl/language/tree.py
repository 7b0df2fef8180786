"""From lark's matches to syntax nodes: one method a grammar rule, called while the text is parsed.

Lark keeps every token, so a rule's children span all of its text.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lark import Token, Transformer

from gdsl.language import ast
from gdsl.language.ast import Span
from gdsl.language.errors import Mistake

Piece = Any  # a Token, a syntax node, or a Group of them


class Group(tuple[Any, ...]):
    """The parts of a rule that has no node of its own, such as ``[a, b]``."""

    span: Span


def span_of(piece: Piece) -> Span:
    if isinstance(piece, Token):
        start, end = piece.start_pos or 0, piece.end_pos or 0
        return Span(start, end, piece.line or 1, piece.column or 1)
    found: Span = piece.span
    return found


def cover(pieces: Sequence[Piece]) -> Span:
    """The span from the first piece to the last."""
    return span_of(pieces[0]).to(span_of(pieces[-1]))


def group(pieces: Sequence[Piece], items: Sequence[Any]) -> Group:
    made = Group(items)
    made.span = cover(pieces)
    return made


def trees(pieces: Sequence[Piece]) -> tuple[Any, ...]:
    return tuple(p for p in pieces if isinstance(p, ast.Tree))


def tokens(pieces: Sequence[Piece], kind: str) -> tuple[str, ...]:
    return tuple(str(p) for p in pieces if isinstance(p, Token) and p.type == kind)


# The clauses of a declaration, in their order.
_CLAUSES = ("dims", "kind", "within", "init", "default")


def clauses(pieces: Sequence[Piece]) -> dict[str, Any]:
    """What a declaration says besides its name. The grammar takes clauses in any order; this does not."""
    found: dict[str, Any] = {}
    for part in (p for p in pieces if isinstance(p, Group)):
        if part[0] in found or any(_CLAUSES.index(part[0]) < _CLAUSES.index(name) for name in found):
            order = "a declaration is written `name[dims]: kind in graph ~ init = default`"
            raise Mistake("this part of the declaration stands in the wrong place", part.span, hint=order)
        found[part[0]] = part[1]
    return found


class TreeBuilder(Transformer[Token, object]):
    """Callbacks for :class:`lark.Lark`; ``p`` is the list of matched pieces."""

    # ----------------------------------------------------------------------------- expressions

    def number(self, p: list[Piece]) -> ast.Number:
        text = str(p[0])
        if text.isdigit() and len(text) > 18:
            message = f"the number {text[:20]}... is too large"
            raise Mistake(message, cover(p), hint="whole numbers have 18 digits at most")
        value = int(text) if text.isdigit() else float(text)
        if math.isinf(value):
            raise Mistake(f"the number {text[:20]} is too large", cover(p), hint="numbers end at about 1.8e308")
        return ast.Number(value, text, span=cover(p))

    def name(self, p: list[Piece]) -> ast.Name:
        return ast.Name(str(p[0]), span=cover(p))

    def string(self, p: list[Piece]) -> ast.Text:
        return ast.Text(str(p[0])[1:-1], span=cover(p))

    def boolean(self, p: list[Piece]) -> ast.Boolean:
        return ast.Boolean(p[0].type == "TRUE", span=cover(p))

    def nothing(self, p: list[Piece]) -> ast.Nothing:
        return ast.Nothing(span=cover(p))

    def group(self, p: list[Piece]) -> ast.Tree:
        # The parentheses belong to the span, so that a caret covers them.
        inner: ast.Tree = p[1]
        return replace(inner, span=cover(p))

    def unary(self, p: list[Piece]) -> ast.Unary:
        return ast.Unary(str(p[0]), p[1], span=cover(p))

    def binary(self, p: list[Piece]) -> ast.Binary:
        return ast.Binary(str(p[1]), p[0], p[2], span=cover(p))

    def subscript(self, p: list[Piece]) -> ast.Subscript:
        return ast.Subscript(p[0], tuple(p[2]), span=cover(p))

    def call(self, p: list[Piece]) -> ast.Call:
        callee = p[0]
        over: tuple[ast.Expression, ...] = ()
        if isinstance(callee, ast.Subscript):
            over, callee = callee.indices, callee.value
        if not isinstance(callee, ast.Name):
            raise Mistake("only a function can be called", span_of(p[0]), hint="write * for a product")
        dims = next((tuple(g) for g in p if isinstance(g, Group)), ())
        named = False
        for d in dims:
            if isinstance(d, ast.Arrow) or (named and not isinstance(d, ast.Named)):
                raise Mistake("what follows a `;` are dims or sizes, and then arguments by name", d.span)
            named = isinstance(d, ast.Named)
        return ast.Call(callee.id, trees(p[1:]), over, dims, name_span=callee.span, span=cover(p))

    def at(self, p: list[Piece]) -> ast.Call:
        if not isinstance(p[0], ast.Call):
            raise Mistake("`at` goes with a reduction over edges", cover(p), hint="as in sum(m) at j")
        return replace(p[0], at=str(p[2]), span=cover(p))

    def by(self, p: list[Piece]) -> ast.Call:
        if not isinstance(p[0], ast.Call):
            raise Mistake("`by` goes with a reduction over edges", cover(p), hint="as in mean(m) by relation")
        return replace(p[0], by=p[2], span=cover(p))

    def over_graph(self, p: list[Piece]) -> ast.Over:
        return ast.Over(p[0], str(p[2]), name_span=span_of(p[2]), span=cover(p))

    def key(self, p: list[Piece]) -> ast.Expression:
        name = ast.Name(str(p[0]), span=span_of(p[0]))
        return ast.Subscript(name, trees(p), span=cover(p)) if len(p) > 1 else name

    def named(self, p: list[Piece]) -> ast.Named:
        return ast.Named(str(p[0]), p[2], span=cover(p))

    def arrow(self, p: list[Piece]) -> ast.Arrow:
        return ast.Arrow(p[0], p[2], span=cover(p))

    def over(self, p: list[Piece]) -> Group:
        return group(p, trees(p))

    options = over

    # ------------------------------------------------------------------------------ statements

    def dim(self, p: list[Piece]) -> ast.Dim:
        if len(p) == 1:
            return ast.Dim(p[0], span=cover(p))
        return ast.Dim(p[2], p[0], span=cover(p))

    def dims(self, p: list[Piece]) -> Group:
        return group(p, ["dims", trees(p)])

    def kind(self, p: list[Piece]) -> Group:
        inside = trees(p)
        return group(p, ["kind", ast.Kind(str(p[1]), inside[0] if inside else None, span=cover(p))])

    def within(self, p: list[Piece]) -> Group:
        return group(p, ["within", p[1]])

    def init(self, p: list[Piece]) -> Group:
        return group(p, ["init", p[1]])

    def values(self, p: list[Piece]) -> ast.Values:
        return ast.Values(tuple(p[1]), span=cover(p))

    def default(self, p: list[Piece]) -> Group:
        return group(p, ["default", p[1]])

    def declaration(self, p: list[Piece]) -> ast.Declaration | ast.Transform:
        parts = clauses(p)
        if p[0].type == "GRAPH" and not parts:  # `graph add_self_loops`, and not `graph u[d]` or `graph t: float`
            return ast.Transform(str(p[1]), name_span=span_of(p[1]), span=cover(p))
        within = parts.pop("within", None)
        if within is not None:
            parts |= {"within": str(within), "within_span": span_of(within)}
        return ast.Declaration(str(p[0]), str(p[1]), name_span=span_of(p[1]), span=cover(p), **parts)

    def sets(self, p: list[Piece]) -> ast.Sets:
        return ast.Sets(tuple(self.name([name]) for name in p if name.type == "NAME"), span=cover(p))

    def link(self, p: list[Piece]) -> ast.Link:
        name, source, target = (part for part in p if part.type == "NAME")
        return ast.Link(str(name), self.name([source]), self.name([target]), span=cover(p))

    def graphs(self, p: list[Piece]) -> ast.Graphs:
        names = (part for part in p if isinstance(part, Token) and part.type == "NAME")
        return ast.Graphs((*trees(p), *(ast.Link(str(name), span=span_of(name)) for name in names)), span=cover(p))

    def graph_transform(self, p: list[Piece]) -> ast.Transform:
        made = ast.Transform(str(p[1]), trees(p), name_span=span_of(p[1]), span=cover(p))
        if isinstance(p[-2], Token) and p[-2].type == "OVER":
            made = replace(made, over=str(p[-1]), over_span=span_of(p[-1]))
        return made

    def constant(self, p: list[Piece]) -> ast.Constant:
        if not isinstance(p[2], Group):
            return ast.Constant(str(p[1]), p[3], span=cover(p))
        return ast.Constant(str(p[1]), p[4] if len(p) > 3 else None, p[2][1], span=cover(p))

    def module(self, p: list[Piece]) -> ast.Module:
        function = str(p[3]) if len(p) > 2 and p[3].type == "NAME" else None
        return ast.Module(str(p[1]), len(p) > 2 and function is None, function, span=cover(p))

    def chain(self, p: list[Piece]) -> Group:
        return group(p, ["chain", trees(p)])

    def owned(self, p: list[Piece]) -> ast.Owned:
        (sizes,) = (part for part in p if isinstance(part, Group) and part[0] == "chain")
        parts = clauses([part for part in p if part is not sizes])
        count, init, default = parts.get("dims", ()), parts.get("init"), parts.get("default")
        if len(count) > 1 or (count and count[0].start is not None):
            message = f"`{p[1]}` is a list of so many parts, and this is no number"
            raise Mistake(message, count[0].span, hint=f"as in {p[0]} {p[1]}[3](...)")
        if isinstance(init, ast.Values):
            raise Mistake("a part is drawn, and has no numbers of its own", init.span, hint="as in ~ glorot")
        if not isinstance(default, ast.Nothing | None):
            raise Mistake("a part may be left out with `= none`, and has no other default", default.span)
        return ast.Owned(
            str(p[0]),
            str(p[1]),
            sizes[1],
            trees(p),
            count[0].size if count else None,
            init,
            default is not None,
            name_span=span_of(p[1]),
            span=cover(p),
        )

    def instance(self, p: list[Piece]) -> ast.Instance:
        count: tuple[ast.Dim, ...] = next((part[1] for part in p if isinstance(part, Group)), ())
        if len(count) > 1 or (count and count[0].start is not None):
            message = f"`{p[1]}` is a list of so many layers, and this is no number"
            raise Mistake(message, count[0].span, hint=f"as in use {p[1]}[3] = ...")
        (layer,) = (p[k + 1] for k, part in enumerate(p) if isinstance(part, Token) and part.type == "EQUAL")
        return ast.Instance(
            str(p[1]),
            str(layer),
            tuple(t for t in trees(p) if not isinstance(t, ast.Dim)),
            count[0].size if count else None,
            name_span=span_of(p[1]),
            layer_span=span_of(layer),
            span=cover(p),
        )

    def rule(self, p: list[Piece]) -> ast.Rule:
        kind = str(p[0]) if p[0].type != "NAME" else ""
        name, graph = (p[1] if kind else p[0]), p[-3]
        if len(p) < (6 if kind else 5):
            return ast.Rule(kind, str(name), p[-1], name_span=span_of(name), span=cover(p))
        return ast.Rule(kind, str(name), p[-1], str(graph), span_of(name), span_of(graph), span=cover(p))

    def function(self, p: list[Piece]) -> ast.Function:
        name, *parameters = tokens(p, "NAME")
        return ast.Function(name, tuple(parameters), p[-1], span=cover(p))

    def reducer(self, p: list[Piece]) -> ast.Reducer:
        name, *parameters = tokens(p, "NAME")
        body, initial = trees(p)
        return ast.Reducer(name, tuple(parameters), body, initial, span=cover(p))

    def block(self, p: list[Piece]) -> Group:
        return group(p, trees(p))

    def loop(self, p: list[Piece]) -> ast.Loop:
        start, stop = trees(p)
        return ast.Loop(str(p[1]), start, stop, tuple(p[-1]), span=cover(p))

    def branch(self, p: list[Piece]) -> ast.Branch:
        otherwise: tuple[ast.Statement, ...] = ()
        if len(p) > 3:
            otherwise = (p[4],) if isinstance(p[4], ast.Branch) else tuple(p[4])
        return ast.Branch(p[1], tuple(p[2]), otherwise, span=cover(p))

    def result(self, p: list[Piece]) -> ast.Return:
        return ast.Return(tuple(p[1]), span=cover(p))

    # ---------------------------------------------------------------------------------- layers

    def parameter(self, p: list[Piece]) -> ast.Parameter:
        if len(p) == 1:
            return ast.Parameter(str(p[0]), span=cover(p))
        return ast.Parameter(str(p[0]), literal(p[2]), False, span=cover(p))

    def parameters(self, p: list[Piece]) -> Group:
        return group(p, ["parameters", trees(p)])

    def layer(self, p: list[Piece]) -> ast.Layer:
        parameters = p[2][1] if len(p) > 3 else ()
        seen: set[str] = set()
        for parameter in parameters:
            if parameter.name in seen:
                raise Mistake(f"argument `{parameter.name}` occurs twice", parameter.span)
            seen.add(parameter.name)
        return ast.Layer(str(p[1]), parameters, tuple(p[-1]), span=cover(p))

    def used(self, p: list[Piece]) -> Group:
        return group(p, [str(p[0]), str(p[-1])])

    def use(self, p: list[Piece]) -> ast.Use:
        pairs = tuple((name, layer) for name, layer in (part for part in p if isinstance(part, Group)))
        path = next((text[1:-1] for text in tokens(p, "STRING")), None)
        return ast.Use(pairs, path, span=cover(p))

    def start(self, p: list[Piece]) -> tuple[ast.Layer | ast.Use, ...]:
        return trees(p)


def literal(value: ast.Tree) -> int | float | bool | str | None:
    """The value of a default: known from the text alone."""
    if isinstance(value, ast.Number | ast.Text | ast.Boolean):
        return value.value
    if isinstance(value, ast.Nothing):
        return None
    if isinstance(value, ast.Name) and value.id in CONSTANTS:
        return CONSTANTS[value.id]
    if isinstance(value, ast.Unary) and value.op == "-":
        number = literal(value.operand)
        if isinstance(number, int | float) and not isinstance(number, bool):
            return -number
    raise Mistake("a default is a number, true, false, a string or none", value.span)


CONSTANTS: dict[str, float] = {"inf": math.inf, "pi": math.pi}
