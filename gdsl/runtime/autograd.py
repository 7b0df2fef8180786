"""Programs as differentiable functions of torch.

A :class:`Runner` owns a program and, made on first need, its adjoints; each adjoint is again a program with a runner,
so derivatives of any order come from the same few lines. What the backward reads from the forward is an output of
the forward function that the user does not see: torch then differentiates through it as through any output.

``torch.func`` and forward-mode derivatives ask a function of torch for more: it must be split in two, know its tangent
and what to do under vmap. That costs time in each call, so that only calls under a transform go that way.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._functorch.utils import unwrap_dead_wrappers

from gdsl.codegen.reference import Frame
from gdsl.ir.node import Node
from gdsl.ir.program import Program
from gdsl.ir.types import Kind
from gdsl.passes.options import Options
from gdsl.passes.pipeline import Adjoint, differentiate, lower, saved_name
from gdsl.runtime.execute import KernelPlan, ReferencePlan
from gdsl.runtime.transforms import transforming, watched

Mask = tuple[bool, ...]


class Runner:
    """A program ready to be called on tensors, and differentiated.

    The tensors are in the order of ``program.inputs``. One runner serves one dtype, index dtype and backend.
    """

    def __init__(self, program: Program, backend: str, dtype: torch.dtype, index_dtype: torch.dtype, options: Options):
        self.program = program
        self.backend, self.dtype, self.index_dtype, self.options = backend, dtype, index_dtype, options
        self.inputs = program.inputs
        self.names = [n.attr("name") for n in self.inputs]
        self._real = [n.kind is Kind.FLOAT for n in self.inputs]
        self._lock = threading.RLock()
        self._plain: KernelPlan | ReferencePlan | None = None
        self._differentiable: dict[Mask, _Differentiable] = {}

    def __call__(self, tensors: Sequence[Tensor], frame: Frame) -> tuple[Tensor, ...]:
        if transforming():
            return self._transformed(tensors, frame)
        if torch.is_grad_enabled():
            mask = tuple([real and t.requires_grad for real, t in zip(self._real, tensors, strict=True)])
            if True in mask:
                return self.differentiable(mask)(tensors, frame)
        return tuple(self.plain.run(dict(zip(self.inputs, tensors, strict=True)), frame))

    def _transformed(self, tensors: Sequence[Tensor], frame: Frame) -> tuple[Tensor, ...]:
        """The call where a transform of torch.func or a forward-mode derivative may look at the tensors."""
        seen = watched(tensors)
        if True not in seen:
            return tuple(self.plain.run(dict(zip(self.inputs, tensors, strict=True)), frame))
        mask = tuple([real and s for real, s in zip(self._real, seen, strict=True)])
        owner = self.differentiable(mask)
        results: tuple[Tensor, ...] = _Transformed.apply(owner, frame, *tensors)
        return results[: len(self.program.outputs)]

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
            return ReferencePlan(program.nodes, visible)
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
        self._tangents: dict[Mask, Tangent] = {}
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
                # Mostly it is the one by which the values to save were chosen.
                first = wrt == list(self.wrt) and outputs == list(range(len(self.runner.program.outputs)))
                adjoint = self.first if first else differentiate(self.program, wrt, outputs, saved, self.runner.options)
                self._adjoints[key] = (adjoint, self.runner.sub(adjoint.program))
            return self._adjoints[key]

    def tangent(self, given: Mask) -> Tangent:
        """The derivative of every real output along the inputs that ``given`` names."""
        with self._lock:
            if given not in self._tangents:
                wrt = [n for n, yes in zip(self.runner.inputs, given, strict=True) if yes]
                self._tangents[given] = Tangent(self.runner, self.program, wrt)
            return self._tangents[given]


class Tangent:
    """The derivative of a program along some inputs: its Jacobian times a vector.

    The adjoint u -> Jᵀu is linear in u, so that its own adjoint is v -> Jv, whatever u is.
    """

    def __init__(self, runner: Runner, program: Program, wrt: Sequence[Node]):
        outputs = [k for k, node in enumerate(program.nodes) if node.kind is Kind.FLOAT]
        adjoint = differentiate(program, wrt, outputs, frozenset(), runner.options)
        pullback = adjoint.program
        seeds = [load for _, load in adjoint.grads]
        found = differentiate(pullback, seeds, range(len(pullback.outputs)), frozenset(), runner.options)
        self.runner = runner.sub(found.program)
        # The output of the program that each result is the tangent of, and the input whose tangent each seed is.
        place = {load: k for k, load in adjoint.grads}
        self.outputs = tuple(place[load] for load in found.wrt)
        self.seeds = {load: adjoint.wrt[k] for k, load in found.grads}

    def __call__(
        self, values: Mapping[Node, Tensor], tangents: Mapping[Node, Tensor], frame: Frame
    ) -> dict[int, Tensor]:
        """The tangents of outputs by their place; those that are missing are zero."""
        given = {**values, **{load: tangents[x] for load, x in self.seeds.items()}}
        return dict(zip(self.outputs, self.runner([given[n] for n in self.runner.inputs], frame), strict=True))


def _pull_back(ctx: Any, tensors: Sequence[Tensor], grads: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    """The gradients of a call's tensors from those of its outputs and from what the call saved."""
    owner: _Differentiable = ctx.owner
    inputs = owner.runner.inputs
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
        return _pull_back(ctx, ctx.saved_tensors, grads)


class _Transformed(torch.autograd.Function):
    """One call of a program, seen by the transforms of torch.func and by forward-mode derivatives."""

    @staticmethod
    def forward(owner: _Differentiable, frame: Frame, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(owner.forward.run(dict(zip(owner.runner.inputs, tensors, strict=True)), frame))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.owner, ctx.frame, *tensors = inputs
        ctx.set_materialize_grads(False)
        first = len(ctx.owner.runner.program.outputs)
        ctx.save_for_backward(*tensors, *output[first:])
        ctx.save_for_forward(*tensors)
        ctx.like = [(o.shape, o.dtype) if o.is_floating_point() else None for o in output]
        ctx.mark_non_differentiable(*(o for o in output if not o.is_floating_point()))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        # The function that torch.func.vjp gives is called when the transform is over.
        return _pull_back(ctx, unwrap_dead_wrappers(ctx.saved_tensors), grads)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor | None, ...]:
        owner: _Differentiable = ctx.owner
        inputs = owner.runner.inputs
        # The saved values follow the tensors where a backward pass is recorded, too.
        values = dict(zip(inputs, ctx.saved_tensors[: len(inputs)], strict=True))
        given = {n: t for n, t in zip(inputs, tangents[2:], strict=True) if t is not None}
        found = owner.tangent(tuple(n in given for n in inputs))(values, given, ctx.frame)
        device = ctx.frame.device
        return tuple(
            None if like is None else found.get(k, torch.zeros(like[0], dtype=like[1], device=device))
            for k, like in enumerate(ctx.like)
        )

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], owner: _Differentiable, frame: Frame, *tensors: Tensor
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        """One call after the other: kernels of an ensemble would only share the graph, which is cached as it is."""
        calls = [
            _Transformed.apply(
                owner, frame, *(t if d is None else t.select(d, k) for t, d in zip(tensors, in_dims[2:], strict=True))
            )
            for k in range(info.batch_size)
        ]
        stacked = tuple(torch.stack(results) for results in zip(*calls, strict=True))
        return stacked, (0,) * len(stacked)
