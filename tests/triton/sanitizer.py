"""What Triton kernels do to memory, watched in Triton's interpreter, which runs one program and one line after another
and so hides what a GPU does not do in that order.

    with watched() as watch:
        layer(x, edges)
    assert not watch.reports

A GPU runs the programs of a launch at once, and the threads of one program do not wait for each other between a store
and a load unless there is a ``tl.debug_barrier()``. So that the result is the same whatever comes first, a number that
a launch writes may be touched by nothing else in it, and is written once.
"""

from __future__ import annotations

import inspect
import linecache
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from triton.runtime.interpreter import GridExecutor, InterpreterBuilder, TensorHandle

OUTSIDE = "an access outside of its tensor"
UNWRITTEN = "a load of what nothing has written"
TWICE = "two lanes of a store write different numbers to one place"
AFTER_STORE = "a load of what the same program stored, with no barrier between"
AFTER_LOAD = "a store to what the same program loaded, with no barrier between"
STORED_AGAIN = "a store to what the same program stored, with no barrier between"
LOAD_RACE = "a load of what another program stores"
STORE_RACE = "a store to what another program stores"

# What pointers go through before they are read: their tensor is remembered.
_SHAPES = [f"create_{word}" for word in "splat broadcast expand_dims reshape trans addptr bitcast".split()]
_NOWHERE = np.empty(0, np.uint64)


@dataclass(frozen=True)
class Report:
    """A mistake: of which kind, in which kernel, at which line of it, and how many lanes made it."""

    kind: str
    kernel: str
    line: str
    lanes: int

    def __str__(self) -> str:
        return f"{self.kernel}: {self.kind} ({self.lanes} lanes): {self.line}"


class Tensors:
    """The tensors of a launch, by name: where the memory of each begins and ends."""

    def __init__(self, arguments: dict[str, Any]):
        self.extents = {name: extent(t) for name, t in arguments.items() if isinstance(t, Tensor)}

    def at(self, place: int) -> str | None:
        """The longest tensor that begins at a place: what a pointer to there points to."""
        found = [(end, name) for name, (begin, end) in self.extents.items() if begin == place]
        return max(found)[1] if found else None


def extent(tensor: Tensor) -> tuple[int, int]:
    """The first byte of a tensor, and the one after its last."""
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    begin = tensor.data_ptr()
    return begin, begin + (last + 1) * tensor.element_size() * bool(tensor.numel())


