"""``gdsl.nn.convert``."""

from __future__ import annotations

from typing import Any

from torch import nn

from gdsl.errors import InputError
from gdsl.nn.conversion.check import check_same
from gdsl.nn.conversion.report import Conversion
from gdsl.nn.conversion.tree import copied, planned, replaced


def convert(
    model: nn.Module,
    *,
    inplace: bool = False,
    sample: Any = None,
    tolerance: float | None = None,
    verbose: bool = True,
) -> nn.Module:
    """A model with torch_geometric's layers, aggregations, norms, poolings and models replaced by those of gdsl.nn.

    What is replaced keeps its parameters and buffers, which are the same tensors, so that an optimizer goes on to work;
    and its mode, hooks, ties and attributes. What cannot be replaced exactly stays, and so do layers of a user's own.

    model:     any module
    inplace:   whether the parts of ``model`` itself are replaced. Else the result is another module on the same
               parameters, and ``model`` is as it was. Where the model is itself a layer, the result is another one
    sample:    arguments of a call, as a tuple or a dict of named ones, to compare on: outputs, and gradients by
               parameters and inputs, in evaluation mode. It does not change the model
    tolerance: how far these may be apart, by the largest number of each tensor; by default some hundred roundings
    verbose:   whether to print what was replaced, and what was not and why; :func:`gdsl.nn.convertible` tells it before

    Raises :class:`gdsl.InputError` for what is no module or has sharded parameters, and where the results on the sample
    are different, with their numbers; the model is then as it was.
    """
    _check_module(model)
    made, report, stay = planned(model, check_copies=not inplace)
    if sample is not None:
        check_same(copied(model), copied(made), sample, tolerance)
    if verbose:
        print(report)
    return replaced(model, stay) if inplace else made


def convertible(model: nn.Module) -> Conversion:
    """What :func:`convert` would replace in a model, and what not and why. The model stays as it is."""
    _check_module(model)
    return planned(model, check_copies=False)[1]


def _check_module(model: Any) -> None:
    if not isinstance(model, nn.Module):
        raise InputError(f"a model is a torch.nn.Module, not a {type(model).__name__}")
