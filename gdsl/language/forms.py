"""Calls: the user's functions, reductions, and the built-in functions that take dims, ends or names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from gdsl.ir import build, library
from gdsl.ir.build import IRError
from gdsl.ir.harmonics import harmonics
from gdsl.ir.node import Node, walk
from gdsl.ir.types import EDGES_OF_PAIRS, Dim, Domain, Kind, Type
from gdsl.language import ast, format
from gdsl.language.errors import ELSEWHERE, Mistake, did_you_mean
from gdsl.language.functions import (
    FUNCTIONS,
    ORDERED_REDUCERS,
    REQUIRED,
    SEGMENT_REDUCERS,
    Function,
)
from gdsl.language.imports import library_hint
from gdsl.language.program import Requirement
from gdsl.language.reduction_calls import BY_A_KEY, OVER_EDGES, ReductionCalls
from gdsl.language.shapes import SHAPES
from gdsl.language.sizes import Size
from gdsl.language.values import (
    Absent,
    LayerValue,
    ModuleValue,
    Poison,
    Poisoned,
    Scope,
    UserFunction,
    UserReducer,
    Value,
)

MAX_CALL_DEPTH = 40
MAX_CALLS = 10_000


class Forms(ReductionCalls):
    """Expressions with calls."""

    def __init__(self, scope: Scope, *, training: bool):
        super().__init__(scope)
        self.training = training
        self.uses_seed = False
        self.salts = 0
        self.call_depth = 0
        self.calls = 0
        self.call_layer: Callable[[LayerValue, ast.Call], Value]

    def is_function(self, name: str) -> bool:
        return name in FUNCTIONS or name in SPECIAL or name in SEGMENT_REDUCERS or name in ORDERED_REDUCERS

    def is_optional(self, name: str) -> bool:
        return False

    # ----------------------------------------------------------------------------- dispatch

    def _call(self, e: ast.Call) -> Value:
        # Only the outermost call of an `aggregate` rule reduces: in sum(nn(x[j])) the module works on edges.
        aggregating, self.aggregating = self.aggregating, False
        try:
            return self._dispatch(e, aggregating)
        finally:
            self.aggregating = aggregating

    def _dispatch(self, e: ast.Call, aggregating: bool) -> Value:
        found = self.scope.find(e.function)
        if isinstance(found, UserFunction):
            return self._user_function(found, e)
        if isinstance(found, UserReducer):
            return self._user_reducer(found, e)
        if isinstance(found, ModuleValue | Absent):
            return self._module(found, e, aggregating)
        if isinstance(found, LayerValue):
            return self.call_layer(found, e)
        if e.over:
            return self._over_dims(e)
        if self._is_segment(e):
            return self._segment(e)
        if e.by is not None and e.function in OVER_EDGES and e.function not in BY_A_KEY:
            raise Mistake(f"`{e.function}` has no `by`", e.span)
        if (e.by is not None or e.at) and e.function not in OVER_EDGES:
            raise Mistake(
                f"`{e.function}` is not a reduction over edges, so it takes no `{'by' if e.by else 'at'}`",
                e.span,
            )
        if e.function in SPECIAL:
            return SPECIAL[e.function](self, e)
        if e.function in FUNCTIONS:
            return self._plain(FUNCTIONS[e.function], e)
        if found is not KeyError:
            if isinstance(found, Poison):
                raise Poisoned
            hint = "write * for a product, and [i] or [j] to read a node value at an end of an edge"
            raise Mistake(f"`{e.function}` is a value and cannot be called", e.name_span, hint=hint)
        known = [*FUNCTIONS, *SPECIAL, *SEGMENT_REDUCERS, *ORDERED_REDUCERS, *self.scope.names]
        meant = ELSEWHERE.get(e.function) or library_hint(e.function) or did_you_mean(e.function, known)
        raise Mistake(f"unknown function `{e.function}`", e.name_span, hint=meant)

    def _plain(self, f: Function, e: ast.Call) -> Value:
        arguments = self.bind(e, f.parameters, f.variadic)
        values = [self.value(a) if isinstance(a, ast.Tree) else a for a in arguments]
        if f.number is not None and all(self._known(v) for v in values):
            return self.compute(f.number, values, e)
        pairs: list[tuple[Node, ast.Tree]] = []
        for value, text in zip(values, arguments, strict=True):
            if isinstance(text, ast.Tree):
                pairs.append((self.operand(value, text), text))
        given = iter(self.together([n for n, _ in pairs], [t for _, t in pairs], e, e.function))
        operands = [next(given) if isinstance(text, ast.Tree) else float(text) for text in arguments]
        node = f.node(*operands)
        if e.function == "where" and isinstance(values[0], bool):
            # A choice that is known already is the chosen value, unless the other one has dims that it lacks.
            chosen = operands[1] if values[0] else operands[2]
            return chosen if isinstance(chosen, Node) and chosen.type == node.type else node
        return node

    # ------------------------------------------------------------------------------ user's own

    def _user_function(self, f: UserFunction, e: ast.Call) -> Value:
        definition = f.definition
        arguments = self.bind(e, [(name, REQUIRED) for name in definition.parameters])
        values = [self.value(a) for a in arguments]
        if self.call_depth >= MAX_CALL_DEPTH:
            raise Mistake(
                f"`{definition.name}` calls itself, or calls are nested more than {MAX_CALL_DEPTH} deep",
                e.span,
                hint="repeat with `for k in a..b { ... }`",
            )
        self.calls += 1
        if self.calls > MAX_CALLS:
            message = f"the program has more than {MAX_CALLS} calls once those inside functions are written out"
            raise Mistake(message, e.span, hint="give a value that is used twice a name")
        outer = self.scope.local
        self.scope.local = dict(zip(definition.parameters, values, strict=True))
        self.call_depth += 1
        try:
            return self.value(definition.body)
        except Mistake as mistake:
            # What is wrong depends on the arguments: point at the call, and say where it leads.
            inner = mistake.diagnostic
            if self.call_depth > 1 or inner.detail:
                raise
            where = f"in `{definition.name}`, line {inner.span.line}: {format.expression(definition.body)}"
            raise Mistake(inner.message, e.span, detail=where, hint=inner.hint, sizes=inner.sizes) from None
        finally:
            self.call_depth -= 1
            self.scope.local = outer

    def _user_reducer(self, r: UserReducer, e: ast.Call) -> Value:
        definition = r.definition
        messages = definition.parameters[1:]
        arguments = self.only(e, *messages)
        values = [self.node(a) for a in arguments]
        end, rows = self.over(e, values)
        if rows is Domain.EDGE:
            message = f"`{e.function}` takes edges one after the other, and the pairs of an edge have no order"
            raise Mistake(message, e.span)
        nodes = [self.element(x, a, end, rows) for x, a in zip(values, arguments, strict=True)]
        nodes = self.together(nodes, arguments, e, e.function)
        acc = build.load("acc", Type(Domain.GLOBAL), "input")
        loads = [build.load(str(k), Type(Domain.GLOBAL), "input") for k in range(len(messages))]
        outer = self.scope.local
        self.scope.local = dict(zip(definition.parameters, [acc, *loads], strict=True))
        try:
            step = self.node(definition.body)
        finally:
            self.scope.local = outer
        for node in walk([step]):
            if node.domain is not Domain.GLOBAL or node.dims or (node.op == "load" and node not in (acc, *loads)):
                raise Mistake(
                    f"`reduce {definition.name}` works on one number at a time, and reads {node.type}",
                    definition.body.span,
                    hint="compute it in a message before the reduction",
                )
        return self.reduced(nodes[0], end, build.scan(nodes, end, build.to_float(step), r.initial, row_domain=rows))

    # ---------------------------------------------------------------------------------- numbers

    def _int(self, e: ast.Call) -> Value:
        """A number as an integer below a bound, so that it can pick a place."""
        text, bound = self.only(e, "x", "bound")
        x = self.node(text)
        size, value = self.size(bound)
        if x.kind is not Kind.FLOAT:
            raise Mistake(f"`int` takes real numbers, and this is {x.type}", text.span)
        if value < 1:
            raise Mistake(f"a bound is at least 1, not {value}", bound.span)
        result = build.to_int(x, value)
        self.counts[result] = str(size)
        return result

    def _norm(self, e: ast.Call) -> Value:
        (text,) = self.only(e, "x")
        x = self.node(text)
        return library.dim_norm(x, [library.last_dim(x)])

    # ----------------------------------------------------------------------------------- others

    def _reverse(self, e: ast.Call) -> Value:
        text, default = self.only(e, "x", "default")
        return self.reversed(self.node(text), float(self.number(default, "the default")), e)

    def reversed(self, x: Node, default: float | None, e: ast.Subscript | ast.Call) -> Node:
        """The value at the edge that goes the other way. Without a default the graph must have one for each edge."""
        if x.domain is Domain.GLOBAL:
            return x
        if x.domain is not Domain.EDGE:
            hint = "read it along the edges: the source [j] is the target of the reverse"
            raise Mistake(f"only edges have a reverse, and this is {x.type}", e.span, hint=hint)
        self.one_set = self.one_set or e.span
        if default is None:
            self.requires.append(Requirement("reverse", "reverse", 1, e.span, self.graph_that_has([x], e)))
        return self.counted(build.reverse(x, default or 0.0), x)

    def _degree(self, e: ast.Call) -> Value:
        (text,) = self.only(e, "at")
        self.note_edges()
        if isinstance(text, ast.Name) and text.id in ("i", "j"):
            return library.segment_count(text.id, self.rows(text.id))
        if isinstance(text, ast.Name) and text.id in EDGES_OF_PAIRS:
            self.one_set = self.one_set or text.span
            return library.segment_count(EDGES_OF_PAIRS[text.id], Domain.EDGE)
        x = self.node(text)
        end, rows = self.over(e, [x])
        return library.segment_sum(self.element(x, text, end, rows), end, rows)

    def _dropout(self, e: ast.Call) -> Value:
        text, rate = self.only(e, "x", "p")
        x, p = self.node(text), self.number(rate, "the dropout rate")
        if not 0.0 <= p <= 1.0:
            raise Mistake(f"a dropout rate is between 0 and 1, not {p}", rate.span)
        where = self.stand_in(text, x)
        _drawn(where or x.domain)
        return self.drop(x, p, where)

    def drop(self, x: Node, p: float, where: Domain | None = None) -> Node:
        """x, with numbers dropped in training.

        where: of the default of an input that was not passed
        """
        return self.dropped(x, p, where) if self.training and p != 0 else x

    def dropped(self, x: Node, p: float, where: Domain | None = None) -> Node:
        """x, with each number 0 with probability p and scaled up otherwise."""
        x = build.to_float(x)
        if x.domain is Domain.GLOBAL and not any(n.op == "load" for n in walk([x])):
            where = where or Domain.EDGE
        x = x if where is None else build.spread(x, where)
        _drawn(x.domain)
        if p == 1:
            return x * 0.0
        self.uses_seed = True
        self.salts += 1
        seed = build.load("seed", Type(Domain.GLOBAL, (), Kind.INT), "seed")
        drawn = build.random(seed, self.salts, x.domain, x.dims)
        return library.where(drawn < float(p), 0.0, x * (1.0 / (1.0 - p)))

    def _one_hot(self, e: ast.Call) -> Value:
        (text,) = self.only(e, "index")
        x = self.node(text)
        if x.kind is not Kind.INT or x.type.bound is None:
            raise Mistake(f"one_hot needs an integer with a bound, not {x.type}", text.span)
        name = self.dim_name(e.dims[0]) if e.dims else self.counts.get(x) or str(x.type.bound)
        return library.one_hot(x, Dim(name, x.type.bound))

    def _spline(self, e: ast.Call) -> Value:
        text, kernel, degree = self.only(e, "pseudo", "kernel_size", "degree")
        x, size = self.node(text), self.integer(kernel, "the kernel size")
        name = self.dim_name(e.dims[0]) if e.dims else "bspline"
        result: Node = getattr(build, e.function)(x, size, self.integer(degree, "the degree"), name)
        if e.function == "bspline_index":
            base = self.size(kernel)[0]
            power = Size.symbol(library.last_dim(x))
            self.counts[result] = str(base.opaque("**", power))
        return result

    def _harmonics(self, e: ast.Call) -> Value:
        parameters = [("v", REQUIRED), ("degree", REQUIRED), ("normalize", True)]
        text, highest, of_direction = self.bind(replace(e, dims=()), parameters)
        v, degree = self.node(text), self.integer(highest, "the degree")
        normalize = self.value(of_direction) if isinstance(of_direction, ast.Tree) else of_direction
        if not isinstance(normalize, bool):
            raise Mistake("`normalize` is true or false", of_direction.span)
        places = (degree + 1) ** 2
        if not e.dims:
            return harmonics(v, degree, str(self.remember(Size.number(places))), normalize)
        name, known = self.dim_name(e.dims[0]), self._known_size(e.dims[0])
        if known not in (None, places):
            message = f"`harmonics` of degree {degree} are {places}, and `{name}` has size {known}"
            raise Mistake(message, e.dims[0].span, sizes=((name, places),))
        return harmonics(v, degree, name, normalize)

    def _present(self, e: ast.Call) -> Value:
        (text,) = self.only(e, "name")
        if not isinstance(text, ast.Name) or not self.is_optional(text.id):
            raise Mistake("present needs the name of an optional input", text.span)
        return not isinstance(self.scope.find(text.id), Absent) and self.is_passed(text.id)

    def is_passed(self, name: str) -> bool:
        return True

    _READ = {**ReductionCalls._READ, ast.Call: _call}


def _drawn(domain: Domain) -> None:
    if domain is Domain.PAIR:
        hint = "drop numbers of edges, before they are read at pairs"
        raise IRError("no number is drawn for each pair of edges", hint)


SPECIAL: dict[str, Callable[[Forms, ast.Call], Value]] = {
    **SHAPES,
    **OVER_EDGES,
    "int": Forms._int,
    "norm": Forms._norm,
    "degree": Forms._degree,
    "reverse": Forms._reverse,
    "dropout": Forms._dropout,
    "one_hot": Forms._one_hot,
    "bspline": Forms._spline,
    "bspline_index": Forms._spline,
    "harmonics": Forms._harmonics,
    "present": Forms._present,
}
