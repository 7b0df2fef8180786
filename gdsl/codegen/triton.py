"""The Triton backend: a fused kernel becomes a Triton function over blocks of rows and their edges.

A program takes ``BLOCK_ROWS`` rows, which have about as many edges, and walks ``BLOCK_EDGES`` edges of each at a time.
It reads the same kernel description as the C++ generator, and knows as little about layers. A row with very many edges,
a *hub*, is cut into chunks: functions with the suffixes ``_chunk0``, ``_chunk1``... do one walk over one chunk and
write down what it adds up, and ``_hubs`` adds that up in order and finishes the row.

Nothing is added atomically: sums over all rows are written once a program, so that the same input gives the same bits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gdsl.codegen.blocks import Cell
from gdsl.codegen.indices import Index, linear
from gdsl.codegen.notation import EDGES, KERNEL, ROWS, STARTS, Level, Value, lifted, print_sum
from gdsl.codegen.pairs import ALL_WALKED, PAIRS_WALKED, readable
from gdsl.codegen.pull import EDGE, GLOBAL, ROW
from gdsl.codegen.reductions import Reductions
from gdsl.codegen.schedule import GPU_CHUNK_EDGES
from gdsl.codegen.storage import partials
from gdsl.ir.node import Node
from gdsl.ir.ops.edges import finds_winners, is_extreme
from gdsl.ir.program import Program
from gdsl.passes.plan import Kernel, Phase

NUMBERS = {"float": "tl.float32", "double": "tl.float64", "bfloat16": "tl.float32", "float16": "tl.float32"}

_INDENT = "    "
LINE_WIDTH = 120


def _reduction(name: str, step: str, text: str, why: str = "") -> str:
    """A function that reduces a block along an axis, step by step."""
    return f"""\
@triton.jit
def {step}(a, b):
{why}    return {text}


@triton.jit
def {name}(x, axis: tl.constexpr, keep: tl.constexpr):
    return tl.reduce(x, axis, {step}, keep_dims=keep)
"""


_NAN, _WHY = "propagate_nan=tl.PropagateNan.ALL", "    # NaN wins, as in torch.\n"

# What kernels call, by name.
HELPERS = {
    "gdsl_max": _reduction("gdsl_max", "gdsl_larger", f"tl.maximum(a, b, {_NAN})", _WHY),
    "gdsl_min": _reduction("gdsl_min", "gdsl_smaller", f"tl.minimum(a, b, {_NAN})"),
    "gdsl_mul": _reduction("gdsl_mul", "gdsl_times", "a * b"),
    "gdsl_mod": """\
@triton.jit
def gdsl_mod(a, b):
    # The sign follows the divisor.
    rest = libdevice.fmod(a, b)
    return tl.where((rest != 0) & ((rest < 0) != (b < 0)), rest + b, rest)
""",
    "gdsl_uniform": """\
@triton.jit
def gdsl_uniform(seed, salt: tl.constexpr, n):
    # Philox4x32-10: the n-th number of the stream (seed, salt), in [0, 1), a multiple of 2^-24.
    low = (n & 0xFFFFFFFF).to(tl.uint32)
    high = ((n >> 32) & 0xFFFFFFFF).to(tl.uint32)
    stream = tl.full(low.shape, salt, tl.uint32)
    word, _, _, _ = tl.philox(seed, low, high, stream, tl.zeros(low.shape, tl.uint32))
    return (word >> 8).to(tl.int32).to(tl.float32) * 5.9604644775390625e-08
