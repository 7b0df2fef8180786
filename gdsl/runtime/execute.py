"""Running a plan: buffers, kernel calls and torch steps, in order."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from gdsl.codegen import cpp, reference
from gdsl.codegen.cpp import hub_name
from gdsl.codegen.hubs import generate_hubs, partials
from gdsl.codegen.reference import Frame
from gdsl.codegen.values import c_type
from gdsl.ir.node import Node
from gdsl.ir.types import Domain, Kind
from gdsl.passes.fuse import Kernel, Plan, TorchStep
from gdsl.runtime import cache
from gdsl.runtime.dense import Product, matrix_product
from gdsl.runtime.graph import Order
from gdsl.runtime.schedule import HUB_EDGES

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

# Partial sums of a total take at most about this many numbers, yet never fewer groups than feed the threads.
TOTAL_NUMBERS = 1 << 22
LEAST_GROUPS = 8


class ReferencePlan:
    """A program run by the torch backend, one op at a time."""

    def __init__(self, outputs: Sequence[Node]):
        self.outputs = tuple(outputs)

    def run(self, values: Mapping[Node, Tensor], frame: Frame) -> list[Tensor]:
        return reference.run(self.outputs, values, frame)


@dataclass(frozen=True)
class _Write:
    """A tensor that a kernel fills; ``domain`` is None for the partial sums of a total."""

    node: Node
    domain: Domain | None
    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True)
class _Call:
    """A loaded kernel and, worked out once, all that a call of it needs."""

    function: Callable[..., None]
    walks: bool
    over_out_edges: bool
    reads: tuple[tuple[Node, torch.dtype], ...]
    writes: tuple[_Write, ...]
    largest_total: int
    kept: int
    kernel: Kernel


@dataclass(frozen=True)
class _Torch:
    """A node evaluated by torch; ``product`` where it is one matrix product of tensors of these shapes."""

    node: Node
    product: Product | None


class CppPlan:
    """A plan whose kernels are compiled C++."""

    def __init__(self, plan: Plan, dtype: torch.dtype, index_dtype: torch.dtype, visible: int):
        self.plan, self.stored, self.index_dtype, self.visible = plan, dtype, index_dtype, visible
        self.dtype = torch.float32 if dtype in HALF else dtype
        self.packed = cpp.packed_buffers(plan, C_TYPES[dtype], visible)
        self.source = cpp.generate(plan, C_TYPES[dtype], INDEX_TYPES[index_dtype], visible)
        library = cache.load(self.source, name=plan.program.name) if plan.kernels else None
        written = {o for k in plan.kernels for o in k.outputs}
        self.steps = [
            _torch_step(s.node, written) if isinstance(s, TorchStep) else _bind(s, library, self) for s in plan.steps
        ]
        self.releases = _last_uses(plan)
        self.outputs = tuple((o, o in written) for o in plan.program.nodes)

    def run(self, values: Mapping[Node, Tensor], frame: Frame) -> list[Tensor]:
        """The program's outputs. ``values`` has a tensor for each load."""
        memory: dict[Node, Tensor] = dict(values)
        half = self.stored is not self.dtype
        if half:
            frame = replace(frame, dtype=self.dtype)
        for step, dead in zip(self.steps, self.releases, strict=True):
            if isinstance(step, _Torch):
                args = [_fetch(i, memory, frame) for i in step.node.inputs]
                if half:
                    args = [a.float() if a.dtype in HALF else a for a in args]
                if step.product is not None:
                    made = step.product([a if a.is_contiguous() else a.contiguous() for a in args])
                else:
                    made = reference.evaluate(step.node, args, frame)
                narrow = half and made.dtype is self.dtype and step.node.domain is not Domain.GLOBAL
                memory[step.node] = made.to(self.stored) if narrow else made
            else:
                _launch(step, memory, frame, self)
            for node in dead:
                memory.pop(node, None)
        found = [
            memory[o] if whole else reference.full(_fetch(o, memory, frame), o.type, frame) for o, whole in self.outputs
        ]
        if half:
            found[: self.visible] = [v.to(self.stored) if v.dtype is self.dtype else v for v in found[: self.visible]]
        return found

    @cached_property
    def hubs(self) -> ctypes.CDLL:
        """The functions for rows that are hubs, compiled for the first graph that has some."""
        source = generate_hubs(self.plan, C_TYPES[self.stored], INDEX_TYPES[self.index_dtype], self.visible)
        return cache.load(source, name=f"{self.plan.program.name}_hubs")


def _torch_step(node: Node, written: set[Node]) -> _Torch:
    """Loads, contractions and what kernels write have all their rows and dims; other values may be broadcast."""
    whole = all(i in written or i.op in ("load", "contract") for i in node.inputs)
    return _Torch(node, matrix_product(node) if whole else None)


def _fetch(node: Node, memory: dict[Node, Tensor], frame: Frame) -> Tensor:
    """The tensor of a node; constants and what the graph holds are made on first use."""
    if node not in memory:
        memory[node] = reference.evaluate(node, [], frame)
    return memory[node]


def _last_uses(plan: Plan) -> list[tuple[Node, ...]]:
    """After each step, the values that no later step reads."""
    outputs = set(plan.program.nodes)
    last: dict[Node, int] = {}
    for k, step in enumerate(plan.steps):
        for node in step.node.inputs if isinstance(step, TorchStep) else step.buffers:
            last[node] = k
    return [tuple(n for n, at in last.items() if at == k and n not in outputs) for k in range(len(plan.steps))]


