"""The numbers that tensors hold, and what autocast makes of them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

# Said wherever tensors are made for native code, which a default device of the user's must not move.
CPU = torch.device("cpu")

AUTOCAST = ("cpu", "cuda")  # kinds of device that a layer obeys torch.autocast on

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def autocast(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as an autocast region wants them: a layer counts as an operation of the lower precision.

    As for torch's own operations of that kind, float64 stays, and so does what lies on a device without autocast.
    """
    return {name: lower(value) if isinstance(value, Tensor) else value for name, value in tensors.items()}


def lower(value: Tensor) -> Tensor:
    """A tensor as an autocast region wants it."""
    kind = value.device.type
    if kind not in AUTOCAST or not torch.is_autocast_enabled(kind):
        return value
    if not value.is_floating_point() or value.dtype == torch.float64:
        return value
    return value.to(torch.get_autocast_dtype(kind))


def short(value: torch.dtype | torch.layout) -> str:
    """Its name without torch's before it."""
    return str(value).removeprefix("torch.")
