"""Counts as polynomials that a page can work out by itself: ``4*N*heads`` is ``[[4, {"N": 1, "heads": 1}]]``.

Names of rows are those of :mod:`gdsl.passes.cost`. A tenth of the time of sympy, since every edit asks for all of them.
"""

from __future__ import annotations

import ast
import functools
import math
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from gdsl.ir.types import Dim, Domain
from gdsl.passes.cost import ROWS

_Powers = tuple[tuple[str, int], ...]
Terms = list[tuple[float, dict[str, int]]]


@dataclass(frozen=True)
class Polynomial:
    """A sum of products: the factor of each product of names."""

    terms: Mapping[_Powers, float]

    @classmethod
    def of(cls, value: Polynomial | float) -> Polynomial:
        return value if isinstance(value, Polynomial) else cls({(): value} if value else {})

    @classmethod
    def name(cls, name: str) -> Polynomial:
        return cls({((name, 1),): 1})

    def __add__(self, other: Polynomial | float) -> Polynomial:
        found = dict(self.terms)
        for key, number in Polynomial.of(other).terms.items():
            found[key] = found.get(key, 0) + number
        return Polynomial({key: number for key, number in found.items() if number})

    def __mul__(self, other: Polynomial | float) -> Polynomial:
        found: dict[_Powers, float] = {}
        for a, x in self.terms.items():
            for b, y in Polynomial.of(other).terms.items():
                key = _times(a, b)
                found[key] = found.get(key, 0) + x * y
        return Polynomial({key: number for key, number in found.items() if number})

    __radd__, __rmul__ = __add__, __mul__

    def __sub__(self, other: Polynomial | float) -> Polynomial:
        return self + Polynomial.of(other) * -1

    def __pow__(self, power: int) -> Polynomial:
        return functools.reduce(operator.mul, [self] * power, Polynomial.of(1))

    def as_json(self) -> Terms:
        """In an order of its own: products of many names first."""
        order = sorted(self.terms.items(), key=lambda term: (-sum(power for _, power in term[0]), term[0]))
        return [(number, dict(key)) for key, number in order]


def _times(a: _Powers, b: _Powers) -> _Powers:
    powers = dict(a)
    for name, power in b:
        powers[name] = powers.get(name, 0) + power
    return tuple(sorted(powers.items()))


class SizeFormulas:
    """Sizes as polynomials, where each name has one size; what else a dim is called, its size stands for it.

    sizes: the names that a formula may have, with their sizes here
    dims:  those of the program
    """

    def __init__(self, sizes: Mapping[str, int], dims: Iterable[Dim]):
        self.sizes = dict(sizes)
        self.dims: dict[Dim, Polynomial] = {}
        found = set(dims)
        named = {d.name: d.size for d in found if d.name.isidentifier()}
        clash = {d.name for d in found if named.get(d.name, d.size) != d.size}
        self.sizes = {n: v for n, v in {**self.sizes, **named}.items() if n not in clash and n not in ROWS.values()}

    def rows(self, domain: Domain) -> Polynomial:
        return Polynomial.of(1) if domain is Domain.GLOBAL else Polynomial.name(ROWS[domain])

    def numel(self, dims: tuple[Dim, ...]) -> Polynomial:
        return functools.reduce(operator.mul, map(self.size, dims), Polynomial.of(1))

    def size(self, dim: Dim) -> Polynomial:
        if dim not in self.dims:
            self.dims[dim] = self._read(dim)
        return self.dims[dim]

    def _read(self, dim: Dim) -> Polynomial:
        """``heads*out_channels`` as a product; its value is the dim's size, or it is a number."""
        try:
            found = self._value(ast.parse(dim.name.replace("'", ""), mode="eval").body)
        except (SyntaxError, KeyError, TypeError, ValueError):
            return Polynomial.of(dim.size)
        return found if evaluate(found.as_json(), self.sizes) == dim.size else Polynomial.of(dim.size)

    def _value(self, tree: ast.expr) -> Polynomial:
        if isinstance(tree, ast.BinOp):
            right = self._value(tree.right)
            return _OPERATORS[type(tree.op)](self._value(tree.left), right)
        if isinstance(tree, ast.Constant):
            return Polynomial.of(int(tree.value))  # type: ignore[arg-type]
        if isinstance(tree, ast.Name) and tree.id in self.sizes:
            return Polynomial.name(tree.id)
        raise KeyError(ast.dump(tree))


def _power(base: Polynomial, power: Polynomial) -> Polynomial:
    """Powers of a number; others make no polynomial."""
    if set(power.terms) - {()} or not 0 <= (number := power.terms.get((), 0)) <= 8:
        raise ValueError("no power that is a small number")
    return base ** int(number)


_OPERATORS: Mapping[type[ast.operator], Callable[[Any, Any], Polynomial]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Pow: _power,
}


def evaluate(terms: Terms, sizes: Mapping[str, float]) -> float:
    """The number of a formula."""
    return sum(number * math.prod(sizes[name] ** power for name, power in key.items()) for number, key in terms)
