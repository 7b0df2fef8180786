"""Sparse matrices as rows and columns [2, E] and values [E], differentiable in the values."""

from __future__ import annotations

from typing import Any, overload

import torch
from torch import Tensor

from gdsl.errors import InputError
from gdsl.runtime.graph import Graph
from gdsl.runtime.spans import spans


def refuse_part(layer: object, edge_index: Any) -> None:
    """Raises :class:`gdsl.InputError` for the part of a distributed graph, given to a layer that needs all edges."""
    if isinstance(edge_index, Graph) and edge_index.halo is not None:
        raise InputError(
            f"{type(layer).__name__} is not distributed, and this graph is the part of one process: run it on the "
            "whole graph, in one process"
        )


def refuse_graph(layer: object, edge_index: Any) -> None:
    """Raises :class:`gdsl.InputError` for a graph, given to a layer that makes a new list of edges from theirs."""
    refuse_part(layer, edge_index)
    if isinstance(edge_index, Graph):
        kind = type(edge_index).__name__
        raise InputError(f"{type(layer).__name__} takes edge_index [2, E], not a {kind}: pass graph.edge_index")


@overload
def coalesce(edge_index: Tensor, values: Tensor, size: int) -> tuple[Tensor, Tensor]: ...
@overload
def coalesce(edge_index: Tensor, values: Tensor | None, size: int) -> tuple[Tensor, Tensor | None]: ...
def coalesce(edge_index: Tensor, values: Tensor | None, size: int) -> tuple[Tensor, Tensor | None]:
    """Each edge once, sorted by source and target, with the sum of its values; ``size``: the number of targets."""
    key, place = torch.unique(edge_index[0] * size + edge_index[1], return_inverse=True)
    edges = torch.stack([key // size, key % size])
    return edges, None if values is None else values.new_zeros(len(key), *values.shape[1:]).index_add(0, place, values)


@overload
def product(
    left: Tensor, left_values: Tensor, right: Tensor, right_values: Tensor, size: int
) -> tuple[Tensor, Tensor]: ...
@overload
def product(
    left: Tensor, left_values: Tensor | None, right: Tensor, right_values: Tensor | None, size: int
) -> tuple[Tensor, Tensor | None]: ...
def product(
    left: Tensor, left_values: Tensor | None, right: Tensor, right_values: Tensor | None, size: int
) -> tuple[Tensor, Tensor | None]:
    """The product of two sparse matrices, rows and columns [2, E] with values [E].

    right: sorted by rows
    size:  the largest number of rows or columns of the two

    Without values it is the pattern alone. Differentiable in the values.
    """
    count = torch.bincount(right[0], minlength=size)
    first, second = spans((count.cumsum(0) - count)[left[1]], count[left[1]])
    both = None if left_values is None or right_values is None else left_values[first] * right_values[second]
    return coalesce(torch.stack([left[0, first], right[1, second]]), both, size)