""",
}

_HEADER = "import triton\nimport triton.language as tl\n"
_LIBDEVICE = "from triton.language.extra import libdevice\n"


# Values beside matrix products, from which on a thread takes fewer numbers: found by compiling for three GPUs.
CROWDED = 22


@dataclass(frozen=True)
class TritonFunction:
    """A Triton function.

    part:      None for the rows of a kernel, the number of a walk over chunks of hubs, or "hubs" to finish them
    arguments: names before those of buffers, outputs and partial results
    widest:    the most numbers that an edge has in a block
    values:    blocks that are computed for each block of edges, or of rows where no edges are walked
    held_rows: numbers that a row holds in registers from edge to edge: its accumulators, its parts of sums over edges
    held:      numbers that a program holds from row to row: its sums over all rows
    walks:     it walks edges
    dots:      it has matrix products: a block needs 16 edges
    row_dots:  it has matrix products for each row: a row of a block needs 16 edges
    exact:     it subtracts products of numbers, each of which must be rounded
    ordered:   it takes a row's edges one after the other
    """

    name: str
    source: str
    part: int | str | None
    arguments: tuple[str, ...]
    widest: int
    values: int
    held_rows: int
    held: int
    walks: bool
    dots: bool
    row_dots: bool
    exact: bool
    ordered: bool = False

    @property
    def crowded(self) -> bool:
        """Whether matrix products and the values beside them take most registers."""
        return self.dots and self.values >= CROWDED

    @property
    def compiler(self) -> dict[str, int]:
        """Options of Triton. A product and a sum may be one instruction, as in the C++ kernels. Where there are matrix
        products, Triton loads the next edges beforehand: one block of them, and none where registers are scarce."""
        return {"enable_fp_fusion": not self.exact, "num_stages": 1 if self.crowded else 2}


def functions(
    kernel: Kernel, program: Program, packed: frozenset[Node], dtype: str, index_type: str, edge_axis: int = 0
) -> list[TritonFunction]:
    """The functions of a kernel: for its rows, and, where it walks edges, for its hubs. ``edge_axis`` is the axis of
    blocks that counts edges, 0 or 1; the other counts rows."""
    parts: list[int | str | None] = [None]
    if kernel.leaves_hubs:
        parts += [*range(len(kernel.phases)), "hubs"]
    read = readable(kernel, program, packed)
    make = TritonPairWriter if kernel.of_pairs else TritonCompleteWriter if kernel.complete else TritonWriter
    return [make(read.kernel, read.program, read.packed, dtype, index_type, edge_axis, part).write() for part in parts]


def unit(found: Sequence[TritonFunction]) -> str:
    """A module of functions, ready to be executed."""
    text = "\n\n".join(f.source for f in found)
    helpers = [source for name, source in HELPERS.items() if f"{name}(" in text]
    parts = [*helpers, text]
    head = _HEADER + (_LIBDEVICE if any("libdevice." in part for part in parts) else "")
    return "\n\n".join([head, *parts])


class TritonWriter(Reductions):
    """The function around the blocks: rows, walks over edges, what is added up and what is written."""

    def __init__(
        self,
        kernel: Kernel,
        program: Program,
        packed: frozenset[Node],
        dtype: str,
        index_type: str,
        edge_axis: int,
        part: int | str | None,
    ):
        super().__init__(kernel, program, packed, NUMBERS[dtype], index_type, edge_axis)
        self.part, self.values = part, 0
        self.written: dict[tuple[Node, bool], str] = {}
        if part is not None:
            for node, winner in partials(kernel):
                self.written[(node, winner)] = self.fresh(("best_" if winner else "part_") + self.name(node))

    # -- the function --------------------------------------------------------------------------

    def write(self) -> TritonFunction:
        kernel = self.kernel
        suffix = "" if self.part is None else "_hubs" if self.part == "hubs" else f"_chunk{self.part}"
        name = kernel.name + suffix
        if kernel.end:
            self.levels[KERNEL].add(f"lane = tl.arange(0, BLOCK_EDGES){self.along_lead(self.edge_axis)}")
        if self.part is None:
            self.rows()
        else:
            self.hub()
        arguments = self.arguments()
        self.values = self.values or self.levels[ROWS].blocks
        lines = [f"# {line}" for line in self.rules(kernel)] if self.part is None else [self._about()]
        lines.append(f'@triton.jit(do_not_specialize=["{"num_rows" if self.part is None else "num_chunks"}"])')
        lines.append(f"def {name}(")
        lines += [f"{_INDENT}{group}," for group in self.groups(arguments) if group]
        lines.append(f"{_INDENT}BLOCK_ROWS: tl.constexpr, BLOCK_EDGES: tl.constexpr,")
        lines.append(f"{_INDENT}INDEX: tl.constexpr, PRECISION: tl.constexpr, SUM_PRECISION: tl.constexpr,")
        lines.append("):")
        body = self.framed(self.levels[ROWS].lines)
        for line in [*self.levels[KERNEL].lines, *body]:
            lines += folded(_INDENT + line)
        source = "\n".join(lines) + "\n"
        walks = bool(kernel.end) and self.part != "hubs"
        phases = kernel.phases
        of_row = sum(self.numel(n.dims) for p in phases for n in p.accumulators)
        of_row += sum(self.numel(self.frame(n.dims)) for n, _ in self.row_totals)
        of_all = sum(self.numel(self.frame(n.dims)) for n, _ in self.totals.keys() - self.row_totals)
        dots = self.dots, self.edge_dots, self.exact
        sizes = self.widest, self.values, of_row, of_all
        return TritonFunction(name, source, self.part, arguments, *sizes, walks, *dots, kernel.ordered)

    def _about(self) -> str:
        if self.part == "hubs":
            return f"# {self.kernel.name}, the rows that are hubs: adds up what their chunks wrote down"
        return f"# {self.kernel.name}, walk {self.part} over the hubs, in chunks of {GPU_CHUNK_EDGES} edges"

    def arguments(self) -> tuple[str, ...]:
        if self.part is not None:
            return ("hubs", "first_chunk", "owner", "num_chunks", "rowptr", "other", "edge")
        return ("rows", "num_rows", "rowptr", "other", "edge") if self.kernel.end else ("num_rows",)

    def groups(self, arguments: tuple[str, ...]) -> list[str]:
        """The parameter list: the walk, what is read, what is written."""
        buffers = [self.name(b) for b in self.kernel.buffers]
        outputs = [self.name(o) for o in self.kernel.outputs]
        return [", ".join(g) for g in (arguments, buffers, outputs, list(self.written.values()))]

    def framed(self, body: list[str]) -> list[str]:
        """The work on rows; where sums over all rows are kept, a program takes many blocks of rows in turn."""
        if self.part is not None:
            return body + self.stored_totals()
        if not self.kernel.all_totals:
            return ["block = tl.program_id(0)", *body]
        loop = "for block in range(tl.program_id(0), tl.cdiv(num_rows, BLOCK_ROWS), tl.num_programs(0)):"
        return [loop, *(_INDENT + line for line in body), *self.stored_totals()]

    def rows(self) -> None:
        """The rows of a block."""
        out = self.levels[ROWS]
        out.add(f"row = block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS){self.along_lead(1 - self.edge_axis)}")
        out.add("live = row < num_rows")
        if self.kernel.end:
            out.add("i = tl.load(rows + row, mask=live, other=0).to(INDEX)")
            self.bounds()
            out.add("most = tl.max(end - begin)")
        else:
            out.add("i = row.to(INDEX)")
        self.declare_totals(self.kernel.phases, self.kernel.totals)
        for phase in self.kernel.phases:
            self.walk(phase)
            for node in phase.accumulators:
                for index in self.indices(node.dims):
                    self.finish(node, index)
        self.results()

    def bounds(self) -> None:
        """Where the edges of each row begin and end."""
        out = self.levels[ROWS]
        out.add("begin = tl.load(rowptr + i, mask=live, other=0)")
        out.add("end = tl.load(rowptr + i + 1, mask=live, other=0)")

    def hub(self) -> None:
        """Chunks of hubs in one walk, or the end of all."""
        out, phases, part = self.levels[ROWS], self.kernel.phases, self.part
        if isinstance(part, int):
            chunks = f"tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS){self.along_lead(1 - self.edge_axis)}"
            out.add(
                f"chunk = {chunks}", "live = chunk < num_chunks", "hub = tl.load(owner + chunk, mask=live, other=0)"
            )
        else:
            out.add("hub = tl.program_id(0) + tl.zeros([1, 1], tl.int32)", "live = hub >= 0")
        out.add("i = tl.load(hubs + hub).to(INDEX)")
        out.add("first = tl.load(first_chunk + hub)", "last = tl.load(first_chunk + hub + 1)")
        out.add("begin = tl.load(rowptr + i)", "end = tl.load(rowptr + i + 1)")
        for phase in phases[: part if isinstance(part, int) else None]:
            self.gathered(phase)
        if isinstance(part, int):
            out.add(f"begin = begin + (chunk - first) * {GPU_CHUNK_EDGES}")
            out.add(f"end = tl.where(live, tl.minimum(begin + {GPU_CHUNK_EDGES}, end), begin)")
            out.add("most = tl.max(end - begin)")
            self.declare_totals([phases[part]], ())
            self.walk(phases[part])
            for node in phases[part].accumulators:
                for index in self.indices(node.dims):
                    self.write_down(node, index)
        else:
            self.declare_totals((), self.kernel.totals)
            self.results()

    def declare_totals(self, phases: Iterable[Phase], by_row: Iterable[Node]) -> None:
        """Declare the sums over all edges of walks, and over all rows."""
        for node in (n for phase in phases for n in phase.totals):
            self.declare_total(node, EDGE)
        for node in by_row:
            self.declare_total(node, ROW)

    # -- walks ---------------------------------------------------------------------------------

    def walk(self, phase: Phase) -> None:
        """A loop over the edges of the rows."""
        accumulators = self.declare_accumulators(phase)
        self.levels[EDGES] = Level()
        self.in_walk = True
        for (node, _), (name, index) in self.tops_first(accumulators):
            if node in self.tops:
                self.grow(node, name, index)
            elif node not in self.winners:
                self.accumulate(node, name, index)
        for node in phase.totals:
            self.add_total(node, EDGE)
        for node in phase.stores:
            if node.op != "scan":
                self.store(node, EDGE)
        self.in_walk = False
        body = self.levels[EDGES].lines
        self.values = max(self.values, self.levels[EDGES].blocks)
        self.levels[EDGES] = Level()
        out = self.levels[ROWS]
        out.add("for at in range(0, most, BLOCK_EDGES):")
        out.add(*(_INDENT + line for line in [*self.step(phase), *body]))
        self.shrinks.clear()
        for cell, (name, _) in accumulators.items():
            self.held[cell] = Value(name, ROWS)

    def step(self, phase: Phase) -> list[str]:
        """The edges of a block: where they lie, which there are, their nodes at the other end and their numbers."""
        head = ["e = begin + at + lane", "on = e < end"]
        if phase.reverse:
            head = ["e = end - 1 - at - lane", "on = e >= begin"]
        head.append("j = tl.load(other + e, mask=on, other=0).to(INDEX)")
        head.append("id = tl.load(edge + e, mask=on, other=0).to(INDEX)")
        return head

    # -- hubs ----------------------------------------------------------------------------------

    def part_place(self, node: Node, winner: bool, row: str, index: Index) -> str:
        """Where chunks' parts of an accumulator lie."""
        rank = len(self.frame(node.dims))
        inner = linear(node.dims, index)
        more = f" + {print_sum(inner, rank)}" if inner.terms else ""
        return f"{self.written[(node, winner)]} + {lifted(row, rank)} * {node.type.numel}{more}"

    def write_down(self, node: Node, index: Index) -> None:
        """What chunks have added up."""
        cell, rule = self.cell(node, index), self.rule(self.frame(node.dims), ROW)
        for winner in (False, True):
            if (node, winner) in self.written:
                name = self.best[cell] if winner else self.held[cell].text
                self.levels[ROWS].add(f"tl.store({self.part_place(node, winner, 'chunk', index)}, {name}{rule})")

    def gathered(self, phase: Phase) -> None:
        """The accumulators of an earlier walk, from the parts of all chunks, in their order."""
        out = self.levels[ROWS]
        names = self.declare_accumulators(phase)
        body: list[str] = []
        shares: dict[Cell, Value] = {}
        for (node, places), (name, index) in self.tops_first(names):
            if node in self.winners:
                continue
            reducer, frame = node.attrs.reducer, self.frame(node.dims)
            inside = self.mask(frame, frozenset(range(len(frame))), GLOBAL)
            mask = lifted("some", len(frame)) + (f" & {inside.text}" if inside else "")

            def load(winner: bool, other: str, mask: str = mask, node: Node = node, index: Index = index) -> str:
                return f"tl.load({self.part_place(node, winner, 'part', index)}, mask={mask}, other={other})"

            if finds_winners(node):
                first, held = reducer.startswith("arg"), self.best[node, places]
                body.append(f"number = {load(False, '-1' if first else '0')}")
                if first:
                    body.append(f"number = tl.where(number < 0, {self.most}, number)")
                body.append(f"value = {load(True, STARTS[reducer[-3:]])}")
                taken = self.winner if first else self.tallied
                body += taken(name, held, "value", "number", reducer[-3:])
            elif node in self.tops:
                before, share = self.fresh("before"), self.fresh("share")
                body += [f"{before} = {name}", *self.combined(name, load(False, STARTS[reducer]), reducer)]
                shrink = self.shrunk(before, name)
                body += [f"{self.shrink((node, places))} = {shrink}", f"{share} = {self.shrunk('more', name)}"]
                shares[node, places] = Value(share, ROWS)
            elif node in self.running:
                share = self.of_top(shares, node, index)
                body.append(self.added(node, name, index, f"{load(False, '0.0')} * {share}"))
            else:
                body += self.combined(name, load(False, STARTS[reducer]), reducer)
        self.shrinks.clear()
        if body:
            out.add(
                "for at in range(0, tl.max(last - first)):",
                f"{_INDENT}part = first + at",
                f"{_INDENT}some = part < last",
            )
            out.add(*(_INDENT + line for line in body))
        for cell, (name, index) in names.items():
            self.held[cell] = Value(name, ROWS)
            self.finish(cell[0], index)

    # -- results -------------------------------------------------------------------------------

    def results(self) -> None:
        """What a row writes once its walks are done."""
        for node in self.kernel.stores:
            self.store(node, ROW)
        for node in self.kernel.totals:
            self.add_total(node, ROW)


