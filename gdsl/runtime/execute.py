"""Running a plan: buffers, kernels and torch steps, in order. How a kernel is compiled and called is a backend's."""

from __future__ import annotations

import weakref
from collections.abc import Collection, Mapping, Sequence
from importlib import import_module
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from gdsl.ir.node import Node
from gdsl.ir.ops import of
from gdsl.ir.types import Domain
from gdsl.passes.plan import Kernel, Plan, Step, TorchStep
from gdsl.passes.tiles import Tile, tiled
from gdsl.runtime import cache, products, reference
from gdsl.runtime.dense import matrix_product, sum_of_products, view
from gdsl.runtime.frame import Frame
from gdsl.runtime.halo import Begun
from gdsl.runtime.items import (
    HALF,
    Item,
    KernelItem,
    Launch,
    Storage,
    TileItem,
    TorchItem,
    Write,
    as_stored,
    storage_of,
)
from gdsl.runtime.results import Results, last_uses
from gdsl.runtime.steps import NativeSteps, Together, is_arithmetic, is_native, is_slight
from gdsl.runtime.transforms import ordinary

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
        self.outputs = tuple(outputs)
        self.results = Results(self.outputs, visible, frozenset())

    def run(self, values: Mapping[Node, Tensor], frame: Frame) -> list[Tensor]:
        wide, computed = values, frame
        if frame.dtype in HALF:
            wide = {node: value.float() if value.dtype in HALF else value for node, value in values.items()}
            computed = frame._replace(dtype=torch.float32)
        return self.results.own(reference.run(self.outputs, wide, computed), values.values(), frame.dtype)


def can_begin(backend: str) -> bool:
    """Whether a plan can be compiled beside what else runs."""
    return backend in BY_ROWS and cache.has_free_core()


def begin(plan: Plan, backend: str, dtype: torch.dtype, index_dtype: torch.dtype, visible: int) -> str:
    """Start to compile a plan. Gives the source of its kernels."""
    return import_module(BACKENDS[backend]).begin(plan, storage_of(plan, dtype, index_dtype, visible))


class KernelPlan:
    """A plan whose kernels a backend compiles. ``source`` is what :func:`begin` gave, if it was."""

    def __init__(
        self,
        plan: Plan,
        backend: str,
        dtype: torch.dtype,
        index_dtype: torch.dtype,
        visible: int,
        source: str | None = None,
    ):
        self.plan, self.storage = plan, storage_of(plan, dtype, index_dtype, visible)
        # Halves are turned into whole numbers between steps, all rows at once.
        by_rows = backend in BY_ROWS and self.storage.stored is self.storage.dtype
        by_torch = (step for step in plan.steps if isinstance(step, TorchStep))
        if by_rows and any(n.op == "contract" for step in by_torch for n in step.computed):
            products.begin(self.storage.dtype)
        begun = () if source is None else (source,)
        launches = import_module(BACKENDS[backend]).bind(plan, self.storage, *begun) if plan.kernels else {}
        written = {o for k in plan.kernels for o in k.outputs}
        steps: Sequence[Step | Tile] = _of_parameters_first(tiled(plan)) if by_rows else plan.steps

        def prepared(step: Step | Tile) -> TorchItem | KernelItem | TileItem:
            if isinstance(step, TorchStep):
                made = _torch_step(step, written)
                together = is_arithmetic(made) or step.node.op == "cat"
                if together or (made.product is not None and step.node.op != "reshape"):
                    written.add(step.node)
                return made
            if isinstance(step, Kernel):
                return _call(step, launches[step], self.storage)
            inner = tuple(_torch_step(p, written) for p in step.products)
            return TileItem(_call(step.kernel, launches[step.kernel], self.storage), inner, step.inner)

        items = [prepared(s) for s in steps]
        written |= {p.step.node for s in items if isinstance(s, TileItem) for p in s.products if p.product}
        self.outputs = tuple((o, o in written) for o in plan.program.nodes)
        self.results = Results(plan.program.nodes, visible, written)
        releases = last_uses([step.buffers for step in steps], plan.program.nodes)
        self.steps: Sequence[Item | Together] = items
        self.releases = releases
        if by_rows:
            self.steps, self.releases = _together(steps, items, releases, plan.program.nodes, self.storage)
        # Whether some steps begin what takes a while: the others go on until it is read.
        self.travels = any(of(n).travels for step in plan.steps for n in step.outputs)
        first = self.steps[0] if len(self.steps) == 1 else None
        self.whole = first if isinstance(first, Together) else None
        self._items = items

    def native(self, inputs: Sequence[Node]) -> NativeSteps | None:
        """The plan as native calls take it; None where a step is none of theirs."""
        storage, outputs = self.storage, self.plan.program.nodes
        items: list[Item] = []
        most: list[tuple[Domain, int]] = []
        for item in self._items:
            if isinstance(item, TileItem):
                items += (item.call, *item.products)
                most.append(_tile_of(item))
            else:
                items.append(item)
        if storage.stored is not storage.dtype or not all(is_native(item, storage) for item in items):
            return None
        # What runs at once releases nothing on the way.
        whole = Together(items, [()] * len(items), storage, outputs, [o for o in outputs if o.op == "load"])
        return whole.native(inputs, outputs, most)

    def run(self, values: dict[Node, Tensor], frame: Frame) -> list[Tensor]:
        """The program's outputs. ``values`` has a tensor for each load, which is let go when it has been read where the
        plan alone knows of it: ``values`` is the memory of the run."""
        taken = tuple(values.values()) if self.results.doubtful else ()
        memory, storage = values, self.storage
        half = storage.stored is not storage.dtype
        if half:
            frame = frame._replace(dtype=storage.dtype)
        if self.whole is None or not self.whole.run(memory, frame):
            self._walk(self.steps, self.releases, memory, frame)
        found = [
            memory[o] if whole else reference.full(_fetch(o, memory, frame), o.type, frame) for o, whole in self.outputs
        ]
        return self.results.own(found, taken, storage.stored)

    def _walk(
        self,
        steps: Sequence[Item | Together],
        releases: Sequence[tuple[Node, ...]],
        memory: dict[Node, Tensor],
        frame: Frame,
    ) -> None:
        begun: dict[Node, Begun] = {}
        # What goes to other processes next, together.
        going: dict[Node, Tensor] = {}
        for step, dead in zip(steps, releases, strict=True):
            if going and not _goes_along(step, going):
                begun |= _begin(going, frame)
            if begun:
                for node in _reads(step).intersection(begun):
                    memory[node] = begun.pop(node)()
            if isinstance(step, Together):
                if not step.run(memory, frame):
                    self._walk(step.items, step.releases, memory, frame)
            elif isinstance(step, TorchItem) and self.travels and of(step.step.node).travels:
                node = step.step.node
                going[node] = reference.full(_fetch(step.reads[0], memory, frame), step.reads[0].type, frame)
            elif isinstance(step, TorchItem):
                memory[step.step.node] = self._by_torch(step, memory, frame)
            elif isinstance(step, TileItem):
                _run_tile(step, memory, frame)
            else:
                _launch(step, memory, frame)
            for node in dead:
                memory.pop(node, None)
        begun |= _begin(going, frame)
        memory |= {node: wait() for node, wait in begun.items()}

    def _by_torch(self, step: TorchItem, memory: dict[Node, Tensor], frame: Frame) -> Tensor:
        """What a step gives. Nothing holds what it has read any longer than the memory does."""
        args = [_fetch(i, memory, frame) for i in step.reads]
        if self.storage.stored is self.storage.dtype:
            return _evaluate(step, args, frame)
        made = _evaluate(step, [a.float() if a.dtype in HALF else a for a in args], frame)
        narrow = made.dtype is self.storage.dtype and step.step.node.domain is not Domain.GLOBAL
        return made.to(self.storage.stored) if narrow else made


