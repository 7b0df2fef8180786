"""Programs as differentiable functions of torch.

A :class:`Runner` owns a program and, made on first need, its adjoints; each adjoint is again a program with a runner,
so derivatives of any order come from the same few lines. What the backward reads from the forward is an output of
the forward function that the user does not see: torch then differentiates through it as through any output.

``torch.func`` and forward-mode derivatives ask a function of torch for more: it must be split in two, know its tangent
and what to do under vmap. That costs time in each call, so that only calls under a transform go that way.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch._functorch.utils import unwrap_dead_wrappers

from gdsl.ir.node import Node, walk
from gdsl.ir.ops import of
from gdsl.ir.ops.adjoint import depends_on
from gdsl.ir.program import Program
from gdsl.ir.types import Domain, Kind
from gdsl.kept import Kept
from gdsl.locks import Lock
from gdsl.passes.options import Options
from gdsl.passes.pipeline import Adjoint, differentiate, lower, may_read, saved_name
from gdsl.passes.plan import Plan
from gdsl.passes.turns import ProgramPiece
from gdsl.runtime.copies import kept_apart
from gdsl.runtime.execute import KernelPlan, ReferencePlan, begin, can_begin
from gdsl.runtime.frame import Frame
from gdsl.runtime.halo import agree_on
from gdsl.runtime.items import HALF
from gdsl.runtime.tracers import check_tracers, recording, run_as_it_is
from gdsl.runtime.transforms import by_row, is_old_batch, transforming, watched
from gdsl.runtime.turns import TurnsPlan, pieces_for

Mask = tuple[bool, ...]


class Runner:
    """A program ready to be called on tensors, and differentiated.

    The tensors are in the order of ``program.inputs``. One runner serves one dtype, index dtype and backend.
    """

    def __init__(self, program: Program, backend: str, dtype: torch.dtype, index_dtype: torch.dtype, options: Options):
        self.program = program
        self.backend, self.dtype, self.index_dtype, self.options = backend, dtype, index_dtype, options
        self.inputs = program.inputs
        self.names = [n.attrs.name for n in self.inputs]
        self._real = [n.kind is Kind.FLOAT for n in self.inputs]
        self._none = (False,) * len(self._real)
        # What native code has of it, and how often it was asked for: see functions.py.
        self.functions: dict[Mask, tuple[Any, int]] = {}
        self._lock = Lock()
        self._begun: tuple[Plan, str] | None = None
        self._plain: KernelPlan | ReferencePlan | TurnsPlan | None = None
        self._differentiable = Kept()

    def __call__(self, tensors: Sequence[Tensor], frame: Frame) -> tuple[Tensor, ...]:
        return self.run(dict(zip(self.inputs, tensors, strict=True)), frame)

    @run_as_it_is
    def run(self, values: dict[Node, Tensor], frame: Frame) -> tuple[Tensor, ...]:
        """The program's outputs. ``values`` has a tensor for each input, in order, and loses what is read no more."""
        if recording():
            check_tracers()
        if transforming():
            return self._transformed([*values.values()], frame)
        mask = self.mask(values.values())
        if True in mask:
            return self.differentiable(mask)([*values.values()], frame)
        return tuple(self.plain.run(values, frame))

    def mask(self, tensors: Collection[Tensor]) -> Mask:
        """Which of the tensors of a call ask for gradients."""
        if not torch.is_grad_enabled():
            return self._none
        return tuple([real and t.requires_grad for real, t in zip(self._real, tensors, strict=True)])

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
    def plain(self) -> KernelPlan | ReferencePlan | TurnsPlan:
        """The program alone, with nothing saved."""
        if self._plain is not None:
            return self._plain
        with self._lock:
            if self._plain is None:
                self._plain = self.compile(self.program, len(self.program.outputs))
            return self._plain

    def made(self, mask: Mask) -> KernelPlan | ReferencePlan | TurnsPlan | Differentiable | None:
        """What runs for tensors of which some ask for gradients, if it has been called for before."""
        return self._differentiable.get(mask) if True in mask else self._plain

    def differentiable(self, mask: Mask) -> Differentiable:
        return self._differentiable.once(mask, lambda: Differentiable(self, mask))

    def chosen(self, mask: Mask) -> list[Node]:
        """The inputs that a mask names."""
        return [n for n, yes in zip(self.inputs, mask, strict=True) if yes]

    def begin(self) -> None:
        """Start to compile the program alone: it will soon be called."""
        if can_begin(self.backend) and not self._pieces(self.program)[1]:
            plan = lower(self.program, self.options)
            at = (self.backend, self.dtype, self.index_dtype, len(self.program.outputs))
            self._begun = plan, begin(plan, *at)

    def compile(self, program: Program, visible: int) -> KernelPlan | ReferencePlan | TurnsPlan:
        """A plan; the first ``visible`` outputs are the program's own, others what the backward reads."""
        last, pieces = self._pieces(program)
        return TurnsPlan(last, pieces, visible, self._compile) if pieces else self._compile(program, visible)

    def _pieces(self, program: Program) -> tuple[Program, Sequence[ProgramPiece]]:
        return pieces_for(program, self.options, self.index_dtype)

    def _compile(self, program: Program, visible: int = 0) -> KernelPlan | ReferencePlan:
        if self.backend == "torch":
            return ReferencePlan(program.nodes, visible)
        at = (self.backend, self.dtype, self.index_dtype, visible)
        if self._begun is None or program is not self.program:
            return KernelPlan(lower(program, self.options), *at)
        (plan, source), self._begun = self._begun, None
        return KernelPlan(plan, *at, source)

    def sub(self, program: Program) -> Runner:
        """A runner of another program for the same dtype and backend."""
        return Runner(program, self.backend, self.dtype, self.index_dtype, self.options)


