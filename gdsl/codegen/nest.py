"""Loops over dims: how a generated kernel fills cells, accumulators and outputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from gdsl.codegen.indices import Sum
from gdsl.ir.types import Dim

# Loops around the innermost one, as many turns of them at most, are written out where they choose a part of `cat`.
MOST_UNROLLED = 16

# A sum over a dim is kept in this many parts at most, which are added in pairs at the end.
MOST_LANES = 16


@dataclass(frozen=True)
class Cell:
    """A computed value in local memory.

    first: the edge whose value comes first, where it has a place for each edge of a row ("begin") or of a block ("at")
    """

    name: str
    scalar: bool
    first: str | None = None

    @property
    def kept(self) -> bool:
        """Whether later walks over the row read it."""
        return self.first == "begin"


def lanes(size: int) -> int:
    """In how many parts a sum over a dim is kept: a power of two, or 0 for one alone."""
    return 0 if size == 1 else min(MOST_LANES, 1 << (size - 1).bit_length())


@dataclass
class Nest:
    """Loops over dims with statements at each depth.

    before[k] runs on entering depth k, after[k] when the loops inside depth k are done.
    lanes: how many sums the innermost loop adds to in turn; 0 where it adds to none
    unrolled: how many of the outer loops are, so that what each turn chooses is known
    writes: where the turn of the loops writes to each cell, by its name
    reads: where it reads each, and how many loops that needs
    """

    loops: tuple[Dim, ...]
    lanes: int = 0
    simd: bool = True
    unrolled: int = 0
    before: list[list[str]] = field(default_factory=list)
    after: list[list[str]] = field(default_factory=list)
    memo: dict[object, tuple[str, int]] = field(default_factory=dict)
    pointwise: bool = True
    writes: dict[str, Sum] = field(default_factory=dict)
    reads: dict[str, set[tuple[Sum, int]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.before = [[] for _ in range(len(self.loops) + 1)]
        self.after = [[] for _ in range(len(self.loops) + 1)]

    @property
    def inner(self) -> list[str]:
        """The statements inside all loops."""
        return self.before[-1]


def joined(nests: Sequence[Nest]) -> list[Nest]:
    """Neighbouring pointwise nests over the same loops as one."""
    found: list[Nest] = []
    for nest in nests:
        last = found[-1] if found else None
        if last and _can_join(last, nest):
            for lines, more in zip((*last.before, *last.after), (*nest.before, *nest.after), strict=True):
                lines.extend(more)
            last.writes.update(nest.writes)
            last.unrolled = max(last.unrolled, nest.unrolled)
        else:
            found.append(nest)
    return found


def _can_join(first: Nest, second: Nest) -> bool:
    """Whether two nests may share their loops: the second reads the first's cells only where they were just written."""
    if not (first.pointwise and second.pointwise and first.loops and first.loops == second.loops):
        return False
    # What needs fewer loops than there are is read before the innermost one, which writes the cell.
    just_written = all(
        read == (place, len(second.loops))
        for name, place in first.writes.items()
        for read in second.reads.get(name, ())
    )
    return just_written and first.simd == second.simd


class Lines:
    """Indented text."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.depth = 0

    def add(self, *lines: str) -> None:
        self.lines += ("    " * self.depth + line for line in lines)

    def insert(self, at: int, *lines: str) -> None:
        """Add lines that what follows them turned out to need."""
        self.lines[at:at] = ("    " * self.depth + line for line in lines)

    @contextmanager
    def block(self, head: str = "") -> Iterator[None]:
        """Braces around what is added within."""
        self.add(f"{head} {{".lstrip())
        self.depth += 1
        yield
        self.depth -= 1
        self.add("}")
