"""Declarations: inputs, params, buffers, constants and modules."""

from __future__ import annotations

import math

from gdsl.ir import build
from gdsl.ir.node import Node
from gdsl.ir.ops.over import over
from gdsl.ir.ops.tables import MOST_NUMBERS, MOST_TERMS, table
from gdsl.ir.types import Dim, Domain, Kind, Type
from gdsl.language import ast, format
from gdsl.language.errors import ELSEWHERE, Mistake, UnknownName, did_you_mean
from gdsl.language.functions import FUNCTIONS, SEGMENT_REDUCERS
from gdsl.language.named_graphs import NamesGraphs
from gdsl.language.program import INITS, NOT_GIVEN, ConstantTable, Declaration, Init
from gdsl.language.signature import is_optional_part
from gdsl.language.size_expressions import MAX_SIZE
from gdsl.language.sizes import Size
from gdsl.language.values import (
    UNKNOWN,
    Absent,
    ModuleValue,
    UserFunction,
    UserReducer,
    Value,
    is_constant,
    is_number,
)

_DOMAINS = {
    "node": Domain.NODE,
    "source": Domain.SOURCE,
    "target": Domain.TARGET,
    "edge": Domain.EDGE,
    "graph": Domain.GRAPH,
    "global": Domain.GLOBAL,
    "param": Domain.GLOBAL,
    "buffer": Domain.GLOBAL,
}


