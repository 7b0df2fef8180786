"""What the sizes of a layer that is called are called by its caller."""

from __future__ import annotations

import re

from gdsl.language import ast
from gdsl.language.elaboration import Elaboration
from gdsl.language.sizes import Size
from gdsl.language.values import is_whole


class SizesOutside:
    """The names of a callee's sizes as its caller has them."""

    def __init__(self, caller: Elaboration):
        self.caller = caller
        self.sizes: dict[str, Size] = {}
        self.numbers: dict[str, int] = {}
        self.same: set[str] = set()

    def give(self, name: str, size: Size, number: int) -> None:
        self.sizes[name], self.numbers[name] = size, number

    def apart(self, layer: ast.Layer) -> dict[str, Size]:
        """The sizes whose names outside can stand inside, too, so that nothing has to be renamed at the border: no name
        in them is one of the callee's, and no two are called alike."""
        own = {p.name for p in layer.parameters}
        for tree in ast.walk(layer):
            own |= {tree.id} if isinstance(tree, ast.Name) else set()
            own |= {tree.name} if isinstance(tree, ast.Rule | ast.Declaration | ast.Constant | ast.Loop) else set()
        found: dict[str, Size] = {}
        for name, size in self.sizes.items():
            words = set(re.findall(r"[A-Za-z_]\w*", str(size)))
            twice = any(other == size for other in found.values())
            if words and not twice and not (words - {name}) & own and (name not in words or str(size) == name):
                found[name] = size
        self.same = {str(size) for size in found.values()} | {
            word for size in found.values() for _, factors in size.terms for word in factors
        }
        return found

    def outside(self, size: Size, number: int, child: Elaboration | None = None) -> str:
        """What a size of the callee is called outside; its number where it has no name there."""
        total = Size.number(0)
        for count, factors in size.terms:
            term = Size.number(count)
            for factor in factors:
                base = factor
                while base.endswith("'") and base not in self.same and base not in self.sizes:
                    base = base[:-1]
                found = Size.symbol(base) if base in self.same else self.sizes.get(base)
                value = None if child is None else child.scope.find(base)
                if found is None and is_whole(value):
                    found = Size.number(int(value))  # type: ignore[arg-type]
                if found is None:
                    return str(number)
                if factor != base:
                    found = Size.symbol(str(found) + factor[len(base) :])
                term = term * found
            total += term
        self.caller.forms.sizes.setdefault(str(total), total)
        return str(total)

    def text(self, name: str) -> str:
        """A dim of the callee, as it is called outside where that can be told from its name."""
        base = name.rstrip("'")
        if base in self.same:
            return name
        return f"{self.sizes[base]}{name[len(base) :]}" if base in self.sizes else name
