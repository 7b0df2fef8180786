"""Values as C expressions: from a node and an index down to something that lies in memory.

This is the *pull* half of the generator. It knows ops, index arithmetic and where buffers are read; it does not know
which loops run around it, only how many of them an expression needs.
"""

from __future__ import annotations

import math
import re

from gdsl.codegen.indices import Axis, Digit, Index, Known, Literal, Place, Row, Shift, Sum, Within, linear
from gdsl.codegen.nest import MOST_UNROLLED, Cell, Lines, Nest
from gdsl.codegen.pull import COLUMN, EDGE, GLOBAL, NUMBER_OF, ROW, Pull
from gdsl.ir.node import Node
from gdsl.ir.ops import ELEMENTWISE, subtracts_products
from gdsl.ir.ops.tables import numbers_of
from gdsl.ir.program import Program
from gdsl.ir.types import Domain, Kind
from gdsl.passes.plan import Kernel

# A C expression, and the number of loops that it needs around it.
Written = tuple[str, int]

_RESERVED = frozenset(
    """alignas alignof and asm auto bool break case catch char class const constexpr continue default delete do double
    else enum explicit export extern false float for friend goto if inline int long mutable namespace new not nullptr
    operator or private protected public register return short signed sizeof static struct switch template this throw
    true try typedef typeid typename union unsigned using virtual void volatile while xor gdsl T idx_t i j e id n at
    upto block blocks group groups threads num_blocks num_rows rowptr other edge begin end first last stop ahead
    id_ahead row_ahead max_degree mine scratch main seed exp log abs sin cos tanh pow floor sqrt""".split()
)

# Names that C headers may define as macros or types.
_FOREIGN = re.compile(r"_|[A-Z][A-Z0-9_]+$|.*_t$|gdsl")

# Rows at the other end lie anywhere, and so do the edges' own, which keep the user's order: they are asked for this
# many edges before they are needed, so that memory answers many at a time. Lines past the first few of a wide row are
# left to the hardware, which sees a stream by then.
PREFETCH_AHEAD = 8
PREFETCH_LINES = 8
LINE_BYTES = 64
# So many buffers, at most, the hardware follows while a walk goes through their rows in order; of more, the row so many
# rows ahead is asked for.
MOST_STREAMS = 16
ROWS_AHEAD = 2
# Of a number that is not as wide as a float.
BYTES = {"S": 2, "int64_t": 8, "bool": 1}


