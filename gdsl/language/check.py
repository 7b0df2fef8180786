"""Elaboration: a layer's syntax tree and its arguments to a typed program of IR nodes.

One pass over the statements in the order of the text. Loops are unrolled and branches taken, since what they
depend on is known here. A statement with a mistake is noted, its name is poisoned so that it causes no
further mistakes, and the pass goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from gdsl.ir import build, library
from gdsl.ir.node import Node
from gdsl.ir.types import Dim, Domain, Kind, Type
from gdsl.language import ast, format
from gdsl.language.errors import Diagnostic, LanguageError, Mistake, did_you_mean
from gdsl.language.expressions import MAX_SIZE
from gdsl.language.forms import Forms
from gdsl.language.program import INITS, Constant, Declaration, GraphTransform, Init, Rule, TypedProgram
from gdsl.language.signature import signature_of
from gdsl.language.values import (
    POISON,
    UNKNOWN,
    Absent,
    ModuleValue,
    Poisoned,
    Scope,
    UserFunction,
    UserReducer,
    Value,
    is_constant,
    is_number,
)

MAX_STATEMENTS = 10_000
MAX_ERRORS = 20

# What the graph can be asked to be: the least and greatest number of arguments, and the keywords besides the
# names of edge inputs. `symmetric_norm` asks nothing: it is arithmetic on degrees.
TRANSFORMS: dict[str, tuple[int, int, tuple[str, ...]]] = {
    "add_self_loops": (0, 0, ()),
    "add_remaining_self_loops": (0, 0, ()),
    "remove_self_loops": (0, 0, ()),
    "knn": (2, 2, ("loop",)),
    "symmetric_norm": (0, 1, ()),
}
FILLS = ("sum", "add", "mean", "max", "min", "mul")

_DOMAINS = {
    "node": Domain.NODE,
    "source": Domain.SOURCE,
    "target": Domain.TARGET,
    "edge": Domain.EDGE,
    "graph": Domain.GRAPH,
    "param": Domain.GLOBAL,
    "buffer": Domain.GLOBAL,
}
# Where the value of each kind of rule may live, and what to do about one that lives elsewhere.
_RULE_DOMAINS: dict[str, tuple[tuple[Domain, ...], str]] = {
    "message": ((Domain.EDGE,), "an edge value"),
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
) -> TypedProgram:
    """The typed program of a layer. Raises :class:`LanguageError` with every mistake found.

    arguments: the layer's arguments; those with a default may be left out
    modules:   a torch module for each ``module``, or UNKNOWN for one that is there but not looked at: that one, and
               one that is missing, is taken to keep the dims of its argument
    training:  whether dropout is active
    present:   the optional inputs that are passed; by default none is
    free_dims: sizes of the dims of inputs that are no arguments
    """
    checker = Checker(layer, modules or {}, training, frozenset(present or ()), free_dims or {})
    return checker.run(arguments)


class Checker:
    """Goes through the statements of one layer."""

    def __init__(
        self,
        layer: ast.Layer,
        modules: Mapping[str, Any],
        training: bool,
        present: frozenset[str],
        free_dims: Mapping[str, int],
    ):
        self.layer = layer
        self.modules = modules
        self.present = present
        self.signature = signature_of(layer)
        self.scope = Scope()
        self.mistakes: dict[tuple[str, int], Diagnostic] = {}
        self.forms = _Forms(self.scope, self.note, training=training)
        self.forms.free = {name: size for name, size in free_dims.items() if name in self.signature.free_dims}
        self.statements = 0
        self.declarations: list[Declaration] = []
        self.declared: dict[str, ast.Span] = {}
        # Names for values that are the same on every edge only because an optional input was not passed.
        self.transforms: list[GraphTransform] = []
        self.rules: list[Rule] = []
        self.names: dict[Node, str] = {}
        self.used_names: dict[str, int] = {}
        self.results: tuple[tuple[str, Node], ...] | None = None
        self.result_rule: tuple[str, Node] | None = None
        self.result_poisoned = False
        self.loop_values: dict[str, int] = {}

    def run(self, arguments: Mapping[str, object]) -> TypedProgram:
        bound = self.bind(arguments)
        self.scope.names.update(bound)
        if not self.mistakes:
            self.block(self.layer.body)
        if not self.mistakes and self.results is None:
            self.finish()
        if self.mistakes:
            found = list(self.mistakes.values())[:MAX_ERRORS]
            raise LanguageError(found, self.layer.source, self.layer.name)
        assert self.results is not None
        return TypedProgram(
            name=self.layer.name,
            layer=self.layer,
            arguments=tuple(bound.items()),
            declarations=tuple(self.declarations),
            transforms=tuple(self.transforms),
            rules=tuple(self.rules),
            outputs=self.results,
            names=self.names,
            bipartite=self.forms.bipartite,
            uses_seed=self.forms.uses_seed,
            training=self.forms.training,
            requires=tuple(self.forms.requires),
            doc=self.layer.doc,
        )

    def note(self, mistake: Diagnostic) -> None:
        """Each mistake once, however often a loop meets it."""
        self.mistakes.setdefault((mistake.message, mistake.span.start), mistake)

    # ------------------------------------------------------------------------------- arguments

    def bind(self, arguments: Mapping[str, object]) -> dict[str, Constant]:
        head = replace_end(self.layer.span, self.layer.source)
        known = {p.name: p for p in self.layer.parameters}
        for name in arguments:
            if name not in known:
                hint = did_you_mean(name, known, f"its arguments are {', '.join(known)}" if known else None)
                self.note(Diagnostic(f"{self.layer.name} has no argument `{name}`", head, hint=hint))
        bound: dict[str, Constant] = {}
        for name, parameter in known.items():
            if name not in arguments:
                if parameter.required:
                    self.note(Diagnostic(f"{self.layer.name} needs a value for `{name}`", parameter.span))
                bound[name] = parameter.default
                continue
            value = arguments[name]
            if not is_constant(value):
                message = f"`{name}` must be a number, true or false, a string or none, not {type(value).__name__}"
                self.note(Diagnostic(message, parameter.span))
                value = None
            bound[name] = value  # type: ignore[assignment]
        return bound

    # ------------------------------------------------------------------------------ statements

    def block(self, body: Sequence[ast.Statement]) -> None:
        for statement in body:
            self.statements += 1
            if self.statements > MAX_STATEMENTS:
                message = f"the program has more than {MAX_STATEMENTS} statements once its loops are written out"
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
        name = getattr(s, "name", None)
        if isinstance(name, str):
            self.scope.names[name] = POISON
        if isinstance(s, ast.Rule) and s.kind in ("update", "pool"):
            self.result_poisoned = True

    def bring(self, name: str, value: Value, span: ast.Span) -> None:
        """Give a name its meaning, or its next one."""
        if name in ("i", "j"):
            raise Mistake(f"`{name}` is an end of an edge and cannot be a name", span)
        if name in {p.name for p in self.layer.parameters} and not is_constant(value):
            raise Mistake(f"`{name}` is an argument of the layer and cannot be another value", span)
        self.scope.names[name] = value

    def declare(self, name: str, span: ast.Span) -> None:
        if name in self.declared or name in {p.name for p in self.layer.parameters}:
            line = self.declared[name].line if name in self.declared else self.layer.span.line
            hint = "declare it before the loop, with a dim for the index" if self.loop_values else None
            raise Mistake(f"`{name}` is declared twice, first in line {line}", span, hint=hint)
        self.declared[name] = span

    # ---------------------------------------------------------------------------- declarations

    def _declaration(self, s: ast.Declaration) -> None:
        self.declare(s.name, s.name_span)
        if s.role in ("source", "target"):
            self.forms.bipartite = True
        if (s.role == "node" and self.forms.bipartite) or (
            s.role != "node" and self._has_nodes() and self.forms.bipartite
        ):
            raise Mistake(
                "a layer with `source` and `target` values has no `node` values",
                s.span,
                hint="declare `source x[...]` for the senders and `target x[...]` for the receivers",
            )
        dims, origins = self._dims(s)
        kind, bound, count = self._kind(s)
        type = Type(_DOMAINS[s.role], dims, kind, bound)
        if s.role in ("param", "buffer"):
            self._parameter(s, type)
            value: Value = build.load(s.name, type, "param")
        else:
            value = self._input(s, type)
        if isinstance(value, Node):
            for name, start in origins.items():
                self.forms.origins[value, name] = start
            if count is not None:
                self.forms.counts[value] = count
        self.bring(s.name, value, s.name_span)

    def _has_nodes(self) -> bool:
        return any(d.type is not None and d.type.domain is Domain.NODE for d in self.declarations)

    def _dims(self, s: ast.Declaration) -> tuple[tuple[Dim, ...], dict[str, int]]:
        dims: list[Dim] = []
        origins: dict[str, int] = {}
        is_input = s.role not in ("param", "buffer")
        for d in s.dims:
            if is_input and d.start is None and isinstance(d.size, ast.Name):
                self._free(d.size)
            size, value = self.forms.size(d.size)
            if d.start is not None:
                start, first = self.forms._size(d.start)
                size = self.forms.remember(size - start + type(size).number(1))
                value = value - int(first) + 1
            dim = Dim(str(size), value)
            if dim.size < 0:
                raise Mistake(f"the range `{format.expression(d)}` is empty", d.span)
            if any(dim.name == other.name for other in dims):
                hint = f"call the second one `{dim.name}'`"
                raise Mistake(f"dim `{dim.name}` occurs twice in `{s.name}`", d.span, hint=hint)
            if d.start is not None:
                origins[dim.name] = int(first)
            dims.append(dim)
        total = 1
        for dim in dims:
            total *= max(dim.size, 1)
        if total > MAX_SIZE:
            raise Mistake(f"`{s.name}` would have {total} numbers a row", s.span)
        return tuple(dims), origins

    def _free(self, name: ast.Name) -> None:
        """A dim that no argument gives: the call gives it."""
        base = name.id.rstrip("'")
        if base in self.signature.free_dims and base not in self.forms.free and base not in self.scope:
            raise Mistake(
                f"the size of dim `{base}` is only known when the layer is called",
                name.span,
                hint=f"make it an argument, `layer {self.layer.name}({base}, ...)`, or give its size",
            )

    def _kind(self, s: ast.Declaration) -> tuple[Kind, int | None, str | None]:
        if s.kind is None or s.kind.name == "float":
            return Kind.FLOAT, None, None
        if s.role == "param":
            raise Mistake("a param holds real numbers", s.kind.span, hint="leave out the kind")
        if s.kind.name == "bool":
            return Kind.BOOL, None, None
        if s.kind.name != "int":
            hint = did_you_mean(s.kind.name, ("int", "bool", "float"), "there are int(bound), bool and float")
            raise Mistake(f"unknown kind `{s.kind.name}`", s.kind.span, hint=hint)
        if s.kind.bound is None:
            return Kind.INT, None, None
        size, value = self.forms.size(s.kind.bound)
        return Kind.INT, value, str(size)

    def _parameter(self, s: ast.Declaration, type: Type) -> None:
        if s.default is not None:
            raise Mistake(f"a {s.role} has no default", s.default.span, hint="write its initial value: ~ zeros")
        if s.init is None:
            if s.role == "param":
                raise Mistake(f"param `{s.name}` needs an initial value", s.span, hint="as in `~ glorot` or `~ zeros`")
            init = Init("zeros")
        else:
            init = self._init(s.init)
        self.declarations.append(Declaration(s.name, s.role, type, init, span=s.span))

    def _init(self, e: ast.Expression) -> Init:
        name, arguments = (e.function, e.arguments) if isinstance(e, ast.Call) else (getattr(e, "id", ""), ())
        if name not in INITS:
            hint = did_you_mean(name, INITS, f"there are {', '.join(INITS)}")
            raise Mistake(f"unknown initial value `{format.expression(e)}`", e.span, hint=hint)
        least, greatest = INITS[name]
        if not least <= len(arguments) <= greatest:
            many = str(least) if least == greatest else f"{least} to {greatest}"
            raise Mistake(f"`{name}` takes {many} number{'s' * (many != '1')}, not {len(arguments)}", e.span)
        return Init(name, tuple(float(self.forms.number(a, "an argument of an initial value")) for a in arguments))

    def _input(self, s: ast.Declaration, type: Type) -> Value:
        if s.init is not None:
            raise Mistake(f"an input has no initial value: `{s.name}` is passed to the layer", s.init.span)
        optional = s.default is not None
        default: float | None = None
        if s.default is not None and not isinstance(s.default, ast.Nothing):
            value = self.forms.value(s.default)
            if value is not None:
                default = float(self.forms.number(s.default, "a default"))
        present = not optional or s.name in self.present
        declaration = Declaration(s.name, "input", type, None, default, optional, present, span=s.span)
        self.declarations.append(declaration)
        self.forms.optional.add(s.name) if optional else None
        if present:
            self.forms.passed.add(s.name)
            return build.load(s.name, type, "input")
        if default is None:
            return Absent(s.name)
        if type.domain is not Domain.GLOBAL:
            self.forms.stand_ins[s.name] = type.domain
        return build.const(default, type.dims)

    def _spread(self, e: ast.Expression, value: Node) -> Node:
        """A result where it would live, were the optional inputs in it passed."""
        where = self.forms.stand_in(e, value)
        return value if where is None else build.spread(value, where)

    def _constant(self, s: ast.Constant) -> None:
        value = self.forms.value(s.value)
        if isinstance(value, Node):
            if value.domain is not Domain.GLOBAL:
                raise Mistake(f"a const is the same everywhere, and this is {value.type}", s.value.span)
            type, default = value.type, None
        elif is_number(value):
            type, default = Type(Domain.GLOBAL), float(value)  # type: ignore[arg-type]
        elif is_constant(value):
            self.bring(s.name, value, s.span)
            return
        else:
            raise self.forms.unusable(value, s.value)
        self.declare(s.name, s.span)
        self.declarations.append(Declaration(s.name, "const", type, default=default, span=s.span))
        self.bring(s.name, value, s.span)
        if isinstance(value, Node):
            self.call_it(value, s.name)

    def _module(self, s: ast.Module) -> None:
        self.declare(s.name, s.span)
        here = self.modules.get(s.name)
        present = here is not None or not s.optional
        declaration = Declaration(s.name, "module", None, optional=s.optional, present=present, span=s.span)
        self.declarations.append(declaration)
        self.forms.optional.add(s.name) if s.optional else None
        module = None if here is UNKNOWN else here
        self.bring(s.name, ModuleValue(s.name, module) if present else Absent(s.name), s.span)

    # ------------------------------------------------------------------------------- transforms

    def _transform(self, s: ast.Transform) -> None:
        if s.name not in TRANSFORMS:
            declare = f"declare a value of each graph as `graph {s.name}[dim]` or `graph {s.name}: float`"
            hint = did_you_mean(s.name, TRANSFORMS, f"there are {', '.join(TRANSFORMS)}; {declare}")
            raise Mistake(f"unknown graph transform `{s.name}`", s.name_span, hint=hint)
        if self.loop_values:
            raise Mistake("a graph transform stands outside loops", s.span)
        least, greatest, extra = TRANSFORMS[s.name]
        positional = [a for a in s.arguments if not isinstance(a, ast.Named | ast.Arrow)]
        if not least <= len(positional) <= greatest:
            many = str(least) if least == greatest else f"{least} to {greatest}"
            raise Mistake(f"`{s.name}` takes {many} arguments, not {len(positional)}", s.span)
        if s.name == "symmetric_norm":
            self._symmetric_norm(s, positional)
            return
        keywords = [self._keyword(a, s.name, extra) for a in s.arguments if isinstance(a, ast.Named)]
        values = [self._transform_argument(a, s.name) for a in positional]
        self.transforms.append(GraphTransform(s.name, tuple(values), tuple(keywords), s.span))

    def _transform_argument(self, e: ast.Tree, name: str) -> Constant | Node:
        value = self.forms.value(e)
        if isinstance(value, Node):
            if value.domain in (Domain.EDGE, Domain.GLOBAL, Domain.GRAPH):
                raise Mistake(f"`{name}` needs a node value, not {value.type}", e.span)
            return value
        if not is_constant(value):
            raise self.forms.unusable(value, e)
        return value  # type: ignore[return-value]

    def _keyword(self, a: ast.Named, name: str, extra: tuple[str, ...]) -> tuple[str, Constant]:
        edges = [i.name for i in self.signature.inputs if i.domain == "edge"]
        allowed = [*extra, *(edges if "self_loops" in name else [])]
        if a.name not in allowed:
            hint = did_you_mean(a.name, allowed, "name an edge input, and what it is on a new self-loop")
            raise Mistake(f"`{name}` has no argument `{a.name}`", a.span, hint=hint)
        value = self.forms.value(a.value)
        if a.name not in extra and not is_number(value) and value not in FILLS:
            raise Mistake(
                f"a new self-loop needs a number, or the name of a reducer, for `{a.name}`",
                a.value.span,
                hint=f'the reducers are {", ".join(FILLS)}, as in {a.name} = "mean"',
            )
        assert is_constant(value)
        return a.name, value  # type: ignore[return-value]

    def _symmetric_norm(self, s: ast.Transform, arguments: Sequence[ast.Tree]) -> None:
        """With an edge weight: that weight is normalised. Without: the name `norm`."""
        if self.forms.bipartite:
            raise Mistake("symmetric_norm needs the same nodes at both ends", s.span)
        if not arguments:
            self.bring("norm", library.symmetric_norm(None), s.span)
            self.call_it(library.symmetric_norm(None), "norm")
            return
        (e,) = arguments
        w = self.forms.node(e)
        if not isinstance(e, ast.Name):
            raise Mistake("symmetric_norm takes the name of an edge weight", e.span)
        if w.domain not in (Domain.EDGE, Domain.GLOBAL):
            raise Mistake(f"symmetric_norm takes an edge weight, and `{e.id}` is {w.type}", e.span)
        norm = library.symmetric_norm(build.to_float(w))
        self.bring(e.id, norm, s.span)
        self.call_it(norm, e.id)

    # ------------------------------------------------------------------------------------ rules

    def _rule(self, s: ast.Rule) -> None:
        self.forms.pooling, self.forms.aggregating = s.kind == "pool", s.kind == "aggregate"
        try:
            value = self.forms.node(s.value) if s.kind else self.forms.value(s.value)
        finally:
            self.forms.pooling = self.forms.aggregating = False
        if isinstance(value, Node):
            if s.kind:
                value = self._in_domain(s, value)
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
            self.call_it(value, s.name)
            where = self.forms.stand_in(s.value, value)
            self.forms.stand_ins.pop(s.name, None)
            if where is not None:
                self.forms.stand_ins[s.name] = where
            if s.kind in ("update", "pool"):
                self.result_rule = (s.name, value)
        elif not is_constant(value):
            raise self.forms.unusable(value, s.value)
        self.bring(s.name, value, s.name_span)

    def _in_domain(self, s: ast.Rule, value: Node) -> Node:
        domains, what = _RULE_DOMAINS[s.kind]
        if value.domain in domains:
            return value
        if value.domain is Domain.GLOBAL and s.kind != "pool":
            return build.spread(value, domains[0] if s.kind == "message" else self.forms.rows("i"))
        leaf = self.forms._leaf(value, s.value)
        hints = {
            ("message", Domain.NODE): f"did you mean {leaf}[j]?",
            ("message", Domain.SOURCE): f"did you mean {leaf}[j]?",
            ("message", Domain.TARGET): f"did you mean {leaf}[i]?",
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

    def call_it(self, node: Node, name: str) -> None:
        """Record the program's name of a node: the first one stays, and a name used twice is numbered."""
        if node in self.names or node.op in ("load", "const"):
            return
        unique, count = name, self.used_names.get(name, 0)
        while unique in self.used_names:
            count += 1
            unique = f"{name}_{count}"
        self.used_names[unique] = 1
        # Where the next one begins to look, so that a loop's names do not take quadratic time.
        self.used_names[name] = max(count, 1)
        self.names[node] = unique

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

    def _return(self, s: ast.Return) -> None:
        if self.loop_values:
            raise Mistake("`return` stands outside loops", s.span)
        results: list[tuple[str, Node]] = []
        for k, e in enumerate(s.values):
            name = e.id if isinstance(e, ast.Name) else f"out{k + 1}"
            value = self.forms.node(e)
            results.append((name, self._spread(e, value)))
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
        ast.Declaration: _declaration,
        ast.Constant: _constant,
        ast.Module: _module,
        ast.Transform: _transform,
        ast.Rule: _rule,
        ast.Function: _function,
        ast.Reducer: _reducer,
        ast.Loop: _loop,
        ast.Branch: _branch,
        ast.Return: _return,
    }


class _Forms(Forms):
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


def replace_end(span: ast.Span, source: str) -> ast.Span:
    """The first line of a span: the header of a layer."""
    end = source.find("{", span.start)
    return replace(span, end=len(source[:end].rstrip()) if end > span.start else span.end)
