"""What calls of layers are given: the arguments of their constructors and their inputs, as those that they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gdsl.ir.node import Node
from gdsl.ir.ops.tables import numbers_of
from gdsl.language import ast, format
from gdsl.language.elaboration import Passed
from gdsl.language.errors import Mistake, did_you_mean
from gdsl.language.library_calls import class_of, class_reads
from gdsl.language.owned import Owns
from gdsl.language.program import ConstantTable
from gdsl.language.signature import Signature, signature_of
from gdsl.language.taken import where_read
from gdsl.language.values import Absent, Argument, ModuleValue, Value, is_constant, is_whole
from gdsl.language.wishes import Wishes


@dataclass(frozen=True)
class CallSite:
    """A call of a layer.

    name:  what holds its parameters
    given: its arguments
    named: whether the text names it
    """

    layer: ast.Layer
    signature: Signature
    name: str
    given: Mapping[str, Argument]
    e: ast.Call
    named: bool


class LayerArguments(Owns, Wishes):
    """The statements that declare, with what layers that are called are given."""

    def __init__(self, *args: Any):
        super().__init__(*args)
        # Of the layers that are called, also inside those.
        self.signatures: dict[int, Signature] = {}

    def _signature(self, layer: ast.Layer) -> Signature:
        """That of a layer, which may be called many times."""
        found = self.signatures.get(id(layer))
        if found is None:
            found = self.signatures[id(layer)] = signature_of(layer)
        return found

    def _arguments_given(
        self, layer: ast.Layer, written: Sequence[ast.Tree], name: str, span: ast.Span
    ) -> dict[str, Argument]:
        """What is given of the arguments that the layer's class would take, by name."""
        signature, made = self._signature(layer), class_of(layer)
        order = signature.order if made is None else made.order
        known = [*signature.order, *signature.free_dims]
        given: dict[str, Argument] = {}
        for k, tree in enumerate(written):
            e: ast.Tree = tree.value if isinstance(tree, ast.Named) else tree
            if isinstance(tree, ast.Named):
                key = tree.name
            elif k < len(order):
                key = order[k]
            else:
                raise Mistake(f"{name} takes {len(order)} arguments, not {len(written)}", tree.span)
            if made is not None:
                said, key = key, made.called.get(key, key)
                if key not in known and said in order:
                    hint = f"what it takes in a text is {', '.join(known)}: give what follows by name"
                    raise Mistake(f"`{said}` of gdsl.nn.{layer.name} is not to be had in a text", tree.span, hint=hint)
                if said == "edge_dim" and isinstance(e, ast.Nothing):
                    continue
            if key not in known:
                listed = f"its arguments are {', '.join(known)}" if known else "it has none"
                inputs = [i.name for i in signature.inputs]
                where = f"`{key}` is an input: it stands before the `;` of a call" if key in inputs else None
                raise Mistake(
                    f"{name} has no argument `{key}`", tree.span, hint=where or did_you_mean(key, known, listed)
                )
            if key in given:
                raise Mistake(f"argument `{key}` is given twice", tree.span)
            given[key] = self._argument(signature, key, e)
            if made is not None and given[key].value not in made.choices.get(key, (given[key].value,)):
                choices = ", ".join(map(format.default_value, made.choices[key]))
                raise Mistake(f"`{key}` of {name} is one of {choices}", tree.span)
        if made is not None:
            made.complete(given)
        return given

    def _argument(self, signature: Signature, name: str, e: ast.Tree) -> Argument:
        if name in signature.free_dims:
            expression, number = self.forms.size(e)
            return Argument(number, expression, e.span)
        modules = dict(signature.modules)
        if name in modules and isinstance(e, ast.Name):
            found = self.scope.find(e.id)
            if isinstance(found, ModuleValue | Absent):
                return Argument(None if isinstance(found, Absent) else found, None, e.span)
            if found is KeyError and self.forms.is_function(e.id):
                return Argument(e.id, None, e.span)
        if name in signature.tables and isinstance(e, ast.Name) and e.id in self.bound:
            here = self.scope.find(e.id)
            return Argument(self.bound[e.id], None, e.span, here.dims if isinstance(here, Node) else ())
        value = self.forms.value(e)
        if name in signature.tables and isinstance(value, Node) and value.op == "table":
            table = ConstantTable(value.type.shape, tuple(numbers_of(value)))
            return Argument(table, None, e.span, value.dims)
        if isinstance(value, Absent):
            value = None
        if not is_constant(value):
            what = value.type if isinstance(value, Node) else "no constant"
            hint = "values of the call stand before a `;`: layer(x; name = 2)"
            raise Mistake(f"`{name}` is known when the layer is made, and this is {what}", e.span, hint=hint)
        size = self.forms._size(e)[0] if is_whole(value) else None
        return Argument(value, size, e.span)

    def _placed(
        self, site: CallSite, taken: Signature, written: Sequence[tuple[str | None, Value, ast.Tree]]
    ) -> dict[str, Passed]:
        """What is passed, each as the input that it is. Raises :class:`Mistake` for what is none."""
        layer, signature, e = site.layer, site.signature, site.e
        order = call_order(taken)
        required = {i.name for i in taken.inputs if not i.optional}
        usage = ", ".join(n if n in required else f"{n} = none" for n in order)
        elsewhere = "" if len(taken.inputs) == len(signature.inputs) else " with these arguments"
        found: dict[str, Passed] = {}
        for k, (said, value, text) in enumerate(written):
            span = e.arguments[k].span
            if said is None and k >= len(order):
                many = "input" if len(order) == 1 else "inputs"
                message = f"{e.function} takes {len(order)} {many}, ({usage}), not {len(written)}"
                others = [i.name for i in signature.inputs if i.name not in order]
                ways = [where_read(layer, other, declared=True) for other in others]
                there = "; ".join(f"`{other}`: {way}" for other, way in zip(others, ways, strict=True) if way)
                raise Mistake(message + elsewhere, span, hint=there or None)
            key = said or order[k]
            if key not in order:
                hint = did_you_mean(key, order, f"its inputs are {', '.join(order)}")
                if any(i.name == key for i in signature.inputs):
                    hint = class_reads(layer, key) or where_read(layer, key, declared=True) or hint
                    raise Mistake(f"{e.function} has no input `{key}` with these arguments: ({usage})", span, hint=hint)
                if key in (*signature.order, *signature.free_dims):
                    hint = f"`{key}` is an argument: it stands behind a `;`, or where the layer is named"
                raise Mistake(f"{e.function} has no input `{key}`", span, hint=hint)
            if key in found:
                raise Mistake(f"`{key}` is given twice", span)
            if value is None or isinstance(value, Absent):
                if key in required:
                    raise self.forms.unusable(value, text)
                continue
            assert isinstance(value, Node)
            found[key] = Passed(value, text)
        return found


def call_order(signature: Signature) -> list[str]:
    """The inputs of a call by place: as in the layer's own call, those that must be there first."""
    return [i.name for i in sorted((*signature.before_graph, *signature.after_graph), key=lambda i: i.optional)]
