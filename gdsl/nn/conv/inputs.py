"""What layers of the library are given, as programs take it: features, weights, sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from gdsl.errors import InputError
from gdsl.runtime.tracers import check_proxy

Pair: TypeAlias = tuple[Tensor, Tensor | None]
Features: TypeAlias = Tensor | Pair
Channels: TypeAlias = int | tuple[int, int]
Size: TypeAlias = tuple[int | None, int | None] | None
Adjacency: TypeAlias = Any
Result: TypeAlias = Any

# Dtypes of whole numbers and truth values.
WHOLE = frozenset({torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64})


class Misfit(InputError, RuntimeError):
    """Tensors that do not fit the layer: a RuntimeError, too, as torch's own is where torch_geometric runs into it."""


def is_torch_sparse(edge_index: Adjacency) -> bool:
    """Whether it is a matrix of torch_sparse, which is known by its class: nothing imports the package."""
    return type(edge_index).__name__ == "SparseTensor"


def parameter(*shape: int) -> nn.Parameter:
    """A parameter that ``reset_parameters`` has yet to fill."""
    return nn.Parameter(torch.empty(*shape))


def pair_of(channels: Channels) -> tuple[int, int]:
    """Sizes at sources and targets: one number stands for both."""
    return channels if isinstance(channels, tuple | list) else (channels, channels)


class _Function(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]):
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def as_module(function: Callable[..., Any]) -> nn.Module:
    """A module as it is, or a function as one, so that a program can call it."""
    return function if isinstance(function, nn.Module) else _Function(function)


def see(*pairs: tuple[Any, Tensor | None]) -> None:
    """Lazy sizes of linear maps from their inputs, where both are there. What a user put in their place has none."""
    for lin, value in pairs:
        if value is not None and hasattr(lin, "see"):
            check_proxy(value)
            lin.see(value)


def strided(x: Tensor) -> Tensor:
    """Features that were given as a sparse matrix, as rows of numbers. What is no tensor is left to later checks."""
    return x.to_dense() if isinstance(x, Tensor) and x.layout is not torch.strided else x


def real_features(x: Tensor) -> Tensor:
    """Features for a layer that is linear in each of them: a complex one as two."""
    if not isinstance(x, Tensor):
        return x  # a pair, which :meth:`Conv.square` refuses
    return torch.view_as_real(x.resolve_conj()).flatten(-2) if x.is_complex() else x


def like_features(y: Tensor, x: Tensor) -> Tensor:
    """The result of a layer that was given ``real_features(x)``."""
    return torch.view_as_complex(y.unflatten(-1, (-1, 2)).contiguous()) if x.is_complex() else y


def edge_weights(edge_weight: Tensor | None, values: Tensor | None, x: Tensor | None) -> Tensor | None:
    """Edge weights [E]; one column [E, 1] is taken for them. Where the graph was given as a matrix, its values, in the
    dtype of the features: SciPy's are float64 where nobody says otherwise.

    Raises :class:`gdsl.InputError` for weights of another shape.
    """
    weight = edge_weight if values is None else in_dtype_of(x, values)
    if not isinstance(weight, Tensor) or weight.dim() == 1:
        return weight
    if weight.dim() != 2 or weight.shape[1] != 1:
        raise Misfit(f"`edge_weight` must have shape [E], and it has shape {list(weight.shape)}")
    return weight.squeeze(1)


def in_dtype_of(x: Tensor | None, values: Tensor) -> Tensor:
    """The values of a matrix in the dtype of the features."""
    real = x is not None and x.is_floating_point() and not values.is_complex()
    return values.to(x.dtype) if real and x is not None else values


def edge_types(edge_type: Tensor | None, values: Tensor | None) -> Tensor | None:
    """The relation of each edge [E]. Where there are none, the values of the matrix that the graph was given as, which
    in torch's are often real.

    Raises :class:`gdsl.InputError` for values that are no whole numbers.
    """
    if edge_type is not None or values is None:
        return edge_type
    whole = values.long()
    if values.is_floating_point() and not torch.compiler.is_compiling() and not bool((values == whole).all()):
        raise Misfit("the values of the matrix are taken for relations of the edges, and are no whole numbers")
    return whole


def edge_features(
    edge_attr: Tensor | None, values: Tensor | None = None, edge_index: Adjacency = None
) -> Tensor | None:
    """Edge features [E, D]; a vector [E] is one column. Where there are none, the values of the matrix that the graph
    was given as: torch's matrices always have some, and a number for each edge is no feature there.
    """
    if edge_attr is None and values is not None and (values.dim() > 1 or is_torch_sparse(edge_index)):
        edge_attr = values
    return edge_attr.view(-1, 1) if edge_attr is not None and edge_attr.dim() == 1 else edge_attr
