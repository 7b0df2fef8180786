"""All that a program's page is made from: the stages, what was rewritten, and where each value comes from."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch

from gdsl.errors import InputError
from gdsl.explore.one_node import NodeRun, call
from gdsl.explore.origins import Origins
from gdsl.explore.reading import Reading
from gdsl.ir.program import Program
from gdsl.language.program import TypedProgram
from gdsl.look.kernels import Inspection
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
        typed = with_own_parts(self.reading.layer, arguments, **others)
        if typed.graphs:
            raise InputError("it runs on several graphs, and is compiled in pieces of one: `gdsl show` has all of them")
        return typed

    @cached_property
    def plain(self) -> Program:
        """The program as it was written."""
        return self.typed.program

    @cached_property
    def optimised(self) -> Program:
        return optimise(self.plain, self.options, self.log)

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """The optimised program, cut at the modules that run as they are."""
        return cut(self.optimised)

    @cached_property
    def inspection(self) -> Inspection:
        programs = [s.program for s in self.stages]
        return Inspection(self.typed, programs, torch.float32, torch.int32, self.options)

    @cached_property
    def origins(self) -> Origins:
        assert self.reading.layer is not None
        return Origins(self.typed, self.reading.layer, self.options)
