"""Values as Triton blocks: from a node and an index down to loads.

This is the *pull* half of the Triton generator. All blocks of an expression share a *frame*, a list of dims: axis 0 of
a block counts the edges of each row that the program is at, axis 1 its rows, and then comes an axis for each dim of the
frame, padded to a power of two. Triton hands out a block to threads from its last axis on, so that with enough rows the
edges of one lie in one thread, which adds them up alone. (Older ones hand out axis 0 before axis 1, and rows come first
for them: ``edge_axis``.) A value that does not vary along an axis has size 1 there, so that operands broadcast and no
value is repeated. A value of the whole graph has no axes for edges and rows.

Each line goes to the outermost *level* at which all that it reads is known: the kernel, the rows, or the edges.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from gdsl.codegen.indices import Axis, Index, Known, Literal, Place, linear
from gdsl.codegen.notation import (
    EDGES,
    KERNEL,
    LEAD,
    ROWS,
    STARTS,
    Level,
    Value,
    along,
    atom,
    best_places,
    is_lead,
    level_of,
    lifted,
    literal,
    power_of_two,
    print_place,
    print_sum,
    summed,
    typed_literal,
)
from gdsl.codegen.products import Product, product_of
from gdsl.codegen.pull import COLUMN, EDGE, GLOBAL, NUMBER_OF, ROW, Pull, reduced_dims
from gdsl.codegen.unrolled import unrolled_dims
from gdsl.ir.node import Node, walk_below
from gdsl.ir.ops import ELEMENTWISE, rounds_each
from gdsl.ir.ops.tables import entries
from gdsl.ir.program import Program
from gdsl.ir.types import Dim, Domain
from gdsl.passes.plan import Kernel

Frame = tuple[Dim, ...]
# A block of a node: the places of the dims that are unrolled.
Cell = tuple[Node, tuple[int, ...]]

LEVELS = {GLOBAL: KERNEL, ROW: ROWS, COLUMN: EDGES, EDGE: EDGES}

# The sides of a matrix that `tl.dot` takes.
LEAST_SIDE = 16
# Tables with more places are read where they are used rather than held in registers all along.
MOST_HELD = 256

_RESERVED = frozenset(
    """False None True and as assert async await break class continue def del elif else except finally for from global
    if import in is lambda nonlocal not or pass raise return try while with yield abs all any bool float int len max min
    print range sum tl triton libdevice rows num_rows rowptr other edge hubs owner first_chunk num_chunks row live i j
    id at begin e end first last most lane on chunk hub block part some take better more now old number value
    BLOCK_ROWS BLOCK_EDGES INDEX PRECISION SUM_PRECISION""".split()
)
_FOREIGN = re.compile(r"_|gdsl")


class Blocks(Pull[Value, Frame]):
    """Blocks of one kernel. ``held`` are the results of earlier walks over the same rows, ``carried`` what scans have
    come to in this one."""

    def __init__(self, kernel: Kernel, program: Program, packed: frozenset[Node], number: str, edge_axis: int):
        super().__init__(kernel, program, packed, _RESERVED, _FOREIGN)
        self.number, self.edge_axis = number, edge_axis
        self.levels = [Level(), Level(), Level()]
        self.held: dict[Cell, Value] = {}
        self.carried: dict[Node, Value] = {}
        self.axes_of: dict[Dim, str] = {}
        self.product_at = self.products()
        self.unrolled = unrolled_dims(kernel, self.nodes, self.product_at.values())
        self.in_walk, self.widest = False, 1
        self.dots = self.edge_dots = self.exact = False

    # -- sizes and axes ------------------------------------------------------------------------

    def products(self) -> dict[Node, Product]:
        """The matrix products on edges of this kernel.

        Double precision has none: its rate is that of plain sums. Nor have a few numbers an edge, whose matrices would
        be mostly padding. Nor has a kernel that takes one edge after the other.
        """
        if self.number != "tl.float32" or self.kernel.ordered:
            return {}
        found = {node: product for node in self.nodes if (product := product_of(node)) is not None}
        return {node: product for node, product in found.items() if min(product.sizes) >= LEAST_SIDE}

    def size(self, dim: Dim) -> int:
        """The length of a dim's axis. Dims of one size have axes of one length: a renamed dim is the same axis."""
        return power_of_two(dim.size)

    def lead(self, edges: str = "BLOCK_EDGES") -> str:
        """The lengths of the first two axes."""
        return f"{edges}, BLOCK_ROWS" if self.edge_axis == 0 else f"BLOCK_ROWS, {edges}"

    def along_lead(self, axis: int) -> str:
        """What makes a row of numbers one along one of the first two axes."""
        return "[:, None]" if axis == 0 else "[None, :]"

    def shape(self, dims: Sequence[Dim]) -> str:
        return "".join(f", {self.size(d)}" for d in dims)

    def numel(self, dims: Sequence[Dim]) -> int:
        return math.prod(d.size if d in self.unrolled else self.size(d) for d in dims)

    def frame(self, dims: Sequence[Dim]) -> Frame:
        """The dims that have axes."""
        return tuple(d for d in dims if d not in self.unrolled)

    def indices(self, dims: Sequence[Dim], first: int = 0) -> Iterator[dict[str, Place]]:
        """The dims' own axes, from the first on, for every choice of places of those that are unrolled."""
        axes, unrolled = self.axes(self.frame(dims), first), [d for d in dims if d in self.unrolled]
        for places in itertools.product(*(range(d.size) for d in unrolled)):
            yield axes | {d.name: Literal(place) for d, place in zip(unrolled, places, strict=True)}

    def cell(self, node: Node, index: Index) -> Cell:
        places = (index[d.name] for d in node.dims if d in self.unrolled)
        return node, tuple(place.number for place in places if isinstance(place, Literal))

    def axis_name(self, dim: Dim) -> str:
        if dim not in self.axes_of:
            name = self.axes_of[dim] = self.fresh(dim.name)
            self.levels[KERNEL].add(f"{name} = tl.arange(0, {self.size(dim)})")
        return self.axes_of[dim]

    def axes(self, dims: Sequence[Dim], first: int = 0) -> dict[str, Place]:
        """The places of dims along axes of the frame, from the first on."""
        return {d.name: Axis(self.axis_name(d), first + k, self.size(d)) for k, d in enumerate(dims)}

    # -- lines ---------------------------------------------------------------------------------

    @property
    def here(self) -> int:
        """The level of what is being written."""
        return EDGES if self.in_walk else ROWS

    def level(self, where: str) -> int:
        """The level at which what lies somewhere is known."""
        return LEVELS[where] if self.kernel.end else min(ROWS, LEVELS[where])

    def define(self, wanted: str, value: Value) -> Value:
        """Give a value a name, at its level."""
        name, level = self.fresh(wanted), self.levels[value.level]
        level.add(f"{name} = {value.text}", blocks=0 if value.narrow else 1)
        return replace(value, text=name)

    def once(self, key: object, wanted: str, value: Value) -> Value:
        """As ``define``, but for the same key the same name."""
        for level in self.levels[: value.level + 1]:
            if key in level.memo:
                return level.memo[key]
        found = self.define(wanted, value)
        self.levels[value.level].memo[key] = found
        return found

    # -- masks ---------------------------------------------------------------------------------

    def mask(self, frame: Frame, axes: frozenset[int], where: str) -> Value | None:
        """Which elements exist: rows, edges, and places of padded dims. None where all do."""
        rank = len(frame)
        parts: list[Value] = []
        if where != GLOBAL:
            parts.append(Value(lifted("live" if where == ROW else "on", rank), self.level(where)))
        for at in sorted(axes):
            dim = frame[at]
            if self.size(dim) != dim.size:
                below = Value(f"{self.axis_name(dim)} < {dim.size}", KERNEL, lead=False)
                inside = self.once(("in", dim), f"in_{dim.name}", below)
                parts.append(Value(along(inside.text, at, rank), KERNEL, lead=False))
        if len(parts) < 2:
            return parts[0] if parts else None
        text = " & ".join(p.text for p in parts)
        level = max(p.level for p in parts)
        return self.once(("mask", text), "mask", Value(text, level, lead=any(p.lead for p in parts)))

    def masked(self, value: Value, frame: Frame, axes: frozenset[int], where: str, other: str = "0.0") -> Value:
        """The value where it exists, else another: what a sum, or a maximum, must not see."""
        mask = self.mask(frame, axes, where)
        known = {GLOBAL: _ANYWHERE, ROW: (ROW,), EDGE: (COLUMN, EDGE)}[where]
        if mask is None or (other == "0.0" and value.zero in known):
            return value
        lead = value.lead or mask.lead
        return Value(f"tl.where({mask.text}, {value.text}, {other})", max(value.level, mask.level), lead)

    # -- values --------------------------------------------------------------------------------

    def value(self, node: Node, index: Index, where: str, frame: Frame) -> Value:
        """The node at an index, as a block of the frame."""
        index = {d.name: index[d.name] for d in node.dims}
        if node.domain is not Domain.GLOBAL and (self.in_walk or not self.kernel.end):
            self.widest = max(self.widest, self.numel(frame))
        if where == ROW and (held := self.held.get(self.cell(node, index))) is not None:
            return self.align(held, node, index, frame)
        if node in self.carried:
            return self.align(self.carried[node], node, index, frame)
        if node in self.buffers:
            return self.load(node, index, where, frame)
        key = (*self.key(node, index, where), frame)
        where = key[1]
        for level in self.levels:
            if key in level.memo:
                return level.memo[key]
        if frame != (own := self.frame(node.dims)) and self.is_cell(node) and self.is_plain(node, index):
            places = {n: p for n, p in index.items() if isinstance(p, Literal)}
            found = self.align(self.value(node, self.axes(own) | places, where, own), node, index, frame)
        else:
            found = self.compute(node, index, where, frame)
            if node.op in ELEMENTWISE or node.op in _NAMED:
                found = self.define(self.program.names.get(node) or _WORDS.get(node.op, "v"), found)
        self.levels[found.level].memo[key] = found
        return found

    def is_written(self, node: Node, index: Index, where: str, frame: Frame) -> bool:
        key = (*self.key(node, index, where), frame)
        held = node in self.buffers or self.cell(node, index) in self.held
        return held or any(key in level.memo for level in self.levels)

    def is_apart(self, node: Node, frame: Frame) -> bool:
        return frame != self.frame(node.dims) and self.is_cell(node)

    def is_plain(self, node: Node, index: Index) -> bool:
        """Whether an index is an axis of the frame for each dim that has one, as long as the dim's own."""
        axes = ((d, index[d.name]) for d in self.frame(node.dims))
        return all(isinstance(place, Axis) and place.size == self.size(d) for d, place in axes)

    def is_cell(self, node: Node) -> bool:
        """Whether a value is worth computing once, in its own frame, and not again in each frame that reads it."""
        if node.op in ELEMENTWISE:
            return ELEMENTWISE[node.op].heavy
        return node.op in _NAMED

    def align(self, value: Value, node: Node, index: Index, frame: Frame) -> Value:
        """A block of the node's own dims as a block of the frame."""
        if value.scalar:
            return value
        if not self.is_plain(node, index):
            return self.pick(value, node, index, frame)
        places = [place.at for d in node.dims if isinstance(place := index[d.name], Axis)]
        lead = LEAD if value.lead else 0
        text = atom(value.text)
        if places != sorted(places):
            order = sorted(range(len(places)), key=lambda k: places[k])
            turned = ", ".join(str(k) for k in [*range(lead), *(lead + k for k in order)])
            text = f"tl.permute({value.text}, {turned})"
        if len(frame) > len(places):
            axes = [":"] * lead + [":" if k in places else "None" for k in range(len(frame))]
            text = f"{text}[{', '.join(axes)}]"
        return replace(value, text=text)

    def pick(self, value: Value, node: Node, index: Index, frame: Frame) -> Value:
        """A block that lies in registers, at places that are not its own: the sum over all places, with one kept."""
        wide = (*frame, *node.dims)
        rank = len(wide)
        hits = []
        for k, d in enumerate(node.dims):
            hits.append(f"({along(self.axis_name(d), len(frame) + k, rank)} == {print_place(index[d.name], rank)})")
        axes = [":"] * (LEAD if value.lead else 0) + ["None"] * len(frame) + [":"] * len(node.dims)
        text = f"tl.where({' & '.join(hits)}, {atom(value.text)}[{', '.join(axes)}], 0)"
        lead = value.lead or is_lead(index.values())
        level = max(value.level, level_of(index.values()))
        first = (LEAD if lead else 0) + len(frame)
        return Value(summed(text, range(first, first + len(node.dims))), level, lead)

    # -- memory --------------------------------------------------------------------------------

    def load(self, node: Node, index: Index, where: str, frame: Frame) -> Value:
        where = GLOBAL if node.domain is Domain.GLOBAL else where
        pointer, lead = self.pointer(node, index, where, frame)
        # The only place of a dim of size 1 is known, and no part of the pointer.
        axes = frozenset(a for d in node.dims if d.size != 1 for a in index[d.name].axes)
        level = max(self.level(where), level_of(index.values()))
        if where == GLOBAL and self.numel(node.dims) > MOST_HELD:
            level = max(level, self.here)
        mask = self.mask(frame, axes, where)
        text = f"tl.load({pointer}, mask={mask.text}, other=0)" if mask else f"tl.load({pointer})"
        if node in self.packed:
            text += f".to({self.number})"
        scalar = not lead and not axes
        suffix = {ROW: "_i" if self.kernel.end else "", COLUMN: "_j", EDGE: "_e", GLOBAL: ""}[where]
        key = ("load", frame, text)
        zero = where if mask else None
        return self.once(key, self.name(node) + suffix, Value(text, level, lead, scalar, zero, narrow=not axes))

    def pointer(self, node: Node, index: Index, where: str, frame: Frame) -> tuple[str, bool]:
        """Where the elements of a buffer lie, and whether that varies along rows or edges."""
        place = linear(node.dims, index, NUMBER_OF.get(where))
        lead = where != GLOBAL or (bool(place.terms) and is_lead(index.values()))
        return self.name(node) + (f" + {print_sum(place, len(frame))}" if place.terms else ""), lead

    # -- ops -----------------------------------------------------------------------------------

    def compute_elementwise(self, node: Node, index: Index, where: str, frame: Frame) -> Value:
        parts = [self.value(i, index, where, frame) for i in node.inputs]
        form = ELEMENTWISE[node.op].triton.format(*(atom(p.text) for p in parts), bound=node.type.bound)
        form = form.replace("gdsl_float", self.number)
        self.exact = self.exact or rounds_each(node)
        return self.joined(form, parts)

    def joined(self, text: str, parts: Sequence[Value]) -> Value:
        """A value made of others."""
        lead, scalar = any(p.lead for p in parts), all(p.scalar for p in parts)
        narrow = all(p.narrow or p.scalar for p in parts)
        return Value(text, max((p.level for p in parts), default=KERNEL), lead, scalar, narrow=narrow)

    def compute_const(self, node: Node, index: Index, where: str, frame: Frame) -> Value:
        return Value(literal(node, self.number), KERNEL, lead=False, scalar=True)

    def number_at(self, place: Place, frame: Frame) -> Value:
        return Value(print_place(place, len(frame)), level_of([place]), is_lead([place]))

    def place_of(self, value: Value, axes: frozenset[int], frame: Frame) -> Known:
        return Known(value, axes, len(frame))

    def compute_graph_value(self, node: Node, index: Index, where: str, frame: Frame) -> Value:
        return Value(print_place(NUMBER_OF[where], len(frame)), self.level(where))

    def compute_cat(self, node: Node, index: Index, where: str, frame: Frame) -> Value:
        """The part is chosen by place; every part is read at a place that exists."""
        parts = [(self.value(operand, inner, where, frame), stop) for operand, inner, stop in self.parts(node, index)]
        at = self.number_at(index[node.attrs.new], frame)
        found = parts[-1][0]
        for value, stop in reversed(parts[:-1]):
            found = self.joined(f"tl.where({atom(at.text)} < {stop}, {value.text}, {found.text})", [at, value, found])
        return found

    def compute_random(self, node: Node, index: Index, where: str, frame: Frame) -> Value:
        rank, numel = len(frame), node.type.numel
        seed = self.value(node.inputs[0], {}, GLOBAL, ())
        row = Value(print_place(NUMBER_OF[where], rank), self.level(where))
        if len(node.inputs) == 2:
            row = self.value(node.inputs[1], {}, where, frame)
        count = f"{atom(row.text)}.to(tl.int64) * {numel} + {print_sum(linear(node.dims, index), rank)}"
        level = self.level(where)
        text = f"gdsl_uniform({seed.text}, {node.attrs.salt:d}, {count})"
        return Value(text if self.number == "tl.float32" else f"{text}.to({self.number})", level)

    def compute_table(self, node: Node, index: Index, where: str, frame: Frame) -> Value:
        """A number that is known, or a choice among those that are not 0."""
        found = Value("0.0", KERNEL, lead=False, scalar=True)
        for at, number in entries(node.attrs, node.dims):
            one = Value(typed_literal(number, self.number), KERNEL, lead=False, scalar=True)
            found = self.chosen(dict(zip(node.type.names, at, strict=True)), index, one, found, frame)
        return found

    def chosen(self, at: Mapping[str, int], index: Index, value: Value, other: Value, frame: Frame) -> Value:
        """The value at a place of some dims, and another at all others."""
        tests = []
        for name, number in at.items():
            place = index[name]
            if isinstance(place, Literal):
                if place.number != number:
                    return other
                continue
            where = self.number_at(place, frame)
            tests.append(replace(where, text=f"({atom(where.text)} == {number})"))
        if not tests:
            return value
        text = f"tl.where({' & '.join(t.text for t in tests)}, {value.text}, {other.text})"
        return self.joined(text, [*tests, value, other])

    def compute_table_product(self, node: Node, index: Index, where: str, frame: Frame) -> Value:
        """The terms of the place that is asked for, or those of all places, of which each takes its own."""
        found = Value("0.0", KERNEL, lead=False, scalar=True)
        outer = {name: place for name, place in index.items() if name not in node.attrs.dims}
        asked = {name: place for name, place in index.items() if isinstance(place, Literal)}
        for at, terms in self.table_terms(node, {**outer, **asked}, where, frame):
            if not terms:
                continue
            parts = [part for _, factors in terms for part in factors]
            texts = [
                " * ".join([typed_literal(number, self.number), *(atom(p.text) for p in factors)])
                for number, factors in terms
            ]
            whole = self.define("terms", self.joined(texts[0], parts))
            self.levels[whole.level].add(*(f"{whole.text} += {text}" for text in texts[1:]), blocks=0)
            numbers = {name: place.number for name, place in at.items() if isinstance(place, Literal)}
            found = self.chosen(numbers, index, whole, found, frame)
        return found

    def compute_contract(self, node: Node, index: Index, where: str, frame: Frame) -> Value:
        product = self.product_at.get(node)
        if product is not None and frame == node.dims and self.is_plain(node, index):
            return self.compute_dot(product)
        reduced = reduced_dims(node, node.inputs)
        own = self.frame(reduced)
        wide = (*frame, *own)
        value = self.sum_of_products(node, [{**index, **at} for at in self.indices(reduced, len(frame))], where, wide)
        value = self.spread_out(value, node.inputs, wide, len(frame))
        value = self.masked(value, wide, frozenset(range(len(frame), len(wide))), GLOBAL)
        first = (LEAD if value.lead else 0) + len(frame)
        return replace(value, text=summed(value.text, range(first, first + len(own))), narrow=not frame)

    def sum_of_products(self, node: Node, indices: Sequence[Index], where: str, wide: Frame) -> Value:
        """The product of a node's operands, added up over some indices."""
        products = []
        for index in indices:
            parts = [self.value(i, index, where, wide) for i in node.inputs]
            products.append(self.joined(" * ".join(atom(p.text) for p in parts), parts))
        first, *more = products
        if not more:
            return first
        whole = self.define("dot", self.joined(first.text, products))
        self.levels[whole.level].add(*(f"{whole.text} += {p.text}" for p in more), blocks=0)
        return whole

    def spread_out(self, value: Value, operands: Sequence[Node], wide: Frame, first: int) -> Value:
        """A product at all places of the axes from the first on, so that a sum over them counts each.

        What is the same at all places (a constant) has one. The mask of a padded dim spreads it out by itself.
        """
        for at in range(first, len(wide)):
            dim = wide[at]
            if self.size(dim) == dim.size and not any(self.varies(n, dim.name) for n in operands):
                places = along(self.axis_name(dim), at, len(wide))
                value = replace(value, text=f"tl.where({places} >= 0, {value.text}, 0.0)", scalar=False)
        return value

    def varies(self, node: Node, name: str) -> bool:
        """Whether the node surely has a number of its own at each place of a dim."""

        def stored(node: Node) -> bool:
            return node in self.buffers or node.op in ("load", "iota", "random")

        def varying(node: Node) -> tuple[Node, ...]:
            return () if stored(node) else tuple(i for i in node.inputs if name in i.type.names)

        return name in node.type.names and any(stored(n) for n in walk_below([node], varying))

    def compute_dot(self, product: Product) -> Value:
        """Rows of edges by a matrix that all share."""
        self.dots = True
        node, left, right = product.node, product.left, product.right
        frame = (*left.dims, *node.dims)
        matrix = self.value(right, self.axes(frame), GLOBAL, frame)
        matrix = self.masked(matrix, frame, frozenset(range(len(frame))), GLOBAL)
        shape = [self.numel(left.dims), self.numel(node.dims)]
        text = matrix.text
        if right not in self.buffers:
            text = f"tl.broadcast_to({text}, [{self.shape(frame)[2:]}])"
        if len(frame) > 2:
            text = f"tl.reshape({text}, {shape})"
        text = f"tl.dot({self.flat(left, GLOBAL)}, {text}, input_precision=PRECISION)"
        return Value(f"tl.reshape({text}, [{self.lead()}{self.shape(node.dims)}])", EDGES)

    def flat(self, node: Node, where: str, *, by_row: bool = False) -> str:
        """The values of an edge value as a matrix with a row an edge; where there is no edge, zeros if asked for."""
        frame = node.dims
        value = self.value(node, self.axes(frame), EDGE, frame)
        value = self.masked(value, frame, frozenset(range(len(frame))), where)
        whole = f"tl.broadcast_to({value.text}, [{self.lead()}{self.shape(frame)}])"
        if by_row and len(frame) == 1:
            return self.once(("rows", whole), "matrix", Value(whole, EDGES)).text
        lead = self.lead() if by_row else "BLOCK_EDGES * BLOCK_ROWS"
        text = f"tl.reshape({whole}, [{lead}, {self.numel(frame)}])"
        return self.once(("rows", text), "matrix", Value(text, EDGES)).text

    def compute_reduce(self, node: Node, index: Index, where: str, frame: Frame) -> Value:
        reducer, (dim,) = node.attrs.reducer, reduced_dims(node, node.inputs)
        wide = (*frame, dim)
        value = self.value(node.inputs[0], {**index, **self.axes([dim], len(frame))}, where, wide)
        sign = "max" if reducer.endswith("max") else "min"
        axes = frozenset({len(frame)})
        value = self.masked(value, wide, axes, GLOBAL, STARTS[sign])
        axis = (LEAD if value.lead else 0) + len(frame)
        if not reducer.startswith("arg"):
            return replace(value, text=f"gdsl_{sign}({value.text}, {axis}, False)")
        named = self.define("v", value)
        best = self.define("best", replace(named, text=f"gdsl_{sign}({named.text}, {axis}, True)"))
        hits = best_places(named.text, best.text)
        number = along(self.axis_name(dim), len(frame), len(wide))
        return replace(named, text=f"tl.min(tl.where({hits}, {number}, {dim.size - 1}), axis={axis})")


_ANYWHERE = (GLOBAL, ROW, COLUMN, EDGE)

_NAMED = ("contract", "reduce", "random", "table_product")
_WORDS = {"contract": "dot", "reduce": "best", "random": "uniform", "table_product": "terms"}
