"""What a tracer of torch asks a module with programs for, as constants: see :mod:`gdsl.module.compiled`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from gdsl.ir.program import Program
from gdsl.language.program import TypedProgram
from gdsl.module import compiled as traced
from gdsl.module.ways import Text, Way, stages_of
from gdsl.passes.options import Options
from gdsl.passes.stages import Stage


class Compilable(nn.Module):
    """A module whose calls are programs of texts."""

    backend: str

    def _way(self, key: Any) -> tuple[Text, Way]:
        """The program that a key of a traced call names."""
        raise NotImplementedError

    def _children(self) -> Sequence[nn.Module]:
        """The modules that a program may read."""
        raise NotImplementedError

    def _program_of(self, key: Any) -> tuple[TypedProgram, tuple[Stage, ...], Options]:
        """The program for a graph that is not known."""
        text, way = self._way(key)
        typed = text.typed_for(self, way)
        written = Program(typed.name, typed.outputs, typed.names)
        stages = text.store.programs.once((way, "any graph"), lambda: stages_of(written, text.options))
        return typed, stages, text.options

    @traced.constant_for_tracer
    def traced_fields(self) -> tuple[tuple[str, ...], ...]:
        """What a traced call looks at in modules: see :func:`gdsl.module.compiled.fields_of`."""
        return traced.fields_of(self._children())

    @traced.constant_for_tracer
    def traced_plan(self, key: Any) -> Any:
        """What a traced call must know: see :func:`gdsl.module.compiled.plan_of`."""
        return traced.plan_of(*self._program_of(key)[:2])

    @traced.constant_for_tracer
    def traced_call(self, key: Any, stage: int, mask: tuple[bool, ...], dtype: str) -> str:
        """The operator of a traced call: see :func:`gdsl.module.compiled.call_text`."""
        typed, stages, options = self._program_of(key)
        return traced.call_text(typed, stages, stage, options, self.backend, mask, dtype)
