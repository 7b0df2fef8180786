"""``explain(graph, node=...)``: the values of one node, computed by the reference and on the layer's own backend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from gdsl.errors import InputError
from gdsl.ir.node import Node
from gdsl.ir.types import Domain, Kind, Type
from gdsl.language.program import Declaration
from gdsl.look.node import check_shown, named_values, story
from gdsl.module.checks import check_rows, check_tensors
from gdsl.module.run import run
from gdsl.module.state import state_of
from gdsl.module.ways import Compilations, Ran
from gdsl.passes.options import Options
from gdsl.runtime.backend import backend_for
from gdsl.runtime.execute import HALF
from gdsl.runtime.graph import Graph


@dataclass(frozen=True)
class NodeValues:
    """The values of a program that have names, on a graph: a tensor for each, by the reference and by a backend.

    kernels: None where the layer runs on torch, which is the reference itself
    backend: the layer's own
    """

    named: Sequence[tuple[str, Node]]
    plain: Sequence[Tensor]
    kernels: Sequence[Tensor] | None
    backend: str


def explain_node(owner: nn.Module, ran: Ran, graph: Graph, node: int, inputs: Sequence[Tensor] | None) -> str:
    """The messages, weights and results of a node, from the reference and from the layer's own backend, dtype and
    device, and the largest difference between them. A layer that runs on torch is the reference itself.

    Raises :class:`gdsl.InputError` for a node that the graph does not have, a wrong number of inputs, and those that a
    call would refuse.
    """
    found = named_tensors(owner, ran, graph, node, inputs)
    note = "the reference's numbers: the layer runs on torch, which is the reference"
    if found.kernels is not None:
        note = f"the reference's numbers, and after | those of {found.backend} where they are others"
    if inputs is None:
        note += "\ninputs drawn at random, seed 0"
    return story(ran.compiled.typed, found.named, graph, node, found.plain, found.kernels, note)


def named_tensors(owner: nn.Module, ran: Ran, graph: Graph, node: int, inputs: Sequence[Tensor] | None) -> NodeValues:
    """The values that :func:`explain_node` tells of, which raises what it does."""
    typed = ran.compiled.typed
    check_shown(typed, graph, node)
    dtype = torch.float32 if ran.kind.dtype in HALF else ran.kind.dtype
    named = named_values(typed)
    shown = replace(typed, outputs=tuple(named))
    declared = [d for d in typed.of_role("input") if d.present]
    if inputs is None:
        random = torch.Generator().manual_seed(0)
        given = [drawn(d, graph, dtype, random) for d in declared]
    elif len(inputs) != len(declared):
        wanted = ", ".join(d.name for d in declared)
        raise InputError(f"inputs are {len(declared)} tensors, {wanted}, and there are {len(inputs)}")
    else:
        given = list(inputs)
    state = {name: v.to(graph.device) for name, v in state_of(typed, owner, {}).items()}
    tensors = {d.name: v for d, v in zip(declared, given, strict=True)} | state
    if inputs is not None:
        check_tensors(tensors, typed)
        check_rows(tensors, typed, graph, None, 1)
    tensors = {name: v.detach().to(dtype) if v.is_floating_point() else v for name, v in tensors.items()}
    tensors["seed"] = torch.tensor(0, device=graph.device)
    backend = backend_for(str(owner.backend), dtype, graph.device)

    def values(backend: str, options: Options) -> Sequence[Tensor]:
        # In a store of its own: the last call of the layer stays what it was.
        kind = Compilations().kind(None, shown, options, dtype, graph.device)
        with torch.no_grad():
            return run(kind, graph, dict(tensors), backend, owner)

    plain = values("torch", Options(optimise=False))
    kernels = None if backend == "torch" else values(backend, ran.kind.options)
    return NodeValues(named, plain, kernels, backend)


def drawn(d: Declaration, graph: Graph, dtype: torch.dtype, random: torch.Generator) -> Tensor:
    """Numbers for an input, on the device of the graph."""
    assert d.type is not None
    shape = _shape(d.type, graph)
    if d.type.kind is Kind.FLOAT:
        return torch.randn(shape, generator=random, dtype=dtype).to(graph.device)
    return torch.randint(d.type.bound or 2, shape, generator=random).to(graph.device)


def _shape(type: Type, graph: Graph) -> tuple[int, ...]:
    rows = {Domain.EDGE: graph.num_edges, Domain.SOURCE: graph.num_sources, Domain.GRAPH: 1}
    return type.shape if type.domain is Domain.GLOBAL else (rows.get(type.domain, graph.num_targets), *type.shape)
