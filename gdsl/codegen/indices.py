"""Places: what an index into a dim is, as an expression that either generator prints in its own language.

A value is asked for at a place of each of its dims. That begins as the variable that counts a dim's places; slices,
reshapes and parts of a ``cat`` make expressions of it, on the way down to an offset into memory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gdsl.ir.types import Dim


class Place:
    """An integer expression. Its kinds are below; equal ones are equal as values."""

    parts: tuple[Place, ...] = ()

    @property
    def axes(self) -> frozenset[int]:
        """The loops, or the axes of a block, along which it may vary, counted from the outermost."""
        return frozenset(axis for part in self.parts for axis in part.axes)

    @property
    def known(self) -> tuple[Known, ...]:
        """What of it the kernel reads or computes."""
        return tuple(known for part in self.parts for known in part.known)

    @property
    def depth(self) -> int:
        """How many loops it needs around it."""
        return max([part.depth for part in self.parts], default=0)


@dataclass(frozen=True)
class Axis(Place):
    """The variable of a loop, or the numbers of an axis: it counts the places of a dim."""

    name: str
    at: int
    size: int

    @property
    def axes(self) -> frozenset[int]:
        return frozenset({self.at})

    @property
    def depth(self) -> int:
        return self.at + 1


@dataclass(frozen=True)
class Row(Place):
    """The number of the row or edge that the kernel is at."""

    name: str


@dataclass(frozen=True)
class Literal(Place):
    """A place that is known here."""

    number: int


@dataclass(frozen=True)
class Known(Place):
    """An integer that the kernel reads or computes, as the generator writes values.

    rank: of the frame that it is a block of
    """

    value: Any
    along: frozenset[int]
    rank: int = 0

    @property
    def axes(self) -> frozenset[int]:
        return self.along

    @property
    def depth(self) -> int:
        return max(self.along, default=-1) + 1

    @property
    def known(self) -> tuple[Known, ...]:
        return (self,)


@dataclass(frozen=True)
class Sum(Place):
    """A row-major place: places with their strides.

    parts: all of them, also those of dims with one place, which add nothing
    """

    terms: tuple[tuple[Place, int], ...]
    parts: tuple[Place, ...] = field(compare=False)


@dataclass(frozen=True)
class _Of(Place):
    """An operation on a place and an integer."""

    place: Place
    number: int

    @property
    def parts(self) -> tuple[Place, ...]:  # type: ignore[override]
        return (self.place,)


class Shift(_Of):
    """A place some places further on."""


@dataclass(frozen=True)
class Digit(_Of):
    """One of the places that a row-major place is taken apart into: over a stride, in a dim of this size.

    outermost: no dim is left, so that the quotient is within the size
    """

    size: int
    outermost: bool


@dataclass(frozen=True)
class Within(_Of):
    """A place counted within a part of a dim, from ``number`` to ``stop``; 0 outside it."""

    stop: int


Index = Mapping[str, Place]


def linear(dims: Sequence[Dim], index: Index, row: Place | None = None) -> Sum:
    """The row-major place in dims; of a row, if one is given, of a table with such rows."""
    terms: list[tuple[Place, int]] = []
    stride = 1
    for d in reversed(dims):
        if d.size != 1:
            terms.append((index[d.name], stride))
        stride *= d.size
    if terms == [(Literal(0), 1)]:
        terms = []
    if row is not None:
        terms.append((row, stride))
    return Sum(tuple(reversed(terms)), tuple([index[d.name] for d in dims]))


def reshaped(old: Sequence[Dim], new: Sequence[Dim], index: Index) -> Index:
    """The places under old dims of places under new ones: counted row-major and taken apart, a few dims at a time."""
    old, new, found = list(old), list(new), {}
    while old or new:
        heads, wanted = _next_group(old, new)
        if len(heads) == len(wanted) == 1:
            found[heads[0].name] = index[wanted[0].name]
            continue
        whole, stride, total = linear(wanted, index), 1, math.prod(d.size for d in heads)
        for d in reversed(heads):
            found[d.name] = Digit(whole, stride, d.size, outermost=stride * d.size == total)
            stride *= d.size
    return found


def _next_group(old: list[Dim], new: list[Dim]) -> tuple[list[Dim], list[Dim]]:
    """Take from both lists the shortest heads with the same number of places; all where there is no place."""
    if not all(d.size for d in old):
        heads = list(old), list(new)
        old[:], new[:] = [], []
        return heads
    a, b = [old.pop(0)] if old else [], [new.pop(0)] if new else []
    while (places := math.prod(d.size for d in a)) != (wanted := math.prod(d.size for d in b)):
        if places < wanted:
            a.append(old.pop(0))
        else:
            b.append(new.pop(0))
    return a, b