class TritonPairWriter(TritonWriter):
    """A kernel whose rows are edges, which walks the pairs of each: the edges at one of its nodes, of which those that
    go back are left out."""

    walked = PAIRS_WALKED

    def arguments(self) -> tuple[str, ...]:
        return ("rows", "num_rows", "gdsl_node", "gdsl_far", "rowptr", "gdsl_near", "edge")

    def bounds(self) -> None:
        out = self.levels[ROWS]
        out.add("gdsl_shared = tl.load(gdsl_node + i, mask=live, other=0)")
        out.add("gdsl_back = tl.load(gdsl_far + i, mask=live, other=0)")
        out.add("begin = tl.load(rowptr + gdsl_shared, mask=live, other=0)")
        out.add("end = tl.load(rowptr + gdsl_shared + 1, mask=live, other=0)")

        if self.asks_for_some:
            out.add("gdsl_some = tl.zeros_like(begin)")

    @property
    def asks_for_some(self) -> bool:
        """Whether it matters which rows have no pair."""
        return any(is_extreme(n) for phase in self.kernel.phases for n in phase.accumulators)

    def step(self, phase: Phase) -> list[str]:
        head = [
            "e = begin + at + lane",
            "on = e < end",
            "on = on & (tl.load(gdsl_near + e, mask=on, other=0) != gdsl_back)",
            "id = tl.load(edge + e, mask=on, other=0).to(INDEX)",
            "j = id",
        ]
        count = f"gdsl_some += tl.sum(on.to(begin.dtype), axis={self.edge_axis}, keep_dims=True)"
        return [*head, count] if self.asks_for_some else head

    def some(self) -> str:
        return "(gdsl_some > 0)"


