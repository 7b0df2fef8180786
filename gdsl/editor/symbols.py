"""Which names of a layer are one: where each is given its meaning, and where it is read.

A name and the same with primes are one, ``d`` and ``d'``, since a prime makes a second name of a dim. Parameters of a
``def`` or ``reduce`` are known in it alone; all others are the layer's.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from gdsl.editor.tokens import NAMES, Token
from gdsl.language import ast
from gdsl.language.meanings import FUNCTIONS

# Where a name is known: the place of the `def` whose parameter it is, or all of the layer.
LAYER = -1

# What gives a name that stands nowhere in it: `norm` is what `graph symmetric_norm` makes.
MADE = "made"

# What gives a name that may be called.
CALLED = frozenset({"def", "reduce", "module", "linear", "mlp", "use"})


@dataclass(frozen=True, slots=True)
class Identifier:
    """A name of a layer: ``scope`` is the start of the ``def`` that it is a parameter of, or LAYER."""

    name: str
    scope: int = LAYER


@dataclass(frozen=True, slots=True)
class Mention:
    """A name in the text.

    gives:     what the statement makes of it, such as "param" or "message"; None where the name is read
    statement: the statement that gives it
    """

    token: Token
    symbol: Identifier
    gives: str | None = None
    statement: ast.Tree | None = field(default=None, compare=False)

    def reads(self, other: Mention) -> bool:
        """Whether a name is read by the very rule that gives it its next meaning, as in ``h = h + 1``."""
        s = self.statement
        return isinstance(s, ast.Rule) and s.span.start <= other.token.start < s.span.end


@dataclass(frozen=True, slots=True)
class NameTable:
    """The mentions of a layer's names, in the order of the text."""

    mentions: tuple[Mention, ...] = ()

    def at(self, offset: int) -> Mention | None:
        """The name at a place or right before it."""
        k = bisect.bisect_right(self.mentions, offset, key=lambda m: m.token.start) - 1
        return self.mentions[k] if k >= 0 and offset <= self.mentions[k].token.end else None

    def of(self, symbol: Identifier) -> tuple[Mention, ...]:
        return tuple(m for m in self.mentions if m.symbol == symbol)

    def given(self, symbol: Identifier) -> tuple[Mention, ...]:
        """Where a name gets its meaning."""
        return tuple(m for m in self.of(symbol) if m.gives)

    def source(self, mention: Mention) -> Mention | None:
        """What gives a name the meaning that it has at a place: the last statement before it, or the first one of all;
        a declaration rather than the argument that leaves it out. None for a name that nothing gives."""
        if mention.gives:
            return mention
        given = self.given(mention.symbol)
        given = tuple(m for m in given if m.token.text == mention.token.text) or given
        given = tuple(m for m in given if m.gives != "argument") or given
        before = [m for m in given if m.token.start < mention.token.start and not m.reads(mention)]
        return before[-1] if before else next(iter(given), None)

    def known(self, offset: int) -> dict[str, Mention]:
        """The names that may be read at a place, with what gave each its meaning last; and those that are given after
        it, since a loop may read them."""
        found: dict[str, Mention] = {}
        for m in self.mentions:
            scope = m.statement.span if m.symbol.scope != LAYER and m.statement is not None else None
            if m.gives and (scope is None or scope.start <= offset <= scope.end) and m.gives != "layer":
                name = m.token.text
                if name not in found or m.token.start < offset:
                    found[name] = m
        return found


def names_of(layers: Sequence[ast.Layer], tokens: Sequence[Token]) -> NameTable:
    """The names of a text's layers, whose trees may lack statements that did not parse."""
    named = [t for t in tokens if t.kind in NAMES]
    found: dict[int, Mention] = {}
    for layer in layers:
        for mention in _Reader(layer, named).run():
            found.setdefault(mention.token.start, mention)
    return NameTable(tuple(found[start] for start in sorted(found)))


