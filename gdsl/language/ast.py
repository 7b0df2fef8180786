"""The syntax tree: what the text says, before any name is looked up.

Every node is frozen and has a span. Spans take no part in equality, so two programs are equal when they say
the same, wherever they stand: ``parse(format(p)) == p``.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of the source: offsets ``[start, end)``, and the line and column of its start, from 1."""

    start: int
    end: int
    line: int
    column: int

    def to(self, other: Span) -> Span:
        """From the start of this span to the end of the other."""
        return Span(self.start, max(self.end, other.end), self.line, self.column)


NOWHERE = Span(0, 0, 1, 1)


@dataclass(frozen=True, slots=True)
class Tree:
    """What every syntax node has."""

    span: Span = field(default=NOWHERE, compare=False, repr=False, kw_only=True)


# ------------------------------------------------------------------------------------ expressions


@dataclass(frozen=True, slots=True)
class Number(Tree):
    """``text`` is how it was written, for the formatter."""

    value: int | float
    text: str = field(default="", compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Text(Tree):
    value: str


@dataclass(frozen=True, slots=True)
class Boolean(Tree):
    value: bool


@dataclass(frozen=True, slots=True)
class Nothing(Tree):
    """``none``"""


@dataclass(frozen=True, slots=True)
class Name(Tree):
    id: str


@dataclass(frozen=True, slots=True)
class Unary(Tree):
    """``op`` is ``-`` or ``not``."""

    op: str
    operand: Expression


@dataclass(frozen=True, slots=True)
class Binary(Tree):
    """``op`` is one of ``+ - * / @ ** == != < <= > >= and or``."""

    op: str
    left: Expression
    right: Expression


@dataclass(frozen=True, slots=True)
class Subscript(Tree):
    """``value[indices]``: an end of an edge, or places of dims."""

    value: Expression
    indices: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Named(Tree):
    """An argument by name: ``w = 1``"""

    name: str
    value: Expression


@dataclass(frozen=True, slots=True)
class Arrow(Tree):
    """``d' -> d``, in ``rename``"""

    old: Expression
    new: Expression


@dataclass(frozen=True, slots=True)
class Call(Tree):
    """``function[over](arguments; dims) at end by key``; what follows a ``;`` in a call of a layer are its arguments"""

    function: str
    arguments: tuple[Argument, ...] = ()
    over: tuple[Expression, ...] = ()
    dims: tuple[Argument, ...] = ()
    at: str | None = None
    by: Expression | None = None
    name_span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Values(Tree):
    """``[1, 2, 3]``, as the initial value of a param or buffer"""

    items: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Over(Tree):
    """``value over graph``: the edges that it speaks of are those of this graph."""

    value: Expression
    graph: str
    name_span: Span = field(default=NOWHERE, compare=False, repr=False)


Expression: TypeAlias = Number | Text | Boolean | Nothing | Name | Unary | Binary | Subscript | Call | Over
Argument: TypeAlias = Expression | Named | Arrow


# ------------------------------------------------------------------------------------- statements


@dataclass(frozen=True, slots=True)
class Dim(Tree):
    """``size``, or the range ``start..size`` with both ends in it."""

    size: Expression
    start: Expression | None = None


@dataclass(frozen=True, slots=True)
class Kind(Tree):
    """``: int(bound)``, ``: bool`` or ``: float``"""

    name: str
    bound: Expression | None = None


@dataclass(frozen=True, slots=True)
class Declaration(Tree):
    """``role name[dims]: kind in within ~ init = default``; a role is a word like param or edge.

    within: the graph that the edges of an input are of, or the set that its nodes are of; "" where there is but one
    """

    role: str
    name: str
    dims: tuple[Dim, ...] = ()
    kind: Kind | None = None
    init: Expression | Values | None = None
    default: Expression | None = None
    within: str = ""
    name_span: Span = field(default=NOWHERE, compare=False, repr=False)
    within_span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Sets(Tree):
    """``nodes paper, author``: the sets that nodes are of."""

    names: tuple[Name, ...]


@dataclass(frozen=True, slots=True)
class Link(Tree):
    """A graph by its name, with the sets that its edges begin and end at; none where all nodes are one set."""

    name: str
    source: Name | None = None
    target: Name | None = None


@dataclass(frozen=True, slots=True)
class Graphs(Tree):
    """``graph bonds, near`` or ``graph writes: author -> paper``: the graphs of a call."""

    links: tuple[Link, ...]


@dataclass(frozen=True, slots=True)
class Transform(Tree):
    """``graph name(arguments) over graph``: what the graph must be; ``over`` says which, where there are several."""

    name: str
    arguments: tuple[Argument, ...] = ()
    over: str = ""
    name_span: Span = field(default=NOWHERE, compare=False, repr=False)
    over_span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Constant(Tree):
    """``const name = value``, or a table, ``const name[dims] = [1, 2]``, whose numbers an argument may give."""

    name: str
    value: Expression | Values | None = None
    dims: tuple[Dim, ...] = ()


@dataclass(frozen=True, slots=True)
class Module(Tree):
    """``module name``; ``module name = none`` for one that may be left out, and ``module name = sum`` for one that the
    function of that name stands for when it is."""

    name: str
    optional: bool = False
    function: str | None = None


@dataclass(frozen=True, slots=True)
class Owned(Tree):
    """``linear name[count](in -> out, arguments) ~ init = none``, or an ``mlp``: the layer's own modules."""

    kind: str
    name: str
    sizes: tuple[Expression, ...]
    arguments: tuple[Argument, ...] = ()
    count: Expression | None = None
    init: Expression | None = None
    optional: bool = False
    name_span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Instance(Tree):
    """``use name[count] = layer(arguments)``: a layer with parameters of its own, or a list of them."""

    name: str
    layer: str
    arguments: tuple[Argument, ...] = ()
    count: Expression | None = None
    name_span: Span = field(default=NOWHERE, compare=False, repr=False)
    layer_span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Rule(Tree):
    """``kind name over graph = value``; kind is message, aggregate, update, pool, or "" for a plain definition.

    over: the graph whose edges it speaks of, as in :class:`Over`; "" where it does not say
    """

    kind: str
    name: str
    value: Expression
    over: str = ""
    name_span: Span = field(default=NOWHERE, compare=False, repr=False)
    over_span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Function(Tree):
    """``def name(parameters) = body``"""

    name: str
    parameters: tuple[str, ...]
    body: Expression


@dataclass(frozen=True, slots=True)
class Reducer(Tree):
    """``reduce name(parameters) = body init initial``; the first parameter is the accumulator."""

    name: str
    parameters: tuple[str, ...]
    body: Expression
    initial: Expression


@dataclass(frozen=True, slots=True)
class Loop(Tree):
    """``for name in start..stop { body }``, both ends in it."""

    name: str
    start: Expression
    stop: Expression
    body: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Branch(Tree):
    """``if condition { then } else { otherwise }``"""

    condition: Expression
    then: tuple[Statement, ...]
    otherwise: tuple[Statement, ...] = ()


@dataclass(frozen=True, slots=True)
class Return(Tree):
    values: tuple[Expression, ...]


Statement: TypeAlias = (
    Declaration
    | Sets
    | Graphs
    | Transform
    | Constant
    | Module
    | Owned
    | Instance
    | Rule
    | Function
    | Reducer
    | Loop
    | Branch
    | Return
)


@dataclass(frozen=True, slots=True)
class Parameter(Tree):
    """An argument of the layer. ``required`` when it has no default."""

    name: str
    default: int | float | bool | str | None = None
    required: bool = True


@dataclass(frozen=True, slots=True)
class Layer(Tree):
    """``layer name(parameters) { body }``. ``doc`` is the comment above it, ``source`` the whole text.

    uses: the layers that it calls, by their names in it; see :mod:`gdsl.language.imports`
    file: where the text is from, as an importing text says it; "" for the text itself
    """

    name: str
    parameters: tuple[Parameter, ...] = ()
    body: tuple[Statement, ...] = ()
    doc: str = field(default="", compare=False, repr=False)
    source: str = field(default="", compare=False, repr=False)
    uses: tuple[tuple[str, Layer], ...] = field(default=(), compare=False, repr=False)
    file: str = field(default="", compare=False, repr=False)

    def __repr__(self) -> str:
        return f"<layer {self.name}, {len(self.body)} statements>"


@dataclass(frozen=True, slots=True)
class Use(Tree):
    """``use layers from "path"``, or ``use name = layer``: layers of another file, or, without a path, of the library.

    layers: of the file, each with its name here
    """

    layers: tuple[tuple[str, str], ...]
    path: str | None = None


@dataclass(frozen=True, slots=True)
class Program(Tree):
    """A text: one layer or several, and what it uses of other texts."""

    layers: tuple[Layer, ...]
    source: str = field(default="", compare=False, repr=False)
    uses: tuple[Use, ...] = ()

    def layer(self, name: str | None = None) -> Layer:
        """The layer of that name; without a name, the only one."""
        if name is None and len(self.layers) == 1:
            return self.layers[0]
        for layer in self.layers:
            if layer.name == name:
                return layer
        names = ", ".join(layer.name for layer in self.layers)
        if name is None:
            raise LookupError(f"the program has several layers, choose one: {names}")
        raise LookupError(f"the program has no layer {name}, it has: {names}")


def children(tree: Tree) -> list[Tree]:
    """The syntax nodes directly inside one."""
    kind: Any = type(tree)
    found: list[Tree] = []
    for name in _field_names(kind):
        value = getattr(tree, name)
        if isinstance(value, Tree):
            found.append(value)
        elif isinstance(value, tuple):
            found += [v for v in value if isinstance(v, Tree)]
    return found


def reached(layer: Layer) -> Iterator[Layer]:
    """A layer and all that it calls, and that these call, each once."""
    pending, seen = [layer], set[int]()
    while pending:
        one = pending.pop()
        if id(one) not in seen:
            seen.add(id(one))
            yield one
            pending += [used for _, used in reversed(one.uses)]


def sources(layer: Layer) -> tuple[str, ...]:
    """The texts that a layer means something by: its own, and those of the layers that it calls."""
    return tuple(dict.fromkeys(one.source for one in reached(layer)))


@functools.cache
def _field_names(kind: type[Tree]) -> tuple[str, ...]:
    return tuple(f.name for f in fields(kind))


def walk(tree: Tree) -> Iterator[Tree]:
    """The node and everything inside it, in the order of the text, without recursion."""
    stack = [tree]
    while stack:
        node = stack.pop()
        yield node
        stack.extend(reversed(children(node)))