class TritonCompleteWriter(TritonWriter):
    """A kernel on a complete graph, which walks the places of the nodes of each node's graph: see
    ``NodeRanges`` in gdsl.runtime.complete."""

    walked = ALL_WALKED

    def arguments(self) -> tuple[str, ...]:
        return ("rows", "num_rows", "rowptr", "gdsl_begin", "gdsl_node", "gdsl_own", "gdsl_skip")

    def bounds(self) -> None:
        out = self.levels[ROWS]
        out.add("gdsl_first = tl.load(rowptr + i, mask=live, other=0)")
        out.add("begin = tl.load(gdsl_begin + i, mask=live, other=0)")
        out.add("end = begin + tl.load(rowptr + i + 1, mask=live, other=0) - gdsl_first")
        out.add("gdsl_left_out = tl.load(gdsl_skip + i, mask=live, other=0)")
        if self.kernel.end == "j":
            out.add("gdsl_place = tl.load(gdsl_own + i, mask=live, other=0)")

    def step(self, phase: Phase) -> list[str]:
        head = [
            "e = begin + at + lane",
            "on = e < end",
            "gdsl_there = e + (e >= gdsl_left_out).to(begin.dtype)",
            "j = tl.load(gdsl_node + gdsl_there, mask=on, other=0).to(INDEX)",
        ]
        # In 64 bits, since a number of each place of an edge is counted from it.
        if self.kernel.end == "i":
            return [*head, "id = (gdsl_first + (e - begin)).to(tl.int64)"]
        left = "((gdsl_left_out == gdsl_place) & (gdsl_there < gdsl_place)).to(begin.dtype)"
        first = "tl.load(rowptr + j, mask=on, other=0)"
        return [*head, f"id = ({first} + (gdsl_place - begin) - {left}).to(tl.int64)"]


def folded(line: str) -> list[str]:
    """A line that is too long as several, broken after commas: all long lines are calls."""
    indent = " " * (len(line) - len(line.lstrip())) + _INDENT
    found = []
    while len(line) > LINE_WIDTH and (cut := line.rfind(", ", len(indent), LINE_WIDTH)) > 0:
        found.append(line[: cut + 1])
        line = indent + line[cut + 2 :]
    return [*found, line]
