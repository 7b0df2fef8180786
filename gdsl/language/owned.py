"""``linear`` and ``mlp``: modules that a layer makes itself."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Literal

from gdsl.ir.types import Dim, Domain, Type
from gdsl.language import ast, format
from gdsl.language.declarations import Declares
from gdsl.language.errors import Mistake, did_you_mean
from gdsl.language.program import ACTIVATIONS, INITS, NORMS, Declaration, Init, Part
from gdsl.language.values import UNKNOWN, Absent, ModuleValue


class Owns(Declares):
    """The statements that declare, with those of linear maps."""

    def _owned(self, s: ast.Owned) -> None:
        """Linear maps of the layer's own, or the module that was passed in their place."""
        here = self.modules.get(s.name)
        self.declare(s.name, s.name_span)
        if s.optional and here is None and not self._chosen(s):
            path = self.inside(s.name)
            self.declarations.append(Declaration(path, "module", None, optional=True, present=False, span=s.span))
            self.bring(s.name, Absent(s.name, part=True), s.name_span)
            return
        part = self._part(s)
        if isinstance(here, ModuleValue):  # one of the layer that calls this one
            ends = ((s.sizes[0], here.takes), (s.sizes[-1], here.gives))
            takes, gives = (Dim(self._named_dim(e).name, -1 if dim is None else dim.size) for e, dim in ends)
            self.bring(s.name, replace(here, takes=takes, gives=gives), s.name_span)
            return
        # What is passed says itself how large it is, also where the sizes in the text are known from a call alone.
        dims = tuple((self._named_dim if here is not None else self._dim)(size) for size in s.sizes)
        made = None if here is not None else replace(part, sizes=dims)
        declaration = Declaration(
            self.inside(s.name), "module", None, optional=s.optional, part=made, span=s.span
        )
        self.declarations.append(declaration)
        module = None if here is UNKNOWN else here
        takes = dims[0] if here is None else replace(dims[0], size=-1)
        count = part.count if here is None else None
        value = ModuleValue(self.inside(s.name), module, takes=takes, gives=dims[-1], count=count)
        self.bring(s.name, value, s.name_span)

    def _dim(self, e: ast.Expression) -> Dim:
        for t in ast.walk(e):
            if isinstance(t, ast.Name):
                self._free(t)
        size, value = self._size(e)
        return Dim(str(size), value)

    def _named_dim(self, e: ast.Expression) -> Dim:
        """The dim of a module that was passed: its name, and its size where an argument says it."""
        free = self.signature.free_dims
        known = all(t.id.rstrip("'") not in free for t in ast.walk(e) if isinstance(t, ast.Name))
        try:
            found = self._dim(e)
        except Mistake:
            return Dim(format.expression(e).replace(" ", ""), -1)
        return found if known else Dim(found.name, -1)

    def _part(self, s: ast.Owned) -> Part:
        """What the arguments of a part say, all but its sizes."""
        if s.kind == "linear" and len(s.sizes) != 2:
            hint = f"mlp {s.name}(...) has as many maps as there are arrows"
            raise Mistake("a linear map has two sizes, of its argument and of its result", s.span, hint=hint)
        given = self._part_arguments(s)
        count = None if s.count is None else self.forms.size(s.count)[1]
        weight = None if s.init is None else self._drawn(s.init)
        activation = self._activation(given["activation"]) if "activation" in given else None
        norm = self._word(given["norm"], NORMS) if "norm" in given else None
        rate = float(self.forms.number(given["dropout"], "a dropout rate")) if "dropout" in given else 0.0
        if not 0 <= rate <= 1:
            raise Mistake(f"a dropout rate is between 0 and 1, not {rate}", given["dropout"].span)
        if len(s.sizes) > 2 and activation is None:
            hint = f"as in mlp {s.name}({', '.join([' -> '.join(map(format.expression, s.sizes)), 'relu'])})"
            raise Mistake("what stands between the maps of an mlp is missing", s.span, hint=hint)
        bias = self._bias(given["bias"]) if "bias" in given else None
        return Part((), s.kind == "mlp", activation, norm, rate, weight, bias, count)

    def _part_arguments(self, s: ast.Owned) -> dict[str, ast.Expression]:
        names = ("bias",) if s.kind == "linear" else ("activation", "bias", "norm", "dropout")
        given: dict[str, ast.Expression] = {}
        for k, argument in enumerate(s.arguments):
            named = isinstance(argument, ast.Named)
            name = argument.name if isinstance(argument, ast.Named) else names[0]
            if isinstance(argument, ast.Arrow) or (not named and (k or s.kind == "linear")) or name not in names:
                there = f"there are {', '.join(f'{n} = ...' for n in names)}"
                hint = did_you_mean(name, names, there) if named else there
                message = f"`{format.expression(argument)}` says nothing about {_an(s.kind)}"
                raise Mistake(message, argument.span, hint=hint)
            if name in given:
                raise Mistake(f"argument `{name}` is given twice", argument.span)
            given[name] = argument.value if isinstance(argument, ast.Named) else argument
        return given

    def _word(self, e: ast.Expression, words: Collection[str]) -> str | None:
        """One of these words, as it stands or as an argument of the layer gives it; or none."""
        value = e.id if isinstance(e, ast.Name) and e.id not in self.scope else self.forms.value(e)
        if value is None or (isinstance(value, str) and value in words):
            return value
        hint = did_you_mean(value, words) if isinstance(value, str) else None
        raise Mistake(f"`{format.expression(e)}` is none of {', '.join(words)}", e.span, hint=hint)

    def _activation(self, e: ast.Expression) -> Init | None:
        if not isinstance(e, ast.Call):
            name = self._word(e, ACTIVATIONS)
            return None if name is None else Init(name)
        if e.function not in ACTIVATIONS:
            hint = did_you_mean(e.function, ACTIVATIONS, f"there are {', '.join(ACTIVATIONS)}")
            raise Mistake(f"`{e.function}` cannot stand between the maps of an mlp", e.span, hint=hint)
        least, greatest = ACTIVATIONS[e.function]
        if not least <= len(e.arguments) <= greatest:
            message = f"`{e.function}` takes {f'at most {greatest}' if greatest else 'no'} number between two maps"
            hint = f"without x, as in {e.function}(0.2)" if greatest else f"write {e.function}"
            raise Mistake(message, e.span, hint=hint)
        return Init(e.function, tuple(float(self.forms.number(a, "an argument")) for a in e.arguments))

    def _bias(self, e: ast.Expression) -> Init | Literal[False] | None:
        """``true``: as torch draws it; ``false``: none; or an initial value."""
        if (isinstance(e, ast.Name) and e.id in INITS and e.id not in self.scope) or isinstance(e, ast.Call):
            return self._drawn(e)
        return None if self.forms.condition(e) else False

    def _drawn(self, e: ast.Expression) -> Init:
        return self._init(e, Type(Domain.GLOBAL, (Dim("in", 1), Dim("out", 1))))


def _an(kind: str) -> str:
    return "an mlp" if kind == "mlp" else f"a {kind} map"
