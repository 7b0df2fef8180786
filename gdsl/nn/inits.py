"""Initial values of parameters, drawn as torch_geometric draws them, so that a seed and a distribution carry over."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def uniform(size: int, value: Tensor | None) -> None:
    """Between plus and minus 1 / sqrt(size), in place."""
    if value is not None:
        bound = 1.0 / math.sqrt(size)
        value.data.uniform_(-bound, bound)


def kaiming_uniform(value: Tensor | None, fan: int, a: float) -> None:
    """He et al., "Delving deep into rectifiers", 2015, for a leaky relu of slope ``a``, in place."""
    if value is not None:
        bound = math.sqrt(6.0 / ((1 + a**2) * fan))
        value.data.uniform_(-bound, bound)


def glorot(value: Tensor | None) -> None:
    """Glorot and Bengio, 2010, with the last two dims as fans, in place."""
    if value is not None:
        bound = math.sqrt(6.0 / (value.size(-2) + value.size(-1)))
        value.data.uniform_(-bound, bound)


def constant(value: Tensor | None, number: float) -> None:
    """One number everywhere, in place."""
    if value is not None:
        value.data.fill_(number)


def zeros(value: Tensor | None) -> None:
    """Zero everywhere, in place."""
    constant(value, 0.0)


def ones(value: Tensor | None) -> None:
    """One everywhere, in place."""
    constant(value, 1.0)


def normal(value: Tensor | None, mean: float, std: float) -> None:
    """From a normal distribution, in place."""
    if value is not None:
        value.data.normal_(mean, std)


def glorot_orthogonal(value: Tensor | None, scale: float) -> None:
    """An orthogonal matrix of a variance of ``scale`` over the sum of the last two dims, in place."""
    if value is not None:
        torch.nn.init.orthogonal_(value.data)
        value.data *= (scale / ((value.size(-2) + value.size(-1)) * value.data.var())).sqrt()


def reset(module: object) -> None:
    """Draw the parameters of a module anew: its own way where it has one, else that of its parts."""
    if hasattr(module, "reset_parameters"):
        module.reset_parameters()
    elif isinstance(module, torch.nn.Module):
        for child in module.children():
            reset(child)
