"""Programs as differentiable functions of torch.

A :class:`Runner` owns a program and, made on first need, its adjoints; each adjoint is again a program with a runner,
so derivatives of any order come from the same few lines. What the backward reads from the forward is an output of
the forward function that the user does not see: torch then differentiates through it as through any output.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gdsl.codegen.reference import Frame
from gdsl.ir.node import Node
from gdsl.ir.program import Program
from gdsl.ir.types import Kind
from gdsl.passes.options import Options
from gdsl.passes.pipeline import Adjoint, differentiate, lower, saved_name
from gdsl.runtime.execute import KernelPlan, ReferencePlan

Mask = tuple[bool, ...]


class Runner:
    """A program ready to be called on tensors, and differentiated.

    The tensors are in the order of ``program.inputs``. One runner serves one dtype, index dtype and backend.
    """

    def __init__(self, program: Program, backend: str, dtype: torch.dtype, index_dtype: torch.dtype, options: Options):
        self.program = program
        self.backend, self.dtype, self.index_dtype, self.options = backend, dtype, index_dtype, options
        self.inputs = program.inputs
        self._real = [n.kind is Kind.FLOAT for n in self.inputs]
        self._lock = threading.RLock()
        self._plain: KernelPlan | ReferencePlan | None = None
        self._differentiable: dict[Mask, _Differentiable] = {}

    def __call__(self, tensors: Sequence[Tensor], frame: Frame) -> tuple[Tensor, ...]:
        if torch.is_grad_enabled():
            mask = tuple([real and t.requires_grad for real, t in zip(self._real, tensors, strict=True)])
            if True in mask:
                return self.differentiable(mask)(tensors, frame)
        return tuple(self.plain.run(dict(zip(self.inputs, tensors, strict=True)), frame))

    @property
    def plain(self) -> KernelPlan | ReferencePlan:
        """The program alone, with nothing saved."""
        if self._plain is not None:
            return self._plain
        with self._lock:
            if self._plain is None:
                self._plain = self.compile(self.program, len(self.program.outputs))
            return self._plain

    def differentiable(self, mask: Mask) -> _Differentiable:
        found = self._differentiable.get(mask)
        if found is not None:
            return found
        with self._lock:
            if mask not in self._differentiable:
                self._differentiable[mask] = _Differentiable(self, mask)
            return self._differentiable[mask]

    def compile(self, program: Program, visible: int) -> KernelPlan | ReferencePlan:
        """A plan; the first ``visible`` outputs are the program's own, others what the backward reads."""
        if self.backend == "torch":
            return ReferencePlan(program.nodes)
        return KernelPlan(lower(program, self.options), self.backend, self.dtype, self.index_dtype, visible)

    def sub(self, program: Program) -> Runner:
        """A runner of another program for the same dtype and backend."""
        return Runner(program, self.backend, self.dtype, self.index_dtype, self.options)


class _Differentiable:
    """A program with the inputs by which it is differentiated, and the values that it saves for that."""

    def __init__(self, runner: Runner, mask: Mask):
        self.runner = runner
        self.wrt = tuple(n for n, wanted in zip(runner.inputs, mask, strict=True) if wanted)
        outputs = range(len(runner.program.outputs))
        self.first = differentiate(runner.program, self.wrt, outputs, None, runner.options)
        self.saved = tuple(node for node, _ in self.first.saved)
        program = runner.program
        extra = tuple((saved_name(program, k), node) for k, node in enumerate(self.saved))
        self.program = Program(program.name, program.outputs + extra, program.names)
        self.forward = runner.compile(self.program, len(program.outputs))
        self._adjoints: dict[tuple[Mask, Mask], tuple[Adjoint, Runner]] = {}
        self._lock = threading.Lock()

    def __call__(self, tensors: Sequence[Tensor], frame: Frame) -> tuple[Tensor, ...]:
        results = _Apply.apply(self, frame, *tensors)
        return results[: len(self.runner.program.outputs)]

    def adjoint(self, present: Mask, wanted: Mask) -> tuple[Adjoint, Runner]:
        """The adjoint for the output gradients that arrived and the input gradients that are asked for."""
        key = (present, wanted)
        found = self._adjoints.get(key)
        if found is not None:
            return found
        with self._lock:
            if key not in self._adjoints:
                wrt = [n for n, yes in zip(self.runner.inputs, wanted, strict=True) if yes]
                outputs = [k for k, yes in enumerate(present) if yes]
                saved = frozenset(self.saved)
                adjoint = differentiate(self.program, wrt, outputs, saved, self.runner.options)
                self._adjoints[key] = (adjoint, self.runner.sub(adjoint.program))
            return self._adjoints[key]


class _Apply(torch.autograd.Function):
    """One call of a program, seen by torch."""

    @staticmethod
    def forward(ctx: Any, owner: _Differentiable, frame: Frame, *tensors: Tensor) -> tuple[Tensor, ...]:
        values = dict(zip(owner.runner.inputs, tensors, strict=True))
        outputs = tuple(owner.forward.run(values, frame))
        ctx.owner, ctx.frame = owner, frame
        ctx.set_materialize_grads(False)
        first = len(owner.runner.program.outputs)
        ctx.save_for_backward(*tensors, *outputs[first:])
        ctx.mark_non_differentiable(*(o for o in outputs if not o.is_floating_point()))
        return outputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        owner: _Differentiable = ctx.owner
        inputs = owner.runner.inputs
        tensors = ctx.saved_tensors
        present = tuple(g is not None for g in grads)
        wanted = tuple(ctx.needs_input_grad[2:])
        adjoint, runner = owner.adjoint(present, wanted)
        values: dict[Node, Tensor] = dict(zip(inputs, tensors, strict=False))
        kept = dict(zip(owner.saved, tensors[len(inputs) :], strict=True))
        values |= {load: kept[node] for node, load in adjoint.saved}
        for k, load in adjoint.grads:
            gradient = grads[k]
            assert gradient is not None
            values[load] = gradient
        found = runner([values[n] for n in runner.inputs], ctx.frame)
        by_input = dict(zip(adjoint.wrt, found, strict=True))
        return (None, None, *(by_input.get(n) for n in inputs))
