"""Values as C expressions: from a node and an index down to something that lies in memory.

This is the *pull* half of the generator. It knows ops, index arithmetic and where buffers are read; it does not know
which loops run around it, only how many of them an expression needs.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from gdsl.codegen.names import Names
from gdsl.codegen.nest import MOST_UNROLLED, Cell, Index, Lines, Nest
from gdsl.ir.node import Node, walk_below
from gdsl.ir.ops import ELEMENTWISE, subtracts_products
from gdsl.ir.program import Program
from gdsl.ir.types import Dim, Domain, Kind
from gdsl.passes.plan import Kernel

# Where a value is wanted: at the row being walked, at the other end of the edge, at the edge, or anywhere.
ROW, COLUMN, EDGE, GLOBAL = "row", "column", "edge", "global"

_RESERVED = frozenset(
    """alignas alignof and asm auto bool break case catch char class const constexpr continue default delete do double
    else enum explicit export extern false float for friend goto if inline int long mutable namespace new not nullptr
    operator or private protected public register return short signed sizeof static struct switch template this throw
    true try typedef typeid typename union unsigned using virtual void volatile while xor gdsl T idx_t i j e id n at
    upto block blocks group groups threads num_blocks num_rows rowptr other edge begin end first last stop ahead
    id_ahead max_degree mine scratch main seed exp log abs sin cos tanh pow floor sqrt""".split()
)

# Operations below one another that are written by recursion, which keeps the text in the order of the program.
LONG_CHAIN = 50

# Names that C headers may define as macros or types.
_FOREIGN = re.compile(r"_|[A-Z][A-Z0-9_]+$|.*_t$|gdsl")

# Rows at the other end lie anywhere, and so do the edges' own, which keep the user's order: they are asked for this
# many edges before they are needed, so that memory answers many at a time. Lines past the first few of a wide row are
# left to the hardware, which sees a stream by then.
PREFETCH_AHEAD = 8
PREFETCH_LINES = 8
LINE_BYTES = 64
# Of a number that is not as wide as a float.
BYTES = {"S": 2, "int64_t": 8, "bool": 1}


class Values(Names):
    """Names and scalar expressions of one kernel.

    ``row_cells`` and ``edge_cells`` are the values that lie in local memory now; ``pointers`` the rows of buffers
    that the text being written reads, by buffer and place; ``edge_rows`` the buffers of which it reads or writes the
    edge's own row.
    """

    def __init__(self, kernel: Kernel, program: Program, packed: frozenset[Node] = frozenset()):
        super().__init__(program, _RESERVED, _FOREIGN)
        self.kernel = kernel
        self.packed = packed
        self.out = Lines()
        self.kept: dict[Node, str] = {}
        self.in_block: set[Node] = set()
        self.row_cells: dict[Node, Cell] = {}
        self.edge_cells: dict[Node, Cell] = {}
        self.pointers: dict[tuple[Node, str], str] = {}
        self.edge_rows: dict[Node, None] = {}
        self.folds: dict[Node, Cell] = {}
        self.numbers: dict[Node, str] = {}
        self.buffers = set(kernel.buffers)
        for node in (*kernel.buffers, *kernel.outputs):
            self.name(node)

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
        key = self.key(node, index, where)
        where = key[1]
        if key in nest.memo:
            return nest.memo[key]
        text, depth = self.compute(node, index, where, nest)
        if node.op in ELEMENTWISE and not top:
            name = self.fresh(self.program.names.get(node) or "v")
            if depth < len(nest.loops):
                text = condition(node, text)
            nest.before[depth].append(f"const {local_type(node)} {name} = {text};")
            text = name
        nest.memo[key] = (text, depth)
        return text, depth

    def key(self, node: Node, index: Index, where: str) -> tuple[Node, str, tuple[Any, ...]]:
        """What names a value in a nest."""
        places = tuple(sorted((d.name, index[d.name]) for d in node.dims))
        return node, GLOBAL if node.domain is Domain.GLOBAL else where, places

    def chain(self, node: Node, index: Index, where: str, nest: Nest) -> list[Node]:
        """The elementwise values below one that are not written yet, operands first, where there are many: written
        in this order, they do not make a recursion that is as deep as the program."""

        def unwritten(node: Node) -> tuple[Node, ...]:
            return tuple(i for i in node.inputs if i.op in ELEMENTWISE and not written(i))

        def written(node: Node) -> bool:
            return self.key(node, index, where) in nest.memo or self.in_memory(node, index, where) is not None

        found = list(walk_below([node], unwritten))[:-1]
        return found if len(found) > LONG_CHAIN else []

    def in_memory(self, node: Node, index: Index, where: str) -> tuple[str, int] | None:
        """The place of a value that is a cell or a buffer."""
        cell = self.row_cells.get(node) if where == ROW else self.edge_cells.get(node) if where == EDGE else None
        if cell is not None:
            return self.place(node, cell, index), self.linear(node.dims, index)[1]
        if node in self.buffers:
            return self.read_buffer(node, index, where)
        return None

    def place(self, node: Node, cell: Cell, index: Index) -> str:
        """A cell's element as a C expression."""
        if cell.first:
            return f"{cell.name}[{self.offset(f'(e - {cell.first})', node, index)}]"
        return cell.name if cell.scalar else f"{cell.name}[{self.linear(node.dims, index)[0]}]"

    def read_buffer(self, node: Node, index: Index, where: str) -> tuple[str, int]:
        offset, depth = self.linear(node.dims, index)
        name = self.name(node)
        if node in self.numbers:
            return self.numbers[node], depth
        if node.domain is Domain.GLOBAL:
            return f"{name}[{offset}]", depth
        row = {ROW: "i", COLUMN: "j", EDGE: "id"}[where]
        if where == EDGE:
            self.edge_rows.setdefault(node)
        if node.type.numel == 1:
            return condition(node, self.unpacked(node, f"{name}[{row}]")), depth
        key = (node, where)
        if key not in self.pointers:
            self.pointers[key] = self.fresh(f"{name}_{row}")
        return self.unpacked(node, f"{self.pointers[key]}[{offset}]"), depth

    def unpacked(self, node: Node, text: str) -> str:
        """A number as it is computed with: half as wide numbers are widened where they are read."""
        return f"T({text})" if node in self.packed else text

    def stored_type(self, node: Node) -> str:
        """The type of a buffer's numbers."""
        return "S" if node in self.packed else c_type(node)

    def declare_numbers(self) -> None:
        """Read the numbers that are the same for all rows: a loop that reads one in some of its iterations only does
        not become SIMD code."""
        for node in self.kernel.buffers:
            if node.domain is Domain.GLOBAL and not node.dims:
                name = self.numbers[node] = self.fresh(f"{self.name(node)}_0")
                self.out.add(f"const {local_type(node)} {name} = {condition(node, f'{self.name(node)}[0]')};")

    def insert_pointers(self, at: int, where: str, row: str) -> None:
        """Declare the row pointers that the region's text uses."""
        pad = "    " * self.out.depth
        for (node, at_where), name in self.pointers.items():
            if at_where == where:
                numel = node.type.numel
                line = (
                    f"{pad}const {self.stored_type(node)}* __restrict__ {name} = {self.name(node)} + {row} * {numel};"
                )
                self.out.lines.insert(at, line)

    def insert_prefetches(self, at: int, reverse: bool = False) -> None:
        """Ask early for the rows at the other end, and for the edges' own, that the walk will read or write."""
        ahead = ("e - {0} >= 0 ? e - {0} : e" if reverse else "e + {0} < stop ? e + {0} : e").format(PREFETCH_AHEAD)
        pad, later = "    " * self.out.depth, ahead
        columns = [node for node, where in self.pointers if where == COLUMN]
        lines = []
        for index, row, nodes in (("other", "ahead", columns), ("edge", "id_ahead", list(self.edge_rows))):
            if nodes:
                lines.append(f"{pad}const int64_t {row} = {index}[{later}];")
            for node in nodes:
                lines += [f"{pad}__builtin_prefetch({place});" for place in self.lines_of(node, row)]
        self.out.lines[at:at] = lines

    def lines_of(self, node: Node, row: str) -> list[str]:
        """The first cache lines of a row of a buffer."""
        numel = node.type.numel
        step = LINE_BYTES // BYTES.get(self.stored_type(node), 4)
        whole = f"{self.name(node)} + {row}" + (f" * {numel}" if numel > 1 else "")
        return [whole + (f" + {first}" if first else "") for first in range(0, min(numel, PREFETCH_LINES * step), step)]

    def compute(self, node: Node, index: Index, where: str, nest: Nest) -> tuple[str, int]:
        if node.op in ELEMENTWISE:
            return self.compute_elementwise(node, index, where, nest)
        return getattr(self, f"compute_{node.op}")(node, index, where, nest)

    def compute_elementwise(self, node: Node, index: Index, where: str, nest: Nest) -> tuple[str, int]:
        for below in self.chain(node, index, where, nest):
            self.value(below, index, where, nest)
        parts, depth = [], 0
        for operand in node.inputs:
            text, needs = self.value(operand, index, where, nest)
            parts.append(f"({text})" if text.startswith("-") else text)
            depth = max(depth, needs)
        if subtracts_products(node):
            parts = [f"gdsl::opaque({part})" for part in parts]
        form = ELEMENTWISE[node.op].cpp.format(*parts, bound=node.type.bound)
        return form.replace("gdsl_float(", "T("), depth

    def compute_const(self, node: Node, index: Index, where: str, nest: Nest) -> tuple[str, int]:
        return literal(node), 0

    def compute_iota(self, node: Node, index: Index, where: str, nest: Nest) -> tuple[str, int]:
        return index[node.dims[0].name]

    def compute_graph_value(self, node: Node, index: Index, where: str, nest: Nest) -> tuple[str, int]:
        return {"edge_id": "id", "node_id": "i" if where == ROW else "j"}[node.attrs.what], 0

    def compute_gather(self, node: Node, index: Index, where: str, nest: Nest) -> tuple[str, int]:
        at = ROW if node.attrs.end == self.kernel.end else COLUMN
        return self.value(node.inputs[0], index, at, nest)

    def compute_spread(self, node: Node, index: Index, where: str, nest: Nest) -> tuple[str, int]:
        return self.value(node.inputs[0], index, GLOBAL, nest)

    compute_stop_gradient = compute_spread

    def compute_transpose(self, node: Node, index: Index, where: str, nest: Nest) -> tuple[str, int]:
        return self.value(node.inputs[0], index, where, nest)

    def compute_slice(self, node: Node, index: Index, where: str, nest: Nest) -> tuple[str, int]:
        operand, dim, start = node.inputs[0], node.attrs.dim, node.attrs.start
        new = node.dims[operand.type.names.index(dim)].name
        text, depth = index[new]
        inner = {n: index[n] for n in operand.type.names if n != dim}
        inner[dim] = (f"({text} + {start:d})" if start else text, depth)
        return self.value(operand, inner, where, nest)

    def compute_reshape(self, node: Node, index: Index, where: str, nest: Nest) -> tuple[str, int]:
        """Places counted row-major under the new dims, taken apart under the old ones."""
        operand = node.inputs[0]
        old, new = list(operand.dims), list(node.dims)
        inner: dict[str, tuple[str, int]] = {}
        while old or new:
            group_old, group_new = next_group(old, new)
            inner.update(self.regroup(group_old, group_new, index))
        return self.value(operand, inner, where, nest)

    def regroup(self, old: Sequence[Dim], new: Sequence[Dim], index: Index) -> dict[str, tuple[str, int]]:
        if len(old) == 1 and len(new) == 1:
            return {old[0].name: index[new[0].name]}
        text, depth = self.linear(tuple(new), index)
        found, stride, total = {}, 1, math.prod(d.size for d in old)
        for d in reversed(old):
            part = f"({text}) / {stride}" if stride > 1 else f"({text})"
            stride *= d.size
            found[d.name] = ("0" if d.size == 1 else f"({part} % {d.size})" if stride < total else part, depth)
        return found

    def compute_cat(self, node: Node, index: Index, where: str, nest: Nest) -> tuple[str, int]:
        """The part is chosen by place; every part is read at a place that exists, so that reads need no branch."""
        place, depth = index[node.attrs.new]
        outside = depth < len(nest.loops)
        if outside and math.prod(d.size for d in nest.loops[:depth]) <= MOST_UNROLLED:
            nest.unrolled, outside = max(nest.unrolled, depth), False
        bounds, start = [], 0
        for operand, name in zip(node.inputs, node.attrs.dims, strict=True):
            bounds.append((operand, name, start, start + operand.type.dim(name).size))
            start = bounds[-1][3]
        text = ""
        for operand, name, low, high in reversed(bounds):
            inner = {n: index[n] for n in operand.type.names if n != name}
            shifted = f"({place} - {low})" if low else place
            inner[name] = (f"({place} >= {low} && {place} < {high} ? {shifted} : 0)", depth)
            value, needs = self.value(operand, inner, where, nest)
            depth = max(depth, needs)
            chosen = f"gdsl::holds({place} < {high})" if outside else f"{place} < {high}"
            text = f"({chosen} ? {value} : {text})" if text else value
        return text, depth

    def compute_index(self, node: Node, index: Index, where: str, nest: Nest) -> tuple[str, int]:
        table, idx = node.inputs
        at = self.value(idx, {n: index[n] for n in idx.type.names}, where, nest)
        inner = {n: index[n] for n in table.type.names if n != node.attrs.dim}
        inner[node.attrs.dim] = at
        return self.value(table, inner, where, nest)

    def compute_random(self, node: Node, index: Index, where: str, nest: Nest) -> tuple[str, int]:
        row = {ROW: "i", COLUMN: "j", EDGE: "id"}[where]
        _, depth = self.linear(node.dims, index)
        place = self.offset(row, node, index)
        seed = self.value(node.inputs[0], {}, GLOBAL, nest)[0]
        return f"T(gdsl_uniform((uint64_t){seed}, {node.attrs.salt:d}u, (uint64_t)({place})))", depth

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