class _Reader:
    """Goes through a layer's tree."""

    def __init__(self, layer: ast.Layer, named: Sequence[Token]):
        self.layer, self.named = layer, named
        self.starts = [t.start for t in named]
        self.functions = {s.name: s for s in ast.walk(layer) if isinstance(s, ast.Function | ast.Reducer)}
        # A call of another name is one of the language's functions, also where a value has that name.
        called = ast.Function | ast.Reducer | ast.Module | ast.Owned | ast.Instance
        self.callable = {s.name for s in ast.walk(layer) if isinstance(s, called)}

    def token(self, start: int, after: int = 0) -> Token:
        """The first name from a place on, or one after it."""
        return self.named[bisect.bisect_left(self.starts, start) + after]

    def run(self) -> Iterator[Mention]:
        yield Mention(self.token(self.layer.span.start), Identifier(self.layer.name), "layer", self.layer)
        for p in self.layer.parameters:
            yield self.given(p, "argument")
        for s in self.layer.body:
            yield from self.read(s, None)

    def given(self, s: ast.Tree, kind: str, span: ast.Span | None = None) -> Mention:
        token = self.token((span or s.span).start)
        return Mention(token, Identifier(token.text.rstrip("'")), kind, s)

    def name(self, start: int, local: ast.Function | ast.Reducer | None) -> Mention:
        """A name that is read, inside a `def` or not."""
        token = self.token(start)
        inside = local is not None and token.text in local.parameters
        scope = local.span.start if local is not None and inside else LAYER
        return Mention(token, Identifier(token.text.rstrip("'"), scope))

    def read(self, tree: ast.Tree, local: ast.Function | ast.Reducer | None) -> Iterator[Mention]:
        """The names in a tree; those of initial values, of functions in them and of a call's parameters are not the
        layer's."""
        stack: list[tuple[ast.Tree, ast.Function | ast.Reducer | None]] = [(tree, local)]
        while stack:
            tree, local = stack.pop()
            skipped: tuple[ast.Tree | None, ...] = ()
            if isinstance(tree, ast.Name):
                yield self.name(tree.span.start, local)
            elif isinstance(tree, ast.Call):
                passed = local is not None and tree.function in local.parameters
                if tree.function in self.callable or (passed and tree.function not in FUNCTIONS):
                    yield self.name(tree.name_span.start, local)
                called = self.functions.get(tree.function)
                for a in tree.arguments:
                    if isinstance(a, ast.Named) and called is not None and a.name in called.parameters:
                        yield self.name(a.span.start, called)
            elif isinstance(tree, ast.Over):
                yield self.name(tree.name_span.start, None)
            elif isinstance(tree, ast.Link):
                yield self.given(tree, "graph")
            elif isinstance(tree, ast.Sets):
                yield from (self.given(tree, "nodes", name.span) for name in tree.names)
                skipped = tree.names
            elif isinstance(tree, ast.Transform):
                yield from (self.name(a.span.start, None) for a in tree.arguments if isinstance(a, ast.Named))
                if tree.over:
                    yield self.name(tree.over_span.start, None)
                if tree.name == "symmetric_norm" and not tree.arguments:
                    yield Mention(self.token(tree.name_span.start), Identifier("norm"), MADE, tree)
            elif isinstance(tree, ast.Function | ast.Reducer):
                kind = "def" if isinstance(tree, ast.Function) else "reduce"
                yield self.given(tree, kind)
                for k in range(len(tree.parameters)):
                    token = self.token(tree.span.start, k + 1)
                    yield Mention(token, Identifier(token.text.rstrip("'"), tree.span.start), "parameter", tree)
                local = tree
            elif isinstance(tree, ast.Module):
                yield self.given(tree, "module")
                if tree.function in self.functions:
                    token = self.token(tree.span.start, 1)
                    yield Mention(token, Identifier(token.text))
            elif isinstance(tree, ast.Declaration | ast.Owned):
                yield self.given(tree, tree.role if isinstance(tree, ast.Declaration) else tree.kind, tree.name_span)
                if isinstance(tree, ast.Declaration) and tree.within:
                    yield self.name(tree.within_span.start, None)
                skipped = (tree.init,) if not isinstance(tree.init, ast.Values) else ()
                if isinstance(tree.init, ast.Call):
                    stack.extend((a, local) for a in tree.init.arguments)
            elif isinstance(tree, ast.Instance):
                yield self.given(tree, "use", tree.name_span)
            elif isinstance(tree, ast.Rule):
                yield self.given(tree, tree.kind or "value", tree.name_span)
                if tree.over:
                    yield self.name(tree.over_span.start, None)
            elif isinstance(tree, ast.Constant):
                yield self.given(tree, "const")
            elif isinstance(tree, ast.Loop):
                yield self.given(tree, "index")
            stack.extend((child, local) for child in ast.children(tree) if not any(child is s for s in skipped))