@dataclass(frozen=True)
class Pullback:
    """An adjoint ready to be called.

    takes: for each of its inputs, the place among what the call has saved and the gradients of all outputs
    gives: for each input of the program, the place of its gradient among the results; None where it has none
    """

    adjoint: Adjoint
    runner: Runner
    takes: tuple[int, ...]
    gives: tuple[int | None, ...]

    @cached_property
    def sends(self) -> str:
        """Words for what it sends to other processes, which all of them must."""
        program = self.adjoint.program
        sent = [f"{n.op} {n.type}" for n in walk(program.nodes) if of(n).travels]
        return f"{program.name}, which sends {', '.join(sent) or 'nothing'}"


class Differentiable:
    """A program with the inputs by which it is differentiated, and the values that it saves for that.

    program: its outputs are the program's own, then the values that are made for the backward alone
    reads:   places of the inputs that a backward may read: only they are kept until then, those that torch has computed
             as lazy copies, so that a user may write to inputs and results
    kept:    places among the outputs of the values that are saved
    constant: places of the outputs that have no derivative by any of the inputs
    """

    def __init__(self, runner: Runner, mask: Mask):
        self.runner = runner
        program, self.visible = runner.program, len(runner.program.outputs)
        self.wrt = tuple(runner.chosen(mask))
        self.first = differentiate(program, self.wrt, range(self.visible), None, runner.options)
        self.saved = tuple(node for node, _ in self.first.saved)
        # A user's half precision is too coarse for what is saved.
        seen = () if runner.dtype in HALF else program.nodes
        extra = tuple((saved_name(program, k), n) for k, n in enumerate(self.saved) if n not in seen)
        self.program = Program(program.name, program.outputs + extra, program.names)
        self.reads = self.reads_of(mask)
        places = {node: k for k, node in enumerate(self.program.nodes)}  # the last, of those that are results, too
        self.kept = tuple(places[node] for node in self.saved)
        self.constant = self.constant_by(mask)
        self.loads = (*(runner.inputs[k] for k in self.reads), *self.saved)
        self.shapes = tuple((n.domain, n.type.shape) for n in self.loads)
        # The backward pass is compiled beside the forward pass, which it will soon follow.
        self._adjoints = Kept()
        if runner.options.shape.complete and runner.backend != "torch":
            # What would have to be stored for the gradients alone is refused before anything runs.
            lower(self.first.program, runner.options)
        if self.first.program.outputs:
            pull = self._adjoints[(True,) * self.visible + (False,) * len(extra), mask] = self._pull(self.first)
            pull.runner.begin()
        self.forward = runner.compile(self.program, self.visible)
        self._tangents = Kept()

    def __call__(self, tensors: Sequence[Tensor], frame: Frame) -> tuple[Tensor, ...]:
        results: tuple[Tensor, ...] = _Apply.apply(self, frame, *kept_apart(tensors, self.reads))
        return results[: self.visible]

    def reads_of(self, mask: Mask) -> tuple[int, ...]:
        """The places of the inputs that a backward by any of these, of any outputs, may read."""
        read = may_read(self.program, self.runner.chosen(mask), frozenset(self.saved), self.runner.options)
        return tuple(k for k, node in enumerate(self.runner.inputs) if node in read)

    def constant_by(self, mask: Mask) -> tuple[int, ...]:
        """The places of the outputs that have no derivative by any of these inputs."""
        active = depends_on(walk(self.program.nodes), self.runner.chosen(mask))
        return tuple(k for k, node in enumerate(self.program.nodes) if node not in active)

    def to_save(self, tensors: Sequence[Tensor], outputs: Sequence[Tensor]) -> list[Tensor]:
        """What the backward may read of a call's inputs and outputs."""
        return [tensors[k] for k in self.reads] + [outputs[k] for k in self.kept]

    def adjoint(self, present: Mask, wanted: Mask) -> Pullback:
        """The adjoint for the output gradients that arrived and the input gradients that are asked for."""

        def make() -> Pullback:
            wrt, outputs = self.runner.chosen(wanted), [k for k, yes in enumerate(present) if yes]
            # Mostly it is the one by which the values to save were chosen.
            if wrt == list(self.wrt) and outputs == list(range(self.visible)):
                return self._pull(self.first)
            saved = frozenset(self.saved)
            return self._pull(differentiate(self.program, wrt, outputs, saved, self.runner.options))

        return self._adjoints.once((present, wanted), make)

    def adjoints_for(self, mask: Mask) -> list[tuple[Mask, Pullback]]:
        """Those for these inputs that have been called for, by the outputs whose gradients they take."""
        return [(present, pull) for (present, wanted), pull in list(self._adjoints.items()) if wanted == mask]

    def _pull(self, adjoint: Adjoint) -> Pullback:
        runner = self.runner.sub(adjoint.program)
        places = {load: k for k, load in enumerate(self.loads)}
        places |= {load: places[node] for node, load in adjoint.saved}
        places |= {load: len(self.loads) + k for k, load in adjoint.grads}
        found = {node: k for k, node in enumerate(adjoint.wrt)}
        takes = tuple(places[node] for node in runner.inputs)
        return Pullback(adjoint, runner, takes, tuple(found.get(node) for node in self.runner.inputs))

    def tangent(self, given: Mask) -> Tangent:
        """The derivative of every real output along the inputs that ``given`` names."""
        wrt = self.runner.chosen(given)
        return self._tangents.once(given, lambda: Tangent(self.runner, self.program, wrt))


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
        found = by_row(lambda tensors: self.runner(tensors, frame), [given[n] for n in self.runner.inputs])
        return dict(zip(self.outputs, found, strict=True))


