"""The look inside a layer: its kernels as text with their costs, and the story of how they came to be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from gdsl.codegen import cpp, triton
from gdsl.codegen.targets import DEFAULT_TARGET, edge_axis
from gdsl.errors import InputError
from gdsl.ir.node import Node
from gdsl.ir.printer import expression, name_nodes, print_program
from gdsl.ir.program import Program
from gdsl.ir.types import Domain, Kind
from gdsl.language.program import TypedProgram
from gdsl.look import html
from gdsl.look.short import rows
from gdsl.passes import cost
from gdsl.passes.one_walk import on_gpu, plan_on_gpu
from gdsl.passes.options import Options
from gdsl.passes.pipeline import Adjoint, differentiate, lower
from gdsl.passes.plan import Kernel, Phase, Plan, TorchStep
from gdsl.passes.rewrite import Fired
from gdsl.passes.tiles import Tile, tiled
from gdsl.passes.turns import ProgramPiece, why_not
from gdsl.runtime import cache
from gdsl.runtime.items import C_TYPES, Storage, storage_of
from gdsl.runtime.offline import Binary, Job, compile_all, job, sass
from gdsl.runtime.turns import pieces_for

if TYPE_CHECKING:
    import sympy


LANGUAGES = ("cpp", "triton")


@dataclass(frozen=True)
class Planned:
    """A plan that runs, of a program or of a piece of one.

    direction: "forward" or "backward"
    visible:   how many of its outputs a user sees
    piece:     what it is of a program that goes through the edges in turns, and that program
    """

    direction: str
    plan: Plan
    visible: int
    piece: ProgramPiece | None = None
    whole: Program | None = None


@dataclass(frozen=True)
class KernelInfo:
    """A generated kernel.

    direction: "forward" or "backward"
    language:  "cpp" or "triton"
    source:    the text of the function
    unit:      the text that it is compiled with
    job:       what Triton is given to compile it, and for which GPU
    """

    name: str
    direction: str
    language: str
    source: str = field(repr=False)
    kernel: Kernel = field(repr=False)
    unit: str = field(repr=False)
    job: Job | None = field(default=None, repr=False)
    target: str = DEFAULT_TARGET

    @cached_property
    def bytes(self) -> sympy.Expr:
        """Bytes read and written, float32, as a formula in N, E and the dims."""
        return cost.formula(cost.bytes_moved, self.kernel)

    @cached_property
    def flops(self) -> sympy.Expr:
        """Operations, as a formula in N, E and the dims: a function is one a number, be it an addition or an exp."""
        return cost.formula(cost.operations, self.kernel)

    @cached_property
    def binary(self) -> Binary:
        """A Triton kernel compiled for its target: registers, shared memory, spills, and the text of each stage."""
        if self.job is None:
            raise InputError(f"{self.name} is a C++ kernel: only Triton kernels are compiled for a GPU")
        return compile_all([self.job], self.target)[0]

    def asm(self, stage: str | None = None) -> str:
        """The machine code of the kernel as text.

        A C++ kernel's is its translation unit's assembly, from the system compiler. Of a Triton kernel ``stage`` names
        one on the way: "ttir", "ttgir" or "llir", then "ptx" or "sass" for NVIDIA and "amdgcn" for AMD.

        Raises :class:`gdsl.InputError` for a stage that there is not, and :class:`gdsl.CompilerError` where a compiler
        fails.
        """
        if self.job is None:
            if stage not in (None, "asm"):
                raise InputError(f"a C++ kernel has the stage asm, not {stage!r}")
            return cache.assembly(self.unit)
        found = self.binary.asm
        stage = stage or ("ptx" if "ptx" in found else "amdgcn")
        if stage == "sass" and "cubin" in found:
            return sass(found["cubin"])
        if stage not in found or stage == "cubin":
            stages = [s for s in found if s != "cubin"] + (["sass"] if "cubin" in found else [])
            raise InputError(f"{self.target} has the stages {', '.join(stages)}, not {stage!r}")
        return found[stage]

    def _repr_html_(self) -> str:
        return html.kernel(self)


class Kernels(list[KernelInfo]):
    """The kernels of a layer. A prompt shows one a line, a notebook lets their sources unfold."""

    def __repr__(self) -> str:
        return rows(self)

    def _repr_html_(self) -> str:
        return html.kernels(self)


class Inspection:
    """A program and all that is made from it, for one way of calling a layer."""

    def __init__(
        self, typed: TypedProgram, programs: Sequence[Program], dtype: torch.dtype, index: torch.dtype, options: Options
    ):
        if typed.complete is not None:
            # Whatever graph it is looked at for.
            options = replace(options, shape=replace(options.shape, complete=True))
        self.typed, self.programs, self.options = typed, tuple(programs), options
        self.backward_log: list[Fired] = []
        self.last_log: list[Fired] = []
        self._kernels: dict[tuple[str, str], list[KernelInfo]] = {}
        self.dtype = dtype if dtype in C_TYPES else torch.float32
        self.index = index

    @cached_property
    def adjoints(self) -> list[Adjoint]:
        """One a stage, for the gradients of all its outputs by all its inputs."""
        found = []
        for program in self.programs:
            wrt = [n for n in program.inputs if n.kind is Kind.FLOAT and n.attrs.role != "seed"]
            real = [k for k, n in enumerate(program.nodes) if n.kind is Kind.FLOAT]
            found.append(differentiate(program, wrt, real, None, self.options, self.backward_log))
        return found

    @cached_property
    def kept(self) -> list[Program]:
        """The programs with what the backward keeps among their outputs."""
        found = []
        for program, adjoint in zip(self.programs, self.adjoints, strict=True):
            extra = tuple((load.attrs.name, node) for node, load in adjoint.saved)
            found.append(Program(program.name, program.outputs + extra, program.names))
        return found

    @cached_property
    def planned(self) -> list[Planned]:
        """What runs, in order: forward, with what the backward keeps among the outputs, then backward."""
        forward, backward = list[Planned](), list[Planned]()
        for program, kept, adjoint in zip(self.programs, self.kept, self.adjoints, strict=True):
            forward += self._planned("forward", kept, len(program.outputs))
            if adjoint.program.outputs:
                backward += self._planned("backward", adjoint.program, len(adjoint.program.outputs))
        return forward + backward

    def _planned(self, direction: str, program: Program, visible: int) -> Iterator[Planned]:
        last, pieces = pieces_for(program, self.options, self.index)
        if not pieces:
            yield Planned(direction, lower(program, self.options, self.last_log), visible)
        for piece in pieces:
            yield Planned(direction, lower(piece.program, self.options, self.last_log), 0, piece, last)

    @property
    def at_once(self) -> list[tuple[str, str]]:
        """What would go through the edges in turns, and cannot: in which direction, and why."""
        if not self.options.in_turns:
            return []
        programs = [("forward", p) for p in self.kept] + [("backward", a.program) for a in self.adjoints]
        return [(direction, why) for direction, p in programs if (why := why_not(p))]

    @property
    def plans(self) -> list[tuple[str, Plan]]:
        """The plans as they run on the device, and the direction of each."""
        of_device = plan_on_gpu if self.options.shape.device != "cpu" else lambda plan: plan
        return [(p.direction, of_device(p.plan)) for p in self.planned]

    def kernels(self, language: str = "cpp", target: str = DEFAULT_TARGET) -> list[KernelInfo]:
        """The kernels in a language; those of Triton for a GPU. They are the same ones each time."""
        known = self._kernels.get((language, target))
        if known is not None:
            return list(known)
        found = []
        write = {"cpp": _cpp_kernels, "triton": _triton_kernels}[language]
        for p in self.planned:
            found += write(p.plan, p.direction, storage_of(p.plan, self.dtype, self.index, p.visible), target)
        self._kernels[language, target] = found
        return list(found)

    def text(self, stage: str, backward: bool = False) -> str:
        """One stage as text: "ir", "optimised", "fused", "cpp", "asm", "triton", or a stage of Triton's for sm_90."""
        if stage == "ir" and not backward:
            return print_program(self.typed.program)
        if stage in ("ir", "optimised"):
            programs = [a.program for a in self.adjoints] if backward else self.programs
            return "\n\n".join(print_program(p) for p in programs)
        wanted = "backward" if backward else "forward"
        if stage == "fused":
            return "\n\n".join(describe_plan(plan) for direction, plan in self.plans if direction == wanted)
        language = "cpp" if stage in ("cpp", "asm") else "triton"
        kernels = [k for k in self.kernels(language) if k.direction == wanted]
        if stage == language:
            return "\n".join(k.source for k in kernels)
        if language == "triton":
            compile_together(kernels)
        return "\n".join(dict.fromkeys(k.asm(stage) for k in kernels))

    def explain(self) -> str:
        parts = [_title(f"{self.typed.name}: the rules"), *(f"    {r.text}" for r in self.typed.rules)]
        parts += [_title("optimised"), self.text("optimised")]
        parts += [_title("backward"), self.text("optimised", backward=True)]
        parts += [_title("kept from forward to backward"), *self._saved()]
        parts.append(_title("plan"))
        for direction, plan in self.plans:
            parts.append(f"{direction}:")
            parts.append(describe_plan(plan))
        return "\n".join(parts)

    def _saved(self) -> list[str]:
        lines = []
        for adjoint, program in zip(self.adjoints, self.programs, strict=True):
            names = name_nodes(program)
            for node, load in adjoint.saved:
                text = expression(node, names)
                lines.append(f"    {load.attrs.name} = {text}   # {node.type}, {4 * node.type.numel} bytes a row")
        return lines or ["    nothing"]


