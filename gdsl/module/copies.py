"""Copies of modules that the look inside makes, so that the user's stay as they are."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


def copy_of(module: Module) -> Module:
    """A copy of a module, also of one that keeps what a call has computed: that is no part of a graph in the copy."""
    computed = (v for part in module.modules() for v in vars(part).values() if isinstance(v, Tensor) and not v.is_leaf)
    return copy.deepcopy(module, {id(value): value.detach().clone() for value in computed})