def next_group(old: list[Dim], new: list[Dim]) -> tuple[list[Dim], list[Dim]]:
    """Take from both lists the shortest heads with the same number of places; all where there is no place."""
    if not all(d.size for d in old):
        heads = list(old), list(new)
        old[:], new[:] = [], []
        return heads
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


def c_type(node: Node) -> str:
    """The type of a buffer's numbers. Integers are int64, but for edge numbers that the compiler keeps: idx_t."""
    if node.kind is Kind.FLOAT:
        return "T"
    if node.kind is Kind.BOOL:
        return "bool"
    winner = node.op == "segment" or (node.op == "load" and node.attrs.role == "saved") or node.op == "graph_value"
    return "idx_t" if winner else "int64_t"


def condition(node: Node, text: str) -> str:
    """What is true or false for a whole loop, as the loop reads it."""
    return f"gdsl::holds({text})" if node.kind is Kind.BOOL else text


def local_type(node: Node) -> str:
    return {Kind.FLOAT: "T", Kind.INT: "int64_t", Kind.BOOL: "bool"}[node.kind]


def literal(node: Node) -> str:
    value = node.attrs.value
    if node.kind is Kind.BOOL:
        return "true" if value else "false"
    return f"{value:d}" if node.kind is Kind.INT else number_literal(value)


def number_literal(value: float) -> str:
    if value != value:
        return 'T(__builtin_nan(""))'
    if value in (float("inf"), float("-inf")):
        return "T(__builtin_inf())" if value > 0 else "T(-__builtin_inf())"
    return f"T({float(value)!r})"
