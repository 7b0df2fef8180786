"""The Triton backend: a fused kernel becomes a Triton function over blocks of rows and their edges.

A program takes ``BLOCK_ROWS`` rows, which have about as many edges, and walks ``BLOCK_EDGES`` edges of each at a time.
It reads the same kernel description as the C++ generator, and knows as little about layers. A row with very many edges,
a *hub*, is cut into chunks: functions with the suffixes ``_chunk0``, ``_chunk1``... do one walk over one chunk and
write down what it adds up, and ``_hubs`` adds that up in order and finishes the row.

Nothing is added atomically: sums over all rows are written once a program, so that the same input gives the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gdsl.codegen.blocks import Blocks, Cell, Frame
from gdsl.codegen.indices import Index, linear
from gdsl.codegen.notation import (
    EDGES,
    EMPTY,
    KERNEL,
    LEAD,
    ROWS,
    Level,
    Value,
    along,
    lifted,
    number_literal,
    print_place,
    print_sum,
)
from gdsl.codegen.pull import EDGE, GLOBAL, ROW
from gdsl.codegen.storage import partials
from gdsl.ir import build
from gdsl.ir.node import Node
from gdsl.ir.ops.edges import finds_winners, is_extreme
from gdsl.ir.printer import describe
from gdsl.ir.program import Program
from gdsl.passes.plan import Kernel, Phase
from gdsl.runtime.schedule import GPU_CHUNK_EDGES

NUMBERS = {"float": "tl.float32", "double": "tl.float64", "bfloat16": "tl.float32", "float16": "tl.float32"}
INDICES = {"int32_t": ("tl.int32", 2**31 - 1), "int64_t": ("tl.int64", 2**63 - 1)}

_INDENT = "    "
LINE_WIDTH = 120

# What kernels call, by name.
HELPERS = {
    "gdsl_max": """\
@triton.jit
def gdsl_larger(a, b):
    # NaN wins, as in torch.
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def gdsl_max(x, axis: tl.constexpr, keep: tl.constexpr):
    return tl.reduce(x, axis, gdsl_larger, keep_dims=keep)
""",
    "gdsl_min": """\
@triton.jit
def gdsl_smaller(a, b):
    return tl.minimum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def gdsl_min(x, axis: tl.constexpr, keep: tl.constexpr):
    return tl.reduce(x, axis, gdsl_smaller, keep_dims=keep)
""",
    "gdsl_mul": """\
@triton.jit
def gdsl_times(a, b):
    return a * b


@triton.jit
def gdsl_mul(x, axis: tl.constexpr, keep: tl.constexpr):
    return tl.reduce(x, axis, gdsl_times, keep_dims=keep)
