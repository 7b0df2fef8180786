"""The nests of a kernel: which loops run around which expressions."""

from __future__ import annotations

from collections.abc import Sequence

from gdsl.codegen.indices import Axis, Index, Place, Sum, linear
from gdsl.codegen.nest import Cell, Nest, joined, lanes
from gdsl.codegen.pull import EDGE, GLOBAL, ROW, reduced_dims
from gdsl.codegen.values import Values, cell_type, element, local_type, number_literal
from gdsl.ir import build
from gdsl.ir.node import Node
from gdsl.ir.ops.edges import finds_winners, is_extreme
from gdsl.ir.printer import describe
from gdsl.ir.types import Dim, Domain

# The most random numbers that are drawn ahead of the loop that reads them: such an array stays in the nearest cache.
MOST_DRAWN = 4096
# Edges whose numbers gdsl_listed draws together.
DRAWN_AHEAD = 32


class Nests(Values):
    """Nests for cells, accumulators, totals and outputs."""

    # -- nests ---------------------------------------------------------------------------------

    def index(self, loops: Sequence[Dim]) -> dict[str, Place]:
        return {d.name: Axis(self.loop_var(d.name), k, d.size) for k, d in enumerate(loops)}

    def cell_nest(self, node: Node, where: str, kept: bool = False) -> Nest:
        cells = self.row_cells if where == ROW else self.edge_cells
        cell = self.new_cell(node, kept)
        if node.op in ("contract", "reduce") and node not in self.buffers:
            nest = self.contract_nest(node, where, cell)
        elif node.op == "table_product" and node not in self.buffers:
            nest = self.table_nest(node, where, cell)
        elif self.drawn_together(node):
            nest = self.draw_nest(node, where, cell)
        else:
            nest = Nest(node.dims)
            text, _ = self.value(node, self.index(node.dims), where, nest, top=True)
            self.assign(nest, node, cell, text)
        cells[node] = cell
        nest.writes[cell.name] = linear(node.dims, self.index(node.dims))
        return nest

    def new_cell(self, node: Node, kept: bool) -> Cell:
        """Where a computed value will lie."""
        if kept:
            return Cell(self.kept[node], False, "begin")
        name = self.fresh(describe(node, self.program.names))
        self.names.setdefault(node, name)
        return Cell(name, False, "at") if node in self.in_block else Cell(name, not node.dims)

    def assign(self, nest: Nest, node: Node, cell: Cell, text: str) -> None:
        """``cell = text`` at the depth of the node's dims; declares the cell before the loops."""
        self.declare(nest, node, cell)
        declaration = f"const {local_type(node)} " if cell.scalar else ""
        line = f"{declaration}{self.place(node, cell, self.index(node.dims))} = {text};"
        depth = len(node.dims)
        (nest.before if depth == len(nest.loops) else nest.after)[depth].append(line)

    def declare(self, nest: Nest, node: Node, cell: Cell) -> None:
        if not (cell.first or cell.scalar):
            nest.before[0].append(f"{cell_type(node)} {cell.name}[{node.type.numel}];")

    def drawn_together(self, node: Node) -> bool:
        """Whether random numbers are drawn by a call for several, those of a row or, of one an edge, those of the next
        edges: it has vectors as wide as the processor's whatever the loops that read them are like."""
        if node.op != "random" or node.domain is Domain.GLOBAL:
            return False
        numel = node.type.numel
        return node.domain is Domain.EDGE and len(node.inputs) == 1 if numel == 1 else numel <= MOST_DRAWN

    def draw_nest(self, node: Node, where: str, cell: Cell) -> Nest:
        nest, numel = Nest((), pointwise=False), node.type.numel
        self.declare(nest, node, cell)
        if numel > 1:
            place = f"{cell.name} + (e - {cell.first}) * {numel}" if cell.first else cell.name
            nest.inner.append(f"gdsl_uniforms<{numel}>({self.draw(node, Sum((), ()), where, nest)}, {place});")
            return nest
        text = f"T(gdsl_uniform({self.draw(node, Sum((), ()), where, nest)}))"
        if node in self.drawn:
            name, first, stop = self.drawn[node]
            turn = f"((e - {first}) & {DRAWN_AHEAD - 1})"
            read = f"{self.stream(node, nest)}, edge + e, {stop} - e, {name}"
            nest.inner.append(f"if ({turn} == 0) gdsl_listed({read});")
            text = f"{name}[{turn}]"
        place = cell.name if cell.scalar else f"{cell.name}[{f'e - {cell.first}' if cell.first else '0'}]"
        nest.inner.append(f"{'const T ' if cell.scalar else ''}{place} = {text};")
        return nest

    def product_of(self, node: Node, where: str, nest: Nest, index: Index) -> str:
        return " * ".join(self.atom(i, index, where, nest) for i in node.inputs)

    def contract_nest(self, node: Node, where: str, cell: Cell) -> Nest:
        inner = self.dim_of_rows(node) if node.op == "contract" else None
        if inner is not None:
            return self.axpy_nest(node, where, cell, inner)
        reduced = self.reduced_dims(node)
        loops = (*node.dims, *reduced)
        nest = Nest(loops, pointwise=False)
        index = self.index(loops)
        depth = len(node.dims)
        if node.op == "contract":
            acc = self.sum_body(node, where, nest, index, depth)
        else:
            acc = self.fresh("s")
            self.reduce_body(node, where, nest, index, acc, depth)
        self.assign(nest, node, cell, acc)
        return nest

    def table_nest(self, node: Node, where: str, cell: Cell) -> Nest:
        """The terms of a table, written out; loops run over the dims that it lacks. Products of the same factors are
        computed once."""
        loops = tuple(d for d in node.dims if d.name not in node.attrs.dims)
        nest = Nest(loops, pointwise=False)
        index = self.index(loops)
        self.declare(nest, node, cell)
        products: dict[tuple[str, ...], str] = {}
        for at, found in self.table_terms(node, index, where, nest):
            parts = []
            for number, factors in found:
                texts = tuple(text for text, _ in factors)
                if len(texts) > 1 and texts not in products:
                    products[texts] = self.fresh("p")
                    product = " * ".join(f"({text})" for text in texts)
                    nest.inner.append(f"const T {products[texts]} = {product};")
                parts.append(f"{number_literal(number)} * {products.get(texts) or f'({texts[0]})'}")
            place = self.place(node, cell, {**index, **at})
            declaration = f"const {local_type(node)} " if cell.scalar else ""
            nest.inner.append(f"{declaration}{place} = {' + '.join(parts) or '0'};")
        return nest

    def sum_body(self, node: Node, where: str, nest: Nest, index: Index, depth: int) -> str:
        """Add up a product over the loops below a depth. Returns the sum.

        The innermost loop adds to several sums in turn, as lanes do. Adding them up in pairs is our own code, because
        compilers add the lanes of a reduction one after another.
        """
        acc = self.fresh("s")
        last = nest.loops[-1]
        nest.lanes = lanes(last.size)
        lane = ""
        if nest.lanes:
            first = f" - {self.block_var(last)}" if last.size > nest.lanes else ""
            lane = f"[{self.loop_var(last.name)}{first}]"
        nest.before[depth].append(f"T {acc}[{nest.lanes}] = {{}};" if nest.lanes else f"T {acc} = 0;")
        nest.inner.append(f"{acc}{lane} += {self.product_of(node, where, nest, index)};")
        return f"gdsl::sum<{nest.lanes}>({acc})" if nest.lanes else acc

    def block_var(self, dim: Dim) -> str:
        """The variable of the loop over blocks of lanes."""
        key = f"{dim.name} block"  # no dim has such a name
        if key not in self.loop_vars:
            self.loop_vars[key] = self.fresh(f"{dim.name}_block")
        return self.loop_vars[key]

    def reduce_body(self, node: Node, where: str, nest: Nest, index: Index, acc: str, depth: int) -> None:
        """Maximum or minimum over a dim, or its first place; NaN wins, as in torch."""
        nest.simd = False
        reducer, var = node.attrs.reducer, self.loop_var(node.attrs.dim)
        sign = ">" if reducer.endswith("max") else "<"
        best = self.fresh("best") if reducer.startswith("arg") else acc
        nest.before[depth].append(f"T {best} = {'-' if sign == '>' else ''}__builtin_inf();")
        if best != acc:
            nest.before[depth].append(f"int64_t {acc} = -1;")
        value = self.atom(node.inputs[0], index, where, nest)
        take = f"{value} {sign} {best} || ({value} != {value} && {best} == {best})"
        if best != acc:
            nest.inner.append(f"if ({take} || {acc} < 0) {{ {best} = {value}; {acc} = {var}; }}")
        else:
            nest.inner.append(f"if ({take}) {best} = {value};")

    def dim_of_rows(self, node: Node) -> Dim | None:
        """The dim along which a matrix lies in memory, where that is one of the result: the innermost loop takes it.

        The matrix is a table, else an operand of two dims, the one that the result lies like where another is as large;
        None where the innermost loop adds up.
        """
        found = [i for i in node.inputs if len(i.dims) >= 2]
        names = node.type.names
        size = {i: (i.domain is Domain.GLOBAL, i.type.numel, i.dims[-1].name in names) for i in found}
        matrix = max(found, key=lambda i: size[i], default=None)
        return matrix.dims[-1] if matrix is not None and matrix.dims[-1].name in names else None

    def axpy_nest(self, node: Node, where: str, cell: Cell, inner: Dim) -> Nest:
        outer = tuple(d for d in node.dims if d.name != inner.name)
        loops = (*outer, *self.reduced_dims(node), inner)
        nest = Nest(loops, pointwise=False)
        index = self.index(loops)
        numel = node.type.numel
        self.declare(nest, node, cell)
        row = f"(e - {cell.first}) * {numel} + n" if cell.first else "n"
        nest.before[0].append(f"for (int n = 0; n < {numel}; ++n) {cell.name}[{row}] = 0;")
        nest.inner.append(f"{self.place(node, cell, index)} += {self.product_of(node, where, nest, index)};")
        return nest

    def reduced_dims(self, node: Node) -> tuple[Dim, ...]:
        """The dims that are summed, in the order in which the widest operand lies in memory."""
        return reduced_dims(node, sorted(node.inputs, key=lambda i: -i.type.numel))

    # -- accumulators, totals, outputs ---------------------------------------------------------

    def declare_accumulator(self, node: Node) -> None:
        name = self.fresh("acc_" + describe(node, self.program.names))
        reducer = node.attrs.reducer
        start = {"sum": "0", "mul": "1", "max": "-__builtin_inf()", "min": "__builtin_inf()"}
        numel = node.type.numel
        self.row_cells[node] = Cell(name, not node.dims)
        size = f"[{numel}]" if node.dims else ""
        fill = self._filler(name, node)
        if finds_winners(node):
            best = f"best_{name}"
            self.out.add(f"idx_t {name}{size};")
            self.out.add(f"T {best}{size};")
            self.out.add(fill.format(name, "-1" if reducer.startswith("arg") else "0"))
            self.out.add(fill.format(best, start[reducer[-3:]]))
        else:
            self.out.add(f"T {name}{size};")
            self.out.add(fill.format(name, start[reducer]))

    def _filler(self, name: str, node: Node) -> str:
        return f"for (int n = 0; n < {node.type.numel}; ++n) {{}}[n] = {{}};" if node.dims else "{} = {};"

    def finish_accumulator(self, node: Node) -> None:
        """An empty segment has maximum and minimum 0."""
        if is_extreme(node):
            self.out.add("if (begin == end) " + self._filler("", node).format(self.row_cells[node].name, "0"))

    def accumulate_nest(self, node: Node) -> Nest:
        e, by = node.inputs[0], node.inputs[1:]
        # Places of `by` may coincide: its own loops are around the ones that run in lanes.
        loops = (*(by[0].dims if by else ()), *node.dims[len(by) :])
        nest = Nest(loops, simd=len(loops) > len(by[0].dims) if by else True)
        index = self.index(loops)
        if by:
            index[node.dims[0].name] = self.place_of(self.value(by[0], index, EDGE, nest), frozenset(), nest)
        place = self.place(node, self.row_cells[node], index)
        value = self.atom(e, index, EDGE, nest)
        number = self.number_of(EDGE).name if node.attrs.reducer.startswith("arg") else "1"
        nest.inner.extend(self.reduction(node.attrs.reducer, place, value, number))
        return nest

    def reduction(self, reducer: str, place: str, value: str, number: str) -> list[str]:
        """Statements that take a value into an accumulator; ``number`` is its own among all, or how many it is."""
        if reducer in ("sum", "mul"):
            return [f"{place} {'+' if reducer == 'sum' else '*'}= {value};"]
        take = "gdsl::larger" if reducer.endswith("max") else "gdsl::smaller"
        if reducer in ("max", "min"):
            return [f"{place} = {take}({place}, {value});"]
        best, held = self.fresh("best"), f"best_{place}"
        found = f"gdsl::winner({place}, (idx_t){number}, {held}, {best})"
        if reducer.startswith("count"):
            found = f"gdsl::tally({place}, (idx_t){number}, {held}, {best}, {value})"
        return [f"const T {best} = {take}({held}, {value});", f"{place} = {found};", f"{held} = {best};"]

    def declare_fold(self, node: Node) -> None:
        """What a scan has come to at the edge that is being walked."""
        name = self.fresh(("acc_" if node.attrs.last else "before_") + describe(node, self.program.names))
        self.out.add(f"T {name}{f'[{node.type.numel}]' if node.dims else ''};")
        self.out.add(self._filler(name, node).format(name, number_literal(node.attrs.init)))
        self.folds[node] = Cell(name, not node.dims)
        if node.attrs.last:
            self.row_cells[node] = self.folds[node]

    def fold_nest(self, node: Node) -> Nest:
        """One step of a scan; where edges read it, what it has come to before the edge is written first."""
        cell = self.folds[node]
        acc, step = build.scan_step(node, cell.name)
        self.edge_cells[acc] = cell
        nest = Nest(node.dims)
        index = self.index(node.dims)
        value = self.atom(step, index, EDGE, nest)
        place = self.place(acc, cell, index)
        if not node.attrs.last:
            self.edge_rows.setdefault(node)
            written = element(self.name(node), linear(node.dims, index, self.number_of(EDGE)))
            nest.inner.append(f"{written} = {place};")
        nest.inner.append(f"{place} = {value};")
        return nest

    def total_nest(self, node: Node, where: str) -> Nest:
        total = self.pointers[(node, GLOBAL)]
        if node.op == "scatter":
            value, idx = node.inputs
            lead = idx.dims + tuple(d for d in value.dims if d.name not in idx.type.names)
            nest = Nest(lead, simd=not idx.dims)
            index = self.index(lead)
            text = self.atom(value, index, where, nest)
            index[node.attrs.dim] = self.place_of(self.value(idx, index, where, nest), frozenset(), nest)
            nest.inner.append(f"{element(total, linear(node.dims, index))} += {text};")
            return nest
        reduced = self.reduced_dims(node)
        loops = (*node.dims, *reduced)
        nest = Nest(loops, pointwise=not reduced)
        index = self.index(loops)
        place = element(total, linear(node.dims, index))
        if not reduced:
            product = self.product_of(node, where, nest, index)
            nest.inner.append(f"{place} += {product};")
            return nest
        acc = self.sum_body(node, where, nest, index, len(node.dims))
        nest.after[len(node.dims)].append(f"{place} += {acc};")
        return nest

    def store_nest(self, node: Node, where: str) -> Nest:
        nest = Nest(node.dims)
        index = self.index(node.dims)
        text, _ = self.value(node, index, where, nest, top=True)
        if where == EDGE:
            self.edge_rows.setdefault(node)
        nest.inner.append(f"{element(self.name(node), linear(node.dims, index, self.number_of(where)))} = {text};")
        return nest

    # -- text ----------------------------------------------------------------------------------

    def emit_nests(self, nests: Sequence[Nest]) -> None:
        for nest in joined(nests):
            self._emit_below(nest, 0)

    def _emit_below(self, nest: Nest, depth: int) -> None:
        """What stands inside so many loops of a nest, with the loops inside them."""
        self.out.add(*nest.before[depth])
        if depth < len(nest.loops):
            d = nest.loops[depth]
            if depth == len(nest.loops) - 1 and 0 < nest.lanes < d.size:
                block = self.block_var(d)
                stop = f"{block} + {nest.lanes}"
                if d.size % nest.lanes:
                    stop = f"({stop} < {d.size} ? {stop} : {d.size})"
                with self.out.block(f"for (int64_t {block} = 0; {block} < {d.size}; {block} += {nest.lanes})"):
                    self._emit_loop(nest, depth, block, stop)
            else:
                self._emit_loop(nest, depth, "0", str(d.size))
        self.out.add(*nest.after[depth])

    def _emit_loop(self, nest: Nest, depth: int, start: str, stop: str) -> None:
        d = nest.loops[depth]
        var = self.loop_var(d.name)
        if depth == len(nest.loops) - 1 and nest.simd and d.size > 1:
            self.out.add("#pragma omp simd")
        elif depth < nest.unrolled:
            self.out.add(f"#pragma GCC unroll {d.size}")
        with self.out.block(f"for (int64_t {var} = {start}; {var} < {stop}; ++{var})"):
            self._emit_below(nest, depth + 1)
