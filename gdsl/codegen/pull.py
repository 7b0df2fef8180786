"""What the generators have in common: to write a value, they ask for its operands at places, down to memory.

Ops that only say where numbers stand (slices, reshapes, gathers) are written here, once: their operand at other places.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

from gdsl.codegen.indices import Digit, Index, Known, Literal, Place, Row, Shift, Within, reshaped
from gdsl.codegen.names import Names
from gdsl.ir.node import Node, walk_below
from gdsl.ir.ops import ELEMENTWISE
from gdsl.ir.ops.indexing import slice_place
from gdsl.ir.ops.tables import terms
from gdsl.ir.program import Program
from gdsl.ir.types import Dim, Domain
from gdsl.passes.plan import Kernel

# Where a value is wanted: at the row being walked, at the other end of the edge, at the edge, or anywhere.
ROW, COLUMN, EDGE, GLOBAL = "row", "column", "edge", "global"
# The number of that row there, in kernels.
NUMBER_OF = {ROW: Row("i"), COLUMN: Row("j"), EDGE: Row("id")}

# Operations below one another that are written by recursion, which keeps the text in the order of the program.
LONG_CHAIN = 50

Written = TypeVar("Written")  # a value as a generator writes it
Around = TypeVar("Around")  # what it is written into: loops, or the axes of a block


class Pull(Names, Generic[Written, Around]):
    """Values of one kernel. ``packed`` are the buffers that are stored half as wide."""

    def __init__(
        self,
        kernel: Kernel,
        program: Program,
        packed: frozenset[Node],
        reserved: frozenset[str],
        foreign: re.Pattern[str],
    ):
        super().__init__(program, reserved, foreign)
        self.kernel, self.packed, self.buffers = kernel, packed, set(kernel.buffers)
        roots = [*(r for p in kernel.phases for r in p.roots), *kernel.stores, *kernel.totals]
        below = walk_below(roots, lambda n: () if n in self.buffers else n.inputs)
        # What the kernel computes, operands first.
        self.nodes = [n for n in below if n not in self.buffers]
        # A scan is of operations that are not among these.
        few = sum(n.op in ELEMENTWISE for n in self.nodes) <= LONG_CHAIN
        self.may_chain = not few or any(n.op == "scan" for n in self.nodes)
        for node in (*kernel.buffers, *kernel.outputs):
            self.name(node)

    # -- what a generator says ------------------------------------------------------------------

    def value(self, node: Node, index: Index, where: str, around: Around) -> Written:
        """The node at an index, as text that others may read."""
        raise NotImplementedError

    def compute_elementwise(self, node: Node, index: Index, where: str, around: Around) -> Written:
        """An elementwise op of its operands."""
        raise NotImplementedError

    def number_at(self, place: Place, around: Around) -> Written:
        """A place as a value."""
        raise NotImplementedError

    def place_of(self, value: Written, axes: frozenset[int], around: Around) -> Known:
        """An integer as a place; ``axes`` are those of the dims that it has."""
        raise NotImplementedError

    def is_written(self, node: Node, index: Index, where: str, around: Around) -> bool:
        """Whether a value has a name already."""
        raise NotImplementedError

    def is_apart(self, node: Node, around: Around) -> bool:
        """Whether a value is written apart from those that read it."""
        return False

    # -- ops -----------------------------------------------------------------------------------

    def key(self, node: Node, index: Index, where: str) -> tuple[Node, str, tuple[Place, ...]]:
        """What names a value at a place."""
        return node, GLOBAL if node.domain is Domain.GLOBAL else where, tuple([index[d.name] for d in node.dims])

    def compute(self, node: Node, index: Index, where: str, around: Around) -> Written:
        if node.op in ELEMENTWISE:
            if self.may_chain:
                for below in self._chain(node, index, where, around):
                    self.value(below, index, where, around)
            return self.compute_elementwise(node, index, where, around)
        return getattr(self, f"compute_{node.op}")(node, index, where, around)

    def _chain(self, node: Node, index: Index, where: str, around: Around) -> list[Node]:
        """The elementwise values below one that are not written yet, operands first, where there are many: written
        in this order, they do not make a recursion that is as deep as the program."""

        def unwritten(below: Node) -> tuple[Node, ...]:
            if below is not node and self.is_apart(below, around):
                return ()
            found = (i for i in below.inputs if i.op in ELEMENTWISE)
            return tuple(i for i in found if not self.is_written(i, index, where, around))

        found = list(walk_below([node], unwritten))[:-1]
        return found if len(found) > LONG_CHAIN else []

    def compute_iota(self, node: Node, index: Index, where: str, around: Around) -> Written:
        return self.number_at(index[node.dims[0].name], around)

    def compute_gather(self, node: Node, index: Index, where: str, around: Around) -> Written:
        return self.value(node.inputs[0], index, ROW if node.attrs.end == self.kernel.end else COLUMN, around)

    def compute_spread(self, node: Node, index: Index, where: str, around: Around) -> Written:
        return self.value(node.inputs[0], index, GLOBAL, around)

    def compute_transpose(self, node: Node, index: Index, where: str, around: Around) -> Written:
        return self.value(node.inputs[0], index, where, around)

    compute_stop_gradient = compute_transpose

    def compute_slice(self, node: Node, index: Index, where: str, around: Around) -> Written:
        start, place = node.attrs.start, index[node.dims[slice_place(node)].name]
        moved = Literal(place.number + start) if isinstance(place, Literal) else Shift(place, start) if start else place
        return self.value(node.inputs[0], {**index, node.attrs.dim: moved}, where, around)

    def compute_roll(self, node: Node, index: Index, where: str, around: Around) -> Written:
        dim = node.type.dim(node.attrs.dim)
        place = Digit(Shift(index[dim.name], dim.size - node.attrs.shift), 1, dim.size, outermost=False)
        return self.value(node.inputs[0], {**index, dim.name: place}, where, around)

    def compute_reshape(self, node: Node, index: Index, where: str, around: Around) -> Written:
        operand = node.inputs[0]
        return self.value(operand, reshaped(operand.dims, node.dims, index), where, around)

    def compute_index(self, node: Node, index: Index, where: str, around: Around) -> Written:
        table, idx = node.inputs
        axes = frozenset(axis for n in idx.type.names for axis in index[n].axes)
        at = self.place_of(self.value(idx, index, where, around), axes, around)
        return self.value(table, {**index, node.attrs.dim: at}, where, around)

    def parts(self, node: Node, index: Index) -> Iterator[tuple[Node, Index, int]]:
        """The operands of a ``cat``, each with an index that exists, and the place after its last."""
        place, stop = index[node.attrs.new], 0
        for operand, name in zip(node.inputs, node.attrs.dims, strict=True):
            start, stop = stop, stop + operand.type.dim(name).size
            if not isinstance(place, Literal):
                yield operand, {**index, name: Within(place, start, stop)}, stop
            elif start <= place.number < stop:
                yield operand, {**index, name: Literal(place.number - start)}, stop

    def table_terms(
        self, node: Node, index: Index, where: str, around: Around
    ) -> Iterator[tuple[dict[str, Place], list[tuple[float, list[Written]]]]]:
        """For each place of the kept dims of a table that a product has, the terms: a number and the factors."""
        names = [name for name in node.attrs.dims if name not in node.attrs.reduce]
        for places, found in terms(node).items():
            at: dict[str, Place] = {name: Literal(place) for name, place in zip(names, places, strict=True)}
            if any(isinstance(index[name], Literal) and index[name] != at[name] for name in names if name in index):
                continue
            written = []
            for inner, number in found:
                inside = {**index, **{name: Literal(place) for name, place in inner.items()}}
                written.append((number, [self.value(i, inside, where, around) for i in node.inputs]))
            yield at, written


def reduced_dims(node: Node, operands: Sequence[Node]) -> tuple[Dim, ...]:
    """The dims over which a node sums, or takes the best, in the order in which operands have them."""
    names = node.attrs.reduce if node.op == "contract" else (node.attrs.dim,)
    return tuple({d.name: d for operand in operands for d in operand.dims if d.name in names}.values())