""",
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
class Function:
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
) -> list[Function]:
    """The functions of a kernel: for its rows, and, where it walks edges, for its hubs. ``edge_axis`` is the axis of
    blocks that counts edges, 0 or 1; the other counts rows."""
    parts: list[int | str | None] = [None]
    if kernel.phases and not kernel.ordered:
        parts += [*range(len(kernel.phases)), "hubs"]
    return [KernelWriter(kernel, program, packed, dtype, index_type, edge_axis, part).write() for part in parts]


def unit(found: Sequence[Function]) -> str:
    """A module of functions, ready to be executed."""
    text = "\n\n".join(f.source for f in found)
    helpers = [source for name, source in HELPERS.items() if f"{name}(" in text]
    parts = [*helpers, text]
    head = _HEADER + (_LIBDEVICE if any("libdevice." in part for part in parts) else "")
    return "\n\n".join([head, *parts])


def winners(kernel: Kernel) -> dict[Node, Node]:
    """For each maximum or minimum, the accumulator of the edges that win it, or of how many do, where the same walk has
    both."""
    found = {}
    for phase in kernel.phases:
        segments = [n for n in phase.accumulators if n.op == "segment"]
        by_rule = {(n.attrs.reducer, n.inputs): n for n in segments}
        for node in segments:
            about = (by_rule.get((f"{what}{node.attrs.reducer}", node.inputs)) for what in ("arg", "count"))
            winner = next((n for n in about if n is not None), None)
            if winner is not None:
                found[node] = winner
    return found


class KernelWriter(Blocks):
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
        super().__init__(kernel, program, packed, NUMBERS[dtype], edge_axis)
        self.part = part
        self.index_type, self.most = INDICES[index_type]
        self.values = 0
        self.totals: dict[Cell, Value] = {}
        # Those that have a part for each row of the block, for no row to wait for another.
        self.row_totals: set[Cell] = set()
        self.best: dict[Cell, str] = {}
        # A maximum and the edges that win it are found together.
        self.winners = winners(kernel)
        self.written: dict[tuple[Node, bool], str] = {}
        if part is not None:
            for node, winner in partials(kernel):
                self.written[(node, winner)] = self.fresh(("best_" if winner else "part_") + self.name(node))

    # -- the function --------------------------------------------------------------------------

    def write(self) -> Function:
        kernel = self.kernel
        suffix = "" if self.part is None else "_hubs" if self.part == "hubs" else f"_chunk{self.part}"
        name = kernel.name + suffix
        if self.part is None:
            self.rows()
        else:
            self.hub()
        arguments = self.arguments()
        self.values = self.values or self.levels[ROWS].blocks
        lines = [f"# {line}" for line in self.rules(kernel)] if self.part is None else [self._about()]
        lines.append('@triton.jit(do_not_specialize=["num_rows"])' if self.part is None else "@triton.jit")
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
        return Function(
            name,
            source,
            self.part,
            arguments,
            self.widest,
            self.values,
            of_row,
            of_all,
            walks,
            self.dots,
            self.edge_dots,
            self.exact,
            kernel.ordered,
        )

    def _about(self) -> str:
        if self.part == "hubs":
            return f"# {self.kernel.name}, the rows that are hubs: adds up what their chunks wrote down"
        return f"# {self.kernel.name}, walk {self.part} over the hubs, one chunk of {GPU_CHUNK_EDGES} edges a program"

    def arguments(self) -> tuple[str, ...]:
        if self.part is not None:
            return ("hubs", "first_chunk", "owner", "rowptr", "other", "edge")
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
        if self.kernel.end:
            self.levels[KERNEL].add(f"lane = tl.arange(0, BLOCK_EDGES){self.along_lead(self.edge_axis)}")
        out.add(f"row = block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS){self.along_lead(1 - self.edge_axis)}")
        out.add("live = row < num_rows")
        if self.kernel.end:
            out.add("i = tl.load(rows + row, mask=live, other=0).to(INDEX)")
            out.add("begin = tl.load(rowptr + i, mask=live, other=0)")
            out.add("end = tl.load(rowptr + i + 1, mask=live, other=0)")
            out.add("most = tl.max(end - begin)")
        else:
            out.add("i = row.to(INDEX)")
        for phase in self.kernel.phases:
            for node in phase.totals:
                self.declare_total(node, EDGE)
        for node in self.kernel.totals:
            self.declare_total(node, ROW)
        for phase in self.kernel.phases:
            self.phase(phase)
        self.results()

    def hub(self) -> None:
        """One chunk of a hub in one walk, or the end of all."""
        out, chunk = self.levels[ROWS], self.part != "hubs"
        self.levels[KERNEL].add(f"lane = tl.arange(0, BLOCK_EDGES){self.along_lead(self.edge_axis)}")
        if chunk:
            out.add("chunk = tl.program_id(0)")
            out.add("hub = tl.load(owner + chunk)")
        else:
            out.add("hub = tl.program_id(0)")
        out.add("i = tl.load(hubs + hub + tl.zeros([1, 1], tl.int32)).to(INDEX)")
        out.add("live = i >= 0")
        out.add("first = tl.load(first_chunk + hub)")
        out.add("last = tl.load(first_chunk + hub + 1)")
        out.add("begin = tl.load(rowptr + i)")
        out.add("end = tl.load(rowptr + i + 1)")
        phases = self.kernel.phases
        done = phases[: self.part] if isinstance(self.part, int) else phases
        for phase in done:
            self.gathered(phase)
        if isinstance(self.part, int):
            out.add(f"begin = begin + (chunk - first) * {GPU_CHUNK_EDGES}")
            out.add(f"end = tl.minimum(begin + {GPU_CHUNK_EDGES}, end)")
            out.add(f"most = {GPU_CHUNK_EDGES}")
            phase = phases[self.part]
            for node in phase.totals:
                self.declare_total(node, EDGE)
            self.walk(phase)
            for node in phase.accumulators:
                for index in self.indices(node.dims):
                    self.write_down(node, index)
        else:
            for node in self.kernel.totals:
                self.declare_total(node, ROW)
            self.results()

    # -- walks ---------------------------------------------------------------------------------

    def phase(self, phase: Phase) -> None:
        self.walk(phase)
        for node in phase.accumulators:
            for index in self.indices(node.dims):
                self.finish(node, index)

    def walk(self, phase: Phase) -> None:
        """A loop over the edges of the rows."""
        accumulators = self.declare_accumulators(phase)
        self.levels[EDGES] = Level()
        self.in_walk = True
        for (node, _), (name, index) in accumulators.items():
            if node not in self.winners:
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
        head = ["e = begin + at + lane", "on = e < end"]
        if phase.reverse:
            head = ["e = end - 1 - at - lane", "on = e >= begin"]
        head.append("j = tl.load(other + e, mask=on, other=0).to(INDEX)")
        head.append("id = tl.load(edge + e, mask=on, other=0).to(INDEX)")
        out.add(*(_INDENT + line for line in [*head, *body]))
        for cell, (name, _) in accumulators.items():
            self.held[cell] = Value(name, ROWS)

    def declare_accumulators(self, phase: Phase) -> dict[Cell, tuple[str, Index]]:
        """A name for each block of each accumulator, and the index of the block."""
        written = [n for n in phase.scans if n not in phase.accumulators]
        cells = [(n, index) for n in (*phase.accumulators, *written) for index in self.indices(n.dims)]
        names: dict[Cell, tuple[str, Index]] = {}
        for node, index in cells:
            names[self.cell(node, index)] = (self.declare_accumulator(node), index)
        for (node, places), (name, _) in names.items():
            if node in self.winners:
                self.best[self.winners[node], places] = name
        for node, places in names:
            if finds_winners(node) and (node, places) not in self.best:
                best = self.best[node, places] = self.fresh("best_" + describe(node, self.program.names))
                shape = f"[{self.lead('1')}{self.shape(self.frame(node.dims))}]"
                start = EMPTY[node.attrs.reducer[-3:]]
                self.levels[ROWS].add(f"{best} = tl.full({shape}, {start}, {self.number})")
        return names

    def declare_accumulator(self, node: Node) -> str:
        name = self.fresh("acc_" + describe(node, self.program.names))
        shape = f"[{self.lead('1')}{self.shape(self.frame(node.dims))}]"
        out = self.levels[ROWS]
        if node.op == "scan":
            out.add(f"{name} = tl.full({shape}, {number_literal(node.attrs.init)}, {self.number})")
        elif finds_winners(node):
            none = -1 if node.attrs.reducer.startswith("arg") else 0
            out.add(f"{name} = tl.full({shape}, {none}, {self.index_type})")
        else:
            start = {"sum": "0.0", "mul": "1.0", **EMPTY}[node.attrs.reducer]
            out.add(f"{name} = tl.full({shape}, {start}, {self.number})")
        return name

    def accumulate(self, node: Node, name: str, at: Index) -> None:
        """Take a block of edges into a block of an accumulator."""
        if node.op == "scan":
            self.fold(node, name, at)
            return
        product = self.product_at.get(node)
        if product is not None:
            self.dots = self.edge_dots = True
            left, right = self.flat(product.left, EDGE, by_row=True), self.flat(product.right, EDGE, by_row=True)
            rows, edges = 1 - self.edge_axis, self.edge_axis
            left, right = f"tl.permute({left}, {rows}, 2, {edges})", f"tl.permute({right}, {rows}, {edges}, 2)"
            text = f"tl.dot({left}, {right}, input_precision=SUM_PRECISION)"
            self.add(f"{name} += tl.reshape({text}, [{self.lead('1')}{self.shape(node.dims)}])")
            return
        e, by = node.inputs[0], node.inputs[1:]
        own, dims = self.frame(node.dims), by[0].dims if by else ()
        frame = (*own, *self.frame(dims))
        reducer = node.attrs.reducer
        none = {"sum": "0.0", "mul": "1.0"}.get(reducer) or EMPTY[reducer[-3:]]
        for index in ({**at, **more} for more in self.indices(dims, len(own))):
            extra: Value | None = None
            if by:
                kind = self.value(by[0], index, EDGE, frame)
                here = print_place(index[node.dims[0].name], len(frame))
                extra = Value(f"({kind.text} == {here})", kind.level, kind.lead)
            value = self.value(e, index, EDGE, frame)
            value = self.only(value, frame, extra, none, frozenset(range(len(own), len(frame))))
            self.reduce_edges(node, name, value, frame, at, extra)

    def fold(self, node: Node, name: str, at: Index) -> None:
        """One step of a scan, of the one edge that a block has of each row; where edges read it, what it has come to
        before the edge is written first."""
        acc, step = build.scan_step(node, name)
        self.carried[acc] = Value(name, EDGES)
        frame = self.frame(node.dims)
        value = self.value(step, at, EDGE, frame)
        if not node.attrs.last:
            mask = self.mask(frame, frozenset(range(len(frame))), EDGE)
            assert mask is not None
            pointer, _ = self.pointer(node, at, EDGE, frame)
            self.add(f"tl.store({pointer}, {name}, mask={mask.text})")
        self.add(f"{name} = tl.where({lifted('on', len(frame))}, {value.text}, {name})")

    def only(self, value: Value, frame: Frame, extra: Value | None, none: str, axes: frozenset[int]) -> Value:
        """The value on edges that exist, and where more is asked holds; else what changes no result."""
        if extra is None:
            return self.masked(value, frame, axes, EDGE, none)
        mask = self.mask(frame, axes, EDGE)
        assert mask is not None
        text = f"tl.where({mask.text} & {extra.text}, {value.text}, {none})"
        return self.define("v", Value(text, EDGES))

    def reduce_edges(
        self, node: Node, name: str, value: Value, frame: Frame, at: Index, only: Value | None = None
    ) -> None:
        """A block of values into an accumulator; where ``only`` is given, those where it holds."""
        own, reducer = len(self.frame(node.dims)), node.attrs.reducer
        extra = len(frame) - own
        text = value.text
        if finds_winners(node):
            assert not extra
            sign, text = reducer[-3:], self.define("v", value).text
            best = self.define("best", replace_text(value, f"gdsl_{sign}({text}, {self.edge_axis}, True)")).text
            rank = len(frame)
            hits = f"{lifted('on', rank)} & (({text} == {best}) | (({text} != {text}) & ({best} != {best})))"
            hits = hits if only is None else f"{only.text} & {hits}"
            wins = self.define("wins", replace_text(value, hits)).text
            held = self.best[self.cell(node, at)]
            if reducer.startswith("count"):
                number = f"tl.sum({wins}.to({self.index_type}), axis={self.edge_axis}, keep_dims=True)"
                number = self.define("winners", replace_text(value, number)).text
                self.add(*self.tallied(name, held, best, number, sign))
                return
            first = (
                f"tl.min(tl.where({wins}, {lifted('id', rank)}, {self.most}), axis={self.edge_axis}, keep_dims=True)"
            )
            first = self.define("first_winner", replace_text(value, first)).text
            self.add(*self.winner(name, held, best, first, sign))
            return
        reduce = {"sum": "tl.sum({}, axis={})"}.get(reducer, f"gdsl_{reducer}({{}}, {{}}, False)")
        for k in reversed(range(extra)):
            text = reduce.format(text, LEAD + own + k)
        if reducer == "sum":
            self.add(f"{name} += tl.sum({text}, axis={self.edge_axis}, keep_dims=True)")
        else:
            self.add(*self.combined(name, f"gdsl_{reducer}({text}, {self.edge_axis}, True)", reducer))

    def winner(self, held: str, held_best: str, best: str, number: str, sign: str) -> list[str]:
        """The number of the first best edge of all so far; the earlier stays where both are as good."""
        beats = f"{best} {'>' if sign == 'max' else '<'} {held_best}"
        better = f"({beats}) | (({best} != {best}) & ({held_best} == {held_best}))"
        return [
            f"better = ({held} < 0) | {better}",
            f"take = ({number} < {self.most}) & better",
            f"{held} = tl.where(take, {number}, {held}).to({self.index_type})",
            f"{held_best} = tl.where(take, {best}, {held_best})",
        ]

    def tallied(self, held: str, held_best: str, best: str, number: str, sign: str) -> list[str]:
        """How many edges are the best of all so far, with some more that are the best of theirs."""
        stays = f"({held_best} != {held_best}) | ({held_best} {'>' if sign == 'max' else '<'} {best})"
        return [
            f"now = tl.where({stays}, {held_best}, {best})",
            f"old = tl.where((now == {held_best}) | ({held_best} != {held_best}), {held}, 0)",
            f"{held} = (old + tl.where((now == {best}) | ({best} != {best}), {number}, 0)).to({self.index_type})",
            f"{held_best} = now",
        ]

    def combined(self, name: str, value: str, reducer: str) -> list[str]:
        """An accumulator and one more part of the result."""
        if reducer in ("sum", "mul"):
            return [f"{name} {'+' if reducer == 'sum' else '*'}= {value}"]
        sign = ">" if reducer == "max" else "<"
        return [f"more = {value}", f"{name} = tl.where(({name} != {name}) | ({name} {sign} more), {name}, more)"]

    def finish(self, node: Node, at: Index) -> None:
        """An empty segment has maximum and minimum 0."""
        if is_extreme(node):
            name = self.held[self.cell(node, at)].text
            some = lifted("(end > begin)", len(self.frame(node.dims)))
            self.levels[ROWS].add(f"{name} = tl.where({some}, {name}, 0.0)")

    # -- hubs ----------------------------------------------------------------------------------

    def part_place(self, node: Node, winner: bool, row: str, index: Index) -> tuple[str, str]:
        """Where a chunk's part of an accumulator lies, and the mask of its places."""
        frame = self.frame(node.dims)
        rank = len(frame)
        inner = print_sum(linear(node.dims, index), rank)
        text = f"{self.written[(node, winner)]} + {row} * {node.type.numel} + {inner}"
        mask = self.mask(frame, frozenset(range(rank)), GLOBAL)
        return text + ("" if rank else " + tl.zeros([1, 1], tl.int32)"), f", mask={mask.text}" if mask else ""

    def write_down(self, node: Node, index: Index) -> None:
        """What one chunk has added up."""
        cell, frame = self.cell(node, index), self.frame(node.dims)
        shape = f"[{self.shape(frame)[2:]}]" if frame else "[1, 1]"
        for winner in (False, True):
            if (node, winner) in self.written:
                place, mask = self.part_place(node, winner, "chunk", index)
                name = self.best[cell] if winner else self.held[cell].text
                self.levels[ROWS].add(f"tl.store({place}, tl.reshape({name}, {shape}){mask})")

    def gathered(self, phase: Phase) -> None:
        """The accumulators of an earlier walk, from the parts of all chunks, in their order."""
        out = self.levels[ROWS]
        names = self.declare_accumulators(phase)
        body: list[str] = []
        for (node, places), (name, index) in names.items():
            if node in self.winners:
                continue
            reducer = node.attrs.reducer
            place, mask = self.part_place(node, False, "part", index)
            shape = f"[1, 1{self.shape(self.frame(node.dims))}]"
            load = f"tl.reshape(tl.load({place}{mask}), {shape})"
            if finds_winners(node):
                at, rule = self.part_place(node, True, "part", index)
                first, held = reducer.startswith("arg"), self.best[node, places]
                body.append(f"number = {load}")
                if first:
                    body.append(f"number = tl.where(number < 0, {self.most}, number)")
                body.append(f"value = tl.reshape(tl.load({at}{rule}), {shape})")
                taken = self.winner if first else self.tallied
                body += taken(name, held, "value", "number", reducer[-3:])
            else:
                body += self.combined(name, load, reducer)
        if body:
            out.add("for part in range(first, last):")
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

    def add(self, *lines: str, blocks: int | None = None) -> None:
        self.levels[self.here].add(*lines, blocks=blocks)

    def store(self, node: Node, where: str) -> None:
        frame = self.frame(node.dims)
        mask = self.mask(frame, frozenset(range(len(frame))), where)
        assert mask is not None
        for index in self.indices(node.dims):
            value = self.value(node, index, where, frame)
            pointer, _ = self.pointer(node, index, where, frame)
            self.add(f"tl.store({pointer}, {value.text}, mask={mask.text})")

    def declare_total(self, node: Node, where: str) -> None:
        shape = self.shape(self.frame(node.dims))
        by_row = where == EDGE and node not in self.product_at
        shape = f"{self.lead('1')}{shape}" if by_row else shape[2:] or "1"
        for index in self.indices(node.dims):
            name = self.fresh("total_" + describe(node, self.program.names))
            self.levels[KERNEL].add(f"{name} = tl.full([{shape}], 0.0, {self.number})")
            self.totals[self.cell(node, index)] = Value(name, KERNEL, lead=False)
            if by_row:
                self.row_totals.add(self.cell(node, index))

    def add_total(self, node: Node, where: str) -> None:
        """Add a block of edges, or of rows, to a sum over all."""
        for k, index in enumerate(self.indices(node.dims)):
            self.add_block(node, index, where, blocks=0 if k else 1)

    def add_block(self, node: Node, at: Index, where: str, blocks: int) -> None:
        """The same for a block of the sum."""
        name = self.totals[self.cell(node, at)].text
        product = self.product_at.get(node)
        if product is not None and where == EDGE:
            self.dots = True
            left, right = self.flat(product.left, EDGE), self.flat(product.right, EDGE)
            text = f"tl.dot(tl.trans({left}), {right}, input_precision=SUM_PRECISION)"
            self.add(f"{name} += tl.reshape({text}, [{self.shape(node.dims)[2:]}])", blocks=blocks)
            return
        own = len(self.frame(node.dims))
        if node.op == "scatter":
            value, frame = self._scattered(node, where)
        else:
            reduced = self.reduced_dims(node)
            frame = self.frame((*node.dims, *reduced))
            value = self.sum_of_products(node, [{**at, **more} for more in self.indices(reduced, own)], where, frame)
            value = self.spread_out(value, node.inputs, frame, own)
        axes = frozenset(range(own, len(frame)))
        text = self.masked(value, frame, axes, where).text
        for k in reversed(range(LEAD + own, LEAD + len(frame))):
            text = f"tl.sum({text}, axis={k})"
        if self.cell(node, at) in self.row_totals:
            self.add(f"{name} += tl.sum({text}, axis={self.edge_axis}, keep_dims=True)", blocks=blocks)
        else:
            self.add(f"{name} += tl.sum(tl.sum({text}, axis=1), axis=0)", blocks=blocks)

    def _scattered(self, node: Node, where: str) -> tuple[Value, Frame]:
        """A value at the place of a dim that an index names, and zeros at its other places."""
        value, idx = node.inputs
        frame = (*node.dims, *idx.dims)
        index = self.axes(frame)
        at = self.value(idx, index, where, frame)
        given = self.value(value, index, where, frame)
        place = node.type.names.index(node.attrs.dim)
        here = along(self.axis_name(node.dims[place]), place, len(frame))
        return self.joined(f"tl.where({at.text} == {here}, {given.text}, 0.0)", [at, given]), frame

    def stored_totals(self) -> list[str]:
        """Each program writes its sums once, in a row of its own."""
        lines = []
        for node in dict.fromkeys(node for node, _ in self.totals):
            frame = self.frame(node.dims)
            mask = self.mask(frame, frozenset(range(len(frame))), GLOBAL)
            for index in self.indices(node.dims):
                cell = self.cell(node, index)
                total = self.totals[cell].text
                if cell in self.row_totals:
                    total = f"tl.sum(tl.sum({total}, axis=1), axis=0)"
                inner = print_sum(linear(node.dims, index), len(frame))
                if not any(p.axes for d in node.dims if d.size != 1 for p in [index[d.name]]):
                    # One number is a block of its shape all the same.
                    inner += f" + tl.zeros([{self.shape(frame)[2:] or '1'}], tl.int32)"
                where = f"{self.name(node)} + tl.program_id(0) * {node.type.numel} + {inner}"
                lines.append(f"tl.store({where}, {total}{f', mask={mask.text}' if mask else ''})")
        return lines


def folded(line: str) -> list[str]:
    """A line that is too long as several, broken after commas: all long lines are calls."""
    indent = " " * (len(line) - len(line.lstrip())) + _INDENT
    found = []
    while len(line) > LINE_WIDTH and (cut := line.rfind(", ", len(indent), LINE_WIDTH)) > 0:
        found.append(line[: cut + 1])
        line = indent + line[cut + 2 :]
    return [*found, line]


def replace_text(value: Value, text: str) -> Value:
    return Value(text, value.level, value.lead)
