"""Expressions to IR nodes, or to constants when everything in them is known from the layer's arguments."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from gdsl.ir import build
from gdsl.ir.build import IRError
from gdsl.ir.library import op
from gdsl.ir.node import Node
from gdsl.ir.types import EDGES_OF_PAIRS, ENDS, Domain
from gdsl.language import ast, dims, format
from gdsl.language.errors import ELSEWHERE, Diagnostic, Mistake, UnknownName, did_you_mean
from gdsl.language.functions import OPERATORS, PRODUCTS
from gdsl.language.placed import Placed
from gdsl.language.program import Constant
from gdsl.language.sizes import Size
from gdsl.language.tree import CONSTANTS
from gdsl.language.values import (
    Absent,
    LayerResults,
    LayerValue,
    Poison,
    Poisoned,
    Scope,
    Value,
    is_constant,
    is_number,
    is_whole,
)

# A program may use this many steps; functions that call functions could otherwise take exponential time.
MAX_STEPS = 200_000

Watch: TypeAlias = Callable[[ast.Span, Value], None]

_ON_EDGES = (Domain.EDGE, Domain.PAIR)

# What `==` compares as a word: a string, none, or an input that is not there.
_WORDS = (str, type(None), Absent)


class Expressions(Placed):
    """Checks expressions in a scope. ``forms.Forms`` adds the calls."""

    def __init__(self, scope: Scope):
        super().__init__()
        self.scope = scope
        self.steps = 0
        # The size expression that a dim's name stands for, where it is more than that name.
        self.sizes: dict[str, Size] = {}
        # Of a layer that is called, what its caller calls its sizes, where that is told apart from its own names.
        self.called: dict[str, Size] = {}
        # The dims that the index of a running loop could count along.
        self.loops: dict[str, tuple[str, ...]] = {}
        # Dims of inputs that are no arguments: the call gives their sizes.
        self.free: dict[str, int] = {}
        # Where an edge is asked for that begins or ends where another does not: there must be one set of nodes.
        self.one_set: ast.Span | None = None
        # Inside `outer(...)`, where dims that only one operand has may be paired.
        self.pairs = False
        # Keeps a mistake besides the one that is raised.
        self.note: Callable[[Diagnostic], None] = lambda mistake: None
        # Is told what each expression, and each name that is given, stands for.
        self.watch: Watch | None = None
        # The names that values are computed from; those that only conditions ask for are not.
        self.read: set[str] = set()

    # ------------------------------------------------------------------------------- reading

    def value(self, e: ast.Tree) -> Value:
        """Whatever the expression stands for."""
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise Mistake("the program is too large once loops and functions are written out", e.span)
        if isinstance(e, ast.Named):
            raise Mistake(f"this call has no argument `{e.name}`", e.span, hint="give it by its place")
        if isinstance(e, ast.Arrow):
            raise Mistake("`->` belongs to rename, and to the sizes of owned modules", e.span)
        try:
            value = self._READ[type(e)](self, e)
            if self.spaces is not None:  # of each expression of every layer
                value = self.placed(value, e)
        except IRError as error:
            raise Mistake(error.message, e.span, hint=error.hint) from None
        if isinstance(value, Node) and value.domain in _ON_EDGES and not self._is_given(e):
            self.note_edges(value)
        if self.watch is not None:
            self.watch(e.span, value)
        return value

    def _is_given(self, e: ast.Tree) -> bool:
        """Whether a value was there before: of a name, or what a layer gives that is called."""
        if isinstance(e, ast.Call):
            return isinstance(self.scope.find(e.function), LayerValue)
        if isinstance(e, ast.Subscript) and isinstance(e.value, ast.Name):
            return isinstance(self.scope.find(e.value.id), LayerResults)
        if isinstance(e, ast.Over):
            return self._is_given(e.value)
        return isinstance(e, ast.Name)

    def node(self, e: ast.Tree) -> Node:
        """A value of the program: an IR node. A number becomes one that is the same everywhere."""
        value = self.value(e)
        if isinstance(value, Node):
            return value
        if isinstance(value, bool):
            return build.const(value)
        if is_number(value):
            return build.const(float(value))  # type: ignore[arg-type]
        raise self.unusable(value, e)

    def number(self, e: ast.Tree, what: str = "this") -> int | float:
        """A number known at construction."""
        value = self.value(e)
        if is_number(value):
            return value  # type: ignore[return-value]
        if isinstance(value, Node):
            raise Mistake(f"{what} must be a number known when the layer is constructed, not {value.type}", e.span)
        constant: Any = value
        shown = f", and `{format.expression(e)}` is {format.default_value(constant)}" if is_constant(value) else ""
        raise self.unusable(value, e, f"{what} must be a number{shown}")

    def integer(self, e: ast.Tree, what: str = "this") -> int:
        number = self.number(e, what)
        if not is_whole(number):
            raise Mistake(f"{what} must be a whole number, not {number}", e.span)
        return int(number)

    def unusable(self, value: Value, e: ast.Tree, needed: str | None = None) -> Mistake:
        text = format.expression(e)
        if isinstance(value, Absent):
            missing = "is not there" if value.part else "was not passed"
            remedy = f"compile with {value.name}=True" if value.part else "declare a default"
            hint = f"use it inside `if {value.name} {{ ... }}`, or {remedy}"
            return Mistake(f"`{value.name}` is optional and {missing}", e.span, hint=hint)
        if isinstance(value, LayerResults):
            names = [name for name, _ in value.values]
            message = f"`{value.layer}` gives {len(names)} results, {', '.join(names)}, and one is needed here"
            return Mistake(message, e.span, hint=f"give them a name, r = ..., and write r[{names[0]}]")
        if is_constant(value):
            kind = "none" if value is None else "a string" if isinstance(value, str) else f"`{value}`"
            return Mistake(needed or f"`{text}` is {kind}, and a value is needed here", e.span)
        return Mistake(f"`{text}` is a function, and a value is needed here", e.span, hint=f"call it: {text}(...)")

    def condition(self, e: ast.Tree) -> bool:
        """A condition of ``if``: from arguments, and from which optional inputs are passed."""
        before, self.read = self.read, set()
        try:
            value = self.value(e)
        finally:
            self.read = before
        truth = self._truth(value, e)
        if truth is None:
            assert isinstance(value, Node)
            raise Mistake(
                f"`if` is decided when the layer is constructed, and this is {value.type}",
                e.span,
                hint="use where(condition, a, b) to choose while it runs",
            )
        return truth

    def is_optional(self, name: str) -> bool:
        return False

    # ------------------------------------------------------------------------ names and literals

    def _literal(self, e: Any) -> Value:
        value: Constant = e.value
        return value

    def _nothing(self, e: ast.Nothing) -> Value:
        return None

    def _name(self, e: ast.Name) -> Value:
        found = self.scope.find(e.id)
        if found is not KeyError:
            if e.id not in self.scope.local:
                self.read.add(e.id)
            if isinstance(found, Poison):
                raise Poisoned
            return found  # type: ignore[return-value]
        if e.id in CONSTANTS:
            return CONSTANTS[e.id]
        if e.id in self.free:
            return self.free[e.id]
        if e.id in ENDS:
            hint: str | None = "i and j are the two ends of an edge, as in x[j]"
        elif e.id in EDGES_OF_PAIRS:
            hint = "kj and ji are the two edges of a pair, as in e[kj]"
        elif self.is_function(e.id):
            hint = f"`{e.id}` is a function: call it, {e.id}(...)"
        else:
            known = [*self.scope.names, *self.scope.local, *self.free]
            name, _, end = e.id.rpartition("_")
            read = end in ("i", "j") and name in known
            hint = f"write {name}[{end}]" if read else ELSEWHERE.get(e.id) or did_you_mean(e.id, known)
        raise UnknownName(f"unknown name `{e.id}`", e.span, hint=hint)

    def is_function(self, name: str) -> bool:
        return False

    # -------------------------------------------------------------------------------- operators

    def _unary(self, e: ast.Unary) -> Value:
        value = self.value(e.operand)
        if e.op == "not":
            truth = self._truth(value, e.operand)
            return op("not", self.operand(value, e.operand)) if truth is None else not truth
        if is_number(value):
            return -value  # type: ignore[operator]
        return -self.operand(value, e.operand)

    def _binary(self, e: ast.Binary) -> Value:
        if e.op in ("and", "or"):
            return self._logic(e)
        left, right = self.both(e)
        if e.op in ("==", "!=") and (isinstance(left, _WORDS) or isinstance(right, _WORDS)):
            return self._same(left, right) == (e.op == "==")
        if e.op != "@" and self._known(left) and self._known(right):
            return self.compute(OPERATORS[e.op][1], [left, right], e)
        a, b = self.operand(left, e.left), self.operand(right, e.right)
        if e.op == "@":
            self.aligned([a, b], [e.left, e.right])
            self.has_dims([left, right], e)
            return build.matmul(dims.read_factor(a, b, [e.left, e.right], e), b)
        a, b = self.together([a, b], [e.left, e.right], e, e.op)
        if e.op == "**":
            return self.power(a, b, right)
        return op(OPERATORS[e.op][0], a, b)

    def both(self, e: ast.Binary) -> tuple[Value, Value]:
        """The two sides. When the left one has a mistake, the right one is looked at too."""
        try:
            left = self.value(e.left)
        except (Mistake, Poisoned):
            try:
                self.value(e.right)
            except Mistake as second:
                self.note(second.diagnostic)
            except Poisoned:
                pass
            raise
        return left, self.value(e.right)

    def has_dims(self, values: Sequence[Value], e: ast.Binary) -> None:
        for value, text in zip(values, (e.left, e.right), strict=True):
            if not isinstance(value, Node):
                message = f"`@` sums over a dim, and `{format.expression(text)}` is a number"
                raise Mistake(message, text.span, hint="write * to multiply by a number")

    def _logic(self, e: ast.Binary) -> Value:
        """`and` and `or`: decided now when the left side is known, as in Python; else a value."""
        left = self.value(e.left)
        known = self._truth(left, e.left)
        if known is not None and known == (e.op == "or"):
            return known
        right = self.value(e.right)
        if known is not None:  # the left side decides nothing
            truth = self._truth(right, e.right)
            return right if truth is None else truth
        a, b = self.operand(left, e.left), self.operand(right, e.right)
        a, b = self.together([a, b], [e.left, e.right], e, e.op)
        return op(e.op, a, b)

    def _truth(self, value: Value, e: ast.Tree) -> bool | None:
        """What a condition is when the layer is constructed; None when only the running layer can say."""
        if isinstance(value, Absent):
            return False
        if isinstance(value, Node):
            return True if isinstance(e, ast.Name) and self.is_optional(e.id) else None
        return bool(value) if is_constant(value) else True

    @staticmethod
    def _known(value: Value) -> bool:
        return isinstance(value, bool | int | float)

    @staticmethod
    def _same(left: Value, right: Value) -> bool:
        """Equality with none and with strings; an input that is absent is none."""
        a, b = (None if isinstance(v, Absent) else v for v in (left, right))
        return (a is None and b is None) or (isinstance(a, str) and a == b)

    def operand(self, value: Value, e: ast.Tree) -> Node:
        if isinstance(value, Node):
            return value
        if isinstance(value, bool):
            return build.const(value)
        if is_number(value):
            return build.const(value)  # type: ignore[arg-type]
        raise self.unusable(value, e)

    def power(self, a: Node, b: Node, exponent: Value) -> Node:
        """Small whole powers are products: exact, and right for negative numbers."""
        if exponent == 2:
            return a * a
        if exponent == 3:
            return a * a * a
        if exponent == 0.5:
            return op("sqrt", a)
        if exponent == -0.5:
            return op("rsqrt", a)
        return op("pow", a, b)

    def compute(self, function: Callable[..., Any], values: Sequence[Any], e: ast.Tree) -> Constant:
        """A function of numbers, now. Whole numbers that would grow without end are a mistake."""
        try:
            if isinstance(e, ast.Binary) and e.op == "**":
                base, exponent = values
                if abs(exponent) > 64 and isinstance(base, int) and abs(base) > 1:
                    values = [float(base), exponent]
            result = function(*values)
        except OverflowError:
            raise Mistake(f"`{format.expression(e)}` is too large", e.span) from None
        except (ArithmeticError, ValueError) as error:
            raise Mistake(f"`{format.expression(e)}` cannot be computed: {error}", e.span) from None
        if isinstance(result, complex):
            raise Mistake(f"`{format.expression(e)}` is not a real number", e.span)
        if isinstance(result, int) and abs(result) >= 2**63:
            raise Mistake(f"`{format.expression(e)}` is too large", e.span, hint="whole numbers are below 2**63")
        return result

    # -------------------------------------------------------------------------- domains and dims

    def together(self, nodes: Sequence[Node], texts: Sequence[ast.Tree], e: ast.Tree, name: str) -> list[Node]:
        """The operands of an operation, element by element: of one domain, and one of them with the dims of all.

        A product may have dims that only one factor has, unless they could be meant for each other.
        """
        self.aligned(nodes, texts)
        if self.pairs or len(nodes) < 2:
            return list(nodes)
        product = name in PRODUCTS
        nodes = list(nodes) if product else dims.read_primes(nodes)
        if product and not dims.related(*(n.type.names for n in nodes)):
            return nodes
        mistake = dims.refusal(name, e, nodes, texts)
        if mistake is not None:
            raise mistake
        return nodes

    def aligned(self, nodes: Sequence[Node], texts: Sequence[ast.Tree]) -> None:
        """Values that are taken together live in one domain, or are the same everywhere."""
        rows = [(n, t) for n, t in zip(nodes, texts, strict=True) if n.domain is not Domain.GLOBAL]
        for (a, ta), (b, tb) in itertools.pairwise(rows):
            if a.domain is b.domain:
                continue
            # Mark the value that has to be read somewhere else: a node value among edge values, or a graph
            # value among node values.
            inner = a.domain is Domain.PAIR or (a.domain is Domain.EDGE and b.domain is not Domain.PAIR)
            second_moves = inner or (b.domain is Domain.GRAPH and a.domain is Domain.NODE)
            n, t = (b, tb) if second_moves else (a, ta)
            first, second = sorted((a, b), key=lambda v: (v.domain is Domain.PAIR, v.domain is Domain.EDGE))
            raise Mistake(
                f"{_article(first.domain)} value and {_article(second.domain)} value do not mix",
                t.span,
                detail=f"{first.type} and {second.type}",
                hint=self._reading(n, t, a if n is b else b),
            )

    def _reading(self, n: Node, text: ast.Tree, beside: Node) -> str:
        other = beside.domain
        if other is Domain.PAIR:
            leaf = self._leaf(n, text)
            if n.domain is not Domain.EDGE:
                return f"read it at an edge, and that at the pair: {leaf}[j][ji], say"
            return f"did you mean {leaf}[kj] or {leaf}[ji]?"
        if other is Domain.EDGE:
            if n.domain is Domain.GRAPH:
                return "read a graph value at nodes with [g] first"
            return f"did you mean {self.at_an_end(n, text, beside)}?"
        if n.domain is Domain.GRAPH or other is Domain.GRAPH:
            graph = n.domain is Domain.GRAPH
            return f"did you mean {self._leaf(n, text)}[g]?" if graph else "read the graph value at each node with [g]"
        return "a source value meets a target value on an edge: read them with [j] and [i]"

    def at_an_end(self, n: Node, text: ast.Tree, beside: Node | None = None) -> str:
        """A node value in a text as it is read at an edge: at the end that its set is at or that its degrees are of,
        and where nothing tells, at the source."""
        if n.domain in (Domain.SOURCE, Domain.TARGET):
            return f"{self._leaf(n, text)}[{'i' if n.domain is Domain.TARGET else 'j'}]"
        ends = {
            str(a.id): None
            for part in ast.walk(text)
            if isinstance(part, ast.Call) and part.function == "degree"
            for a in part.arguments
            if isinstance(a, ast.Name) and a.id in ("i", "j")
        }
        if len(ends) > 1:
            return " and ".join(f"degree({end})[{end}]" for end in ends)
        end = next(iter(ends), None) or self.only_end(n, beside) or "j"
        return f"{self._leaf(n, text)}[{end}]"

    def _leaf(self, n: Node, text: ast.Tree) -> str:
        """The first name in the text that lives where the value does: what a writer would subscript."""
        for part in ast.walk(text):
            if isinstance(part, ast.Name):
                value = self.scope.find(part.id)
                if isinstance(value, Node) and value.domain is n.domain:
                    return part.id
        return format.expression(text) if isinstance(text, ast.Call) else f"({format.expression(text)})"

    _READ: dict[type, Callable[..., Value]] = {
        ast.Number: _literal,
        ast.Text: _literal,
        ast.Boolean: _literal,
        ast.Nothing: _nothing,
        ast.Name: _name,
        ast.Unary: _unary,
        ast.Binary: _binary,
    }


def _article(domain: Domain) -> str:
    return ("an " if domain.value[0] in "aeiou" else "a ") + domain.value