def _cpp_kernels(plan: Plan, direction: str, storage: Storage, target: str) -> list[KernelInfo]:
    unit = cpp.generate(plan, *storage.names, storage.visible)
    return [
        KernelInfo(k.name, direction, "cpp", cpp.kernel_source(k, plan, storage.packed), k, unit) for k in plan.kernels
    ]


def _triton_kernels(plan: Plan, direction: str, storage: Storage, target: str) -> list[KernelInfo]:
    found = []
    for kernel in map(on_gpu, plan.kernels):
        functions = triton.functions(kernel, plan.program, storage.packed, *storage.names, edge_axis())
        unit = triton.unit(functions)
        for f in functions:
            made = job(f, kernel, unit, storage, target)
            found.append(KernelInfo(f.name, direction, "triton", f.source, kernel, unit, made, target))
    return found


def compile_together(kernels: Sequence[KernelInfo]) -> list[Binary]:
    """Compile Triton kernels of one target in one go, where each would start a process of its own."""
    jobs = [k.job for k in kernels if k.job is not None]
    found = compile_all(jobs, kernels[0].target) if kernels else []
    for kernel, binary in zip(kernels, found, strict=True):
        kernel.__dict__["binary"] = binary
    return found


def describe_plan(plan: Plan) -> str:
    """The steps of a plan: kernels with their walks and costs, and what torch does between them."""
    names = name_nodes(plan.program)
    inner = {n for tile in tiled(plan) if isinstance(tile, Tile) for n in tile.inner}
    lines = []
    for step in plan.steps:
        if isinstance(step, TorchStep):
            lines.append(f"    torch: {expression(step.node, names)}   # {step.node.type}")
        else:
            lines += _describe_kernel(step, names, inner)
    return "\n".join(lines)


