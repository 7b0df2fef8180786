"""Sizes and names of dims in expressions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gdsl.ir.node import Node
from gdsl.language import ast, format
from gdsl.language.errors import Mistake, did_you_mean
from gdsl.language.expressions import Expressions
from gdsl.language.functions import OPERATORS
from gdsl.language.sizes import Size
from gdsl.language.values import is_number, is_whole

# The largest size of a dim.
MAX_SIZE = 2**40
# A product of sums is written out up to this many terms; beyond, it is a name of its own.
MAX_TERMS = 64


class SizeExpressions(Expressions):
    """Expressions with what stands for sizes and dims."""

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
