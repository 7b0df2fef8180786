"""The torch backend: each op's reference form, one after the other. Slow, readable, and the reference for all others.

A value is ``[rows of the domain, *dims]``, or ``[*dims]`` for a global one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gdsl.errors import InputError
from gdsl.ir.node import Node, walk
from gdsl.ir.ops import of
from gdsl.ir.ops.op import full
from gdsl.ir.types import Domain
from gdsl.runtime.graph import Graph


@dataclass(frozen=True)
class Frame:
    """What a run knows besides the tensors: the graph, the compute dtype and the batch vector of a batch of graphs."""

    graph: Graph
    dtype: torch.dtype
    device: torch.device
    batch: Tensor | None = None
    num_graphs: int = 1

    def rows(self, domain: Domain) -> int:
        """How many rows a value of this domain has."""
        if domain is Domain.GRAPH:
            return self.num_graphs
        if domain is Domain.EDGE:
            return self.graph.num_edges
        return self.graph.num_sources if domain is Domain.SOURCE else self.graph.num_targets

    def ends(self, end: str) -> Tensor:
        """For each edge its node at this end; for ``g``, for each node its graph."""
        if end == "g":
            if self.batch is None:
                return torch.zeros(self.graph.num_targets, dtype=torch.long, device=self.device)
            return self.batch
        return self.graph.edge_index[1 if end == "i" else 0]


def evaluate(node: Node, args: Sequence[Tensor], frame: Frame) -> Tensor:
    """The value of one node, its operands given."""
    form = of(node).value
    if form is None:
        raise InputError(f"no value was given for `{node.attrs.name if node.op == 'load' else node.op}`")
    return form(node, args, frame)


def run(outputs: Sequence[Node], tensors: Mapping[Node, Tensor], frame: Frame) -> list[Tensor]:
    """Evaluate outputs from the tensors of their loads. Differentiable by torch's own autograd, too."""
    values: dict[Node, Tensor] = dict(tensors)
    for node in walk(outputs):
        if node not in values:
            values[node] = evaluate(node, [values[i] for i in node.inputs], frame)
    return [full(values[o], o.type, frame) for o in outputs]
