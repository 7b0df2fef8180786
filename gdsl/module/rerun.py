"""What files of ``layer.reproduce()`` run: a program on tensors that are described, on a backend and on the reference.

    python FILE                    on the backend that the call ran on
    python FILE --backend torch    on another

The exit code is 1 where results or gradients differ by more than rounding, or are not there at all.
"""

from __future__ import annotations

import argparse
import base64
import json
import math
import sys
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from gdsl.ir.program import Program
from gdsl.ir.serialise import from_data as program_of
from gdsl.language import ast
from gdsl.language.check import check
from gdsl.language.parse import parse
from gdsl.language.parts import part_of
from gdsl.language.program import Declaration, TypedProgram
from gdsl.look.check import error_of, rounding
from gdsl.module import owned
from gdsl.module.arguments import plain
from gdsl.module.run import run
from gdsl.module.ways import Compilations
from gdsl.passes.options import Options
from gdsl.runtime.backend import BACKENDS, backend_for
from gdsl.runtime.complete import CompleteGraph
from gdsl.runtime.graph import Graph

SEED = 0
_NO_GPU = "the call ran on a GPU, and there is none here: it runs on the CPU"

# Makes a tensor, with random numbers of its own where it has any.
Make = Callable[[torch.Generator], Tensor]


# ---------------------------------------------------------------------------------------- programs


def from_text(
    text: str,
    arguments: Mapping[str, Any],
    *,
    sizes: Mapping[str, int] | None = None,
    present: Collection[str] = (),
    training: bool = False,
) -> TypedProgram:
    """The program of a layer's text, with linear maps and aggregations of its own.

    sizes:   of the dims that a call gives
    present: the optional inputs that are there
    """
    (layer,) = parse(text).layers
    values = {name: plain(value) for name, value in arguments.items()}
    return with_own_parts(layer, values, training=training, present=frozenset(present), free_dims=dict(sizes or {}))


def with_own_parts(layer: ast.Layer, values: Mapping[str, Any], *, training: bool = False, **way: Any) -> TypedProgram:
    """What ``check`` gives of a layer that has its linear maps and aggregations, which are read."""
    typed = check(layer, values, training=training, **way)
    parts = [d for d in typed.of_role("module") if d.part is not None]
    with torch.device("meta"):  # sizes are read and numbers are not, so that no size is too large to be looked at
        made = nn.Module()
        for d in parts:
            assert d.part is not None
            *path, name = d.name.split(".")
            part_of(made, path)._modules[name] = owned.make(d.part, "meta").train(training)
    return check(layer, values, modules=made._modules, training=training, **way) if parts else typed


def from_data(text: str) -> TypedProgram:
    """The program that JSON of :mod:`gdsl.ir.serialise` says, of inputs that are declared nowhere else."""
    return typed_of(program_of(json.loads(text)))


def typed_of(program: Program) -> TypedProgram:
    """A program as one whose tensors are all inputs."""
    loads = [load for load in program.inputs if load.attrs.role != "seed"]
    declared = tuple(Declaration(load.attrs.name, "input", load.type) for load in loads)
    draws = len(loads) < len(program.inputs)
    return TypedProgram(program.name, (), declared, (), (), program.outputs, program.names, uses_seed=draws)


# ----------------------------------------------------------------------------------------- tensors


def numbers(
    shape: Sequence[int],
    dtype: str,
    *,
    stride: Sequence[int] | None = None,
    offset: int = 0,
    requires_grad: bool = False,
    rms: float = 1.0,
    sign: str = "",
    nan: int = 0,
    inf: int = 0,
    minus_inf: int = 0,
    low: int = 0,
    high: int = 1,
    is_sorted: bool = False,
) -> Make:
    """Random numbers in the place of those of a call.

    stride, offset: how they lie in memory, in numbers; without, one after the other
    rms:            the root of the mean of squares of real numbers, without those that are not finite
    sign:           "positive" or "not negative" where none is otherwise
    nan, inf, ...:  how many are NaN, plus infinity, minus infinity
    low, high:      the least and the greatest whole number
    """

    def make(random: torch.Generator) -> Tensor:
        kind, size = getattr(torch, dtype), _storage(shape, stride)
        if kind.is_floating_point:
            flat = torch.randn(size, generator=random, dtype=torch.float64) * rms
            if sign:
                flat = flat.abs().clamp_min(torch.finfo(kind).tiny if sign == "positive" else 0)
            where = torch.randperm(size, generator=random)
            for odd, count in ((math.nan, nan), (math.inf, inf), (-math.inf, minus_inf)):
                flat[where[:count]], where = odd, where[count:]
        else:
            flat = torch.randint(low, high + 1, (size,), generator=random)
            flat = flat.sort().values if is_sorted else flat
        return _laid(flat.to(kind), shape, stride, offset).requires_grad_(requires_grad)

    return make


