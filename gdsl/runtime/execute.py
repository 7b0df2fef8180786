"""Running a plan: buffers, kernels and torch steps, in order. How a kernel is compiled and called is a backend's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Protocol

import torch
from torch import Tensor

from gdsl.codegen import reference
from gdsl.codegen.reference import Frame
from gdsl.codegen.storage import packed_buffers
from gdsl.codegen.values import c_type
from gdsl.ir.node import Node
from gdsl.ir.ops.edges import finds_winners
from gdsl.ir.types import Domain, Kind
from gdsl.passes.plan import Kernel, Plan, Step, TorchStep
from gdsl.passes.tiles import Tile, tiled
from gdsl.runtime.dense import Product, matrix_product, sum_of_products, view
from gdsl.runtime.results import Results

# The C++ names of what kernels compute with and count in.
C_TYPES = {
    torch.float32: "float",
    torch.float64: "double",
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
}
# Kernels read these, compute in float32, and write what is read again in float32.
HALF = (torch.bfloat16, torch.float16)
INDEX_TYPES = {torch.int32: "int32_t", torch.int64: "int64_t"}

# Backend -> the module whose ``bind`` compiles the kernels of a plan.
BACKENDS = {"cpp": "gdsl.runtime.cpp", "triton": "gdsl.runtime.triton"}
# Those whose kernels can run for some rows: a few would not fill a GPU, and its memory is not the system's.
BY_ROWS = frozenset({"cpp"})


class ReferencePlan:
    """A program run by the torch backend, one op at a time. Numbers of 16 bits are computed with in float32, as by
    kernels, and rounded where a user sees them: a count of edges may be beyond them, and a constant between them.

    visible: how many of the outputs a user sees
    """

    def __init__(self, outputs: Sequence[Node], visible: int):
        self.outputs, self.visible = tuple(outputs), visible
        self.results = Results(self.outputs, visible, frozenset())

    def run(self, values: Mapping[Node, Tensor], frame: Frame) -> list[Tensor]:
        if frame.dtype not in HALF:
            return self.results.own(reference.run(self.outputs, values, frame), values.values())
        wide = {node: value.float() if value.dtype in HALF else value for node, value in values.items()}
        found = reference.run(self.outputs, wide, replace(frame, dtype=torch.float32))
        seen = self.visible
        found[:seen] = [v.to(frame.dtype) if v.is_floating_point() else v for v in found[:seen]]
        return self.results.own(found, values.values())


@dataclass(frozen=True)
class Storage:
    """How the values of a plan lie in memory.

    stored:  the dtype of what a user gives and gets
    dtype:   what kernels compute with
    index:   of the graph
    visible: how many of the outputs a user sees
    packed:  buffers of the stored dtype, where it is not the other
    """

    stored: torch.dtype
    dtype: torch.dtype
    index: torch.dtype
    visible: int
    packed: frozenset[Node]

    @property
    def names(self) -> tuple[str, str]:
        """What the code generators call the stored dtype and the index dtype."""
        return C_TYPES[self.stored], INDEX_TYPES[self.index]

    def of(self, node: Node) -> torch.dtype:
        """The dtype of a buffer: see :func:`gdsl.codegen.values.c_type`."""
        if node.kind is Kind.FLOAT:
            return self.stored if node in self.packed else self.dtype
        if node.kind is Kind.BOOL:
            return torch.bool
        return torch.int64 if c_type(node) == "int64_t" else self.index

    def of_part(self, node: Node, winner: bool) -> torch.dtype:
        """The dtype of what a chunk of a hub writes down: see :func:`gdsl.codegen.storage.partials`."""
        return self.index if finds_winners(node) and not winner else self.dtype


def storage_of(plan: Plan, dtype: torch.dtype, index: torch.dtype, visible: int) -> Storage:
    """How the values of a plan lie in memory for a user's dtype."""
    computed = torch.float32 if dtype in HALF else dtype
    return Storage(dtype, computed, index, visible, packed_buffers(plan, C_TYPES[dtype], visible))


class Launch(Protocol):
    """A compiled kernel."""

    def groups(self, frame: Frame) -> int:
        """How many partial sums it makes of each of its totals."""
        ...

    def __call__(self, reads: list[Tensor], writes: list[Tensor], groups: int, frame: Frame) -> Mapping[Node, Tensor]:
        """Fill the tensors of ``writes``. Returns what is to be added to totals besides the partial sums."""
        ...

    def by_rows(
        self, reads: list[Tensor], writes: list[Tensor], inner: Sequence[bool], frame: Frame
    ) -> Iterator[tuple[int, int]]:
        """Fill the tensors of ``writes`` some rows at a time: yields (first, last) after each. For ``BY_ROWS``.

        An ``inner`` tensor has room for some rows, which the next ones replace.
        """
        ...


