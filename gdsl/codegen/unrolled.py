"""Which dims of a Triton kernel have no axis in its blocks: their places are written out one by one.

An axis that a sum runs along is shared by threads, which then add up by shuffles. So short dims beside long ones are
written out in kernels that walk edges, unless that tears apart a row of a table which edges read.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from gdsl.codegen.products import Product
from gdsl.ir.node import Node, walk_below
from gdsl.ir.ops import ELEMENTWISE
from gdsl.ir.types import Dim, Domain
from gdsl.passes.plan import Kernel

# Dims of at most this many places are written out beside others that have at least so many.
MOST_UNROLLED = 8
LEAST_BESIDE = 16
# A value is written out for at most so many places of all such dims together.
MOST_PLACES = 16
# Of a row with this many numbers beside a dim, a place of the dim is read in pieces that are long enough for memory.
LONG_ROW = 16

# Ops that may have such dims.
_UNROLLED = frozenset(ELEMENTWISE) | {
    *("const", "contract", "segment", "gather", "spread", "stop_gradient", "transpose", "index"),
}


def unrolled_dims(kernel: Kernel, nodes: Sequence[Node], products: Iterable[Product]) -> frozenset[Dim]:
    """The short dims of a kernel whose places are written out one by one."""
    if not kernel.end:
        return frozenset()
    wide = [_dims_below(n) for n in nodes]
    found = {d for dims in wide for d in dims if 1 < d.size <= MOST_UNROLLED and _beside(d, dims) >= LEAST_BESIDE}
    torn = [n.dims for n in _read_by_edges(kernel, nodes)]
    torn_dims = {d for dims in torn for d in dims if _beside(d, dims) >= LONG_ROW}
    kept = {d for n in nodes if n.op not in _UNROLLED for d in _dims_below(n)}
    kept |= {d for n in nodes if n.op == "index" for d in n.inputs[0].dims if d.name == n.attrs.dim}
    # A sum over edges of which places are picked has an axis for each of its dims: the pick adds along all of them.
    picked = [i for n in nodes if n.op == "index" or n.op not in _UNROLLED for i in n.inputs]
    buffers = set(kernel.buffers)
    below = walk_below(picked, lambda n: () if n in buffers else n.inputs)
    kept |= {d for n in below if n.op == "segment" and n not in buffers for d in n.dims}
    kept |= {d for p in products for n in (p.node, p.left, p.right) for d in n.dims}
    chosen: set[Dim] = set()
    for dim in sorted(found - torn_dims - kept, key=lambda d: (d.size, d.name)):
        more = chosen | {dim}
        if all(math.prod(d.size for d in dims if d in more) <= MOST_PLACES for dims in wide):
            chosen = more
    return frozenset(chosen)


def _dims_below(node: Node) -> tuple[Dim, ...]:
    """The dims of a node and of what it is made of."""
    return tuple(dict.fromkeys([*node.dims, *(d for i in node.inputs for d in i.dims)]))


def _beside(dim: Dim, dims: Sequence[Dim]) -> int:
    return math.prod(d.size for d in dims if d != dim) if dim in dims else 0


def _read_by_edges(kernel: Kernel, nodes: Sequence[Node]) -> list[Node]:
    """The buffers that a kernel reads for each edge, not once a row."""
    buffers = set(kernel.buffers)
    gathered = [n.inputs[0] for n in nodes if n.op == "gather" and n.attrs.end != kernel.end]
    below = walk_below(gathered, lambda n: () if n in buffers else n.inputs)
    return [n for n in below if n in buffers and n.domain is not Domain.GLOBAL] + [
        n for n in kernel.buffers if n.domain is Domain.EDGE
    ]
