"""Kernels of the Triton backend: made into functions, given block sizes, and launched on the current stream.

On CPU tensors they run in Triton's interpreter, which must have been asked for before Triton is imported, by
``TRITON_INTERPRET=1``: slow, and a proof of what a GPU computes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton import knobs
from triton.compiler import CompiledKernel

from gdsl.codegen import triton as codegen
from gdsl.codegen.launch import Config, candidates, configure
from gdsl.codegen.schedule import GPU_GROUPS
from gdsl.codegen.storage import partials
from gdsl.codegen.targets import DEFAULT_TARGET, PRECISE, SUM_PRECISE, TARGETS, edge_axis
from gdsl.codegen.triton import TritonFunction
from gdsl.ir.node import Node
from gdsl.ir.types import Domain
from gdsl.passes.one_walk import on_gpu
from gdsl.passes.plan import Kernel, Plan
from gdsl.runtime import tune
from gdsl.runtime.frame import Frame
from gdsl.runtime.items import Storage
from gdsl.runtime.offline import argument_types
from gdsl.runtime.order import INT32_MAX, Order, Tables, tables
from gdsl.runtime.source import interpreted, load


def bind(plan: Plan, storage: Storage) -> dict[Kernel, TritonLaunch]:
    """The kernels of a plan as functions that Triton compiles on their first launch."""
    about = plan.program, storage.packed, *storage.names, edge_axis()
    found = {k: codegen.functions(on_gpu(k), *about) for k in plan.kernels}
    module = load(codegen.unit([f for functions in found.values() for f in functions]), plan.program.name)
    return {k: TritonLaunch(k, functions, module, storage) for k, functions in found.items()}


class TritonLaunch:
    """The functions of a kernel, and what a launch of them needs."""

    def __init__(self, kernel: Kernel, functions: list[TritonFunction], module: Mapping[str, Any], storage: Storage):
        self.kernel, self.storage, self.functions = kernel, storage, functions
        self.compiled = [module[f.name] for f in functions]
        self.over_out_edges = kernel.end == "j" or kernel.rows is Domain.SOURCE
        self.totals, self.ordered, self.of_pairs = set(kernel.all_totals), kernel.ordered, kernel.of_pairs
        self.dots, self.exact = any(f.dots for f in functions), exact()
        by_chunk = [t for p in kernel.phases for t in p.totals]
        self.sums = [(t, storage.of(t), t in by_chunk) for t in dict.fromkeys((*kernel.totals, *by_chunk))]
        self.parts = [(node.type.shape, storage.of_part(node, best)) for node, best in partials(kernel)]
        self._prepared: set[tuple[Any, ...]] = set()
        self._ready: dict[tuple[Any, ...], ReadyLaunch] = {}

    def order(self, frame: Frame) -> Order:
        return frame.graph.out_edges if self.over_out_edges else frame.graph.in_edges

    def count(self, frame: Frame) -> int:
        """How many rows the kernel itself takes."""
        if not self.kernel.end or self.of_pairs:
            return frame.rows(self.kernel.rows)
        return self.rows(self.order(frame)).numbers[1]

    def rows(self, order: Order) -> Tables:
        """The rows that the kernel itself takes: where the order of edges counts, no row is cut into chunks."""
        return order.all_rows if self.ordered else order.short_rows

    def groups(self, frame: Frame) -> int:
        # The same for all block sizes: partial sums are allocated before these are chosen.
        return min(self.count(frame), GPU_GROUPS) if self.totals else 0

    def __call__(self, reads: list[Tensor], writes: list[Tensor], groups: int, frame: Frame) -> Mapping[Node, Tensor]:
        # Triton launches on the current device.
        if is_elsewhere(frame.device):
            with torch.cuda.device(frame.device):
                return self.run(reads, writes, frame)
        return self.run(reads, writes, frame)

    def run(self, reads: list[Tensor], writes: list[Tensor], frame: Frame) -> Mapping[Node, Tensor]:
        kernel, given = self.kernel, Given(reads, writes)
        types = (given.index, *precision()) if self.dots else (given.index, *self.exact)
        if not kernel.end:
            count = frame.rows(kernel.rows)
            self.launch(0, count, tables(count), given, (types, 1, frame.device.index))
            return {}
        if self.of_pairs:
            pairs = frame.graph.pairs.order(kernel.end)
            key = (types, pairs.typical, frame.device.index)
            self.launch(0, pairs.all_rows.numbers[1], pairs.all_rows, given, key)
            return {}
        order = self.order(frame)
        degrees = order.degrees
        key, rows = (types, degrees.typical, frame.device.index), self.rows(order)
        hubs = bool(degrees.num_hubs) and not self.ordered
        self.launch(0, rows.numbers[1], rows, given, key, hubs)
        return self.run_hubs(order, given, key) if hubs else {}

    def launch(self, number: int, rows: int, about: Tables, given: Given, key: Key, hubs: bool = False) -> None:
        """Launch a function on so many rows, hubs or chunks.

        about: what it is passed of the graph
        hubs:  whether the other functions are launched, too
        """
        if not rows:
            return
        usual = given.aligned and rows <= INT32_MAX
        ready = self._ready.get((number, *key)) if usual else None
        if ready is not None:
            ready(self.programs(number, rows, ready.config), key[2], about, given)
            return
        if usual and self.kernel.end:
            self.prepare(key, hubs)
        # Nothing can be measured while a CUDA graph is captured.
        capturing = key[2] is not None and torch.cuda.is_current_stream_capturing()
        found, arguments = self.candidates(number, key), [*about.values, *given.tensors]
        config = found[0] if capturing else self.fastest(found, number, rows, arguments, key)
        grid, constants = (self.programs(number, rows, config),), self.constants(number, config, key)
        kernel = self.compiled[number][grid](*arguments, **constants)
        if usual and not capturing and isinstance(kernel, CompiledKernel):
            types = (constants[name] for name in TYPES)
            self._ready[number, *key] = ReadyLaunch.of(kernel, config, (*config.blocks.values(), *types))

    def programs(self, number: int, rows: int, config: Config) -> int:
        return min(rows, GPU_GROUPS) if self.totals and number == 0 else -(-rows // config.rows)

    def constants(self, number: int, config: Config, key: Key) -> dict[str, Any]:
        """What a function is compiled for."""
        types: dict[str, Any] = dict(zip(TYPES, key[0], strict=True))
        types["INDEX"] = getattr(tl, key[0][0])
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
        if function.walks and device is not None and tune.enabled():
            found = candidates(function, degree, warp())
            if self.totals and number:
                # Each program of a walk over chunks writes its own part of a sum: none may be left of another choice.
                found = [config for config in found if config.rows == found[0].rows]
            chosen = tune.known(self.tuned(number, key), found)
            return [chosen] if chosen else found
        return [configure(function, degree, warp())]

    def prepare(self, key: Key, hubs: bool) -> None:
        """Compile all that a graph like this needs at once, on all cores, the first time there is one."""
        if (hubs, *key) in self._prepared or interpreted():
            return
        self._prepared.add((hubs, *key))

        def compile_for(number: int, config: Config) -> None:
            types = argument_types(self.functions[number], self.kernel, self.storage)
            # A candidate that does not compile is left out when it is its turn.
            with on(key[2]), contextlib.suppress(triton.compiler.errors.CompilationError):
                arguments = (1 if t is None else t for t in types)
                self.compiled[number].warmup(*arguments, grid=(1,), **self.constants(number, config, key))

        with ThreadPoolExecutor() as pool:
            for number in range(len(self.functions) if hubs else 1):
                for config in self.candidates(number, key):
                    pool.submit(compile_for, number, config)

    def run_hubs(self, order: Order, given: Given, key: Key) -> dict[Node, Tensor]:
        """Walk the chunks of the hubs, each walk when the one before is done; what they add to the totals."""
        degrees, device = order.degrees, order.edge.device
        chunks, hubs = degrees.num_chunks, degrees.num_hubs
        more = {
            t: torch.zeros((chunks if by_chunk else hubs, *t.type.shape), dtype=dtype, device=device)
            for t, dtype, by_chunk in self.sums
        }
        results = [more.get(o, t) for o, t in zip(self.kernel.outputs, given.writes, strict=True)]
        parts = [torch.empty((chunks, *shape), dtype=dtype, device=device) for shape, dtype in self.parts]
        made = Given(given.reads, [*results, *parts])
        for number, function in enumerate(self.functions[1:], 1):
            self.launch(number, hubs if function.part == "hubs" else chunks, order.hub_rows, made, key, True)
        return {node: value.sum(0) for node, value in more.items()}


# What functions are compiled for besides their block sizes.
TYPES = ("INDEX", "PRECISION", "SUM_PRECISION")

# These, of INDEX its name; the graph's typical degree; the number of the GPU.
Key = tuple[tuple[str, str, str], int, int | None]


class Given:
    """The tensors of a launch, and where they lie.

    aligned: whether what is read lies on 16 bytes, as what torch allocates does; what a user gives may be part of that
    index:   what places in memory are counted in
    """

    __slots__ = ("aligned", "index", "places", "reads", "writes")

    def __init__(self, reads: list[Tensor], writes: list[Tensor]):
        self.reads, self.writes = reads, writes
        places, bits, most = [], 0, 0
        for t in reads:
            place, numbers = t.data_ptr(), t.numel()
            places.append(place)
            bits |= place
            if numbers > most:
                most = numbers
        for t in writes:
            places.append(t.data_ptr())
            if t.numel() > most:
                most = t.numel()
        self.places, self.aligned, self.index = places, not bits & 15, index_type(most)

    @property
    def tensors(self) -> list[Tensor]:
        return [*self.reads, *self.writes]


@dataclass(frozen=True, slots=True)
class ReadyLaunch:
    """A compiled function with its block sizes, which is launched without asking Triton what it is called with.

    launcher, function, about: what the kernel calls itself, and how; addresses may stand for tensors
    stream:                    the current one of a GPU
    """

    kernel: CompiledKernel
    config: Config
    constants: tuple[Any, ...]
    launcher: Callable[..., None]
    function: Any
    about: Any
    stream: Callable[[Any], int]

    @classmethod
    def of(cls, kernel: CompiledKernel, config: Config, constants: tuple[Any, ...]) -> ReadyLaunch:
        """Of a kernel that was launched before."""
        stream = triton.runtime.driver.active.get_current_stream
        return cls(kernel, config, constants, kernel.run, kernel.function, kernel.packed_metadata, stream)

    def __call__(self, programs: int, gpu: int | None, about: Tables, given: Given) -> None:
        numbers = (*about.numbers, *given.places, *self.constants)
        if hooked():
            self.kernel[programs, 1, 1](*numbers)
        else:
            self.launcher(programs, 1, 1, self.stream(gpu), self.function, self.about, None, None, None, *numbers)


def index_type(most: int) -> str:
    """What places in memory are counted in, where a tensor has so many numbers at most."""
    return "int64" if most > INT32_MAX else "int32"


def hooked() -> bool:
    """Whether somebody, such as a profiler, has Triton tell of each launch."""
    enter, leave = knobs.runtime.launch_enter_hook, knobs.runtime.launch_exit_hook
    return bool(getattr(enter, "calls", enter) or getattr(leave, "calls", leave))


def warp() -> int:
    """The threads of a warp of the GPUs that torch is built for."""
    return TARGETS["gfx942" if torch.version.hip else DEFAULT_TARGET][2]


def is_elsewhere(device: torch.device) -> bool:
    """Whether a device is another GPU than the current one."""
    return device.type == "cuda" and device.index != torch.cuda.current_device()


def on(gpu: int | None) -> Any:
    """With a GPU as the current one."""
    return contextlib.nullcontext() if gpu is None else torch.cuda.device(gpu)


def exact() -> tuple[str, str]:
    """How `tl.dot` multiplies float32 without fewer bits, one by one and summed."""
    return PRECISE["cuda" if torch.version.hip is None else "hip"], SUM_PRECISE


def precision() -> tuple[str, str]:
    """The same as torch may: with few bits where its own products may have few, too."""
    return ("tf32", "tf32") if torch.version.hip is None and torch.backends.cuda.matmul.allow_tf32 else exact()