@dataclass(frozen=True)
class _Write:
    """A tensor that a kernel fills; ``domain`` is None for the partial sums of a total."""

    node: Node
    domain: Domain | None
    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True)
class _Call:
    """A kernel and, worked out once, the tensors of a call of it."""

    launch: Launch
    reads: tuple[tuple[Node, torch.dtype], ...]
    writes: tuple[_Write, ...]


@dataclass(frozen=True)
class _Tile:
    """A kernel and products of what it stores, in turns."""

    call: _Call
    products: tuple[_Torch, ...]
    inner: frozenset[Node]


@dataclass(frozen=True)
class _Torch:
    """A step of torch; ``product`` where that is a sum of matrix products, or a view, for these shapes.

    whole: whether what it reads has all its rows and dims written out
    """

    step: TorchStep
    reads: tuple[Node, ...]
    product: Product | None
    whole: bool


class KernelPlan:
    """A plan whose kernels a backend compiles."""

    def __init__(self, plan: Plan, backend: str, dtype: torch.dtype, index_dtype: torch.dtype, visible: int):
        self.plan, self.storage = plan, storage_of(plan, dtype, index_dtype, visible)
        launches = import_module(BACKENDS[backend]).bind(plan, self.storage) if plan.kernels else {}
        written = {o for k in plan.kernels for o in k.outputs}
        # Halves are turned into whole numbers between steps, all rows at once.
        whole = backend not in BY_ROWS or self.storage.stored is not self.storage.dtype
        steps: Sequence[Step | Tile] = plan.steps if whole else tiled(plan)

        def prepared(step: Step | Tile) -> _Torch | _Call | _Tile:
            if isinstance(step, TorchStep):
                return _torch_step(step, written)
            if isinstance(step, Kernel):
                return _call(step, launches[step], self.storage)
            products = tuple(_torch_step(p, written) for p in step.products)
            return _Tile(_call(step.kernel, launches[step.kernel], self.storage), products, step.inner)

        self.steps = [prepared(s) for s in steps]
        self.releases = _last_uses(steps, plan.program.nodes)
        made = [p for s in self.steps for p in (s.products if isinstance(s, _Tile) else (s,))]
        written |= {p.step.node for p in made if isinstance(p, _Torch) and p.product and p.step.node.op != "reshape"}
        self.outputs = tuple((o, o in written) for o in plan.program.nodes)
        self.results = Results(plan.program.nodes, visible, written)

    def run(self, values: Mapping[Node, Tensor], frame: Frame) -> list[Tensor]:
        """The program's outputs. ``values`` has a tensor for each load."""
        memory: dict[Node, Tensor] = dict(values)
        storage = self.storage
        half = storage.stored is not storage.dtype
        if half:
            frame = replace(frame, dtype=storage.dtype)
        for step, dead in zip(self.steps, self.releases, strict=True):
            if isinstance(step, _Torch):
                args = [_fetch(i, memory, frame) for i in step.reads]
                if half:
                    args = [a.float() if a.dtype in HALF else a for a in args]
                made, node = _evaluate(step, args, frame), step.step.node
                narrow = half and made.dtype is storage.dtype and node.domain is not Domain.GLOBAL
                memory[node] = made.to(storage.stored) if narrow else made
            elif isinstance(step, _Tile):
                _run_tile(step, memory, frame)
            else:
                _launch(step, memory, frame)
            for node in dead:
                memory.pop(node, None)
        found = [
            memory[o] if whole else reference.full(_fetch(o, memory, frame), o.type, frame) for o, whole in self.outputs
        ]
        if half:
            seen = storage.visible
            found[:seen] = [v.to(storage.stored) if v.dtype is storage.dtype else v for v in found[:seen]]
        return self.results.own(found, values.values())


# What torch makes of these has all its rows and dims, as what kernels write; other values may be broadcast.
_WHOLE = frozenset({"load", "contract", "cat", "slice", "reshape", "segment", "gather", "scatter"})


def _torch_step(step: TorchStep, written: set[Node]) -> _Torch:
    product = sum_of_products(step) if step.absorbed else matrix_product(step.node) or view(step.node)
    reads = step.buffers if step.absorbed else step.node.inputs
    return _Torch(step, reads, product, all(i in written or i.op in _WHOLE for i in reads))


def _evaluate(step: _Torch, args: Sequence[Tensor], frame: Frame) -> Tensor:
    if step.product is None:
        return reference.evaluate(step.step.node, args, frame)
    pairs = zip(args, step.reads, strict=True)
    return step.product([a if step.whole and a.is_contiguous() else reference.full(a, i.type, frame) for a, i in pairs])


