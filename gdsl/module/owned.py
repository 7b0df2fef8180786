"""Torch modules for the linear maps that a layer makes itself, with torch's own names and draws."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

from torch import nn

from gdsl.errors import InputError
from gdsl.language.program import ACTIVATIONS, LIST, Part
from gdsl.runtime import initialise

_ACTIVATIONS: dict[str, Callable[..., nn.Module]] = {
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "elu": nn.ELU,
    "leaky_relu": nn.LeakyReLU,
    "softplus": nn.Softplus,
}
assert set(_ACTIVATIONS) == set(ACTIVATIONS)

_NORMS: dict[str, Callable[[int], nn.Module]] = {"layer_norm": nn.LayerNorm, "batch_norm": nn.BatchNorm1d}


class Called(nn.Module):
    """What holds the parameters of a layer that another one calls. It is not called itself: what it would compute is a
    part of the other one's program."""

    # Programs tell by what is in it, and not by which module it is.
    reads_as = nn.Identity

    def __init__(self, layer: str):
        super().__init__()
        self.layer = layer

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Raises :class:`gdsl.InputError`."""
        raise InputError(f"this {self.layer} is a part of another layer's program: call that, or compile it alone")

    def _get_name(self) -> str:
        return self.layer


def make(part: Part, device: str = "cpu") -> nn.Module:
    """``nn.Linear``, ``nn.Sequential`` for an mlp, or a list of them: maps that are yet to be drawn. Of a layer that is
    called, what holds its parameters."""
    if part.layer:
        return nn.ModuleList() if part.layer == LIST else Called(part.layer)
    if part.count is not None:
        return nn.ModuleList(_one(part, device) for _ in range(part.count))
    return _one(part, device)


def _one(part: Part, device: str) -> nn.Module:
    pairs = list(itertools.pairwise(dim.size for dim in part.sizes))
    if not part.mlp:
        return _map(part, *pairs[0], device)
    layers: list[nn.Module] = []
    for k, sizes in enumerate(pairs):
        layers.append(_map(part, *sizes, device))
        if k < len(pairs) - 1:
            layers += [_NORMS[part.norm](sizes[1])] if part.norm else []
            layers += [_ACTIVATIONS[part.activation.name](*part.activation.arguments)] if part.activation else []
            layers += [nn.Dropout(part.dropout)] if part.dropout else []
    return nn.Sequential(*layers)


def _map(part: Part, inside: int, outside: int, device: str) -> nn.Module:
    return nn.utils.skip_init(nn.Linear, inside, outside, bias=part.bias is not False, device=device)


def draw(part: Part, name: str, module: nn.Module) -> None:
    """Draw a part anew. What a user put in the place of one of its layers draws itself, if it knows how.

    Raises :class:`gdsl.InputError` for weights that are computed from other tensors.
    """
    if part.layer:  # what is in it is drawn by its own declaration
        return
    for path, layer in module.named_modules(prefix=name):
        if type(layer) is nn.Linear:
            _draw_map(part, path, layer)
        elif callable(reset := getattr(layer, "reset_parameters", None)):
            reset()


def _draw_map(part: Part, path: str, layer: nn.Linear) -> None:
    for name in ("weight", "bias"):
        if name not in layer._parameters:
            raise InputError(f"`{path}.{name}` is computed from other tensors (pruned, parametrised): draw those")
    fans = layer.in_features, layer.out_features
    if part.weight is not None:
        initialise.fill(layer.weight, part.weight.name, part.weight.arguments, *fans)
    elif layer.weight.numel():
        nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5))  # as nn.Linear.reset_parameters
    if layer.bias is None:
        return
    if part.bias:
        initialise.fill(layer.bias, part.bias.name, part.bias.arguments, *fans)
    else:
        bound = 1 / math.sqrt(layer.in_features) if layer.in_features else 0.0
        nn.init.uniform_(layer.bias, -bound, bound)
