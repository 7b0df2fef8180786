"""The C++ backend: a fused kernel becomes one plain C function over raw pointers.

The generator knows ops, domains and dims, and nothing about layers. It is a *pull* generator: to write a value it
asks for its operands at an index, down to something that lies in memory. What must be computed once and read several
times, a *cell*, is a small local array; loops over dims (a *nest*) fill cells, accumulators and outputs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from gdsl.ir.node import Node
from gdsl.ir.ops import ELEMENTWISE
from gdsl.ir.printer import describe, expression
from gdsl.ir.types import Dim, Domain, Kind
from gdsl.passes.fuse import Kernel, Phase, Plan
from gdsl.runtime.philox import CPP_SOURCE as PHILOX

# Where a value is wanted: at the row being walked, at the other end of the edge, at the edge, or anywhere.
ROW, COLUMN, EDGE, GLOBAL = "row", "column", "edge", "global"

_RESERVED = frozenset(
    """alignas alignof and asm auto bool break case catch char class const constexpr continue default delete do double
    else enum explicit export extern false float for friend goto if inline int long mutable namespace new not nullptr
    operator or private protected public register return short signed sizeof static struct switch template this throw
    true try typedef typeid typename union unsigned using virtual void volatile while xor gdsl T idx_t i j e id n block
    blocks group groups threads num_blocks num_rows rowptr other edge begin end first last stop ahead max_degree free
    malloc main seed exp log abs sin cos tanh pow floor sqrt""".split()
)

# Names that C headers may define as macros or types.
_FOREIGN = re.compile(r"_|[A-Z][A-Z0-9_]+$|.*_t$|gdsl")

# Rows at the other end lie anywhere: they are asked for this many edges before they are needed, so that memory
# answers many at a time. Lines past the first few of a wide row are left to the hardware, which sees a stream by then.
PREFETCH_AHEAD = 8
PREFETCH_LINES = 8
LINE_BYTES = 64

Index = Mapping[str, tuple[str, int]]  # dim name -> (C expression, loops needed around it)


@cache
def prelude() -> str:
    """The fixed head of every translation unit."""
    return Path(__file__).with_name("prelude.h").read_text() + "\n" + PHILOX


def generate(plan: Plan, dtype: str, index_type: str) -> str:
    """The translation unit of a plan. ``dtype`` is float or double; ``index_type`` int32_t or int64_t."""
    head = f"{prelude()}\ntypedef {dtype} T;\ntypedef {index_type} idx_t;\n"
    return head + "\n".join(kernel_source(k, plan) for k in plan.kernels)


def kernel_source(kernel: Kernel, plan: Plan) -> str:
    """One kernel as C++ text."""
    return _KernelWriter(kernel, plan).write()


@dataclass(frozen=True)
class Cell:
    """A computed value in local memory; a kept one has a place for each edge of the row."""

    name: str
    scalar: bool
    kept: bool = False


@dataclass
class Nest:
    """Loops over dims with statements at each depth.

    before[k] runs on entering depth k, after[k] when the loops inside depth k are done.
    """

    loops: tuple[Dim, ...]
    clause: str = ""
    simd: bool = True
    before: list[list[str]] = field(default_factory=list)
    after: list[list[str]] = field(default_factory=list)
    memo: dict[object, tuple[str, int]] = field(default_factory=dict)
    pointwise: bool = True
    writes: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.before = [[] for _ in range(len(self.loops) + 1)]
        self.after = [[] for _ in range(len(self.loops) + 1)]


class _Lines:
    """Indented text."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.depth = 0

    def add(self, text: str = "") -> None:
        self.lines.append("    " * self.depth + text if text else "")

    def open(self, text: str) -> None:
        self.add(f"{text} {{".lstrip())
        self.depth += 1

    def close(self) -> None:
        self.depth -= 1
        self.add("}")


