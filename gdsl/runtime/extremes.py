"""The least and the largest of integers that decide whether a call may run. On a GPU, where reading them waits for all
that was launched, they are read once for each tensor."""

from __future__ import annotations

import torch
from torch import Tensor

from gdsl.runtime.tracers import run_as_it_is
from gdsl.runtime.unchanged import Unchanged, state_of

_read: Unchanged[tuple[int, int]] = Unchanged(64)


@run_as_it_is
def extremes(value: Tensor) -> tuple[int, int]:
    """(least, largest) of the numbers of a tensor, which has some.

    Those of a tensor on a GPU are remembered while it is the same and unchanged.
    """
    if not waits(value) or value.is_inference():
        return _extremes(value)
    found = _read.made(id(value), value, value)
    if found is None:
        state, found = state_of(value), _extremes(value)
        _read.keep(id(value), value, state, found)
    return found


def waits(value: Tensor) -> bool:
    """Whether to read a tensor is to wait for what makes it."""
    return not value.is_cpu


def _extremes(value: Tensor) -> tuple[int, int]:
    low, high = value.aminmax()
    if waits(value):
        low, high = torch.stack((low, high)).tolist()  # once, not twice
    return int(low), int(high)
