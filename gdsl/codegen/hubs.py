"""Hubs: rows with so many edges that one thread would walk them while the others wait.

Each walk over a hub's edges is cut into chunks of fixed size. Threads share the chunks; what a chunk adds up is
written down, and added in the order of the chunks, so that the result is the same for any number of threads. The
function stands beside the ordinary kernel, which leaves these rows out, and is compiled for the first graph with a hub.
"""

from __future__ import annotations

from dataclasses import replace

from gdsl.codegen.alike import once
from gdsl.codegen.cpp import unit
from gdsl.codegen.cpp_writer import CppWriter, hub_name
from gdsl.codegen.indices import Index, Row, linear
from gdsl.codegen.nest import Nest
from gdsl.codegen.pull import ROW
from gdsl.codegen.schedule import CHUNK_EDGES
from gdsl.codegen.storage import packed_buffers, partials
from gdsl.codegen.values import element
from gdsl.ir.node import Node
from gdsl.ir.ops.edges import finds_winners
from gdsl.ir.program import Program
from gdsl.passes.plan import Kernel, Phase, Plan


def generate_hubs(plan: Plan, dtype: str, index_type: str, visible: int | None = None) -> str:
    """The translation unit of the functions for hubs, one for each kernel of the plan that walks edges in any
    order."""
    packed = packed_buffers(plan, dtype, visible)
    kernels = [k for k in plan.kernels if k.leaves_hubs]
    return unit(once(writer(k, plan.program, packed).source(hub_name(k)) for k in kernels), dtype, index_type)


def writer(kernel: Kernel, program: Program, packed: frozenset[Node]) -> _HubWriter:
    """What writes the function for the hubs of a kernel."""
    # What an ordinary row keeps for its next walk is computed again: the next walk's chunk may be another thread's.
    phases = tuple(replace(p, kept=()) for p in kernel.phases)
    return _HubWriter(replace(kernel, phases=phases), program, packed)


class _HubWriter(CppWriter):
    """A kernel for a few rows, each walked by all threads."""

    def __init__(self, kernel: Kernel, program: Program, packed: frozenset[Node]):
        super().__init__(kernel, program, packed)
        names = {key: ("best_" if key[1] else "part_") + self.name(key[0]) for key in partials(kernel)}
        self.partial = {key: self.fresh(name) for key, name in names.items()}

    @property
    def function(self) -> str:
        return hub_name(self.kernel)

    def comment(self) -> list[str]:
        return [f"{self.function}: the rows of {self.kernel.name} that are hubs, in chunks of {CHUNK_EDGES} edges"]

    def shares(self) -> str:
        return "int64_t num_hubs, int threads, const int64_t* hubs, const int64_t* first_chunk"

    def scratch(self) -> list[str]:
        types = {key: "T" if key[1] or not finds_winners(key[0]) else "idx_t" for key in self.partial}
        return [f"{types[key]}* __restrict__ {name}" for key, name in self.partial.items()]

    def threads(self) -> None:
        kernel, out = self.kernel, self.out
        with out.block("for (int64_t hub = 0; hub < num_hubs; ++hub)"):
            self.declare_numbers()
            out.add("const int64_t i = hubs[hub], row_begin = rowptr[i], stop = rowptr[i + 1];")
            out.add("const int64_t slot = first_chunk[hub], chunks = first_chunk[hub + 1] - slot;")
            at = len(out.lines)
            for phase in kernel.phases:
                self.phase(phase)
            out.add("#pragma omp single")
            with out.block():
                for node in kernel.totals:
                    self.point_at_total(node, "(slot)")
                self.results()
            self.insert_pointers(at, ROW, "i")

    def phase(self, phase: Phase) -> None:
        out, each = self.out, "for (int64_t chunk = 0; chunk < chunks; ++chunk)"
        for node in self.row_values(phase.roots):
            self.require(node)
        out.add("#pragma omp for schedule(dynamic, 1)")
        with out.block(each):
            out.add(f"const int64_t begin = row_begin + chunk * {CHUNK_EDGES};")
            out.add(f"const int64_t end = begin + {CHUNK_EDGES} < stop ? begin + {CHUNK_EDGES} : stop;")
            for node in phase.totals:
                self.point_at_total(node, "(slot + chunk)")
            for node in phase.accumulators:
                self.declare_accumulator(node)
            self.walks(phase)
            self.emit_nests([nest for node in phase.accumulators for nest in self._write_down(node)])
        for node in phase.accumulators:
            self.declare_accumulator(node)
        if phase.accumulators:
            with out.block(each):
                self.emit_nests([self._add_up(node) for node in phase.accumulators])

    def _write_down(self, node: Node) -> list[Nest]:
        """The partial results of a chunk go to memory."""
        found = []
        for winner in (False, True):
            if (node, winner) in self.partial:
                nest = Nest(node.dims)
                index = self.index(node.dims)
                cell = self.row_cells[node]
                place = self.place(node, cell, index)
                value = f"best_{place}" if winner else place
                nest.inner.append(f"{self._part(node, winner, index)} = {value};")
                found.append(nest)
        return found

    def _part(self, node: Node, winner: bool, index: Index) -> str:
        return element(self.partial[(node, winner)], linear(node.dims, index, Row("chunk")))

    def _add_up(self, node: Node) -> Nest:
        """The partial results of a chunk, in order, go into the accumulator."""
        nest = Nest(node.dims)
        index = self.index(node.dims)
        place = self.place(node, self.row_cells[node], index)
        value = self._part(node, finds_winners(node), index)
        number = self._part(node, False, index)
        nest.inner.extend(self.reduction(node.attrs.reducer, place, value, number))
        return nest
