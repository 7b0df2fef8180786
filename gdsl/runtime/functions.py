"""Programs as functions of native code: a plan with its adjoints, as far as Python's calls have compiled them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gdsl.runtime import native
from gdsl.runtime.autograd import Differentiable, Mask, Pullback, Runner, pull_back
from gdsl.runtime.dtypes import CPU
from gdsl.runtime.execute import KernelPlan
from gdsl.runtime.frame import Frame
from gdsl.runtime.graph import Graph
from gdsl.runtime.order import EdgeEnds, Facts
from gdsl.runtime.tracers import recording
from gdsl.runtime.transforms import transforming

# As in extension/calls.cpp: how often a function is asked for that there is none of, or none with the adjoints needed.
MOST_ASKED = 16


def run(runner: Runner, tensors: list[Tensor], frame: Frame) -> Sequence[Tensor]:
    """The results of a runner: on small graphs, and once it was called that way, from native code."""
    alone = frame.batch is None and frame.num_graphs == 1 and frame.graph.halo is None
    if native.loaded() is not None and runner.backend == "cpp" and alone:
        graph = frame.graph._small
        if graph is not None and not recording() and not transforming():
            function = _function(runner, runner.mask(tensors))
            results: tuple[Tensor, ...] | None = None if function is None else function(graph, tensors)
            if results is not None:
                return results
    return runner(tensors, frame)


def _function(runner: Runner, wanted: Mask) -> Any | None:
    function, asked = runner.functions.get(wanted, (None, 0))
    if (function is None or function.missed) and asked < MOST_ASKED:
        function = function_of(runner, wanted, range(len(wanted)))
        runner.functions[wanted] = function, asked + 1
    return function


def function_of(runner: Runner, wanted: Mask, places: Sequence[int], ran: Any = None) -> Any | None:
    """A program on tensors of which some are ``wanted`` to have gradients; None where it cannot be one, or where
    Python has not called it that way yet.

    places: of each input, its place among the tensors of a call
    ran:    what is told to those who ask what ran
    """
    made = runner.made(wanted)
    if runner.backend != "cpp" or runner.index_dtype is not torch.int32:
        return None
    plan = made.forward if isinstance(made, Differentiable) else made
    steps = plan.native(runner.inputs) if isinstance(plan, KernelPlan) else None
    if steps is None:
        return None
    derivative = None
    if isinstance(made, Differentiable):
        derivative = _derivative(made, wanted, places)
        if derivative is None:
            return None
    visible = len(runner.program.outputs)
    return native.loaded().Function(steps.on(places), visible, ran, derivative)  # type: ignore[union-attr]


def _derivative(made: Differentiable, wanted: Mask, places: Sequence[int]) -> tuple[Any, ...] | None:
    """What native code needs of the adjoints. None before the first was called, and where none is native: then the
    forward pass is Python's, too."""
    asking = [k for k, wants in enumerate(wanted) if wants]
    outputs = len(made.program.outputs)
    # Of the outputs, native code has the gradients of those that have any.
    real = [k for k in range(outputs) if k not in made.constant]
    pulls = [(p, pull) for p, pull in made.adjoints_for(wanted) if pull.runner.made((False,)) is not None]
    adjoints = [a for p, pull in pulls if (a := _adjoint(made, p, pull, real, asking)) is not None]
    if pulls and not adjoints:
        return None

    def pull_in_python(edges: Any, needed: Mask, saved: Sequence[Tensor], grads: Sequence[Tensor | None]) -> Any:
        frame = Frame(_graph(edges), made.runner.dtype, CPU)
        mask = [False] * len(wanted)
        every: list[Tensor | None] = [None] * outputs
        for k, needs in zip(asking, needed, strict=True):
            mask[k] = needs
        for k, grad in zip(real, grads, strict=True):
            every[k] = grad
        found = pull_back(made, frame, tuple(mask), [*saved], every)
        return tuple(found[k] for k in asking)

    at, reads = [places[k] for k in asking], [places[k] for k in made.reads]
    return at, reads, made.kept, made.constant, adjoints, pull_in_python


def _adjoint(
    made: Differentiable, present: Mask, pull: Pullback, real: Sequence[int], asking: Sequence[int]
) -> tuple[Any, ...] | None:
    """An adjoint as native calls take it, if it has been compiled and is one native call."""
    plan = pull.runner.made((False,))
    steps = plan.native(pull.runner.inputs) if isinstance(plan, KernelPlan) else None
    if steps is None:
        return None
    saved = len(made.loads)
    bits = sum(1 << place for place, k in enumerate(real) if present[k])
    takes = [k if k < saved else saved + real.index(k - saved) for k in pull.takes]
    gives = [-1 if k is None else k for k in (pull.gives[a] for a in asking)]
    return bits, steps.words, takes, gives


def _graph(edges: Any) -> Graph:
    listed, loops, by_source, by_target, drop, added, sources, targets = edges.parts()
    facts = Facts(loops, bool(by_source), bool(by_target))
    return Graph._of(EdgeEnds(listed, facts, bool(drop), added), (sources, targets))
