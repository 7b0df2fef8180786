"""Size expressions and the names of dims.

A dim is named by its size expression, so equal expressions must give equal names: ``in*2`` and ``2*in`` are
one dim, and ``cat(a, b)`` of two values over ``in`` has it too. The order of factors and terms is kept:
``merge(e, heads, out)`` and ``merge(e, out, heads)`` lay out their numbers differently.
"""

from __future__ import annotations

from dataclasses import dataclass

Factors = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Size:
    """A sum of terms, each a number times named factors. Like terms are one; a number alone stands last."""

    terms: tuple[tuple[int, Factors], ...]

    @staticmethod
    def number(value: int) -> Size:
        return Size.collect([(value, ())])

    @staticmethod
    def symbol(name: str) -> Size:
        return Size(((1, (name,)),))

    @staticmethod
    def collect(terms: list[tuple[int, Factors]]) -> Size:
        total: dict[Factors, int] = {}
        for count, factors in terms:
            total[factors] = total.get(factors, 0) + count
        number = total.pop((), 0)
        kept = [(count, factors) for factors, count in total.items() if count]
        return Size((*kept, (number, ())) if number or not kept else tuple(kept))

    def __add__(self, other: Size) -> Size:
        return Size.collect([*self.terms, *other.terms])

    def __neg__(self) -> Size:
        return Size(tuple((-count, factors) for count, factors in self.terms))

    def __sub__(self, other: Size) -> Size:
        return self + -other

    def __mul__(self, other: Size) -> Size:
        return Size.collect([(a * b, f + g) for a, f in self.terms for b, g in other.terms])

    def as_number(self) -> int | None:
        """The value, when no name is in it."""
        return self.terms[0][0] if len(self.terms) == 1 and not self.terms[0][1] else None

    def opaque(self, op: str, other: Size) -> Size:
        """An operation without a normal form, such as ``a/b``: a name of its own."""
        return Size.symbol(f"{self._atom()}{op}{other._atom()}")

    def _atom(self) -> str:
        text = str(self)
        return f"({text})" if any(c in text for c in "+-*/") else text

    def __str__(self) -> str:
        text = ""
        for count, factors in self.terms:
            parts = list(factors) if abs(count) == 1 and factors else [str(abs(count)), *factors]
            sign = "-" if count < 0 else "+" if text else ""
            text += sign + "*".join(parts)
        return text