def stored(
    data: str,
    shape: Sequence[int],
    dtype: str,
    *,
    stride: Sequence[int] | None = None,
    offset: int = 0,
    requires_grad: bool = False,
) -> Make:
    """The numbers of a call, packed by :func:`gdsl.look.reproduce.packed`."""

    def make(_: torch.Generator) -> Tensor:
        raw = bytearray(zlib.decompress(base64.b64decode(data)))
        kind = getattr(torch, dtype)
        dense = torch.frombuffer(raw, dtype=kind) if raw else torch.empty(0, dtype=kind)
        laid = _laid(torch.zeros(_storage(shape, stride), dtype=kind), shape, stride, offset)
        # A number that is expanded is there once.
        once = tuple(slice(None if step else 1) for step in laid.stride())
        laid[once] = dense.view(tuple(shape))[once]
        return laid.requires_grad_(requires_grad)

    return make


def _storage(shape: Sequence[int], stride: Sequence[int] | None) -> int:
    """How many numbers memory has, from the first to the last of a tensor."""
    if 0 in shape:
        return 0
    if stride is None:
        return math.prod(shape)
    return 1 + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))


def _laid(flat: Tensor, shape: Sequence[int], stride: Sequence[int] | None, offset: int) -> Tensor:
    """Numbers in memory as a tensor, which starts so many of them after an aligned address."""
    if 0 in shape:
        return flat.view(tuple(shape))
    steps = torch.empty(tuple(shape), device="meta").stride() if stride is None else tuple(stride)
    return torch.cat([flat.new_zeros(offset), flat]).as_strided(tuple(shape), steps, offset)


# ------------------------------------------------------------------------------------------ graphs


def edges(edge_index: Sequence[Sequence[int]], sources: int, targets: int) -> Graph:
    """The graph of a call."""
    return Graph(torch.tensor(edge_index, dtype=torch.int64).reshape(2, -1), (sources, targets))


def all_pairs(groups: Sequence[int], *, loops: bool) -> CompleteGraph:
    """The complete graph of a call, of the graph of each node."""
    return CompleteGraph(torch.tensor(groups, dtype=torch.int64), loops=loops)


