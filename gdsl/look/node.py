"""``explain(graph, node=...)``: one node's edges and values, step by step, from the reference and from the kernels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gdsl.errors import InputError
from gdsl.ir.node import Node, walk
from gdsl.ir.ops.op import shape_of
from gdsl.ir.printer import expression
from gdsl.ir.program import Program
from gdsl.ir.types import Domain, Kind, Type
from gdsl.passes.pipeline import optimise
from gdsl.runtime import reference
from gdsl.runtime.autograd import Runner
from gdsl.runtime.backend import backend_for
from gdsl.runtime.execute import HALF
from gdsl.runtime.frame import Frame
from gdsl.runtime.graph import Graph, rewire_edge_value
from gdsl.runtime.rewire import rewire, rewirings

if TYPE_CHECKING:
    from gdsl.language.program import TypedProgram
    from gdsl.module.layer import Layer

# What is shown of a node with many edges and of a value with many features.
EDGES, FEATURES = 8, 6


def trace(layer: Layer, graph: Graph, node: int, inputs: Sequence[Tensor] | None) -> str:
    """The messages, weights and results of a node, from the reference and from the layer's own backend, dtype and
    device, and the largest difference between them. A layer that runs on torch is the reference itself.

    Raises :class:`gdsl.InputError` for a node that the graph does not have, or a wrong number of inputs.
    """
    if not 0 <= node < graph.num_targets:
        raise InputError(f"the graph has targets 0 to {graph.num_targets - 1}, and no node {node}")
    spec, dtype, _ = layer._shown(graph)
    typed = spec.typed
    if any(t.name == "knn" for t in typed.transforms) or len(spec.stages) > 1:
        raise InputError("explain(graph, node=...) shows layers that neither make their graph nor run modules")
    dtype = torch.float32 if dtype in HALF else dtype
    device = graph.edge_index.device
    tensors = _inputs(typed, Frame(graph, dtype, device), inputs)
    rewired, tensors = rewire(typed, graph, tensors)
    frame = Frame(rewired, dtype, device)
    named = _named(typed)
    program = Program(f"{typed.name}_trace", tuple(named), typed.names)
    values = {n: _value(layer, n, tensors, frame) for n in program.inputs}
    backend = backend_for(layer.backend, dtype, device)
    with torch.no_grad():
        plain = kernels = reference.run(program.nodes, values, frame)
        if backend != "torch":
            best = optimise(program, spec.options)
            run = Runner(best, backend, dtype, rewired.index_dtype, spec.options)
            kernels = list(run([values[n] for n in best.inputs], frame))
    edges = rewired.in_edges
    mine = edges.edge[int(edges.rowptr[node]) : int(edges.rowptr[node + 1])].long()
    lines = [f"{typed.name}, node {node} of {graph.num_targets:,}: {len(mine)} in-edges"]
    compared = backend != "torch"
    said = f"the reference's numbers, and after | those of {backend} where they are others"
    lines.append(said if compared else "the reference's numbers: the layer runs on torch, which is the reference")
    if inputs is None:
        lines.append("inputs drawn at random, seed 0")
    origin = _origin(typed, graph)
    for (name, value), a, b in zip(named, plain, kernels, strict=True):
        lines.append("")
        lines.append(f"{name} = {expression(value, {k: v for k, v in typed.names.items() if k is not value})}")
        if value.domain is Domain.EDGE:
            for edge in mine[:EDGES].tolist():
                source, number = int(rewired.edge_index[0, edge]), int(origin[edge])
                what = "self-loop" if number < 0 else f"edge {number}, from {source}"
                lines.append(f"    {what}: {_both(a[edge], b[edge])}")
            if len(mine) > EDGES:
                lines.append(f"    ... and {len(mine) - EDGES} more edges")
            difference = _difference(a[mine], b[mine])
        else:
            lines.append(f"    {_both(a[node], b[node])}")
            difference = _difference(a[node], b[node])
        if compared:
            lines.append(f"    largest difference between reference and kernel here: {difference:.1e}")
    return "\n".join(lines)


def _origin(typed: TypedProgram, graph: Graph) -> Tensor:
    """For each edge that the rules see its number in the user's graph, -1 for a loop that the layer adds."""
    origin = torch.arange(graph.num_edges, device=graph.edge_index.device)
    for made, _ in rewirings(typed, graph):
        origin = rewire_edge_value(made, origin, -1)
    return origin


def _named(typed: TypedProgram) -> list[tuple[str, Node]]:
    """The values with names that edges and targets have, operands first, and the outputs."""
    outputs = {node: name for name, node in typed.outputs}
    found = []
    for node in walk([n for _, n in typed.outputs]):
        name = outputs.get(node) or typed.names.get(node)
        shown = node.domain in (Domain.EDGE, Domain.NODE, Domain.TARGET) and node.op != "load"
        if name and shown and node.kind is Kind.FLOAT:
            found.append((name, node))
    return found


def _inputs(typed: TypedProgram, frame: Frame, inputs: Sequence[Tensor] | None) -> dict[str, Tensor]:
    """The tensors of a call by name, as the user gives them or drawn at random."""
    declared = [d for d in typed.of_role("input") if d.present]
    if inputs is not None and len(inputs) != len(declared):
        wanted = ", ".join(d.name for d in declared)
        raise InputError(f"inputs are {len(declared)} tensors, {wanted}, and there are {len(inputs)}")
    if inputs is not None:
        pairs = zip(declared, (v.detach() for v in inputs), strict=True)
        return {d.name: v.to(frame.dtype) if v.is_floating_point() else v for d, v in pairs}
    generator = torch.Generator().manual_seed(0)
    return {d.name: _drawn(d.type, frame, generator) for d in declared if d.type is not None}


def _drawn(type: Type, frame: Frame, generator: torch.Generator) -> Tensor:
    shape = shape_of(type, frame)
    if type.kind is Kind.FLOAT:
        return torch.randn(shape, generator=generator, dtype=frame.dtype).to(frame.device)
    return torch.randint(type.bound or 2, shape, generator=generator).to(frame.device)


def _value(layer: Layer, node: Node, tensors: Mapping[str, Tensor], frame: Frame) -> Tensor:
    """The tensor of a load."""
    if node.attrs.role == "seed":
        return torch.tensor(0, device=frame.device)
    if node.attrs.role in ("param", "buffer"):
        return layer._state(node.attrs.name).detach().to(frame.device, frame.dtype)
    return tensors[node.attrs.name]


def _both(a: Tensor, b: Tensor) -> str:
    """A row's numbers; the kernel's too where they are others when they are printed."""
    first, second = _numbers(a), _numbers(b)
    return first if first == second else f"{first} | {second}"


def _numbers(row: Tensor) -> str:
    flat = row.flatten()
    text = " ".join(f"{v:.4g}" for v in flat[:FEATURES].tolist())
    return text + (f" ... ({len(flat)})" if len(flat) > FEATURES else "")


def _difference(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max()) if a.numel() else 0.0
