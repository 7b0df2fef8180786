"""Linear maps by type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from gdsl.nn.declared import redraw
from gdsl.nn.linear import Linear, draw_bias, draw_weight


class HeteroLinear(nn.Module):
    """x W_t + b_t for the type t of each row: weight [num_types, in_channels, out_channels].

    in_channels, out_channels: sizes; -1 takes the first from the first call
    num_types:                 number of types
    is_sorted:                 whether rows come sorted by type
    **kwargs:                  ``bias``, ``weight_initializer`` and ``bias_initializer`` of :class:`gdsl.nn.Linear`
    """

    def __init__(self, in_channels: int, out_channels: int, num_types: int, is_sorted: bool = False, **kwargs: Any):
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.num_types = num_types
        self.is_sorted = is_sorted
        self.kwargs = kwargs
        known = in_channels != -1
        shape = (num_types, in_channels, out_channels)
        self.weight = nn.Parameter(torch.empty(shape)) if known else UninitializedParameter()
        self.bias = nn.Parameter(torch.empty(num_types, out_channels)) if kwargs.get("bias", True) else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias anew."""
        if self.in_channels > 0:
            draw_weight(self.weight, self.in_channels, self.kwargs.get("weight_initializer"))
            draw_bias(self.bias, self.in_channels, self.kwargs.get("bias_initializer"))

    def see(self, x: Tensor) -> None:
        """Take the size of the inputs from the first of them, [..., in_channels]."""
        if isinstance(self.weight, UninitializedParameter):
            with torch.no_grad():
                self.in_channels = x.size(-1)
                self.weight.materialize((self.num_types, self.in_channels, self.out_channels))
                self.reset_parameters()

    def forward(self, x: Tensor, type_vec: Tensor) -> Tensor:
        """[N, in_channels] and the type of each row [N] to [N, out_channels]: a product of matrices for each type."""
        self.see(x)
        order = None if self.is_sorted else type_vec.argsort(stable=True)
        rows = x if order is None else x[order]
        counts = torch.bincount(type_vec, minlength=self.num_types).tolist()
        y = torch.cat([part @ weight for part, weight in zip(rows.split(counts), self.weight, strict=True)])
        y = y if order is None else y[order.argsort()]
        return y if self.bias is None else y + self.bias[type_vec]

    def __repr__(self) -> str:
        return (
            f"HeteroLinear({self.in_channels}, {self.out_channels}, num_types={self.num_types}, "
            f"bias={self.bias is not None})"
        )


class HeteroDictLinear(nn.Module):
    """A linear map for each type of node, all to one size: the inputs of the types may have different ones.

    in_channels:  size of the inputs, or a dict with one for each type; -1 takes it from the first call
    out_channels: size of the outputs
    types:        the types, where ``in_channels`` is no dict
    **kwargs:     of :class:`gdsl.nn.Linear`

    Raises ValueError for types that are missing, or others than those of the dict.
    """

    def __init__(
        self, in_channels: int | Mapping[Any, int], out_channels: int, types: Any | None = None, **kwargs: Any
    ):
        super().__init__()
        if isinstance(in_channels, Mapping):
            self.types = list(in_channels)
            if types is not None and {*self.types} != {*types}:
                raise ValueError("The provided 'types' do not match with the keys in the 'in_channels' dictionary")
            sizes = dict(in_channels)
        else:
            if types is None:
                raise ValueError("Please provide a list of 'types' if passing 'in_channels' as an integer")
            self.types = types
            sizes = dict.fromkeys(types, in_channels)
        self.out_channels = out_channels
        self.kwargs = kwargs
        self.lins = nn.ModuleDict({kind: Linear(size, out_channels, **kwargs) for kind, size in sizes.items()})
        self.reset_parameters()

    @property
    def in_channels(self) -> dict[Any, int]:
        """Size of the inputs of each type."""
        return {kind: lin.in_channels for kind, lin in self.lins.items()}  # type: ignore[misc]

    reset_parameters = redraw

    def forward(self, x_dict: Mapping[Any, Tensor]) -> dict[Any, Tensor]:
        """[N, in_channels] to [N, out_channels], for each type that there is, in the order of the constructor."""
        return {kind: lin(x_dict[kind]) for kind, lin in self.lins.items() if kind in x_dict}

    def __repr__(self) -> str:
        bias = self.kwargs.get("bias", True)
        return f"{type(self).__name__}({self.in_channels}, {self.out_channels}, bias={bias})"