def random_edges(
    sources: int, targets: int, count: int, *, busiest: int = 0, each: int = 0, both_ways: bool = False
) -> Graph:
    """A random graph of some sizes, in the place of that of a call.

    busiest:   how many edges the target with the most has, at least
    each:      how many edges each target has, if it is the same number for all
    both_ways: whether each edge has one the other way
    """
    random = torch.Generator().manual_seed(SEED)
    if not sources or not targets:
        return Graph(torch.zeros(2, 0, dtype=torch.int64), (sources, targets))
    if each:
        target = torch.arange(targets).repeat_interleave(each)
        return Graph(torch.stack([torch.randint(sources, target.shape, generator=random), target]), (sources, targets))
    source = torch.randint(sources, (count,), generator=random)
    target = torch.randint(targets, (count,), generator=random)
    target[torch.randperm(count, generator=random)[:busiest]] = 0
    found = torch.stack([source, target])
    if both_ways:
        half = found[:, : count // 2]
        found = torch.cat([half, half.flip(0)], dim=1)
    return Graph(found, (sources, targets))


# ------------------------------------------------------------------------------------------- calls


@dataclass(frozen=True, kw_only=True)
class Replay:
    """A call of a program.

    graph:   as the program's own ``graph`` statements have it before them
    tensors: of inputs, parameters and buffers, by name
    batch:   [N], the graph of each node, and ``graphs`` is how many there are
    options: of :class:`gdsl.passes.options.Options`
    """

    program: TypedProgram
    graph: Graph
    tensors: Mapping[str, Make]
    dtype: str
    backend: str
    device: str = "cpu"
    options: Mapping[str, Any] = field(default_factory=dict)
    batch: Make | None = None
    graphs: int = 1

    def compare(self, backend: str | None = None) -> list[Deviation]:
        """The results and gradients on a backend, against those of the reference in the same dtype and in float64.

        Raises what the call itself raises.
        """
        device = torch.device(self.device if self.device != "cuda" or torch.cuda.is_available() else "cpu")
        own = getattr(torch, self.dtype)
        asked = backend or (self.backend if device.type == self.device else "auto")
        random = torch.Generator().manual_seed(SEED)
        tensors = {name: make(random).to(device) for name, make in self.tensors.items()}
        batch = None if self.batch is None else self.batch(random).to(device)
        graph = self.graph.to(device)

        def measured(backend: str, dtype: torch.dtype) -> dict[str, Tensor]:
            return self._measured(backend, dtype, tensors, graph, batch)

        found = measured(backend_for(asked, own, device), own)
        expected, exact = measured("torch", own), measured("torch", torch.float64)
        tolerance = rounding(own)

        def error(name: str, other: Mapping[str, Tensor]) -> float:
            # A gradient that only one of them has is no small difference.
            both = name in found and name in other
            return error_of(found[name].double(), other[name].double()) if both else math.inf

        return [Deviation(n, error(n, expected), error(n, exact), tolerance) for n in {**expected, **found}]

    def _measured(
        self, backend: str, dtype: torch.dtype, tensors: Mapping[str, Tensor], graph: Graph, batch: Tensor | None
    ) -> dict[str, Tensor]:
        given = {name: _leaf(value, dtype) for name, value in tensors.items()}
        kind = Compilations().kind(None, self.program, Options(**self.options), dtype, graph.device)
        # What draws finds the same seed.
        seed = {"seed": torch.tensor(SEED, device=graph.device)} if self.program.uses_seed else {}
        results = run(kind, graph, {**seed, **given}, backend, batch=batch, num_graphs=self.graphs)
        names = [name for name, _ in self.program.outputs]
        found = {f"result {name}": r.detach() for name, r in zip(names, results, strict=True)}
        asking = {name: value for name, value in given.items() if value.requires_grad}
        random = torch.Generator().manual_seed(SEED + 1)
        mix = [torch.randn(r.shape, generator=random, dtype=torch.float64) for r in results]
        mixed = [(r * m.to(r)).sum() for r, m in zip(results, mix, strict=True) if r.requires_grad]
        if mixed:
            every = torch.autograd.grad(sum(mixed), list(asking.values()), allow_unused=True)  # type: ignore[arg-type]
            found |= {f"gradient of {name}": g for name, g in zip(asking, every, strict=True) if g is not None}
        return found


def _leaf(value: Tensor, dtype: torch.dtype) -> Tensor:
    if not value.is_floating_point():
        return value
    narrow = value.dtype if dtype is not torch.float64 else dtype
    return value.detach().to(narrow).requires_grad_(value.requires_grad)


@dataclass(frozen=True)
class Deviation:
    """A result or gradient: its largest error against the reference in the same dtype, and in float64."""

    name: str
    error: float
    error64: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return self.error <= self.tolerance


def main(calls: Sequence[Replay], argv: Sequence[str] | None = None) -> int:
    """Compare the calls, and print a table of each. Gives the exit code."""
    parser = argparse.ArgumentParser(description="Compare a recorded call of a gdsl layer with the reference.")
    parser.add_argument("--backend", choices=BACKENDS)
    asked = parser.parse_args(argv).backend
    failed = False
    for call in calls:
        if call.device == "cuda" and not torch.cuda.is_available():
            print(_NO_GPU, file=sys.stderr)
        rows = call.compare(asked)
        width = max((len(row.name) for row in rows), default=0)
        print(f"{call.program.name} on {asked or call.backend}, {call.dtype}")
        print(f"    {'':{width}}  against torch  in float64")
        for row in rows:
            verdict = "ok" if row.passed else f"DIFFERS by more than {row.tolerance:.0e}"
            print(f"    {row.name:{width}}  {row.error:13.1e}  {row.error64:10.1e}  {verdict}")
        failed = failed or not all(row.passed for row in rows)
    return int(failed)
