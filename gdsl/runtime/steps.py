"""Steps of a plan that run in one native call: kernels of the C++ backend, and products of matrices, by torch's BLAS or
our own.

Between two steps Python looks up tensors, allocates and calls: some 15 µs, where a kernel or a product takes 2 to 5 on
a graph of 30 nodes. Here the steps are numbers, written once; a call adds addresses and sizes, and what no later step
reads lies in one piece of memory. Both ways give the same bits. ``steps.cpp`` reads the numbers.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gdsl.codegen.schedule import LEAST_GROUPS, MOST_BYTES, SMALL
from gdsl.ir import build
from gdsl.ir.node import Node
from gdsl.ir.types import Domain, Kind
from gdsl.runtime import prepare, products, reference
from gdsl.runtime.copies import address
from gdsl.runtime.cpp import CppLaunch
from gdsl.runtime.dense import Pair, SumOfProducts, SumOverRows, View
from gdsl.runtime.frame import Frame
from gdsl.runtime.items import Item, KernelItem, Storage, TorchItem, as_stored
from gdsl.runtime.stretches import constant, is_part, is_short, stretches

# As in steps.cpp.
MOST_POINTERS = 112
# As in extension/steps.cpp: tensors that a native call is given, or makes.
MOST_TENSORS = 128
KERNEL, PRODUCTS, OVER_ROWS, DEGREE, ARITHMETIC, ARRANGE, PART = range(7)
_ALIGNMENT = 64

# What is done with numbers that are the same for all rows, as in steps.cpp: of these, every way to compute gives the
# same bits.
_BOOL = ("eq", "ne", "lt", "le", "gt", "ge")
_ARITHMETIC = {op: k for k, op in enumerate(("add", "sub", "mul", "div", "neg", "leaky_relu", "where", *_BOOL))}

# Parts of parameters, and what is put together of parts.
_ARRANGING = frozenset({"slice", "transpose", "cat"})

# Where a call says how many rows there are of a global value, of targets, sources, edges and graphs.
_ROWS = {Domain.GLOBAL: 0, Domain.NODE: 1, Domain.TARGET: 1, Domain.SOURCE: 2, Domain.EDGE: 3, Domain.GRAPH: 4}
_DEGREES = {"out_degree": 0, "in_degree": 1}


@cache
def _blas() -> Mapping[torch.dtype, int]:
    """The addresses of the products of matrices that torch itself calls, where its library shows them."""
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    found = ctypes.CDLL(str(library) if library.exists() else None)
    names = {torch.float32: "sgemm_", torch.float64: "dgemm_"}
    return {dtype: _address(getattr(found, name)) for dtype, name in names.items() if hasattr(found, name)}


def _address(function: Any) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def is_native(item: Item, storage: Storage) -> bool:
    """Whether a step can be one of a native call."""
    if isinstance(item, TorchItem) and any(n.domain is Domain.OWN for n in (item.step.node, *item.reads)):
        return False
    if isinstance(item, KernelItem):
        pointers = len(item.reads) + len(item.writes) + 4
        sums = all(w.dtype is storage.dtype for w in item.writes if w.domain is None)
        kernel = item.launch.kernel if isinstance(item.launch, CppLaunch) else None
        of_nodes = kernel is not None and kernel.rows is not Domain.EDGE and not kernel.complete
        return of_nodes and pointers <= MOST_POINTERS and sums
    if is_arithmetic(item) or _is_arranging(item):
        return True
    if not isinstance(item, TorchItem) or not item.whole:
        return False
    product = item.product
    if isinstance(product, View):
        return True
    multiplies = storage.dtype in _blas() or products.code(storage.dtype) is not None
    if not multiplies or any(n.kind is not Kind.FLOAT for n in item.reads):
        return False
    if isinstance(product, SumOfProducts):
        turned = [_turned(item.reads[p.matrix], p) for p in product.pairs if p.lies is None]
        return all(is_short(n) for n in turned)
    return isinstance(product, SumOverRows) and (product.is_straight or is_short(_back(item)[1]))


def is_slight(item: Item) -> bool:
    """Whether it is too little for a native call of its own."""
    of_numbers = is_arithmetic(item) or _is_arranging(item)
    return of_numbers or (isinstance(item, TorchItem) and isinstance(item.product, View))


def is_arithmetic(item: Item) -> bool:
    """Whether it computes with numbers that are the same for all rows, place by place."""
    if not isinstance(item, TorchItem) or item.step.node.op not in _ARITHMETIC or item.step.absorbed:
        return False
    node = item.step.node
    reads = item.reads[1:] if node.op == "where" else item.reads
    chosen = [n.kind for n in item.reads[: len(item.reads) - len(reads)]] in ([], [Kind.BOOL])
    real = all(n.kind is Kind.FLOAT for n in reads) and node.kind is (Kind.BOOL if node.op in _BOOL else Kind.FLOAT)
    alike = all(n.domain is Domain.GLOBAL and (not n.dims or n.dims == node.dims) for n in item.reads)
    return node.domain is Domain.GLOBAL and chosen and real and alike


def _is_arranging(item: Item) -> bool:
    """Whether it only says where numbers stand, in each row the same."""
    if not isinstance(item, TorchItem) or item.step.node.op not in _ARRANGING or item.step.absorbed:
        return False
    node = item.step.node
    real = node.kind is Kind.FLOAT and all(n.kind is Kind.FLOAT for n in item.reads)
    rows = {n.domain for n in item.reads} <= {node.domain, Domain.GLOBAL}
    # What torch makes of values with rows may have fewer of them, or lie otherwise.
    known = node.domain is Domain.GLOBAL or (item.whole and node.domain in _ROWS)
    one = len({constant(n) for n in item.reads} - {None}) <= 1
    return node.type.numel > 0 and real and rows and known and one and is_short(node)


def _turned(matrix: Node, pair: Pair) -> Node:
    """The matrix of a product as [depth, width]."""
    return build.transpose(matrix, [matrix.type.names[k] for k in pair.turn])


def _back(item: TorchItem) -> tuple[Node, Node]:
    """What a sum over rows has before it is turned, and how it is turned."""
    node, product = item.step.node, item.product
    assert isinstance(product, SumOverRows)
    made = build.transpose(node, [node.type.names[product.turn.index(k)] for k in range(len(product.turn))])
    return made, build.transpose(made, node.type.names)


def _bits(value: float) -> int:
    return int(*struct.unpack("q", struct.pack("d", value)))


# An operand of arithmetic: a number of the program, one for all places, one for each.
_FIXED, _ONE, _ALL = range(3)


class Together:
    """Steps that run in one native call on small graphs; ``later`` is what is read of what they make after them.

    items:    the same steps, for other graphs
    releases: after each of them, the values that no later step reads
    passed:   inputs that are results as they are
    """

    def __init__(
        self,
        items: Sequence[Item],
        releases: Sequence[tuple[Node, ...]],
        storage: Storage,
        later: Collection[Node],
        passed: Sequence[Node] = (),
    ):
        self.items, self.releases, self.storage = items, releases, storage
        writer = _StepWriter(storage, _needed(items, later))
        for item in items:
            writer.add(item)
        for node in passed:
            writer.read(node, storage.of(node))
        needed = {writer.root(node) for node in later if node in writer.roots or node in writer.written}
        made = [node for node in writer.written if node in needed]
        inner = [node for node in writer.written if node not in needed]
        self._views = _needed_views(writer.views, later)
        self._given = tuple(writer.given.items())
        self._made = tuple((node, _ROWS[node.domain], node.type.shape, storage.of(node)) for node in made)
        self._places, at = writer.places(inner)
        self._orders = tuple(end for end in (0, 1) if writer.orders[end])
        self._kept, self._totals = writer.kept, writer.totals
        self._alignment = _ALIGNMENT * (len(self._places) + MOST_POINTERS)
        self._pack = struct.Struct(f"{5 + 1 + 6 + 6 + 1 + len(self._given) + len(made)}q").pack
        slots = {node: k for k, node in enumerate((*writer.given, *made, *inner))}
        multiplies = any(isinstance(i, TorchItem) and isinstance(i.product, SumOfProducts | SumOverRows) for i in items)
        own = products.code(storage.dtype) if multiplies else None
        multiply = (_blas().get(storage.dtype, 0), *((0, 0) if own is None else own.addresses))
        head = (*multiply, len(self._given) + len(made), len(self._places), len(inner), writer.steps)
        body = [slots[word] if isinstance(word, Node) else word for word in writer.words]
        words = (*head, *(number for about in self._places for number in about), *at, *body)
        self._program = (ctypes.c_int64 * len(words))(*words)
        self._at = ctypes.addressof(self._program)

    def run(self, memory: dict[Node, Tensor], frame: Frame) -> bool:
        """Fill ``memory`` with what is read later. False, with nothing done, where the steps must run one by one."""
        native = prepare.native()
        if native is None:
            return False
        graph, storage = frame.graph, self.storage
        by_source: tuple[int, ...] = _NO_ORDER
        by_target: tuple[int, ...] = _NO_ORDER
        groups = longest = 0
        for end in self._orders:
            order = graph.in_edges if end else graph.out_edges
            if order.num_blocks > LEAST_GROUPS or order.has_hubs:
                return False
            groups, longest = max(groups, order.num_blocks), max(longest, order.max_degree)
            if end:
                by_target = order.addresses
            else:
                by_source = order.addresses
        rows = (1, graph.num_targets, graph.num_readable, graph.num_edges, frame.num_graphs)
        threads = torch.get_num_threads()
        room = self._totals * groups + self._alignment
        if self._kept:
            room += self._kept * min(threads, groups) * (longest + 1)
        for domain, width in self._places:
            room += rows[domain] * width
        if room > MOST_BYTES:
            return False
        # The list keeps converted tensors alive until the steps have run.
        tensors, device = [], frame.device
        for node, dtype in self._given:
            value = memory.get(node)
            if value is None:
                value = memory[node] = reference.evaluate(node, [], frame)
            tensors.append(as_stored(value, dtype))
        for node, place, shape, dtype in self._made:
            value = memory[node] = torch.empty((rows[place], *shape) if place else shape, dtype=dtype, device=device)
            tensors.append(value)
        arena = torch.empty(room, dtype=torch.uint8, device=device) if room > SMALL else None
        addresses = [address(t) for t in tensors]
        at = 0 if arena is None else arena.data_ptr()
        call = self._pack(*rows, threads, *by_source, *by_target, at, *addresses)
        native.steps[storage.dtype, storage.index](self._at, call)
        for node, operand, view in self._views:
            memory[node] = view([_given(operand, memory, frame)])
        return True

    def native(
        self, inputs: Sequence[Node], outputs: Sequence[Node], most: Sequence[tuple[Domain, int]]
    ) -> NativeSteps | None:
        """The steps as native calls take them; None where they need more than these inputs, or where an output is no
        view of what they make or are given.

        most: how many rows values of a domain may have
        """
        lies = {node: operand for node, operand, _ in self._views}
        roots = [_root(o, lies) for o in outputs]
        # The first output that lies somewhere is all that lies there.
        first = dict(reversed(list(zip(roots, outputs, strict=True))))
        places = {node: k for k, (node, *_) in enumerate(self._made)}
        places |= {node: -1 - k for k, (node, _) in enumerate(self._given)}
        if any(root not in places for root in roots):
            return None
        if any(node not in inputs or node.domain not in _ROWS for node, _ in self._given):
            return None
        if max(len(self._given), len(self._made)) > MOST_TENSORS:
            return None

        def like(node: Node) -> tuple[Any, ...]:
            return _ROWS[node.domain], node.type.shape, self.storage.of(node)

        results = tuple(
            (places[root], places[root] < 0 or root in roots[:k], like(output))
            for k, (root, output) in enumerate(zip(roots, outputs, strict=True))
        )
        return NativeSteps(
            (
                _address(prepare.native(wait=True).steps[self.storage.dtype, self.storage.index]),  # type: ignore[union-attr]
                tuple(self._program),
                tuple((inputs.index(n), dtype, _ROWS[n.domain], n.type.numel) for n, dtype in self._given),
                tuple(like(first[node]) for node, *_ in self._made),
                results,
                tuple((_ROWS[domain], rows) for domain, rows in most),
                self._places,
                tuple(int(end in self._orders) for end in (0, 1)),
                self._kept,
                self._totals,
                self._alignment,
            )
        )


class NativeSteps(NamedTuple):
    """Steps as native calls take them: what ``Steps`` in extension/steps.cpp is made of."""

    words: tuple[Any, ...]

    def on(self, places: Sequence[int]) -> tuple[Any, ...]:
        """The words, for inputs that lie at these places among the tensors of a call."""
        function, program, given, *more = self.words
        return function, program, tuple((places[k], *about) for k, *about in given), *more


def _root(node: Node, lies: Mapping[Node, Node]) -> Node:
    while node in lies:
        node = lies[node]
    return node


_NO_ORDER = (0,) * 6


def _given(node: Node, memory: dict[Node, Tensor], frame: Frame) -> Tensor:
    value = memory[node]
    return value if value.is_contiguous() else reference.full(value, node.type, frame)


def _needed(items: Sequence[Item], later: Collection[Node]) -> frozenset[Node]:
    """What is read later, and of what those are views."""
    wanted = set(later)
    for item in reversed(items):
        if isinstance(item, TorchItem) and isinstance(item.product, View) and item.step.node in wanted:
            wanted.update(item.reads)
    return frozenset(wanted)


def _needed_views(
    views: Sequence[tuple[Node, Node, View]], later: Collection[Node]
) -> tuple[tuple[Node, Node, View], ...]:
    """Those that are read later, and the views that these are views of."""
    wanted, found = set(later), []
    for node, operand, view in reversed(views):
        if node in wanted:
            wanted.add(operand)
            found.append((node, operand, view))
    return tuple(reversed(found))


class _StepWriter:
    """Writes the program of steps, in which nodes stand for the memory where their values lie.

    needed:  what must lie where no other value lies
    parts:   values that lie in others, and in which
    given:   what is read, in order, and as which dtype
    written: what is made, in order
    lives:   the first and the last step that a value is of
    roots:   for each view, where it lies
    views:   (node, operand, view)
    orders:  whether the edges by source and by target are read
    kept:    bytes an edge that kernels keep between two walks, the most of all kernels
    totals:  bytes of a partial sum of all totals of a kernel, the most of all kernels
    """

    def __init__(self, storage: Storage, needed: Collection[Node]):
        self.storage, self.needed = storage, needed
        self.words: list[int | Node] = []
        self.steps = 0
        self.lives: dict[Node, tuple[int, int]] = {}
        self.given: dict[Node, torch.dtype] = {}
        self.written: dict[Node, None] = {}
        self.parts: dict[Node, Node] = {}
        self.roots: dict[Node, Node] = {}
        self.views: list[tuple[Node, Node, View]] = []
        self.orders = [False, False]
        self.kept = self.totals = 0

    def add(self, item: Item) -> None:
        """A step after those that are there."""
        if isinstance(item, KernelItem):
            self._kernel(item)
        else:
            assert isinstance(item, TorchItem)
            self._torch(item)

    def root(self, node: Node) -> Node:
        """Where the value of a node lies."""
        return self.roots.get(node, node)

    def _step(self, kind: int, *words: int | Node) -> None:
        self.words += (kind, *words)
        for node in words:
            if isinstance(node, Node):
                self.lives[node] = self.lives.get(node, (self.steps, 0))[0], self.steps
        self.steps += 1

    def places(self, inner: Sequence[Node]) -> tuple[tuple[tuple[int, int], ...], tuple[int, ...]]:
        """Memory for values that nobody sees: for each place which number of the graph counts its rows, and how many
        bytes a row has, and of each value its place, -1 for what lies in another. Those of which one is no longer
        read when the other is made share one."""
        last = {node: end for node, (_, end) in self.lives.items()}
        for node, whole in reversed(self.parts.items()):
            last[whole] = max(last[whole], last[node])
        alone = [node for node in inner if node not in self.parts]
        found: list[tuple[int, int]] = []
        free: list[tuple[int, int]] = []  # until which step a place is read
        at = dict.fromkeys(inner, -1)
        for node in sorted(alone, key=lambda n: self.lives[n][0]):
            rows, width = _ROWS[node.domain], node.type.numel * self.storage.of(node).itemsize
            first = self.lives[node][0]
            fits = [k for k, end in free if end < first and found[k][0] == rows]
            # The least of those that are wide enough, or else the widest.
            chosen = min(fits, key=lambda k: (found[k][1] < width, abs(found[k][1] - width)), default=len(found))
            if chosen == len(found):
                found.append((rows, width))
            else:
                found[chosen] = rows, max(found[chosen][1], width)
            free = [(k, end) for k, end in free if k != chosen] + [(chosen, last[node])]
            at[node] = chosen
        return tuple(found), tuple(at.values())

    def read(self, node: Node, dtype: torch.dtype) -> Node:
        node = self.root(node)
        if node in self.written or node in self.given:
            return node
        of_nodes = node.op == "graph_value" and node.domain is not Domain.EDGE
        if of_nodes and dtype is self.storage.dtype and node.attrs.what in _DEGREES:
            order = _DEGREES[node.attrs.what]
            self.orders[order] = True
            self.written[node] = None
            self._step(DEGREE, node, order)
        else:
            self.given[node] = dtype
        return node

    def _kernel(self, item: KernelItem) -> None:
        launch = item.launch
        assert isinstance(launch, CppLaunch)
        reads = [self.read(node, dtype) for node, dtype in item.reads]
        self.written |= dict.fromkeys(w.node for w in item.writes)
        order, size = int(not launch.over_out_edges), self.storage.dtype.itemsize
        self.orders[order] = True
        kept = launch.kept * size
        totals = [(len(reads) + k, w.node.type.numel) for k, w in enumerate(item.writes) if w.domain is None]
        self.kept = max(self.kept, kept)
        self.totals = max(self.totals, sum(numbers for _, numbers in totals) * size)
        pointers = [*reads, *(w.node for w in item.writes)]
        about = [number for total in totals for number in total]
        walks = int(launch.kernel.end is not None)
        self._step(KERNEL, _address(launch.function), order, walks, kept, len(pointers), *pointers, len(totals), *about)

    def _torch(self, item: TorchItem) -> None:
        node, product, dtype = item.step.node, item.product, self.storage.dtype
        if isinstance(product, View):
            (operand,) = item.reads
            self.roots[node] = self.read(operand, self.storage.of(operand))
            self.views.append((node, operand, product))
            return
        if is_arithmetic(item):
            about: list[int | Node] = []
            for n in item.reads:
                if n.op == "const":
                    about += (_FIXED, _bits(float(n.attrs.value)))
                else:
                    about += (_ALL if n.dims else _ONE, self.read(n, self.storage.of(n)))
            self._step(ARITHMETIC, node, _ARITHMETIC[node.op], node.type.numel, *about)
            self.written[node] = None
            return
        if _is_arranging(item):
            self._arrange(node, node)
            return
        reads = [self.read(n, dtype) for n in item.reads]
        if isinstance(product, SumOfProducts):
            biases = [reads[k] for k in product.biases]
            pairs: list[int | Node] = []
            for p in product.pairs:
                matrix = reads[p.matrix]
                if p.lies is None:
                    turned = _turned(item.reads[p.matrix], p)
                    if turned not in self.written:
                        self._arrange(turned, turned)
                    matrix = turned
                pairs += (reads[p.rows], matrix, p.depth, int(bool(p.lies)))
            rows, width = _ROWS[node.domain], node.type.numel
            self._step(PRODUCTS, node, rows, width, len(biases), *biases, len(product.pairs), *pairs)
        else:
            assert isinstance(product, SumOverRows)
            left, right, (depth, width) = reads[product.left], reads[1 - product.left], product.widths
            rows = _ROWS[item.reads[0].domain]
            if not product.is_straight:
                made, turned = _back(item)
                self._step(OVER_ROWS, made, rows, left, depth, right, width)
                self.written[made] = None
                self._arrange(node, turned)
                return
            self._step(OVER_ROWS, node, rows, left, depth, right, width)
        self.written[node] = None

    def _arrange(self, node: Node, as_in: Node) -> None:
        """Numbers of what another node reads, put where that has them."""
        otherwise = next((value for n in as_in.inputs if (value := constant(n)) is not None), 0.0)
        sources: list[int | Node] = []
        for n in as_in.inputs:
            width = 0 if n.domain is Domain.GLOBAL else n.type.numel
            sources += (node if n.op == "const" else self.read(n, self.storage.dtype), width)
        runs = stretches(as_in)
        if node.domain is Domain.GLOBAL and node not in self.needed and is_part(runs):
            source = sources[2 * runs[0].operand]
            assert isinstance(source, Node)
            self._step(PART, node, source, runs[0].start)
            self.parts[node] = source
        else:
            about = [number for run in runs for number in run]
            fill = _bits(otherwise)
            self._step(ARRANGE, node, _ROWS[node.domain], fill, len(as_in.inputs), *sources, len(runs), *about)
        self.written[node] = None