@dataclass
class Touched:
    """Places that programs of a launch loaded or stored, and the line that did."""

    places: list[np.ndarray] = field(default_factory=list)
    program: list[int] = field(default_factory=list)
    line: list[str] = field(default_factory=list)

    def add(self, places: np.ndarray, program: int, line: str) -> None:
        self.places.append(places)
        self.program.append(program)
        self.line.append(line)

    def flat(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of each place that was touched: where, by which program, in which access."""
        sizes = [p.size for p in self.places]
        access = np.repeat(np.arange(len(sizes)), sizes)
        where = np.concatenate([_NOWHERE, *self.places])
        return where, np.repeat(np.array(self.program, np.int64), sizes), access


class Launch:
    """One launch of a kernel."""

    def __init__(self, kernel: str, arguments: dict[str, Any], reports: dict[tuple[str, str, str], int]):
        self.kernel, self.tensors, self.reports = kernel, Tensors(arguments), reports
        self.loads, self.stores = Touched(), Touched()
        # Since the last barrier of the program that runs.
        self.program, self.loaded, self.stored = -1, _NOWHERE, _NOWHERE

    def report(self, kind: str, line: str, lanes: np.ndarray) -> None:
        if count := int(np.count_nonzero(lanes)):
            key = (kind, self.kernel, line)
            self.reports[key] = self.reports.get(key, 0) + count

    def barrier(self) -> None:
        self.loaded = self.stored = _NOWHERE

    def allowed(self, pointer: TensorHandle, tensor: str | None, mask: np.ndarray, line: str) -> np.ndarray:
        """Which lanes touch a number of the tensor that their pointer was made from, of those that the mask lets."""
        wanted = np.broadcast_to(mask, pointer.data.shape).astype(bool)
        places, size, ok = pointer.data, np.uint64(size_of(pointer)), np.zeros_like(wanted)
        if tensor is not None:
            begin, end = map(np.uint64, self.tensors.extents[tensor])
            ok = (places >= begin) & (places + size <= end) & ((places - begin) % size == 0)
        self.report(OUTSIDE, line, wanted & ~ok)
        return wanted & ok

    def load(self, places: np.ndarray, program: int, line: str) -> None:
        self.enter(program)
        places = np.unique(places)
        self.report(AFTER_STORE, line, np.isin(places, self.stored))
        self.loaded = np.union1d(self.loaded, places)
        self.loads.add(places, program, line)

    def store(self, places: np.ndarray, values: np.ndarray, program: int, line: str) -> None:
        self.enter(program)
        bits = np.ascontiguousarray(values).view(f"u{values.dtype.itemsize}")
        places, first, back = np.unique(places, return_index=True, return_inverse=True)
        self.report(TWICE, line, bits != bits[first][back])
        self.report(STORED_AGAIN, line, np.isin(places, self.stored))
        self.report(AFTER_LOAD, line, np.isin(places, self.loaded))
        self.stored = np.union1d(self.stored, places)
        self.stores.add(places, program, line)

    def enter(self, program: int) -> None:
        """Programs run one after the other here."""
        if program != self.program:
            self.program = program
            self.barrier()

    def finish(self) -> None:
        """Look for places that several programs touch, of which one stores there."""
        where, program, access = self.stores.flat()
        order = np.argsort(where, kind="stable")
        where, program, access = where[order], program[order], access[order]
        places, first, count = np.unique(where, return_index=True, return_counts=True)
        owner = program[first]
        other = program != np.repeat(owner, count)
        for k in np.unique(access[other]):
            self.report(STORE_RACE, self.stores.line[k], other & (access == k))
        where, program, access = self.loads.flat()
        if not places.size or not where.size:
            return
        at = np.searchsorted(places, where).clip(max=places.size - 1)
        raced = (places[at] == where) & (owner[at] != program)
        for k in np.unique(access[raced]):
            self.report(LOAD_RACE, self.loads.line[k], raced & (access == k))


def line_of(kernel: str) -> str:
    """The line of a kernel that runs."""
    frame = sys._getframe()
    while frame is not None and frame.f_code.co_name != kernel:
        frame = frame.f_back
    return linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip() if frame else "?"


class Watch:
    """The interpreter's functions with a look at what they touch. What lies outside is neither read nor written."""

    def __init__(self) -> None:
        self.found: dict[tuple[str, str, str], int] = {}
        self.launch: Any = None  # a Launch, while there is one

    @property
    def reports(self) -> list[Report]:
        return [Report(*key, lanes) for key, lanes in self.found.items()]

    def patches(self) -> Iterator[Any]:
        for name in _SHAPES:
            yield mock.patch.object(InterpreterBuilder, name, self.remembering(getattr(InterpreterBuilder, name)))
        functions = {
            "create_masked_load": self.load,
            "create_masked_store": self.store,
            "create_barrier": self.barrier,
            "create_atomic_rmw": self.atomic,
            "create_atomic_cas": self.atomic,
        }
        for name, made in functions.items():
            yield mock.patch.object(InterpreterBuilder, name, made(getattr(InterpreterBuilder, name)))
        yield mock.patch.object(GridExecutor, "__call__", self.launched(GridExecutor.__call__))

    def remembering(self, shaped: Any) -> Any:
        """What makes a pointer of a pointer, whose tensor is remembered."""

        def run(builder: InterpreterBuilder, *arguments: Any) -> TensorHandle:
            result: TensorHandle = shaped(builder, *arguments)
            for argument in arguments:
                if isinstance(argument, TensorHandle) and (name := self.tensor(argument)) is not None:
                    result.attr["tensor"] = name
            return result

        return run

    def tensor(self, pointer: TensorHandle) -> str | None:
        """The name of the tensor that a pointer was made from: one that is new points to where it begins."""
        if "tensor" not in pointer.attr and pointer.dtype.is_ptr() and pointer.data.size == 1:
            pointer.attr["tensor"] = self.launch.tensors.at(int(pointer.data.item()))
        return pointer.attr.get("tensor")

    def load(self, loaded: Any) -> Any:
        def run(builder: InterpreterBuilder, ptrs: TensorHandle, mask: TensorHandle, *rest: Any) -> TensorHandle:
            launch, line = self.launch, line_of(self.launch.kernel)
            allowed = launch.allowed(ptrs, self.tensor(ptrs), mask.data, line)
            launch.load(ptrs.data[allowed], program_of(builder), line)
            result: TensorHandle = loaded(builder, ptrs, TensorHandle(allowed, mask.dtype), *rest)
            launch.report(UNWRITTEN, line, filled(result.data) & allowed)
            return result

        return run

    def store(self, stored: Any) -> Any:
        def run(
            builder: InterpreterBuilder, ptrs: TensorHandle, value: TensorHandle, mask: TensorHandle, *rest: Any
        ) -> Any:
            launch, line = self.launch, line_of(self.launch.kernel)
            allowed = launch.allowed(ptrs, self.tensor(ptrs), mask.data, line)
            values = np.broadcast_to(value.data, ptrs.data.shape)[allowed]
            launch.store(ptrs.data[allowed], values, program_of(builder), line)
            return stored(builder, ptrs, value, TensorHandle(allowed, mask.dtype), *rest)

        return run

    def barrier(self, waited: Any) -> Any:
        def run(builder: InterpreterBuilder) -> None:
            self.launch.barrier()
            waited(builder)

        return run

    def atomic(self, added: Any) -> Any:
        def run(builder: InterpreterBuilder, *arguments: Any) -> Any:
            raise NotImplementedError("generated kernels have no atomics; the sanitizer does not know them")

        return run

    def launched(self, ran: Any) -> Any:
        def run(executor: GridExecutor, *arguments: Any, **named: Any) -> None:
            names = inspect.getfullargspec(executor.fn).args
            given = {**dict(zip(names, arguments, strict=False)), **named}
            self.launch = Launch(executor.fn.__name__, given, self.found)
            ran(executor, *arguments, **named)
            self.launch.finish()
            self.launch = None

        return run


def program_of(builder: InterpreterBuilder) -> int:
    """The number of the program that runs, among those of its launch."""
    (x, y, z), (_, height, depth) = builder.grid_idx, builder.grid_dim
    return int((x * height + y) * depth + z)


def size_of(pointer: TensorHandle) -> int:
    return max(1, pointer.get_element_ty().primitive_bitwidth // 8)


def filled(values: np.ndarray) -> np.ndarray:
    """Which numbers are what torch fills new memory with where it is asked to."""
    if values.dtype.kind == "f":
        return np.isnan(values)
    return values == np.iinfo(values.dtype).max if values.dtype.kind == "i" else np.zeros_like(values, bool)


@contextmanager
def watched() -> Iterator[Watch]:
    """Watch all launches; ``reports`` of the result are what was found. New memory holds NaN, or the largest int."""
    watch, before = Watch(), torch.are_deterministic_algorithms_enabled()
    warn = torch.is_deterministic_algorithms_warn_only_enabled()
    with ExitStack() as stack:
        for patch in watch.patches():
            stack.enter_context(patch)
        torch.use_deterministic_algorithms(True, warn_only=True)
        stack.callback(torch.use_deterministic_algorithms, before, warn_only=warn)
        yield watch
