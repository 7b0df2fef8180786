"""Expressions to IR nodes, or to constants when everything in them is known from the layer's arguments."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from gdsl.ir import build
from gdsl.ir.build import IRError
from gdsl.ir.library import op
from gdsl.ir.node import Node
from gdsl.ir.types import EDGES_OF_PAIRS, ENDS, PAIR_ENDS, Domain, Kind
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
MAX_SIZE = 2**40
# A product of sums is written out up to this many terms; beyond, it is a name of its own.
MAX_TERMS = 64


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

    # ------------------------------------------------------------------------------- subscripts

    def _subscript(self, e: ast.Subscript) -> Value:
        base = self.value(e.value)
        if isinstance(base, LayerResults):
            return self._result(base, e)
        if not isinstance(base, Node):
            if is_number(base) or isinstance(base, bool):
                base = build.const(base)  # type: ignore[arg-type]
            else:
                raise self.unusable(base, e.value)
        origins = {d.name: self.origins.get((base, d.name), 0) for d in base.dims}
        x = base
        for index in e.indices:
            if isinstance(index, ast.Name) and index.id in ENDS:
                x = self._read_at(x, index.id, e)
            elif isinstance(index, ast.Name) and index.id in EDGES_OF_PAIRS and index.id not in self.scope:
                x = self._read_at_pair(x, index.id, e)
            elif isinstance(index, ast.Name) and index.id == "reverse" and index.id not in self.scope:
                x = self.reversed(x, None, e)
            else:
                x = self._place(x, index, e, origins)
        return x

    def _over(self, e: ast.Over) -> Value:
        with self.walking(e.graph, e.name_span):
            value = self.value(e.value)
        if isinstance(e.value, ast.Number) or (isinstance(value, Node) and self.reads_no_edges(value)):
            hint = f"`over` is said of what stands right before it: (...) over {e.graph} takes more than that"
            message = f"`over {e.graph}` of `{format.expression(e.value)}`, which reads no edges"
            raise Mistake(message, e.span, hint=hint)
        return value

    def _result(self, base: LayerResults, e: ast.Subscript) -> Node:
        """One of the results of a layer, by its name or its place."""
        index = e.indices[0]
        names = [name for name, _ in base.values]
        if isinstance(index, ast.Name) and index.id in names:
            k = names.index(index.id)
        else:
            hint = f"by name, as in [{names[0]}], or by place, as in [0]"
            if isinstance(index, ast.Name) and index.id not in self.scope:
                raise Mistake(f"`{base.layer}` has no result `{index.id}`: it gives {', '.join(names)}", index.span)
            if len(e.indices) > 1 or not is_number(self.value(index)):
                raise Mistake(f"one of the results of `{base.layer}` has to be said first", e.span, hint=hint)
            k = self.integer(index, "a place")
            if not 0 <= k < len(names):
                raise Mistake(f"`{base.layer}` has {len(names)} results, {', '.join(names)}", index.span, hint=hint)
        if len(e.indices) > 1:
            hint = f"give it a name first, or write two brackets: r[{names[k]}][...]"
            raise Mistake(f"this says which result of `{base.layer}` is meant, and more", e.span, hint=hint)
        return base.values[k][1]

    def _read_at(self, x: Node, end: str, e: ast.Subscript) -> Node:
        if x.domain in (Domain.EDGE, Domain.PAIR):
            hint = f"leave out [{end}]"
            if x.domain is Domain.EDGE and end in PAIR_ENDS:
                hint += ", or read it at an edge of each pair: [kj] or [ji]"
            raise Mistake(f"{x.type} is already on {x.domain.value}s", e.span, hint=hint)
        return self.counted(build.gather(x, end), x)

    def _read_at_pair(self, x: Node, edge: str, e: ast.Subscript) -> Node:
        """An edge value at the first edge of each pair k -> j -> i, or at the second."""
        if x.domain is Domain.GLOBAL:
            return x
        if x.domain is not Domain.EDGE:
            at = {"kj": "[j][kj] for k, [i][kj] for j", "ji": "[j][ji] for j, [i][ji] for i"}[edge]
            hint = f"read it along the edges first: {at}" if x.domain is Domain.NODE else None
            raise Mistake(f"`[{edge}]` reads an edge value at a pair of edges, and this is {x.type}", e.span, hint=hint)
        self.one_set = self.one_set or e.span
        return self.counted(build.gather(x, EDGES_OF_PAIRS[edge]), x)

    def counted(self, result: Node, x: Node) -> Node:
        """A value read elsewhere, which counts along the same dim."""
        if x in self.counts:
            self.counts.setdefault(result, self.counts[x])
        return result

    def reversed(self, x: Node, default: float | None, e: ast.Subscript | ast.Call) -> Node:
        raise NotImplementedError

    def _place(self, x: Node, index: ast.Expression, e: ast.Subscript, origins: dict[str, int]) -> Node:
        value = self.value(index)
        if not x.dims:
            raise Mistake(f"`{format.expression(e.value)}` has no dim to pick a place of: it is {x.type}", e.span)
        if isinstance(value, Node):
            count = self.counts.get(value)
            dim = count if count in x.type.names else x.dims[0].name
            assert dim is not None
            if value.kind is Kind.INT:
                self.aligned([x, value], [e.value, index])
                bound, size = value.type.bound, x.type.dim(dim).size
                if bound is not None and bound > size:
                    message = f"an integer below {bound} cannot index dim `{dim}` of size {size}"
                    raise Mistake(message, e.span, sizes=((dim, bound),))
            return build.index(x, value, dim)
        k = self.integer(index, "an index")
        dim = self._counted_by(index, x) or x.dims[0].name
        size, start = x.type.dim(dim).size, origins.get(dim, 0)
        if not start <= k < start + size:
            raise Mistake(
                f"index {k} is outside dim `{dim}`, which runs from {start} to {start + size - 1}",
                index.span,
                detail=", ".join(f"here {name} = {value}" for name, value in self._loop_indices(index)),
                hint=self._index_hint(index, dim, start, size, k),
                sizes=((dim, k - start + 1),),
            )
        return build.select(x, dim, k - start)

    def _counted_by(self, index: ast.Expression, x: Node) -> str | None:
        """The dim that the running loop counts along, when the value has it."""
        for part in ast.walk(index):
            if isinstance(part, ast.Name) and part.id in self.loops:
                return next((d for d in self.loops[part.id] if d in x.type.names), None)
        return None

    def _loop_indices(self, index: ast.Expression) -> list[tuple[str, Value]]:
        names = [t.id for t in ast.walk(index) if isinstance(t, ast.Name) and t.id in self.loops]
        return [(name, self.scope.names[name]) for name in dict.fromkeys(names)]

    def _index_hint(self, index: ast.Expression, dim: str, start: int, size: int, k: int) -> str | None:
        text = format.expression(index)
        if start == 0 and k == size and isinstance(index, ast.Name):
            return f"places count from 0: write [{text} - 1], or declare the dim as `1..{dim}`"
        return None

    # ------------------------------------------------------------------------------------ sizes

    def size(self, e: ast.Tree) -> tuple[Size, int]:
        """A size expression: what its dim is called, and how large it is."""
        size, value = self._size(e)
        if not is_whole(value):
            raise Mistake(f"a size must be a whole number, and `{format.expression(e)}` is {value}", e.span)
        if not 0 <= value <= MAX_SIZE:
            raise Mistake(f"a size must be at least 0, and `{format.expression(e)}` is {int(value)}", e.span)
        return self.remember(size), int(value)

    def remember(self, size: Size) -> Size:
        self.sizes[str(size)] = size
        return size

    def size_named(self, name: str) -> Size:
        """The size expression behind a dim's name."""
        return self.sizes.get(name) or Size.symbol(name)

    def _size(self, e: ast.Tree) -> tuple[Size, int | float]:
        if isinstance(e, ast.Number):
            return Size.number(int(e.value)) if is_whole(e.value) else Size.symbol(str(e.value)), e.value
        if isinstance(e, ast.Name):
            return self._size_name(e)
        if isinstance(e, ast.Unary) and e.op == "-":
            size, value = self._size(e.operand)
            return -size, -value
        if isinstance(e, ast.Binary) and e.op in ("+", "-", "*", "/", "**"):
            (a, x), (b, y) = self._size(e.left), self._size(e.right)
            result: Any = self.compute(OPERATORS[e.op][1], [x, y], e)
            exact = {"+": Size.__add__, "-": Size.__sub__, "*": Size.__mul__}.get(e.op)
            if exact is not None and len(a.terms) * len(b.terms) <= MAX_TERMS:
                return exact(a, b), result
            if a.as_number() is not None and b.as_number() is not None and is_whole(result):
                return Size.number(int(result)), result
            return a.opaque(e.op, b), result
        return Size.symbol(format.expression(e).replace(" ", "")), self.number(e, "a size")

    def _size_name(self, e: ast.Name) -> tuple[Size, int | float]:
        base = e.id.rstrip("'")
        if base.isdigit():
            return Size.symbol(e.id), int(base)
        value = self.number(ast.Name(base, span=e.span), "a size")
        if base in self.called:
            size = self.called[base]
            return (size if e.id == base else Size.symbol(f"{size}{e.id[len(base) :]}")), value
        # The index of a loop means another size in every round: it counts as its number.
        return (Size.number(int(value)) if base in self.loops else Size.symbol(e.id)), value

    def dim_name(self, e: ast.Tree) -> str:
        """The dim in ``sum[d](x)`` or ``cat(a, b; d)``: a size, or a name that only a value knows."""
        if isinstance(e, ast.Name) and (e.id in self.sizes or not self._is_size(e)):
            return e.id
        return str(self.size(e)[0])

    def _is_size(self, e: ast.Name) -> bool:
        base = e.id.rstrip("'")
        return base.isdigit() or base in self.free or (base in self.scope and is_number(self.scope.find(base)))

    def dims_of(self, over: Sequence[ast.Tree], x: Node) -> list[str]:
        names = [self.dim_name(d) for d in over]
        for name, d in zip(names, over, strict=True):
            if name not in x.type.names:
                raise Mistake(f"no dim `{name}` in {x.type}", d.span, hint=did_you_mean(name, x.type.names))
        return names

    _READ: dict[type, Callable[..., Value]] = {
        ast.Number: _literal,
        ast.Text: _literal,
        ast.Boolean: _literal,
        ast.Nothing: _nothing,
        ast.Name: _name,
        ast.Unary: _unary,
        ast.Binary: _binary,
        ast.Subscript: _subscript,
        ast.Over: _over,
    }


def _article(domain: Domain) -> str:
    return ("an " if domain.value[0] in "aeiou" else "a ") + domain.value
