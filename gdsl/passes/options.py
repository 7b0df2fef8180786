"""What a user or the runtime may choose about the passes, and what the cost model knows of the graph at hand."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache


@dataclass(frozen=True)
class GraphShape:
    """The sizes of a graph, rounded so that graphs alike share their kernels.

    sources, targets, edges: how many
    device:                  the type of the device that it lies on
    processes:               of how many it is distributed over, these are the sizes of one; 0 for a graph that is whole
    chunks:                  whether the rows of other processes come in chunks
    complete:                whether its edges are all pairs of nodes of each graph, of which none lies in memory
    reversed:                whether it is a part with every edge turned round, these are the sizes as it lies in memory
    """

    sources: int
    targets: int
    edges: int
    device: str = "cpu"
    processes: int = 0
    chunks: bool = False
    complete: bool = False
    reversed: bool = False

    @classmethod
    def of(cls, sources: int, targets: int, edges: int, device: str = "cpu") -> GraphShape:
        """The targets to the nearest power of 16; sources and edges by their ratio to the targets, a power of 2."""
        targets = targets or 1
        size = max(1, round(math.log2(targets) / 4)) * 4
        more = size if sources == targets else size + round(math.log2((sources or 1) / targets))
        return _shape(more, size, size + round(math.log2((edges or 1) / targets)), device)

    @property
    def in_degree(self) -> float:
        """Edges a target, on average."""
        return self.edges / self.targets

    @property
    def out_degree(self) -> float:
        """Edges a source, on average."""
        return self.edges / self.sources


@lru_cache(maxsize=1024)
def _shape(sources: int, targets: int, edges: int, device: str) -> GraphShape:
    """From powers of 2. The same object for the same numbers: it is a key of many tables."""
    return GraphShape(2 ** max(0, sources), 2**targets, 2 ** max(0, edges), device)


# The graph that the cost model has in mind before it has seen one: a mean degree of 16.
TYPICAL = GraphShape(1 << 16, 1 << 16, 1 << 20)


# What a user may choose, and the values of each choice; "auto" leaves it to the cost model; of ties it is "split".
CHOICES: dict[str, tuple[str, ...]] = {
    "aggregate": ("auto", "first", "last"),
    "weight_gradient": ("auto", "nodes", "edges"),
    "kinds": ("auto", "picked", "all"),
    "save": ("auto", "all", "nothing"),
    "sums": ("auto", "kernel", "vendor"),
    "ties": ("auto", "split", "first"),
    "wire": ("auto", "bfloat16"),
    "halo": ("auto", "whole", "turns"),
}


@dataclass(frozen=True)
class Options:
    """Which passes run, and for which graph. The defaults are for users; tests switch passes off to compare.

    optimise: rewrite and hoist
    save:     keep values of the forward pass for the backward pass
    shape:    the graph that costs are evaluated on
    choices:  (name, value) for each choice that a user has taken out of the cost model's hands
    budget:   the most bytes to keep between the forward and the backward pass; None for no limit
    """

    optimise: bool = True
    save: bool = True
    shape: GraphShape = TYPICAL
    choices: tuple[tuple[str, str], ...] = ()
    budget: int | None = None

    @property
    def in_turns(self) -> bool:
        """Whether edges between own nodes are walked before those that read rows of others, and these in chunks."""
        wanted = self.choice("halo")
        return self.shape.processes > 1 and (wanted == "turns" or (wanted == "auto" and self.shape.chunks))

    def choice(self, name: str) -> str:
        """What the user wants of a choice."""
        return dict(self.choices).get(name, "auto")

    def with_choice(self, name: str, value: str) -> Options:
        """The same options with one choice made."""
        return replace(self, choices=tuple(sorted({**dict(self.choices), name: value}.items())))
