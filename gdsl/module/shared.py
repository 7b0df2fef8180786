"""What programs share that differ in numbers alone: a setting that changes from call to call is compiled once.

The numbers that a program came with first are constants of its kernels. Those that have changed since are inputs of the
kernels, of no dims: one program then serves all their values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gdsl.ir.program import Program
from gdsl.kept import Anew, Kept
from gdsl.locks import Lock
from gdsl.passes import numbers
from gdsl.runtime import native
from gdsl.runtime.frame import Frame

# The numbers of a program that are inputs, by the names of these.
Numbers = Mapping[str, float]


class Shared(Anew):
    """What was compiled, by what it computes: expressions are hash-consed, so that an equal one is the same."""

    def __init__(self) -> None:
        self._lock = Lock()
        # By what programs are without their numbers: the first ones, and which have changed since.
        self._numbers = Kept()
        self.made = Kept()

    def with_inputs(self, program: Program) -> tuple[Program, Numbers]:
        """The program with those of its numbers as inputs that have changed since one of its kind came, and these."""
        new, found = numbers.skeleton(program.nodes)
        bones = tuple(new[n] for n in program.nodes)
        with self._lock:
            first, changed = self._numbers.get((program.name, bones)) or (found, frozenset[int]())
            now = changed | {k for k, (a, b) in enumerate(zip(first, found, strict=True)) if a.hex() != b.hex()}
            self._numbers.keep((program.name, bones), (first, now))
        inputs = {k for k in now if numbers.can_be_input(found[k])}
        if not inputs:
            return program, {}
        values = [found[k] if k in now else first[k] for k in range(len(found))]
        back = numbers.filled(bones, values, inputs)
        mapping = {old: back[bone] for old, bone in new.items() if bone in back}
        given = {numbers.load(k).attrs.name: found[k] for k in sorted(inputs)}
        return program.mapped(mapping), given


def tensors_of(given: Numbers, frame: Frame) -> dict[str, Tensor]:
    """The numbers that a program takes as inputs."""
    return {name: torch.full((), value, dtype=frame.dtype, device=frame.device) for name, value in given.items()}


class Repeated(Anew):
    """The calls of a module that native code repeats. A copy of the module has its own."""

    def __init__(self) -> None:
        self.calls: Any = None
        self.offered = Kept()

    def add(self, *about: Any) -> None:
        if self.calls is None:
            self.calls = native.loaded().Calls()  # type: ignore[union-attr]
        self.calls.add(*about)
