"""Which class of ours stands for one of torch_geometric's: by its name, and nothing imports the package."""

from __future__ import annotations

import sys

from torch import nn
from torch.nn.utils import parametrize

import gdsl.nn

THEIRS = "torch_geometric"

# Where torch_geometric has its public classes.
_PLACES = ("aggr", "attention", "conv", "dense", "kge", "models", "norm", "pool")


def kind_of(module: nn.Module) -> type:
    """The class, before a parametrization made another one of it."""
    return type(module).__mro__[1] if parametrize.is_parametrized(module) else type(module)


def is_theirs(kind: type) -> bool:
    """Whether it is a class of torch_geometric's own, and not of a user's."""
    return kind.__module__.partition(".")[0] == THEIRS


def twin_of(kind: type) -> type | None:
    """Our class of the same name, if torch_geometric's public one is meant."""
    if not is_theirs(kind) or not kind.__module__.startswith(f"{THEIRS}.nn.") or kind.__name__ not in gdsl.nn._HOMES:
        return None
    # It has inner classes of the same names, too, such as the linear map inside DNAConv.
    public = sys.modules[f"{THEIRS}.nn"]
    places = (public, *(getattr(public, name, None) for name in _PLACES))
    if not any(getattr(place, kind.__name__, None) is kind for place in places):
        return None
    twin = getattr(gdsl.nn, kind.__name__)
    return twin if isinstance(twin, type) and issubclass(twin, nn.Module) else None
