"""The least and the largest of integers that decide whether a call may run. On a GPU, where reading them waits for all
that was launched, they are read once for each tensor."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gdsl.locks import Lock
from gdsl.runtime.tracers import run_as_it_is

KEPT = 64


class _Read(NamedTuple):
    tensor: weakref.ref[Tensor]
    state: tuple[Any, ...]
    found: tuple[int, int]


_read: OrderedDict[int, _Read] = OrderedDict()
_lock = Lock()


@run_as_it_is
def extremes(value: Tensor) -> tuple[int, int]:
    """(least, largest) of the numbers of a tensor, which has some.

    Those of a tensor on a GPU are remembered while it is the same and unchanged, as the edges of a graph are: see
    :func:`gdsl.runtime.recent.graph_of`.
    """
    if not waits(value) or value.is_inference():
        return _extremes(value)
    key, state = id(value), (value._version, value.data_ptr(), value.shape, value.stride())
    known = _read.get(key)
    if known is not None and known.tensor() is value and known.state == state:
        return known.found
    found = _extremes(value)
    with _lock:
        # A tensor that dies takes its own with it, and not those of another that has its place.
        _read[key] = _Read(weakref.ref(value, lambda dead: _forget(key, dead)), state, found)
        while len(_read) > KEPT:
            _read.popitem(last=False)
    return found


def _forget(key: int, dead: weakref.ref[Tensor]) -> None:
    with _lock:
        known = _read.get(key)
        if known is not None and known.tensor is dead:
            del _read[key]


def waits(value: Tensor) -> bool:
    """Whether to read a tensor is to wait for what makes it."""
    return not value.is_cpu


def _extremes(value: Tensor) -> tuple[int, int]:
    low, high = value.aminmax()
    if waits(value):
        low, high = torch.stack((low, high)).tolist()  # once, not twice
    return int(low), int(high)
