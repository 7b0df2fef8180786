"""Kernels of the C++ backend: compiled, loaded, and called with pointers."""

from __future__ import annotations

import ctypes
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from gdsl.codegen import cpp
from gdsl.codegen.cpp_writer import hub_name
from gdsl.codegen.dots import BEYOND, stride, turned
from gdsl.codegen.hubs import generate_hubs
from gdsl.codegen.schedule import HUB_EDGES, LEAST_GROUPS
from gdsl.codegen.storage import partials
from gdsl.ir.node import Node
from gdsl.ir.types import Domain
from gdsl.passes.plan import Kernel, Plan
from gdsl.runtime import cache, freed
from gdsl.runtime.complete import CompleteOrder
from gdsl.runtime.copies import address
from gdsl.runtime.dtypes import CPU
from gdsl.runtime.frame import Frame
from gdsl.runtime.items import Storage
from gdsl.runtime.order import Order
from gdsl.runtime.pairs import PairOrder

# Partial sums of a total take at most about this many numbers, yet never fewer groups than feed the threads.
TOTAL_NUMBERS = 1 << 22

# Blocks of the rows of a tile: enough for the threads to end together.
TILE_BLOCKS = 64

NOTHING: Mapping[Node, Tensor] = {}


def bind(plan: Plan, storage: Storage, source: str | None = None) -> dict[Kernel, CppLaunch]:
    """Compile and load the kernels of a plan. ``source`` is what :func:`begin` gave."""
    freed.keep()
    library = cache.load(source or cpp.generate(plan, *storage.names, storage.visible), name=plan.program.name)
    hubs = _Hubs(plan, storage)
    return {kernel: _bind(kernel, library, storage, hubs) for kernel in plan.kernels}


def begin(plan: Plan, storage: Storage) -> str:
    """Start to compile the kernels of a plan. Gives their source."""
    source = cpp.generate(plan, *storage.names, storage.visible)
    if plan.kernels:
        cache.begin(source, name=plan.program.name)
    return source


@dataclass(frozen=True)
class _Hubs:
    """The functions for rows that are hubs, compiled for the first graph that has some."""

    plan: Plan
    storage: Storage

    @cached_property
    def library(self) -> ctypes.CDLL:
        source = generate_hubs(self.plan, *self.storage.names, self.storage.visible)
        return cache.load(source, name=f"{self.plan.program.name}_hubs")