def pull_back(
    owner: Differentiable, frame: Frame, needed: Mask, saved: list[Tensor], grads: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """The gradients of a call's tensors from those of its outputs and from what the call saved.

    ``saved`` is empty afterwards: what nobody else has is let go as soon as it has been read.
    """
    _check_shapes(owner, frame, saved)
    pull = owner.adjoint(tuple([g is not None for g in grads]), needed)
    if frame.graph.halo is not None:
        agree_on(frame.graph.halo, pull.sends)
    runner, own = pull.runner, len(saved)
    values: dict[Node, Any] = {
        node: saved[k] if k < own else grads[k - own] for node, k in zip(runner.inputs, pull.takes, strict=True)
    }
    saved.clear()
    batched = True in [is_old_batch(g) for g in grads if g is not None]
    found = by_row(lambda rows: runner(rows, frame), [*values.values()]) if batched else runner.run(values, frame)
    return [None if k is None else found[k] for k in pull.gives]


def _check_shapes(owner: Differentiable, frame: Frame, saved: Sequence[Tensor]) -> None:
    for (domain, dims), value in zip(owner.shapes, saved, strict=True):
        shape = dims if domain is Domain.GLOBAL else (frame.rows(domain), *dims)
        if value.shape != shape:
            raise RuntimeError(
                f"a tensor that the backward pass reads has shape {list(value.shape)} now, and had "
                f"{list(shape)} in the forward pass"
            )


def _pull_back(ctx: Any, saved: list[Tensor], grads: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    return (None, None, *pull_back(ctx.owner, ctx.frame, ctx.needs_input_grad[2:], saved, grads))


class _Apply(torch.autograd.Function):
    """One call of a program, seen by torch."""

    @staticmethod
    def forward(ctx: Any, owner: Differentiable, frame: Frame, *tensors: Tensor) -> tuple[Tensor, ...]:
        outputs = tuple(owner.forward.run(dict(zip(owner.runner.inputs, tensors, strict=True)), frame))
        ctx.owner, ctx.frame = owner, frame
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*owner.to_save(tensors, outputs))
        if owner.constant:
            ctx.mark_non_differentiable(*[outputs[k] for k in owner.constant])
        return outputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        saved = [*ctx.saved_tensors]
        # Unless the graph is kept for another pass, torch would hold them until this one ends.
        ctx.maybe_clear_saved_tensors()
        return _pull_back(ctx, saved, grads)


class _Transformed(torch.autograd.Function):
    """One call of a program, seen by the transforms of torch.func and by forward-mode derivatives."""

    @staticmethod
    def forward(owner: Differentiable, frame: Frame, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(owner.forward.run(dict(zip(owner.runner.inputs, tensors, strict=True)), frame))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.owner, ctx.frame, *tensors = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*ctx.owner.to_save(tensors, output))
        ctx.save_for_forward(*tensors)
        constant = ctx.owner.constant
        ctx.like = [None if k in constant else (o.shape, o.dtype) for k, o in enumerate(output)]
        ctx.mark_non_differentiable(*(output[k] for k in constant))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        # The function that torch.func.vjp gives is called when the transform is over.
        return _pull_back(ctx, [*unwrap_dead_wrappers(ctx.saved_tensors)], grads)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor | None, ...]:
        owner: Differentiable = ctx.owner
        inputs = owner.runner.inputs
        values = dict(zip(inputs, ctx.saved_tensors, strict=True))
        given = {n: t for n, t in zip(inputs, tangents[2:], strict=True) if t is not None}
        found = owner.tangent(tuple(n in given for n in inputs))(values, given, ctx.frame)
        device = ctx.frame.device
        return tuple(
            None if like is None else found.get(k, torch.zeros(like[0], dtype=like[1], device=device))
            for k, like in enumerate(ctx.like)
        )

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], owner: Differentiable, frame: Frame, *tensors: Tensor
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
