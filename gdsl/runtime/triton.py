"""Kernels of the Triton backend: made into functions, given block sizes, and launched on the current stream.

On CPU tensors they run in Triton's interpreter, which must have been asked for before Triton is imported, by
``TRITON_INTERPRET=1``: slow, and a proof of what a GPU computes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.compiler import CompiledKernel

from gdsl.codegen import triton as codegen
from gdsl.codegen.launch import Config, candidates, configure
from gdsl.codegen.schedule import GPU_GROUPS
from gdsl.codegen.storage import partials
from gdsl.codegen.targets import DEFAULT_TARGET, PRECISE, SUM_PRECISE, TARGETS, edge_axis
from gdsl.codegen.triton import TritonFunction
from gdsl.ir.node import Node
from gdsl.ir.types import Domain
from gdsl.passes.plan import Kernel, Plan
from gdsl.runtime import tune
from gdsl.runtime.frame import Frame
from gdsl.runtime.items import Storage
from gdsl.runtime.offline import argument_types
from gdsl.runtime.order import Degrees, Order
from gdsl.runtime.source import interpreted, load

INT32_MAX = 2**31 - 1


def bind(plan: Plan, storage: Storage) -> dict[Kernel, TritonLaunch]:
    """The kernels of a plan as functions that Triton compiles on their first launch."""
    found = {k: codegen.functions(k, plan.program, storage.packed, *storage.names, edge_axis()) for k in plan.kernels}
    module = load(codegen.unit([f for functions in found.values() for f in functions]), plan.program.name)
    return {k: TritonLaunch(k, functions, module, storage) for k, functions in found.items()}


class TritonLaunch:
    """The functions of a kernel, and what a launch of them needs."""

    def __init__(self, kernel: Kernel, functions: list[TritonFunction], module: Mapping[str, Any], storage: Storage):
        self.kernel, self.storage, self.functions = kernel, storage, functions
        self.compiled = [module[f.name] for f in functions]
        self.over_out_edges = kernel.end == "j" or kernel.rows is Domain.SOURCE
        self.totals, self.ordered = set(kernel.all_totals), kernel.ordered
        self.dots = any(f.dots for f in functions)
        self._prepared: set[tuple[Any, ...]] = set()
        self._ready: dict[tuple[Any, ...], ReadyLaunch] = {}

    def order(self, frame: Frame) -> Order:
        return frame.graph.out_edges if self.over_out_edges else frame.graph.in_edges

    def count(self, frame: Frame) -> int:
        """How many rows the kernel itself takes."""
        if not self.kernel.end or self.kernel.of_pairs:
            return frame.rows(self.kernel.rows)
        return self.rows(self.order(frame).degrees).shape[0]

    def rows(self, degrees: Degrees) -> Tensor:
        """The rows that the kernel itself takes: where the order of edges counts, no row is cut into chunks."""
        return degrees.all if self.ordered else degrees.rows

    def groups(self, frame: Frame) -> int:
        # The same for all block sizes: partial sums are allocated before these are chosen.
        return min(self.count(frame), GPU_GROUPS) if self.totals else 0

    def __call__(self, reads: list[Tensor], writes: list[Tensor], groups: int, frame: Frame) -> Mapping[Node, Tensor]:
        device, aligned = frame.device, is_aligned(reads)
        types = (index_type(reads, writes), *precision(self.dots))
        with on(device):
            if not self.kernel.end:
                count = frame.rows(self.kernel.rows)
                self.launch(0, count, [count, *reads, *writes], (types, 1, device.index), aligned)
                return {}
            if self.kernel.of_pairs:
                pairs = frame.graph.pairs.order(self.kernel.end)
                key, count = (types, pairs.typical, device.index), frame.rows(self.kernel.rows)
                self.prepare(key, device, aligned, False)
                self.launch(0, count, [pairs.by_degree, count, *pairs.walk[1:], *reads, *writes], key, aligned)
                return {}
            order = self.order(frame)
            degrees, walk = order.degrees, [order.rowptr, order.index, order.edge]
            key, hubs = (types, degrees.typical, device.index), 0 if self.ordered else degrees.hubs.shape[0]
            self.prepare(key, device, aligned, bool(hubs))
            rows = self.rows(degrees)
            count = rows.shape[0]
            self.launch(0, count, [rows, count, *walk, *reads, *writes], key, aligned)
            return self.run_hubs(degrees, walk, reads, writes, key, aligned) if hubs else {}

    def launch(self, number: int, rows: int, arguments: list[Any], key: Key, aligned: bool) -> None:
        """Launch a function on so many rows, hubs or chunks."""
        if not rows:
            return
        ready = self._ready.get((number, *key)) if aligned and rows <= INT32_MAX else None
        if ready is None:
            # Nothing can be measured while a CUDA graph is captured.
            capturing = key[2] is not None and torch.cuda.is_current_stream_capturing()
            found = self.candidates(number, key)
            config = found[0] if capturing else self.fastest(found, number, rows, arguments, key)
            grid = (self.programs(number, rows, config),)
            kernel = self.compiled[number][grid](*arguments, **self.constants(number, config, key))
            if aligned and rows <= INT32_MAX and not capturing and isinstance(kernel, CompiledKernel):
                self._ready[number, *key] = ReadyLaunch(kernel, config, (*config.blocks.values(), *key[0]))
        else:
            ready.kernel[self.programs(number, rows, ready.config), 1, 1](*arguments, *ready.constants)

    def programs(self, number: int, rows: int, config: Config) -> int:
        return min(rows, GPU_GROUPS) if self.totals and number == 0 else -(-rows // config.rows)

    def constants(self, number: int, config: Config, key: Key) -> dict[str, Any]:
        """What a function is compiled for."""
        types = dict(zip(("INDEX", "PRECISION", "SUM_PRECISION"), key[0], strict=True))
        return {**config.blocks, **types, **config.compiler, **self.functions[number].compiler}

    def fastest(self, found: list[Config], number: int, rows: int, arguments: list[Any], key: Key) -> Config:
        """The best block sizes of a function for a graph like this one."""
        if len(found) == 1:
            return found[0]

        def run(config: Config) -> None:
            grid = (self.programs(number, rows, config),)
            self.compiled[number][grid](*arguments, **self.constants(number, config, key))

        return tune.best(self.tuned(number, key), found, run, tune.seconds)

    def tuned(self, number: int, key: Key) -> str:
        return tune.key(self.functions[number].source, key[1], key[2])

    def candidates(self, number: int, key: Key) -> list[Config]:
        """The block sizes that are worth trying: several of what takes most of the time, on a GPU that can tell."""
        function, (_, degree, device) = self.functions[number], key
        if function.part is None and function.walks and device is not None and tune.enabled():
            found = candidates(function, degree, warp())
            chosen = tune.known(self.tuned(number, key), found)
            return [chosen] if chosen else found
        return [configure(function, degree, warp())]

    def prepare(self, key: Key, device: torch.device, aligned: bool, hubs: bool) -> None:
        """Compile all that a graph like this needs at once, on all cores, the first time there is one."""
        if (hubs, *key) in self._prepared or interpreted() or not aligned:
            return
        self._prepared.add((hubs, *key))

        def compile_for(number: int, config: Config) -> None:
            types = argument_types(self.functions[number], self.kernel, self.storage)
            # A candidate that does not compile is left out when it is its turn.
            with on(device), contextlib.suppress(triton.compiler.errors.CompilationError):
                arguments = (1 if t is None else t for t in types)
                self.compiled[number].warmup(*arguments, grid=(1,), **self.constants(number, config, key))

        with ThreadPoolExecutor() as pool:
            for number in range(len(self.functions) if hubs else 1):
                for config in self.candidates(number, key):
                    pool.submit(compile_for, number, config)

    def run_hubs(
        self, degrees: Degrees, walk: list[Tensor], reads: list[Tensor], writes: list[Tensor], key: Key, aligned: bool
    ) -> dict[Node, Tensor]:
        """Walk the chunks of the hubs, each walk when the one before is done; what they add to the totals."""
        chunks, hubs, device = degrees.owner.shape[0], degrees.hubs.shape[0], walk[0].device
        rows = dict.fromkeys(self.kernel.totals, hubs)
        rows |= {t: chunks for p in self.kernel.phases for t in p.totals}
        more = {t: torch.zeros((n, *t.type.shape), dtype=self.storage.of(t), device=device) for t, n in rows.items()}
        results = [more.get(o, t) for o, t in zip(self.kernel.outputs, writes, strict=True)]
        parts = []
        for node, best in partials(self.kernel):
            parts.append(torch.empty((chunks, *node.type.shape), dtype=self.storage.of_part(node, best), device=device))
        tables = [degrees.hubs, degrees.first_chunk, degrees.owner]
        for number in range(1, len(self.functions)):
            programs = hubs if self.functions[number].part == "hubs" else chunks
            self.launch(number, programs, [*tables, *walk, *reads, *results, *parts], key, aligned)
        return {node: value.sum(0) for node, value in more.items()}


# What functions are compiled for besides their block sizes: INDEX, PRECISION and SUM_PRECISION; the graph's typical
# degree; the number of the GPU.
Key = tuple[tuple[Any, str, str], int, int | None]


@dataclass(frozen=True)
class ReadyLaunch:
    """A compiled function with its block sizes, which is launched without asking Triton what it is called with."""

    kernel: CompiledKernel
    config: Config
    constants: tuple[Any, ...]


def index_type(reads: list[Tensor], writes: list[Tensor]) -> Any:
    """What places in memory are counted in."""
    most = max([t.numel() for t in (*reads, *writes)], default=0)
    return tl.int64 if most > INT32_MAX else tl.int32


def is_aligned(reads: list[Tensor]) -> bool:
    """Whether all tensors lie on 16 bytes, as what torch allocates does; what a user gives may be a part of one."""
    return not any(t.data_ptr() & 15 for t in reads)


def warp() -> int:
    """The threads of a warp of the GPUs that torch is built for."""
    return TARGETS["gfx942" if torch.version.hip else DEFAULT_TARGET][2]


def on(device: torch.device) -> Any:
    """Triton launches on the current device."""
    if device.type != "cuda" or device.index == torch.cuda.current_device():
        return contextlib.nullcontext()
    return torch.cuda.device(device)


def precision(dots: bool) -> tuple[str, str]:
    """How `tl.dot` multiplies float32, one by one and summed: with few bits only where torch may, too."""
    if torch.version.hip is not None:
        return PRECISE["hip"], SUM_PRECISE
    if dots and torch.backends.cuda.matmul.allow_tf32:
        return "tf32", "tf32"
    return PRECISE["cuda"], SUM_PRECISE