def _goes_along(step: Item | Together, going: Collection[Node]) -> bool:
    """Whether a step sends something in the message of what is about to go."""
    alike = isinstance(step, TorchItem) and step.step.node.op == next(iter(going)).op
    return alike and _reads(step).isdisjoint(going)


def _begin(going: dict[Node, Tensor], frame: Frame) -> dict[Node, Begun]:
    """What goes to other processes, begun; nothing is left to go."""
    nodes, values = list(going), list(going.values())
    going.clear()
    return dict(zip(nodes, frame.begin(nodes, values), strict=True)) if nodes else {}


def _reads(step: Item | Together) -> set[Node]:
    """What a step reads from memory."""
    if isinstance(step, TorchItem):
        return set(step.reads)
    if isinstance(step, KernelItem):
        return {node for node, _ in step.reads}
    if isinstance(step, TileItem):
        return {node for node, _ in step.call.reads}.union(*(p.reads for p in step.products))
    return set().union(*map(_reads, step.items))


def _of_parameters_first(steps: Sequence[Step | Tile]) -> list[Step | Tile]:
    """The steps of torch that parameters alone go into, such as parts of a matrix, before all others: these can then
    run together. Views stay where they are, which cost nothing there."""
    alone: dict[Node, TorchStep] = {}
    for step in steps:
        if isinstance(step, TorchStep) and all(
            b.domain is Domain.GLOBAL and (not b.inputs or b in alone) for b in step.buffers
        ):
            alone[step.node] = step
    first: list[Step | Tile] = []
    for step in reversed(alone.values()):
        if step.node.op != "reshape" or any(step.node in other.buffers for other in first):
            first.insert(0, step)
    return [*first, *(step for step in steps if step not in first)]


def _together(
    steps: Sequence[Step | Tile],
    items: Sequence[Item],
    releases: Sequence[tuple[Node, ...]],
    outputs: Collection[Node],
    storage: Storage,
) -> tuple[list[Item | Together], list[tuple[Node, ...]]]:
    """The items of steps, those as one that follow each other and can run in one native call."""
    found: list[Item | Together] = []
    dead: list[tuple[Node, ...]] = []
    for native, group in groupby(range(len(items)), lambda k: is_native(items[k], storage)):
        places = list(group)
        some, after = [items[k] for k in places], [releases[k] for k in places]
        if native and not all(is_slight(item) for item in some):
            later = {b for step in steps[places[-1] + 1 :] for b in step.buffers}.union(outputs)
            found.append(Together(some, after, storage, later))
            dead.append(tuple(node for nodes in after for node in nodes))
        else:
            found += some
            dead += after
    return found, dead


