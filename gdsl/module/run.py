"""Running a program on checked tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from gdsl.errors import InputError
from gdsl.ir.node import Node, walk
from gdsl.language import parts
from gdsl.language.program import GraphTransform
from gdsl.passes.stages import Stage
from gdsl.runtime import reference
from gdsl.runtime.frame import Frame
from gdsl.runtime.graph import Graph
from gdsl.runtime.neighbors import knn_graph


def nearest(
    knn: GraphTransform,
    tensors: Mapping[str, Tensor],
    dtype: torch.dtype,
    device: torch.device,
    sizes: tuple[int | None, int | None],
    batch: Tensor | None,
) -> Graph:
    """The graph of the nearest neighbours of a node value."""
    where, k = knn.arguments
    assert isinstance(where, Node) and isinstance(k, int)
    count = sizes[1] or 0
    empty = Graph(torch.zeros(2, 0, dtype=torch.long, device=device), count)
    with torch.no_grad():
        values = {n: tensors[n.attrs.name] for n in walk([where]) if n.op == "load"}
        (points,) = reference.run([where], values, Frame(empty, dtype, device))
    return Graph(knn_graph(points, k, batch, loop=bool(dict(knn.keywords).get("loop", False))), count)


def apply_module(module: nn.Module, stage: Stage, inputs: Sequence[Tensor], frame: Frame) -> Tensor:
    """Run a module on whole tensors. An aggregating one gets the edges sorted by node, as PyG's aggregations do."""
    assert stage.type is not None
    inputs = [v if v.is_floating_point() else v.long() for v in inputs]
    if stage.kind == "aggregate":
        order = frame.graph.in_edges if stage.end == "i" else frame.graph.out_edges
        rows = frame.rows(stage.type.domain)
        sorted_values = [v.index_select(0, order.edge.long()) for v in inputs]
        index = frame.ends(stage.end).index_select(0, order.edge.long())
        result = parts.aggregate(module, sorted_values, index, rows)
    else:
        # The values of a program are no variables: an input, or what later rules read, is not written to.
        writes = any(getattr(part, "inplace", False) for part in module.modules())
        result = module(*([v.clone() for v in inputs] if writes else inputs))
    shape = (frame.rows(stage.type.domain), *stage.type.shape)
    if not isinstance(result, Tensor) or tuple(result.shape) != shape:
        got = list(result.shape) if isinstance(result, Tensor) else type(result).__name__
        raise InputError(f"module `{stage.module}` gave {got}, and the program expects shape {list(shape)}")
    return result


def describe_modules(names: Sequence[str], stages: Sequence[Stage]) -> str:
    """A line for each module: whether it is part of the program or runs as it is."""
    # Of a list of modules some may run: "lins.0".
    called = {s.module.split(".")[0]: s.kind for s in stages if s.module is not None}
    how = {
        None: "read into the program",
        "map": "runs as it is, between kernels, on whole tensors",
        "aggregate": "runs as it is, between kernels, on the edges sorted by node",
    }
    return "\n".join(f"    {name}: {how[called.get(name)]}" for name in names)