class Values(Pull[Written, Nest]):
    """Names and scalar expressions of one kernel.

    ``row_cells`` and ``edge_cells`` are the values that lie in local memory now; ``pointers`` the rows of buffers
    that the text being written reads, by buffer and place; ``edge_rows`` the buffers of which it reads or writes the
    edge's own row, and ``by_id`` says whether it has the edge's number.
    """

    def __init__(self, kernel: Kernel, program: Program, packed: frozenset[Node] = frozenset()):
        super().__init__(kernel, program, packed, _RESERVED, _FOREIGN)
        # A look at a buffer declares its pointer, and pointers are declared in the order of the looks.
        self.may_chain |= any(b.op in ELEMENTWISE for b in kernel.buffers)
        self.out = Lines()
        self.kept: dict[Node, str] = {}
        self.in_block: set[Node] = set()
        self.row_cells: dict[Node, Cell] = {}
        self.edge_cells: dict[Node, Cell] = {}
        self.pointers: dict[tuple[Node, str], str] = {}
        self.edge_rows: dict[Node, None] = {}
        self.by_id = False
        self.folds: dict[Node, Cell] = {}
        # Of the walk that is being written: an array of random numbers drawn ahead, and where the walk begins and ends.
        self.drawn: dict[Node, tuple[str, str, str]] = {}
        self.numbers: dict[Node, str] = {}

    # -- values --------------------------------------------------------------------------------

    def atom(self, node: Node, index: Index, where: str, nest: Nest) -> str:
        text, _ = self.value(node, index, where, nest)
        return text if re.fullmatch(r"[\w.\[\]]+|[\w.]+\[[^\[\]]*\]", text) else f"({text})"

    def value(self, node: Node, index: Index, where: str, nest: Nest, top: bool = False) -> Written:
        """A C expression for the node at an index, and the number of loops it needs around it."""
        index = {d.name: index[d.name] for d in node.dims}
        if where == EDGE and node.domain in (Domain.NODE, Domain.SOURCE, Domain.TARGET):
            raise AssertionError(f"{node.op} read on an edge without an end")
        found = self.in_memory(node, index, where, nest)
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

    def is_written(self, node: Node, index: Index, where: str, nest: Nest) -> bool:
        return self.key(node, index, where) in nest.memo or self.in_memory(node, index, where, nest) is not None

    def in_memory(self, node: Node, index: Index, where: str, nest: Nest) -> Written | None:
        """The place of a value that is a cell or a buffer."""
        cell = self.row_cells.get(node) if where == ROW else self.edge_cells.get(node) if where == EDGE else None
        if cell is not None:
            at = linear(node.dims, index)
            nest.reads.setdefault(cell.name, set()).add((at, at.depth))
            return self.place(node, cell, index), at.depth
        return self.read_buffer(node, linear(node.dims, index), where) if node in self.buffers else None

    def place(self, node: Node, cell: Cell, index: Index) -> str:
        """A cell's element as a C expression."""
        row = Row(f"(e - {cell.first})") if cell.first else None
        return cell.name if cell.scalar else element(cell.name, linear(node.dims, index, row))

    def number_of(self, where: str) -> Row:
        """The number of the row that is being walked, of the other end, or of the edge."""
        self.by_id |= where == EDGE
        return NUMBER_OF[where]

    def read_buffer(self, node: Node, at: Sum, where: str) -> Written:
        name = self.name(node)
        if node in self.numbers:
            return self.numbers[node], at.depth
        if node.domain is Domain.GLOBAL:
            return element(name, at), at.depth
        row = self.number_of(where)
        if where == EDGE:
            self.edge_rows.setdefault(node)
        if node.type.numel == 1:
            return condition(node, self.unpacked(node, f"{name}[{row.name}]")), at.depth
        key = (node, where)
        if key not in self.pointers:
            self.pointers[key] = self.fresh(f"{name}_{row.name}")
        return self.unpacked(node, element(self.pointers[key], at)), at.depth

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
        for (node, at_where), name in self.pointers.items():
            if at_where == where:
                place = f"{self.name(node)} + {row} * {node.type.numel}"
                self.out.insert(at, f"const {self.stored_type(node)}* __restrict__ {name} = {place};")

    def insert_prefetches(self, at: int, reverse: bool = False) -> None:
        """Ask early for the rows at the other end, and for the edges' own, that the walk will read or write."""
        later = ("e - {0} >= 0 ? e - {0} : e" if reverse else "e + {0} < stop ? e + {0} : e").format(PREFETCH_AHEAD)
        columns = [node for node, where in self.pointers if where == COLUMN]
        lines = []
        for index, row, nodes in (("other", "ahead", columns), ("edge", "id_ahead", list(self.edge_rows))):
            if nodes:
                lines.append(f"const int64_t {row} = {index}[{later}];")
            lines += [f"__builtin_prefetch({place});" for node in nodes for place in self.lines_of(node, row)]
        self.out.insert(at, *lines)

    def insert_row_prefetches(self, at: int) -> None:
        """Ask early for the next row of what is read and written row after row, where that is more than the hardware
        follows by itself."""
        read = [(node, "") for node, where in self.pointers if where == ROW]
        rows = [*read, *((node, ", 1") for node in self.kernel.stores)]
        if len(rows) > MOST_STREAMS and not self.kernel.of_pairs:
            lines = [f"const int64_t row_ahead = i + {ROWS_AHEAD} < last ? i + {ROWS_AHEAD} : i;"]
            lines += [f"__builtin_prefetch({p}{how});" for n, how in rows for p in self.lines_of(n, "row_ahead")]
            self.out.insert(at, *lines)

    def lines_of(self, node: Node, row: str) -> list[str]:
        """The first cache lines of a row of a buffer."""
        numel = node.type.numel
        step = LINE_BYTES // BYTES.get(self.stored_type(node), 4)
        whole = f"{self.name(node)} + {row}" + (f" * {numel}" if numel > 1 else "")
        return [whole + (f" + {first}" if first else "") for first in range(0, min(numel, PREFETCH_LINES * step), step)]

    # -- ops -----------------------------------------------------------------------------------

    def compute_elementwise(self, node: Node, index: Index, where: str, nest: Nest) -> Written:
        parts, depth = [], 0
        for operand in node.inputs:
            text, needs = self.value(operand, index, where, nest)
            parts.append(f"({text})" if text.startswith("-") else text)
            depth = max(depth, needs)
        if subtracts_products(node):
            parts = [f"gdsl::opaque({part})" for part in parts]
        form = ELEMENTWISE[node.op].cpp.format(*parts, bound=node.type.bound)
        return form.replace("gdsl_float(", "T("), depth

    def number_at(self, place: Place, nest: Nest) -> Written:
        return print_place(place), place.depth

    def place_of(self, value: Written, axes: frozenset[int], nest: Nest) -> Known:
        text, depth = value
        return Known(text, frozenset(range(depth)))

    def compute_const(self, node: Node, index: Index, where: str, nest: Nest) -> Written:
        return literal(node), 0

    def compute_graph_value(self, node: Node, index: Index, where: str, nest: Nest) -> Written:
        at = EDGE if node.attrs.what == "edge_id" else ROW if where == ROW else COLUMN
        return self.number_of(at).name, 0

    def compute_cat(self, node: Node, index: Index, where: str, nest: Nest) -> Written:
        """The part is chosen by place; every part is read at a place that exists, so that reads need no branch."""
        place, depth = self.number_at(index[node.attrs.new], nest)
        outside = depth < len(nest.loops)
        if outside and math.prod(d.size for d in nest.loops[:depth]) <= MOST_UNROLLED:
            nest.unrolled, outside = max(nest.unrolled, depth), False
        text = ""
        for operand, inner, stop in reversed(list(self.parts(node, index))):
            value, needs = self.value(operand, inner, where, nest)
            depth = max(depth, needs)
            chosen = f"gdsl::holds({place} < {stop})" if outside else f"{place} < {stop}"
            text = f"({chosen} ? {value} : {text})" if text else value
        return text, depth

    def compute_table(self, node: Node, index: Index, where: str, nest: Nest) -> Written:
        """A number that is known, or the array of all of them."""
        place = linear(node.dims, index)
        at = number_of_place(place)
        if at is not None:
            return number_literal(numbers_of(node)[at]), 0
        key = (node, "numbers")
        if key not in nest.memo:
            name = self.fresh(self.program.names.get(node) or "table")
            numbers = ", ".join(map(number_literal, numbers_of(node)))
            nest.before[0].append(f"static const T {name}[] = {{{numbers}}};")
            nest.memo[key] = name, 0
        return element(nest.memo[key][0], place), place.depth

    def compute_random(self, node: Node, index: Index, where: str, nest: Nest) -> Written:
        place = linear(node.dims, index)
        return f"T(gdsl_uniform({self.draw(node, place, where, nest)}))", place.depth

    def stream(self, node: Node, nest: Nest) -> str:
        """What tells the random numbers of a node from those of all others."""
        return f"(uint64_t){self.value(node.inputs[0], {}, GLOBAL, nest)[0]}, {node.attrs.salt:d}u"

    def draw(self, node: Node, place: Sum, where: str, nest: Nest) -> str:
        """A stream, and the number in it of one of a row's numbers."""
        row = Row(self.atom(node.inputs[1], {}, where, nest)) if len(node.inputs) == 2 else self.number_of(where)
        number = print_sum(Sum(((row, node.type.numel), *place.terms), ()))
        return f"{self.stream(node, nest)}, (uint64_t)({number})"


