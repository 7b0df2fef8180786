"""The calls of programs that a call of a module is, for :mod:`gdsl.look.reproduce`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gdsl.errors import GdslError, InputError
from gdsl.ir.program import Program
from gdsl.ir.types import Type
from gdsl.language import ast
from gdsl.language.parts import tensor_of
from gdsl.language.program import TypedProgram
from gdsl.language.signature import signature_of
from gdsl.look.reproduce import Recorded, Written
from gdsl.module.copies import copy_of
from gdsl.module.rerun import from_text
from gdsl.module.run import Running, as_rules_see, recording_runs
from gdsl.module.ways import Ran, Way
from gdsl.passes.options import TYPICAL, GraphShape
from gdsl.passes.stages import cut
from gdsl.runtime.backend import backend_for

if TYPE_CHECKING:
    from gdsl.module.inspected import Inspected

# The graph of a layer that has not been called.
_SOME_GRAPH = GraphShape(256, 256, 2048)


def recorded_call(module: Inspected, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Recorded]:
    """The programs that a call runs, on a copy of the module; also of one that fails.

    Raises what the call raises where no program has been reached, and :class:`gdsl.InputError` where it runs none.
    """
    twin = copy_of(module)
    with recording_runs() as runs, torch.random.fork_rng(devices=[]):
        try:
            twin(*args, **kwargs)
        except Exception:
            if not runs:
                raise
    if not runs:
        raise InputError(f"this call of {type(module).__name__} runs no program that could be written down")
    return [_of_run(run) for run in runs]


def recorded_kind(module: Inspected) -> list[Recorded]:
    """What is known of the last call: its programs, and the parameters as they are now."""
    return [_of_kind(module, ran) for ran in module._ran()]


def _of_run(run: Running) -> Recorded:
    kind = run.kind
    typed, graph, tensors = kind.typed, run.graph, run.tensors
    if graph.halo is not None:
        raise InputError("a call on a part of a distributed graph needs its other parts: reproduce it on a whole graph")
    parts, dropped = _parts(typed)
    source, text = _source(run.owner, typed, kind.key, dropped)
    if source is None:
        graph, tensors = as_rules_see(kind, graph, dict(tensors))
    return Recorded(
        typed, source, text, parts, tensors, graph, kind.options, kind.dtype, kind.device,
        backend_for(run.backend, kind.dtype, kind.device), run.batch, run.num_graphs, dropped,
    )  # fmt: skip


def _of_kind(module: Inspected, ran: Ran) -> Recorded:
    kind = ran.kind
    parts, dropped = _parts(kind.typed)
    source, text = _source(module, kind.typed, kind.key, dropped)
    tensors: dict[str, Tensor | Type] = {d.name: d.type for d in kind.typed.of_role("input") if d.present and d.type}
    for d in kind.typed.of_role("param", "buffer"):
        try:
            tensors[d.name] = tensor_of(module, d.name)
        except InputError:  # a call has its own
            assert d.type is not None
            tensors[d.name] = d.type
    shape = _SOME_GRAPH if ran.options.shape == TYPICAL else ran.options.shape
    return Recorded(
        kind.typed, source, text, parts, tensors, shape, kind.options, kind.dtype, kind.device, ran.backend,
        dropped=dropped,
    )  # fmt: skip


def _source(
    owner: nn.Module, typed: TypedProgram, key: Any, dropped: Sequence[str]
) -> tuple[Written | None, str | None]:
    """The text of a program with what makes the program of it, if that is all; and the text in any case."""
    found = getattr(owner, "_definition", None)
    definition: ast.Layer | None = found() if found is not None else None
    if definition is None or not isinstance(key, Way) or definition.name != typed.name:
        return None, None
    text = definition.source[definition.span.start : definition.span.end] + "\n"
    if definition.uses:  # the text alone does not say what it means
        return None, text
    chosen = signature_of(definition).choices
    # No module took the place of a function that was chosen, and where the text itself chooses one, it is that.
    arguments = {name: value for name, value in typed.arguments if value is not None or name not in chosen}
    source = Written(text, arguments, dict(key.sizes), sorted(key.present), key.training)
    try:
        again = from_text(text, source.arguments, sizes=source.sizes, present=source.present, training=source.training)
    except GdslError:  # modules that were passed decide what it means
        return None, text
    same = again.outputs == typed.outputs and again.transforms == typed.transforms
    return (source if same and not dropped else None), text


def _parts(typed: TypedProgram) -> tuple[tuple[Program, ...], tuple[str, ...]]:
    """A program up to each module that runs as it is, which no file could hold, and the names of these modules."""
    stages = cut(typed.program)
    return tuple(s.program for s in stages), tuple(s.module for s in stages if s.module is not None)
