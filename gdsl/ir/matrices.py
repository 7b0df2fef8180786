"""Determinants and inverses of small matrices, written out by their minors."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable

from gdsl.ir import build
from gdsl.ir.attributes import IRError
from gdsl.ir.library import side_by_side
from gdsl.ir.node import Node
from gdsl.ir.types import Dim

# Above it, minors are many and lose digits: an elimination with pivots is torch's.
MOST = 4

# Of some rows and columns.
Minor = Callable[[tuple[int, ...], tuple[int, ...]], Node]


def det(a: Node) -> Node:
    """The determinant of the last two dims."""
    minor, every = _minors(a, "det")
    return minor(every, every)


def inverse(a: Node) -> Node:
    """The inverse of the last two dims, which it has in the other order: ``a[d, k]`` takes k to d, and this d to k."""
    adjugate, whole = _adjugate(a, "inverse"), 1.0 / det(a)
    row, column = a.dims[-2:]
    flat = Dim(f"{column.name}*{row.name}", column.size * row.size)
    places = side_by_side([part * whole for parts in adjugate for part in parts], flat)
    return build.split(places, flat.name, (column, row))


def solve(a: Node, b: Node) -> Node:
    """x such that ``sum[k](a[d, k] * x[k])`` is ``b[d]``."""
    adjugate, whole = _adjugate(a, "solve"), 1.0 / det(a)
    row, column = a.dims[-2:]
    if row.name not in b.type.names or column.name in b.type.names:
        needed = f"`{row.name}`, the rows of {a.type}, in {b.type}, and not `{column.name}`, its columns"
        raise IRError(f"`solve` needs {needed}")
    right = [build.select(b, row.name, k) for k in range(row.size)]
    solved = [functools.reduce(operator.add, map(operator.mul, parts, right)) * whole for parts in adjugate]
    others = [name for name in a.type.names[:-2] if name not in b.type.names]
    order = [*others, *(column.name if name == row.name else name for name in b.type.names)]
    return build.transpose(side_by_side(solved, column), order)


def _adjugate(a: Node, function: str) -> list[list[Node]]:
    """The inverse times the determinant, by columns of a and then rows."""
    minor, every = _minors(a, function)

    def cofactor(column: int, row: int) -> Node:
        found = minor(tuple(r for r in every if r != row), tuple(c for c in every if c != column))
        return -found if (row + column) % 2 else found

    return [[cofactor(column, row) for row in every] for column in every]


def _minors(a: Node, function: str) -> tuple[Minor, tuple[int, ...]]:
    """The determinant of some rows and columns, and all places of either."""
    if len(a.dims) < 2 or a.dims[-1].size != a.dims[-2].size or not 1 <= a.dims[-1].size <= MOST:
        raise IRError(
            f"`{function}` takes matrices over the last two dims, of size 1 to {MOST} both, not {a.type}",
            "of larger ones torch.linalg's result is an input",
        )
    rows, columns = a.type.names[-2:]
    one = build.const(1.0)

    @functools.cache
    def minor(at: tuple[int, ...], across: tuple[int, ...]) -> Node:
        if not at:
            return one
        total: Node | None = None
        for k, column in enumerate(across):
            term = build.select(build.select(a, rows, at[0]), columns, column)
            if len(at) > 1:
                term = term * minor(at[1:], across[:k] + across[k + 1 :])
            total = term if total is None else total - term if k % 2 else total + term
        assert total is not None
        return total

    return minor, tuple(range(a.dims[-1].size))
