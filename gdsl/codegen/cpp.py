"""The C++ backend: a fused kernel becomes one plain C function over raw pointers.

The generator knows ops, domains and dims, and nothing about layers. It is a *pull* generator: to write a value it
asks for its operands at an index, down to something that lies in memory. What must be computed once and read several
times, a *cell*, is a small local array; loops over dims (a *nest*) fill cells, accumulators and outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from gdsl.codegen import dots
from gdsl.codegen.alike import once
from gdsl.codegen.cpp_writer import BlockCall, BlockLoop, CppWriter
from gdsl.codegen.dots import WeightedSum
from gdsl.codegen.nest import MOST_LANES, Nest
from gdsl.codegen.pairs import ALL_WALKED, PAIRS_WALKED, readable
from gdsl.codegen.products import FUNCTIONS, Product
from gdsl.codegen.storage import packed_buffers
from gdsl.ir.node import Node
from gdsl.ir.ops import ELEMENTWISE
from gdsl.ir.philox import CPP_SOURCE as PHILOX
from gdsl.ir.program import Program
from gdsl.passes.plan import Kernel, Phase, Plan


@cache
def header(name: str) -> str:
    """One of the fixed texts that translation units begin with."""
    return Path(__file__).with_name(name).read_text()


# The types of numbers by name: what kernels compute with, and what they read where that is half as wide.
NUMBERS = {
    "float": ("float", None),
    "double": ("double", None),
    "bfloat16": ("float", "gdsl::bf16"),
    "float16": ("float", "gdsl::f16"),
}


def generate(plan: Plan, dtype: str, index_type: str, visible: int | None = None) -> str:
    """The translation unit of a plan. ``dtype`` is a name of ``NUMBERS``; ``index_type`` int32_t or int64_t.

    A user sees the first ``visible`` outputs, or all.
    """
    packed = packed_buffers(plan, dtype, visible)
    sources = (writer(k, plan.program, packed).source(k.name) for k in plan.kernels)
    return unit(once(sources), dtype, index_type)


def unit(kernels: Sequence[str], dtype: str, index_type: str) -> str:
    """A translation unit of kernels."""
    # The products take a while to compile: only those units that call one have them.
    products = header("matmul.h") if any(f"gdsl::{f}<" in k for k in kernels for f in FUNCTIONS) else ""
    if any(f"gdsl::{f}<" in k for k in kernels for f in dots.FUNCTIONS):
        products += header("dots.h")
    computed, stored = NUMBERS[dtype]
    types = f"typedef {computed} T;\ntypedef {index_type} idx_t;\n"
    if stored:
        types = header("half.h") + types + f"typedef {stored} S;\n"
    return "\n".join([header("prelude.h"), PHILOX, products, types, *kernels])


def kernel_source(kernel: Kernel, plan: Plan, packed: frozenset[Node] = frozenset()) -> str:
    """One kernel as C++ text."""
    return writer(kernel, plan.program, packed).write()


def writer(kernel: Kernel, program: Program, packed: frozenset[Node] = frozenset()) -> CppWriter:
    """What writes a kernel."""
    read = readable(kernel, program, packed)
    make = CppPairWriter if kernel.of_pairs else CppCompleteWriter if kernel.complete else CppWriter
    return make(read.kernel, read.program, read.packed)


class CppPairWriter(CppWriter):
    """A kernel whose rows are edges, which walks the pairs of each: the edges at one of its nodes, of which those that
    go back are left out. Which these are is written down first, so that the walks see no others."""

    walked = PAIRS_WALKED

    def parameters(self) -> list[str]:
        shares, _, *rest = super().parameters()
        ends = (("rows", "node", "far"), ("rowptr", "near", "edges"))
        return [shares, *(", ".join(f"const idx_t* __restrict__ gdsl_{n}" for n in names) for names in ends), *rest]

    def scratch(self) -> list[str]:
        return [*super().scratch(), "idx_t* __restrict__ gdsl_room"]

    def rows(self) -> None:
        out = self.out
        out.add("idx_t* const other = gdsl_room + omp_get_thread_num() * (max_degree + 1);")
        out.add("const idx_t* const edge = other;")
        with out.block("for (int64_t gdsl_row = first; gdsl_row < last; ++gdsl_row)"):
            out.add("const int64_t i = gdsl_rows[gdsl_row];")
            self.row()

    def bounds(self) -> None:
        out = self.out
        out.add("const idx_t gdsl_shared = gdsl_node[i], gdsl_back = gdsl_far[i];")
        out.add("int64_t end = 0;")
        with out.block("for (int64_t e = gdsl_rowptr[gdsl_shared]; e < gdsl_rowptr[gdsl_shared + 1]; ++e)"):
            out.add("other[end] = gdsl_edges[e];", "end += gdsl_near[e] != gdsl_back;")
        out.add("const int64_t begin = 0, stop = end;")


class CppCompleteWriter(CppWriter):
    """A kernel on a complete graph, which walks the places of the nodes of each node's graph: see
    ``NodeRanges`` in gdsl.runtime.complete."""

    walked = ALL_WALKED

    def __init__(self, kernel: Kernel, program: Program, packed: frozenset[Node] = frozenset()):
        super().__init__(kernel, program, packed)
        self.turned = {node: self.fresh(f"turned_{self.name(node)}") for node in dots.turned(kernel, packed)}
        self.by_nodes = False

    def shares(self) -> str:
        return f"{super().shares()}, int64_t gdsl_nodes"

    def scratch(self) -> list[str]:
        return [*super().scratch(), *["T* __restrict__ gdsl_turned"] * bool(self.turned)]

    def beforehand(self) -> None:
        out, before = self.out, 0
        if self.turned:
            out.add(f"const int64_t gdsl_stride = {dots.STRIDE.format('gdsl_nodes')};")
        for node, name in self.turned.items():
            numel = node.type.numel
            out.add(f"T* const {name} = gdsl_turned + gdsl_stride * {before};")
            out.add("#pragma omp parallel for schedule(static) num_threads(threads)")
            with out.block("for (int64_t at = 0; at < gdsl_nodes; at += 64)"):
                out.add("const int64_t upto = at + 64 < gdsl_nodes ? at + 64 : gdsl_nodes;")
                out.add(f"gdsl::turn<{numel}>(at, upto, gdsl_stride, gdsl_node, {self.name(node)}, {name});")
            before += numel

    def found_product(self, node: Node) -> BlockCall | None:
        about = node, self.kernel, self.packed
        return super().found_product(node) or dots.dots_of(*about) or dots.weighted_sum_of(*about)

    def stages(self, phase: Phase) -> list[BlockLoop]:
        """Values of edges in loops of their own, without what is added up: nodes are lanes there, too."""
        found: list[BlockLoop] = []
        for stage in super().stages(phase):
            if stage.roots and stage.cells and (stage.products or found):
                cells = dict.fromkeys(stage.cells, 0)
                self.in_block |= self.cells_read([i for r in stage.roots for i in (r, *r.inputs)], cells)
                found.append(BlockLoop(stage.cells, [], []))
                stage = BlockLoop([], stage.roots, stage.products)
            found.append(stage)
        return found

    def walk(self, stage: BlockLoop, phase: Phase, first: str, stop: str) -> None:
        values = stage.cells if not stage.roots else []
        self.by_nodes = bool(values) and all(
            v in self.in_block and v.op in ELEMENTWISE and v.type.numel <= MOST_LANES for v in values
        )
        if self.by_nodes:
            self.out.add("#pragma omp simd")
        super().walk(stage, phase, first, stop)
        self.by_nodes = False

    def emit_nests(self, nests: Sequence[Nest]) -> None:
        for nest in nests if self.by_nodes else ():
            nest.simd, nest.unrolled = False, len(nest.loops)
        super().emit_nests(nests)

    def block_edges(self, products: Sequence[BlockCall]) -> int:
        of_matrices = [p for p in products if isinstance(p, Product)]
        return super().block_edges(of_matrices) if of_matrices else dots.BLOCK

    def product(self, product: BlockCall, phase: Phase) -> None:
        if isinstance(product, Product):
            super().product(product, phase)
            return
        node, (count, length) = product.node, product.sizes
        if isinstance(product, WeightedSum):
            read = f"gdsl_node + at, {self.name(product.other)}, {self.block_rows(product.weight)}"
            call, result = f"row_sums<{count}, {length}>", self.row_cells[node].name
        else:
            self.edge_cells[node] = self.new_cell(node, node in phase.kept)
            own = product.own
            at_row = f"{self.name(own)} + i * {own.type.numel}"
            vectors = self.row_cells[own].name if own in self.row_cells else at_row
            read = f"gdsl_stride, {vectors}, {self.turned[product.other]} + at"
            call, result = f"row_dots<{count}, {length}>", self.block_rows(node)
        self.out.add(f"gdsl::{call}(upto - at, gdsl_left_out - at, {read}, {result});")

    def parameters(self) -> list[str]:
        shares, _, *rest = super().parameters()
        ends = ("rowptr", "gdsl_begin", "gdsl_node", "gdsl_own", "gdsl_skip")
        return [shares, ", ".join(f"const idx_t* __restrict__ {n}" for n in ends), *rest]

    def rows(self) -> None:
        with self.out.block("for (int64_t i = first; i < last; ++i)"):
            self.row()

    def bounds(self) -> None:
        self.out.add("const int64_t begin = gdsl_begin[i], end = begin + (rowptr[i + 1] - rowptr[i]);")
        self.out.add("const int64_t gdsl_left_out = gdsl_skip[i];")

    def other_end(self) -> list[str]:
        return ["const int64_t gdsl_place = e + (e >= gdsl_left_out);", "const int64_t j = gdsl_node[gdsl_place];"]

    def drawn_together(self, node: Node) -> bool:
        """Each number by itself, in lanes that are nodes, as all values here."""
        return False

    def edge_number(self) -> str:
        if self.kernel.end == "i":
            return "rowptr[i] + (e - begin)"
        # The rank of i among the others of j, which leaves out itself where i does.
        own = "gdsl_own[i]"
        return f"rowptr[j] + ({own} - begin) - (gdsl_left_out == {own} && gdsl_place < {own})"

    def insert_prefetches(self, at: int, reverse: bool = False) -> None:
        """None: a processor foresees by itself what is read row after row."""