def print_place(place: Place) -> str:
    """A place in C."""
    match place:
        case Axis(name) | Row(name):
            return name
        case Literal(number):
            return str(number)
        case Known(value):
            return str(value)
        case Sum():
            return f"({print_sum(place)})"
        case Shift(at, start):
            return f"({print_place(at)} + {start})"
        case Digit(at, stride, size, outermost):
            part = print_place(at) + (f" / {stride}" if stride > 1 else "")
            return "0" if size == 1 else part if outermost else f"({part} % {size})"
        case Within(at, start, stop):
            text = print_place(at)
            return f"({text} >= {start} && {text} < {stop} ? {f'({text} - {start})' if start else text} : 0)"
    raise AssertionError(place)


def number_of_place(place: Sum) -> int | None:
    """A place that is known when the kernel is written."""
    known = [(at.number, stride) for at, stride in place.terms if isinstance(at, Literal)]
    return sum(at * stride for at, stride in known) if len(known) == len(place.terms) else None


def print_sum(place: Sum) -> str:
    """The same for a sum that nothing stands beside."""
    terms = [print_place(at) + (f" * {stride}" if stride != 1 else "") for at, stride in place.terms]
    return " + ".join(terms) or "0"


def element(name: str, place: Sum) -> str:
    """A number that lies in memory."""
    return f"{name}[{print_sum(place)}]"


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


def cell_type(node: Node) -> str:
    """The type of an array of local numbers. gcc makes no SIMD code of a loop that has floats and an array of bool."""
    return "int" if node.kind is Kind.BOOL else local_type(node)


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
