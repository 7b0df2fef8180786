"""The types of IR values: a domain (what there is one value for), named dims, and a kind of number."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, replace


class Domain(enum.Enum):
    """What a value has one instance for."""

    GLOBAL = "global"
    NODE = "node"
    SOURCE = "source"
    TARGET = "target"
    EDGE = "edge"
    PAIR = "pair"
    GRAPH = "graph"
    # Of a distributed bipartite graph: the sources that a process owns. Those that its edges read are its "source".
    OWN = "own source"

    # Of what there is once, as Python has it of any object: an enum's own is computed by Python in each look-up.
    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return self.value


# What walks go through: the edges of a node, the pairs of an edge.
ELEMENTS = frozenset({Domain.EDGE, Domain.PAIR})


class Kind(enum.Enum):
    """The kind of number; the width of FLOAT is chosen when a program is compiled."""

    FLOAT = "float"
    INT = "int"
    BOOL = "bool"

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class Dim:
    """A named feature dimension. Two dims are the same when name and size agree."""

    name: str
    size: int

    def __repr__(self) -> str:
        return f"{self.name}={self.size}"


@dataclass(frozen=True, slots=True)
class Type:
    """The type of a value: stored as ``[rows of the domain, *dims]``.

    ``bound`` is set on integers that are known to lie in ``[0, bound)``.
    """

    domain: Domain
    dims: tuple[Dim, ...] = ()
    kind: Kind = Kind.FLOAT
    bound: int | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the feature dims, without the domain's rows."""
        return tuple(d.size for d in self.dims)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(d.name for d in self.dims)

    @property
    def numel(self) -> int:
        """Numbers per row of the domain."""
        return math.prod([d.size for d in self.dims])

    def dim(self, name: str) -> Dim:
        for d in self.dims:
            if d.name == name:
                return d
        raise KeyError(name)

    def with_dims(self, dims: tuple[Dim, ...]) -> Type:
        return replace(self, dims=dims)

    def __str__(self) -> str:
        """As the language writes it: ``edge[heads, out_channels]``."""
        text = self.domain.value
        if self.dims:
            text += "[" + ", ".join(self.names) + "]"
        if self.kind is Kind.INT:
            text += f": int({self.bound})" if self.bound is not None else ": int"
        elif self.kind is Kind.BOOL:
            text += ": bool"
        return text


# The end of an edge at which a node value is read, or a segment is formed. ``i`` is the target of
# an edge j -> i, ``j`` its source; ``g`` takes nodes as the "edges" and graphs of a batch as rows.
#
# Two edges kj and ji that follow each other, k -> j -> i, are a pair. To pairs, edges are what nodes are to edges:
# ``j`` is the first edge of a pair, kj, and ``i`` the second, ji.
ENDS = ("i", "j", "g")
PAIR_ENDS = {"i": "ji", "j": "kj"}
EDGES_OF_PAIRS = {edge: end for end, edge in PAIR_ENDS.items()}


def element_domain(end: str, rows: Domain) -> Domain:
    """The domain of what ``gather`` makes of a value of these rows, and of what ``segment`` reduces to one."""
    if end == "g":
        return Domain.NODE
    return Domain.PAIR if rows is Domain.EDGE else Domain.EDGE


def row_domains(end: str) -> tuple[Domain, ...]:
    """The domains that ``gather`` may read at this end."""
    return {
        "i": (Domain.NODE, Domain.TARGET, Domain.EDGE),
        "j": (Domain.NODE, Domain.SOURCE, Domain.EDGE),
        "g": (Domain.GRAPH,),
    }[end]


def shown_end(end: str, elements: Domain) -> str:
    """How an end is written: of a pair it is one of two edges."""
    return PAIR_ENDS[end] if elements is Domain.PAIR else end
