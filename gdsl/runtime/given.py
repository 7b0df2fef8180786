"""What users give for edges and for sizes of graphs, checked."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor

from gdsl.errors import GraphError
from gdsl.runtime.formats import Sizes

Size = int | tuple[int, int] | None


def check_edge_index(edge_index: Any) -> None:
    if not isinstance(edge_index, Tensor):
        raise GraphError(f"edge_index must be a tensor, not a {type(edge_index).__name__}")
    plain = edge_index.dtype is torch.int64 and edge_index.layout is torch.strided
    if plain and edge_index.dim() == 2 and edge_index.shape[0] == 2:
        return
    shape = list(edge_index.shape)
    if edge_index.layout != torch.strided:
        raise GraphError("edge_index is a sparse tensor; make the graph with gdsl.Graph.from_any(...)")
    if edge_index.dim() != 2 or shape[0] != 2:
        hint = "; pass edge_index.t()" if edge_index.dim() == 2 and shape[1] == 2 else ""
        raise GraphError(f"edge_index must have shape [2, E], but its shape is {shape}{hint}")
    if not is_integer(edge_index):
        raise GraphError(
            f"edge_index must hold integers, but its dtype is {edge_index.dtype}; convert it with edge_index.long()"
        )


def is_integer(tensor: Tensor) -> bool:
    """Whether a tensor holds whole numbers; truth values are none."""
    return not (tensor.dtype == torch.bool or tensor.is_floating_point() or tensor.is_complex())


def check_integers(name: str, value: Any, shape: str) -> None:
    if not isinstance(value, Tensor):
        raise GraphError(f"{name} must be a tensor, not a {type(value).__name__}")
    if value.layout != torch.strided or value.dim() != 1:
        raise GraphError(f"{name} must have shape {shape}, but its shape is {list(value.shape)}")
    if not is_integer(value):
        raise GraphError(f"{name} must hold integers, but its dtype is {value.dtype}; convert it with {name}.long()")


def check_sizes(num_nodes: Size) -> tuple[int, int] | None:
    if num_nodes is None:
        return None
    if isinstance(num_nodes, tuple | list):
        if len(num_nodes) != 2:
            raise GraphError(
                f"num_nodes must be an int or a pair (num_sources, num_targets), not {len(num_nodes)} numbers"
            )
        return check_size(num_nodes[0], "num_sources"), check_size(num_nodes[1], "num_targets")
    size = check_size(num_nodes, "num_nodes")
    return size, size


def check_size(size: Any, name: str) -> int:
    if type(size) is int and size >= 0:
        return size
    try:
        if isinstance(size, bool):
            raise TypeError
        number = operator.index(size)
    except (TypeError, RuntimeError):
        raise GraphError(f"{name} must be an int, not {size!r}") from None
    if number < 0:
        raise GraphError(f"{name} must not be negative, but it is {number}")
    return number


def agreed(told: Sizes | None, asked: Sizes | None) -> Sizes | None:
    """What is known of the sizes from two sides. Raises ``GraphError`` where they contradict each other."""
    if told is None or asked is None:
        return told or asked
    (a, b), (c, d) = told, asked
    have, wanted = (c if a is None else a, d if b is None else b), (a if c is None else c, b if d is None else d)
    if have != wanted:
        raise GraphError(_size_clash(have, wanted))
    return have


def _size_clash(have: Sizes, asked: Sizes) -> str:
    if have[0] == have[1] and asked[0] == asked[1]:
        return (
            f"the graph has {have[0]} nodes, but {asked[0]} are needed here; "
            f"if some nodes have no edges, give their number: Graph(edge_index, num_nodes={asked[0]})"
        )
    return (
        f"the graph has {have[0]} source and {have[1]} target nodes, but {asked[0]} and {asked[1]} are "
        f"needed here; give both: Graph(edge_index, num_nodes=({asked[0]}, {asked[1]}))"
    )