class _KernelWriter:
    def __init__(self, kernel: Kernel, plan: Plan):
        self.kernel = kernel
        self.program = plan.program
        self.out = _Lines()
        self.names: dict[Node, str] = {}
        self.used: set[str] = set(_RESERVED)
        self.loop_vars: dict[str, str] = {}
        self.kept: dict[Node, str] = {}
        self.row_cells: dict[Node, Cell] = {}
        self.edge_cells: dict[Node, Cell] = {}
        self.pointers: dict[tuple[Node, str], str] = {}
        self.buffers = set(kernel.buffers)
        self.users = self._find_users()
        for node in (*kernel.buffers, *kernel.outputs):
            self.name(node)

    # -- names ---------------------------------------------------------------------------------

    def fresh(self, wanted: str) -> str:
        base = re.sub(r"[^A-Za-z0-9_]", "_", wanted.replace("'", "_prime")) or "t"
        if base[0].isdigit():
            base = "d" + base
        if _FOREIGN.match(base):
            base = "v_" + base + "_"
        name, count = base, 1
        while name in self.used:
            count += 1
            name = f"{base}_{count}"
        self.used.add(name)
        return name

    def name(self, node: Node) -> str:
        if node not in self.names:
            self.names[node] = self.fresh(describe(node, self.program.names))
        return self.names[node]

    def loop_var(self, dim: str) -> str:
        if dim not in self.loop_vars:
            self.loop_vars[dim] = self.fresh(dim)
        return self.loop_vars[dim]

    # -- what the kernel computes ---------------------------------------------------------------

    def roots(self) -> list[Node]:
        found = list(self.kernel.stores)
        for phase in self.kernel.phases:
            found += [*phase.accumulators, *phase.totals, *phase.stores]
        return found

    def _find_users(self) -> dict[Node, list[Node]]:
        found: dict[Node, list[Node]] = {}
        stack, seen = list(self.roots()), set()
        while stack:
            node = stack.pop()
            if node in seen or node in self.buffers:
                continue
            seen.add(node)
            for operand in node.inputs:
                found.setdefault(operand, []).append(node)
                stack.append(operand)
        return found

    def space(self, node: Node) -> tuple[str, ...]:
        """The dims that a node's own loops run over."""
        if node.op in ("contract", "reduce", "segment", "scatter"):
            return tuple({d.name: None for i in node.inputs for d in i.dims})
        return node.type.names

    def is_cell(self, node: Node, kept: Iterable[Node] = ()) -> bool:
        """Whether a value is stored in local memory rather than written out where it is used."""
        if node in self.buffers or node.op in ("const", "iota", "graph_value", "load", "gather", "spread"):
            return False
        if node.op in ("contract", "reduce") or node in kept:
            return True
        readers = [u for u in self.users.get(node, ()) if u.op != "gather"]
        wider = any(set(self.space(u)) > set(node.type.names) for u in readers)
        heavy = node.op == "random" or (node.op in ELEMENTWISE and ELEMENTWISE[node.op].heavy)
        if heavy:
            return wider or len(self.users.get(node, ())) > 1
        if node.op not in ELEMENTWISE:
            return False
        return wider and any(u.op == "contract" for u in readers)

    # -- the function --------------------------------------------------------------------------

    def write(self) -> str:
        kernel, out = self.kernel, self.out
        for line in self.header():
            out.add(line)
        out.add(f'extern "C" void {kernel.name}(')
        out.depth += 1
        for line in self.parameters():
            out.add(line)
        out.depth -= 1
        out.open(")")
        totals = [t for p in kernel.phases for t in p.totals]
        kept = [k for p in kernel.phases for k in p.kept]
        out.add("#pragma omp parallel num_threads(threads)")
        out.open("")
        for node in kept:
            name = self.kept[node] = self.fresh("kept_" + self.name(node))
            out.add(f"T* __restrict__ {name} = (T*)malloc(sizeof(T) * {node.type.numel} * (max_degree + 1));")
        out.add("#pragma omp for schedule(dynamic, 1)")
        out.open("for (int64_t group = 0; group < groups; ++group)")
        for node in totals:
            name = self.name(node)
            total = self.fresh("total_" + name)
            self.pointers[(node, GLOBAL)] = total
            out.add(f"T* __restrict__ {total} = {name} + group * {node.type.numel};")
            out.add(f"for (int64_t n = 0; n < {node.type.numel}; ++n) {total}[n] = 0;")
        out.add("const int64_t first = blocks[num_blocks * group / groups];")
        out.add("const int64_t last = blocks[num_blocks * (group + 1) / groups];")
        if kernel.end:
            out.add("const int64_t stop = rowptr[last];")
        out.open("for (int64_t i = first; i < last; ++i)")
        self.row()
        out.close()
        out.close()
        for node in kept:
            out.add(f"free({self.kept[node]});")
        out.close()
        out.close()
        return "\n".join(out.lines) + "\n"

    def header(self) -> list[str]:
        """The rule in the language's own words."""
        shown = {**self.program.names, **{b: self.name(b) for b in self.kernel.buffers}}
        shown = {n: name for n, name in shown.items() if n.op not in ("const", "gather")}
        walk = {"i": "in-edges of node i; j is the source", "j": "out-edges of node i; j is the target"}
        lines = [
            f"// {self.kernel.name}: " + (f"walks the {walk[self.kernel.end]}" if self.kernel.end else "row by row")
        ]
        for phase in self.kernel.phases:
            for node in (*phase.accumulators, *phase.totals, *phase.stores):
                lines.append(f"//   {self.name(node)} = {expression(node, shown)}")
        for node in self.kernel.stores:
            if node.op != "segment":
                others = {**shown, **{n: self.name(n) for p in self.kernel.phases for n in p.accumulators}}
                lines.append(f"//   {self.name(node)} = {expression(node, others)}")
        return [line if len(line) <= 160 else line[:157] + "..." for line in lines]

    def parameters(self) -> list[str]:
        """The parameter list, a line for each group: the walk, what is read, what is written."""
        groups = ["int64_t num_blocks, int64_t groups, int threads, int64_t max_degree, const int64_t* blocks"]
        if self.kernel.end:
            groups.append(", ".join(f"const idx_t* __restrict__ {n}" for n in ("rowptr", "other", "edge")))
        groups += [f"const {c_type(b)}* __restrict__ {self.name(b)}" for b in self.kernel.buffers]
        groups += [f"{c_type(o)}* __restrict__ {self.name(o)}" for o in self.kernel.outputs]
        return [g + "," for g in groups[:-1]] + groups[-1:]

    # -- rows ----------------------------------------------------------------------------------

    def row(self) -> None:
        out = self.out
        if self.kernel.end:
            out.add("const int64_t begin = rowptr[i], end = rowptr[i + 1];")
        at = len(out.lines)
        for phase in self.kernel.phases:
            self.phase(phase)
        for node in self.kernel.stores:
            self.require(node) if self.is_cell(node) else self.require_inputs(node)
        self.emit_nests([self.store_nest(node, ROW) for node in self.kernel.stores])
        self.insert_pointers(at, ROW, "i")

    def phase(self, phase: Phase) -> None:
        out = self.out
        roots = [*phase.accumulators, *phase.totals, *phase.stores]
        for node in self.row_values(roots):
            self.require(node)
        for node in phase.accumulators:
            self.declare_accumulator(node)
        out.open("for (int64_t e = begin; e < end; ++e)")
        out.add("const int64_t j = other[e];")
        at = len(out.lines)
        self.edge_cells = {n: c for n, c in self.edge_cells.items() if c.kept}
        nests: list[Nest] = []
        for node in self.cells_below(roots, phase.kept):
            nests.append(self.cell_nest(node, EDGE, kept=node in phase.kept))
        for node in phase.accumulators:
            nests.append(self.accumulate_nest(node))
        for node in phase.totals:
            nests.append(self.total_nest(node))
        for node in phase.stores:
            nests.append(self.store_nest(node, EDGE))
        self.emit_nests(nests)
        self.insert_prefetches(at)
        self.insert_pointers(at, COLUMN, "j")
        self.insert_pointers(at, EDGE, "id")
        if any(re.search(r"\bid\b", line) for line in out.lines[at:]):
            out.lines.insert(at, "    " * out.depth + "const int64_t id = edge[e];")
        for key in [k for k in self.pointers if k[1] in (COLUMN, EDGE)]:
            del self.pointers[key]
        out.close()
        for node in phase.accumulators:
            self.finish_accumulator(node)

    def row_values(self, roots: Sequence[Node]) -> list[Node]:
        """Row values that the edges of a phase read and that lie nowhere yet, operands first."""
        found: dict[Node, None] = {}
        seen: set[Node] = set()

        def visit(node: Node) -> None:
            if node in seen or node in self.buffers or node in self.edge_cells:
                return
            seen.add(node)
            if node.op == "gather" and node.attr("end") == self.kernel.end:
                inner = node.inputs[0]
                if inner not in self.buffers and inner not in self.row_cells and not is_leaf(inner):
                    found.setdefault(inner)
                return
            if node.op == "gather":
                return
            for operand in node.inputs:
                visit(operand)

        for root in roots:
            for operand in root.inputs if root.op in ("segment", "contract", "scatter") else [root]:
                visit(operand)
        return list(found)

    def require(self, node: Node) -> None:
        """Make sure that a row value has a cell."""
        if not self.at_hand(node):
            self.require_inputs(node)
            self.emit_nests([self.cell_nest(node, ROW)])

    def require_inputs(self, node: Node) -> None:
        """Make sure that every cell below a row value is there."""
        if self.at_hand(node):
            return
        if node.op == "segment":
            raise AssertionError("an accumulator is read before its phase")
        for operand in node.inputs:
            if self.is_cell(operand):
                self.require(operand)
            else:
                self.require_inputs(operand)

    def at_hand(self, node: Node) -> bool:
        return node in self.row_cells or node in self.buffers or is_leaf(node)

    def cells_below(self, roots: Sequence[Node], kept: Sequence[Node]) -> list[Node]:
        """Edge values that need a cell, operands first."""
        found: list[Node] = []
        seen: set[Node] = set()

        def visit(node: Node) -> None:
            if node in seen or node in self.buffers or node in self.edge_cells or node.domain is not Domain.EDGE:
                return
            seen.add(node)
            if node.op == "gather":
                return
            for operand in node.inputs:
                visit(operand)
            if self.is_cell(node, kept):
                found.append(node)

        for root in roots:
            if root.domain is Domain.EDGE:
                visit(root)
            else:
                for operand in root.inputs:
                    visit(operand)
        return found

    # -- nests ---------------------------------------------------------------------------------

    def index(self, loops: Sequence[Dim]) -> dict[str, tuple[str, int]]:
        return {d.name: (self.loop_var(d.name), k + 1) for k, d in enumerate(loops)}

    def cell_nest(self, node: Node, where: str, kept: bool = False) -> Nest:
        cells = self.row_cells if where == ROW else self.edge_cells
        if kept:
            cell = Cell(self.kept[node], False, True)
        else:
            name = self.fresh(describe(node, self.program.names))
            self.names.setdefault(node, name)
            cell = Cell(name, not node.dims)
        if node.op in ("contract", "reduce"):
            nest = self.contract_nest(node, where, cell)
        else:
            nest = Nest(node.dims)
            index = self.index(node.dims)
            text, _ = self.value(node, index, where, nest, top=True)
            self.assign(nest, node, cell, index, text)
        cells[node] = cell
        nest.writes[cell.name] = self.place(node, cell, self.index(node.dims))
        return nest

    def assign(self, nest: Nest, node: Node, cell: Cell, index: Index, text: str) -> None:
        """``cell[index] = text`` at the innermost depth; declares the cell before the loops."""
        depth = len(nest.loops)
        if cell.scalar:
            nest.before[0].append(f"const {local_type(node)} {cell.name} = {text};")
            return
        if not cell.kept:
            nest.before[0].append(f"{local_type(node)} {cell.name}[{node.type.numel}];")
        nest.before[depth].append(f"{self.place(node, cell, index)} = {text};")

    def place(self, node: Node, cell: Cell, index: Index) -> str:
        """A cell's element as a C expression."""
        if cell.kept:
            return f"{cell.name}[{self.offset('(e - begin)', node, index)}]"
        return cell.name if cell.scalar else f"{cell.name}[{self.linear(node.dims, index)[0]}]"

    def contract_nest(self, node: Node, where: str, cell: Cell) -> Nest:
        if node.op == "contract" and self.is_axpy(node):
            return self.axpy_nest(node, where, cell)
        reduced = self.reduced_dims(node)
        loops = (*node.dims, *reduced)
        nest = Nest(loops, pointwise=False)
        index = self.index(loops)
        depth = len(node.dims)
        acc = self.fresh("s")
        if node.op == "contract":
            nest.clause = f" reduction(+ : {acc})"
            nest.before[depth].append(f"T {acc} = 0;")
            product = " * ".join(self.atom(i, index, where, nest) for i in node.inputs)
            nest.before[len(loops)].append(f"{acc} += {product};")
        else:
            self.reduce_body(node, where, nest, index, acc, depth)
        if not (cell.kept or cell.scalar):
            nest.before[0].append(f"{local_type(node)} {cell.name}[{node.type.numel}];")
        declaration = f"const {local_type(node)} " if cell.scalar else ""
        nest.after[depth].append(f"{declaration}{self.place(node, cell, index)} = {acc};")
        return nest

    def reduce_body(self, node: Node, where: str, nest: Nest, index: Index, acc: str, depth: int) -> None:
        """Maximum or minimum over a dim, or its first place; NaN wins, as in torch."""
        nest.simd = False
        reducer, var = node.attr("reducer"), self.loop_var(node.attr("dim"))
        sign = ">" if reducer.endswith("max") else "<"
        best = self.fresh("best") if reducer.startswith("arg") else acc
        nest.before[depth].append(f"T {best} = {'-' if sign == '>' else ''}__builtin_inf();")
        if best != acc:
            nest.before[depth].append(f"int64_t {acc} = -1;")
        value = self.atom(node.inputs[0], index, where, nest)
        inner = nest.before[len(nest.loops)]
        take = f"{value} {sign} {best} || ({value} != {value} && {best} == {best})"
        if best != acc:
            inner.append(f"if ({take} || {acc} < 0) {{ {best} = {value}; {acc} = {var}; }}")
        else:
            inner.append(f"if ({take}) {best} = {value};")

    def is_axpy(self, node: Node) -> bool:
        """Whether the innermost loop should run along the result: when a matrix lies that way in memory."""
        matrices = [i for i in node.inputs if i.domain is Domain.GLOBAL and len(i.dims) >= 2]
        return bool(matrices) and bool(node.dims) and matrices[0].dims[-1].name in node.type.names

    def axpy_nest(self, node: Node, where: str, cell: Cell) -> Nest:
        matrix = next(i for i in node.inputs if i.domain is Domain.GLOBAL and len(i.dims) >= 2)
        inner = matrix.dims[-1]
        outer = tuple(d for d in node.dims if d.name != inner.name)
        loops = (*outer, *self.reduced_dims(node), inner)
        nest = Nest(loops, pointwise=False)
        index = self.index(loops)
        numel = node.type.numel
        if not cell.kept:
            nest.before[0].append(f"T {cell.name}[{numel}];")
        row = f"(e - begin) * {numel} + n" if cell.kept else "n"
        nest.before[0].append(f"for (int n = 0; n < {numel}; ++n) {cell.name}[{row}] = 0;")
        product = " * ".join(self.atom(i, index, where, nest) for i in node.inputs)
        nest.before[len(loops)].append(f"{self.place(node, cell, index)} += {product};")
        return nest

    def reduced_dims(self, node: Node) -> tuple[Dim, ...]:
        names = node.attr("reduce") if node.op == "contract" else (node.attr("dim"),)
        found: dict[str, Dim] = {}
        for operand in node.inputs:
            for d in operand.dims:
                if d.name in names:
                    found[d.name] = d
        return tuple(found.values())

    # -- accumulators, totals, outputs ---------------------------------------------------------

    def declare_accumulator(self, node: Node) -> None:
        name = self.fresh("acc_" + describe(node, self.program.names))
        reducer = node.attr("reducer")
        start = {"sum": "0", "mul": "1", "max": "-__builtin_inf()", "min": "__builtin_inf()"}
        numel = node.type.numel
        self.row_cells[node] = Cell(name, not node.dims)
        size = f"[{numel}]" if node.dims else ""
        fill = self._filler(name, node)
        if reducer.startswith("arg"):
            best = f"best_{name}"
            self.out.add(f"idx_t {name}{size};")
            self.out.add(f"T {best}{size};")
            self.out.add(fill.format(name, "-1"))
            self.out.add(fill.format(best, start[reducer[3:]]))
        else:
            self.out.add(f"T {name}{size};")
            self.out.add(fill.format(name, start[reducer]))

    def _filler(self, name: str, node: Node) -> str:
        return f"for (int n = 0; n < {node.type.numel}; ++n) {{}}[n] = {{}};" if node.dims else "{} = {};"

    def finish_accumulator(self, node: Node) -> None:
        """An empty segment has maximum and minimum 0."""
        if node.attr("reducer") in ("max", "min"):
            self.out.add("if (begin == end) " + self._filler("", node).format(self.row_cells[node].name, "0"))

    def accumulate_nest(self, node: Node) -> Nest:
        e = node.inputs[0]
        nest = Nest(e.dims)
        index = dict(self.index(e.dims))
        if len(node.inputs) == 2:
            index[node.dims[0].name] = self.value(node.inputs[1], {}, EDGE, nest)
        cell = self.row_cells[node]
        place = f"{cell.name}[{self.linear(node.dims, index)[0]}]" if node.dims else cell.name
        value = self.atom(e, index, EDGE, nest)
        body = nest.before[len(nest.loops)]
        reducer = node.attr("reducer")
        if reducer in ("sum", "mul"):
            body.append(f"{place} {'+' if reducer == 'sum' else '*'}= {value};")
            return nest
        sign = ">" if reducer.endswith("max") else "<"
        if not value.isidentifier():
            name = self.fresh("v")
            body.append(f"const T {name} = {value};")
            value = name
        if not reducer.startswith("arg"):
            body.append(f"{place} = {value} {sign} {place} || {value} != {value} ? {value} : {place};")
            return nest
        best = f"best_{place}"
        take = self.fresh("take")
        body.append(
            f"const bool {take} = {value} {sign} {best} || {place} < 0 || ({value} != {value} && {best} == {best});"
        )
        body.append(f"{best} = {take} ? {value} : {best};")
        body.append(f"{place} = {take} ? (idx_t)id : {place};")
        return nest

    def total_nest(self, node: Node) -> Nest:
        total = self.pointers[(node, GLOBAL)]
        if node.op == "scatter":
            value, idx = node.inputs
            lead = idx.dims + tuple(d for d in value.dims if d.name not in idx.type.names)
            nest = Nest(lead, simd=not idx.dims)
            index = dict(self.index(lead))
            text = self.atom(value, index, EDGE, nest)
            index[node.attr("dim")] = self.value(idx, index, EDGE, nest)
            nest.before[len(lead)].append(f"{total}[{self.linear(node.dims, index)[0]}] += {text};")
            return nest
        reduced = self.reduced_dims(node)
        loops = (*node.dims, *reduced)
        nest = Nest(loops, pointwise=not reduced)
        index = self.index(loops)
        product = " * ".join(self.atom(i, index, EDGE, nest) for i in node.inputs)
        place = f"{total}[{self.linear(node.dims, index)[0]}]"
        if not reduced:
            nest.before[len(loops)].append(f"{place} += {product};")
            return nest
        acc = self.fresh("s")
        nest.clause = f" reduction(+ : {acc})"
        nest.before[len(node.dims)].append(f"T {acc} = 0;")
        nest.before[len(loops)].append(f"{acc} += {product};")
        nest.after[len(node.dims)].append(f"{place} += {acc};")
        return nest

    def store_nest(self, node: Node, where: str) -> Nest:
        nest = Nest(node.dims)
        index = self.index(node.dims)
        text, _ = self.value(node, index, where, nest, top=True)
        row = "i" if where == ROW else "id"
        place = self.offset(row, node, index)
        nest.before[len(nest.loops)].append(f"{self.name(node)}[{place}] = {text};")
        return nest

    # -- values --------------------------------------------------------------------------------

    def atom(self, node: Node, index: Index, where: str, nest: Nest) -> str:
        text, _ = self.value(node, index, where, nest)
        return text if re.fullmatch(r"[\w.\[\]]+|[\w.]+\[[^\[\]]*\]", text) else f"({text})"

    def value(self, node: Node, index: Index, where: str, nest: Nest, top: bool = False) -> tuple[str, int]:
        """A C expression for the node at an index, and the number of loops it needs around it."""
        index = {d.name: index[d.name] for d in node.dims}
        if where == EDGE and node.domain in (Domain.NODE, Domain.SOURCE, Domain.TARGET):
            raise AssertionError(f"{node.op} read on an edge without an end")
        found = self.in_memory(node, index, where)
        if found is not None:
            return found
        if node.domain is Domain.GLOBAL:
            where = GLOBAL
        key = (node, where, tuple(sorted(index.items())))
        if key in nest.memo:
            return nest.memo[key]
        text, depth = self.compute(node, index, where, nest)
        if node.op in ELEMENTWISE and not top:
            name = self.fresh(self.program.names.get(node) or "v")
            nest.before[depth].append(f"const {local_type(node)} {name} = {text};")
            text = name
        nest.memo[key] = (text, depth)
        return text, depth

    def in_memory(self, node: Node, index: Index, where: str) -> tuple[str, int] | None:
        """The place of a value that is a cell or a buffer."""
        cell = self.row_cells.get(node) if where == ROW else self.edge_cells.get(node) if where == EDGE else None
        if cell is not None:
            return self.place(node, cell, index), self.linear(node.dims, index)[1]
        if node in self.buffers:
            return self.read_buffer(node, index, where)
        return None

    def read_buffer(self, node: Node, index: Index, where: str) -> tuple[str, int]:
        offset, depth = self.linear(node.dims, index)
        name = self.name(node)
        if node.domain is Domain.GLOBAL:
            return f"{name}[{offset}]", depth
        row = {ROW: "i", COLUMN: "j", EDGE: "id"}[where]
        if node.type.numel == 1:
            return f"{name}[{row}]", depth
        key = (node, where)
        if key not in self.pointers:
            self.pointers[key] = self.fresh(f"{name}_{row}")
        return f"{self.pointers[key]}[{offset}]", depth

    def insert_pointers(self, at: int, where: str, row: str) -> None:
        """Declare the row pointers that the region's text uses."""
        pad = "    " * self.out.depth
        for (node, at_where), name in self.pointers.items():
            if at_where == where:
                numel = node.type.numel
                line = f"{pad}const {c_type(node)}* __restrict__ {name} = {self.name(node)} + {row} * {numel};"
                self.out.lines.insert(at, line)

    def insert_prefetches(self, at: int) -> None:
        """Ask early for the rows at the other end that the walk will read."""
        rows = [node for node, where in self.pointers if where == COLUMN]
        if not rows:
            return
        pad = "    " * self.out.depth
        lines = [f"{pad}const int64_t ahead = other[e + {PREFETCH_AHEAD} < stop ? e + {PREFETCH_AHEAD} : e];"]
        for node in rows:
            numel = node.type.numel
            step = LINE_BYTES // 4
            for first in range(0, min(numel, PREFETCH_LINES * step), step):
                place = f"{self.name(node)} + ahead * {numel}" + (f" + {first}" if first else "")
                lines.append(f"{pad}__builtin_prefetch({place});")
        self.out.lines[at:at] = lines

    def compute(self, node: Node, index: Index, where: str, nest: Nest) -> tuple[str, int]:
        if node.op in ELEMENTWISE:
            return self.compute_elementwise(node, index, where, nest)
        return getattr(self, f"compute_{node.op}")(node, index, where, nest)

    def compute_elementwise(self, node: Node, index: Index, where: str, nest: Nest) -> tuple[str, int]:
        parts, depth = [], 0
        for operand in node.inputs:
            text, needs = self.value(operand, {n: index[n] for n in operand.type.names}, where, nest)
            parts.append(f"({text})" if text.startswith("-") else text)
            depth = max(depth, needs)
        form = ELEMENTWISE[node.op].cpp.format(*parts, bound=node.attr("bound"))
        return form.replace("gdsl_float(", "T("), depth

    def compute_const(self, node: Node, index: Index, where: str, nest: Nest) -> tuple[str, int]:
        return literal(node), 0

    def compute_iota(self, node: Node, index: Index, where: str, nest: Nest) -> tuple[str, int]:
        return index[node.dims[0].name]

    def compute_graph_value(self, node: Node, index: Index, where: str, nest: Nest) -> tuple[str, int]:
        return {"edge_id": "id", "node_id": "i" if where == ROW else "j"}[node.attr("what")], 0

    def compute_gather(self, node: Node, index: Index, where: str, nest: Nest) -> tuple[str, int]:
        at = ROW if node.attr("end") == self.kernel.end else COLUMN
        return self.value(node.inputs[0], index, at, nest)

    def compute_spread(self, node: Node, index: Index, where: str, nest: Nest) -> tuple[str, int]:
        return self.value(node.inputs[0], index, GLOBAL, nest)

    compute_stop_gradient = compute_spread

    def compute_transpose(self, node: Node, index: Index, where: str, nest: Nest) -> tuple[str, int]:
        return self.value(node.inputs[0], index, where, nest)

    def compute_slice(self, node: Node, index: Index, where: str, nest: Nest) -> tuple[str, int]:
        operand, dim, start = node.inputs[0], node.attr("dim"), node.attr("start")
        new = node.dims[operand.type.names.index(dim)].name
        text, depth = index[new]
        inner = {n: index[n] for n in operand.type.names if n != dim}
        inner[dim] = (f"({text} + {start})" if start else text, depth)
        return self.value(operand, inner, where, nest)

    def compute_reshape(self, node: Node, index: Index, where: str, nest: Nest) -> tuple[str, int]:
        """Places counted row-major under the new dims, taken apart under the old ones."""
        operand = node.inputs[0]
        old, new = list(operand.dims), list(node.dims)
        inner: dict[str, tuple[str, int]] = {}
        while old or new:
            group_old, group_new = _next_group(old, new)
            inner.update(self.regroup(group_old, group_new, index))
        return self.value(operand, inner, where, nest)

    def regroup(self, old: Sequence[Dim], new: Sequence[Dim], index: Index) -> dict[str, tuple[str, int]]:
        if len(old) == 1 and len(new) == 1:
            return {old[0].name: index[new[0].name]}
        text, depth = self.linear(tuple(new), index)
        found, stride = {}, 1
        for d in reversed(old):
            part = f"({text}) / {stride}" if stride > 1 else f"({text})"
            found[d.name] = ("0" if d.size == 1 else f"({part} % {d.size})" if len(old) > 1 else part, depth)
            stride *= d.size
        return found

    def compute_cat(self, node: Node, index: Index, where: str, nest: Nest) -> tuple[str, int]:
        """The part is chosen by place; every part is read at a place that exists, so that reads need no branch."""
        place, depth = index[node.attr("new")]
        bounds, start = [], 0
        for operand, name in zip(node.inputs, node.attr("dims"), strict=True):
            bounds.append((operand, name, start, start + operand.type.dim(name).size))
            start = bounds[-1][3]
        text = ""
        for operand, name, low, high in reversed(bounds):
            inner = {n: index[n] for n in operand.type.names if n != name}
            shifted = f"({place} - {low})" if low else place
            inner[name] = (f"({place} >= {low} && {place} < {high} ? {shifted} : 0)", depth)
            value, needs = self.value(operand, inner, where, nest)
            depth = max(depth, needs)
            text = f"({place} < {high} ? {value} : {text})" if text else value
        return text, depth

    def compute_index(self, node: Node, index: Index, where: str, nest: Nest) -> tuple[str, int]:
        table, idx = node.inputs
        at = self.value(idx, {n: index[n] for n in idx.type.names}, where, nest)
        inner = {n: index[n] for n in table.type.names if n != node.attr("dim")}
        inner[node.attr("dim")] = at
        return self.value(table, inner, where, nest)

    def compute_random(self, node: Node, index: Index, where: str, nest: Nest) -> tuple[str, int]:
        row = {ROW: "i", COLUMN: "j", EDGE: "id"}[where]
        _, depth = self.linear(node.dims, index)
        place = self.offset(row, node, index)
        seed = self.value(node.inputs[0], {}, GLOBAL, nest)[0]
        return f"T(gdsl_uniform((uint64_t){seed}, {node.attr('salt')}u, (uint64_t)({place})))", depth

    # -- indices -------------------------------------------------------------------------------

    def linear(self, dims: Sequence[Dim], index: Index) -> tuple[str, int]:
        """The row-major place in dims, and the loops that it needs."""
        terms: list[str] = []
        depth, stride = 0, 1
        for d in reversed(dims):
            text, needs = index[d.name]
            depth = max(depth, needs)
            if d.size != 1:
                terms.insert(0, f"{text} * {stride}" if stride != 1 else text)
            stride *= d.size
        return " + ".join(terms) or "0", depth

    def offset(self, row: str, node: Node, index: Index) -> str:
        inner = self.linear(node.dims, index)[0]
        numel = node.type.numel
        if numel == 1:
            return row
        return f"{row} * {numel} + {inner}" if inner != "0" else f"{row} * {numel}"

    # -- text ----------------------------------------------------------------------------------

    def emit_nests(self, nests: Sequence[Nest]) -> None:
        for nest in _joined(nests):
            self.emit_nest(nest)

    def emit_nest(self, nest: Nest) -> None:
        out = self.out
        for line in nest.before[0]:
            out.add(line)
        depth = 0
        for k, d in enumerate(nest.loops):
            if k == len(nest.loops) - 1 and nest.simd and d.size > 1:
                out.add(f"#pragma omp simd{nest.clause}")
            var = self.loop_var(d.name)
            out.open(f"for (int64_t {var} = 0; {var} < {d.size}; ++{var})")
            depth += 1
            for line in nest.before[k + 1]:
                out.add(line)
        while depth:
            out.close()
            depth -= 1
            for line in nest.after[depth]:
                out.add(line)
        if not nest.loops:
            for line in nest.after[0]:
                out.add(line)