def partial_sums(blocks: int, widest_total: int) -> int:
    """How many partial sums a kernel makes of each of its totals: one for a group of blocks."""
    return min(blocks, max(LEAST_GROUPS, TOTAL_NUMBERS // widest_total)) if widest_total else blocks


@dataclass(frozen=True)
class CppLaunch:
    """A loaded C++ function."""

    kernel: Kernel
    function: Callable[..., None]
    over_out_edges: bool
    largest_total: int
    kept: int
    turned: int
    storage: Storage
    hubs: _Hubs

    def order(self, frame: Frame) -> Order | PairOrder:
        if self.kernel.rows is Domain.EDGE:
            return frame.graph.pairs.order(self.kernel.end or "i")
        return frame.graph.out_edges if self.over_out_edges else frame.graph.in_edges

    def groups(self, frame: Frame) -> int:
        return partial_sums(self.order(frame).num_blocks, self.largest_total)

    def __call__(self, reads: list[Tensor], writes: list[Tensor], groups: int, frame: Frame) -> Mapping[Node, Tensor]:
        order = self.order(frame)
        if groups:
            pointers = [address(t) for t in (*reads, *writes)]
            self._run(order, order.blocks.data_ptr(), order.num_blocks, groups, pointers)
        if isinstance(order, PairOrder) or not (order.has_hubs and self.kernel.leaves_hubs):
            return NOTHING
        return self.hubs_totals(order, reads, writes)

    def by_rows(
        self, reads: list[Tensor], writes: list[Tensor], inner: Sequence[bool], frame: Frame
    ) -> Iterator[tuple[int, int]]:
        """Fill the tensors some rows at a time: see :class:`gdsl.runtime.items.Launch`."""
        order = self.order(frame)
        assert isinstance(order, Order)
        count, hub_rows = len(order.rowptr) - 1, order.hubs.tolist()
        rows = min(len(w) for w, passing in zip(writes, inner, strict=True) if passing)
        for first in range(0, count, rows):
            last = min(first + rows, count)
            parts = min(TILE_BLOCKS, last - first)
            blocks = first + torch.arange(parts + 1, device=CPU) * (last - first) // parts
            pointers = [address(t) for t in reads]
            # A kernel writes row i at i times its width: where the room for row 0 would be.
            pointers += [
                w.data_ptr() - (first * w[0].numel() * w.itemsize if passing else 0)
                for w, passing in zip(writes, inner, strict=True)
            ]
            self._run(order, blocks.data_ptr(), parts, parts, pointers)
            here = range(bisect_left(hub_rows, first), bisect_left(hub_rows, last))
            if here and not self.kernel.ordered:
                self._run_hubs(order, here, pointers)
            yield first, last

    def _run(self, order: Order | PairOrder, blocks: int, num_blocks: int, groups: int, pointers: list[int]) -> None:
        """The function on some blocks of rows. ``pointers`` are what it reads and writes."""
        threads = min(torch.get_num_threads(), groups)
        most = min(order.max_degree, HUB_EDGES) if self.kernel.leaves_hubs else order.max_degree
        fixed: tuple[Tensor, ...] = order.walk if self.kernel.end else ()
        room = threads * (most + 1)
        more = [torch.empty(room * self.kept, dtype=self.storage.dtype, device=CPU)] if self.kept else []
        more += [torch.empty(room, dtype=self.storage.index, device=CPU)] if self.kernel.of_pairs else []
        ends = [t.data_ptr() for t in fixed]
        if isinstance(order, CompleteOrder) and self.kernel.complete:
            nodes = len(order.rowptr) - 1
            ends.insert(0, nodes)
            numbers = stride(nodes) * self.turned + BEYOND
            more += [torch.empty(numbers, dtype=self.storage.dtype, device=CPU)] if self.turned else []
        self.function(num_blocks, groups, threads, most, blocks, *ends, *pointers, *(t.data_ptr() for t in more))

    def hubs_totals(self, order: Order, reads: list[Tensor], writes: list[Tensor]) -> dict[Node, Tensor]:
        """Compute the rows that the kernel left out, and what they add to the totals."""
        slots, totals = int(order.chunks[-1]), set(self.kernel.all_totals)
        more = {
            o: torch.zeros((slots, *o.type.shape), dtype=self.storage.of(o), device=CPU)
            for o in self.kernel.outputs
            if o in totals
        }
        results = [more.get(o, t) for o, t in zip(self.kernel.outputs, writes, strict=True)]
        self._run_hubs(order, range(len(order.hubs)), [address(t) for t in (*reads, *results)])
        return {node: value.sum(0) for node, value in more.items()}

    def _run_hubs(self, order: Order, hubs: range, pointers: list[int]) -> None:
        """The function for hubs on some of them."""
        longest = int(order.chunks.diff().max())
        parts = [
            torch.empty((longest, *node.type.shape), dtype=self.storage.of_part(node, best), device=CPU)
            for node, best in partials(self.kernel)
        ]
        function = getattr(self.hubs.library, hub_name(self.kernel))
        function.restype = None
        fixed = (order.hubs[hubs.start :], order.chunks[hubs.start :], order.rowptr, order.index, order.edge)
        given = [*(t.data_ptr() for t in fixed), *pointers, *(t.data_ptr() for t in parts)]
        function(ctypes.c_int64(len(hubs)), ctypes.c_int(torch.get_num_threads()), *map(ctypes.c_void_p, given))


def _bind(kernel: Kernel, library: ctypes.CDLL, storage: Storage, hubs: _Hubs) -> CppLaunch:
    function = getattr(library, kernel.name)
    function.restype = None
    ends = (7 if kernel.of_pairs else 5 if kernel.complete else 3) if kernel.end else 0
    numbers = sum(n.type.numel for n in turned(kernel, storage.packed))
    pointers = len(kernel.buffers) + len(kernel.outputs) + ends + bool(kernel.kept) + bool(numbers)
    counts = [ctypes.c_int64, ctypes.c_int64, ctypes.c_int, ctypes.c_int64, ctypes.c_void_p]
    counts += [ctypes.c_int64] * kernel.complete
    function.argtypes = counts + [ctypes.c_void_p] * pointers
    return CppLaunch(
        kernel,
        function,
        over_out_edges=kernel.end == "j" or kernel.rows is Domain.SOURCE,
        largest_total=max((t.type.numel for t in kernel.all_totals), default=0),
        kept=sum(k.type.numel for k in kernel.kept),
        turned=numbers,
        storage=storage,
        hubs=hubs,
    )
