"""All that a program's page is made from: the stages, what was rewritten, and where each value comes from."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch

from gdsl.explore.one_node import NodeRun, call
from gdsl.explore.origins import Origins
from gdsl.explore.reading import Reading
from gdsl.ir.program import Program
from gdsl.language.program import TypedProgram
from gdsl.look.kernels import Inspection
from gdsl.look.pieces import programs_of
from gdsl.module.rerun import with_own_parts
from gdsl.passes.options import Options
from gdsl.passes.pipeline import optimise
from gdsl.passes.rewrite import Fired
from gdsl.passes.stages import Stage, cut


@dataclass
class Making:
    """A checked program compiled for float32, in evaluation mode. ``reading`` has no mistakes."""

    reading: Reading
    log: list[Fired] = field(default_factory=list)
    runs: dict[str, NodeRun] = field(default_factory=dict)

    def run(self, profile: str) -> NodeRun:
        """The program called on a small graph of a profile: see :func:`gdsl.explore.one_node.call`."""
        if profile not in self.runs:
            self.runs[profile] = call(self.reading, profile)
        return self.runs[profile]

    @property
    def options(self) -> Options:
        return Options(shape=self.reading.settings.shape)

    @cached_property
    def typed(self) -> TypedProgram:
        """The checked program, and what it reads of linear maps of its own."""
        assert self.reading.layer is not None
        arguments, others = self.reading.way
        return with_own_parts(self.reading.layer, arguments, **others)

    @cached_property
    def plain(self) -> Program:
        """The program as it was written."""
        return self.typed.program

    @cached_property
    def parts(self) -> tuple[Program, ...]:
        """What is compiled, before any rule: the program, or its pieces of one graph each."""
        return programs_of(self.typed)

    @cached_property
    def optimised(self) -> tuple[Program, ...]:
        return tuple(optimise(part, self.options, self.log) for part in self.parts)

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """The optimised programs, cut at the modules that run as they are."""
        return tuple(stage for program in self.optimised for stage in cut(program))

    @cached_property
    def inspection(self) -> Inspection:
        programs = [s.program for s in self.stages]
        return Inspection(self.typed, programs, torch.float32, torch.int32, self.options)

    @cached_property
    def origins(self) -> Origins:
        assert self.reading.layer is not None
        return Origins(self.typed, self.reading.layer, self.options)