def _describe_kernel(kernel: Kernel, names: dict, inner: set[Node]) -> list[str]:
    lines = [f"    kernel {kernel.name}: over the {over(kernel)}"]
    for number, phase in enumerate(kernel.phases):
        for kind, nodes in phase_parts(phase):
            for node in nodes:
                lines.append(f"        walk {number + 1}: {kind} {expression(node, names)}   # {node.type}")
    for node in kernel.stores:
        turns = ", on CPUs a few rows at a time, in turns with its products" if node in inner else ""
        lines.append(f"        store {expression(node, names)}   # {node.type}{turns}")
    for node in kernel.totals:
        lines.append(f"        total {expression(node, names)}   # {node.type}")
    lines.append(f"        bytes: {cost.formula(cost.bytes_moved, kernel)}")
    lines.append(f"        flops: {cost.formula(cost.operations, kernel)}")
    return lines


def over(kernel: Kernel) -> str:
    """What a kernel walks, in words."""
    if kernel.rows is Domain.EDGE:
        of_pairs = {"i": "pairs that end in each edge", "j": "pairs that begin with each edge"}
        return of_pairs.get(kernel.end or "", "edges")
    if kernel.complete:
        return "all nodes of each node's graph"
    return {"i": "in-edges of each node", "j": "out-edges of each node"}.get(kernel.end or "", "rows")


def phase_parts(phase: Phase) -> list[tuple[str, tuple]]:
    """What a walk does, in a word, and to which values."""
    return [("reduce", phase.accumulators), ("total", phase.totals), ("write", phase.stores), ("keep", phase.kept)]


def _title(text: str) -> str:
    return f"\n== {text} =="
