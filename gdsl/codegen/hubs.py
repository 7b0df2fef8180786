"""Hubs: rows with so many edges that one thread would walk them while the others wait.

Each walk over a hub's edges is cut into chunks of fixed size. Threads share the chunks; what a chunk adds up is
written down, and added in the order of the chunks, so that the result is the same for any number of threads. The
function stands beside the ordinary kernel, which leaves these rows out, and is compiled for the first graph with a hub.
"""

from __future__ import annotations

from dataclasses import replace

from gdsl.codegen.alike import once
from gdsl.codegen.cpp import KernelWriter, hub_name, unit
from gdsl.codegen.indices import Index, Row
from gdsl.codegen.nest import Nest
from gdsl.codegen.pull import GLOBAL, ROW
from gdsl.codegen.storage import packed_buffers, partials
from gdsl.codegen.values import element
from gdsl.ir.node import Node
from gdsl.ir.ops.edges import finds_winners
from gdsl.ir.program import Program
from gdsl.passes.plan import Kernel, Phase, Plan
from gdsl.runtime.schedule import CHUNK_EDGES


def generate_hubs(plan: Plan, dtype: str, index_type: str, visible: int | None = None) -> str:
    """The translation unit of the functions for hubs, one for each kernel of the plan that walks edges in any
    order."""
    packed = packed_buffers(plan, dtype, visible)
    kernels = [k for k in plan.kernels if k.phases and not k.ordered]
    return unit(once(_writer(k, plan.program, packed).source(hub_name(k)) for k in kernels), dtype, index_type)


def hub_source(kernel: Kernel, program: Program, packed: frozenset[Node] = frozenset()) -> str:
    """The function for the hubs of a kernel, as C++ text."""
    return _writer(kernel, program, packed).write()


def _writer(kernel: Kernel, program: Program, packed: frozenset[Node]) -> _HubWriter:
    # What an ordinary row keeps for its next walk is computed again: the next walk's chunk may be another thread's.
    phases = tuple(replace(p, kept=()) for p in kernel.phases)
    return _HubWriter(replace(kernel, phases=phases), program, packed)


class _HubWriter(KernelWriter):
    """A kernel for a few rows, each walked by all threads."""

    def write(self) -> str:
        kernel, out = self.kernel, self.out
        self.partial = {key: self.fresh(self._partial_name(*key)) for key in partials(kernel)}
        out.add(f"// {hub_name(kernel)}: the rows of {kernel.name} that are hubs, in chunks of {CHUNK_EDGES} edges")
        out.add(f'extern "C" void {hub_name(kernel)}(')
        out.depth += 1
        for line in self.parameters():
            out.add(line)
        out.depth -= 1
        out.open(")")
        out.add("#pragma omp parallel num_threads(threads)")
        out.open("for (int64_t hub = 0; hub < num_hubs; ++hub)")
        self.declare_numbers()
        out.add("const int64_t i = hubs[hub], row_begin = rowptr[i], stop = rowptr[i + 1];")
        out.add("const int64_t slot = first_chunk[hub], chunks = first_chunk[hub + 1] - slot;")
        at = len(out.lines)
        for phase in kernel.phases:
            self.phase(phase)
        out.add("#pragma omp single")
        out.open("")
        for node in kernel.totals:
            self._point_at_total(node, "slot")
        self.results()
        out.close()
        self.insert_pointers(at, ROW, "i")
        out.close()
        out.close()
        return "\n".join(out.lines) + "\n"

    def _partial_name(self, node: Node, winner: bool) -> str:
        return ("best_" if winner else "part_") + self.name(node)

    def parameters(self) -> list[str]:
        groups = ["int64_t num_hubs, int threads, const int64_t* hubs, const int64_t* first_chunk"]
        groups.append(", ".join(f"const idx_t* __restrict__ {n}" for n in ("rowptr", "other", "edge")))
        groups += [f"const {self.stored_type(b)}* __restrict__ {self.name(b)}" for b in self.kernel.buffers]
        groups += [f"{self.stored_type(o)}* __restrict__ {self.name(o)}" for o in self.kernel.outputs]
        groups += [f"{self._partial_type(*key)}* __restrict__ {name}" for key, name in self.partial.items()]
        return [g + "," for g in groups[:-1]] + groups[-1:]

    def _partial_type(self, node: Node, winner: bool) -> str:
        return "T" if winner or not finds_winners(node) else "idx_t"

    def _point_at_total(self, node: Node, slot: str) -> None:
        total = self.fresh("total_" + self.name(node))
        self.pointers[(node, GLOBAL)] = total
        self.out.add(f"T* __restrict__ {total} = {self.name(node)} + ({slot}) * {node.type.numel};")

    def phase(self, phase: Phase) -> None:
        out = self.out
        for node in self.row_values(phase.roots):
            self.require(node)
        out.add("#pragma omp for schedule(dynamic, 1)")
        out.open("for (int64_t chunk = 0; chunk < chunks; ++chunk)")
        out.add(f"const int64_t begin = row_begin + chunk * {CHUNK_EDGES};")
        out.add(f"const int64_t end = begin + {CHUNK_EDGES} < stop ? begin + {CHUNK_EDGES} : stop;")
        for node in phase.totals:
            self._point_at_total(node, "slot + chunk")
        for node in phase.accumulators:
            self.declare_accumulator(node)
        self.walks(phase)
        self.emit_nests([nest for node in phase.accumulators for nest in self._write_down(node)])
        out.close()
        for node in phase.accumulators:
            self.declare_accumulator(node)
        if phase.accumulators:
            out.open("for (int64_t chunk = 0; chunk < chunks; ++chunk)")
            self.emit_nests([self._add_up(node) for node in phase.accumulators])
            out.close()

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
                nest.before[len(nest.loops)].append(f"{self._part(node, winner, index)} = {value};")
                found.append(nest)
        return found

    def _part(self, node: Node, winner: bool, index: Index) -> str:
        return element(self.partial[(node, winner)], node, index, Row("chunk"))

    def _add_up(self, node: Node) -> Nest:
        """The partial results of a chunk, in order, go into the accumulator."""
        nest = Nest(node.dims)
        index = self.index(node.dims)
        place = self.place(node, self.row_cells[node], index)
        value = self._part(node, finds_winners(node), index)
        number = self._part(node, False, index)
        nest.before[len(nest.loops)] += self.reduction(node.attrs.reducer, place, value, number)
        return nest