def _call(kernel: Kernel, launch: Launch, storage: Storage) -> _Call:
    totals = set(kernel.all_totals)
    return _Call(
        launch,
        tuple((b, storage.of(b)) for b in kernel.buffers),
        tuple(_Write(o, None if o in totals else o.domain, o.type.shape, storage.of(o)) for o in kernel.outputs),
    )


def _fetch(node: Node, memory: dict[Node, Tensor], frame: Frame) -> Tensor:
    """The tensor of a node; constants and what the graph holds are made on first use."""
    value = memory.get(node)
    if value is None:
        value = memory[node] = reference.evaluate(node, [], frame)
    return value


def _last_uses(steps: Sequence[Step | Tile], outputs: Sequence[Node]) -> list[tuple[Node, ...]]:
    """After each step, the values that no later step reads."""
    last: dict[Node, int] = {}
    for k, step in enumerate(steps):
        for node in step.buffers:
            last[node] = k
    return [tuple(n for n, at in last.items() if at == k and n not in outputs) for k in range(len(steps))]


def _launch(call: _Call, memory: dict[Node, Tensor], frame: Frame) -> None:
    groups = call.launch.groups(frame)
    # The list keeps converted inputs alive until the kernel has run.
    reads = [_as_stored(_fetch(node, memory, frame), dtype) for node, dtype in call.reads]
    writes = [torch.empty(_shape(w, groups, frame), dtype=w.dtype, device=frame.device) for w in call.writes]
    more = call.launch(reads, writes, groups, frame)
    for w, value in zip(call.writes, writes, strict=True):
        memory[w.node] = value if w.domain is not None or groups == 1 else value.sum(0)
        if w.node in more:
            memory[w.node] += more[w.node]


# Room for the wide values of a tile's rows: a part of the cache that cores share.
TILE_BYTES = 1 << 22


def _run_tile(tile: _Tile, memory: dict[Node, Tensor], frame: Frame) -> None:
    width = sum(w.node.type.numel * w.dtype.itemsize for w in tile.call.writes if w.node in tile.inner)
    count, rows = frame.rows(next(iter(tile.inner)).domain), max(1, TILE_BYTES // width)
    if rows < count:
        _run_in_turns(tile, memory, frame, rows, count)
        return
    _launch(tile.call, memory, frame)
    for p in tile.products:
        memory[p.step.node] = _evaluate(p, [_fetch(i, memory, frame) for i in p.reads], frame)
    for node in tile.inner:
        del memory[node]


def _run_in_turns(tile: _Tile, memory: dict[Node, Tensor], frame: Frame, rows: int, count: int) -> None:
    """The kernel for some of ``count`` rows, then their products, then the next."""
    call, inner = tile.call, [w.node in tile.inner for w in tile.call.writes]
    reads = [_as_stored(_fetch(node, memory, frame), dtype) for node, dtype in call.reads]
    shapes = [(rows, *w.shape) if w.node in tile.inner else _shape(w, 1, frame) for w in call.writes]
    writes = [torch.empty(s, dtype=w.dtype, device=frame.device) for s, w in zip(shapes, call.writes, strict=True)]
    held = memory | {w.node: value for w, value in zip(call.writes, writes, strict=True)}
    read = dict.fromkeys(i for p in tile.products for i in p.reads)
    args = {i: held[i] if i in tile.inner else reference.full(_fetch(i, held, frame), i.type, frame) for i in read}
    for first, last in call.launch.by_rows(reads, writes, inner, frame):
        here = {i: slice(last - first) if i in tile.inner else slice(first, last) for i in read}
        some = {i: a if i.domain is Domain.GLOBAL else a[here[i]] for i, a in args.items()}
        for p in tile.products:
            assert p.product is not None
            _collect(held, p.step.node, p.product([some[i] for i in p.reads]), slice(first, last), count)
    results = (*(w.node for w in call.writes if w.node not in tile.inner), *(p.step.node for p in tile.products))
    memory |= {node: held[node] for node in results}


def _collect(memory: dict[Node, Tensor], node: Node, made: Tensor, rows: slice, count: int) -> None:
    """What the product of some rows is: these rows of the result, or a term of a sum over all."""
    if node.domain is Domain.GLOBAL:
        memory[node] = made if node not in memory else memory[node].add_(made)
        return
    if node not in memory:
        memory[node] = made.new_empty((count, *made.shape[1:]))
    memory[node][rows] = made


def _shape(write: _Write, groups: int, frame: Frame) -> tuple[int, ...]:
    if write.domain is not None:
        return (frame.rows(write.domain), *write.shape)
    return write.shape if groups == 1 else (groups, *write.shape)


def _as_stored(value: Tensor, dtype: torch.dtype) -> Tensor:
    """The value as kernels read it; nothing is done where it lies so already."""
    if value.dtype is dtype and value.is_contiguous():
        return value
    return value.to(dtype).contiguous()
