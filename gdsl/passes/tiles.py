"""Wide values of nodes that only products of matrices read: a few rows at a time, so that they are never whole.

The sums of all relations at a node, say, are many times as wide as its features. A kernel that makes them for some rows
and the products of these rows alternate; what one writes the other finds in the cache.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from gdsl.ir.node import Node
from gdsl.ir.ops import ELEMENTWISE
from gdsl.ir.types import Domain
from gdsl.passes.dense import DENSE_INTENSITY, ROWS, is_dense, iteration_space, rows_and_matrix
from gdsl.passes.plan import Kernel, Plan, Step, TorchStep

# Narrower values lie in the cache of a processor whole, on all but large graphs.
LEAST_WIDTH = 192


@dataclass(frozen=True)
class Tile:
    """A kernel and the products of what it stores, in turns for some rows each.

    inner: what exists for these rows only
    """

    kernel: Kernel
    products: tuple[TorchStep, ...]
    inner: frozenset[Node]

    @property
    def buffers(self) -> tuple[Node, ...]:
        own = set(self.kernel.outputs)
        read = (*self.kernel.buffers, *(b for p in self.products for b in p.buffers))
        return tuple(dict.fromkeys(b for b in read if b not in own))

    @property
    def outputs(self) -> tuple[Node, ...]:
        whole = (o for o in self.kernel.outputs if o not in self.inner)
        return (*whole, *(o for p in self.products for o in p.outputs))


def streamed(outputs: Collection[Node], read_by: Mapping[Node, Sequence[Node]]) -> frozenset[Node]:
    """The values that need not be whole: wide sums over edges, and what is computed of each row of them, that go into
    products of matrices alone. ``read_by`` has operands first, as :func:`gdsl.ir.node.users` gives it."""
    fits: set[Node] = set()
    for node in reversed(list(read_by)):
        if node.type.numel < LEAST_WIDTH or node.domain not in ROWS or node in outputs:
            continue
        if all(u in fits if _is_of_each_row(u, node) else is_product(u, node) for u in read_by[node]):
            fits.add(node)
    found: dict[Node, None] = {}
    for node in read_by:
        if node in fits and (node.op == "segment" or any(i in found and _is_of_each_row(node, i) for i in node.inputs)):
            found[node] = None
    return frozenset(found)


def _is_of_each_row(node: Node, operand: Node) -> bool:
    return node.op in ELEMENTWISE and node.type == operand.type


def is_product(node: Node, operand: Node) -> bool:
    """Whether a product of some rows of the operand is that of all rows, in part: these rows, or a term of a sum."""
    if node.op != "contract" or len(node.inputs) != 2:
        return False
    if not node.attrs.total:
        found = rows_and_matrix(node)
        return found is not None and found[0] is operand and is_dense(node)
    apart = not set(node.inputs[0].type.names) & set(node.inputs[1].type.names)
    plain = apart and not node.attrs.reduce and all(i.domain is operand.domain and i.dims for i in node.inputs)
    return plain and iteration_space(node) > DENSE_INTENSITY * sum(i.type.numel for i in node.inputs)


def tiled(plan: Plan) -> list[Step | Tile]:
    """The steps of a plan in order, where a kernel and products of what it stores are one if they can be."""
    steps: list[Step | Tile] = list(plan.steps)
    for kernel in plan.kernels:
        tile = _tile(kernel, steps, set(plan.program.nodes))
        if tile is not None:
            after = max(steps.index(p) for p in tile.products) + 1
            before = [s for s in steps[:after] if s is not kernel and s not in tile.products]
            steps = [*before, tile, *steps[after:]]
    return steps


def _tile(kernel: Kernel, steps: Sequence[Step | Tile], outputs: set[Node]) -> Tile | None:
    if kernel.end is None or kernel.all_totals or kernel.rows is Domain.EDGE:
        return None
    inner: set[Node] = set()
    products: dict[TorchStep, None] = {}
    for node in kernel.stores:
        if node in outputs or node.domain is not kernel.rows or node.type.numel < LEAST_WIDTH:
            continue
        readers = [s for s in steps if node in s.buffers]
        if readers and all(isinstance(s, TorchStep) and _is_tileable(s, node) for s in readers):
            inner.add(node)
            products |= dict.fromkeys(s for s in readers if isinstance(s, TorchStep))
    if not inner:
        return None
    tile = Tile(kernel, tuple(products), frozenset(inner))
    first, last = steps.index(kernel), max(steps.index(p) for p in products)
    between = [s for s in steps[first + 1 : last] if s not in products]
    made = {*kernel.outputs, *(o for p in products for o in p.outputs)}
    waits = any(made & set(s.buffers) for s in between)
    apart = all(b not in p.outputs for p in products for q in products for b in q.buffers)
    return tile if apart and not waits else None


def _is_tileable(step: TorchStep, operand: Node) -> bool:
    if step.absorbed:  # it is a sum of products of rows
        return all(b.domain in (operand.domain, Domain.GLOBAL) for b in step.buffers)
    return is_product(step.node, operand)