# What torch makes of these has all its rows and dims, as what kernels write; other values may be broadcast.
_WHOLE = frozenset({"load", "contract", "cat", "slice", "reshape", "segment", "gather", "scatter"})


def _torch_step(step: TorchStep, written: set[Node]) -> TorchItem:
    product = sum_of_products(step) if step.absorbed else matrix_product(step.node) or view(step.node)
    reads = step.buffers if step.absorbed else step.node.inputs
    return TorchItem(step, reads, product, all(i in written or i.op in _WHOLE for i in reads))


def _evaluate(step: TorchItem, args: Sequence[Tensor], frame: Frame) -> Tensor:
    if step.product is None:
        return reference.evaluate(step.step.node, args, frame)
    pairs = zip(args, step.reads, strict=True)
    return step.product([a if step.whole and a.is_contiguous() else reference.full(a, i.type, frame) for a, i in pairs])


def _call(kernel: Kernel, launch: Launch, storage: Storage) -> KernelItem:
    totals = set(kernel.all_totals)
    return KernelItem(
        launch,
        tuple((b, storage.of(b)) for b in kernel.buffers),
        tuple(Write(o, None if o in totals else o.domain, o.type.shape, storage.of(o)) for o in kernel.outputs),
    )


def _fetch(node: Node, memory: dict[Node, Tensor], frame: Frame) -> Tensor:
    """The tensor of a node; constants and what the graph holds are made on first use."""
    value = memory.get(node)
    if value is None:
        value = memory[node] = _table(node, frame) if node.op == "table" else reference.evaluate(node, [], frame)
    return value


# Kept, since a GPU is waited for when numbers are copied to it.
_tables: weakref.WeakKeyDictionary[Node, dict[Any, Tensor]] = weakref.WeakKeyDictionary()


def _table(node: Node, frame: Frame) -> Tensor:
    made, at = _tables.setdefault(node, {}), (frame.device, frame.dtype)
    if at not in made:
        made[at] = ordinary(reference.evaluate, node, [], frame)
    return made[at]


def _launch(call: KernelItem, memory: dict[Node, Tensor], frame: Frame) -> None:
    groups = call.launch.groups(frame)
    # The list keeps converted inputs alive until the kernel has run.
    reads = [as_stored(_fetch(node, memory, frame), dtype) for node, dtype in call.reads]
    writes = [_room(w, groups, frame) for w in call.writes]
    more = call.launch(reads, writes, groups, frame)
    for w, value in zip(call.writes, writes, strict=True):
        memory[w.node] = value if w.domain is not None or groups == 1 else value.sum(0)
        if more and w.node in more:
            memory[w.node] += more[w.node]


# Room for the wide values of a tile's rows: a part of the cache that cores share.
TILE_BYTES = 1 << 22


def _tile_of(tile: TileItem) -> tuple[Domain, int]:
    """What the inner values are values of, and how many rows of them a tile has."""
    width = sum(w.node.type.numel * w.dtype.itemsize for w in tile.call.writes if w.node in tile.inner)
    return next(iter(tile.inner)).domain, max(1, TILE_BYTES // width)


def _run_tile(tile: TileItem, memory: dict[Node, Tensor], frame: Frame) -> None:
    domain, rows = _tile_of(tile)
    count = frame.rows(domain)
    if rows < count:
        _run_in_turns(tile, memory, frame, rows, count)
        return
    _launch(tile.call, memory, frame)
    for p in tile.products:
        memory[p.step.node] = _evaluate(p, [_fetch(i, memory, frame) for i in p.reads], frame)
    for node in tile.inner:
        del memory[node]


def _run_in_turns(tile: TileItem, memory: dict[Node, Tensor], frame: Frame, rows: int, count: int) -> None:
    """The kernel for some of ``count`` rows, then their products, then the next."""
    call, inner = tile.call, [w.node in tile.inner for w in tile.call.writes]
    reads = [as_stored(_fetch(node, memory, frame), dtype) for node, dtype in call.reads]
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


def _room(write: Write, groups: int, frame: Frame) -> Tensor:
    """Memory for what a kernel writes."""
    if write.domain is None:
        return torch.empty(_shape(write, groups, frame), dtype=write.dtype, device=frame.device)
    # What torch.empty gives, in half the time.
    shape = (frame.rows(write.domain), *write.shape)
    return torch.empty_strided(shape, write.strides, dtype=write.dtype, device=frame.device)


def _shape(write: Write, groups: int, frame: Frame) -> tuple[int, ...]:
    if write.domain is not None:
        return (frame.rows(write.domain), *write.shape)
    return write.shape if groups == 1 else (groups, *write.shape)
