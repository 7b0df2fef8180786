"""The C++ function around the nests of a kernel: rows, walks over edges, what is declared where."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass

from gdsl.codegen.alike import KernelSource
from gdsl.codegen.dots import Dots, WeightedSum
from gdsl.codegen.loops import DRAWN_AHEAD, Nests
from gdsl.codegen.nest import Nest
from gdsl.codegen.products import Product, block_edges, product_of
from gdsl.codegen.pull import COLUMN, EDGE, GLOBAL, ROW
from gdsl.codegen.schedule import HUB_EDGES
from gdsl.codegen.values import cell_type
from gdsl.ir.node import Node, walk_below
from gdsl.ir.ops import ELEMENTWISE, of
from gdsl.ir.program import Program
from gdsl.ir.types import Domain
from gdsl.passes.plan import Kernel, Phase

# Operations of a value that is written out wherever it is read; in a kernel of more than so many, fewer.
LONG_TEXT, SHORT_TEXT = 160, 8
LONG_KERNEL = 256


def hub_name(kernel: Kernel) -> str:
    """The function that computes the rows of a kernel that are hubs."""
    return f"{kernel.name}_hubs"


# What a call makes for a block of edges.
BlockCall = Product | Dots | WeightedSum


@dataclass
class BlockLoop:
    """A loop over the edges of a block, and the matrix products that follow it.

    cells: edge values to compute
    roots: results to add to or to write
    """

    cells: list[Node]
    roots: list[Node]
    products: list[BlockCall]


class CppWriter(Nests):
    """The function around the nests: rows, walks over edges, what is declared where."""

    def __init__(self, kernel: Kernel, program: Program, packed: frozenset[Node] = frozenset()):
        super().__init__(kernel, program, packed)
        self.users = self._find_users()
        self.costly = self._find_costly()
        self.long = self._find_long()

    # -- what the kernel computes ---------------------------------------------------------------

    def _find_users(self) -> dict[Node, list[Node]]:
        found: dict[Node, list[Node]] = {}
        for node in self.nodes:
            for operand in node.inputs:
                found.setdefault(operand, []).append(node)
        return found

    def _find_costly(self) -> set[Node]:
        """The elementwise values that take a function of many operations, by themselves or through what they read."""
        found: set[Node] = set()
        for node in self.nodes:
            by_itself = of(node).heavy and not self.drawn_together(node)
            if by_itself or (node.op in ELEMENTWISE and not found.isdisjoint(node.inputs)):
                found.add(node)
        return found

    def _find_long(self) -> set[Node]:
        """Values that several others read, or that are written, of so many operations that text which repeats them for
        each reader would grow by the square of the program."""
        found: set[Node] = set()
        stores = {*self.kernel.stores, *(n for p in self.kernel.phases for n in p.stores)}

        def inside(node: Node) -> tuple[Node, ...]:
            inline = node.op in ELEMENTWISE and node not in self.buffers
            return tuple(i for i in node.inputs if i not in found) if inline else ()

        count = len({*self.nodes, *self.buffers})
        most = LONG_TEXT if count <= LONG_KERNEL else SHORT_TEXT
        if count <= most:
            return found
        for node in self.nodes:
            shared = node in stores or len(self.users.get(node, ())) > 1
            inline = shared and node.op in ELEMENTWISE and node.domain is not Domain.GLOBAL
            if inline and sum(n.op in ELEMENTWISE for n in walk_below([node], inside)) > most:
                found.add(node)
        return found

    def space(self, node: Node) -> tuple[str, ...]:
        """The dims that a node's own loops run over."""
        if node.op in ("contract", "reduce", "segment", "scatter"):
            return tuple({d.name: None for i in node.inputs for d in i.dims})
        return node.type.names

    def is_cell(self, node: Node, kept: Iterable[Node] = ()) -> bool:
        """Whether a value is stored in local memory rather than written out where it is used."""
        if node in self.buffers or node.op in ("const", "iota", "table", "graph_value", "load", "gather", "spread"):
            return False
        if node.op in ("contract", "reduce", "table_product") or node in kept or node in self.long:
            return True
        if self.drawn_together(node):
            return True  # what reads it is cheap then, and need not be stored
        readers = self.readers(node)
        # A part of a ``cat`` would be computed at every place of the whole.
        wider = any(u.op == "cat" or set(self.space(u)) > set(as_read.type.names) for as_read, u in readers)
        if of(node).heavy:
            return wider or len(self.users.get(node, ())) > 1
        if node.op not in ELEMENTWISE:
            return False
        # In a loop of its own it is computed in lanes, and a function of many operations once.
        again = wider or len(self.users.get(node, ())) > 1
        return again if node in self.costly else wider and any(u.op == "contract" for _, u in readers)

    def readers(self, node: Node) -> list[tuple[Node, Node]]:
        """What reads a value in loops, with the view of the value that it reads."""
        found, stack = [], [node]
        while stack:
            value = stack.pop()
            for user in self.users.get(value, ()):
                if user.op in ("reshape", "transpose"):
                    stack.append(user)
                elif user.op != "gather":
                    found.append((value, user))
        return found

    # -- the function --------------------------------------------------------------------------

    def source(self, name: str) -> KernelSource:
        """The function, which has this name, with the names that it uses."""
        return KernelSource(name, self.write(), self.used - self.reserved)

    def write(self) -> str:
        out = self.out
        out.add(*(f"// {line}" for line in self.comment()))
        out.add(f'extern "C" void {self.function}(')
        *groups, last = self.parameters()
        out.add(*(f"    {group}," for group in groups), f"    {last}")
        with out.block(")"):
            self.beforehand()
            out.add("#pragma omp parallel num_threads(threads)")
            self.threads()
        return "\n".join(out.lines) + "\n"

    @property
    def function(self) -> str:
        return self.kernel.name

    def comment(self) -> list[str]:
        return self.rules(self.kernel)

    def parameters(self) -> list[str]:
        """The parameter list, a line for each group: the walk, what is read, what is written."""
        ends = [", ".join(f"const idx_t* __restrict__ {n}" for n in ("rowptr", "other", "edge"))]
        buffers = [f"const {self.stored_type(b)}* __restrict__ {self.name(b)}" for b in self.kernel.buffers]
        outputs = [f"{self.stored_type(o)}* __restrict__ {self.name(o)}" for o in self.kernel.outputs]
        return [self.shares(), *(ends if self.kernel.end else ()), *buffers, *outputs, *self.scratch()]

    def shares(self) -> str:
        """The parameters that share out rows among threads."""
        return "int64_t num_blocks, int64_t groups, int threads, int64_t max_degree, const int64_t* blocks"

    def scratch(self) -> list[str]:
        """The parameters of memory that no one reads afterwards."""
        return ["T* __restrict__ scratch"] if self.kernel.kept else []

    def beforehand(self) -> None:
        """What is done before threads share out the rows."""

    def threads(self) -> None:
        """What each thread does."""
        kernel, out = self.kernel, self.out
        with out.block():
            self.declare_numbers()
            if kernel.kept:
                numbers = sum(node.type.numel for node in kernel.kept)
                out.add(f"T* const mine = scratch + omp_get_thread_num() * (max_degree + 1) * {numbers};")
            before = 0
            for node in kernel.kept:
                name = self.kept[node] = self.fresh("kept_" + self.name(node))
                out.add(f"T* __restrict__ {name} = mine + (max_degree + 1) * {before};")
                before += node.type.numel
            out.add("#pragma omp for schedule(dynamic, 1)")
            with out.block("for (int64_t group = 0; group < groups; ++group)"):
                for node in kernel.all_totals:
                    total = self.point_at_total(node, "group")
                    out.add(f"for (int64_t n = 0; n < {node.type.numel}; ++n) {total}[n] = 0;")
                out.add("const int64_t first = blocks[num_blocks * group / groups];")
                out.add("const int64_t last = blocks[num_blocks * (group + 1) / groups];")
                self.rows()

    def point_at_total(self, node: Node, slot: str) -> str:
        """Declare a pointer to one of the parts of a sum over all."""
        total = self.pointers[(node, GLOBAL)] = self.fresh("total_" + self.name(node))
        self.out.add(f"T* __restrict__ {total} = {self.name(node)} + {slot} * {node.type.numel};")
        return total

    # -- rows ----------------------------------------------------------------------------------

    def rows(self) -> None:
        """The rows of a block."""
        if self.kernel.end:
            self.out.add("const int64_t stop = rowptr[last];")
        with self.out.block("for (int64_t i = first; i < last; ++i)"):
            self.row()

    def bounds(self) -> None:
        """Where the edges of a row begin and end."""
        self.out.add("const int64_t begin = rowptr[i], end = rowptr[i + 1];")
        if self.kernel.leaves_hubs:
            self.out.add(f"if (end - begin > {HUB_EDGES}) continue;  // a hub, left to {hub_name(self.kernel)}")

    def row(self) -> None:
        out = self.out
        if self.kernel.end:
            self.bounds()
        at = len(out.lines)
        for phase in self.kernel.phases:
            self.phase(phase)
        self.results()
        self.insert_row_prefetches(at)
        self.insert_pointers(at, ROW, "i")

    def results(self) -> None:
        """What a row writes once its walks are done."""
        for node in self.kernel.stores:
            self.require(node) if self.is_cell(node) else self.require_inputs(node)
        for node in self.kernel.totals:
            self.require_inputs(node)
        nests = [self.store_nest(node, ROW) for node in self.kernel.stores]
        self.emit_nests([*nests, *(self.total_nest(node, ROW) for node in self.kernel.totals)])

    def phase(self, phase: Phase) -> None:
        for node in self.row_values(phase.roots):
            self.require(node)
        for node in (n for n in phase.accumulators if n.op != "scan"):
            self.declare_accumulator(node)
        for node in phase.scans:
            self.declare_fold(node)
        self.walks(phase)
        for node in phase.accumulators:
            self.finish_accumulator(node)

    def walks(self, phase: Phase) -> None:
        """The loops over the edges from ``begin`` to ``end``."""
        out = self.out
        self.edge_cells = {n: c for n, c in self.edge_cells.items() if c.kept}
        stages = self.stages(phase)
        products = [p for stage in stages for p in stage.products]
        if products:
            edges = self.block_edges(products)
            at = len(out.lines)
            with out.block(f"for (int64_t at = begin; at < end; at += {edges})"):
                out.add(f"const int64_t upto = at + {edges} < end ? at + {edges} : end;")
                for stage in stages:
                    self.walk(stage, phase, "at", "upto")
                    for product in stage.products:
                        self.product(product, phase)
            self.declare_blocks(at, edges)
        else:
            self.walk(stages[0], phase, "begin", "end")

    def walk(self, stage: BlockLoop, phase: Phase, first: str, stop: str) -> None:
        """A loop over edges that fills the cells and the results of a stage."""
        if not (stage.cells or stage.roots):
            return
        out = self.out
        loop = f"for (int64_t e = {first}; e < {stop}; ++e)"
        if phase.reverse:
            loop = f"for (int64_t e = {stop} - 1; e >= {first}; --e)"
        self.drawn = {}
        for node in stage.cells:
            if self.drawn_together(node) and node.type.numel == 1 and not phase.reverse:
                self.drawn[node] = self.fresh("drawn"), first, stop
                out.add(f"T {self.drawn[node][0]}[{DRAWN_AHEAD}];")
        with out.block(loop):
            out.add(*self.other_end())
            at, self.by_id = len(out.lines), False
            # Draws read no cell: ahead of all, they stand between no two loops that may be joined.
            cells = sorted(stage.cells, key=lambda node: not self.drawn_together(node))
            nests = [self.cell_nest(node, EDGE, kept=node in phase.kept) for node in cells]
            self.emit_nests([*nests, *(self.root_nest(node, phase) for node in stage.roots)])
            self.insert_prefetches(at, phase.reverse)
            self.insert_pointers(at, COLUMN, "j")
            self.insert_pointers(at, EDGE, "id")
            if self.by_id:
                out.insert(at, f"const int64_t id = {self.edge_number()};")
        self.pointers = {k: name for k, name in self.pointers.items() if k[1] not in (COLUMN, EDGE)}
        self.edge_rows.clear()

    def other_end(self) -> list[str]:
        """Where the other end of edge ``e`` of a walk is found."""
        return ["const int64_t j = other[e];"]

    def edge_number(self) -> str:
        """The number of edge ``e`` of a walk among all edges."""
        return "edge[e]"

    def root_nest(self, node: Node, phase: Phase) -> Nest:
        if node.op == "scan":
            return self.fold_nest(node)
        if node in phase.accumulators:
            return self.accumulate_nest(node)
        return self.total_nest(node, EDGE) if node in phase.totals else self.store_nest(node, EDGE)

    def found_product(self, node: Node) -> BlockCall | None:
        """What a value is as the result of a call for a block of edges."""
        return product_of(node)

    def block_edges(self, products: Sequence[BlockCall]) -> int:
        """How many edges a block has."""
        return block_edges([p for p in products if isinstance(p, Product)])

    def product(self, product: BlockCall, phase: Phase) -> None:
        """A call of a tiled matrix product on a block of edges."""
        assert isinstance(product, Product)
        node = product.node
        if product.summed:
            result = self.row_cells[node].name if node in phase.accumulators else self.pointers[(node, GLOBAL)]
        else:
            self.edge_cells[node] = self.new_cell(node, node in phase.kept)
            result = self.block_rows(node)
        left = self.block_rows(product.left)
        right = self.block_rows(product.right) if product.summed else self.name(product.right)
        depth, width = product.sizes
        call = f"gdsl::{product.function}<{depth}, {width}>"
        self.out.add(f"{call}(upto - at, {left}, {right}, {result});")

    def block_rows(self, node: Node) -> str:
        """A pointer to the values of an edge value in the block."""
        cell = self.edge_cells[node]
        return f"{cell.name} + (at - begin) * {node.type.numel}" if cell.kept else cell.name

    def declare_blocks(self, at: int, edges: int) -> None:
        """Declare, ahead of the loop over blocks, the cells that have a place for each edge of a block."""
        for node, cell in self.edge_cells.items():
            if cell.first == "at":
                self.out.insert(at, f"{cell_type(node)} {cell.name}[{edges * node.type.numel}];")

    def stages(self, phase: Phase) -> list[BlockLoop]:
        """The work of a phase, cut where a matrix product needs its operands for a whole block of edges."""
        below = self.edge_values(phase.roots)
        made = [n for n in (*below, *phase.roots) if n not in self.buffers]
        products = {n: p for n in made if (p := self.found_product(n)) is not None}
        if phase.reverse:
            products = {}  # blocks of edges go forward
        operands = {o for p in products.values() for o in p.edge_operands}
        cells = [n for n in below if n in operands or self.is_cell(n, phase.kept)]
        ready: dict[Node, int] = {}

        def stage_of(node: Node) -> int:
            """The stage that computes a value; a product is done at the end of its stage, and read in the next."""
            return max((ready.get(i, 0) + (i in products) for i in node.inputs), default=0)

        for node in below:
            ready[node] = stage_of(node)
        at = {c: ready[c] for c in cells}
        written = {r: ready[r] + (r in products) if r in ready else stage_of(r) for r in phase.roots}
        found = [BlockLoop([], [], []) for _ in range(max([*at.values(), *written.values()]) + 1)]
        self.in_block = operands | {n for n in products if n in ready}
        for cell in cells:
            stage = found[at[cell]]
            if cell in products:
                stage.products.append(products[cell])
            else:
                stage.cells.append(cell)
            self.in_block |= {c for c in self.cells_read(cell.inputs, at) if at[c] < at[cell]}
        for root, when in written.items():
            if root in products and root not in ready:
                found[when].products.append(products[root])
            else:
                found[when].roots.append(root)
            read = [root] if root in ready else root.inputs
            self.in_block |= {c for c in self.cells_read(read, at) if at[c] < when}
        return found

    def cells_read(self, operands: Iterable[Node], cells: Container[Node]) -> set[Node]:
        """The cells that an expression of the operands reads, through what is computed in place."""

        def read(node: Node) -> list[Node]:
            return [] if node in cells or node.op == "gather" else on_edges(node.inputs)

        def on_edges(nodes: Iterable[Node]) -> list[Node]:
            return [n for n in nodes if n.domain is Domain.EDGE]

        return {n for n in walk_below(on_edges(operands), read) if n in cells}

    def row_values(self, roots: Sequence[Node]) -> list[Node]:
        """Row values that the edges of a phase read and that lie nowhere yet, operands first."""

        def is_there(node: Node) -> bool:
            return node in self.buffers or node in self.edge_cells

        starts = [n for r in roots for n in (r.inputs if r.op in ("segment", "scan", "contract", "scatter") else [r])]
        below = walk_below(starts, lambda n: () if n.op == "gather" or is_there(n) else n.inputs)
        gathers = [n for n in below if n.op == "gather" and n.attrs.end == self.kernel.end and not is_there(n)]
        return list(dict.fromkeys(n.inputs[0] for n in gathers if not self.at_hand(n.inputs[0])))

    def require(self, node: Node) -> None:
        """Make sure that a row value has a cell."""
        self.require_inputs(node)
        if not self.at_hand(node):
            self.emit_nests([self.cell_nest(node, ROW)])

    def require_inputs(self, node: Node) -> None:
        """Make sure that every cell below a row value is there."""
        for below in walk_below([node], lambda n: () if self.at_hand(n) else n.inputs):
            if self.at_hand(below):
                continue
            if below.op == "segment":
                raise AssertionError("an accumulator is read before its phase")
            if below is not node and self.is_cell(below):
                self.emit_nests([self.cell_nest(below, ROW)])

    def at_hand(self, node: Node) -> bool:
        return node in self.row_cells or node in self.buffers or of(node).leaf

    def edge_values(self, roots: Sequence[Node]) -> list[Node]:
        """The values that a walk computes an edge, operands first; the roots only if they are edge values."""

        def computed(nodes: Iterable[Node]) -> tuple[Node, ...]:
            return tuple(n for n in nodes if n.domain is Domain.EDGE and n not in self.edge_cells)

        def read(node: Node) -> tuple[Node, ...]:
            return () if node.op == "gather" or node in self.buffers else computed(node.inputs)

        written = [r for r in roots if r.domain is Domain.EDGE and r.op != "scan"]
        starts = [n for root in roots for n in ([root] if root in written else root.inputs)]
        return list(walk_below(computed(starts), read))
