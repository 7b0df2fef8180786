"""``explain(graph, node=...)``: one node's edges and values, step by step, from the reference and from the kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gdsl.codegen import reference
from gdsl.codegen.reference import Frame
from gdsl.errors import InputError
from gdsl.ir.node import Node, walk
from gdsl.ir.printer import expression
from gdsl.ir.program import Program
from gdsl.ir.types import Domain, Kind
from gdsl.passes.pipeline import optimise
from gdsl.runtime.autograd import Runner
from gdsl.runtime.graph import Graph

if TYPE_CHECKING:
    from gdsl.language.program import TypedProgram
    from gdsl.layer import Layer

# What is shown of a node with many edges and of a value with many features.
EDGES, FEATURES = 8, 6


def trace(layer: Layer, graph: Graph, node: int, inputs: Sequence[Tensor] | None) -> str:
    """The messages, weights and results of a node, from both backends, and the largest difference between them.

    Raises :class:`gdsl.InputError` for a node that the graph does not have, or a wrong number of inputs.
    """
    if not 0 <= node < graph.num_targets:
        raise InputError(f"the graph has targets 0 to {graph.num_targets - 1}, and no node {node}")
    spec, _, _ = layer._shown(graph)
    typed = spec.typed
    if typed.transforms or len(spec.stages) > 1:
        raise InputError("explain(graph, node=...) shows layers that neither change their graph nor call modules")
    frame = Frame(graph, torch.float32, torch.device("cpu"))
    named = _named(typed)
    program = Program(f"{typed.name}_trace", tuple(named), typed.names)
    values = _values(layer, typed, program, frame, inputs)
    with torch.no_grad():
        plain = reference.run(program.nodes, values, frame)
        best = optimise(program, spec.options)
        run = Runner(best, "cpp", torch.float32, graph.index_dtype, spec.options)
        kernels = run([values[n] for n in best.inputs], frame)
    edges = graph.in_edges
    mine = edges.edge[int(edges.rowptr[node]) : int(edges.rowptr[node + 1])].long()
    lines = [f"{typed.name}, node {node} of {graph.num_targets:,}: {len(mine)} in-edges"]
    lines.append("the reference's numbers, and after | the kernel's where they are others")
    if inputs is None:
        lines.append("inputs drawn at random, seed 0")
    for (name, value), a, b in zip(named, plain, kernels, strict=True):
        lines.append("")
        lines.append(f"{name} = {expression(value, {k: v for k, v in typed.names.items() if k is not value})}")
        if value.domain is Domain.EDGE:
            for edge in mine[:EDGES].tolist():
                source = int(graph.edge_index[0, edge])
                lines.append(f"    edge {edge}, from {source}: {_both(a[edge], b[edge])}")
            if len(mine) > EDGES:
                lines.append(f"    ... and {len(mine) - EDGES} more edges")
            difference = _difference(a[mine], b[mine])
        else:
            lines.append(f"    {_both(a[node], b[node])}")
            difference = _difference(a[node], b[node])
        lines.append(f"    largest difference between reference and kernel here: {difference:.1e}")
    return "\n".join(lines)


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


def _values(
    layer: Layer, typed: TypedProgram, program: Program, frame: Frame, inputs: Sequence[Tensor] | None
) -> dict[Node, Tensor]:
    generator = torch.Generator().manual_seed(0)
    declared = [d for d in typed.of_role("input") if d.present]
    if inputs is not None and len(inputs) != len(declared):
        wanted = ", ".join(d.name for d in declared)
        raise InputError(f"inputs are {len(declared)} tensors, {wanted}, and there are {len(inputs)}")
    given = dict(zip((d.name for d in declared), inputs or (), strict=False))
    found: dict[Node, Tensor] = {}
    for node in program.inputs:
        name = node.attrs.name
        if node.attrs.role == "seed":
            found[node] = torch.tensor(0)
        elif node.attrs.role in ("param", "buffer"):
            found[node] = layer._state(name).detach().float()
        elif name in given:
            value = given[name].detach()
            found[node] = value.float() if value.is_floating_point() else value
        else:
            shape = (*(() if node.domain is Domain.GLOBAL else (frame.rows(node.domain),)), *node.type.shape)
            bound = node.type.bound or 2
            drawn = torch.randn(shape, generator=generator)
            found[node] = drawn if node.kind is Kind.FLOAT else torch.randint(bound, shape, generator=generator)
    return found


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
