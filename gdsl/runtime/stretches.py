"""Where the numbers of a row stand that a node only puts in another order: as stretches, which are few."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gdsl.ir.node import Node
from gdsl.ir.ops import of
from gdsl.ir.types import Domain

# Stretches of numbers, and places of a row, that are written down.
MOST_STRETCHES = 1 << 11
MOST_PLACES = 1 << 20

# A place is that of a number in an operand, and this many times the place of the operand.
_PART = 1 << 32


class _OneRow:
    """What a reference form asks how many rows there are."""

    def rows(self, domain: Domain) -> int:
        return 1


ONE_ROW: Any = _OneRow()


class Stretch(NamedTuple):
    """Numbers of an operand that follow each other in a result: the operand, -1 for a constant, the place of the first
    in its row, how far they lie apart, and how many they are."""

    operand: int
    start: int
    apart: int
    length: int


@lru_cache(64)
def stretches(node: Node) -> tuple[Stretch, ...]:
    """Where the numbers of a row of a node stand; beyond ``MOST_STRETCHES`` are too many to be written down."""
    parts = []
    for k, n in enumerate(node.inputs):
        shape = n.type.shape if n.domain is Domain.GLOBAL else (1, *n.type.shape)
        parts.append(torch.full(shape, -1) if n.op == "const" else torch.arange(n.type.numel).view(shape) + k * _PART)
    form = of(node).value
    assert form is not None
    found: Tensor = form(node, parts, ONE_ROW).flatten()
    apart, places = found.diff(), found.tolist()
    turns = ((apart[1:] != apart[:-1]).nonzero().flatten() + 1).tolist()
    runs: list[Stretch] = []
    at = 0
    while at < len(places) and len(runs) <= MOST_STRETCHES:
        turn = bisect_right(turns, at)
        end = turns[turn] + 1 if turn < len(turns) else len(places)
        operand, start = divmod(places[at], _PART)
        if places[end - 1] // _PART != operand:
            end = at + 1
        step = 0 if operand < 0 or end == at + 1 else places[at + 1] - places[at]
        runs.append(Stretch(operand, 0 if operand < 0 else start, step, end - at))
        at = end
    return tuple(runs)


def is_short(node: Node) -> bool:
    """Whether it is written down in short where the numbers of a row stand."""
    return all(n.type.numel <= MOST_PLACES for n in (node, *node.inputs)) and len(stretches(node)) <= MOST_STRETCHES


def is_part(runs: Sequence[Stretch]) -> bool:
    """Whether the numbers are a stretch of one operand."""
    return len(runs) == 1 and runs[0].operand >= 0 and runs[0].apart in (0, 1)


def constant(node: Node) -> float | None:
    return float(node.attrs.value) if node.op == "const" else None