def _bind(kernel: Kernel, library: ctypes.CDLL | None, plan: CppPlan) -> _Call:
    assert library is not None
    dtype, index_dtype = plan.dtype, plan.index_dtype
    function = getattr(library, kernel.name)
    function.restype = None
    pointers = len(kernel.buffers) + len(kernel.outputs) + 1 + (3 if kernel.end else 0) + bool(kernel.kept)
    function.argtypes = [ctypes.c_int64, ctypes.c_int64, ctypes.c_int, ctypes.c_int64] + [ctypes.c_void_p] * pointers
    totals = set(kernel.all_totals)
    return _Call(
        function,
        walks=kernel.end is not None,
        over_out_edges=kernel.end == "j" or kernel.rows is Domain.SOURCE,
        reads=tuple((b, _dtype_of(b, plan.stored if b in plan.packed else dtype, index_dtype)) for b in kernel.buffers),
        writes=tuple(
            _Write(
                o,
                None if o in totals else o.domain,
                o.type.shape,
                _dtype_of(o, plan.stored if o in plan.packed else dtype, index_dtype),
            )
            for o in kernel.outputs
        ),
        largest_total=max((t.type.numel for t in totals), default=0),
        kept=sum(k.type.numel for k in kernel.kept),
        kernel=kernel,
    )


def _dtype_of(node: Node, dtype: torch.dtype, index_dtype: torch.dtype) -> torch.dtype:
    """How kernels store a node: see :func:`gdsl.codegen.values.c_type`."""
    if node.kind is Kind.FLOAT:
        return dtype
    if node.kind is Kind.BOOL:
        return torch.bool
    return torch.int64 if c_type(node) == "int64_t" else index_dtype


def partial_sums(blocks: int, widest_total: int) -> int:
    """How many partial sums a kernel makes of each of its totals: one for a group of blocks."""
    return min(blocks, max(LEAST_GROUPS, TOTAL_NUMBERS // widest_total)) if widest_total else blocks


def _launch(call: _Call, memory: dict[Node, Tensor], frame: Frame, plan: CppPlan) -> None:
    order = frame.graph.out_edges if call.over_out_edges else frame.graph.in_edges
    num_blocks = order.num_blocks
    groups = partial_sums(num_blocks, call.largest_total)
    # The list keeps converted inputs alive until the kernel has run.
    reads = [_as_stored(_fetch(node, memory, frame), dtype) for node, dtype in call.reads]
    writes = [
        torch.empty((groups if w.domain is None else frame.rows(w.domain), *w.shape), dtype=w.dtype)
        for w in call.writes
    ]
    if groups:
        threads = min(torch.get_num_threads(), groups)
        fixed = (order.blocks, order.rowptr, order.index, order.edge) if call.walks else (order.blocks,)
        pointers = [t.data_ptr() for t in fixed]
        pointers += [t.data_ptr() for t in reads]
        pointers += [t.data_ptr() for t in writes]
        most = min(order.max_degree, HUB_EDGES)
        if call.kept:
            scratch = torch.empty(threads * call.kept * (most + 1), dtype=plan.dtype)
            pointers.append(scratch.data_ptr())
        call.function(num_blocks, groups, threads, most, *pointers)
    of_hubs = _launch_hubs(call, order, reads, writes, plan) if order.has_hubs and call.kernel.phases else {}
    for w, value in zip(call.writes, writes, strict=True):
        memory[w.node] = value if w.domain is not None else value[0] if groups == 1 else value.sum(0)
        if w.node in of_hubs:
            memory[w.node] += of_hubs[w.node]


def _as_stored(value: Tensor, dtype: torch.dtype) -> Tensor:
    """The value as kernels read it; nothing is done where it lies so already."""
    if value.dtype is dtype and value.is_contiguous():
        return value
    return value.to(dtype).contiguous()


def _launch_hubs(
    call: _Call, order: Order, reads: Sequence[Tensor], writes: Sequence[Tensor], plan: CppPlan
) -> dict[Node, Tensor]:
    """Compute the rows that a kernel left out, and what they add to the totals."""
    slots = int(order.chunks[-1])
    most = int(order.chunks.diff().max())
    totals = {w.node: torch.zeros((slots, *w.shape), dtype=w.dtype) for w in call.writes if w.domain is None}
    results = [totals.get(w.node, t) for w, t in zip(call.writes, writes, strict=True)]
    parts = []
    for node, best in partials(call.kernel):
        counts = node.attr("reducer").startswith("arg") and not best
        dtype = plan.index_dtype if counts else plan.dtype
        parts.append(torch.empty((most, *node.type.shape), dtype=dtype))
    function = getattr(plan.hubs, hub_name(call.kernel))
    function.restype = None
    tensors = (order.hubs, order.chunks, order.rowptr, order.index, order.edge, *reads, *results, *parts)
    pointers = [ctypes.c_void_p(t.data_ptr()) for t in tensors]
    function(ctypes.c_int64(len(order.hubs)), ctypes.c_int(torch.get_num_threads()), *pointers)
    return {node: value.sum(0) for node, value in totals.items()}
