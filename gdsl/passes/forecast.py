"""What a plan will hold in memory on a graph, tensor by tensor, before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gdsl.ir.node import Node
from gdsl.ir.ops import of
from gdsl.ir.types import Domain, Kind
from gdsl.passes.plan import Kernel, Plan
from gdsl.passes.tiles import Tile, tiled

# Where a plan's values live, by domain: rows on the graph at hand.
Rows = Mapping[Domain, int]


@dataclass(frozen=True)
class Held:
    """A tensor that a plan makes.

    first, last: the numbers of the step that makes it and of the last one that reads it; outputs live on
    """

    node: Node
    bytes: int
    first: int
    last: int


@dataclass(frozen=True)
class Forecast:
    """Tensors in the order in which they are made, and scratch that a step needs while it runs."""

    tensors: tuple[Held, ...]
    scratch: tuple[tuple[int, str, int], ...]
    steps: int

    @property
    def peak(self) -> int:
        """The most bytes alive at once, inputs and parameters not counted."""
        return max((self.alive(step) for step in range(self.steps)), default=0)

    def alive(self, step: int) -> int:
        """Bytes that exist while a step runs."""
        held = sum(t.bytes for t in self.tensors if t.first <= step <= t.last)
        return held + sum(size for at, _, size in self.scratch if at == step)


def size(node: Node, rows: Rows, float_bytes: int, index_bytes: int) -> int:
    """Bytes of a value when it is stored."""
    width = {Kind.FLOAT: float_bytes, Kind.INT: index_bytes, Kind.BOOL: 1}[node.kind]
    return rows.get(node.domain, 1) * node.type.numel * width


def forecast(
    plan: Plan,
    rows: Rows,
    threads: int,
    kept_edges: int,
    groups: int,
    tile_bytes: int,
    float_bytes: int = 4,
    index_bytes: int = 4,
) -> Forecast:
    """The memory of a plan.

    kept_edges: edges of a row for which a thread keeps values between walks
    groups:     partial sums of a total
    tile_bytes: room for wide values of a few rows; 0 where all rows run at once
    """
    steps = tiled(plan) if tile_bytes else plan.steps
    end = len(steps)
    last = {n: k for k, step in enumerate(steps) for n in step.buffers} | dict.fromkeys(plan.program.nodes, end)
    tensors, scratch = [], []
    for k, unit in enumerate(steps):
        step = unit.kernel if isinstance(unit, Tile) else unit
        if isinstance(unit, Tile):
            whole = sum(size(n, rows, float_bytes, index_bytes) for n in unit.inner)
            scratch.append((k, "wide values of a few rows", min(whole, tile_bytes)))
        for node in unit.outputs:
            # A view of a tensor is the tensor.
            bytes_ = 0 if of(node).view else size(node, rows, float_bytes, index_bytes)
            tensors.append(Held(node, bytes_, k, last.get(node, k)))
        if isinstance(step, Kernel):
            kept = sum(n.type.numel for p in step.phases for n in p.kept) * kept_edges * threads
            partial = sum(t.type.numel for t in step.all_totals) * groups
            scratch += [(k, "kept between walks", kept * float_bytes)] if kept else []
            scratch += [(k, "partial sums", partial * float_bytes)] if partial else []
    return Forecast(tuple(tensors), tuple(scratch), end)