class Declares(NamesGraphs):
    """The statements that declare."""

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
        if is_optional_part(s) and not self._chosen(s):
            self.bring(s.name, Absent(s.name, part=True), s.name_span)
            return
        self.check_within(s)
        dims, origins = self._dims(s)
        kind, bound, count = self._kind(s)
        type = Type(_DOMAINS[s.role], dims, kind, bound)
        if s.role in ("param", "buffer"):
            self._parameter(s, type)
            value: Value = build.load(self.inside(s.name), type, "param")
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
        is_input = s.role not in ("param", "buffer", "const")
        for d in s.dims:
            if is_input and d.start is None and isinstance(d.size, ast.Name):
                self._free(d.size)
            size, value = self._size(d.size)
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

    def _size(self, e: ast.Tree) -> tuple[Size, int]:
        """The size of a dim; where it is a name that nothing gives, with the remedy."""
        try:
            return self.forms.size(e)
        except UnknownName as mistake:
            found = mistake.diagnostic
            hint = found.hint or f"make it an argument, as n in `layer {self.layer.name}(n, ...)`"
            raise Mistake(found.message, found.span, hint=hint) from None

    def _free(self, name: ast.Name) -> None:
        """A dim that no argument gives: the call gives it."""
        base = name.id.rstrip("'")
        if base in self.signature.free_dims and base not in self.forms.free and base not in self.scope:
            raise Mistake(
                f"the size of dim `{base}` is only known when the layer is called",
                name.span,
                hint=f"give it when compiling, as in {base}=16, or make it an argument of the layer",
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
        if s.default is not None and not isinstance(s.default, ast.Nothing):
            hint = "write its initial value, ~ zeros, or = none for one that may be left out"
            raise Mistake(f"a {s.role} has no default", s.default.span, hint=hint)
        if s.init is None:
            hint = "as in `~ glorot` or `~ zeros`" if s.role == "param" else "as in `~ zeros` or `~ constant(0.5)`"
            raise Mistake(f"{s.role} `{s.name}` needs an initial value", s.span, hint=hint)
        init = self._values(s.init, s.name, type) if isinstance(s.init, ast.Values) else self._init(s.init, type)
        self.declarations.append(Declaration(self.inside(s.name), s.role, type, init, span=s.span))

    def _values(self, e: ast.Values, name: str, type: Type) -> Init:
        """A number for each place, in the order of the dims."""
        if len(e.items) != type.numel:
            message = f"`{name}` has {type.numel} places, and these are {len(e.items)} numbers"
            fitting = tuple((d.name, len(e.items) * d.size // type.numel) for d in type.dims if type.numel)
            raise Mistake(message, e.span, sizes=fitting)
        return Init("values", tuple(float(self.forms.number(item, "an initial value")) for item in e.items))

    def _init(self, e: ast.Expression, type: Type) -> Init:
        name, arguments = (e.function, e.arguments) if isinstance(e, ast.Call) else (getattr(e, "id", ""), ())
        if name not in INITS:
            hint = ELSEWHERE.get(name) or did_you_mean(name, INITS, f"there are {', '.join(INITS)}, and [1, 2, 3]")
            raise Mistake(f"unknown initial value `{format.expression(e)}`", e.span, hint=hint)
        least, greatest = INITS[name]
        if not least <= len(arguments) <= greatest:
            many = str(least) if least == greatest else f"{least} to {greatest}"
            raise Mistake(f"`{name}` takes {many} number{'s' * (many != '1')}, not {len(arguments)}", e.span)
        if name in ("linspace", "arange") and not type.dims:
            raise Mistake(f"`{name}` goes along the last dim, and there is none", e.span, hint="write ~ constant(0.5)")
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
        if self.given is not None:
            return self._given(s, type, default)
        present = not optional or s.name in self.present
        declaration = Declaration(
            s.name, "input", type, None, default, optional, present, within=self.within(s), span=s.span
        )
        self.declarations.append(declaration)
        self.forms.optional.add(s.name) if optional else None
        if present:
            self.forms.passed.add(s.name)
            return build.load(s.name, type, "input")
        return self._not_there(s.name, type, default)

    def _not_there(self, name: str, type: Type, default: float | None) -> Value:
        """What an input stands for that was not passed."""
        if default is None:
            return Absent(name)
        value = build.const(default, type.dims)
        of_set = type.domain is Domain.NODE and self.spaces.get(name)
        if of_set or (type.domain is Domain.EDGE and name in self.spaces):  # it says of which, as one that is passed
            return over(build.spread(value, type.domain), self.spaces[name])
        if type.domain is not Domain.GLOBAL:
            self.forms.stand_ins[name] = type.domain
        return value

    def _given(self, s: ast.Declaration, type: Type, default: float | None) -> Value:
        """An input of a layer that is called."""
        raise NotImplementedError

    def _table(self, s: ast.Constant) -> None:
        """A table of numbers that are known now."""
        self.declare(s.name, s.span)
        given = self.bound.get(s.name) if s.value is None else None
        if isinstance(given, ConstantTable) and given != NOT_GIVEN and len(given.shape) != len(s.dims):
            many = "1 dim" if len(s.dims) == 1 else f"{len(s.dims)} dims"
            message = f"`{s.name}` is declared with {many}, and its numbers have shape {list(given.shape)}"
            raise Mistake(message, s.span)
        sized = [dim for name, _, dim in self.signature.table_places if name == s.name and dim not in self.forms.free]
        if sized and not isinstance(given, ConstantTable):
            hint = f"pass lists, an array or a tensor, or give {sized[0]}=16 when compiling"
            raise Mistake(f"a number alone does not say how large dim `{sized[0]}` of `{s.name}` is", s.span, hint=hint)
        dims, origins = self._dims(ast.Declaration("const", s.name, s.dims, span=s.span))
        type = Type(Domain.GLOBAL, dims)
        if given == NOT_GIVEN:
            self.bring(s.name, build.const(0.0, dims), s.span)
            return
        if isinstance(s.value, ast.Values):
            numbers = self._values(s.value, s.name, type).arguments
        else:
            numbers = self._given_numbers(s, type)
        if not all(map(math.isfinite, numbers)):
            raise Mistake(f"`{s.name}` has a number that is not finite", s.span)
        count = sum(1 for v in numbers if v)
        if count > MOST_TERMS or len(numbers) > MOST_NUMBERS:
            message = f"`{s.name}` has {count} non-zeros among {len(numbers)} numbers"
            hint = f"up to {MOST_TERMS} of {MOST_NUMBERS} are written out: make it a buffer that Python fills"
            if s.value is None and not isinstance(given, ConstantTable):
                hint = f"{given} is one number for all of its places: give a table, as {s.name}=[[1, 0], [0, 1]]"
            raise Mistake(message, s.span, hint=hint)
        value = table(numbers, dims)
        self.declarations.append(Declaration(self.inside(s.name), "const", type, span=s.span))
        for name, start in origins.items():
            self.forms.origins[value, name] = start
        self.bring(s.name, value, s.span)
        self.call_it(value, s.name)

    def _given_numbers(self, s: ast.Constant, type: Type) -> tuple[float, ...]:
        given = self.bound[s.name]
        if not isinstance(given, ConstantTable):  # a number alone is that of all places
            return (float(given),) * type.numel if isinstance(given, int | float) else ()
        if given.shape != type.shape:
            declared = f"[{', '.join(type.names)}], of shape {list(type.shape)}"
            message = f"`{s.name}` is declared as {declared}, and its numbers have shape {list(given.shape)}"
            pairs = zip(type.names, given.shape, strict=False)
            raise Mistake(message, s.span, sizes=tuple(pairs))
        return given.numbers

    def _constant(self, s: ast.Constant) -> None:
        if s.dims:
            self._table(s)
            return
        assert s.value is not None
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
        self.declarations.append(Declaration(self.inside(s.name), "const", type, default=default, span=s.span))
        self.bring(s.name, value, s.span)
        if isinstance(value, Node):
            self.call_it(value, s.name)

    def _chosen(self, s: ast.Declaration | ast.Owned) -> bool:
        """Whether the argument of its name asks for an optional part."""
        self.forms.optional.add(s.name)
        wanted = self.bound[s.name]
        if wanted is not None and not isinstance(wanted, bool):
            message = f"`{s.name}` is there or not: the argument is true, false or none, not {wanted!r}"
            raise Mistake(message, s.name_span)
        return bool(wanted)

    def _module(self, s: ast.Module) -> None:
        here = self.modules.get(s.name)
        optional = s.name in self.signature.choices
        self.declare(s.name, s.span)
        if isinstance(here, ModuleValue):  # one of the layer that calls this one
            self.bring(s.name, here, s.span)
            return
        function = self._stands_for(s) if optional and here is None else None
        present = here is not None or not optional or function is not None
        path = self.inside(s.name)
        declaration = Declaration(path, "module", None, optional=optional, present=present, span=s.span)
        self.declarations.append(declaration)
        self.forms.optional.add(s.name) if optional else None
        module = None if here is UNKNOWN else here
        self.bring(s.name, ModuleValue(path, module, function) if present else Absent(s.name), s.span)

    def _stands_for(self, s: ast.Module) -> str | None:
        """The function that is computed where no module is passed."""
        name = self.bound[s.name]
        if name is None or name is False:
            return None
        known = self.scope.find(name) if isinstance(name, str) else KeyError
        if isinstance(name, str) and (isinstance(known, UserFunction | UserReducer) or self.forms.is_function(name)):
            return name
        message = f"`{s.name}` is a torch module or the name of a function, not {name!r}"
        raise Mistake(message, s.span, hint=did_you_mean(str(name), [*FUNCTIONS, *SEGMENT_REDUCERS]))
