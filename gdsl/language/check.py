"""Elaboration: a layer's syntax tree and its arguments to a typed program of IR nodes.

One pass over the statements in the order of the text. Loops are unrolled and branches taken, since what they
depend on is known here. A statement with a mistake is noted, its name is poisoned so that it causes no
further mistakes, and the pass goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from gdsl.ir import build
from gdsl.ir.node import Node, walk
from gdsl.ir.types import Domain
from gdsl.language import ast, format
from gdsl.language.errors import Diagnostic, LanguageError, Mistake, did_you_mean
from gdsl.language.expressions import Watch
from gdsl.language.layer_calls import LayerCalls
from gdsl.language.owned import Owns
from gdsl.language.program import (
    Constant,
    ConstantTable,
    Declaration,
    Rule,
    TypedProgram,
    table_of,
    why_no_table,
)
from gdsl.language.signature import Signature
from gdsl.language.transforms import TRANSFORMS, Transforms
from gdsl.language.values import POISON, LayerResults, LayerValue, Poisoned, UserFunction, UserReducer, is_constant

MAX_STATEMENTS = 10_000
MAX_ERRORS = 20

# Where the value of each kind of rule may live, and what to do about one that lives elsewhere.
_RULE_DOMAINS: dict[str, tuple[tuple[Domain, ...], str]] = {
    "message": ((Domain.EDGE, Domain.PAIR), "an edge value"),
    "aggregate": ((Domain.NODE, Domain.SOURCE, Domain.TARGET), "a node value"),
    "update": ((Domain.NODE, Domain.SOURCE, Domain.TARGET), "a node value"),
    "pool": ((Domain.GRAPH,), "a graph value"),
}


def check(
    layer: ast.Layer,
    arguments: Mapping[str, object],
    *,
    modules: Mapping[str, Any] | None = None,
    training: bool = False,
    present: Collection[str] | None = None,
    free_dims: Mapping[str, int] | None = None,
    signature: Signature | None = None,
    watch: Watch | None = None,
) -> TypedProgram:
    """The typed program of a layer. Raises :class:`LanguageError` with every mistake found.

    arguments: the layer's arguments; those with a default may be left out
    modules:   a torch module for each ``module``, or UNKNOWN for one that is there but not looked at: that one, and
               one that is missing, is taken to keep the dims of its argument
    training:  whether dropout is active
    present:   the optional inputs that are passed; by default none is
    free_dims: sizes of the dims of inputs that are no arguments
    signature: of the layer, where it is known already
    watch:     is told what each expression stands for, also in a program with mistakes
    """
    checker = Checker(layer, modules or {}, training, frozenset(present or ()), free_dims or {}, signature)
    checker.forms.watch = watch
    return checker.run(arguments)


class Checker(LayerCalls, Transforms):
    """Goes through the statements of one layer."""

    def run(self, arguments: Mapping[str, object]) -> TypedProgram:
        bound = self.elaborate(arguments)
        if self.forms.bipartite and self.forms.one_set is not None:
            message = "edges from sources to targets have no reverse, and none begins where another ends"
            self.note(Diagnostic(message, self.forms.one_set))
        transforms = () if self.mistakes else self.agreed()
        self.nothing_on_pairs(transforms)
        self.finish_graphs(transforms)
        if self.mistakes:
            found = list(self.mistakes.values())[:MAX_ERRORS]
            raise LanguageError(found, self.layer.source, self.layer.name)
        assert self.results is not None
        return TypedProgram(
            name=self.layer.name,
            arguments=tuple(bound.items()),
            declarations=tuple(self.declarations),
            transforms=transforms,
            rules=tuple(self.rules),
            outputs=self.results,
            names=self.names,
            bipartite=self.forms.bipartite,
            uses_seed=self.forms.uses_seed,
            training=self.forms.training,
            requires=tuple(self.forms.requires),
            graphs=tuple(self.graphs.values()),
            doc=self.layer.doc,
            reductions=tuple(self.forms.looks.reductions),
            softmaxes=tuple(self.forms.looks.softmaxes),
        )

    def elaborate(self, arguments: Mapping[str, object]) -> dict[str, Constant]:
        """Go through all statements: what is found is in the attributes. The arguments, with their defaults."""
        bound = self.bound = self.bind(arguments)
        self.scope.names.update((name, LayerValue(used)) for name, used in self.layer.uses)
        self.scope.names.update((name, v) for name, v in bound.items() if not isinstance(v, ConstantTable))
        if not self.mistakes:
            self.block(self.layer.body)
        if not self.mistakes and self.results is None:
            self.finish()
        return bound

    # ------------------------------------------------------------------------------- arguments

    def bind(self, arguments: Mapping[str, object]) -> dict[str, Constant]:
        head = replace_end(self.layer.span, self.layer.source)
        known = {p.name: p for p in self.signature.arguments}
        for name in arguments:
            if name not in known:
                hint = self._of_its_own(name) or did_you_mean(
                    name, known, f"its arguments are {', '.join(known)}" if known else None
                )
                self.note(Diagnostic(f"{self.layer.name} has no argument `{name}`", head, hint=hint))
        bound: dict[str, Constant] = {}
        for name, parameter in known.items():
            if name not in arguments:
                if parameter.required:
                    self.note(Diagnostic(f"{self.layer.name} needs a value for `{name}`", parameter.span))
                bound[name] = parameter.default
                continue
            value = arguments[name]
            if name in self.signature.tables:
                given, value = value, table_of(value)
                if value is None:
                    message = f"`{name}` is a table of finite numbers: nested lists, an array or a dense tensor"
                    self.note(Diagnostic(message, parameter.span, hint=why_no_table(given, name)))
            elif not is_constant(value):
                message = f"`{name}` must be a number, true or false, a string or none, not {type(value).__name__}"
                self.note(Diagnostic(message, parameter.span))
                value = None
            elif isinstance(parameter.default, bool) and value not in (True, False, None):
                message = f"`{name}` is true or false, not {format.default_value(value)}"  # type: ignore[arg-type]
                self.note(Diagnostic(message, parameter.span))
            bound[name] = value  # type: ignore[assignment]
        return bound

    def _of_its_own(self, name: str) -> str | None:
        """What to do where a param or buffer is given as an argument."""
        declared = (s for s in ast.walk(self.layer) if isinstance(s, ast.Declaration) and s.name == name)
        role = next((s.role for s in declared if s.role in ("param", "buffer")), None)
        if role is None:
            return None
        return (
            f"`{name}` is a {role}, which starts as the text says, as in `~ [1, 2, 3]`: copy numbers into it "
            f"afterwards, or declare a table of numbers that are given, `const {name}[...]`"
        )

    # ------------------------------------------------------------------------------ statements

    def block(self, body: Sequence[ast.Statement]) -> None:
        for statement in body:
            self.statements += 1
            if self.statements > MAX_STATEMENTS:
                message = f"the program has more than {MAX_STATEMENTS} statements once its loops are written out"
                if self.statements == MAX_STATEMENTS + 1:
                    self.note(Diagnostic(message, statement.span))
                return
            self.statement(statement)

    def statement(self, s: ast.Statement) -> None:
        try:
            self._CHECK[type(s)](self, s)
            return
        except Mistake as mistake:
            self.note(mistake.diagnostic)
        except build.IRError as error:
            self.note(Diagnostic(error.message, s.span, hint=error.hint))
        except RecursionError:
            self.note(Diagnostic("this is nested too deeply", s.span, hint="give the inner expressions names"))
        except Poisoned:
            pass
        finally:
            self._take_module_params()
        for name in self._meant(s):
            self.scope.names[name] = POISON
        if isinstance(s, ast.Rule) and s.kind in ("update", "pool"):
            self.result_poisoned = True

    def _meant(self, s: ast.Statement) -> list[str]:
        """The names that a mistaken statement would have given a meaning."""
        if not isinstance(s, ast.Transform):
            name = getattr(s, "name", None)
            return [name] if isinstance(name, str) else []
        if s.name in TRANSFORMS and s.name != "symmetric_norm":
            return []
        return ["norm", *(a.id for a in s.arguments if isinstance(a, ast.Name) and a.id not in self.scope)]

    # ------------------------------------------------------------------------------------ rules

    def _rule(self, s: ast.Rule) -> None:
        self.forms.pooling, self.forms.aggregating = s.kind == "pool", s.kind == "aggregate"
        try:
            with self.forms.walking(s.over, s.over_span):
                value = self.forms.node(s.value) if s.kind else self.forms.value(s.value)
                if s.kind and isinstance(value, Node):
                    value = self.forms.placed(self._in_domain(s, value), s.value)
        finally:
            self.forms.pooling = self.forms.aggregating = False
        if isinstance(value, Node):
            self.rules.append(
                Rule(
                    s.kind or "define",
                    s.name,
                    format.statement(s, self.loop_values),
                    value.type,
                    value,
                    s.span,
                )
            )
            if s.kind == "message":
                self.forms.looks.messages.add(value)
            self.call_it(value, s.name)
            self.made.append((s.name, value, s.span))
            where = self.forms.stand_in(s.value, value)
            self.forms.stand_ins.pop(s.name, None)
            if where is not None:
                self.forms.stand_ins[s.name] = where
            if s.kind in ("update", "pool"):
                self.result_rule = (s.name, value)
        elif not is_constant(value) and (s.kind or not isinstance(value, LayerResults)):
            raise self.forms.unusable(value, s.value)
        self.bring(s.name, value, s.name_span)

    def _in_domain(self, s: ast.Rule, value: Node) -> Node:
        domains, what = _RULE_DOMAINS[s.kind]
        # What pairs are reduced to is an edge value.
        of_pairs = s.kind == "aggregate" and value.domain is Domain.EDGE
        if value.domain in domains or (of_pairs and any(n.domain is Domain.PAIR for n in walk([value]))):
            return value
        if value.domain is Domain.GLOBAL and s.kind != "pool":
            return build.spread(value, domains[0] if s.kind == "message" else self.forms.rows("i"))
        read = f"did you mean {self.forms.at_an_end(value, s.value)}?"
        hints = {
            ("message", Domain.NODE): read,
            ("message", Domain.SOURCE): read,
            ("message", Domain.TARGET): read,
            ("update", Domain.EDGE): f"aggregate it first: aggregate a = sum({format.expression(s.value)})",
            (
                "aggregate",
                Domain.EDGE,
            ): f"reduce it over the edges of each node: sum({format.expression(s.value)})",
            ("pool", Domain.NODE): f"reduce it over each graph: sum({format.expression(s.value)})",
        }
        raise Mistake(
            f"`{s.kind}` gives {what}, and this is {value.type}",
            s.value.span,
            hint=hints.get((s.kind, value.domain)),
        )

    def _take_module_params(self) -> None:
        """What expressions read out of torch modules is declared by its use."""
        for name, param in self.forms.module_params.items():
            if name not in self.declared:
                self.declared[name] = self.layer.span
                role = "buffer" if param.buffer else "param"
                self.declarations.append(Declaration(name, role, param.type, module=name.split(".")[0]))

    def _function(self, s: ast.Function) -> None:
        self._distinct(s.parameters, s)
        self.bring(s.name, UserFunction(s), s.span)

    def _reducer(self, s: ast.Reducer) -> None:
        self._distinct(s.parameters, s)
        if len(s.parameters) < 2:
            raise Mistake("a reduction needs an accumulator and a message", s.span, hint="as in reduce f(acc, m)")
        initial = float(self.forms.number(s.initial, "the first value of a reduction"))
        self.bring(s.name, UserReducer(s, initial), s.span)

    def _distinct(self, parameters: Iterable[str], s: ast.Function | ast.Reducer) -> None:
        seen: set[str] = set()
        for name in parameters:
            if name in seen:
                raise Mistake(f"parameter `{name}` occurs twice", s.span)
            seen.add(name)

    # -------------------------------------------------------------------------------- structure

    def _loop(self, s: ast.Loop) -> None:
        first = self.forms.integer(s.start, "the start of a loop")
        last = self.forms.integer(s.stop, "the end of a loop")
        if s.name in ("i", "j", "g"):
            hint = "call it k: i, j and g say where a value is read"
            raise Mistake(f"`{s.name}` cannot be the index of a loop", s.span, hint=hint)
        if s.name in self.scope:
            raise Mistake(f"`{s.name}` has a meaning already and cannot be the index of a loop", s.span)
        if last - first >= MAX_STATEMENTS:
            message = f"the program has more than {MAX_STATEMENTS} statements once its loops are written out"
            raise Mistake(message, s.span)
        counts = self._loop_dims(s)
        try:
            for k in range(first, last + 1):
                self.scope.names[s.name] = k
                self.loop_values[s.name] = k
                self.forms.loops[s.name] = counts
                self.block(s.body)
                if self.statements > MAX_STATEMENTS:
                    break
        finally:
            self.scope.names.pop(s.name, None)
            self.loop_values.pop(s.name, None)
            self.forms.loops.pop(s.name, None)

    def _loop_dims(self, s: ast.Loop) -> tuple[str, ...]:
        """The dims an index over ``a..b`` may count along: with ``b - a + 1`` or ``b + 1`` places."""
        try:
            start, stop = self.forms._size(s.start)[0], self.forms._size(s.stop)[0]
        except Mistake:
            return ()
        one = type(stop).number(1)
        return tuple(str(size) for size in (stop - start + one, stop + one, stop))

    def _branch(self, s: ast.Branch) -> None:
        self.block(s.then if self.forms.condition(s.condition) else s.otherwise)

    def _spread(self, e: ast.Expression, value: Node) -> Node:
        """A result where it would live, were the optional inputs in it passed."""
        where = self.forms.stand_in(e, value)
        return value if where is None else build.spread(value, where)

    def _return(self, s: ast.Return) -> None:
        if self.loop_values:
            raise Mistake("`return` stands outside loops", s.span)
        results: list[tuple[str, Node]] = []
        for k, e in enumerate(s.values):
            name = e.id if isinstance(e, ast.Name) else f"out{k + 1}"
            value = self.forms.node(e)
            if value.domain is Domain.PAIR:
                message = f"no value of pairs is stored, and this is {value.type}"
                raise Mistake(message, e.span, hint="reduce it to edges")
            results.append((name, self.forms.with_space(self._spread(e, value), e)))
            if not isinstance(e, ast.Name):
                self.call_it(results[-1][1], name)
        if self.results is None:
            self.results = tuple(results)

    def finish(self) -> None:
        """Without ``return``, the last ``update`` or ``pool`` is the result."""
        if self.result_rule is not None:
            self.results = (self.result_rule,)
        elif not self.result_poisoned:
            head = replace_end(self.layer.span, self.layer.source)
            self.note(Diagnostic("the layer has no result", head, hint="end it with `update y = ...` or `return y`"))

    _CHECK: dict[type, Callable[[Checker, Any], None]] = {
        ast.Declaration: Owns._declaration,
        ast.Constant: Owns._constant,
        ast.Module: Owns._module,
        ast.Owned: Owns._owned,
        ast.Instance: LayerCalls._instance,
        ast.Transform: Transforms._transform,
        ast.Sets: Owns._sets,
        ast.Graphs: Owns._graphs,
        ast.Rule: _rule,
        ast.Function: _function,
        ast.Reducer: _reducer,
        ast.Loop: _loop,
        ast.Branch: _branch,
        ast.Return: _return,
    }


def replace_end(span: ast.Span, source: str) -> ast.Span:
    """The first line of a span: the header of a layer."""
    end = source.find("{", span.start)
    return replace(span, end=len(source[:end].rstrip()) if end > span.start else span.end)