def _joined(nests: Sequence[Nest]) -> list[Nest]:
    """Neighbouring pointwise nests over the same loops as one."""
    found: list[Nest] = []
    for nest in nests:
        last = found[-1] if found else None
        if last and _can_join(last, nest):
            for k, lines in enumerate(nest.before):
                last.before[k].extend(lines)
            for k, lines in enumerate(nest.after):
                last.after[k].extend(lines)
            last.writes.update(nest.writes)
        else:
            found.append(nest)
    return found


def _can_join(first: Nest, second: Nest) -> bool:
    """Whether two nests may share their loops: the second reads the first's cells only where they were just written."""
    if not (first.pointwise and second.pointwise and first.loops and first.loops == second.loops):
        return False
    outside = "\n".join(line for lines in second.before[: len(second.loops)] for line in lines)
    inside = "\n".join(second.before[len(second.loops)])
    for name, place in first.writes.items():
        if re.search(rf"\b{name}\b", outside + inside.replace(place, "")):
            return False
    return first.simd == second.simd


def _next_group(old: list[Dim], new: list[Dim]) -> tuple[list[Dim], list[Dim]]:
    """Take from both lists the shortest heads with the same number of places."""
    a, b = ([old.pop(0)] if old else []), ([new.pop(0)] if new else [])

    def size(dims: list[Dim]) -> int:
        n = 1
        for d in dims:
            n *= d.size
        return n

    while size(a) != size(b):
        if size(a) < size(b):
            a.append(old.pop(0))
        else:
            b.append(new.pop(0))
    return a, b


def is_leaf(node: Node) -> bool:
    return node.op in ("const", "iota", "graph_value", "load")


def c_type(node: Node) -> str:
    """The type of a buffer's numbers. Integers of the user's own are int64; those that kernels make are idx_t."""
    if node.kind is Kind.FLOAT:
        return "T"
    if node.kind is Kind.BOOL:
        return "bool"
    return "int64_t" if node.op == "load" and node.attr("role") != "saved" else "idx_t"


def local_type(node: Node) -> str:
    return {Kind.FLOAT: "T", Kind.INT: "int64_t", Kind.BOOL: "bool"}[node.kind]


def literal(node: Node) -> str:
    value = node.attr("value")
    if node.kind is Kind.BOOL:
        return "true" if value else "false"
    if node.kind is Kind.INT:
        return str(value)
    if value != value:
        return 'T(__builtin_nan(""))'
    if value in (float("inf"), float("-inf")):
        return "T(__builtin_inf())" if value > 0 else "T(-__builtin_inf())"
    return f"T({value!r})"
