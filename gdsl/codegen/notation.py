"""Blocks, places and numbers as Triton text."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from gdsl.codegen.indices import Axis, Digit, Known, Literal, Place, Row, Shift, Sum, Within
from gdsl.ir.node import Node
from gdsl.ir.types import Kind

# Once for all, for each row, for each edge: how often a line runs.
KERNEL, ROWS, EDGES = 0, 1, 2

# Axes before those of the frame: edges and rows.
LEAD = 2

# What sums, products, maxima and minima begin with.
STARTS = {"sum": "0.0", "mul": "1.0", "max": 'float("-inf")', "min": 'float("inf")'}


@dataclass(frozen=True)
class Value:
    """A block as text.

    lead:   it has the axes of rows and edges
    scalar: it has no axes at all
    zero:   where it is loaded from, if it is zero at places that do not exist
    narrow: it varies along none of the frame's axes
    """

    text: str
    level: int
    lead: bool = True
    scalar: bool = False
    zero: str | None = None
    narrow: bool = False


@dataclass
class Level:
    """Lines that run once for each of something, and what they have computed.

    blocks: how many values they compute that take registers for a block of their own
    """

    lines: list[str] = field(default_factory=list)
    memo: dict[object, Value] = field(default_factory=dict)
    blocks: int = 0

    def add(self, *lines: str, blocks: int | None = None) -> None:
        """Add lines, of which each computes a block where nothing else is said."""
        self.lines += lines
        self.blocks += len(lines) if blocks is None else blocks


def power_of_two(size: int) -> int:
    return 1 << max(0, size - 1).bit_length()


def atom(text: str) -> str:
    """The text, in parentheses where an operator beside it could tear it apart."""
    return text if re.fullmatch(r"[\w.]+(\[[^\[\]]*\])?|[\w.]+\([^()]*\)", text) else f"({text})"


def along(name: str, at: int, rank: int) -> str:
    """A row of numbers along one axis of a frame."""
    return f"{name}[{', '.join(':' if k == at else 'None' for k in range(rank))}]" if rank > 1 else name


def lifted(name: str, rank: int) -> str:
    """A block of rows and edges, with axes for a frame."""
    return f"{name}[:, :{', None' * rank}]" if rank else name


def summed(text: str, axes: Sequence[int]) -> str:
    """A block, added up along axes from the last on."""
    for axis in reversed(axes):
        text = f"tl.sum({text}, axis={axis})"
    return text


def best_places(text: str, best: str) -> str:
    """Where a block is its best value; NaN is, where there is one."""
    return f"({text} == {best}) | (({text} != {text}) & ({best} != {best}))"


def print_place(place: Place, rank: int) -> str:
    """A place as a block of a frame of this rank."""
    match place:
        case Axis(name, at):
            return along(name, at, rank)
        case Row(name):
            return lifted(name, rank)
        case Literal(number):
            return str(number)
        case Known(value, _, own):
            if value.scalar or rank == own:
                return str(value.text)
            axes = [":"] * ((LEAD if value.lead else 0) + own) + ["None"] * (rank - own)
            return f"{atom(value.text)}[{', '.join(axes)}]"
        case Sum():
            return atom(print_sum(place, rank))
        case Shift(at, start):
            return f"{print_place(at, rank)} + {start}"
        case Digit(at, stride, size, outermost):
            part = print_place(at, rank) + (f" // {stride}" if stride > 1 else "")
            return part if outermost else f"({part}) % {size}"
        case Within(at, start, stop):
            text = atom(print_place(at, rank))
            return f"tl.where(({text} >= {start}) & ({text} < {stop}), {text} - {start}, 0)"
    raise AssertionError(place)


def print_sum(place: Sum, rank: int) -> str:
    """The same for a sum that nothing stands beside."""
    terms = [atom(print_place(at, rank)) + (f" * {stride}" if stride != 1 else "") for at, stride in place.terms]
    return " + ".join(terms) or "0"


def level_of(places: Iterable[Place]) -> int:
    """The level at which places are known."""
    return max((known.value.level for place in places for known in place.known), default=KERNEL)


def is_lead(places: Iterable[Place]) -> bool:
    """Whether places differ by rows or edges."""
    return any(known.value.lead for place in places for known in place.known)


def literal(node: Node, number: str) -> str:
    value = node.attrs.value
    if node.kind is not Kind.FLOAT:
        return str(bool(value)) if node.kind is Kind.BOOL else f"{value:d}"
    return typed_literal(value, number)


def typed_literal(value: float, number: str) -> str:
    """A number as one of the type that is computed with: a literal is rounded to float32, unless it is given a type."""
    typed = number != "tl.float32" and math.isfinite(value)
    return f"tl.full([], {float(value)!r}, {number})" if typed else number_literal(value)


def number_literal(value: float) -> str:
    if value != value:
        return 'float("nan")'
    return f'float("{"-" if value < 0 else ""}inf")' if math.isinf(value) else repr(float(value))
