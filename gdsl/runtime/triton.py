"""Kernels of the Triton backend: made into functions, given block sizes, and launched on the current stream.

On CPU tensors they run in Triton's interpreter, which must have been asked for before Triton is imported, by
``TRITON_INTERPRET=1``: slow, and a proof of what a GPU computes.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import linecache
import math
import types
from collections.abc import Mapping
from typing import Any

import torch
import triton.language as tl
from torch import Tensor
from triton.runtime.interpreter import InterpretedFunction

from gdsl.codegen import triton as codegen
from gdsl.codegen.blocks import power_of_two
from gdsl.codegen.launch import Config, candidates, configure
from gdsl.codegen.reference import Frame
from gdsl.codegen.storage import partials
from gdsl.codegen.triton import Function
from gdsl.ir.node import Node
from gdsl.ir.types import Domain
from gdsl.passes.plan import Kernel, Plan
from gdsl.runtime import tune
from gdsl.runtime.execute import Storage
from gdsl.runtime.graph import Degrees, Order
from gdsl.runtime.offline import DEFAULT_TARGET, PRECISE, SUM_PRECISE, TARGETS
from gdsl.runtime.schedule import GPU_GROUPS

INT32_MAX = 2**31 - 1


def bind(plan: Plan, storage: Storage) -> dict[Kernel, TritonLaunch]:
    """The kernels of a plan as functions that Triton compiles on their first launch."""
    found = {k: codegen.functions(k, plan.program, storage.packed, *storage.names) for k in plan.kernels}
    module = load(codegen.unit([f for functions in found.values() for f in functions]), plan.program.name)
    return {k: TritonLaunch(k, functions, module, storage) for k, functions in found.items()}


def load(source: str, name: str) -> Mapping[str, Any]:
    """The names that generated source defines. Triton reads the text of a function again: it is kept for that."""
    key = hashlib.sha256(source.encode()).hexdigest()[:16]
    filename = f"<gdsl {name} {key}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    module = types.ModuleType(f"gdsl_{name}_{key}")
    exec(compile(source, filename, "exec"), module.__dict__)
    if "libdevice" in module.__dict__ and interpreted():
        from gdsl.runtime import interpreted as functions

        module.__dict__["libdevice"] = functions
    return module.__dict__


@functools.cache
def interpreted() -> bool:
    """Whether Triton was imported to be interpreted."""
    return isinstance(tl.sum, InterpretedFunction)


class TritonLaunch:
    """The functions of a kernel, and what a launch of them needs."""

    def __init__(self, kernel: Kernel, functions: list[Function], module: Mapping[str, Any], storage: Storage):
        self.kernel, self.storage, self.functions = kernel, storage, functions
        self.compiled = [module[f.name] for f in functions]
        self.over_out_edges = kernel.end == "j" or kernel.rows is Domain.SOURCE
        self.totals = set(kernel.all_totals)
        self._configs: dict[tuple[int, int], Config] = {}

    def order(self, frame: Frame) -> Order:
        return frame.graph.out_edges if self.over_out_edges else frame.graph.in_edges

    def count(self, frame: Frame) -> int:
        """How many rows the kernel itself takes."""
        return len(self.order(frame).degrees.rows) if self.kernel.end else frame.rows(self.kernel.rows)

    def groups(self, frame: Frame) -> int:
        # The same for all block sizes: partial sums are allocated before these are chosen.
        return min(self.count(frame), GPU_GROUPS) if self.totals else 0

    def __call__(self, reads: list[Tensor], writes: list[Tensor], groups: int, frame: Frame) -> Mapping[Node, Tensor]:
        common = {"INDEX": index_type(reads, writes), **precision()}
        count = self.count(frame)
        with on(frame.device):
            if not self.kernel.end:
                self.launch(0, count, [count, *reads, *writes], common, 1.0, frame.device)
                return {}
            order = self.order(frame)
            degrees, walk = order.degrees, [order.rowptr, order.index, order.edge]
            self.launch(0, count, [degrees.rows, count, *walk, *reads, *writes], common, degrees.mean, frame.device)
            return self.run_hubs(degrees, walk, reads, writes, common) if len(degrees.hubs) else {}

    def launch(
        self,
        number: int,
        rows: int,
        arguments: list[Any],
        common: dict[str, Any],
        mean_degree: float,
        device: torch.device,
    ) -> None:
        """Launch a function on so many rows, hubs or chunks."""
        if not rows:
            return
        function, compiler = self.compiled[number], self.functions[number].compiler

        def run(config: Config) -> None:
            programs = -(-rows // config.rows)
            grid = min(rows, GPU_GROUPS) if self.totals and number == 0 else programs
            function[(grid,)](*arguments, **common, **config.blocks, **config.compiler, **compiler)

        run(self.config(number, mean_degree, run, device))

    def config(self, number: int, mean_degree: float, run: tune.Run, device: torch.device) -> Config:
        """The block sizes of a function for a graph like this one."""
        degree = power_of_two(max(1, math.ceil(mean_degree)))
        found = self._configs.get((number, degree))
        if found is None:
            function = self.functions[number]
            found = configure(function, degree, warp())
            if device.type == "cuda":
                if torch.cuda.is_current_stream_capturing():
                    return found
                if tune.enabled():
                    name = tune.key(function.source, degree, device)
                    found = tune.best(name, candidates(function, degree, warp()), run, tune.seconds)
            self._configs[(number, degree)] = found
        return found

    def run_hubs(
        self, degrees: Degrees, walk: list[Tensor], reads: list[Tensor], writes: list[Tensor], common: dict[str, Any]
    ) -> dict[Node, Tensor]:
        """Walk the chunks of the hubs, each walk when the one before is done; what they add to the totals."""
        chunks, hubs, device = len(degrees.owner), len(degrees.hubs), walk[0].device
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
            self.launch(number, programs, [*tables, *walk, *reads, *results, *parts], common, degrees.mean, device)
        return {node: value.sum(0) for node, value in more.items()}


def index_type(reads: list[Tensor], writes: list[Tensor]) -> Any:
    """What places in memory are counted in."""
    return tl.int64 if any(t.numel() > INT32_MAX for t in (*reads, *writes)) else tl.int32


def warp() -> int:
    """The threads of a warp of the GPUs that torch is built for."""
    return TARGETS["gfx942" if torch.version.hip else DEFAULT_TARGET][2]


def on(device: torch.device) -> Any:
    """Triton launches on the current device."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


def precision() -> dict[str, str]:
    """How `tl.dot` multiplies float32: with few bits only where torch may, too."""
    if torch.backends.cuda.matmul.allow_tf32 and torch.version.hip is None:
        return {"PRECISION": "tf32", "SUM_PRECISION": "tf32"}
    return {"PRECISION": PRECISE["cuda" if torch.version.hip is None else "hip"], "SUM_PRECISION": SUM_PRECISE}
