"""What the checker keeps while it goes through a layer's statements, and how names get their meaning."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from gdsl.ir.node import Node
from gdsl.ir.spaces import NamedGraph
from gdsl.language import ast
from gdsl.language.errors import Diagnostic, Mistake
from gdsl.language.forms import Forms
from gdsl.language.program import Constant, Declaration, GraphTransform, Rule
from gdsl.language.signature import Signature, signature_of
from gdsl.language.values import Scope, Value, is_constant


@dataclass(frozen=True)
class Passed:
    """The value of an input of a layer that is called, and the text that says it."""

    value: Node
    text: ast.Tree


@dataclass(frozen=True)
class Wish:
    """What a layer that is called asks of the graph: the transforms, and the names and places of those who ask.

    graph: the name of the graph, where there are several; "" where nobody has said it
    """

    transforms: tuple[GraphTransform, ...]
    layer: str
    span: ast.Span
    graph: str = ""


@dataclass
class Calls:
    """What is kept of the calls of layers.

    wishes:  of the layers that compute from edges, or ask for other ones
    made:    the names of calls that have parameters
    sites:   the names of calls of layers without a name, by their places
    """

    wishes: list[Wish] = field(default_factory=list)
    made: set[str] = field(default_factory=set)
    sites: Mapping[int, str] = field(default_factory=dict)


class Elaboration:
    """The state of a check.

    path:  where the layer's parameters are in the module that is made: "conv1", of a layer that is called
    given: of a layer that is called, its inputs that are passed
    """

    def __init__(
        self,
        layer: ast.Layer,
        modules: Mapping[str, Any],
        training: bool,
        present: frozenset[str],
        free_dims: Mapping[str, int],
        signature: Signature | None = None,
    ):
        self.layer = layer
        self.modules = modules
        self.present = present
        self.signature = signature or signature_of(layer)
        self._arguments = frozenset(p.name for p in layer.parameters)
        # What an argument of its name leaves out or names.
        self.own = frozenset((*self.signature.parts, *self.signature.choices, *self.signature.tables))
        self.scope = Scope()
        self.mistakes: dict[tuple[str, int], Diagnostic] = {}
        self.forms = LayerForms(self.scope, self.note, training=training)
        self.forms.free = {name: size for name, size in free_dims.items() if name in self.signature.free_dims}
        self.bound: dict[str, Constant] = {}
        self.statements = 0
        self.declarations: list[Declaration] = []
        self.declared: dict[str, ast.Span] = {}
        self.transforms: list[GraphTransform] = []
        self.rules: list[Rule] = []
        # The values that rules and graph statements have given names, in their order.
        self.made: list[tuple[str, Node, ast.Span]] = []
        self.names: dict[Node, str] = {}
        self.used_names: dict[str, int] = {}
        self.results: tuple[tuple[str, Node], ...] | None = None
        self.result_rule: tuple[str, Node] | None = None
        self.result_poisoned = False
        self.loop_values: dict[str, int] = {}
        self.path = ""
        self.given: Mapping[str, Passed] | None = None
        self.calls = Calls()
        # What the layer names where it is on several graphs, and the set or graph of each input.
        self.graphs: dict[str, NamedGraph] = {}
        self.sets: dict[str, ast.Span] = {}
        self.spaces: dict[str, str] = {}

    def inside(self, name: str) -> str:
        """The name of a parameter, buffer or module of the layer in the module that is made."""
        return f"{self.path}.{name}" if self.path else name

    def computed_here(self, values: Iterable[Node]) -> Iterator[Node]:
        """The nodes behind values, up to what this layer is given."""
        pending, seen = list(values), {given.value for given in (self.given or {}).values()}
        while pending:
            n = pending.pop()
            if n not in seen:
                seen.add(n)
                yield n
                pending += n.inputs

    def note(self, mistake: Diagnostic) -> None:
        """Each mistake once, however often a loop meets it."""
        self.mistakes.setdefault((mistake.message, mistake.span.start), mistake)

    def bring(self, name: str, value: Value, span: ast.Span) -> None:
        """Give a name its meaning, or its next one."""
        if name in ("i", "j"):
            raise Mistake(f"`{name}` is an end of an edge and cannot be a name", span)
        if name in self._arguments and name not in self.own and not is_constant(value):
            raise Mistake(f"`{name}` is an argument of the layer and cannot be another value", span)
        self.scope.names[name] = value
        if self.forms.watch is not None:
            self.forms.watch(span, value)

    def declare(self, name: str, span: ast.Span) -> None:
        if name in self.declared or (name in self._arguments and name not in self.own):
            if name not in self.declared:
                message = f"`{name}` is an argument of the layer, and declared here again"
                what = "where the argument says whether this is there, write `= none` after it"
                raise Mistake(message, span, hint=f"call one of them otherwise; {what}")
            hint = "declare it before the loop, with a dim for the index" if self.loop_values else None
            message = f"`{name}` is declared twice, first in line {self.declared[name].line}"
            raise Mistake(message, span, hint=hint)
        self.declared[name] = span

    def call_it(self, node: Node, name: str) -> None:
        """Record the program's name of a node: the first one stays, and a name used twice is numbered."""
        if node in self.names or node.op in ("load", "const"):
            return
        name = self.inside(name)
        unique, count = name, self.used_names.get(name, 0)
        while unique in self.used_names:
            count += 1
            unique = f"{name}_{count}"
        self.used_names[unique] = 1
        # Where the next one begins to look, so that a loop's names do not take quadratic time.
        self.used_names[name] = max(count, 1)
        self.names[node] = unique


class LayerForms(Forms):
    """Forms that know which inputs are optional."""

    def __init__(self, scope: Scope, note: Callable[[Diagnostic], None], *, training: bool):
        super().__init__(scope, training=training)
        self.note = note
        self.optional: set[str] = set()
        self.passed: set[str] = set()

    def is_optional(self, name: str) -> bool:
        return name in self.optional

    def is_passed(self, name: str) -> bool:
        return name in self.passed
