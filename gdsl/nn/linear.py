"""The linear maps inside the layers, and why they are not torch's own: sizes that come with the first call."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.parameter import Parameter, UninitializedParameter

from gdsl.nn.inits import glorot, kaiming_uniform, uniform, zeros


class Linear(nn.Linear):
    """x W^T + b, with the constructor, the distributions and the state of torch_geometric's ``Linear``.

    in_channels:        -1 takes the size of the first input
    weight_initializer: "glorot", "uniform", "kaiming_uniform" or None for that of ``torch.nn.Linear``
    bias_initializer:   "zeros" or None for that of ``torch.nn.Linear``
    """

    # A layer reads it into its program as it reads torch's: see gdsl.language.modules.
    reads_as: ClassVar[type] = nn.Linear

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        bias: bool = True,
        weight_initializer: str | None = None,
        bias_initializer: str | None = None,
    ):
        nn.Module.__init__(self)
        _check_initializers(weight_initializer, bias_initializer)
        self.in_features = in_channels
        self.out_features = out_channels
        self.weight_initializer = weight_initializer
        self.bias_initializer = bias_initializer
        known = in_channels > 0
        self.weight = Parameter(torch.empty(out_channels, in_channels)) if known else UninitializedParameter()
        self.register_parameter("bias", Parameter(torch.empty(out_channels)) if bias else None)
        self.reset_parameters()

    @property
    def in_channels(self) -> int:
        return self.in_features

    @property
    def out_channels(self) -> int:
        return self.out_features

    def reset_parameters(self) -> None:
        """Draw weight and bias anew."""
        if self.in_features > 0:
            draw_weight(self.weight, self.in_features, self.weight_initializer)
            draw_bias(self.bias, self.in_features, self.bias_initializer)

    def see(self, x: Tensor) -> None:
        """Take the size of the inputs from the first of them, [..., in_channels]."""
        weight = self._parameters.get("weight")  # a computed one has its size
        if isinstance(weight, UninitializedParameter):
            with torch.no_grad():
                self.in_features = x.size(-1)
                weight.materialize((self.out_features, self.in_features))
                self.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """[..., in_channels] to [..., out_channels]"""
        self.see(x)
        return super().forward(x)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        if isinstance(self.weight, UninitializedParameter):  # it cannot be detached
            destination[f"{prefix}weight"] = self.weight
            if self.bias is not None:
                destination[f"{prefix}bias"] = self.bias if keep_vars else self.bias.detach()
        else:
            super()._save_to_state_dict(destination, prefix, keep_vars)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        weight = state_dict.get(f"{prefix}weight")
        if isinstance(weight, UninitializedParameter):
            self.in_features, self.weight = -1, UninitializedParameter()
        elif weight is not None:
            self.see(weight)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_features}, {self.out_features}, bias={self.bias is not None})"


def draw_weight(weight: Tensor, fan: int, how: str | None) -> None:
    """A weight anew, in place: "glorot", "uniform", "kaiming_uniform" or None for that of ``torch.nn.Linear``.

    Raises RuntimeError for another way.
    """
    _check_initializers(how, None)
    if how == "glorot":
        glorot(weight)
    elif how == "uniform":
        uniform(fan, weight)
    else:
        kaiming_uniform(weight, fan=fan, a=math.sqrt(5))


def draw_bias(bias: Tensor | None, fan: int, how: str | None) -> None:
    """A bias anew, in place: "zeros" or None for that of ``torch.nn.Linear``. Raises RuntimeError for another way."""
    _check_initializers(None, how)
    if how == "zeros":
        zeros(bias)
    else:
        uniform(fan, bias)


def _check_initializers(of_weight: str | None, of_bias: str | None) -> None:
    if of_weight not in (None, "glorot", "uniform", "kaiming_uniform"):
        raise RuntimeError(f"Weight initializer '{of_weight}' not supported")
    if of_bias not in (None, "zeros"):
        raise RuntimeError(f"Bias initializer '{of_bias}' not supported")
