"""Calls that say what happens to dims: joined, merged, split, turned, renamed, paired."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

from gdsl.ir import build, library
from gdsl.ir.node import Node
from gdsl.ir.types import Dim
from gdsl.language import ast, dims
from gdsl.language.errors import Mistake
from gdsl.language.sizes import Size
from gdsl.language.subscripts import Subscripts
from gdsl.language.values import Value


class Shapes(Subscripts):
    """Expressions with the calls about dims. ``forms.Forms`` adds the others."""

    def _cat(self, e: ast.Call) -> Value:
        if len(e.arguments) < 1:
            raise Mistake("cat needs values to join", e.span)
        nodes = [build.to_float(self.node(a)) for a in e.arguments]
        self.aligned(nodes, e.arguments)
        names = [self.dim_name(d) for d in e.dims]
        if len(names) not in (0, 1, len(nodes)):
            message = f"cat joins {len(nodes)} values along one dim, or along one dim each, not {len(names)}"
            raise Mistake(message, e.dims[0].span)
        parts, along, total, size = [], [], Size.number(0), 0
        for k, (x, text) in enumerate(zip(nodes, e.arguments, strict=True)):
            if not x.dims and not names:  # a plain number an edge or node joins as one place
                x = library.unit_dim(x)
            name = (names[k] if len(names) > 1 else names[0]) if names else x.dims[-1].name
            if name not in x.type.names:
                raise Mistake(f"no dim `{name}` in {x.type}", text.span, hint=_which_dims(x))
            parts.append(x)
            along.append(name)
            total += Size.number(1) if name == "1" else self.size_named(name)
            size += x.type.dim(name).size
        rest = [[n for n in x.type.names if n != name] for x, name in zip(parts, along, strict=True)]
        mistake = None if self.pairs else dims.refusal("cat", e, nodes, e.arguments, rest)
        if mistake is not None:
            raise mistake
        return build.cat(parts, along, Dim(str(self.remember(total)), size))

    def _dims_after_first(self, e: ast.Call, least: int) -> tuple[Node, list[str]]:
        """``f(x, d1, d2)`` or ``f(x; d1, d2)``: the value, and names of dims."""
        named = [*e.arguments[1:], *e.dims]
        if not e.arguments or len(named) < least:
            raise Mistake(f"`{e.function}` needs a value and {least} dims or more", e.span)
        return self.node(e.arguments[0]), [self.dim_name(d) for d in named]

    def _merge(self, e: ast.Call) -> Value:
        x, names = self._dims_after_first(e, 1)
        self.dims_of([*e.arguments[1:], *e.dims], x)
        product = Size.number(1)
        for name in names:
            product *= self.size_named(name)
        return build.merge(x, names, str(self.remember(product)))

    def _split(self, e: ast.Call) -> Value:
        x, names = self._dims_after_first(e, 2)
        sizes = [self.size(d) for d in [*e.arguments[1:], *e.dims][1:]]
        self.dims_of([*e.arguments[1:], *e.dims][:1], x)
        product, whole = math.prod(value for _, value in sizes), x.type.dim(names[0]).size
        if product != whole:
            fitting = [(str(size), whole * value // product) for size, value in sizes if product]
            message = f"dim `{names[0]}` has {whole} places, and the parts have {product}"
            raise Mistake(message, e.span, sizes=((names[0], product), *fitting))
        return build.split(x, names[0], [Dim(str(size), value) for size, value in sizes])

    def _transpose(self, e: ast.Call) -> Value:
        x, names = self._dims_after_first(e, 1)
        if sorted(names) != sorted(x.type.names):
            raise Mistake(f"transpose must name every dim once, and the value is {x.type}", e.span)
        return build.transpose(x, names)

    def _rename(self, e: ast.Call) -> Value:
        if len(e.arguments) < 2 or not all(isinstance(a, ast.Arrow) for a in e.arguments[1:]):
            raise Mistake("rename needs a value and new names for its dims", e.span, hint="as in rename(x, d' -> d)")
        x = self.node(e.arguments[0])
        names: dict[str, str] = {}
        for arrow in e.arguments[1:]:
            assert isinstance(arrow, ast.Arrow)
            (old,) = self.dims_of([arrow.old], x)
            new = self.dim_name(arrow.new)
            size, known = x.type.dim(old).size, self._known_size(arrow.new)
            if known not in (None, size):
                message = f"`{old}` has size {size}, and `{new}` has size {known}"
                raise Mistake(message, arrow.span, sizes=((new, size), (old, known)))
            names[old] = new
        return build.rename(x, names)

    def _outer(self, e: ast.Call) -> Value:
        """``outer(a + b)``: with a number for every pair of places; ``outer(a, b)``: their product."""
        if not e.arguments or e.dims:
            hint = "outer(a + b) for a sum, outer(a, b) for a product"
            raise Mistake("`outer` takes an operation, or the factors of a product", e.span, hint=hint)
        before, self.pairs = self.pairs, True
        try:
            values = [self.node(a) for a in e.arguments]
            self.aligned(values, e.arguments)
        finally:
            self.pairs = before
        return functools.reduce(lambda a, b: a * b, values)

    def _known_size(self, e: ast.Tree) -> int | None:
        if isinstance(e, ast.Name) and not self._is_size(e):
            return None
        return self.size(e)[1]


def _which_dims(x: Node) -> str:
    if not x.dims:
        return "leave out the dims after the `;`"
    return "after the `;` stands the dim of each value that is joined; `rename` names the result's"


SHAPES: dict[str, Callable[[Shapes, ast.Call], Value]] = {
    "cat": Shapes._cat,
    "merge": Shapes._merge,
    "split": Shapes._split,
    "transpose": Shapes._transpose,
    "rename": Shapes._rename,
    "outer": Shapes._outer,
}
