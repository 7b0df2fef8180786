"""What a Triton kernel adds up: accumulators of rows, maxima and who wins them, sums over all rows."""

from __future__ import annotations

from collections.abc import Mapping

from gdsl.codegen.blocks import Blocks, Cell, Frame
from gdsl.codegen.indices import Index, linear
from gdsl.codegen.notation import (
    EDGES,
    KERNEL,
    LEAD,
    ROWS,
    STARTS,
    Value,
    along,
    atom,
    best_places,
    lifted,
    number_literal,
    print_place,
    print_sum,
    summed,
)
from gdsl.codegen.pull import EDGE, GLOBAL, reduced_dims
from gdsl.ir import build
from gdsl.ir.node import Node
from gdsl.ir.ops import ELEMENTWISE
from gdsl.ir.ops.edges import finds_winners, is_extreme
from gdsl.ir.printer import describe
from gdsl.ir.program import Program
from gdsl.passes.plan import Kernel, Phase

INDICES = {"int32_t": ("tl.int32", 2**31 - 1), "int64_t": ("tl.int64", 2**63 - 1)}


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


class Reductions(Blocks):
    """Sums, maxima and folds of one kernel. ``best`` are the values of winners, ``row_totals`` the sums that have a
    part for each row of the block, for no row to wait for another."""

    def __init__(
        self, kernel: Kernel, program: Program, packed: frozenset[Node], number: str, index_type: str, edge_axis: int
    ):
        super().__init__(kernel, program, packed, number, edge_axis)
        self.index_type, self.most = INDICES[index_type]
        self.totals: dict[Cell, Value] = {}
        self.row_totals: set[Cell] = set()
        self.best: dict[Cell, str] = {}
        self.running = {r.total: r for phase in kernel.phases for r in phase.running}
        self.tops = {r.top: r.guarded for r in self.running.values()}
        # By how much what is relative to a maximum so far becomes smaller where that grows.
        self.shrinks: dict[Cell, Value] = {}
        # A maximum and the edges that win it are found together.
        self.winners = winners(kernel)

    def add(self, *lines: str, blocks: int | None = None) -> None:
        self.levels[self.here].add(*lines, blocks=blocks)

    def full(self, word: str, node: Node, level: int, shape: str, start: str, kind: str) -> str:
        """Declare a block that begins with the same number everywhere."""
        name = self.fresh(f"{word}_{describe(node, self.program.names)}")
        self.levels[level].add(f"{name} = tl.full([{shape}], {start}, {kind})")
        return name

    # -- accumulators --------------------------------------------------------------------------

    def declare_accumulators(self, phase: Phase) -> dict[Cell, tuple[str, Index]]:
        """A name for each block of each accumulator, and the index of the block."""
        written = [n for n in phase.scans if n not in phase.accumulators]
        names: dict[Cell, tuple[str, Index]] = {}
        for node in (*phase.accumulators, *written):
            start, kind = self._start(node)
            for index in self.indices(node.dims):
                names[self.cell(node, index)] = self.full("acc", node, ROWS, self.of_row(node), start, kind), index
        for (node, places), (name, _) in names.items():
            if node in self.winners:
                self.best[self.winners[node], places] = name
        for node, places in names:
            if finds_winners(node) and (node, places) not in self.best:
                start = STARTS[node.attrs.reducer[-3:]]
                self.best[node, places] = self.full("best", node, ROWS, self.of_row(node), start, self.number)
        return names

    def of_row(self, node: Node) -> str:
        """The lengths of the axes of what a row adds up."""
        return self.lead("1") + self.shape(self.frame(node.dims))

    def _start(self, node: Node) -> tuple[str, str]:
        """What an accumulator begins with, and its type."""
        if node.op == "scan":
            return number_literal(node.attrs.init), self.number
        if finds_winners(node):
            return "-1" if node.attrs.reducer.startswith("arg") else "0", self.index_type
        return STARTS[node.attrs.reducer], self.number

    def accumulate(self, node: Node, name: str, at: Index) -> None:
        """Take a block of edges into a block of an accumulator."""
        if node.op == "scan":
            self._fold(node, name, at)
        elif (product := self.product_at.get(node)) is not None:
            self.dots = self.edge_dots = True
            left, right = self.flat(product.left, EDGE, by_row=True), self.flat(product.right, EDGE, by_row=True)
            rows, edges = 1 - self.edge_axis, self.edge_axis
            left, right = f"tl.permute({left}, {rows}, 2, {edges})", f"tl.permute({right}, {rows}, {edges}, 2)"
            text = f"tl.dot({left}, {right}, input_precision=SUM_PRECISION)"
            self.add(self.added(node, name, at, f"tl.reshape({text}, [{self.lead('1')}{self.shape(node.dims)}])"))
        else:
            e, by = node.inputs[0], node.inputs[1:]
            own, dims = self.frame(node.dims), by[0].dims if by else ()
            frame = (*own, *self.frame(dims))
            for more in self.indices(dims, len(own)):
                index = {**at, **more}
                only: Value | None = None
                if by:
                    kind = self.value(by[0], index, EDGE, frame)
                    here = print_place(index[node.dims[0].name], len(frame))
                    only = Value(f"({kind.text} == {here})", kind.level, kind.lead)
                value = self._only(self.value(e, index, EDGE, frame), node, frame, only)
                if finds_winners(node):
                    self._find_winners(node, name, value, frame, at, only)
                else:
                    self._reduce_edges(node, name, value, frame, at)

    def tops_first(self, accumulators: dict[Cell, tuple[str, Index]]) -> list[tuple[Cell, tuple[str, Index]]]:
        """Maxima before the sums that are relative to them."""
        return sorted(accumulators.items(), key=lambda item: item[0][0] not in self.tops)

    def grow(self, node: Node, name: str, at: Index) -> None:
        """Take a block of edges into a maximum that sums are relative to, before they take it."""
        cell = self.cell(node, at)
        self.add("# Sums so far are relative to the largest score so far: where that grows, they shrink.", blocks=0)
        # None of these has a number for each edge of the block.
        before, top = self.fresh("before"), name
        self.add(f"{before} = {name}", blocks=0)
        self.accumulate(node, name, at)
        self.add(f"{self.shrink(cell)} = {self.shrunk(before, name)}", blocks=0)
        if not self.tops[node]:
            top = self.fresh("top")
            self.add(f'{top} = tl.where({name} == float("-inf"), 0.0, {name})', blocks=0)
        self.held[cell] = Value(top, EDGES)

    def shrink(self, cell: Cell) -> str:
        """A name for by how much sums shrink as a maximum grows."""
        name = self.fresh("shrink")
        self.shrinks[cell] = Value(name, self.here)
        return name

    def shrunk(self, before: str, now: str) -> str:
        """e^(before - now), of which both may be infinite."""
        power = ELEMENTWISE["exp"].triton.format(f"{before} - {now}")
        return f"tl.where({before} == {now}, 1.0, {power})"

    def of_top(self, values: Mapping[Cell, Value], total: Node, at: Index) -> str:
        """What is known for the maximum that a sum is relative to, as a block of the sum."""
        top = self.running[total].top
        index = {d.name: at[d.name] for d in top.dims}
        return atom(self.align(values[self.cell(top, index)], top, index, self.frame(total.dims)).text)

    def added(self, node: Node, name: str, at: Index, text: str) -> str:
        """The line that adds to a sum."""
        if node not in self.running:
            return f"{name} += {text}"
        return f"{name} = {name} * {self.of_top(self.shrinks, node, at)} + {text}"

    def _fold(self, node: Node, name: str, at: Index) -> None:
        """One step of a scan, of the one edge that a block has of each row; where edges read it, what it has come to
        before the edge is written first."""
        acc, step = build.scan_step(node, name)
        self.carried[acc] = Value(name, EDGES)
        frame = self.frame(node.dims)
        value = self.value(step, at, EDGE, frame)
        if not node.attrs.last:
            rule = self.rule(frame, EDGE)
            self.add(f"tl.store({self.pointer(node, at, EDGE, frame)[0]}, {name}{rule})")
        self.add(f"{name} = tl.where({lifted('on', len(frame))}, {value.text}, {name})")

    def _only(self, value: Value, node: Node, frame: Frame, only: Value | None) -> Value:
        """The value on edges that exist, and where more is asked holds; else what changes no result."""
        none, axes = STARTS[node.attrs.reducer[-3:]], frozenset(range(len(self.frame(node.dims)), len(frame)))
        if only is None:
            return self.masked(value, frame, axes, EDGE, none)
        mask = self.mask(frame, axes, EDGE)
        assert mask is not None
        return self.define("v", Value(f"tl.where({mask.text} & {only.text}, {value.text}, {none})", EDGES))

    def _reduce_edges(self, node: Node, name: str, value: Value, frame: Frame, at: Index) -> None:
        """A block of values into an accumulator."""
        own, reducer, text = len(self.frame(node.dims)), node.attrs.reducer, value.text
        reduce = {"sum": "tl.sum({}, axis={})"}.get(reducer, f"gdsl_{reducer}({{}}, {{}}, False)")
        for k in reversed(range(own, len(frame))):
            text = reduce.format(text, LEAD + k)
        if reducer == "sum":
            self.add(self.added(node, name, at, self.over_edges(text)))
        else:
            self.add(*self.combined(name, f"gdsl_{reducer}({text}, {self.edge_axis}, True)", reducer))

    def over_edges(self, text: str) -> str:
        """The sum of a block over its edges."""
        return f"tl.sum({text}, axis={self.edge_axis}, keep_dims=True)"

    def _find_winners(self, node: Node, name: str, value: Value, frame: Frame, at: Index, only: Value | None) -> None:
        """The edges whose values are the best; where ``only`` is given, among those where it holds."""
        assert len(frame) == len(self.frame(node.dims))
        sign, rank, held = node.attrs.reducer[-3:], len(frame), self.best[self.cell(node, at)]

        def define(wanted: str, text: str) -> str:
            return self.define(wanted, Value(text, value.level, value.lead)).text

        text = self.define("v", value).text
        best = define("best", f"gdsl_{sign}({text}, {self.edge_axis}, True)")
        hits = f"{lifted('on', rank)} & ({best_places(text, best)})"
        wins = define("wins", hits if only is None else f"{only.text} & {hits}")
        if node.attrs.reducer.startswith("count"):
            number = define("winners", self.over_edges(f"{wins}.to({self.index_type})"))
            self.add(*self.tallied(name, held, best, number, sign))
        else:
            first = f"tl.where({wins}, {lifted('id', rank)}, {self.most})"
            first = define("first_winner", f"tl.min({first}, axis={self.edge_axis}, keep_dims=True)")
            self.add(*self.winner(name, held, best, first, sign))

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

    def some(self) -> str:
        """Which rows have an edge."""
        return "(end > begin)"

    def finish(self, node: Node, at: Index) -> None:
        """An empty segment has maximum and minimum 0. A sum relative to -inf is NaN where that is not guarded."""
        name = self.held[self.cell(node, at)].text
        if node in self.running and not self.running[node].guarded:
            top = self.of_top(self.held, node, at)
            self.levels[ROWS].add(f'{name} = tl.where({top} == float("-inf"), float("nan"), {name})')
        if is_extreme(node):
            some = lifted(self.some(), len(self.frame(node.dims)))
            self.levels[ROWS].add(f"{name} = tl.where({some}, {name}, 0.0)")

    # -- results -------------------------------------------------------------------------------

    def rule(self, frame: Frame, where: str) -> str:
        """The mask of a store, as its last argument."""
        mask = self.mask(frame, frozenset(range(len(frame))), where)
        return f", mask={mask.text}" if mask else ""

    def store(self, node: Node, where: str) -> None:
        frame = self.frame(node.dims)
        rule = self.rule(frame, where)
        for index in self.indices(node.dims):
            value = self.value(node, index, where, frame)
            self.add(f"tl.store({self.pointer(node, index, where, frame)[0]}, {value.text}{rule})")

    def declare_total(self, node: Node, where: str) -> None:
        by_row = where == EDGE and node not in self.product_at
        shape = self.of_row(node) if by_row else self.shape(self.frame(node.dims))[2:] or "1"
        for index in self.indices(node.dims):
            name = self.full("total", node, KERNEL, shape, "0.0", self.number)
            self.totals[self.cell(node, index)] = Value(name, KERNEL, lead=False)
            if by_row:
                self.row_totals.add(self.cell(node, index))

    def add_total(self, node: Node, where: str) -> None:
        """Add a block of edges, or of rows, to a sum over all."""
        for k, index in enumerate(self.indices(node.dims)):
            cell = self.cell(node, index)
            self.add(f"{self.totals[cell].text} += {self._part(node, index, where)}", blocks=0 if k else 1)

    def _part(self, node: Node, at: Index, where: str) -> str:
        """What a block of edges, or of rows, adds to a block of a sum over all."""
        product = self.product_at.get(node)
        if product is not None and where == EDGE:
            self.dots = True
            left, right = self.flat(product.left, EDGE), self.flat(product.right, EDGE)
            text = f"tl.dot(tl.trans({left}), {right}, input_precision=SUM_PRECISION)"
            return f"tl.reshape({text}, [{self.shape(node.dims)[2:]}])"
        own = len(self.frame(node.dims))
        if node.op == "scatter":
            value, frame = self._scattered(node, where)
        else:
            reduced = reduced_dims(node, node.inputs)
            frame = self.frame((*node.dims, *reduced))
            value = self.sum_of_products(node, [{**at, **more} for more in self.indices(reduced, own)], where, frame)
            value = self.spread_out(value, node.inputs, frame, own)
        value = self.masked(value, frame, frozenset(range(own, len(frame))), where)
        text = summed(value.text, range(LEAD + own, LEAD + len(frame)))
        return self.over_edges(text) if self.cell(node, at) in self.row_totals else summed(text, (0, 1))

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
            rule = self.rule(frame, GLOBAL)
            for index in self.indices(node.dims):
                cell = self.cell(node, index)
                total = self.totals[cell].text
                total = summed(total, (0, 1)) if cell in self.row_totals else total
                inner = print_sum(linear(node.dims, index), len(frame))
                if not any(index[d.name].axes for d in node.dims if d.size != 1):
                    # One number is a block of its shape all the same.
                    inner += f" + tl.zeros([{self.shape(frame)[2:] or '1'}], tl.int32)"
                where = f"{self.name(node)} + tl.program_id(0) * {node.type.numel} + {inner}"
                lines.append(f"tl.store({where}, {total}{rule})")
        return lines
